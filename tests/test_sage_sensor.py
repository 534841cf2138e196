"""Waiting for Sage: on a worker, rescheduled and in the triggerer, with one client for all and no worker held."""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowRescheduleException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferred,
)
from airflow.sdk.serde import deserialize, serialize
from sages import CONN_ID, connect
from staged import Erp, rows
from tiny import FileStore
from uploading import DEFAULTS, Task, items, ledger, operator, seen_once, stage, upload

from airflow_cloudbilling.errors import RefusedError, UnavailableError
from airflow_cloudbilling.hooks.sage import Tracking
from airflow_cloudbilling.operators.sage_upload import SageResultLink
from airflow_cloudbilling.sandbox.sage import Sage
from airflow_cloudbilling.sandbox.server import Sandbox
from airflow_cloudbilling.sensors.sage import SageUploadSensor
from airflow_cloudbilling.sources.sage_results import States
from airflow_cloudbilling.sources.sage_watch import Watch
from airflow_cloudbilling.triggers.sage import SageUploadTrigger

ROOT = Path(__file__).parents[1]
DAG_FILE = """
from airflow.sdk import DAG
from airflow_cloudbilling.operators.sage import SageUploadOperator
from airflow_cloudbilling.sensors.sage import SageUploadSensor

with DAG("sends", schedule=None):
    send = SageUploadOperator(
        task_id="send", conn_id="{conn_id}", staging_conn_id="erp_staging", period="2026-10", defaults={defaults},
        poll_interval=0.1, timeout=60, {more}
    )
    SageUploadSensor(
        task_id="wait", conn_id="{conn_id}", tracking_id="{{{{ ti.xcom_pull(task_ids='send')['tracking_id'] }}}}",
        staging_conn_id="erp_staging", poke_interval=0.1, timeout=60, {sensor}
    ) << send
"""


@pytest.fixture
def erp(staging: Path) -> Erp:
    """Give a staging database of SQLite."""
    database = Erp("sqlite", staging.parent)
    database.connection["host"] = str(staging)
    return database


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileStore:
    """Keep API keys in files: outside a task there are no Variables."""
    monkeypatch.setenv("AIRFLOW__CLOUDBILLING__CREDENTIAL_STORE", "tiny.FileStore")
    monkeypatch.setenv("TINY_STORE", str(tmp_path))
    return FileStore(tmp_path)


@pytest.fixture
def sent(erp: Erp, sage: Sage) -> dict[str, Any]:
    """Send five invoices, and do not wait for them."""
    stage(erp)
    return upload(wait=False)


def sensor(result: dict[str, Any], **arguments: Any) -> SageUploadSensor:
    given = {"tracking_id": result["tracking_id"], "poke_interval": 0.05, "timeout": 20, **arguments}
    return SageUploadSensor(task_id="wait", conn_id=CONN_ID, **given)


def trigger(tracking_id: str, **changed: Any) -> SageUploadTrigger:
    given = {"deadline": time.time() + 20, "poll_interval": 0.05, "outage": 10.0, **changed}
    return SageUploadTrigger(CONN_ID, tracking_id, **given)


def deferred(call: Callable[[], Any], method: str = "resume") -> SageUploadTrigger:
    """Let a task defer; return its trigger as the triggerer gets it."""
    with pytest.raises(TaskDeferred) as wait:
        call()
    path, made_of = wait.value.trigger.serialize()
    assert path == "airflow_cloudbilling.triggers.sage.SageUploadTrigger"
    assert json.loads(json.dumps(made_of)) == made_of  # plain values
    assert (wait.value.method_name, wait.value.kwargs) == (method, None)  # all stands in the event
    return SageUploadTrigger(**deserialize(serialize(made_of)))


def event(one: SageUploadTrigger) -> dict[str, Any]:
    return events([one])[0]


def events(triggers: list[SageUploadTrigger]) -> list[dict[str, Any]]:
    """Run triggers on one loop, as a triggerer does."""

    async def collect(one: SageUploadTrigger) -> dict[str, Any]:
        (found,) = [event.payload async for event in one.run()]
        return found

    async def all_of_them() -> list[dict[str, Any]]:
        return await asyncio.gather(*map(collect, triggers))

    return asyncio.run(asyncio.wait_for(all_of_them(), 60))


# On a worker


def test_the_sensor_waits_and_says_what_became_of_the_upload(sent: dict[str, Any], sage: Sage, erp: Erp) -> None:
    result = sensor(sent).execute({})
    assert (result["tracking_id"], result["status"]) == (sent["tracking_id"], "accepted")
    assert "sig=" not in result["result_uri"]
    assert ledger(erp) == ["submitted"]  # it was not told of the ledger


def test_with_the_ledger_it_writes_the_results(sent: dict[str, Any], erp: Erp) -> None:
    result = sensor(sent, staging_conn_id="erp_staging").execute({})
    assert (result["upload_id"], result["accepted"]) == (sent["upload_id"], 5)
    assert items(erp) == {"accepted": 5}
    assert sensor(sent, staging_conn_id="erp_staging").execute({}) == result


def test_an_id_that_a_template_made_a_number_is_a_text(erp: Erp, vendor: Sandbox) -> None:
    vendor.serve("/sage/api/files/7/tracking", '{"status": "accepted"}')
    result = sensor({"tracking_id": 7}, staging_conn_id="erp_staging").execute({})
    assert (result["tracking_id"], result["status"]) == ("7", "accepted")


@pytest.mark.parametrize("with_ledger", [False, True])
def test_a_refused_upload_fails_the_sensor_for_good(sent: dict[str, Any], sage: Sage, with_ledger: bool) -> None:
    sage.uploads[sent["tracking_id"]].statuses = ["validating", "Failed"]
    more = {"staging_conn_id": "erp_staging"} if with_ledger else {}
    with pytest.raises(AirflowFailException, match="Sage refused upload"):
        sensor(sent, **more).execute({})


def test_rejected_records_fail_the_sensor_unless_they_are_tolerated(erp: Erp, sage: Sage) -> None:
    stage(erp)
    sage.rejects = {"INV-1"}
    result = upload(wait=False)
    known = {"staging_conn_id": "erp_staging"}
    with pytest.raises(AirflowFailException, match="INV-1 is not wanted"):
        sensor(result, **known).execute({})
    assert sensor(result, fail_on_rejected_records=False, **known).execute({})["rejected"] == 1


@pytest.mark.parametrize("tracking_id", ["", "None"])
def test_when_nothing_was_sent_there_is_nothing_to_wait_for(vendor: Sandbox, tracking_id: str) -> None:
    assert sensor({"tracking_id": tracking_id}).execute({})["status"] == "empty"
    assert vendor.requests == []


def test_an_upload_that_sage_does_not_know_fails_after_a_grace(sent: dict[str, Any], sage: Sage) -> None:
    for grace in (0, 0.3):
        with pytest.raises(AirflowFailException, match="404"):
            sensor({"tracking_id": "nothing"}, grace=grace).execute({})
    found = sage.uploads.pop(sent["tracking_id"])
    threading.Timer(0.5, sage.uploads.__setitem__, (sent["tracking_id"], found)).start()
    assert sensor(sent).execute({})["status"] == "accepted"


@pytest.mark.parametrize(
    ("ago", "ends"),
    [(None, AirflowRescheduleException), (50, AirflowRescheduleException), (70, AirflowFailException)],
)
def test_the_grace_of_a_rescheduled_sensor_counts_from_its_first_question(
    sage: Sage, ago: float | None, ends: type[Exception]
) -> None:
    class Rescheduled(Task):
        def get_first_reschedule_date(self, context: Any) -> datetime | None:
            return None if ago is None else datetime.now(timezone.utc) - timedelta(seconds=ago)

    with pytest.raises(ends):
        sensor({"tracking_id": "nothing"}, mode="reschedule", timeout=100).execute({"ti": Rescheduled()})


def test_the_last_state_is_told_when_the_time_is_over(sent: dict[str, Any], sage: Sage) -> None:
    sage.uploads[sent["tracking_id"]].statuses = ["in review"]
    with pytest.raises(AirflowSensorTimeout, match="last state is in review, 100"):
        sensor(sent, timeout=0.2).execute({})
    with pytest.raises(AirflowSkipException):
        sensor(sent, timeout=0.2, soft_fail=True).execute({})


def test_an_outage_does_not_end_the_wait(sent: dict[str, Any], vendor: Sandbox) -> None:
    vendor.inject("status", match="/tracking", status=503, headers={"Retry-After": "0"}, times=12)
    assert sensor(sent).execute({})["status"] == "accepted"


# In the triggerer


def test_the_trigger_waits_and_its_event_holds_ids_and_states_only(sent: dict[str, Any], sage: Sage) -> None:
    found = event(trigger(sent["tracking_id"], deadline=9e9))
    told = {"tracking_id": sent["tracking_id"], "status": "ended", "state": "accepted, 100", "answers": 3}
    assert found == {**told, "deadline": 9e9, "barren": 0}


def test_the_sensor_is_deferred_and_taken_up(sent: dict[str, Any], erp: Erp) -> None:
    task = sensor(sent, deferrable=True, staging_conn_id="erp_staging")
    one = deferred(lambda: task.execute({}), "execute_complete")
    result = sensor(sent, staging_conn_id="erp_staging").execute_complete({}, event(one))
    assert result["accepted"] == 5
    assert items(erp) == {"accepted": 5}


def test_a_deferred_sensor_waits_for_an_upload_that_sage_does_not_know_yet(sent: dict[str, Any], sage: Sage) -> None:
    found = sage.uploads.pop(sent["tracking_id"])
    one = deferred(lambda: sensor(sent, deferrable=True).execute({}), "execute_complete")
    threading.Timer(0.5, sage.uploads.__setitem__, (sent["tracking_id"], found)).start()
    assert event(one)["status"] == "ended"


def test_the_operator_is_deferred_and_taken_up(erp: Erp, sage: Sage) -> None:
    stage(erp)
    one = deferred(lambda: upload(deferrable=True))
    assert ledger(erp) == ["submitted"]
    resumed = operator(deferrable=True)
    result = resumed.resume({"ti": Task()}, event(one))
    assert (result["accepted"], SageResultLink().get_link(resumed, ti_key=None)) == (5, result["result_uri"])
    assert items(erp) == {"accepted": 5}
    assert upload(Task(try_number=2), deferrable=True) == result
    assert seen_once(sage)


def test_the_progress_that_a_trigger_saw_is_told_when_the_time_is_over(erp: Erp, sage: Sage) -> None:
    stage(erp)
    sage.statuses = ["in review"]
    one = deferred(lambda: upload(deferrable=True, timeout=1))
    found = event(one)
    assert (found["status"], found["state"]) == ("timeout", "in review, 100")
    with pytest.raises(UnavailableError, match="last state is in review, 100"):
        operator().resume({}, found)
    assert ledger(erp) == ["submitted"]


def test_an_event_that_says_too_much_is_not_believed(erp: Erp, sage: Sage) -> None:
    stage(erp)
    sage.statuses = ["in review"]
    one = deferred(lambda: upload(deferrable=True))
    told = {**event(trigger(one.tracking_id, deadline=one.deadline, success_states=["in review"])), "status": "ended"}
    again = deferred(lambda: operator(deferrable=True).resume({}, told))
    assert again.deadline == one.deadline


@pytest.mark.parametrize("odd", [None, {}, "ended", {"status": "fine"}, {"status": "ended"}])
def test_an_event_that_is_not_known_fails_the_task(sent: dict[str, Any], odd: Any) -> None:
    with pytest.raises(AirflowException, match="not known"):
        sensor(sent).execute_complete({}, odd)
    with pytest.raises(AirflowException, match="not known"):
        operator().resume({}, odd)


def test_a_refusal_ends_the_trigger_and_the_task(sage: Sage) -> None:
    found = event(trigger("nothing"))
    assert (found["status"], found["for_good"]) == ("failed", True)
    with pytest.raises(AirflowFailException, match="404"):
        sensor({"tracking_id": "nothing"}).execute_complete({}, found)


def test_a_time_out_of_the_trigger_is_a_sensors_own(sent: dict[str, Any]) -> None:
    found = {"status": "timeout", "state": "in review", "tracking_id": "T", "deadline": 0, "barren": 0}
    with pytest.raises(AirflowSensorTimeout, match="last state is in review"):
        sensor(sent).execute_complete({}, found)
    with pytest.raises(AirflowSkipException):
        sensor(sent, soft_fail=True).resume_execution("execute_complete", {"event": found}, {})


def test_the_trigger_goes_on_during_an_outage_and_not_for_ever(sent: dict[str, Any], vendor: Sandbox) -> None:
    vendor.inject("status", match="/tracking", status=503, headers={"Retry-After": "0"}, times=12)
    assert event(trigger(sent["tracking_id"]))["status"] == "ended"
    vendor.inject("status", match="/tracking", status=503, headers={"Retry-After": "0"}, times=None)
    found = event(trigger(sent["tracking_id"], outage=0.2))
    assert (found["status"], found["for_good"]) == ("failed", False)


def test_the_trigger_ends_at_its_deadline_although_sage_is_slow(sent: dict[str, Any], vendor: Sandbox) -> None:
    vendor.inject("delay", match="/tracking", seconds=60)
    began = time.monotonic()
    assert event(trigger(sent["tracking_id"], deadline=time.time() + 1))["status"] == "timeout"
    assert time.monotonic() - began < 5
    vendor.clear_faults()


def test_an_expired_key_is_renewed_by_a_worker_and_the_wait_goes_on(
    erp: Erp, vendor: Sandbox, sage: Sage, store: FileStore
) -> None:
    stage(erp)
    sage.statuses = ["in review"]
    one = deferred(lambda: upload(deferrable=True))
    sage.expire_key()
    found = event(one)
    assert found["status"] == "renew"
    assert sage.rotations == 0  # a trigger never rotates
    again = deferred(lambda: operator(deferrable=True).resume({}, found))
    assert sage.rotations == 1
    assert (again.barren, again.deadline) == (1, one.deadline)
    next(iter(sage.uploads.values())).statuses = ["accepted"]
    assert event(again)["status"] == "ended"


def test_a_triggerer_that_never_sees_the_new_key_does_not_go_round_for_ever(sent: dict[str, Any]) -> None:
    blind = {"status": "renew", "answers": 0, "tracking_id": sent["tracking_id"], "deadline": 9e9, "state": ""}
    with pytest.raises(AirflowException, match="same store"):
        sensor(sent).execute_complete({}, {**blind, "barren": 5})


def test_triggers_of_one_loop_share_the_connections_of_one_client(tmp_path: Path) -> None:
    """The benchmark, small: it fails by itself when a trigger has not seen the end of its upload, or asks too often."""
    size = ["--uploads", "400", "--interval", "1", "--output", str(tmp_path)]
    subprocess.run([sys.executable, ROOT / "benchmarks" / "triggers.py", *size], check=True, capture_output=True)
    counts = [line.split(" | ")[0:3] for line in (tmp_path / "triggers.md").read_text().splitlines()[2:4]]
    assert [one[0].strip("| ") for one in counts] == ["40", "400"]
    assert all(1 <= int(one[2]) <= 8 for one in counts)


def test_a_connection_that_was_changed_is_seen_by_those_who_come_later(
    erp: Erp, vendor: Sandbox, sage: Sage, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_cloudbilling.triggers import sage as module

    stage(erp)
    result = upload(wait=False)
    sage.uploads[result["tracking_id"]].statuses = ["in review"] * 40 + ["accepted"]
    monkeypatch.setattr(module, "_FRESH", 0.0)

    async def both() -> tuple[str, str]:
        early = asyncio.create_task(first(trigger(result["tracking_id"])))
        await asyncio.sleep(0.5)
        connect(vendor, monkeypatch, host="http://127.0.0.1:1", max_attempts=1)
        late = await first(trigger(result["tracking_id"], outage=0.0))
        return (await early)["status"], late["status"]

    async def first(one: SageUploadTrigger) -> dict[str, Any]:
        (found,) = [event.payload async for event in one.run()]
        return found

    assert asyncio.run(both()) == ("ended", "failed")


def test_the_trigger_has_no_attribute_of_airflows() -> None:
    assert "queue" not in vars(trigger("T"))


# What is known while it is waited


def test_a_watch_takes_outages_for_so_long_and_refusals_never() -> None:
    now = [0.0]
    watch = Watch(States(), 30, 100, grace=10, clock=lambda: now[0])
    gone, missing = UnavailableError("down", retry_after=50), RefusedError("no", status=404)
    assert watch.failed(missing) == 30  # Sage may not know it yet
    now[0] = 60
    assert watch.failed(gone) == 50
    assert watch.said(Tracking("validating", "3/10")) is None
    assert watch.state == "validating, 3/10"
    now[0] = 130
    watch.failed(gone)
    with pytest.raises(RefusedError):
        watch.failed(missing)
    now[0] = 231
    with pytest.raises(UnavailableError):
        watch.failed(gone)
    assert watch.said(Tracking("Accepted")) == "accepted"
    assert Watch(States(), 30, math.inf).failed(gone) == 50


# As Airflow runs them


@pytest.mark.parametrize(
    ("more", "sensor"),
    [("wait=False", "deferrable=True"), ("deferrable=True", "mode='reschedule'"), ("wait=False", "mode='poke'")],
)
def test_in_a_dag(
    erp: Erp, sage: Sage, dags_folder: Path, run_dag: Callable[..., dict[str, Any]], more: str, sensor: str
) -> None:
    stage(erp)
    file = dags_folder / "sends.py"
    file.write_text(DAG_FILE.format(conn_id=CONN_ID, defaults=DEFAULTS, more=more, sensor=sensor))
    results = run_dag(file)
    assert results["wait"]["accepted"] == 5
    assert items(erp) == {"accepted": 5}
    assert len(rows(erp, "upload", "task_id, run_id, map_index", "map_index = -1 AND task_id = 'send'")) == 1
    assert seen_once(sage)
