"""Uploads as tests make them: staged invoices, an operator's run, and what Sage and the ledger know of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from sages import CONN_ID
from staged import OCTOBER, Erp, invoice, load, open_staging, rows

from airflow_cloudbilling.operators.sage import SageUploadOperator
from airflow_cloudbilling.sandbox.sage import Sage
from airflow_cloudbilling.staging.closes import Member, add_members
from airflow_cloudbilling.staging.loader import Staging

SALES = OCTOBER._replace(kind="sales")
ADDRESS = {"address1": "Main Street 1", "city": "Antwerp", "postCode": "2000", "telephone1": "+32 1"}
DEFAULTS = {
    "deliveryAddress": ADDRESS,
    "invoiceAddress": ADDRESS,
    "customer.firstName": "-",
    "customer.email": "billing@example.test",
    "currencyRate": 1,
    "paymentMethod": "transfer",
}
HEADER = {"issue_date": "2026-10-05", "buyer_id": "C-1", "buyer_name": "Jansen BV", "buyer_country": "NL"}


def stage(erp: Erp, numbers: Iterable[int] = range(5), **more: Any) -> Staging:
    """Stage sales invoices of October 2026.

    :param more: what else their headers say; ``slice_`` and ``staging``: where to, if elsewhere.
    """
    staging = more.pop("staging", None) or open_staging(erp)
    slice_ = more.pop("slice_", SALES)
    load(staging, [item for n in numbers for item in invoice(n, **{**HEADER, **more})], slice_)
    return staging


def close(erp: Erp, *numbers: int, more: Iterable[tuple[str, ...]] = ()) -> None:
    """Stage October's sales invoices, and let a person have approved some of them as ``C-1``, and others with them."""
    staging = stage(erp)
    hashes = dict(rows(erp, "invoice", "invoice_id, content_hash"))
    keys = [*((*SALES[:3], f"INV-{n}") for n in numbers), *more]
    approve(staging, [(key[0], key[1], key[2], key[3], hashes[key[3]]) for key in keys])


def approve(staging: Staging, members: Iterable[Member], status: str = "approved") -> None:
    """Write invoices as a close of October that a person has decided on."""
    row = {"close_id": "C-1", "period": str(SALES.period), "sha256": "0", "status": status}
    with staging.engine.begin() as connection:
        connection.execute(staging.tables.close.insert(), [row])
        add_members(connection, staging.tables, "C-1", members)


class Task:
    """A task instance, as far as the operator looks at it; a mapped one when it has an index."""

    def __init__(
        self, run_id: str = "run-1", try_number: int = 1, task_id: str = "upload", map_index: int = -1
    ) -> None:
        self.dag_id = "dag"
        self.task_id = task_id
        self.run_id = run_id
        self.map_index = map_index
        self.try_number = try_number
        self.xcoms: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        """Keep a value."""
        self.xcoms[key] = value


def operator(**arguments: Any) -> SageUploadOperator:
    """Return an upload of October's sales invoices, quick to ask."""
    arguments = {"period": "2026-10", "defaults": DEFAULTS, "poll_interval": 0.02, "timeout": 20, **arguments}
    return SageUploadOperator(task_id="upload", conn_id=CONN_ID, staging_conn_id="erp_staging", **arguments)


def upload(ti: Task | None = None, **arguments: Any) -> dict[str, Any]:
    """Run an upload as a task would, and return the task's result."""
    return operator(**arguments).execute({"ti": ti or Task()})


def ledger(erp: Erp) -> list[str]:
    """Return the statuses of the uploads, the oldest first."""
    return [row[0] for row in erp.query("SELECT status FROM cloudbilling_upload ORDER BY created_at")]


def items(erp: Erp) -> Counter[str]:
    """Return how many items there are of each status."""
    return Counter(row[0] for row in rows(erp, "upload_item", "status"))


def seen_once(sage: Sage, records: int = 5) -> bool:
    """Whether so many records came, none of them and no content twice."""
    return len(sage.records) == records and set((sage.records + sage.contents).values()) <= {1}
