"""What every benchmark measures with: memory, processor time, the machine's speed just now, a process of its own."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Result = dict[str, Any]


def memory(field: str, *, reset: bool = False) -> int:
    """Return bytes of this process's memory: now (VmRSS), or at most since the last reset (VmHWM); Linux only."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) * 1024


def processor_seconds() -> float:
    """Return the processor time that this process and its ended children have used."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def turns() -> float:
    """Return how many million turns of an empty loop this machine makes in a second just now: shared ones vary."""
    began, number = time.perf_counter(), 3_000_000
    for _ in range(number):
        pass
    return number / (time.perf_counter() - began) / 1e6


def since(before: int | None, after: int | None) -> int | None:
    """Return how much a counter has grown, where there is one."""
    return None if before is None or after is None else after - before


def in_process(
    script: str | Path,
    arguments: Mapping[str, Any],
    *,
    python: str = sys.executable,
    timeout: float | None = None,
    **environment: str,
) -> Result:
    """Run ``script --one ARGUMENTS`` in a process of its own, and return what its last line says.

    :param timeout: seconds; then the process is ended.
    :param environment: further variables; Airflow is told to be quiet.
    """
    own = {**os.environ, "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR", **environment}
    command = [python, str(script), "--one", json.dumps(arguments)]
    done = subprocess.run(command, check=True, env=own, stdout=subprocess.PIPE, text=True, timeout=timeout)
    result: Result = json.loads(done.stdout.splitlines()[-1])
    return result


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as text whose columns stand below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def marked_down(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as a table of Markdown, the first as its head."""
    head, *rest = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rest))


def tell(text: str) -> None:
    """Say how far the run is, beside the result."""
    print(text, file=sys.stderr, flush=True)


def bare_task() -> None:
    """Do what every task of Airflow has done before its own work begins: plugins are loaded, secrets are masked."""
    from airflow.sdk import BaseOperator
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.log import mask_secret

    task_runner.get_listener_manager()  # as the runner does before any task: it loads Airflow's plugins

    class Bare(BaseOperator):
        def execute(self, context: Any) -> None:
            """Do nothing."""

    mask_secret("a connection's password")
    Bare(task_id="bare").execute({})
