"""A scope in the staging tables and as a file: what the operator makes of Sage's answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from sages import CONN_ID, connect
from staged import Erp, rows

from airflow_cloudbilling.errors import LoadError, MalformedReplyError, UnavailableError
from airflow_cloudbilling.operators.sage import SageDownloadScopeOperator
from airflow_cloudbilling.sandbox.sage import Sage
from airflow_cloudbilling.sandbox.server import Sandbox

EXAMPLE = Path(__file__).parents[1] / "example_dags" / "sage_scope.py"
PRODUCTS = "/sage/api/files/Products"


def download(**arguments: Any) -> dict[str, Any]:
    given = {"scope": "Products", "staging_conn_id": "erp_staging", **arguments}
    result: dict[str, Any] = SageDownloadScopeOperator(task_id="get", **given).execute({})
    return result


def staged(erp: Erp) -> dict[str, Any]:
    return {key: json.loads(raw) for key, raw in rows(erp, "scope_record", "record_key, raw")}


def serve(sage: Sage, *records: Any) -> None:
    sage.shelf.scopes["Products"] = json.dumps(records).encode()


def test_staging_holds_what_sage_has_and_nothing_else(erp: Erp, sage: Sage) -> None:
    products = json.loads(sage.shelf.scopes["Products"])
    result = download()
    counts = {"status": "committed", "new": len(products), "changed": 0, "unchanged": 0, "removed": 0}
    assert {name: result[name] for name in counts} == counts
    assert (result["scope"], result["uri"], result["records"]) == ("Products", None, len(products))
    assert staged(erp) == {one["id"]: one for one in products}
    serve(sage, products[0], {**products[1], "netPrice": "1"})
    result = download()
    assert [result[n] for n in ("new", "changed", "unchanged", "removed")] == [0, 1, 1, len(products) - 2]
    assert list(staged(erp)) == sorted(one["id"] for one in products[:2])


def test_a_file_and_the_staging_tables_from_one_download(erp: Erp, sage: Sage, tmp_path: Path) -> None:
    result = download(destination=f"{tmp_path}/out/")
    assert (tmp_path / "out/Products.json").read_bytes() == sage.shelf.scopes["Products"]
    assert result["uri"] == f"file://{tmp_path}/out/Products.json"
    assert len(staged(erp)) == result["records"] == result["new"]


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        ("", MalformedReplyError, "scope 'Products'"),
        ("<html>", MalformedReplyError, f"'{CONN_ID}'.*scope 'Products'.*expected"),
        ('[{"id": "P1"}, {"id"', MalformedReplyError, "scope 'Products'"),
        ('[{"id": "P1"}, {"name": "x"}]', MalformedReplyError, "record 2: member 'id': .*missing or empty.*record_id"),
        ('[{"id": "P1"}, {"id": "P1", "v": 2}]', LoadError, "different records with the id 'P1'"),
    ],
)
def test_a_file_that_cannot_be_staged_changes_nothing(
    answer: str, error: type[Exception], words: str, vendor: Sandbox, sage: Sage, erp: Erp, tmp_path: Path
) -> None:
    kept = tmp_path / "products.json"
    download(destination=str(kept))
    before, content = rows(erp, "scope_record"), kept.read_bytes()
    vendor.serve(PRODUCTS, answer)
    with pytest.raises(error, match=words):
        download(destination=str(kept))
    assert rows(erp, "scope_record") == before
    assert kept.read_bytes() == content


def test_a_download_that_breaks_off_changes_nothing(erp: Erp, vendor: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    download()
    before = rows(erp, "scope_record")
    connect(vendor, monkeypatch, max_attempts=2)
    vendor.inject("cut", match="Products", times=None, at=50)
    with pytest.raises(UnavailableError, match="given up after 2 attempts"):
        download()
    assert rows(erp, "scope_record") == before


def test_an_empty_list_is_a_scope_without_records(erp: Erp, sage: Sage) -> None:
    removed = download()["new"]
    serve(sage)
    assert download()["removed"] == removed
    assert staged(erp) == {}


def test_somewhere_it_has_to_go(vendor: Sandbox) -> None:
    with pytest.raises(AirflowFailException, match="'destination': is empty, and staging_conn_id too"):
        download(staging_conn_id="", destination="None")
    assert vendor.requests == []


def test_the_example_keeps_staging_up_to_date(
    staging: Path, sage: Sage, run_dag: Callable[..., dict[str, Any]]
) -> None:
    first = run_dag(EXAMPLE)["download"]
    assert first["new"] == first["records"] > 0
    assert run_dag(EXAMPLE)["download"]["unchanged"] == first["records"]
