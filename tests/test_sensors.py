"""Waiting until a vendor has billed a month: on a worker, by rescheduling and in the triggerer, over real HTTP."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from datetime import date
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
from tiny import KEY, Server, Tiny, serving

from airflow_cloudbilling.model import Invoice, Portion
from airflow_cloudbilling.sandbox.server import Sandbox
from airflow_cloudbilling.sensors.invoices import InvoicesReadySensor
from airflow_cloudbilling.settings import Settings
from airflow_cloudbilling.source import Ask, Conversation, Request
from airflow_cloudbilling.sources import SOURCES
from airflow_cloudbilling.triggers.invoices import InvoicesReadyTrigger

EMPTY = "2026-11"  # a month after those of the data set
DAG_FILE = """
from airflow.sdk import DAG
from airflow_cloudbilling.sensors.invoices import InvoicesReadySensor

with DAG("{dag_id}", schedule=None, params={{"month": "{month}"}}):
    InvoicesReadySensor(
        task_id="wait", conn_id="twotcloud_default", period="{{{{ params.month }}}}", timeout=60, {more}
    )
"""


@pytest.fixture
def october(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """Serve two months up to October 2026; November is not billed yet."""
    with Sandbox(months=2, last_month=date(2026, 10, 1)) as sandbox:
        for name, value in sandbox.environment().items():
            monkeypatch.setenv(name, value)
        yield sandbox


def sensor(**arguments: Any) -> InvoicesReadySensor:
    given = {"conn_id": "twotcloud_default", "period": EMPTY, "poke_interval": 0.1, "timeout": 30, **arguments}
    return InvoicesReadySensor(task_id="wait", **given)


def bill(sandbox: Sandbox, after: int) -> threading.Thread:
    """Let the vendor bill an invoice of October once it has been asked so many times."""

    def wait_and_bill() -> None:
        while len(sandbox.requests) < after:
            time.sleep(0.02)
        sandbox.change("add", kind="purchase", month="2026-10")

    thread = threading.Thread(target=wait_and_bill, daemon=True)
    thread.start()
    return thread


def unbilled(sandbox: Sandbox) -> None:
    """Withdraw every purchase invoice of October."""
    for record in [*sandbox.records("twotcloud", "purchase", "2026-10")]:
        sandbox.change("withdraw", invoice_id=record.invoice_id)


def deferred(task: InvoicesReadySensor) -> InvoicesReadyTrigger:
    """Let the sensor defer; return its trigger as the triggerer gets it."""
    with pytest.raises(TaskDeferred) as wait:
        task.execute({})
    assert wait.value.method_name == "execute_complete"
    path, made_of = wait.value.trigger.serialize()
    assert path == "airflow_cloudbilling.triggers.invoices.InvoicesReadyTrigger"
    return InvoicesReadyTrigger(**deserialize(serialize(made_of)))


def events(trigger: InvoicesReadyTrigger) -> list[dict[str, Any]]:
    async def collect() -> list[dict[str, Any]]:
        return [event.payload async for event in trigger.run()]

    return asyncio.run(asyncio.wait_for(collect(), 30))


def connect(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, **fields: Any) -> None:
    connection = {**sandbox.connections()["twotcloud_default"], **fields}
    monkeypatch.setenv("AIRFLOW_CONN_TWOTCLOUD_DEFAULT", json.dumps(connection))


class Contracts(Tiny):
    """A vendor with three accounts under one connection; the test says which of them have invoices."""

    billed: tuple[str, ...] = ()

    def slices(self, ask: Ask, settings: Settings) -> Conversation:
        yield Request("GET", "contracts")
        for account in ("a", "b", "c"):
            yield Portion(account, ask.kind)

    def invoices(self, ask: Ask, settings: Settings) -> Conversation:
        for page in ("1", "2"):
            yield Request("GET", f"{ask.account}/{page}")
            if ask.account in self.billed:
                yield Invoice("1", "1", "invoice")


@pytest.fixture
def contracts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Serve the vendor with three accounts in the connection ``tiny_default``."""
    monkeypatch.setitem(SOURCES, Contracts.conn_type, Contracts())
    with serving(lambda answer: answer.give()) as server:
        fields = {"conn_type": "tiny", "host": server.url, "password": KEY}
        monkeypatch.setenv("AIRFLOW_CONN_TINY_DEFAULT", json.dumps(fields))
        yield server


# On the worker


@pytest.mark.parametrize("response_format", ["json", "xml"])
def test_a_billed_month_ends_the_wait_at_once(
    october: Sandbox, monkeypatch: pytest.MonkeyPatch, response_format: str
) -> None:
    connect(october, monkeypatch, extra={"response_format": response_format})
    for mode in ({}, {"mode": "reschedule"}, {"deferrable": True}):
        assert sensor(period="2026-10", **mode).poke({})
    assert not sensor(mode="poke").poke({})
    assert len(october.requests) == 4


def test_an_invoice_that_comes_later_ends_the_wait(october: Sandbox) -> None:
    unbilled(october)
    billing = bill(october, after=2)
    sensor(period="2026-10").execute({})
    billing.join()
    assert len(october.requests) >= 3


def test_only_the_kind_that_is_asked_for_counts(october: Sandbox) -> None:
    unbilled(october)
    assert not sensor(period="2026-10", kind="purchase").poke({})
    assert sensor(period="2026-10", kind="sales").poke({})
    assert {request.path for request in october.requests} == {"/v2/invoices", "/v2/customerinvoices"}


def test_the_period_is_the_runs_and_the_question_is_as_given(october: Sandbox) -> None:
    task = sensor(period="", kind="sales", query={"a": 1}, window_shift_days=2)
    assert task.poke({"partition_key": "2026-09"})
    assert october.requests[-1].query == {"startDate": "20260903", "endDate": "20261002", "a": "1"}


@pytest.mark.parametrize(
    ("billed", "expect", "ready", "asked"),
    [
        ("", "any", False, "a/1 a/2 b/1 b/2 c/1 c/2"),
        ("b", "any", True, "a/1 a/2 b/1"),
        ("ab", "all", False, "a/1 b/1 c/1 c/2"),
        ("bc", "all", False, "a/1 a/2"),
        ("abc", "all", True, "a/1 b/1 c/1"),
    ],
)
def test_any_or_all_accounts_are_asked_no_further_than_needed(
    contracts: Server, monkeypatch: pytest.MonkeyPatch, billed: str, expect: str, ready: bool, asked: str
) -> None:
    monkeypatch.setattr(Contracts, "billed", tuple(billed))
    assert sensor(conn_id="tiny_default", period="2026-10", expect=expect).poke({}) is ready
    assert [seen.path for seen in contracts.seen] == ["/contracts", *(f"/{path}" for path in asked.split())]


def test_a_vendor_that_cannot_be_reached_does_not_end_the_wait(
    october: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    october.inject("status", status=503, times=2)
    sensor(period="2026-10").execute({})
    assert [request.status for request in october.requests][:2] == [503, 503]
    connect(october, monkeypatch, host="http://127.0.0.1:1")
    with pytest.raises(AirflowSensorTimeout):
        sensor(timeout=0.3).execute({})


def test_a_refusal_ends_the_wait_for_good(october: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(october, monkeypatch, password="wrong-key")
    for mode in ({}, {"deferrable": True}):
        with pytest.raises(AirflowFailException, match="Basic header"):
            sensor(**mode).execute({})
    assert len(october.requests) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"kind": "usage"}, "no invoices of kind 'usage'"),
        ({"expect": "most"}, "neither 'any' nor 'all'"),
        ({"period": "2026-13"}, "is not a month"),
    ],
)
def test_what_cannot_be_asked_ends_the_task_before_any_request(
    october: Sandbox, arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(AirflowFailException, match=words):
        sensor(**arguments).execute({})
    assert october.requests == []


def test_a_wait_that_the_vendor_wants_is_obeyed(october: Sandbox) -> None:
    october.inject("status", status=429, headers={"Retry-After": "2"}, times=1)
    started = time.monotonic()
    sensor(period="2026-10").execute({})
    assert time.monotonic() - started >= 2
    assert [request.status for request in october.requests] == [429, 200]
    october.inject("status", status=429, headers={"Retry-After": "7000"}, times=1)
    with pytest.raises(AirflowRescheduleException) as again:
        sensor(period="2026-10", mode="reschedule").poke({})
    assert 6900 < again.value.reschedule_date.timestamp() - time.time() < 7100


def test_after_a_kill_nobody_waits_for_the_vendor(october: Sandbox) -> None:
    october.inject("delay", seconds=60)
    task = sensor()
    killer = threading.Timer(0.5, task.on_kill)
    killer.start()
    started = time.monotonic()
    with pytest.raises(Exception, match="is being stopped"):
        task.execute({})
    assert time.monotonic() - started < 10
    october.clear_faults()


# In the triggerer


def test_the_trigger_waits_for_an_invoice(october: Sandbox) -> None:
    unbilled(october)
    trigger = deferred(sensor(period="2026-10", deferrable=True))
    billing = bill(october, after=2)
    (event,) = events(trigger)
    billing.join()
    assert event == {"status": "ready", "message": "2tCloud has purchase invoices of 2026-10"}
    assert sensor().execute_complete({}, event) is None


def test_the_trigger_holds_plain_values_and_an_absolute_deadline() -> None:
    trigger = InvoicesReadyTrigger("a", {"kind": "sales", "period": "2026-10"}, 1_800_000_000.5, 60.0)
    path, made_of = trigger.serialize()
    assert json.loads(json.dumps(made_of)) == made_of
    assert InvoicesReadyTrigger(**made_of).serialize() == (path, made_of)
    assert "queue" not in vars(trigger)  # Airflow 3.4 has its own


def test_the_trigger_goes_on_when_the_vendor_cannot_be_reached(october: Sandbox) -> None:
    trigger = deferred(sensor(deferrable=True))
    trigger.question["period"] = "2026-10"
    october.inject("status", status=503, times=2)
    october.inject("status", status=429, headers={"Retry-After": "1"}, times=1)
    assert [event["status"] for event in events(trigger)] == ["ready"]
    assert [request.status for request in october.requests] == [200, 503, 503, 429, 200]


def test_the_trigger_ends_at_its_deadline_even_while_the_vendor_is_slow(october: Sandbox) -> None:
    trigger = deferred(sensor(deferrable=True, timeout=1.5))
    october.inject("delay", seconds=60, after=2)
    started = time.monotonic()
    (event,) = events(trigger)
    assert event["status"] == "timeout"
    assert time.monotonic() - started < 5
    for task, error in ((sensor(), AirflowSensorTimeout), (sensor(soft_fail=True), AirflowSkipException)):
        with pytest.raises(error):
            task.resume_execution("execute_complete", {"event": event}, {})
    october.clear_faults()


def test_a_refusal_ends_the_trigger_and_then_the_task(october: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    trigger = deferred(sensor(deferrable=True))
    connect(october, monkeypatch, password="wrong-key")
    (event,) = events(trigger)
    assert (event["status"], event["for_good"], "wrong-key" in event["message"]) == ("failed", True, False)
    with pytest.raises(AirflowFailException, match="Basic header"):
        sensor().execute_complete({}, event)
    with pytest.raises(AirflowSkipException):
        sensor(soft_fail=True).resume_execution("execute_complete", {"event": event}, {})


def test_an_answer_that_is_none_fails_the_task_which_may_be_tried_again(october: Sandbox) -> None:
    trigger = deferred(sensor(deferrable=True))
    october.inject("html", times=1)
    (event,) = events(trigger)
    with pytest.raises(AirflowException, match="not answered with invoices") as failed:
        sensor().execute_complete({}, event)
    assert not isinstance(failed.value, AirflowFailException)


@pytest.mark.parametrize("event", [None, {}, "ready", {"status": "fine"}])
def test_an_event_that_is_not_known_fails_the_task(event: Any) -> None:
    with pytest.raises(AirflowException, match="not known"):
        sensor().execute_complete({}, event)


def test_the_loop_goes_on_while_a_large_answer_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """One invoice can be nearly the whole answer, and only at its end is it known to be one."""
    with Sandbox(months=1, last_month=date(2026, 10, 1), huge_invoice_mb=30, invoices=0) as sandbox:
        connect(sandbox, monkeypatch)
        question = {"kind": "purchase", "period": "2026-10"}
        trigger = InvoicesReadyTrigger("twotcloud_default", question, time.time() + 60, 1.0)
        used = time.process_time()
        longest = asyncio.run(asyncio.wait_for(longest_turn(trigger), 60))
        assert longest < (time.process_time() - used) / 4


async def longest_turn(trigger: InvoicesReadyTrigger) -> float:
    """Return the longest time that the loop itself computed for one thing; a busy machine does not make it longer."""
    longest = 0.0
    done = asyncio.Event()

    async def watch() -> None:
        nonlocal longest
        last = time.thread_time()
        while not done.is_set():
            await asyncio.sleep(0.01)
            now = time.thread_time()
            longest, last = max(longest, now - last), now

    watcher = asyncio.create_task(watch())
    assert [event.payload["status"] async for event in trigger.run()] == ["ready"]
    done.set()
    await watcher
    return longest


# As Airflow runs them


@pytest.mark.parametrize("more", ["deferrable=True, poke_interval=0.2", "poke_interval=0.2"])
def test_in_a_dag_an_invoice_that_comes_later_ends_the_wait(
    october: Sandbox, dags_folder: Path, run_dag: Any, more: str
) -> None:
    unbilled(october)
    file = dags_folder / "waits.py"
    file.write_text(DAG_FILE.format(dag_id="waits", month="2026-10", more=more))
    billing = bill(october, after=2)
    run_dag(file)
    billing.join()
    assert october.requests[-1].status == 200
    assert len(october.requests) >= 3
