"""Close a month when the last vendor's invoices are there: reconcile, let a person approve, send to Sage, report.

Copy it into your DAG folder beside your imports and change the names and the defaults. Nothing is sent that a person
has not approved, and nothing twice. A second DAG says which vendor is late.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pendulum
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import (
    DAG,
    AssetAll,
    CronPartitionTimetable,
    IdentityMapper,
    Param,
    PartitionedAssetTimetable,
    chain,
    task,
)
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from airflow_cloudbilling.assets import invoice_asset
from airflow_cloudbilling.model import Period
from airflow_cloudbilling.operators.approval import ApproveCloseOperator
from airflow_cloudbilling.operators.reconcile import ReconcileInvoicesOperator
from airflow_cloudbilling.operators.sage import SageUploadOperator

# What a close waits for: the imports of your DAGs, each a connection to a vendor and which of its invoices.
ASSETS = [
    invoice_asset(conn_id, kind)
    for conn_id, kind in [
        ("twotcloud_default", "purchase"),
        ("twotcloud_default", "sales"),
        ("orange_cloudstore_default", "purchase"),
        ("cloudonex_default", "sales"),
        ("cloudonex_default", "purchase"),
        ("store365_default", "purchase"),
    ]
]
SAGE, STAGING, KIND = "sage_connected_cloud_default", "erp_staging", "sales"
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
OWN_MONTH = "dag_run.partition_key or macros.cloudbilling.last_full_month(dag_run.logical_date or dag_run.run_after)"
MONTH = "{{ params.period or " + OWN_MONTH + " }}"
CLOSE_ID = "{{ ti.xcom_pull(task_ids='reconcile')['close_id'] }}"
# Where reports go, if anywhere: a folder or s3://conn_id@bucket/prefix, in an Airflow Variable.
REPORTS = "{{ var.value.get('cloudbilling_reports', '') }}"

log = logging.getLogger(__name__)


def is_of(event: Any, month: str) -> bool:
    """Return whether an asset event tells of a month; one of a run without a partition says it in what was staged."""
    staged = (event.extra or {}).get("slices", [])
    return event.partition_key == month or any(one["period"] == str(Period.parse(month)) for one in staged)


with DAG(
    dag_id="month_close",
    description="A month's invoices of every vendor: reconciled, approved, sent to Sage, reported",
    # Starts by itself once every asset has been updated for the same month, in whatever order they come.
    schedule=PartitionedAssetTimetable(assets=AssetAll(*ASSETS), default_partition_mapper=IdentityMapper()),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=10)},
    params={
        "period": Param(
            None,
            type=["null", "string"],
            pattern=r"^\d{4}-(0[1-9]|1[0-2])$",
            title="Month",
            description="The month to close, such as 2026-10; empty: the run's own, else the last full one",
        ),
        "again": Param(
            False,
            type="boolean",
            title="Close again",
            description="Close a month that was sent before once more: what came since is asked for and sent",
        ),
    },
    tags=["cloudbilling", "invoices", "sage"],
    doc_md="""
### Month close

Checks a month once every import is there, lets a person approve it, sends what was approved to Sage, and reports. What
is approved is exactly what *reconcile* saw. A month that was sent is not closed again by itself: a later run ends
skipped, and the log of *not_sent_yet* says what came since.

**To set up**: `ASSETS`, the imports that a close waits for; the connections of Sage and of the staging database;
`DEFAULTS`, what Sage requires; and for reports the Variable `cloudbilling_reports`.

**By hand**: *Trigger*, and give a month, or none for the last full one. Answer *approve* under *Required actions*; it
waits without a worker.

**When a task fails**: *reconcile* names the findings: mend or accept them (`airflow cloudbilling findings`), then clear
it. *upload* has sent nothing when something changed since it was approved: clear *reconcile*. When it says that nobody
knows whether the file has arrived, look at Sage first.
""",
):

    @task.short_circuit
    def not_sent_yet(month: str, params: Any = None) -> bool:
        """Skip everything when the month was sent already, and say so."""
        from airflow_cloudbilling.operators.database import open_staging
        from airflow_cloudbilling.reconcile.sent import sent

        told = sent(open_staging(STAGING), Period.parse(month), KIND)
        if told:
            log.warning("%s", told)
        return params["again"] or not told

    @task
    def report(close_id: str, folder: str) -> str:
        """Write the report of the close as it was approved and sent, and return its address."""
        from airflow_cloudbilling.operators.database import open_staging
        from airflow_cloudbilling.operators.month_report import write_report
        from airflow_cloudbilling.reconcile.approval import summary_of

        if not folder:
            raise AirflowSkipException("The Variable cloudbilling_reports names no place for reports.")
        staging = open_staging(STAGING)
        summary = summary_of(staging, close_id)
        return write_report(staging, summary, f"{folder}/month-{summary.period.key}.html")

    reconcile = ReconcileInvoicesOperator(task_id="reconcile", staging_conn_id=STAGING, period=MONTH)
    approve = ApproveCloseOperator(task_id="approve", staging_conn_id=STAGING, close_id=CLOSE_ID)
    upload = SageUploadOperator(
        task_id="upload",
        conn_id=SAGE,
        staging_conn_id=STAGING,
        close_id=CLOSE_ID,
        kind=KIND,
        defaults=DEFAULTS,
        deferrable=True,
        poll_interval=30,
        timeout=6 * 3600,
    )
    chain(not_sent_yet(MONTH), reconcile, approve, upload, report(CLOSE_ID, REPORTS))


with DAG(
    dag_id="month_close_deadline",
    description="Says which vendor is late, and starts a close that Airflow did not start",
    # 08:00 on the 5th; the run's partition is the month before, e.g. 2026-10.
    schedule=CronPartitionTimetable("0 8 5 * *", timezone="UTC", run_offset=-1, key_format="%Y-%m"),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=10)},
    tags=["cloudbilling", "invoices"],
    doc_md="""
### Deadline of the month close

Says on the 5th which import of the month before has not come, and starts a close that Airflow did not start.

**To set up**: nothing but the close; an `on_failure_callback` on *nobody_is_late* tells you.

**By hand**: *Trigger* with the month as partition key, such as `2026-10`.

**When a task fails**: *nobody_is_late* names what is missing. Run that import, and clear the task to look again.
""",
):

    @task.short_circuit(inlets=ASSETS)
    def nobody_is_late(month: str, inlet_events: Any = None) -> bool:
        """Fail when an import's month is not there; go on when all are, and no close has begun."""
        told = {asset.uri: [event for event in inlet_events[asset] if is_of(event, month)] for asset in ASSETS}
        if late := [uri for uri, events in told.items() if not events]:
            raise AirflowFailException(f"{month} is late: {', '.join(late)} has not been imported.")
        return not any(run.dag_id == "month_close" for es in told.values() for e in es for run in e.created_dagruns)

    start_close = TriggerDagRunOperator(
        task_id="start_close",
        trigger_dag_id="month_close",
        trigger_run_id="deadline__{{ " + OWN_MONTH + " }}",
        logical_date=None,
        conf={"period": "{{ " + OWN_MONTH + " }}"},
        skip_when_already_exists=True,
    )
    chain(nobody_is_late("{{ " + OWN_MONTH + " }}"), start_close)
