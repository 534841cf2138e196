"""Uploads in processes of their own that really die: at a step of theirs, or when Sage says so.

One process imports all, also what a first child found missing, and forks a child for each upload. Steps are before and
after each statement and before each commit; the child kills itself at the one that it is told.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

_PROGRAM = """
    import importlib, json, os, signal, sys, traceback

    import airflow_cloudbilling.hooks.sage, airflow_cloudbilling.staging.uploads_results
    from airflow_cloudbilling.operators import database, sage_following, sage_outbox, sage_units
    from sqlalchemy import Engine, event
    from uploading import Task, upload

    def work(kill_at, run, arguments):
        steps, known = 0, {*sys.modules}

        def step(*_):
            nonlocal steps
            steps += 1
            if steps == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

        for name in ("before_cursor_execute", "after_cursor_execute", "commit"):
            event.listen(Engine, name, step)
        try:
            result = upload(Task(*run), **arguments)
            step()  # all is done, and nobody was told
            return {"steps": steps, "result": result, "modules": sorted({*sys.modules} - known)}
        except Exception as error:
            return {"steps": steps, "error": f"{type(error).__name__}: {error}"}

    for line in sys.stdin:
        order = json.loads(line)
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.dup2(2, 1)  # what is logged is no answer
            os.environ.update(order["environment"])
            try:
                os.write(writing, json.dumps(work(*order["work"])).encode())
                os._exit(0)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        os.close(writing)
        print(json.dumps(pid), flush=True)
        with os.fdopen(reading, "rb") as told:
            said = told.read()
        _, status = os.waitpid(pid, 0)
        answer = json.loads(said or "{}")
        print(json.dumps([os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, answer]), flush=True)
        for name in answer.get("modules", ()):
            try:
                importlib.import_module(name)
            except Exception:
                pass  # a name that is no module's own, such as multiprocessing's of the main one
"""


class Died(NamedTuple):
    """How a child ended.

    :param signal: that killed it, 0 when none did.
    """

    signal: int
    steps: int
    result: dict[str, Any] | None
    error: str | None


class Nursery:
    """Runs uploads in children of one process, one after the other."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = 0  # of the child that runs

    def begin(self, run: tuple[str, int], kill_at: int | None = None, **arguments: Any) -> None:
        """Start a child that uploads, as the given run and try."""
        assert self._process.stdin
        environment = {name: os.environ[name] for name in os.environ if name.startswith("AIRFLOW_CONN_")}
        order = {"environment": environment, "work": [kill_at, run, arguments]}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        self.pid = self._read()

    def end(self) -> Died:
        """Wait for the child."""
        signal, said = self._read()
        return Died(signal, said.get("steps", 0), said.get("result"), said.get("error"))

    def run(self, run: tuple[str, int], kill_at: int | None = None, **arguments: Any) -> Died:
        """Upload in a child, and wait for it."""
        self.begin(run, kill_at, **arguments)
        return self.end()

    def _read(self) -> Any:
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, "the process that forks has ended"
        return json.loads(line)


@contextmanager
def nursery() -> Iterator[Nursery]:
    """Run the process that forks."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["tests", "."])}
    command = [sys.executable, "-c", textwrap.dedent(_PROGRAM)]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        yield Nursery(process)
        assert process.stdin
        process.stdin.close()
