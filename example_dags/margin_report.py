"""What is earned on what: a month's purchases against its sales, as soon as both are imported.

Copy it into your DAG folder beside your imports and change the names.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import DAG, AssetAll, IdentityMapper, Param, PartitionedAssetTimetable

from airflow_cloudbilling.assets import invoice_asset
from airflow_cloudbilling.operators.margin import MarginReportOperator

VENDOR, STAGING = "twotcloud_default", "erp_staging"
# Where reports go, if anywhere: a folder or s3://conn_id@bucket/prefix, in an Airflow Variable.
REPORTS = "{{ var.value.get('cloudbilling_reports', '') }}"
# The month that a run is for: asked for by hand, else its partition, else the last full month.
MONTH = (
    "{{ params.period or dag_run.partition_key"
    " or macros.cloudbilling.last_full_month(dag_run.logical_date or dag_run.run_after) }}"
)

with DAG(
    dag_id="margin_report",
    description="Purchase against sales by customer and month",
    # Starts by itself once both sides have been updated for the same month.
    schedule=PartitionedAssetTimetable(
        assets=AssetAll(invoice_asset(VENDOR, "purchase"), invoice_asset(VENDOR, "sales")),
        default_partition_mapper=IdentityMapper(),
    ),
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
            description="The month to report, such as 2026-10; empty: the run's own, else the last full one",
        ),
        "months": Param(
            1, type="integer", minimum=1, maximum=60, title="Months", description="How many, with those before it"
        ),
    },
    tags=["cloudbilling", "margin"],
    doc_md="""
### Margin

Compares what was bought with what was sold of it. The task's result has the sums by currency; a page to read and a CSV
file of every charge say what is bought and not sold, sold and not bought, and sold below cost.

**To set up**: the connection of the staging database, and for the files the Variable `cloudbilling_reports`: a folder,
or `s3://conn_id@bucket/prefix`.

**By hand**: *Trigger*, and give a month, or none for the last full one.

**When a task fails**: its log says what to do; clear it. It only reads staging.
""",
):
    MarginReportOperator(
        task_id="margin",
        staging_conn_id=STAGING,
        destination=REPORTS,
        period=MONTH,
        months="{{ params.months }}",
    )
