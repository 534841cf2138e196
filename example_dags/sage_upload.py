"""Send a month's sales invoices to Sage, once each, and see what became of every one of them.

Copy it into your DAG folder and change the names and the defaults. Running it again sends only what is new, or what
Sage rejected before.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pendulum
from airflow.sdk import DAG, CronPartitionTimetable, Param, chain, task

from airflow_cloudbilling.operators.invoices import StageInvoicesOperator
from airflow_cloudbilling.operators.sage import SageUploadOperator
from airflow_cloudbilling.sensors.sage import SageUploadSensor

VENDOR, SAGE, STAGING = "twotcloud_default", "sage_connected_cloud_default", "erp_staging"
# What Sage requires of an order and no cloud vendor's invoice states; a mapping may take it from elsewhere.
ADDRESS = {"address1": "-", "city": "-", "country": "NL", "postCode": "-", "telephone1": "-"}
DEFAULTS = {
    "deliveryAddress": ADDRESS,
    "invoiceAddress": ADDRESS,
    "customer": {"firstName": "-", "email": "billing@example.com"},
    "currencyRate": 1,
    "paymentMethod": "transfer",
}
# The month that a run is for: asked for by hand, else its partition, else the last full month.
MONTH = (
    "{{ params.period or dag_run.partition_key"
    " or macros.cloudbilling.last_full_month(dag_run.logical_date or dag_run.run_after) }}"
)

log = logging.getLogger(__name__)

with DAG(
    dag_id="sage_upload",
    description="A month's sales invoices into ERP staging, and from there to Sage",
    # 08:00 on the 3rd; the run's partition is the month before, e.g. 2026-10.
    schedule=CronPartitionTimetable("0 8 3 * *", timezone="UTC", run_offset=-1, key_format="%Y-%m"),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=10)},
    params={
        "period": Param(
            None,
            type=["null", "string"],
            pattern=r"^\d{4}-(0[1-9]|1[0-2])$",
            title="Month",
            description="The month to send, such as 2026-10; empty: the run's own, else the last full one",
        ),
        "dry_run": Param(
            False,
            type="boolean",
            title="Only look",
            description="Import, and say in the log of build what would go to Sage; nothing is sent",
        ),
    },
    tags=["cloudbilling", "sage"],
    doc_md="""
### To Sage

Imports a month's sales invoices and sends those that Sage has not accepted yet. *build* shows what would go and names
what is missing; *upload* sends it, *wait* costs no worker.

**To set up**: the connections of the vendor, of Sage and of the staging database, and `DEFAULTS`, what Sage requires.

**By hand**: *Trigger*, and give a month, or none for the last full one. *Only look* sends nothing.

**When a task fails**: its log says what to do. When *upload* says that nobody knows whether the file has arrived, look
at Sage and run it once more with `resolve`; else clear it, since no invoice goes twice.
""",
):

    @task.short_circuit
    def for_real(params: Any = None) -> bool:
        """Skip what comes next when one only wanted to look."""
        return not params["dry_run"]

    @task
    def report(result: Any) -> None:
        """Log what became of the upload; each invoice's own result stands in cloudbilling_upload_item."""
        log.info("%(status)s: %(records)s invoices, %(accepted)s accepted, %(rejected)s rejected", result)

    which: dict[str, Any] = {
        "conn_id": SAGE,
        "staging_conn_id": STAGING,
        "scope": "Orders",
        "kind": "sales",
        "period": MONTH,
        "defaults": DEFAULTS,
    }
    stage = StageInvoicesOperator(task_id="stage", conn_id=VENDOR, staging_conn_id=STAGING, kind="sales", period=MONTH)
    build = SageUploadOperator(task_id="build", dry_run=True, **which)
    upload = SageUploadOperator(task_id="upload", wait=False, **which)
    wait = SageUploadSensor(
        task_id="wait",
        conn_id=SAGE,
        staging_conn_id=STAGING,
        tracking_id="{{ ti.xcom_pull(task_ids='upload')['tracking_id'] }}",
        deferrable=True,
        poke_interval=30,
        timeout=6 * 3600,
    )
    chain(stage, build, for_real(), upload, wait, report(wait.output))
