"""Keep the staging tables up to date with a scope of Sage: whenever Sage has a new file of it, and once a day.

Copy it into your DAG folder and change the names. A triggerer asks Sage every few minutes, without a worker; running it
when nothing has changed writes no record. The daily run is for what no watcher can do: a worker's task rotates an API
key that has expired.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import DAG, AssetOrTimeSchedule, AssetWatcher, CronTriggerTimetable

from airflow_cloudbilling.assets import scope_asset
from airflow_cloudbilling.operators.sage import SageDownloadScopeOperator
from airflow_cloudbilling.triggers.sage_scope import SageScopeTrigger

SAGE, SCOPE, STAGING = "sage_connected_cloud_default", "Products", "erp_staging"

products = scope_asset(
    SAGE, SCOPE, AssetWatcher(name="new_products", trigger=SageScopeTrigger(SAGE, SCOPE, poll_interval=300))
)

with DAG(
    dag_id="sage_scope",
    description="Sage's products, as a snapshot in ERP staging",
    schedule=AssetOrTimeSchedule(timetable=CronTriggerTimetable("0 5 * * *", timezone="UTC"), assets=products),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=10)},
    tags=["cloudbilling", "sage"],
    doc_md="""
### From Sage

Keeps *cloudbilling_scope_record* as the scope's file at Sage is, a row for each record; a record that Sage no longer
has goes.

**To set up**: the connections of Sage and of the staging database, and the scope in `SCOPE`.

**By hand**: *Trigger*; when nothing has changed, no record is written.

**When a task fails**: its log says what to do; clear it.
""",
):
    SageDownloadScopeOperator(task_id="download", conn_id=SAGE, scope=SCOPE, staging_conn_id=STAGING)
