"""Whatever dies when: processes that are really killed, copies that really run at once, a reader that always looks."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from sqlalchemy import event
from staged import (
    OCTOBER,
    THOROUGH,
    Erp,
    document,
    dump,
    invoice,
    invoices,
    load,
    moments,
    open_staging,
    rows,
    statuses,
)

from airflow_cloudbilling.errors import CloudBillingError
from airflow_cloudbilling.model import Finding, Slice
from airflow_cloudbilling.staging.ledger import Run
from airflow_cloudbilling.staging.loader import Staging

Record = Callable[[str, object], None]
BEFORE = range(30)
COPIES = 100 if THOROUGH else 10


def after() -> Iterator[Any]:
    """Return the vendor's answer after a new, a changed and a withdrawn invoice, the new one with a file."""
    yield from invoices(range(1, 28))
    yield from invoice(28, net="11", lines=3)
    yield from invoices([29, 99])
    yield document("D-99", "INV-99")
    yield Finding("INV-99", "unreadable-amounts", "warning", "amounts", "a PDF", "Look at it.")


def in_child(work: Callable[[], object]) -> int:
    """Run work in a process of its own and return its id."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return pid


def ended_by(pid: int) -> int:
    """Wait for a process; return the signal that killed it, or minus its exit code."""
    _, status = os.waitpid(pid, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status)


def at_each_step(staging: Staging, step: Callable[[], None]) -> None:
    """Call ``step`` before and after every statement, and before every commit."""
    for name in ("before_cursor_execute", "after_cursor_execute", "commit"):
        event.listen(staging.engine, name, lambda *_: step())


def dying(staging: Staging, kill_at: int | None, work: Callable[[], object]) -> int:
    """Work, and die at a step; return the number of steps if that one never comes."""
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1
        if steps == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    at_each_step(staging, step)
    work()
    step()  # all is done, and nobody was told
    return steps


def second_load(erp: Erp, slice_: Slice, kill_at: int | None = None) -> int:
    """Load the changed answer into a slice; die at a step, or return the number of steps."""
    staging = open_staging(erp)
    return dying(staging, kill_at, lambda: load(staging, after(), slice_, Run("dag", "task", "run", -1, 1)))


@pytest.mark.thorough
def test_a_load_killed_at_any_step_leaves_no_half_slice_and_the_retry_ends_right(
    erp: Erp, record_property: Record
) -> None:
    staging = open_staging(erp)
    load(staging, invoices(BEFORE), OCTOBER._replace(account="whole"))
    old = dump(erp, with_load=False, account="whole")
    steps = second_load(erp, OCTOBER._replace(account="whole"))
    new = dump(erp, with_load=False, account="whole")
    assert steps > 60
    seen, chosen = set(), moments(steps, few=4)
    for kill_at in chosen:
        account, own = str(kill_at), OCTOBER._replace(account=str(kill_at))
        load(staging, invoices(BEFORE), own)
        assert ended_by(in_child(lambda s=own, n=kill_at: second_load(erp, s, n))) == signal.SIGKILL
        left = dump(erp, with_load=False, account=account)
        assert left in (old, new), f"half a slice after step {kill_at}"
        seen.add(left == new)
        load(staging, after(), own, Run("dag", "task", "run", -1, 2))
        assert dump(erp, with_load=False, account=account) == new
        assert set(statuses(erp, account)) <= {"committed", "abandoned"}
    assert seen == {False, True}
    record_property("kills", len(chosen))


@contextmanager
def always_looking(erp: Erp, allowed: set[tuple[int, int]]) -> Iterator[None]:
    """Let a process read without end, which ends by itself only when it sees anything else than is allowed."""
    count = "SELECT COUNT(*), (SELECT COUNT(*) FROM cloudbilling_invoice_line) FROM cloudbilling_invoice"

    def look() -> None:
        while set(erp.query(count)) <= allowed:
            pass

    pid = in_child(look)
    try:
        yield
        assert os.waitpid(pid, os.WNOHANG) == (0, 0), "the reader saw half a slice"
    finally:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@pytest.mark.slow
def test_a_load_killed_at_a_random_moment_leaves_no_half_slice_and_the_retry_ends_right(
    erp: Erp, record_property: Record
) -> None:
    staging, draw = open_staging(erp), random.Random(1)
    states, lasted = [], 0.0
    for items in (invoices(BEFORE), after()):
        began = time.monotonic()
        load(staging, items, allow_removals=True)
        lasted = time.monotonic() - began
        states.append(dump(erp, with_load=False))
    load(staging, invoices(BEFORE), allow_removals=True)
    count, died = (600 if erp.kind == "sqlite" else 200), 0
    with always_looking(erp, {(len(state["invoice"]), len(state["invoice_line"])) for state in states}):
        for n in range(count):
            pid = in_child(lambda n=n: load(open_staging(erp), after(), run=Run("dag", "task", "run", n, 1)))
            time.sleep(draw.uniform(0, 1.5 * lasted))
            os.kill(pid, signal.SIGKILL)
            died += ended_by(pid) == signal.SIGKILL
            assert dump(erp, with_load=False) in states, n
            load(staging, after(), run=Run("dag", "task", "run", n, 2))
            assert dump(erp, with_load=False) == states[1], n
            load(staging, invoices(BEFORE), allow_removals=True)
    assert set(statuses(erp)) <= {"committed", "abandoned"}
    record_property("random moments", count)
    record_property("processes killed while they ran", died)


@pytest.mark.bare
@pytest.mark.thorough
@pytest.mark.parametrize("kill_at", range(1, 90, 8 if THOROUGH else 16))
def test_a_killed_creation_of_the_tables_is_finished_by_the_next(erp: Erp, kill_at: int) -> None:
    staging = Staging(erp.engine())
    ended_by(in_child(lambda: dying(staging, kill_at, staging.create)))
    assert load(open_staging(erp), invoices([1])).merged.new == 1


@pytest.mark.thorough
def test_two_copies_at_once_end_as_if_one_had_run(erp: Erp, record_property: Record) -> None:
    """The same try twice, or the try that Airflow took for dead beside the next one."""
    for n in range(COPIES):
        own = OCTOBER._replace(account=str(n))
        runs = [Run("dag", "task", "run", -1, try_number) for try_number in (1, 1 + n % 2)]
        pids = [in_child(lambda s=own, r=run: load(open_staging(erp), invoices(BEFORE), s, r)) for run in runs]
        assert [ended_by(pid) for pid in pids] == [0, 0]
        left = dump(erp, account=str(n))
        assert (len(left["invoice"]), len(left["invoice_line"])) == (len(BEFORE), 2 * len(BEFORE))
        assert sorted(statuses(erp, str(n))) in (["committed", "committed"], ["committed", "superseded"])
    record_property("pairs of copies", COPIES)


def test_a_try_begins_while_the_one_before_commits(erp: Erp) -> None:
    """Neither waits for a row that the other one holds; only the database can tell, which ends one of two that do."""
    earlier, later = (Run("dag", "task", "run", -1, try_number) for try_number in (1, 2))
    staging, other = open_staging(erp), open_staging(erp)
    beginning = threading.Thread(target=other.ledger.begin, args=(OCTOBER, later))

    @event.listens_for(staging.engine, "after_cursor_execute")
    def meanwhile(*told: Any) -> None:
        if told[2].startswith("UPDATE cloudbilling_load SET") and "totals" in told[2]:  # it ends
            beginning.start()
            time.sleep(1)  # until it waits for that row, if it does

    load(staging, invoices(BEFORE), OCTOBER, earlier)
    beginning.join()
    assert sorted(statuses(erp)) == ["committed", "running"]


def test_a_reader_that_always_looks_never_sees_half_a_slice(erp: Erp) -> None:
    staging, seen, stop = open_staging(erp), set(), threading.Event()
    query = "SELECT COUNT(*), COUNT(DISTINCT gross_amount), (SELECT COUNT(*) FROM cloudbilling_invoice_line) "
    query += "FROM cloudbilling_invoice"

    def look() -> None:
        while not stop.is_set():
            seen.update(erp.query(query))

    reader = threading.Thread(target=look)
    reader.start()
    for n in range(12):
        load(staging, invoices(range(100 if n % 2 else 150), net=str(n)), allow_removals=True)
    stop.set()
    reader.join()
    assert seen <= {(0, 0, 0), (150, 1, 300), (100, 1, 200)}
    assert len(seen) >= 2


def test_loads_of_one_account_wait_for_each_other_and_not_for_the_vendor(erp: Erp) -> None:
    staging = open_staging(erp)
    with staging.load(OCTOBER) as slow:
        slow.add(next(invoices([1])))
        began = time.monotonic()
        load(staging, invoices([1]))
        assert time.monotonic() - began < 5


def test_an_error_in_the_middle_leaves_staging_as_it_was(erp: Erp) -> None:
    staging = open_staging(erp)
    load(staging, invoices(BEFORE))
    before = dump(erp)

    def broken() -> Iterator[Any]:
        yield from invoices([1, 2])
        raise CloudBillingError("the vendor hung up")

    with pytest.raises(CloudBillingError):
        load(staging, broken())
    assert dump(erp) == before
    assert rows(erp, "load", "status, error")[-1] == ("failed", "CloudBillingError: the vendor hung up")
