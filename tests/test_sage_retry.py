"""What is sent after something went wrong, and what is left as it is: later tries, other arguments, a person's word."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from airflow.providers.standard.triggers.temporal import DateTimeTrigger
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred
from staged import OCTOBER, Erp, invoices, load
from uploading import SALES, Task, close, items, ledger, operator, seen_once, stage, upload

from airflow_cloudbilling.errors import UnavailableError, WaitError
from airflow_cloudbilling.model import Outcome, Period
from airflow_cloudbilling.operators import sage_upload
from airflow_cloudbilling.sandbox.sage import Sage
from airflow_cloudbilling.sandbox.server import Sandbox
from airflow_cloudbilling.sandbox.vendor import Answer, Incoming
from airflow_cloudbilling.staging.uploads import Uploads
from airflow_cloudbilling.staging.uploads_results import Results

pytestmark = pytest.mark.each_database

POST = "/api/files/Orders"
NOVEMBER = SALES._replace(period=Period.parse("2026-11"))


@pytest.fixture(autouse=True)
def _store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep API keys in files: outside a task there are no Variables."""
    monkeypatch.setenv("AIRFLOW__CLOUDBILLING__CREDENTIAL_STORE", "tiny.FileStore")
    monkeypatch.setenv("TINY_STORE", str(tmp_path))


def test_a_word_that_stood_in_the_task_when_a_file_was_sent_is_not_about_that_file(
    erp: Erp, vendor: Sandbox, sage: Sage
) -> None:
    stage(erp)
    word = {"resolve": "not_sent"}  # left in the DAG from last time
    vendor.inject("reset", match=POST, method="POST")
    for ti in (Task(), Task(try_number=2), Task("run-2")):
        with pytest.raises(AirflowFailException, match=r"nobody knows|stood in the task already"):
            upload(ti, **word)
    assert (ledger(erp), seen_once(sage)) == (["unknown"], True)
    ((upload_id,),) = erp.query("SELECT upload_id FROM cloudbilling_upload")
    with pytest.raises(AirflowFailException, match=f"tracking_id='{upload_id}' beside it"):
        upload(Task("run-2"), **word)
    sage.records.clear()  # Sage lost it
    sage.contents.clear()
    assert upload(Task("run-2"), tracking_id=upload_id, **word)["accepted"] == 5
    assert (ledger(erp), seen_once(sage)) == (["failed", "accepted"], True)


def test_a_task_that_is_cleared_with_another_period_sends_that_one(erp: Erp, sage: Sage) -> None:
    stage(erp)
    stage(erp, [7, 8], slice_=NOVEMBER)
    october = upload(wait=False)
    november = upload(Task(try_number=2), period="2026-11")
    assert (november["records"], november["accepted"]) == (2, 2)
    assert upload(Task(try_number=3))["upload_id"] == october["upload_id"]
    assert seen_once(sage, 7)


def test_a_file_that_was_replaced_before_the_retry_is_sent(erp: Erp, sage: Sage, tmp_path: Path) -> None:
    file = tmp_path / "orders.json"
    for try_number, content in enumerate(['[{"id": "A"}]', '[{"id": "B"}, {"id": "C"}]'], 1):
        file.write_text(content)
        upload(Task(try_number=try_number), source=str(file), period=None, wait=False)
    assert seen_once(sage, 3)


@pytest.mark.parametrize("end", ["accepted", "failed"])
def test_what_a_dead_try_wrote_and_never_said_is_said_before_anything_goes_again(
    erp: Erp, sage: Sage, end: str
) -> None:
    uploads = Uploads(stage(erp))
    sent = uploads.get(upload(wait=False)["upload_id"])
    Results(uploads, sent).end(end, [Outcome(f"INV-{n}", "rejected", "no such customer") for n in range(5)])
    with pytest.raises(AirflowFailException, match="INV-0: no such customer"):
        upload(Task(try_number=2))
    assert (items(erp), seen_once(sage)) == ({"rejected": 5}, True)
    assert upload(Task(try_number=3))["accepted"] == 5  # a person has cleared the task
    assert upload(Task(try_number=4))["accepted"] == 5


def test_records_of_an_own_file_that_were_rejected_are_told_by_every_try(erp: Erp, sage: Sage, tmp_path: Path) -> None:
    file = tmp_path / "orders.json"
    file.write_text('[{"id": "A"}, {"id": "B"}]')
    sage.rejects = {"B"}
    for ti in (Task(), Task(try_number=2), Task("run-2")):
        with pytest.raises(AirflowFailException, match="1 of 2 records"):
            upload(ti, source=str(file), period=None)
    assert seen_once(sage, 2)


def test_records_of_which_nobody_knows_are_not_passed_over_for_others_that_went_well(erp: Erp, sage: Sage) -> None:
    uploads = Uploads(stage(erp))
    sent = uploads.get(upload(wait=False)["upload_id"])
    Results(uploads, sent).end("failed", [Outcome("INV-0", "unknown", "parked"), Outcome("INV-1", "accepted")])
    assert upload(Task("run-2"))["accepted"] == 3
    with pytest.raises(AirflowFailException, match="1 have an outcome that is not known"):
        upload(Task("run-3"))
    assert items(erp) == {"unknown": 1, "accepted": 4, "failed": 3}


# Sage wants to be left alone, or the task is stopped


def test_a_long_wait_before_the_file_holds_neither_worker_nor_lock(erp: Erp, vendor: Sandbox, sage: Sage) -> None:
    stage(erp)
    vendor.inject("status", match=POST, method="POST", status=429, headers={"Retry-After": "300"}, times=None)
    with pytest.raises(WaitError, match="due in 300 s"):
        upload()  # its time would be over
    with pytest.raises(TaskDeferred) as wait:
        upload(deferrable=True, timeout=1000)
    assert (type(wait.value.trigger), wait.value.method_name) == (DateTimeTrigger, "send_again")
    assert set(ledger(erp)) == {"failed"}
    vendor.clear_faults()
    assert operator().send_again({"ti": Task()}, {})["accepted"] == 5
    assert seen_once(sage)


def test_a_worker_waits_as_told_and_sends_then(
    erp: Erp, vendor: Sandbox, sage: Sage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage(erp)
    monkeypatch.setattr(sage_upload, "_DEFER_AFTER", 0.5)
    vendor.inject("status", match=POST, method="POST", status=429, headers={"Retry-After": "1"})
    assert upload()["accepted"] == 5
    assert (ledger(erp), seen_once(sage)) == (["failed", "accepted"], True)


def test_a_task_that_is_stopped_while_its_file_goes_out_keeps_the_id(erp: Erp, vendor: Sandbox, sage: Sage) -> None:
    stage(erp)
    task = operator()

    def answer(request: Incoming) -> Answer:
        task.on_kill()
        return sage.answer(request)

    vendor.serve(f"/sage{POST}", answer)
    with pytest.raises(UnavailableError, match=r"the task is being stopped|a retry goes on"):
        task.execute({"ti": Task()})
    assert ledger(erp) == ["submitted"]
    assert upload(Task(try_number=2))["accepted"] == 5
    assert seen_once(sage)


def test_a_task_that_is_stopped_before_its_file_goes_out_leaves_nothing_in_doubt(
    erp: Erp, vendor: Sandbox, sage: Sage
) -> None:
    stage(erp)
    task, began = operator(), time.monotonic()

    def answer(request: Incoming) -> Answer:
        threading.Timer(0.3, task.on_kill).start()  # while it waits as told
        return Answer(429, headers={"Retry-After": "50"})

    vendor.serve(f"/sage{POST}", answer)
    with pytest.raises(UnavailableError, match="the task is being stopped"):
        task.execute({"ti": Task()})
    assert time.monotonic() - began < 40
    assert ledger(erp) == ["failed"]
    vendor.serve(f"/sage{POST}", sage.answer)
    assert upload(Task(try_number=2))["accepted"] == 5
    assert seen_once(sage)


# Answers of no use


def test_a_rotation_that_fails_before_the_file_leaves_nothing_in_doubt(erp: Erp, vendor: Sandbox, sage: Sage) -> None:
    stage(erp)
    sage.expire_key()
    vendor.serve("/sage/api/apikey", "<html>busy</html>")
    with pytest.raises(UnavailableError, match="The file was not sent"):
        upload()
    assert (ledger(erp), sage.contents) == (["failed"], {})
    vendor.serve("/sage/api/apikey", sage.answer)
    assert upload(Task(try_number=2))["accepted"] == 5


def test_an_id_that_sage_gave_to_another_file_is_nobodys(erp: Erp, vendor: Sandbox, sage: Sage) -> None:
    stage(erp)
    tracking_id = upload()["tracking_id"]
    stage(erp, range(6))
    vendor.serve(f"/sage{POST}", f'{{"trackingId": "{tracking_id}"}}')
    with pytest.raises(AirflowFailException, match=f"as {tracking_id}, as which it tracks upload .* another file"):
        upload(Task("run-2"))
    assert ledger(erp) == ["accepted", "unknown"]


def test_a_dry_run_says_what_was_sent_before(
    erp: Erp, vendor: Sandbox, sage: Sage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    stage(erp)
    file = tmp_path / "orders.json"
    file.write_text('[{"id": "A"}]')
    for arguments in ({"source": str(file), "period": None}, {}):
        sent = upload(Task(str(len(arguments))), **arguments)
        caplog.clear()
        assert upload(Task("run-2"), dry_run=True, **arguments)["records"] == 0
        assert f"Dry run: upload {sent['upload_id']} by task 'upload'" in caplog.text
        assert "nothing would be sent to Orders" in caplog.text


def test_kinds_of_a_close_that_are_left_out_are_told(erp: Erp, sage: Sage, caplog: pytest.LogCaptureFixture) -> None:
    staging = stage(erp)
    load(staging, invoices([9]), OCTOBER)
    close(erp, 1, 3, more=[(*OCTOBER[:3], "INV-9")])
    assert upload(close_id="C-1", period=None)["accepted"] == 2
    assert "approved with 1 invoices of other kinds (purchase), which kind='sales' leaves out" in caplog.text
