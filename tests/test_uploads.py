"""The upload ledger: each invoice in one file at a time, and the truth about what became of it."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

import pytest
from staged import OCTOBER, Erp, invoice, invoices, load, open_staging, rows
from uploading import approve

from airflow_cloudbilling.errors import ConfigurationError, StagingError
from airflow_cloudbilling.model import Outcome, Period
from airflow_cloudbilling.staging.ledger import Run
from airflow_cloudbilling.staging.loader import Staging
from airflow_cloudbilling.staging.posting import InvoiceKey, Posting
from airflow_cloudbilling.staging.uploads import Upload, Uploads, new_id
from airflow_cloudbilling.staging.uploads_intent import File, Item, TakenError, intend
from airflow_cloudbilling.staging.uploads_results import Ended, Results
from airflow_cloudbilling.staging.uploads_selection import Selection, approved
from airflow_cloudbilling.staging.uploads_sending import is_sending, sending

pytestmark = pytest.mark.each_database

SALES = OCTOBER._replace(kind="sales")
TASK = Run("dag", "upload", "run-1", -1, 1)


@pytest.fixture
def uploads(erp: Erp) -> Uploads:
    staging = open_staging(erp)
    load(staging, invoices(range(5)), SALES)
    return Uploads(staging)


def october(staging: Staging, **more: Any) -> Selection:
    return Selection(staging, "sales", **{"period": Period.parse("2026-10"), **more})


def chosen(selection: Selection) -> list[Item]:
    names = ("provider", "account", "kind", "invoice_id", "content_hash")
    return [Item(*(row[n] for n in names), row["invoice_id"]) for row, _ in selection.invoices()]


def intended(uploads: Uploads, items: Iterable[Item], run: Run = TASK, **changed: Any) -> Upload:
    items, upload_id = list(items), new_id()
    file = File("sage", "Orders", "0" * 64, record_count=len(items))._replace(**changed)
    intend(uploads, upload_id, file, run, lambda: items, {item[:3] for item in items})
    return uploads.get(upload_id)


def sent(uploads: Uploads, tracking_id: str = "T-1", **more: Any) -> Upload:
    upload = intended(uploads, chosen(october(uploads.staging)), **more)
    uploads.submitted(upload.upload_id, tracking_id)
    return uploads.get(upload.upload_id)


def ended(uploads: Uploads, upload: Upload, status: str = "accepted", outcomes: Iterable[Outcome] = ()) -> Ended:
    return Results(uploads, upload).end(status, outcomes, "https://files.example/r")


def items(erp: Erp) -> dict[str, str]:
    return {key.removeprefix("INV-"): status for key, status in rows(erp, "upload_item", "invoice_id, status")}


def test_a_file_takes_the_invoices_that_are_free_and_no_other_gets_them(uploads: Uploads, erp: Erp) -> None:
    selection = october(uploads.staging)
    found = chosen(selection)
    upload = intended(uploads, found)
    assert (upload.status, upload.task_id, upload.record_count) == ("intent", "upload", 5)
    assert set(items(erp).values()) == {"intent"}
    assert chosen(selection) == []
    with uploads.reading() as connection:
        assert selection.survey(connection) == (0, 0, {upload.upload_id: 5}, 0)
    with pytest.raises(TakenError):
        intended(uploads, found)
    assert len(rows(erp, "upload")) == 1  # nothing of the second one is written


def test_invoices_come_in_their_order_with_their_lines_and_exact_amounts(uploads: Uploads) -> None:
    found = list(october(uploads.staging).invoices())
    assert [row["invoice_id"] for row, _ in found] == [f"INV-{n}" for n in range(5)]
    header, lines = found[0]
    assert (str(header["gross_amount"]), header["currency"], header["issue_date"]) == ("12.1", "EUR", None)
    assert [(line["line_number"], str(line["net_amount"])) for line in lines] == [(1, "10"), (2, "10")]
    assert "raw" not in header
    assert "raw" in next(october(uploads.staging).invoices(raw=True))[0]


def test_invoices_are_read_page_by_page(uploads: Uploads) -> None:
    load(uploads.staging, invoices(range(1203), lines=1), SALES)
    many = invoice(5000, lines=30_000)
    load(uploads.staging, many, SALES._replace(account="one"))
    found = [(row["invoice_id"], len(lines)) for row, lines in october(uploads.staging).invoices()]
    assert len(found) == len(set(found)) == 1204
    assert found[-1] == ("INV-5000", 30_000)


def test_only_the_period_and_the_kind_are_chosen(uploads: Uploads) -> None:
    load(uploads.staging, invoices([77]), SALES._replace(period=Period.parse("2026-09")))
    load(uploads.staging, invoices([88]), OCTOBER)
    assert len(chosen(october(uploads.staging))) == 5
    assert [item.invoice_id for item in chosen(october(uploads.staging, period=Period.parse("2026-09")))] == ["INV-77"]


@pytest.mark.parametrize("what", ["changed", "withdrawn", "posted"])
def test_an_invoice_that_is_not_as_it_was_when_the_file_was_made_stops_it(
    uploads: Uploads, erp: Erp, what: str
) -> None:
    found = chosen(october(uploads.staging))
    if what == "posted":
        Posting(uploads.staging).mark([InvoiceKey(*SALES[:3], "INV-1")], "FI-1")
    else:
        changed = invoice(1, net="11") if what == "changed" else []
        load(uploads.staging, [*invoices([0, 2, 3, 4]), *changed], SALES)
    with pytest.raises(TakenError):
        intended(uploads, found)
    assert rows(erp, "upload_item") == []


def test_an_open_invoice_is_frozen_until_its_item_is_rejected(uploads: Uploads, erp: Erp) -> None:
    upload = sent(uploads)
    changed = [*invoices(range(4)), *invoice(4, net="99")]
    assert load(uploads.staging, changed, SALES).merged.frozen == 1
    ended(uploads, upload, outcomes=[Outcome("INV-4", "rejected", "no such tax")])
    assert load(uploads.staging, changed, SALES).merged.changed == 1
    assert [item.invoice_id for item in chosen(october(uploads.staging))] == ["INV-4"]


def test_results_are_written_record_by_record(uploads: Uploads, erp: Erp) -> None:
    upload = sent(uploads)
    outcomes = [
        Outcome("INV-0", "accepted"),
        Outcome("INV-1", "rejected", "no such customer"),
        Outcome("INV-2", "accepted"),
        Outcome("INV-2", "rejected", "second line"),
        Outcome("INV-3", "unknown", "parked"),
        Outcome("inv-4", "accepted"),
    ]
    end = ended(uploads, upload, outcomes=outcomes)
    assert (end.upload.status, end.upload.accepted_count, end.upload.rejected_count) == ("accepted", 2, 2)
    assert (end.unknown, end.strangers, end.first[0]) == (1, 1, outcomes[1])
    assert items(erp) == {"0": "accepted", "1": "rejected", "2": "rejected", "3": "unknown", "4": "accepted"}
    posted = rows(erp, "invoice", "invoice_id, posted_reference", "posted_at IS NOT NULL")
    assert posted == [("INV-0", "Sage T-1"), ("INV-4", "Sage T-1")]
    assert [item.invoice_id for item in chosen(october(uploads.staging))] == ["INV-1", "INV-2"]
    assert rows(erp, "upload_item", "message", "invoice_id = 'INV-1'") == [("no such customer",)]


def test_a_failed_file_frees_its_invoices_but_those_that_sage_accepted(uploads: Uploads, erp: Erp) -> None:
    end = ended(uploads, sent(uploads), "failed", [Outcome("INV-0", "accepted")])
    assert (end.upload.status, end.upload.accepted_count, end.upload.rejected_count) == ("failed", 1, 4)
    assert len(chosen(october(uploads.staging))) == 4
    assert len(rows(erp, "invoice", "invoice_id", "posted_at IS NOT NULL")) == 1


@pytest.mark.parametrize(("status", "said"), [("accepted", "rejected"), ("failed", "accepted")])
def test_when_sage_knows_records_by_other_ids_a_person_looks(
    uploads: Uploads, erp: Erp, status: str, said: str
) -> None:
    upload = sent(uploads)
    end = ended(uploads, upload, status, [Outcome("SAGE-77", said)])
    assert (end.unknown, end.strangers) == (5, 1)
    assert set(items(erp).values()) == {"unknown"}
    assert rows(erp, "invoice", "invoice_id", "posted_at IS NOT NULL") == []
    assert chosen(october(uploads.staging)) == []
    assert Results(uploads, uploads.get(upload.upload_id)).told().unknown == 5


def test_an_end_is_written_once(uploads: Uploads, erp: Erp) -> None:
    upload = sent(uploads)
    ended(uploads, upload, outcomes=[Outcome("INV-1", "rejected", "no")])
    before = erp.everything()
    again = ended(uploads, upload, "failed")
    assert erp.everything() == before
    assert (again.upload.status, again.first) == ("accepted", (Outcome("INV-1", "rejected", "no"),))


def test_two_records_with_one_id_are_refused(uploads: Uploads, erp: Erp) -> None:
    found = chosen(october(uploads.staging))
    with pytest.raises(ConfigurationError, match="have the same record id 'INV-0'"):
        intended(uploads, [found[0], found[1]._replace(record_key="INV-0")])
    sent(uploads)
    load(uploads.staging, invoices([3]), SALES._replace(account="other"))
    with pytest.raises(ConfigurationError, match="same record id 'INV-3'"):
        sent(uploads)
    assert len(rows(erp, "upload")) == 1


def test_a_sender_that_is_dead_leaves_an_unknown_upload(uploads: Uploads, erp: Erp) -> None:
    upload = intended(uploads, chosen(october(uploads.staging)))
    with sending(uploads.engine, upload.upload_id):
        assert is_sending(uploads.engine, upload.upload_id)
        assert uploads.settled(upload).status == "intent"
    assert not is_sending(uploads.engine, upload.upload_id)
    assert uploads.settled(upload).status == "unknown"
    assert set(items(erp).values()) == {"unknown"}
    assert chosen(october(uploads.staging)) == []
    uploads.submitted(upload.upload_id, "T-9")  # the sender was slow, and knows better
    assert uploads.get(upload.upload_id)[6:8] == ("submitted", "T-9")
    assert set(items(erp).values()) == {"submitted"}


def test_a_person_decides_about_an_unknown_upload(uploads: Uploads, erp: Erp) -> None:
    upload = intended(uploads, chosen(october(uploads.staging)))
    uploads.lost(upload.upload_id)
    uploads.not_sent(upload.upload_id, "resolved as not sent")
    assert uploads.get(upload.upload_id).status == "failed"
    assert len(chosen(october(uploads.staging))) == 5
    with pytest.raises(StagingError, match="although Sage tracks it as T-1"):
        uploads.submitted(upload.upload_id, "T-1")
    again = intended(uploads, chosen(october(uploads.staging)))
    uploads.lost(again.upload_id)
    uploads.sent(again.upload_id, "T-2")
    assert uploads.get(again.upload_id)[6:8] == ("submitted", "T-2")


def test_a_task_finds_its_own_upload_again(uploads: Uploads) -> None:
    upload = sent(uploads)
    assert uploads.of_task(TASK._replace(try_number=2), "sage", "Orders") == upload
    for other in ({"run_id": "run-2"}, {"map_index": 3}, {"task_id": None}):
        assert uploads.of_task(TASK._replace(**other), "sage", "Orders") is None
    assert uploads.of_task(TASK, "sage", "Products") is None
    assert uploads.tracked("sage", "T-1") == upload


def test_the_unit_of_an_own_file_is_its_content(uploads: Uploads, erp: Erp) -> None:
    upload = intended(uploads, [], record_count=None)
    with pytest.raises(TakenError):
        intended(uploads, [], record_count=None, reason="again")  # not while it is on its way
    uploads.submitted(upload.upload_id, "T-1")
    end = ended(uploads, upload, outcomes=[Outcome("1", "accepted"), Outcome("2", "rejected", "no")])
    assert end.upload[-3:] == (2, 1, 1)
    with pytest.raises(TakenError):
        intended(uploads, [], record_count=None)
    assert intended(uploads, [], record_count=None, reason="Sage lost it").reason == "Sage lost it"
    assert intended(uploads, [], record_count=None, content_sha256="1" * 64).status == "intent"


def test_workers_at_once_never_take_an_invoice_twice(uploads: Uploads, erp: Erp) -> None:
    taken, start = [], threading.Barrier(6)

    def take(number: int) -> None:
        found = chosen(october(open_staging(erp)))
        start.wait()
        try:
            intended(uploads, found, TASK._replace(run_id=f"run-{number}"))
        except TakenError:
            taken.append(number)

    workers = [threading.Thread(target=take, args=(n,)) for n in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(taken) == 5
    assert len(rows(erp, "upload")) == 1
    assert len(items(erp)) == 5


def test_an_intent_waits_for_a_load_of_the_account(uploads: Uploads, erp: Erp) -> None:
    found, order = chosen(october(uploads.staging)), []

    def load_slowly() -> None:
        with uploads.staging.load(SALES) as one:
            for item in [*invoices(range(4)), *invoice(4, net="99")]:
                one.add(item)
            one.before_merge = lambda connection: (merging.set(), go_on.wait(10), order.append("merged"))
            one.commit()

    merging, go_on = threading.Event(), threading.Event()
    loading = threading.Thread(target=load_slowly)
    loading.start()
    assert merging.wait(10)
    threading.Timer(0.3, go_on.set).start()
    with pytest.raises(TakenError):
        intended(uploads, found)
    loading.join()
    assert order == ["merged"]


# Approved sets


def close(erp: Erp, staging: Staging, numbers: Iterable[int], status: str = "approved") -> None:
    hashes = dict(rows(erp, "invoice", "invoice_id, content_hash", "kind = 'sales'"))
    approve(staging, [(*SALES[:3], f"INV-{n}", hashes[f"INV-{n}"]) for n in numbers], status)


def test_exactly_the_approved_set_is_chosen(uploads: Uploads, erp: Erp) -> None:
    close(erp, uploads.staging, [1, 3])
    selection = october(uploads.staging, approved=approved(uploads.staging, "C-1"))
    assert [item.invoice_id for item in chosen(selection)] == ["INV-1", "INV-3"]
    assert selection.differences() == []
    with pytest.raises(ConfigurationError, match="'C-1' has no purchase invoices, it has sales"):
        Selection(uploads.staging, "purchase", approved=approved(uploads.staging, "C-1"))
    load(uploads.staging, [*invoices([0, 2, 4]), *invoice(3, net="99")], SALES, allow_removals=True)
    assert selection.differences() == ["INV-3 was changed", "INV-1 is no longer staged"]


def test_a_close_that_is_none_is_refused(uploads: Uploads, erp: Erp) -> None:
    with pytest.raises(ConfigurationError, match="there is no close 'C-1'"):
        approved(uploads.staging, "C-1")
    close(erp, uploads.staging, [1], status="rejected")
    with pytest.raises(ConfigurationError, match="'C-1' is rejected"):
        approved(uploads.staging, "C-1")
    erp.execute("UPDATE cloudbilling_close SET status = 'open'")
    with pytest.raises(ConfigurationError, match="'C-1' is open, nobody has approved it yet"):
        approved(uploads.staging, "C-1")
