"""Tasks that want the same invoices at the same moment, step by step in each of their orders, on every database."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sages import connect
from staged import Erp, rows
from uploading import DEFAULTS, SALES, Task, close, ledger, seen_once, stage, upload

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.model import Period
from airflow_cloudbilling.operators.sage_file import OutgoingFile
from airflow_cloudbilling.operators.sage_outbox import Outbox
from airflow_cloudbilling.operators.sage_units import Invoices
from airflow_cloudbilling.reconcile.approval import reject
from airflow_cloudbilling.sandbox.sage import Sage
from airflow_cloudbilling.sandbox.server import Sandbox
from airflow_cloudbilling.staging.ledger import Run
from airflow_cloudbilling.staging.posting import InvoiceKey, Posting
from airflow_cloudbilling.staging.uploads import Upload, Uploads
from airflow_cloudbilling.staging.uploads_intent import File, Item, intend
from airflow_cloudbilling.staging.uploads_results import Results
from airflow_cloudbilling.staging.uploads_selection import Selection, approved

RUN = Run("dag", "upload", "run-1", -1, 1)
OCTOBER = Period.parse("2026-10")
COPIES = 100
Sending = Callable[..., "Upload | None"]


@pytest.fixture(autouse=True)
def _store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep API keys in files: outside a task there are no Variables."""
    monkeypatch.setenv("AIRFLOW__CLOUDBILLING__CREDENTIAL_STORE", "tiny.FileStore")
    monkeypatch.setenv("TINY_STORE", str(tmp_path))


class Overtaken(Invoices):
    """Invoices to which somebody else does something after they were counted and before the file is made."""

    def __init__(self, selection: Selection, meanwhile: Callable[[], Any]) -> None:
        super().__init__(selection, "Orders", None, DEFAULTS)
        self._meanwhile = [meanwhile]

    def file(self) -> OutgoingFile:
        while self._meanwhile:
            self._meanwhile.pop()()
        return super().file()


@pytest.fixture
def send(vendor: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sending:
    """Give a function that sends a selection, with something that happens meanwhile."""
    hook = connect(vendor, monkeypatch)

    def sending(uploads: Uploads, meanwhile: Callable[[], Any], close_id: str | None = None) -> Upload | None:
        chosen = {"approved": approved(uploads.staging, close_id)} if close_id else {"period": OCTOBER}
        unit = Overtaken(Selection(uploads.staging, "sales", **chosen), meanwhile)
        return Outbox(hook, uploads, RUN, "Orders", threading.Event(), hook.get_conn).find_or_send(unit, 0)

    return sending


def test_invoices_that_another_task_takes_before_the_file_is_made_are_its(erp: Erp, sage: Sage, send: Sending) -> None:
    uploads, others = Uploads(stage(erp)), list[Any]()
    found = send(uploads, lambda: others.append(upload(Task("run-2"))))
    assert found is not None
    assert [found.upload_id] == [other["upload_id"] for other in others]
    assert seen_once(sage)  # above all no empty file
    assert ledger(erp) == ["accepted"]


def test_invoices_that_come_before_the_file_is_made_go_along(erp: Erp, sage: Sage, send: Sending) -> None:
    found = send(Uploads(stage(erp)), lambda: stage(erp, range(7)))
    assert found is not None
    assert found.record_count == 7
    assert seen_once(sage, 7)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("changed", "INV-1 was changed; INV-3 was changed"),
        ("posted", "1 were posted meanwhile"),
        ("rejected", "close 'C-1' is rejected; nothing of it is sent"),
    ],
)
def test_of_an_approved_set_that_changes_before_the_file_is_made_nothing_is_sent(
    erp: Erp, sage: Sage, send: Sending, what: str, said: str
) -> None:
    uploads = Uploads(stage(erp))
    close(erp, 1, 3)

    def meanwhile() -> None:
        if what == "changed":
            stage(erp, net="11")
        elif what == "rejected":
            reject(uploads.staging, "C-1", "B. Controller")
        else:
            Posting(uploads.staging).mark([InvoiceKey(*SALES[:3], "INV-1")], "FI-1")

    with pytest.raises(ConfigurationError, match=said):
        send(uploads, meanwhile, "C-1")
    assert (sage.contents, ledger(erp)) == ({}, [])


def test_whoever_rejects_while_a_file_is_made_waits_and_is_told_that_it_goes(erp: Erp, sage: Sage) -> None:
    uploads, said = Uploads(stage(erp)), list[str]()
    close(erp, 1, 3)

    def refuse() -> None:
        with pytest.raises(ConfigurationError) as caught:
            reject(uploads.staging, "C-1", "B. Controller")
        said.append(str(caught.value))

    person = threading.Thread(target=refuse)

    def items() -> list[Item]:
        if not person.ident:
            person.start()
            person.join(0.3)  # no longer than it may take to go wrong
        return [Item(*row, f"R{n}") for n, row in enumerate(members)]

    members = rows(erp, "close_invoice", "provider, account, kind, invoice_id, content_hash")
    file = File("sage", "Orders", "0", close_id="C-1", record_count=2)
    intend(uploads, "u-1", file, RUN, items, [SALES[:3]])
    person.join()
    assert ["went with upload u-1 already" in words for words in said] == [True]
    assert rows(erp, "close", "status") == [("approved",)]


def test_the_ledger_is_read_as_of_one_moment(erp: Erp, sage: Sage) -> None:
    uploads, selection = Uploads(stage(erp)), Selection(stage(erp), "sales", OCTOBER)
    sent = upload(wait=False)["upload_id"]
    with uploads.reading() as connection:
        assert selection.survey(connection) == (0, 0, {sent: 5}, 0)
        Results(uploads, uploads.get(sent)).end("failed")
        assert selection.survey(connection) == (0, 0, {sent: 5}, 0)
        assert uploads.get(sent, connection).status == "submitted"
    with uploads.reading() as connection:
        assert selection.survey(connection) == (5, 0, {}, 0)


def at_once(*runs: str, period: str = "2026-10") -> list[dict[str, Any]]:
    """Upload a month in so many tasks at the same moment, and return their results."""
    results, start = list[dict[str, Any]](), threading.Barrier(len(runs))

    def work(run: str) -> None:
        start.wait()
        results.append(upload(Task(run), period=period, timeout=60))

    workers = [threading.Thread(target=work, args=(run,)) for run in runs]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return results


def test_workers_that_begin_at_once_end_with_one_upload(erp: Erp, vendor: Sandbox, sage: Sage) -> None:
    stage(erp)
    vendor.inject("delay", match="/api/files/Orders", method="POST", seconds=0.5)
    results = at_once(*(f"run-{n}" for n in range(4)))
    assert [result["accepted"] for result in results] == [5] * 4, results
    assert len({result["upload_id"] for result in results}) == 1
    assert seen_once(sage)


@pytest.mark.slow
def test_two_copies_of_a_task_send_each_month_once(
    erp: Erp, vendor: Sandbox, sage: Sage, record_property: Callable[[str, object], None]
) -> None:
    for number in range(COPIES):
        period = Period.month(2000, 1 + number)
        stage(erp, range(5 * number, 5 * number + 5), slice_=SALES._replace(period=period))
        results = at_once("run-1", "run-1", period=period.key)
        assert [result["accepted"] for result in results] == [5, 5], results
        assert len({result["upload_id"] for result in results}) == 1
    assert seen_once(sage, 5 * COPIES)
    assert set(ledger(erp)) == {"accepted"}
    record_property("pairs of copies", COPIES)
