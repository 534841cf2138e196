"""Uploads to Sage: once for each invoice, found again by retries, and with the truth of each record in the ledger."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from sages import connect
from staged import OCTOBER, Erp, rows
from uploading import SALES, Task, close, items, ledger, operator, seen_once, stage, upload

from airflow_cloudbilling.errors import MalformedReplyError, UnavailableError
from airflow_cloudbilling.operators import sage_sending
from airflow_cloudbilling.operators.sage_upload import SageResultLink
from airflow_cloudbilling.reconcile.approval import approve
from airflow_cloudbilling.reconcile.month import Scope, reconcile
from airflow_cloudbilling.sandbox.sage import Sage
from airflow_cloudbilling.sandbox.server import Sandbox
from airflow_cloudbilling.sandbox.vendor import Answer
from airflow_cloudbilling.staging.posting import InvoiceKey, Posting
from airflow_cloudbilling.staging.uploads import Uploads
from airflow_cloudbilling.staging.uploads_selection import Selection, approved
from airflow_cloudbilling.staging.uploads_sending import sending

RETRY = Task(try_number=2)
POST = "/api/files/Orders"


@pytest.fixture
def erp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Erp:
    """Give a staging database; ``test_uploads`` and ``test_uploads_kill`` show what differs between them."""
    database = Erp("sqlite", tmp_path)
    monkeypatch.setenv("AIRFLOW_CONN_ERP_STAGING", json.dumps(database.connection))
    return database


@pytest.fixture(autouse=True)
def _store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep API keys in files: outside a task there are no Variables."""
    monkeypatch.setenv("AIRFLOW__CLOUDBILLING__CREDENTIAL_STORE", "tiny.FileStore")
    monkeypatch.setenv("TINY_STORE", str(tmp_path))


def content(sage: Sage) -> list[dict[str, Any]]:
    return json.loads(sage.shelf.scopes["Orders"])


@pytest.mark.parametrize("strategy", ["direct", "presigned", "multipart"])
def test_staged_invoices_become_a_file_that_sage_accepts(
    erp: Erp, vendor: Sandbox, sage: Sage, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    connect(vendor, monkeypatch, upload_strategy=strategy)
    stage(erp)
    ti = Task()
    task = operator()
    result = task.execute({"ti": ti})
    (tracking_id,) = sage.uploads
    uri = f"{vendor.files_url}/results/{tracking_id}"
    assert result == {
        "upload_id": result["upload_id"],
        "tracking_id": tracking_id,
        "status": "accepted",
        "scope": "Orders",
        "records": 5,
        "accepted": 5,
        "rejected": 0,
        "result_uri": uri,
    }
    assert seen_once(sage)
    assert sage.leaks == 0
    assert items(erp) == {"accepted": 5}
    assert len(rows(erp, "invoice", "invoice_id", "posted_at IS NOT NULL")) == 5
    assert SageResultLink().get_link(task, ti_key=None) == uri
    assert ti.xcoms == {}
    first = content(sage)[0]
    assert (first["id"], first["customer"]["lastName"], first["lines"][0]["netAmount"]) == ("INV-0", "Jansen BV", 10)


def test_a_task_that_failed_before_there_was_a_result_has_no_link_and_looks_nothing_up(erp: Erp) -> None:
    assert SageResultLink().get_link(operator(), ti_key=None) == ""


def test_what_was_sent_is_not_sent_again(erp: Erp, sage: Sage) -> None:
    stage(erp)
    first = upload()
    assert upload(RETRY) == first
    assert upload(Task("run-2")) == first
    stage(erp, range(7))
    more = upload(Task("run-3"))
    assert more["records"] == 2
    assert seen_once(sage, 7)


def test_an_erp_that_posted_invoices_itself_keeps_them(erp: Erp, sage: Sage) -> None:
    staging = stage(erp)
    Posting(staging).mark([InvoiceKey(*SALES[:3], "INV-1")], "FI-1")
    assert upload()["records"] == 4
    assert "INV-1" not in sage.records


def test_with_nothing_to_send_nothing_is_sent(erp: Erp, sage: Sage, caplog: pytest.LogCaptureFixture) -> None:
    stage(erp)
    result = upload(period="2026-09")
    assert (result["status"], result["records"], result["upload_id"]) == ("empty", 0, None)
    assert "There are no sales invoices of 2026-09 in staging" in caplog.text
    assert ledger(erp) == []
    assert sage.uploads == {}


def test_a_dry_run_shows_what_would_go_and_writes_nothing(erp: Erp, vendor: Sandbox) -> None:
    stage(erp)
    before = erp.everything()
    result = upload(dry_run=True)
    assert (result["status"], result["records"], result["tracking_id"]) == ("dry_run", 5, None)
    assert erp.everything() == before
    assert vendor.requests == []


def test_missing_fields_are_named_before_anything_is_sent(erp: Erp, vendor: Sandbox) -> None:
    stage(erp)
    for dry_run in (True, False):
        with pytest.raises(AirflowFailException) as refused:
            upload(defaults=None, dry_run=dry_run)
        for field in ("deliveryAddress.address1", "customer.email", "currencyRate", "paymentMethod"):
            assert field in str(refused.value)
        assert "paymentMethod (INV-0, INV-1, INV-2)" in str(refused.value)  # once, after all that the same ones lack
    assert vendor.requests == []
    assert ledger(erp) == []


def test_the_same_invoices_give_the_same_bytes(erp: Erp, sage: Sage) -> None:
    stage(erp)
    sage.statuses, sage.rejects = ["failed"], {f"INV-{n}" for n in range(5)}
    for run in ("run-1", "run-2"):
        with pytest.raises(AirflowFailException):
            upload(Task(run))
    assert list(sage.contents.values()) == [2]  # of a file that failed, the invoices may go again


def test_numbers_arrive_to_the_last_digit(erp: Erp, sage: Sage) -> None:
    stage(erp, [1], net="12345678901234567.89")
    upload()
    assert b'"netAmount": 12345678901234567.89' in sage.shelf.scopes["Orders"]


def test_a_mapping_of_ones_own(erp: Erp, sage: Sage) -> None:
    stage(erp)
    mapping = {"id": "invoice.invoice_id", "total": "invoice.gross_amount"}
    upload(scope="Invoices", mapping=mapping, defaults={"book": "cloud"})
    assert json.loads(sage.shelf.scopes["Invoices"])[0] == {"id": "INV-0", "total": 12.1, "book": "cloud"}
    stage(erp, [7], slice_=OCTOBER)
    upload(
        kind="purchase", mapping=lambda invoice, lines: {"id": invoice["invoice_id"], "n": len(lines)}, defaults=None
    )
    assert content(sage) == [{"id": "INV-7", "n": 2}]


# What Sage says


def test_rejected_records_fail_the_task_with_sages_words_and_may_go_again(erp: Erp, sage: Sage) -> None:
    stage(erp)
    sage.rejects = {"INV-1", "INV-3"}
    with pytest.raises(AirflowFailException, match=r"2 of 5 records .* INV-1: INV-1 is not wanted; INV-3") as refused:
        upload()
    assert sage.initial_key not in str(refused.value)
    assert items(erp) == {"accepted": 3, "rejected": 2}
    assert rows(erp, "upload_item", "message", "status = 'rejected'")[0] == ("INV-1 is not wanted",)
    sage.rejects = set()
    again = upload(Task(try_number=2))
    assert (again["records"], again["accepted"]) == (2, 2)
    assert sage.records["INV-0"] == 1
    assert upload(Task("run-2"))["status"] == "accepted"  # nothing is rejected any more


def test_rejected_records_may_be_tolerated(erp: Erp, sage: Sage, caplog: pytest.LogCaptureFixture) -> None:
    stage(erp)
    sage.rejects = {"INV-1"}
    result = upload(fail_on_rejected_records=False)
    assert (result["status"], result["accepted"], result["rejected"]) == ("accepted", 4, 1)
    assert "INV-1 is not wanted" in caplog.text


def test_a_refused_file_fails_the_task_and_its_results_are_read(erp: Erp, sage: Sage) -> None:
    stage(erp)
    sage.statuses = ["validating", "failed"]
    sage.rejects = {"INV-1"}
    with pytest.raises(AirflowFailException, match=r"Sage refused upload .* INV-1 is not wanted"):
        upload()
    assert ledger(erp) == ["failed"]
    assert items(erp) == {"accepted": 4, "rejected": 1}  # a record's own word counts


def test_what_sage_says_of_the_file_as_a_whole_is_told(tmp_path: Path, erp: Erp, sage: Sage) -> None:
    file = tmp_path / "orders.json"
    file.write_text('{"no": "list"}')
    with pytest.raises(AirflowFailException, match="expected a list of objects with an id"):
        upload(source=str(file), period=None)


def test_states_can_be_named_and_unknown_ones_are_pending(erp: Erp, sage: Sage) -> None:
    stage(erp)
    sage.statuses = ["who knows", "Done-OK"]
    assert upload(success_states=["done ok"])["status"] == "accepted"
    assert [one.polls for one in sage.uploads.values()] == [2]


def test_after_the_timeout_the_last_state_is_told_and_a_retry_goes_on(erp: Erp, sage: Sage) -> None:
    stage(erp)
    sage.statuses = ["processing"]
    with pytest.raises(UnavailableError, match=r"its last state is processing, 100.* next try goes on waiting"):
        upload(timeout=0.3)
    assert rows(erp, "upload", "status, progress") == [("submitted", "processing, 100")]
    (one,) = sage.uploads.values()
    one.statuses = ["accepted"]
    assert upload(RETRY)["accepted"] == 5
    assert seen_once(sage)


def test_an_outage_does_not_end_the_wait_unless_it_lasts(erp: Erp, vendor: Sandbox, sage: Sage) -> None:
    stage(erp)
    vendor.inject("status", match="/tracking", status=503, headers={"Retry-After": "0"}, times=12)
    assert upload()["status"] == "accepted"
    stage(erp, range(6))
    vendor.inject("html", match="/tracking", times=None)
    with pytest.raises(MalformedReplyError, match="status was expected as a JSON object"):
        upload(Task("run-2"), outage=0.1)
    vendor.clear_faults()
    assert upload(Task("run-2", 2))["accepted"] == 1
    assert seen_once(sage, 6)


def test_results_that_cannot_be_fetched_yet_leave_the_upload_to_a_retry(erp: Erp, vendor: Sandbox, sage: Sage) -> None:
    stage(erp)
    vendor.inject("body", match="/results/", body="{cut", times=None)
    with pytest.raises(MalformedReplyError, match=r"result file at .* cannot be read"):
        upload(outage=0)
    assert ledger(erp) == ["submitted"]
    vendor.clear_faults()
    assert upload(RETRY)["accepted"] == 5
    assert seen_once(sage)


def test_a_long_wait_that_sage_asks_for_does_not_outlast_the_timeout(erp: Erp, vendor: Sandbox, sage: Sage) -> None:
    stage(erp)
    vendor.inject("status", match="/tracking", status=429, headers={"Retry-After": "5"}, times=None)
    began = time.monotonic()
    with pytest.raises(UnavailableError, match="next try goes on waiting"):
        upload(timeout=0.5)
    assert time.monotonic() - began < 4


def test_an_expired_key_is_rotated_in_the_middle(erp: Erp, sage: Sage) -> None:
    stage(erp)
    sage.key_uses = 2
    assert upload()["status"] == "accepted"
    assert sage.rotations >= 1


# What may go wrong on the way


def test_a_refused_request_frees_the_invoices(erp: Erp, vendor: Sandbox, sage: Sage) -> None:
    stage(erp)
    vendor.serve(f"/sage{POST}", Answer.text(400, "the books are closed"))
    with pytest.raises(AirflowFailException, match="the books are closed"):
        upload()
    assert ledger(erp) == ["failed"]
    assert items(erp) == {"failed": 5}
    vendor.serve(f"/sage{POST}", sage.answer)
    assert upload(RETRY)["accepted"] == 5
    assert seen_once(sage)


def test_a_sage_that_cannot_be_reached_has_nothing(
    erp: Erp, vendor: Sandbox, sage: Sage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage(erp)
    with monkeypatch.context() as changed:
        connect(vendor, changed, host="http://127.0.0.1:1", max_attempts=1)
        with pytest.raises(UnavailableError):
            upload()
    assert ledger(erp) == ["failed"]
    assert upload(RETRY)["accepted"] == 5


@pytest.mark.parametrize("fault", [{"fault": "reset"}, {"fault": "status", "status": 500}, {"fault": "cut", "at": 3}])
def test_an_answer_in_doubt_leaves_an_unknown_upload_until_a_person_decides(
    erp: Erp, vendor: Sandbox, sage: Sage, fault: dict[str, Any]
) -> None:
    stage(erp)
    vendor.inject(match=POST, method="POST", **fault)
    with pytest.raises(AirflowFailException, match=r"nobody knows whether upload .* has reached Sage"):
        upload()
    assert ledger(erp) == ["unknown"]
    for ti in (RETRY, Task("run-2")):
        with pytest.raises(AirflowFailException, match='resolve="sent" and tracking_id'):
            upload(ti)
    (tracking_id,) = sage.uploads  # it was carried out
    assert upload(Task(try_number=3), resolve="sent", tracking_id=tracking_id)["accepted"] == 5
    assert items(erp) == {"accepted": 5}
    assert seen_once(sage)


def test_an_id_that_another_upload_has_resolves_nothing(erp: Erp, vendor: Sandbox, sage: Sage) -> None:
    stage(erp)
    before = upload()["tracking_id"]
    stage(erp, range(6))
    vendor.inject("reset", match=POST, method="POST")
    for ti in (Task("run-2"), Task("run-2", 2)):
        with pytest.raises(AirflowFailException, match="nobody knows"):
            upload(ti)
    with pytest.raises(AirflowFailException, match="which is another file"):
        upload(Task("run-2", 3), resolve="sent", tracking_id=before)  # left in the DAG from last time
    assert ledger(erp) == ["accepted", "unknown"]


def test_an_id_that_cannot_be_written_is_told(erp: Erp, sage: Sage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage(erp)
    monkeypatch.setattr(sage_sending, "_PAUSES", ())
    erp.execute(
        "CREATE TRIGGER out_of_order BEFORE UPDATE ON cloudbilling_upload BEGIN SELECT RAISE(ABORT, 'disk full'); END"
    )
    with pytest.raises(AirflowFailException) as caught:
        upload()
    (tracking_id,) = sage.uploads
    assert f'resolve="sent" and tracking_id={tracking_id!r}' in str(caught.value)
    erp.execute("DROP TRIGGER out_of_order")
    with pytest.raises(AirflowFailException, match="nobody knows"):
        upload(RETRY)
    assert upload(Task(try_number=3), resolve="sent", tracking_id=tracking_id)["accepted"] == 5
    assert seen_once(sage)


def test_a_person_may_say_that_it_was_not_sent(erp: Erp, vendor: Sandbox, sage: Sage) -> None:
    stage(erp)
    vendor.inject("status", match=POST, method="POST", status=500)
    with pytest.raises(AirflowFailException):
        upload()
    sage.records.clear()  # Sage lost it
    sage.contents.clear()
    assert upload(Task("run-2"), resolve="not_sent")["accepted"] == 5
    assert ledger(erp) == ["failed", "accepted"]
    assert upload(Task("run-2", 2), resolve="not_sent")["accepted"] == 5  # nothing is unknown any more
    assert seen_once(sage)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"resolve": "maybe"}, "'maybe' is neither 'sent' nor 'not_sent'"),
        ({"resolve": "sent"}, "the id that Sage shows"),
        ({"resend": "again"}, "is for a file of your own"),
        ({"source": "x", "close_id": "y"}, "either a file or which invoices"),
        ({"source": "/nowhere/orders.json", "period": None}, "orders.json cannot be read"),
        ({"close_id": "C-9"}, "there is no close 'C-9'"),
        ({"close_id": ""}, "close_id.*is empty"),  # rendered so, it is no leave to send the whole month
        ({"source": "None"}, "source.*is empty"),
        ({"scope": "Invoices"}, "have no mapping to the scope 'Invoices'"),
        ({"period": "2026-13"}, "is not a month"),
    ],
)
def test_what_makes_no_sense_is_told_before_any_request(
    erp: Erp, vendor: Sandbox, arguments: dict[str, Any], said: str
) -> None:
    stage(erp)
    with pytest.raises(Exception, match=said):
        upload(**arguments)
    assert vendor.requests == []
    assert ledger(erp) == []


def test_a_presigned_upload_that_never_arrives_is_waited_for_and_can_be_given_up(
    erp: Erp, vendor: Sandbox, sage: Sage, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(vendor, monkeypatch, upload_strategy="presigned", max_attempts=1)
    stage(erp)
    vendor.inject("status", match="/uploads/", method="PUT", status=500)
    with pytest.raises(UnavailableError, match="Sage tracks it as"):
        upload()
    assert ledger(erp) == ["submitted"]
    (tracking_id,) = sage.uploads
    sage.uploads[tracking_id].received = 0  # as if the file had been lost
    with pytest.raises(UnavailableError, match="last state is awaiting_upload"):
        upload(RETRY, timeout=0.2)
    sage.records.clear()
    sage.contents.clear()
    assert upload(Task(try_number=3), resolve="not_sent", tracking_id=tracking_id)["accepted"] == 5
    assert seen_once(sage)


def test_an_upload_that_is_still_being_sent_is_not_given_up(erp: Erp, sage: Sage) -> None:
    staging = stage(erp)
    sent = upload(wait=False)
    word = {"resolve": "not_sent", "tracking_id": sent["tracking_id"]}
    with (
        sending(staging.engine, sent["upload_id"]),
        pytest.raises(UnavailableError, match="is still being sent by task"),
    ):
        upload(Task("run-2"), **word)
    assert ledger(erp) == ["submitted"]


def test_a_worker_that_finds_another_one_sending_waits_for_it(erp: Erp, vendor: Sandbox, sage: Sage) -> None:
    stage(erp)
    vendor.inject("delay", match=POST, method="POST", seconds=1.5)
    results: list[Any] = []

    def work(run: str) -> None:
        results.append(upload(Task(run)))

    workers = [threading.Thread(target=work, args=(f"run-{n}",)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [result["accepted"] for result in results] == [5] * 4, results
    assert len({result["upload_id"] for result in results}) == 1
    assert seen_once(sage)


def test_a_task_that_is_killed_while_it_waits_leaves_the_upload_to_a_retry(
    erp: Erp, vendor: Sandbox, sage: Sage
) -> None:
    stage(erp)
    sage.statuses = ["processing"]
    task = operator(poll_interval=30)

    def kill_when_it_waits() -> None:
        while not any("tracking" in request.path for request in vendor.requests):
            time.sleep(0.05)
        time.sleep(0.5)
        task.on_kill()

    threading.Thread(target=kill_when_it_waits, daemon=True).start()
    began = time.monotonic()
    with pytest.raises(UnavailableError, match="a retry goes on"):
        task.execute({"ti": Task()})
    assert time.monotonic() - began < 15
    assert ledger(erp) == ["submitted"]
    next(iter(sage.uploads.values())).statuses = ["accepted"]
    assert upload(RETRY)["accepted"] == 5
    assert seen_once(sage)


def test_without_waiting_the_upload_is_left_as_submitted(erp: Erp, sage: Sage) -> None:
    stage(erp)
    result = upload(wait=False)
    assert (result["status"], result["tracking_id"]) == ("submitted", next(iter(sage.uploads)))
    assert upload(RETRY, wait=False) == result


# A user's own file


@pytest.fixture
def orders(tmp_path: Path) -> str:
    path = tmp_path / "orders.json"
    path.write_text('[{"id": "A"}, {"id": "B"}]')
    return str(path)


def test_an_own_file_goes_as_it_is_and_once(erp: Erp, sage: Sage, orders: str) -> None:
    own = {"source": orders, "period": None}
    result = upload(**own)
    assert (result["records"], result["accepted"]) == (2, 2)
    assert sage.shelf.scopes["Orders"] == Path(orders).read_bytes()
    assert upload(Task("run-2"), **own) == result
    Path(orders).write_text('[{"id": "C"}]')
    assert upload(Task("run-2"), **own)["records"] == 1
    assert seen_once(sage, 3)


def test_an_own_file_goes_again_with_a_reason_once(erp: Erp, sage: Sage, orders: str) -> None:
    own, reason = {"source": orders, "period": None}, {"resend": "Sage restored a backup"}
    upload(**own)
    again = upload(Task("run-2"), **reason, **own)
    for ti in (Task("run-2", 2), Task("run-3")):
        assert upload(ti, **reason, **own) == again
    assert rows(erp, "upload", "reason, status") == [("Sage restored a backup", "accepted"), (None, "accepted")]
    assert set(sage.records.values()) == {2}
    Path(orders).write_text('[{"id": "C"}]')  # the reason is left in the DAG, and speaks for no other file
    for ti in (Task("run-4"), Task("run-4", 2), Task("run-5")):
        assert upload(ti, **reason, **own)["records"] == 1
    assert sage.records["C"] == 1


def test_an_own_file_in_doubt_is_not_sent_again(erp: Erp, vendor: Sandbox, sage: Sage, orders: str) -> None:
    own = {"source": orders, "period": None}
    vendor.inject("reset", match=POST, method="POST")
    for ti in (Task(), RETRY, Task("run-2")):
        with pytest.raises(AirflowFailException, match=r"a file for Orders, SHA-256 [0-9a-f]{64}"):
            upload(ti, resend="", **own)
    with pytest.raises(AirflowFailException):
        upload(Task("run-3"), resend="please", **own)
    assert set(sage.contents.values()) == {1}


# An approved set


def test_exactly_what_was_approved_is_sent(erp: Erp, sage: Sage) -> None:
    close(erp, 1, 3)
    result = upload(close_id="C-1", period=None)
    assert set(sage.records) == {"INV-1", "INV-3"}
    assert rows(erp, "upload", "close_id") == [("C-1",)]
    assert upload(Task("run-2"), close_id="C-1", period=None) == result


def test_what_changed_since_the_approval_is_named_and_nothing_is_sent(erp: Erp, vendor: Sandbox, sage: Sage) -> None:
    close(erp, 1, 3)
    stage(erp, net="11")
    for dry_run in (True, False):
        with pytest.raises(AirflowFailException, match="INV-1 was changed; INV-3 was changed"):
            upload(close_id="C-1", period=None, dry_run=dry_run)
    assert sage.uploads == {}


def test_an_approved_invoice_that_went_elsewhere_is_named(erp: Erp, sage: Sage) -> None:
    close(erp, 1, 3)
    one = upload(mapping=None)
    with pytest.raises(AirflowFailException, match=f"2 went with upload {one['upload_id']}"):
        upload(Task("run-2"), close_id="C-1", period=None)


def test_a_second_close_of_a_month_sends_what_came_since_the_first(erp: Erp, sage: Sage) -> None:
    stage(erp, range(3))
    first = upload(mapping=None)
    close(erp, *range(5))
    erp.execute("UPDATE cloudbilling_invoice SET posted_at = '2026-11-01 00:00:00' WHERE posted_at IS NOT NULL")
    erp.execute("UPDATE cloudbilling_close SET created_at = '2026-11-02 00:00:00'")
    second = upload(Task("run-2"), close_id="C-1", period=None)
    assert (first["records"], second["records"]) == (3, 2)
    assert set(sage.records) == {f"INV-{n}" for n in range(5)}
    assert upload(Task("run-3"), close_id="C-1", period=None) == second


def test_a_close_that_sage_took_in_part_goes_on_after_one_of_the_rest_was_posted_by_hand(erp: Erp, sage: Sage) -> None:
    staging, month = stage(erp), Scope(SALES.period)
    close_id = reconcile(staging, month).close.close_id
    own = {"period": None, "close_id": close_id}
    approve(staging, close_id, "A. Controller")
    sage.rejects = {"INV-1", "INV-2"}
    first = upload(fail_on_rejected_records=False, **own)
    assert (first["accepted"], first["rejected"]) == (3, 2)
    assert reconcile(staging, month).close.status == "approved"
    Posting(staging).mark([InvoiceKey(*SALES[:3], "INV-1")], "typed in")
    sage.rejects = set()
    with pytest.raises(AirflowFailException, match="1 were posted meanwhile"):
        upload(Task("run-2"), **own)
    again = reconcile(staging, month).close
    assert (again.close_id, again.status) == (close_id, "open")  # who approved it did not know
    approve(staging, close_id, "B. Controller")
    second = upload(Task("run-3"), **own)
    assert (second["records"], second["accepted"]) == (1, 1)
    with Uploads(staging).reading() as connection:  # each knows its own, the other was posted before
        survey = Selection(staging, "sales", approved=approved(staging, close_id)).survey(connection)
    assert survey == (0, 5, {first["upload_id"]: 3, second["upload_id"]: 1}, 1)
    assert upload(Task("run-4"), **own)["upload_id"] in survey.uploads
    assert dict(sage.records) == {"INV-0": 1, "INV-1": 1, "INV-2": 2, "INV-3": 1, "INV-4": 1}
    assert reconcile(staging, month).close.status == "approved"


# Secrets


def test_no_secret_stands_in_log_ledger_result_or_error(
    erp: Erp, vendor: Sandbox, sage: Sage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    connect(vendor, monkeypatch, upload_strategy="presigned")
    stage(erp)
    sage.key_uses, sage.rejects = 3, {"INV-1"}
    ti = Task()
    with pytest.raises(AirflowFailException) as refused:
        upload(ti)
    told = caplog.text + erp.everything() + repr(ti.xcoms) + str(refused.value)
    assert sage.rotations
    signatures = [one.signature(kind) for one in sage.uploads.values() for kind in ("uploads", "results")]
    for secret in (sage.initial_key, sage.secret, sage.key, *signatures):
        assert secret
        assert secret not in told
    assert sage.leaks == 0


# The example


def test_the_example_sends_a_month_and_running_it_again_sends_nothing(
    vendor: Sandbox, sage: Sage, staging: Path, run_dag: Callable[..., dict[str, Any]]
) -> None:
    sage.statuses = ["accepted"]  # it asks every 30 s
    month = vendor.months[-1]
    example = Path(__file__).parents[1] / "example_dags" / "sage_upload.py"
    looked = run_dag(example, partition_key=month, dry_run=True)
    assert (looked["build"]["status"], "upload" in looked, sage.uploads) == ("dry_run", False, {})
    first = run_dag(example, period=month)
    staged = first["stage"]["invoices"]
    assert staged > 0
    assert first["build"]["records"] == first["wait"]["accepted"] == staged
    again = run_dag(example, partition_key=month)
    assert again["wait"] == first["wait"]
    assert seen_once(sage, staged)
