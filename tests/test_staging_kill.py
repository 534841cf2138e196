"""Whatever dies when: processes that are really killed, copies that really run at once, a reader that always looks."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from staged import OCTOBER, dump, invoice, invoices, load, open_staging, rows, statuses

from airflow_cloudbilling.errors import CloudBillingError
from airflow_cloudbilling.staging.ledger import Run
from airflow_cloudbilling.staging.loader import Staging

BEFORE = range(30)
Killer = Callable[[], None]


def after() -> Iterator[Any]:
    """Return the vendor's answer after a new, a changed and a withdrawn invoice."""
    yield from invoices(range(1, 28))
    yield from invoice(28, net="11", lines=3)
    yield from invoices([29, 99])


def in_child(work: Callable[[], None]) -> int:
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


def second_load(path: Path, kill_at: int | None = None) -> int:
    """Load the changed answer; die at a step, or return the number of steps."""
    staging, steps = open_staging(path), 0

    def step() -> None:
        nonlocal steps
        steps += 1
        if steps == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    at_each_step(staging, step)
    load(staging, after(), run=Run("dag", "task", "run", -1, 1))
    step()  # committed, and nobody was told
    return steps


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base.db"
    load(open_staging(path), invoices(BEFORE))
    return path


def test_a_load_killed_at_any_step_leaves_no_half_slice_and_the_retry_ends_right(base: Path, tmp_path: Path) -> None:
    complete = tmp_path / "complete.db"
    shutil.copy(base, complete)
    steps = second_load(complete)
    old, new = dump(base, with_load=False), dump(complete, with_load=False)
    assert steps > 60
    seen = set()
    for kill_at in range(1, steps + 1):
        path = tmp_path / f"{kill_at}.db"
        shutil.copy(base, path)
        assert ended_by(in_child(lambda p=path, n=kill_at: second_load(p, n))) == signal.SIGKILL
        left = dump(path, with_load=False)
        assert left in (old, new), f"half a slice after step {kill_at}"
        seen.add(left == new)
        load(open_staging(path), after(), run=Run("dag", "task", "run", -1, 2))
        assert dump(path, with_load=False) == new
        assert set(statuses(path)) <= {"committed", "abandoned"}
    assert seen == {False, True}


def test_a_killed_creation_of_the_tables_is_finished_by_the_next(tmp_path: Path) -> None:
    from airflow_cloudbilling.staging.engine import Database, engine_for

    def create(path: Path, kill_at: int) -> None:
        staging, steps = Staging(engine_for(Database("x", "sqlite", str(path)))), 0

        def step() -> None:
            nonlocal steps
            steps += 1
            if steps == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

        at_each_step(staging, step)
        staging.create()

    for kill_at in range(1, 90, 4):
        path = tmp_path / f"{kill_at}.db"
        ended_by(in_child(lambda p=path, n=kill_at: create(p, n)))
        assert load(open_staging(path), invoices([1])).merged.new == 1


def test_two_copies_at_once_end_as_if_one_had_run(tmp_path: Path) -> None:
    for n in range(25):
        path = tmp_path / f"{n}.db"
        pids = [in_child(lambda p=path: load(open_staging(p), invoices(BEFORE)) and None) for _ in range(2)]
        assert [ended_by(pid) for pid in pids] == [0, 0]
        assert len(rows(path, "invoice")) == len(BEFORE)
        assert len(rows(path, "invoice_line")) == 2 * len(BEFORE)
        assert sorted(statuses(path)) in (["committed", "committed"], ["committed", "superseded"])


def test_a_reader_that_always_looks_never_sees_half_a_slice(tmp_path: Path) -> None:
    path = tmp_path / "erp.db"
    staging, seen, stop = open_staging(path), set(), threading.Event()
    query = "SELECT COUNT(*), COUNT(DISTINCT gross_amount), (SELECT COUNT(*) FROM cloudbilling_invoice_line) "
    query += "FROM cloudbilling_invoice"

    def look() -> None:
        with closing(sqlite3.connect(path)) as connection:
            while not stop.is_set():
                seen.add(connection.execute(query).fetchone())

    reader = threading.Thread(target=look)
    reader.start()
    for n in range(12):
        load(staging, invoices(range(100 if n % 2 else 150), net=str(n)), allow_removals=True)
    stop.set()
    reader.join()
    assert seen <= {(0, 0, 0), (150, 1, 300), (100, 1, 200)}
    assert len(seen) >= 2


def test_loads_of_one_account_wait_for_each_other_and_not_for_the_vendor(tmp_path: Path) -> None:
    path = tmp_path / "erp.db"
    staging = open_staging(path)
    with staging.load(OCTOBER) as slow:
        slow.add(next(invoices([1])))
        began = time.monotonic()
        load(staging, invoices([1]))
        assert time.monotonic() - began < 5


def test_an_error_in_the_middle_leaves_staging_as_it_was(base: Path) -> None:
    before = dump(base)

    def broken() -> Iterator[Any]:
        yield from invoices([1, 2])
        raise CloudBillingError("the vendor hung up")

    with pytest.raises(CloudBillingError):
        load(open_staging(base), broken())
    assert dump(base) == before
    assert rows(base, "load", "status, error, 1, 1, 1")[-1][:2] == ("failed", "CloudBillingError: the vendor hung up")
