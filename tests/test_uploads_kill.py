"""Uploads killed before, during and after every request and statement: no invoice reaches Sage twice, none is lost."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from dying import Died, Nursery, nursery
from sages import connect
from staged import THOROUGH, Erp, moments, open_staging, rows
from uploading import SALES, Task, stage, upload

from airflow_cloudbilling.errors import UnavailableError
from airflow_cloudbilling.model import Period
from airflow_cloudbilling.sandbox.sage import Sage
from airflow_cloudbilling.sandbox.server import Sandbox
from airflow_cloudbilling.sandbox.vendor import Answer, Incoming

INVOICES = 3
REQUESTS = {"direct": 5, "presigned": 6}


@pytest.fixture(scope="module")
def children() -> Iterator[Nursery]:
    with nursery() as found:
        yield found


@pytest.fixture(autouse=True)
def _store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CLOUDBILLING__CREDENTIAL_STORE", "")


_staging = cache(open_staging)  # of a test; a new one compiles each statement anew


class Month:
    """A month of its own with invoices of its own, and what becomes of them.

    :param number: of the month; its invoices' numbers begin with a hundred times that.
    """

    def __init__(self, erp: Erp, sage: Sage, number: int) -> None:
        self.erp = erp
        self.sage = sage
        self.period = Period.month(2000, number)
        self.ids = {f"INV-{n}" for n in range(100 * number, 100 * number + INVOICES)}
        self.run = f"run-{number}"
        numbers, slice_ = range(100 * number, 100 * number + INVOICES), SALES._replace(period=self.period)
        stage(erp, numbers, slice_=slice_, staging=_staging(erp))

    def dies(self, children: Nursery, kill_at: int | None = None) -> Died:
        """Upload in a child that is killed."""
        # a child that waits for too long on a busy machine ends with an error, and before its step
        children.begin((self.run, 1), kill_at, period=self.period.key, timeout=300)
        return children.end()

    def settle(self) -> None:
        """Try again as Airflow would, and as a person would who looks at Sage where the task asks for one."""
        told = self.retry(2)
        if isinstance(told, AirflowFailException):
            assert "nobody knows" in str(told)
            assert self.statuses() == {"unknown"}
            assert isinstance(self.retry(3), AirflowFailException)
            here = [key for key, one in self.sage.uploads.items() if one.received and self.known(one.result)]
            told = self.retry(4, **({"resolve": "sent", "tracking_id": here[0]} if here else {"resolve": "not_sent"}))
        elif isinstance(told, UnavailableError) and "awaiting_upload" not in str(told):  # a busy day
            told = self.retry(3)
        elif isinstance(told, UnavailableError):  # presigned: Sage gave an id, and never got the file
            query = "SELECT tracking_id FROM cloudbilling_upload WHERE run_id = :run"
            ((tracking_id,),) = self.erp.query(query, run=self.run)
            told = self.retry(3, resolve="not_sent", tracking_id=tracking_id)
        assert not isinstance(told, Exception)
        assert told["accepted"] == INVOICES

    def retry(self, try_number: int, **arguments: Any) -> dict[str, Any] | Exception:
        """Run a later try, and return its result or what ended it."""
        # what Sage never got ends with the second try's timeout; a busy machine may take long for what it got
        arguments = {"period": self.period.key, "timeout": 5 if try_number == 2 else 60, **arguments}
        try:
            return upload(Task(self.run, try_number), **arguments)
        except (AirflowFailException, UnavailableError) as error:
            return error

    def known(self, result: bytes | None) -> bool:
        return bool(result) and any(f'"{each}"'.encode() in (result or b"") for each in self.ids)

    def statuses(self) -> set[str]:
        """Return the statuses of the invoices' items that are not settled by a person."""
        inside = ", ".join(f"'{each}'" for each in self.ids)
        return {row[0] for row in rows(self.erp, "upload_item", "status", f"invoice_id IN ({inside})")}

    def check(self) -> None:
        """Each invoice has reached Sage once, and the ledger says so."""
        assert {self.sage.records[each] for each in self.ids} == {1}
        assert set(self.sage.contents.values()) == {1}
        assert self.statuses() <= {"accepted", "failed"}
        inside = ", ".join(f"'{each}'" for each in self.ids)
        of_these = f"invoice_id IN ({inside})"
        assert len(rows(self.erp, "upload_item", "invoice_id", f"status = 'accepted' AND {of_these}")) == INVOICES
        assert len(rows(self.erp, "invoice", "invoice_id", f"posted_at IS NOT NULL AND {of_these}")) == INVOICES


def killing(sage: Sage, children: Nursery, at: int, when: str) -> Callable[[Incoming], Answer]:
    """Return Sage's answers, which kill the child with one of its requests: before, during or after it.

    Before: Sage has not got it. During: Sage has carried it out, and the child never sees the answer.
    """
    count = 0
    lock = threading.Lock()

    def answer(request: Incoming) -> Answer:
        nonlocal count
        with lock:
            count += 1
            now = count == at
        if now and when == "before":
            os.kill(children.pid, signal.SIGKILL)
            return Answer.text(500, "nobody is there to read it")
        done = type(sage).answer(sage, request)
        if now and when == "during":
            os.kill(children.pid, signal.SIGKILL)
        elif now:
            threading.Timer(0.01, lambda: kill(children.pid)).start()
        return done

    return answer


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it was done already


@pytest.mark.thorough
@pytest.mark.parametrize("strategy", ["direct", "presigned"])
def test_killed_with_every_request(
    erp: Erp,
    vendor: Sandbox,
    sage: Any,
    children: Nursery,
    monkeypatch: pytest.MonkeyPatch,
    strategy: str,
    record_property: Callable[[str, object], None],
) -> None:
    connect(vendor, monkeypatch, upload_strategy=strategy)
    killed = 0
    chosen = [(at, when) for at in range(1, REQUESTS[strategy] + 1) for when in ("before", "during", "after")]
    if not THOROUGH:
        chosen = chosen[::2]
    for number, (at, when) in enumerate(chosen, 1):
        month = Month(erp, sage, number)
        sage.answer = killing(sage, children, at, when)
        killed += month.dies(children).signal == signal.SIGKILL
        del sage.answer
        month.settle()
        month.check()
    assert killed >= len([one for one in chosen if one[1] != "after"])
    record_property("kills", killed)


@pytest.mark.thorough
def test_killed_at_every_statement(
    erp: Erp, vendor: Sandbox, sage: Any, children: Nursery, record_property: Callable[[str, object], None]
) -> None:
    assert not Month(erp, sage, 1).dies(children).error  # before the first one PostgreSQL is told to count its tables
    whole = Month(erp, sage, 2)
    steps = whole.dies(children).steps
    assert steps > 60
    whole.check()
    chosen = moments(steps, few=9)
    for number, kill_at in enumerate(chosen, 3):
        month = Month(erp, sage, number)
        died = month.dies(children, kill_at)
        assert died.signal == signal.SIGKILL, died
        month.settle()
        month.check()
    record_property("kills", len(chosen))
    if erp.kind == "sqlite":
        Month(erp, sage, 999).settle()
        assert not [*Path(erp.connection["host"]).parent.glob("*-sending-*")]
