"""Fetch what Sage has as soon as it says so: Sage calls Airflow, nothing asks Sage every few minutes.

Copy it into your DAG folder and change the names. It needs Airflow's API server in reach of Sage and a token in
`[cloudbilling] sage_notification_tokens`, or a service of your own that tells Airflow by its REST API. The daily run is
for a call that got lost. Each scope has a task of its own: whichever has news, a scope that has not changed writes no
record.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import DAG, AssetAny, AssetOrTimeSchedule, CronTriggerTimetable

from airflow_cloudbilling.assets import scope_asset
from airflow_cloudbilling.operators.sage import SageDownloadScopeOperator

SAGE, SCOPES, STAGING = "sage_connected_cloud_default", ("Customers", "Products"), "erp_staging"

with DAG(
    dag_id="sage_notified",
    description="Sage's customers and products in ERP staging, when Sage says that they have changed",
    schedule=AssetOrTimeSchedule(
        timetable=CronTriggerTimetable("0 5 * * *", timezone="UTC"),
        assets=AssetAny(*[scope_asset(SAGE, scope) for scope in SCOPES]),
    ),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,  # what comes while it runs is one run more
    max_active_tasks=1,  # so that the first one tries a new API key, and the next one has it
    default_args={"retries": 2, "retry_delay": timedelta(minutes=10)},
    tags=["cloudbilling", "sage"],
    doc_md="""
### What Sage tells us of

A run stages every scope anew, in *cloudbilling_scope_record*. The first one after a consent takes the new API key, too.

**To set up**: the connections of Sage and of the staging database, the scopes in `SCOPES`, and how Sage's calls come
in: a token in `[cloudbilling] sage_notification_tokens`, or a service of your own that tells Airflow.

**By hand**: *Trigger*; a scope that has not changed writes no record.

**When a task fails**: its log says what to do; clear it.
""",
):
    for scope in SCOPES:
        SageDownloadScopeOperator(
            task_id=f"download_{scope.lower()}", conn_id=SAGE, scope=scope, staging_conn_id=STAGING
        )
