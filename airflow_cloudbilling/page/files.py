"""The same figures as CSV: UTF-8 that spreadsheets recognise, one row after another, and no cell is a formula."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from airflow_cloudbilling.page.invoices import HEAD
from airflow_cloudbilling.page.ledger import AMOUNTS
from airflow_cloudbilling.page.matrix import Matrix
from airflow_cloudbilling.staging.margin_report import Charge
from airflow_cloudbilling.tabular import csv_parts

_BOM = b"\xef\xbb\xbf"  # without which Excel takes UTF-8 for the machine's own code page
_AMOUNTS = {"net_amount", "tax_amount", "gross_amount", "purchase_amount", "sales_amount", "margin", *AMOUNTS}
_COUNTS = {"line_count", "invoices", "lines"}
INVOICES = HEAD
FINDINGS = (
    "severity", "rule", "period", "provider", "account", "kind", "invoice_id", "expected", "actual", "message",
    "created_at", "accepted_by", "accepted_at", "accept_reason", "resolved_at", "finding_id",
)  # fmt: skip
CHARGES = (*Charge._fields, "margin")
MONTHS = ("period", "provider", "kind", "account", "state", "currency", "invoices", "lines", *AMOUNTS)


class Column(NamedTuple):
    """A column of a file."""

    name: str
    type: str


def csv_file(names: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    """Yield a file in parts, as its rows are read."""
    types = {**dict.fromkeys(_AMOUNTS, "amount"), **dict.fromkeys(_COUNTS, "integer")}
    yield _BOM
    yield from csv_parts([Column(name, types.get(name, "text")) for name in names], rows)


def months(matrix: Matrix) -> Iterator[dict[str, Any]]:
    """Yield what the overview shows: a row for each account and currency."""
    for row in matrix.rows:
        for column, cell in row.cells.items():
            own = {"period": row.period.key, "provider": column.provider, "kind": column.kind, "state": cell.state}
            for account in cell.lacking:
                yield dict.fromkeys(MONTHS) | own | {"account": account}
            for one in cell.held:
                held = one.held
                assert held is not None
                of_account = {**own, "account": one.slice.account, "invoices": held.invoices, "lines": held.lines}
                for currency, totals in (held.totals or {"": dict.fromkeys(AMOUNTS)}).items():
                    yield {**of_account, "currency": currency, **totals}
