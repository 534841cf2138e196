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
    doc_md=__doc__,
    params={"period": Param("2026-10", type="string", pattern=r"^\d{4}-\d{2}$", title="Month")},
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
