"""One measurement of ``bench.py``: a task that imports the month, in a process of its own.

Memory counts above a bare task: a process that has imported ``airflow.sdk`` and run an operator that does nothing. For
dlt, which lives in an environment without Airflow, it counts above bare Python.
"""

from __future__ import annotations

import gc
import importlib
import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from measuring import Result, bare_task, memory, processor_seconds, turns

CLOUDBILLING, DLT = "cloudbilling", "dlt rest_api"
CONTENDERS: dict[str, tuple[str, dict[str, Any]]] = {  # name → module and options
    CLOUDBILLING: ("cloudbilling", {}),
    f"{CLOUDBILLING}, raw": ("cloudbilling", {"keep_raw": True}),
    f"{CLOUDBILLING}, archive": ("cloudbilling", {"archive": True}),
    f"{CLOUDBILLING}, raw + archive": ("cloudbilling", {"keep_raw": True, "archive": True}),
    f"{DLT}, replace": ("dlt_rest_api", {"disposition": "replace"}),
    f"{DLT}, merge": ("dlt_rest_api", {"disposition": "merge"}),
    "HttpOperator + insert_rows": ("http_operator", {}),
    "httpx + executemany": ("hand_written", {}),
    "the floor": ("floor", {}),
}


class Job(NamedTuple):
    """What is to be imported.

    :param fields: of the Airflow connection of the database.
    :param again: whether there was a load before.
    :param count_statements: tell also which statements the database was sent; costs time.
    """

    contender: str
    vendor: str
    url: str
    token: str
    kind: str
    fields: dict[str, Any]
    folder: str
    again: bool
    count_statements: bool = False

    def engine(self) -> Any:
        """Return an engine as the package makes it."""
        from airflow_cloudbilling.staging.engine import Database, engine_for

        return engine_for(Database("bench", **self.fields))


def measure(job: Job) -> Result:
    """Measure one import in this process."""
    module, options = CONTENDERS[job.contender]
    if not job.contender.startswith(DLT):
        bare_task()
    gc.collect()
    base = memory("VmRSS", reset=True)
    work: Callable[[], None] = importlib.import_module(f"peers.{module}").work(job, **options)
    statements = _counted() if job.count_statements else {}
    speed = turns()
    used, began = processor_seconds(), time.perf_counter()
    work()
    seconds = time.perf_counter() - began
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return {
        "seconds": seconds,
        "processor_seconds": processor_seconds() - used,
        "base_bytes": base,
        "peak_bytes": max(memory("VmHWM") - base, children),
        "turns": speed,
        "statements": statements,
    }


def _counted() -> dict[str, int]:
    """Return a count of statements that grows until the database's connections are closed."""
    from statement_count import counted

    return counted()


if __name__ == "__main__":
    print(json.dumps(measure(Job(**json.loads(sys.argv[2])))))
