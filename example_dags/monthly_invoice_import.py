"""Import last month's invoices of every vendor into ERP staging, and look again at the months before.

Copy it into your DAG folder and change the first two names. Imports whose connection does not exist are skipped.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pendulum
from airflow.sdk import DAG, BaseHook, CronPartitionTimetable, Param, chain, task
from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_cloudbilling.model import Period
from airflow_cloudbilling.operators.invoices import StageInvoicesOperator

# What is imported: an Airflow connection to a vendor, and which of its invoices.
IMPORTS = [
    ("twotcloud_default", "purchase"),
    ("twotcloud_default", "sales"),
    ("orange_cloudstore_default", "purchase"),
    ("cloudonex_default", "sales"),
    ("cloudonex_default", "purchase"),
    ("store365_default", "purchase"),
]
CONNECTIONS = list(dict.fromkeys(conn_id for conn_id, _ in IMPORTS))
STAGING = "erp_staging"
# Where every answer is kept as received, if anywhere: a folder or s3://conn_id@bucket/prefix, in an Airflow Variable.
ARCHIVE = "{{ var.value.get('cloudbilling_archive', '') }}"

# The month that a run is for: asked for by hand, else the run's partition, else the last full month.
MONTH = (
    "{{ params.period or dag_run.partition_key"
    " or macros.cloudbilling.last_full_month(dag_run.logical_date or dag_run.run_after) }}"
)

log = logging.getLogger(__name__)


def is_there(conn_id: str) -> bool:
    """Return whether Airflow has a connection, and log it when it has not."""
    try:
        BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        log.warning("There is no connection %r; its invoices are not imported.", conn_id)
        return False
    return True


with DAG(
    dag_id="monthly_invoice_import",
    description="Vendors' invoices of a month, and of the months before, into ERP staging",
    # 06:00 on the 3rd, when vendors have closed the month; the run's partition is the month before, e.g. 2026-10.
    schedule=CronPartitionTimetable("0 6 3 * *", timezone="UTC", run_offset=-1, key_format="%Y-%m"),
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
            description="The month to import, such as 2026-10; empty: the run's own",
        ),
        "lookback_months": Param(
            1,
            type="integer",
            minimum=0,
            maximum=12,
            title="Months to look back",
            description="How many months before it to import again: late and withdrawn invoices are seen only so",
        ),
        "connections": Param(
            CONNECTIONS,
            type="array",
            items={"type": "string", "enum": CONNECTIONS},
            examples=CONNECTIONS,
            title="Vendors",
            description="Which connections to import from; those that do not exist are skipped in any case",
        ),
        "dry_run": Param(
            False,
            type="boolean",
            title="Only look",
            description="Ask the vendors and say in the log of preview what an import would change; nothing is written",
        ),
    },
    tags=["cloudbilling", "invoices"],
    doc_md="""
### Monthly invoice import

One task for each connection and kind in `IMPORTS`, as far as the connection exists, stages the run's month and updates
the asset `cloudbilling://<connection>/<kind>`; a second one looks again at the months before it.

**To set up**: the connections of the vendors and of the staging database (*Admin › Connections*; their Test button says
what is wrong), and, if answers are to be kept, the Variable `cloudbilling_archive`.

**By hand**: *Trigger*, and give a month, or none for the last full one. *Only look* says what would change.

**When a task fails**: its log says in one sentence what to do, and staging is as it was. Clear the task once that is
done: staging a month again with the same vendor data writes nothing, so every task may be cleared at any time.
""",
):

    @task.branch
    def existing(params: Any = None) -> list[str]:
        """Choose the imports that are asked for and whose connection exists; the others are skipped."""
        if params["dry_run"]:
            return ["preview"]
        chosen = [
            f"{conn_id}_{kind}" for conn_id, kind in IMPORTS if conn_id in params["connections"] and is_there(conn_id)
        ]
        return [f"{step}_{name}" for name in chosen for step in ("stage", "look_back")]

    @task
    def preview(month: str, params: Any = None) -> dict[str, dict[str, int]]:
        """Say what an import would change, and return how many invoices of each sort; nothing is written."""
        from airflow_cloudbilling.operators.database import look_into_staging
        from airflow_cloudbilling.operators.preview import preview_of

        counts = {}
        for conn_id, kind in IMPORTS:
            if conn_id in params["connections"] and is_there(conn_id):
                changes, counts[f"{conn_id} {kind}"] = preview_of(look_into_staging(STAGING), conn_id, kind, month)
                told = [
                    f"{c.change}: {c.invoice_number or c.invoice_id}, {c.was or '-'} → {c.becomes or '-'}"
                    for c in changes
                ]
                log.info("%s %s %s:\n%s", conn_id, kind, month, "\n".join(told) or "Nothing would change.")
        return counts

    @task
    def months_before(month: str, count: str) -> list[str]:
        """Return the months to look back at, the latest first."""
        return [Period.parse(month).shifted(-back).key for back in range(1, int(count) + 1)]

    @task(trigger_rule="none_failed")
    def report(staged: list[Any], looked_back: list[Any]) -> None:
        """Log one table of all that was staged."""
        results = [*staged, *(result for of_months in looked_back for result in (of_months or [])[:])]
        row = "%-17s %-14s %-9s %-8s %8s %7s %5s %8s %8s  %s"
        heads = ("vendor", "account", "kind", "month", "invoices", "lines", "new", "changed", "removed", "gross")
        lines = [row % heads]
        for s in (s for result in results if result for s in result["slices"]):
            gross = ", ".join(f"{currency} {sums['gross'] or '?'}" for currency, sums in s["totals"].items())
            counts = (s["invoices"], s["lines"], s["new"], s["changed"], s["removed"])
            lines.append(row % (s["provider"], s["account"], s["kind"], Period.parse(s["period"]).key, *counts, gross))
        log.info("Staged:\n%s", "\n".join(lines))

    chosen, earlier = existing(), months_before(MONTH, "{{ params.lookback_months }}")
    chain(chosen, preview(MONTH))
    staged, looked_back = [], []
    for conn_id, kind in IMPORTS:
        source: dict[str, Any] = {"conn_id": conn_id, "kind": kind, "staging_conn_id": STAGING, "archive": ARCHIVE}
        name = f"{conn_id}_{kind}"
        stage = StageInvoicesOperator(task_id=f"stage_{name}", period=MONTH, **source)
        look_back = StageInvoicesOperator.partial(
            task_id=f"look_back_{name}", map_index_template="{{ task.period }}", **source
        ).expand(period=earlier)
        chain(chosen, [stage, look_back])
        staged.append(stage.output)
        looked_back.append(look_back.output)
    report(staged, looked_back)
