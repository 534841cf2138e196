"""Import a month as soon as the vendor has billed it, however late that is.

Copy it into your DAG folder and change the names. The wait is the triggerer's and costs no worker; the vendor is asked
once an hour, for the first invoice only.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pendulum
from airflow.sdk import DAG, CronPartitionTimetable, chain

from airflow_cloudbilling.operators.invoices import StageInvoicesOperator
from airflow_cloudbilling.sensors.invoices import InvoicesReadySensor

VENDOR, KIND, STAGING = "twotcloud_default", "purchase", "erp_staging"

with DAG(
    dag_id="invoices_ready_then_import",
    description="Wait for a vendor's invoices of the month before, then stage them",
    # From the first day on; the run's partition is the month before, e.g. 2026-10.
    schedule=CronPartitionTimetable("0 6 1 * *", timezone="UTC", run_offset=-1, key_format="%Y-%m"),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=10)},
    tags=["cloudbilling", "invoices"],
    doc_md="""
### When the vendor is ready

Waits for the vendor's first invoice of the month before, without a worker, and stages the month.

**To set up**: the connections of the vendor and of the staging database.

**By hand**: *Trigger* with the month as partition key, such as `2026-10`. A vendor may bill further invoices later:
look again with *monthly_invoice_import*.

**When a task fails**: *ready* when there is nothing after ten days; ask the vendor, and clear it to wait again. *stage*
says in its log what to do.
""",
):
    which: dict[str, Any] = {"conn_id": VENDOR, "kind": KIND}
    ready = InvoicesReadySensor(
        task_id="ready", **which, deferrable=True, poke_interval=3600, timeout=timedelta(days=10).total_seconds()
    )
    stage = StageInvoicesOperator(task_id="stage", staging_conn_id=STAGING, **which)
    chain(ready, stage)
