"""What is sent after something went wrong, and what is left as it is: later tries, other arguments, a person's word."""

from __future__ import annotations

from pathlib import Path

import pytest
from airflow.sdk.exceptions import AirflowFailException
from staged import Erp
from uploading import SALES, Task, items, ledger, seen_once, stage, upload

from airflow_cloudbilling.model import Outcome, Period
from airflow_cloudbilling.sandbox.sage import Sage
from airflow_cloudbilling.sandbox.server import Sandbox
from airflow_cloudbilling.staging.uploads import Uploads
from airflow_cloudbilling.staging.uploads_results import Results

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
