"""What tests say of a staging database: invoices to load, and what the tables hold afterwards."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

from airflow_cloudbilling.model import Invoice, InvoiceLine, Period, Slice
from airflow_cloudbilling.staging.engine import Database, engine_for
from airflow_cloudbilling.staging.ledger import Run
from airflow_cloudbilling.staging.loader import Loaded, Rules, Staging

OCTOBER = Slice("twotcloud", "10001", "purchase", Period.parse("2026-10"))
BUSINESS = ("invoice", "invoice_line", "invoice_tax", "slice_invoice", "document")


def open_staging(path: Path) -> Staging:
    """Return the staging tables in a SQLite file, created."""
    staging = Staging(engine_for(Database("erp_staging", "sqlite", str(path))))
    staging.create()
    return staging


def of(period: str) -> Slice:
    """Return October's slice with another period."""
    return OCTOBER._replace(period=Period.parse(period))


def invoice(number: int, net: str = "10", lines: int = 2, **header: Any) -> list[InvoiceLine | Invoice]:
    """Return an invoice as a source yields it: its lines, each an equal part of nothing in particular, then itself."""
    items: list[InvoiceLine | Invoice] = [
        InvoiceLine(line_id=str(n), description=f"line {n}", quantity="1", net_amount=net, tax_amount="2.1", raw="{}")
        for n in range(1, lines + 1)
    ]
    amounts = {
        "currency": "EUR",
        "net_amount": net,
        "tax_amount": "2.1",
        "gross_amount": str(Decimal(net) + Decimal("2.1")),
    }
    return [*items, Invoice(f"INV-{number}", **{**amounts, **header})]


def load(
    staging: Staging, items: Iterable[Any], slice_: Slice = OCTOBER, run: Run | None = None, **rules: Any
) -> Loaded:
    """Load items into a slice."""
    with staging.load(slice_, run, Rules(**rules)) as one:
        for item in items:
            one.add(item)
        return one.commit()


def invoices(numbers: Iterable[int], **header: Any) -> Iterator[InvoiceLine | Invoice]:
    """Return several invoices as a source yields them."""
    for number in numbers:
        yield from invoice(number, **header)


def rows(path: Path, table: str, columns: str = "*", where: str = "1") -> list[tuple[Any, ...]]:
    """Return rows of a staging table in a fixed order."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(
            f"SELECT {columns} FROM cloudbilling_{table} WHERE {where} ORDER BY 1, 2, 3, 4, 5"
        ).fetchall()


def dump(path: Path, *, with_load: bool = True) -> dict[str, list[tuple[Any, ...]]]:
    """Return every business row; ``with_load=False`` leaves out which load wrote it, and from which text."""
    result = {}
    with closing(sqlite3.connect(path)) as connection:
        for table in BUSINESS:
            names = [row[1] for row in connection.execute(f"PRAGMA table_info(cloudbilling_{table})")]
            kept = [n for n in names if with_load or n not in ("load_id", "source_sha256", "raw")]
            query = f"SELECT {', '.join(kept)} FROM cloudbilling_{table}"
            result[table] = sorted(connection.execute(query).fetchall(), key=repr)
    return result


def ids(path: Path) -> set[str]:
    """Return the staged invoices' numbers."""
    return {row[0].removeprefix("INV-") for row in rows(path, "invoice", "invoice_id, 1, 1, 1, 1")}


def statuses(path: Path) -> list[str]:
    """Return the loads' statuses, oldest first."""
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT status FROM cloudbilling_load ORDER BY started_at").fetchall()
        return [status for (status,) in found]
