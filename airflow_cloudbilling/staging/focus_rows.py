"""The rows of FOCUS's datasets for files: of one period, in one order, each invoice adding up to the last digit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from itertools import groupby
from typing import NamedTuple

from sqlalchemy import Connection, Integer, and_, case, func, select

from airflow_cloudbilling.errors import StagingError
from airflow_cloudbilling.exact import canonical, exact_sum
from airflow_cloudbilling.model import Period
from airflow_cloudbilling.staging.focus import DIFFERENCE, DIFFERENCE_WORDS, KINDS, Focus
from airflow_cloudbilling.staging.reading import Row, amounts, bytewise, exact, stream
from airflow_cloudbilling.staging.tables import Tables

_AMOUNTS = ("BilledCost", "x_Quantity", "x_UnitPrice", "x_Discount", "x_TaxRate", "x_TaxAmount", "x_PaidAmount")
_TOTAL = "x_InvoiceTotal"
_KEY = ("x_Provider", "BillingAccountId", "x_Kind", "x_InvoiceId")
_MOMENTS = ("Created", "End", "LastUpdated", "Start", "Date", "DueDate")


class FocusColumn(NamedTuple):
    """A column of a file.

    :param type: ``text``, ``amount``, ``moment`` (ISO 8601 text) or ``integer``.
    """

    name: str
    type: str


class FocusRows:
    """The rows of one period.

    :param connection: from :func:`~airflow_cloudbilling.staging.reading.snapshot`.
    :param kind: ``purchase`` or ``sales``; ``None`` for both.
    """

    def __init__(self, connection: Connection, tables: Tables, period: Period, kind: str | None) -> None:
        self.connection = connection
        self.period = period
        self.kind = kind
        self.tables = tables
        self.name = connection.dialect.name
        invoice = tables.invoice
        kinds = (kind,) if kind else KINDS
        self._chosen = and_(invoice.c.slice_period == str(period), invoice.c.kind.in_(kinds))
        focus = Focus(tables, self.name, only=self._chosen)
        self._details = focus.invoice_detail().subquery("details")
        self._periods = focus.billing_period().subquery("periods")
        self.totals: dict[str, Decimal] = {}

    @property
    def columns(self) -> dict[str, list[FocusColumn]]:
        """Return the columns by dataset, in the order of the files."""
        found = {"InvoiceDetail": self._details, "BillingPeriod": self._periods}
        return {name: [_column(c.name, c.type) for c in query.c] for name, query in found.items()}

    def rows(self, dataset: str) -> Iterator[Row]:
        """Yield a dataset's rows: ``InvoiceDetail`` or ``BillingPeriod``."""
        return self._invoice_detail() if dataset == "InvoiceDetail" else self._billing_period()

    def staged(self) -> dict[str, Decimal]:
        """Return what the invoices come to by currency, as they are staged: BT-112, else BT-109, and BT-114."""
        invoice, sums = self.tables.invoice, dict[str, Decimal]()
        total = func.coalesce(invoice.c.gross_amount, invoice.c.net_amount).label("total")
        query = select(invoice.c.currency, total, invoice.c.rounding_amount).where(self._chosen, total.is_not(None))
        for row in stream(self.connection, query):
            amount = exact_sum(exact(row["total"]) or Decimal(0), exact(row["rounding_amount"]) or Decimal(0))
            _add(sums, row["currency"], amount)
        return sums

    def check(self) -> None:
        """Compare what the rows came to with what is staged.

        :raises StagingError: when they differ by anything.
        """
        staged = self.staged()
        different = {c for c in staged.keys() | self.totals.keys() if staged.get(c, 0) != self.totals.get(c, 0)}
        if different:
            none = Decimal(0)
            words = [f"{c} {self.totals.get(c, none):f} instead of {staged.get(c, none):f}" for c in sorted(different)]
            raise StagingError(
                f"The rows of {self.period.key} come to {', '.join(words)}; nothing was written. Somebody changed rows"
                " of the staging tables by hand: load the period again."
            )

    def _invoice_detail(self) -> Iterator[Row]:
        details, self.totals = self._details, {}
        number = details.c.x_LineNumber
        keys = [bytewise(details.c[name], self.name) for name in _KEY]
        last = case((number.is_not(None), 0), (details.c.InvoiceDetailId.like(f"%/{DIFFERENCE}"), 2), else_=1)
        order = (*keys, last, number, bytewise(details.c.InvoiceDetailId, self.name))
        found = (amounts(row, (*_AMOUNTS, _TOTAL)) for row in stream(self.connection, select(details).order_by(*order)))
        for _, of_invoice in groupby(found, key=lambda row: [row[name] for name in _KEY]):
            yield from self._complete(of_invoice)

    def _complete(self, rows: Iterator[Row]) -> Iterator[Row]:
        """Yield an invoice's rows, and one more for what they lack of its total."""
        cost, rounding, row = Decimal(0), Decimal(0), Row()
        for row in rows:
            cost = exact_sum(cost, row["BilledCost"])
            rounding = row["BilledCost"] if row["InvoiceDetailId"].endswith("/rounding") else rounding
            yield {**row, "InvoiceDetailGrain": _compact(row["InvoiceDetailGrain"])}
        total = cost if row[_TOTAL] is None else exact_sum(row[_TOTAL], rounding)
        lacking = exact_sum(total, cost.copy_negate())
        if lacking:
            yield _difference(row, lacking)
        _add(self.totals, row["BillingCurrency"], total)

    def _billing_period(self) -> Iterator[Row]:
        periods = self._periods
        return stream(self.connection, select(periods).order_by(bytewise(periods.c.InvoiceIssuerName, self.name)))


def texts(totals: dict[str, Decimal]) -> dict[str, str]:
    """Return totals by currency as canonical text."""
    return {currency: canonical(amount) for currency, amount in sorted(totals.items())}


def _add(sums: dict[str, Decimal], currency: str | None, amount: Decimal) -> None:
    sums[currency or ""] = exact_sum(sums.get(currency or "", Decimal(0)), amount)


def _difference(row: Row, amount: Decimal) -> Row:
    own = {name: None for name in row if name.startswith("x_") and name not in (*_KEY, _TOTAL)}
    detail = row["InvoiceDetailId"].rpartition("/")[0]
    return {
        **row,
        **own,
        "BilledCost": amount,
        "ChargeCategory": "Adjustment",
        "InvoiceDetailDescription": DIFFERENCE_WORDS,
        "InvoiceDetailGrain": None,
        "InvoiceDetailId": f"{detail}/{DIFFERENCE}",
    }


def _compact(grain: str | None) -> str | None:
    """Return JSON in one spelling; each database has its own."""
    return grain and json.dumps(json.loads(grain), ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _column(name: str, type_: object) -> FocusColumn:
    if name in (*_AMOUNTS, _TOTAL):
        return FocusColumn(name, "amount")
    if name.endswith(_MOMENTS):
        return FocusColumn(name, "moment")
    return FocusColumn(name, "integer" if isinstance(type_, Integer) else "text")
