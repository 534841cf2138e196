"""A mapping was wrong: read a month's kept answers again, without asking the vendor.

The import must have run with the same archive. Run it by hand with the month, and with the mended mapping in
``FIELD_MAP`` or in the connection's ``field_map``; the log names the invoices that changed.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param

from airflow_cloudbilling.operators.restage import RestageInvoicesOperator

CONNECTION = "twotcloud_default"
STAGING = "erp_staging"
ARCHIVE = "{{ var.value.cloudbilling_archive }}"  # the Variable names a folder, or s3://conn_id@bucket/prefix
FIELD_MAP: dict[str, str] = {}  # canonical name → dotted path, e.g. {"gross_amount": "Totals.TotalInclVAT"}

with DAG(
    "restage_from_archive",
    schedule=None,
    catchup=False,
    description="Stage a month once more from its archived answers",
    doc_md="""
### Restage from the archive

Reads a month's kept answers again with a mended mapping. No vendor is asked; the log names the invoices that changed.

**To set up**: the Variable `cloudbilling_archive`, as of the import that kept them, and the mended mapping in
`FIELD_MAP`, or in the connection's `field_map`.

**By hand**: *Trigger*, and give the month.

**When a task fails**: its log says what to do, and staging is as it was; clear it.
""",
    params={
        "period": Param(
            "2026-10",
            type="string",
            pattern=r"^\d{4}-(0[1-9]|1[0-2])$",
            title="Month",
            description="The month to read again, such as 2026-10",
        ),
    },
    tags=["cloudbilling"],
):
    RestageInvoicesOperator(
        task_id="restage",
        conn_id=CONNECTION,
        staging_conn_id=STAGING,
        archive=ARCHIVE,
        period="{{ params.period }}",
        kind="purchase",
        field_map=FIELD_MAP,
    )
