"""Import the months of a year that has passed, a mapped task each, and any of them again on its own.

Copy it into your DAG folder, change the names, and run it by hand with the last month. With Airflow 3.3 whatever waits
for a month, such as the month's close, then starts for each of them; with 3.2 nothing does. Airflow's own backfills are
another way: they run the DAGs of the imports themselves.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import airflow.sdk
from airflow.sdk import DAG, Param, task
from airflow.sdk.exceptions import AirflowFailException

from airflow_cloudbilling.model import Period
from airflow_cloudbilling.operators.invoices import StageInvoicesOperator

# What is imported: an Airflow connection to a vendor, and which of its invoices.
IMPORTS = [("twotcloud_default", "purchase"), ("twotcloud_default", "sales")]
STAGING = "erp_staging"
# Where every answer is kept as received, if anywhere: a folder or s3://conn_id@bucket/prefix, in an Airflow Variable.
ARCHIVE = "{{ var.value.get('cloudbilling_archive', '') }}"
LAST = "{{ params.last or macros.cloudbilling.last_full_month(dag_run.logical_date or dag_run.run_after) }}"

# Started by hand; with Airflow 3.3 each month's asset event is of its own partition.
BY_HAND = airflow.sdk.PartitionedAtRuntime() if hasattr(airflow.sdk, "PartitionedAtRuntime") else None

log = logging.getLogger(__name__)

with DAG(
    dag_id="backfill_year",
    description="Twelve months of invoices into ERP staging",
    schedule=BY_HAND,
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=10)},
    params={
        "last": Param(
            None,
            type=["null", "string"],
            pattern=r"^\d{4}-(0[1-9]|1[0-2])$",
            title="Last month",
            description="Such as 2026-10; empty: the last full one",
        ),
        "count": Param(
            12,
            type="integer",
            minimum=1,
            maximum=120,
            title="Months",
            description="How many, with those before the last one",
        ),
    },
    tags=["cloudbilling", "invoices"],
    doc_md="""
### Backfill

Imports the months of a year that has passed, each a mapped task of each import in `IMPORTS`.

**To set up**: the connections of the vendors and of the staging database, and, if answers are to be kept, the Variable
`cloudbilling_archive`.

**By hand**: *Trigger*, with the last month and how many; a month that is staged already is not written again.

**When a task fails**: a month that fails keeps no other from being staged. *report* names it and fails; do what its log
says, and clear its mapped task with what comes after it.
""",
):

    @task
    def months(last: str, count: str) -> list[str]:
        """Return the months, the earliest first."""
        return [Period.parse(last).shifted(-back).key for back in range(int(count) - 1, -1, -1)]

    @task(trigger_rule="all_done")
    def report(periods: Any, *staged: Any) -> None:
        """Log what each month came to, and fail, and so the run, when one has no result."""
        if not periods:
            raise AirflowFailException("Nothing was staged, since the task months failed; its log says why.")
        missing = []
        for (conn_id, kind), of_months in zip(IMPORTS, staged, strict=True):
            slices = [s for result in of_months if result for s in result["slices"]]
            for s in slices:
                gross = ", ".join(f"{currency} {sums['gross'] or '?'}" for currency, sums in s["totals"].items())
                log.info("%s %s %s: %s invoices, %s", s["provider"], s["kind"], s["period"], s["invoices"], gross)
            there = {Period.parse(s["period"]).key for s in slices}
            missing += [f"{conn_id} {kind} {period}" for period in periods if period not in there]
        if missing:
            words = f"{len(missing)} months have no result: {', '.join(missing)}. The logs of their tasks say why."
            raise AirflowFailException(words)

    periods = months(LAST, "{{ params.count }}")
    report(
        periods,
        *(
            StageInvoicesOperator.partial(
                task_id=f"stage_{conn_id}_{kind}",
                conn_id=conn_id,
                kind=kind,
                staging_conn_id=STAGING,
                archive=ARCHIVE,
                map_index_template="{{ task.period }}",
                max_active_tis_per_dag=2,  # a vendor is not asked for twelve months at once
            )
            .expand(period=periods)
            .output
            for conn_id, kind in IMPORTS
        ),
    )
