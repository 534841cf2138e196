"""Pages that wait with their load in the spool, and what a task that is taken up again need not do a second time."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable
from contextlib import suppress

import pytest
import staged
from staged import OCTOBER, Erp, invoices, load, of, open_staging, rows, statuses

from airflow_cloudbilling.errors import IncompleteError, StagingError, WaitError
from airflow_cloudbilling.model import Reject, Slice
from airflow_cloudbilling.staging.ledger import Run
from airflow_cloudbilling.staging.loader import Staging
from airflow_cloudbilling.staging.spool import PIECE, SpooledPage, pieces

RUN = Run("dag", "task", "run", -1, 1)
NEXT_TRY = RUN._replace(try_number=2)
BODIES = [b"", b"one", "zwölf 😀\0".encode() * 9, os.urandom(3 * PIECE + 7), b"0" * (9 * PIECE)]


@pytest.fixture
def staging(erp: Erp) -> Staging:
    return open_staging(erp)


def page(key: str, body: bytes = b"{}") -> SpooledPage:
    digest = hashlib.sha256(body).hexdigest()
    file = pieces(io.BytesIO(body))
    return SpooledPage(key, f"https://vendor.test/{key}", 200, '{"x": "ä"}', digest, len(body), file)


def wait(
    staging: Staging, pages: Iterable[SpooledPage], slice_: Slice = OCTOBER, items: Iterable[object] = ()
) -> tuple[str, str]:
    """Begin or take up a load, receive pages, and wait; return its id and the moment from which its reading counts."""
    with suppress(WaitError), staging.load(slice_, RUN) as one:
        for item in items:
            one.add(item)
        staging.ledger.spool(one.load_id, pages)
        raise WaitError("later", retry_after=100)
    return one.load_id, one.fetch_started_at


def test_pages_come_back_as_they_were_in_their_order(staging: Staging, erp: Erp) -> None:
    load_id, _ = wait(staging, (page(str(n), body) for n, body in enumerate(BODIES)))
    wait(staging, [page("0", b"asked once more")])
    found = staging.ledger.spooled(load_id)
    assert [b"".join(one.body) for one in found] == [*BODIES, b"asked once more"]
    assert [one.request_key for one in found] == ["0", "1", "2", "3", "4", "0"]
    assert [one[1:4] for one in found][3] == ("https://vendor.test/3", 200, '{"x": "ä"}')
    assert max(len(piece) for one in found for piece in one.body) <= PIECE
    assert len(rows(erp, "spool", "sequence")) == 4 + 4 + 1  # random bytes do not get smaller
    assert staging.ledger.spooled("another") == []


def test_a_damaged_page_is_not_taken_for_an_answer(staging: Staging, erp: Erp) -> None:
    load_id, _ = wait(staging, [page("a", BODIES[3])])
    erp.execute("DELETE FROM cloudbilling_spool WHERE chunk = 3")
    with pytest.raises(StagingError, match="damaged"):
        b"".join(staging.ledger.spooled(load_id)[0].body)


def test_a_reading_with_spooled_pages_counts_from_its_beginning(staging: Staging) -> None:
    first = wait(staging, [page("a")])
    assert wait(staging, []) == first
    with staging.load(OCTOBER, RUN) as one:
        assert (one.load_id, one.fetch_started_at) == first


def test_a_reading_without_them_begins_anew(staging: Staging) -> None:
    load_id, first = wait(staging, [])
    again_id, again = wait(staging, [])
    assert again_id == load_id
    assert again > first


@pytest.mark.parametrize(("pages", "left"), [(["a"], ["1" * 64, "2" * 64]), ([], ["2" * 64])])
def test_answers_are_replayed_once(staging: Staging, pages: list[str], left: list[str]) -> None:
    for digit in "12":
        with suppress(WaitError), staging.load(OCTOBER, RUN) as one:
            one.exchanged("https://vendor.test/a", 200, digit * 64)
            one.answered("GET", "{}", digit)
            staging.ledger.spool(one.load_id, map(page, pages))
            raise WaitError("later", retry_after=100)
    assert [answer.sha256 for answer in staging.ledger.answers(one.load_id)] == left


def test_what_could_not_be_read_before_the_wait_is_told_once(staging: Staging, erp: Erp) -> None:
    wait(staging, [page("a")], items=[Reject("broken", "{}", "INV-8")])
    assert load(staging, [Reject("broken", "{}", "INV-8")], run=RUN, quarantine=True).rejected == 1
    assert rows(erp, "reject", "invoice_id") == [("INV-8",)]


def test_the_spool_is_emptied_however_the_load_ends(staging: Staging, erp: Erp) -> None:
    wait(staging, [page("a")])
    load(staging, [], run=RUN)
    assert (statuses(erp), rows(erp, "spool")) == (["committed"], [])
    wait(staging, [page("a")], of("2026-09"))
    with pytest.raises(IncompleteError), staging.load(of("2026-09"), RUN):
        raise IncompleteError("one is missing")
    assert (statuses(erp)[-1], rows(erp, "spool")) == ("failed", [])
    wait(staging, [page("a")], of("2026-08"))
    staging.ledger.begin(of("2026-08"), NEXT_TRY)
    assert (statuses(erp)[-2:], rows(erp, "spool")) == (["abandoned", "running"], [])


def test_a_later_reading_that_is_committed_ends_one_that_waits(staging: Staging, erp: Erp) -> None:
    old, _ = wait(staging, [page("a")])
    load(staging, invoices([1]), run=Run("dag", "task", "other run", -1, 1))
    assert (statuses(erp), rows(erp, "spool")) == (["abandoned", "committed"], [])
    with staging.load(OCTOBER, RUN) as anew:
        assert anew.load_id != old


def test_the_pages_of_other_loads_stay(staging: Staging, erp: Erp) -> None:
    waiting, _ = wait(staging, [page("a")], of("2026-09"))
    wait(staging, [page("a")])
    load(staging, [], run=RUN)
    assert {row[0] for row in rows(erp, "spool", "load_id")} == {waiting}


def test_a_slice_that_this_try_has_committed_is_known_with_its_result(staging: Staging, erp: Erp) -> None:
    items = [*invoices(range(20)), staged.document("A", "INV-1"), Reject("broken", "{}", "INV-99")]
    load(staging, items, quarantine=True, run=RUN._replace(run_id="before"))
    erp.execute("UPDATE cloudbilling_invoice SET posted_at = '2026-11-05' WHERE invoice_id = 'INV-3'")
    done = load(staging, [*items[6:], *invoices([77], net="1"), *invoices([3], net="2")], quarantine=True, run=RUN)
    assert staging.ledger.committed_by(RUN, OCTOBER) == done
    others = (NEXT_TRY, RUN._replace(map_index=3), RUN._replace(run_id="other"), Run())
    assert [staging.ledger.committed_by(run, OCTOBER) for run in others] == [None] * 4
    assert staging.ledger.committed_by(RUN, of("2026-09")) is None


def test_what_a_try_has_not_committed_is_loaded(staging: Staging) -> None:
    wait(staging, [page("a")])
    assert staging.ledger.committed_by(RUN, OCTOBER) is None


def test_a_load_of_no_task_is_nobodys(staging: Staging) -> None:
    load(staging, invoices([1]))
    assert staging.ledger.committed_by(Run(), OCTOBER) is None


def test_the_accounts_of_a_period_are_those_with_a_committed_load(staging: Staging) -> None:
    for account in ("b", "a", "b"):
        load(staging, [], OCTOBER._replace(account=account))
    load(staging, [], of("2026-09")._replace(account="c"))
    load(staging, [], OCTOBER._replace(account="d", kind="usage"))
    wait(staging, [], OCTOBER._replace(account="e"))
    assert staging.ledger.accounts("twotcloud", "purchase", OCTOBER.period) == ["a", "b"]
