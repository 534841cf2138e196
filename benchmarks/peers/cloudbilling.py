"""This package: the operator as a DAG has it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def work(job: Any, *, keep_raw: bool = False, archive: bool = False) -> Callable[[], None]:
    """Return the import of the month, from opening connections to the commit."""
    from airflow_cloudbilling.operators.invoices import StageInvoicesOperator

    arguments = {"conn_id": "bench_vendor", "staging_conn_id": "bench", "period": "2026-10"}
    kept = str(Path(job.folder, "archive")) if archive else None
    operator = StageInvoicesOperator(task_id="stage", keep_raw=keep_raw, archive=kept, **arguments)

    def import_month() -> None:
        operator.execute({})

    return import_month
