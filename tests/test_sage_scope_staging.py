"""A scope's snapshot in staging, on every database: what is gone goes, what stays is not written, all or nothing."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from staged import Erp, open_staging, rows
from test_staging_databases import SessionKiller

from airflow_cloudbilling.errors import ConfigurationError, LoadError
from airflow_cloudbilling.parse import Malformed
from airflow_cloudbilling.sources.sage_scopes import records_of
from airflow_cloudbilling.staging.loader import Staging
from airflow_cloudbilling.staging.scopes import Snapshot, Staged

Contents = Mapping[str, str]
BEFORE = {"A": "1", "B": "2", "C": "3"}


def read(contents: Contents) -> Iterable[tuple[str, str, str]]:
    return [(key, json.dumps({"id": key, "v": value}), f"hash of {value}") for key, value in contents.items()]


def load(staging: Staging, contents: Contents, conn_id: str = "sage", scope: str = "Products") -> Staged:
    with Snapshot(staging, conn_id, scope) as snapshot:
        for row in read(contents):
            snapshot.add(row)
        return snapshot.commit()


def keys(erp: Erp, where: str = "scope = 'Products'") -> list[str]:
    return [row[0] for row in rows(erp, "scope_record", "record_key", where)]


def everything(erp: Erp) -> list[tuple[Any, ...]]:
    return rows(erp, "scope_record")


def test_a_snapshot_replaces_what_is_there(erp: Erp) -> None:
    staging = open_staging(erp)
    assert load(staging, BEFORE) == Staged("committed", new=3)
    assert load(staging, {"A": "1", "C": "4", "D": "5"}) == Staged("committed", 1, 1, 1, 1)
    assert [row[0] for row in rows(erp, "scope_record", "content_hash")] == ["hash of 1", "hash of 4", "hash of 5"]
    assert rows(erp, "scope", "conn_id, scope, record_count") == [("sage", "Products", 3)]
    assert load(staging, {}) == Staged("committed", removed=3)
    assert keys(erp) == []


def test_the_same_snapshot_writes_no_record(erp: Erp) -> None:
    staging = open_staging(erp)
    load(staging, BEFORE)
    before = everything(erp)
    assert load(staging, BEFORE) == Staged("committed", unchanged=3)
    assert everything(erp) == before


def test_scopes_and_connections_are_told_apart(erp: Erp) -> None:
    staging = open_staging(erp)
    load(staging, BEFORE)
    load(staging, BEFORE, scope="products")
    load(staging, {"X": "1"}, conn_id="SAGE")
    load(staging, {})
    assert keys(erp, "scope = 'products' AND conn_id = 'sage'") == ["A", "B", "C"]
    assert keys(erp, "conn_id = 'SAGE'") == ["X"]


def test_keys_are_compared_by_byte(erp: Erp) -> None:
    odd = dict.fromkeys(("a", "A", "ä", "a\u0308", "ß", "ss", "'; --\\", "😀", "x" * 255), "1")
    staging = open_staging(erp)
    assert load(staging, odd).new == len(odd)
    assert load(staging, odd).unchanged == len(odd)
    assert set(keys(erp)) == set(odd)


def test_a_snapshot_that_breaks_off_changes_nothing(erp: Erp) -> None:
    staging = open_staging(erp)
    load(staging, BEFORE)
    before = everything(erp)
    with Snapshot(staging, "sage", "Products") as snapshot:  # which ends as it does when an error ends it
        for row in read({"A": "9", **{str(n): "1" for n in range(5000)}}):
            snapshot.add(row)
    assert everything(erp) == before


def test_a_record_that_comes_twice_counts_once_and_a_contradiction_changes_nothing(erp: Erp) -> None:
    staging = open_staging(erp)
    for contents, words in (([("A", "{}", "1"), ("A", "{}", "1")], ""), ([("A", "{}", "1"), ("A", "{}", "2")], "'A'")):
        with Snapshot(staging, "sage", "Products") as snapshot:
            for row in contents:
                snapshot.add(row)
            if words:
                with pytest.raises(LoadError, match=f"Scope 'Products': different records with the id {words}"):
                    snapshot.commit()
            else:
                assert snapshot.commit() == Staged("committed", new=1)
    assert rows(erp, "scope_record", "content_hash") == [("1",)]
    assert rows(erp, "scope", "record_count") == [(1,)]


def test_a_file_that_was_asked_for_earlier_replaces_none_that_is_newer(erp: Erp) -> None:
    staging = open_staging(erp)
    with Snapshot(staging, "sage", "Products") as earlier:
        load(staging, BEFORE)
        earlier.add(("Z", "{}", "1"))
        assert earlier.commit() == Staged("superseded")
    assert keys(erp) == ["A", "B", "C"]


def test_a_reader_sees_a_snapshot_wholly_or_not_at_all(erp: Erp) -> None:
    staging = open_staging(erp)
    load(staging, BEFORE)
    with Snapshot(staging, "sage", "Products") as snapshot:
        for row in read({str(n): "1" for n in range(3000)}):
            snapshot.add(row)
        assert keys(erp) == ["A", "B", "C"]
        snapshot.commit()
    assert len(keys(erp)) == 3000


@pytest.mark.thorough
def test_a_session_killed_at_any_step_leaves_the_snapshot_before_or_the_one_after(erp: Erp) -> None:
    if erp.kind == "sqlite":
        return  # it has no sessions
    staging, after = open_staging(erp), {"A": "1", "C": "4", "D": "5"}
    load(staging, BEFORE)
    counter = SessionKiller(erp, counted := Staging(erp.engine()), at=0)
    load(counted, after)
    new, failed = contents(erp), 0
    load(staging, BEFORE)
    old = contents(erp)
    for at in range(1, counter.steps + 1):
        SessionKiller(erp, victim := Staging(erp.engine()), at)
        try:
            load(victim, after)
        except Exception:  # SQLAlchemy's, or the driver's own while rows are sent
            failed += 1
        assert contents(erp) in (old, new), f"half a snapshot after step {at}"
        load(staging, BEFORE)
    assert failed > 5


def contents(erp: Erp) -> list[tuple[Any, ...]]:
    return rows(erp, "scope_record", "record_key, content_hash")


@pytest.mark.parametrize(("conn_id", "scope", "field"), [("c" * 251, "S", "conn_id"), ("c", "S" * 129, "scope")])
def test_a_name_that_is_too_long_is_told(conn_id: str, scope: str, field: str) -> None:
    with pytest.raises(ConfigurationError, match=f"'{field}'.*longer than"):
        Snapshot(None, conn_id, scope)


# What a file holds


def of(text: str, scope: str = "Products", **arguments: Any) -> list[tuple[str, str, str]]:
    return [*records_of(io.BytesIO(text.encode()), scope, **arguments)]


def test_records_are_exact_and_without_secrets() -> None:
    ((key, raw, _),) = of('[{"ID": 7, "netPrice": 1.10, "tax": 12345678901234567.89, "apiKey": "k", "n": {"a": 1E+2}}]')
    assert (key, raw) == ("7", '{"ID": 7, "netPrice": 1.10, "tax": 12345678901234567.89, "n": {"a": 1E+2}}')


def test_the_order_of_members_is_no_change_and_the_order_of_a_list_is() -> None:
    (one,), (other,) = of('[{"id": "1", "a": {"x": 1, "y": 2}}]'), of('[{"a": {"y": 2, "x": 1}, "id": "1"}]')
    assert one[2] == other[2]
    assert of('[{"id": "1", "l": [1, 2]}]')[0][2] != of('[{"id": "1", "l": [2, 1]}]')[0][2]


@pytest.mark.parametrize("wrapped", ['[{"id": 1}]', '{"Products": [{"id": 1}]}', '{"total": 1, "data": [{"id": 1}]}'])
def test_a_list_may_be_wrapped(wrapped: str) -> None:
    assert [row[0] for row in of(wrapped)] == ["1"]


def test_another_member_may_identify_a_record() -> None:
    assert of('[{"code": "K-1"}]', record_id="Code")[0][0] == "K-1"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected"),
        ('{"id": 1, "name": "a page"}', "no list of records"),
        ('[{"id": 1}, {"name": "x"}]', "record 2: member 'id': expected an id, it is missing or empty; look at"),
        ('[{"id": " "}]', "record 1: member 'id'.*empty"),
        ('[{"id": [1]}]', "record 1: member 'id': expected a text"),
        ("[7]", "record 1.*expected an object"),
        (f'[{{"id": "{"x" * 256}"}}]', "at most 255 characters"),
        ('[{"id": 1}, {"id"', "."),
    ],
)
def test_a_file_that_cannot_be_staged_says_why(text: str, words: str) -> None:
    with pytest.raises(Malformed, match=words):
        of(text)
