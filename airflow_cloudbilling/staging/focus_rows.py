"""The rows of FOCUS's datasets for files: of one period, in one order, each invoice adding up to the last digit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from itertools import groupby
from typing import NamedTuple

from sqlalchemy import Connection, Integer, and_, case, func, select

from airflow_cloudbilling.errors import StagingError
from airflow_cloudbilling.exact import canonical, exact_difference, exact_sum
from airflow_cloudbilling.model import Period
from airflow_cloudbilling.staging.focus import DIFFERENCE, DIFFERENCE_WORDS, KINDS, PAID, ROUNDING, Focus
from airflow_cloudbilling.staging.reading import Row, amounts, bytewise, exact, stream
from airflow_cloudbilling.staging.tables import Tables

_TOTAL, _PAYABLE = "x_InvoiceTotal", "x_PayableAmount"
_MEASURES = ("x_Quantity", "x_UnitPrice", "x_Discount", "x_TaxRate", "x_TaxAmount", "x_PaidAmount")
_AMOUNTS = ("BilledCost", *_MEASURES, _TOTAL, _PAYABLE)
_OF_INVOICE = (_TOTAL, _PAYABLE, "x_InvoiceStatus")
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
        self._of_stated: dict[str, Decimal] = {}  # the same of invoices that state a total
        self.without_currency = 0  # invoices whose vendor names none

    @property
    def columns(self) -> dict[str, list[FocusColumn]]:
        """Return the columns by dataset, in the order of the files."""
        found = {"InvoiceDetail": self._details, "BillingPeriod": self._periods}
        return {name: [_column(c.name, c.type) for c in query.c] for name, query in found.items()}

    def rows(self, dataset: str) -> Iterator[Row]:
        """Yield a dataset's rows: ``InvoiceDetail`` or ``BillingPeriod``."""
        return self._invoice_detail() if dataset == "InvoiceDetail" else self._billing_period()

    def staged(self) -> dict[str, Decimal]:
        """Return what is due by currency, as it is staged: BT-115, else BT-112 (or BT-109) - BT-113 + BT-114."""
        invoice, sums = self.tables.invoice, dict[str, Decimal]()
        total = func.coalesce(invoice.c.gross_amount, invoice.c.net_amount).label("total")
        names = ("payable_amount", "paid_amount", "rounding_amount")
        columns = (invoice.c.currency, total, *(invoice.c[name] for name in names))
        for row in stream(self.connection, select(*columns).where(self._chosen, total.is_not(None))):
            payable, paid, rounding = (exact(row[name]) for name in names)
            beside = exact_difference(rounding or Decimal(0), paid or Decimal(0))
            _add(sums, row["currency"], _due(payable, exact(row["total"]) or Decimal(0), beside))
        return sums

    def check(self) -> None:
        """Compare what the rows came to with what is staged.

        :raises StagingError: when they differ by anything.
        """
        staged, found = self.staged(), self._of_stated
        different = {c for c in staged.keys() | found.keys() if staged.get(c, 0) != found.get(c, 0)}
        if different:
            none = Decimal(0)
            words = [f"{c} {found.get(c, none):f} instead of {staged.get(c, none):f}" for c in sorted(different)]
            raise StagingError(
                f"The rows of {self.period.key} come to {', '.join(words)}; nothing was written. Somebody changed rows"
                " of the staging tables by hand: load the period again."
            )

    def _invoice_detail(self) -> Iterator[Row]:
        details, self.totals, self._of_stated, self.without_currency = self._details, {}, {}, 0
        number = details.c.x_LineNumber
        keys = [bytewise(details.c[name], self.name) for name in _KEY]
        last = case((number.is_not(None), 0), (details.c.InvoiceDetailId.like(f"%/{DIFFERENCE}"), 2), else_=1)
        order = (*keys, last, number, bytewise(details.c.InvoiceDetailId, self.name))
        found = (amounts(row, _AMOUNTS) for row in stream(self.connection, select(details).order_by(*order)))
        for _, of_invoice in groupby(found, key=lambda row: [row[name] for name in _KEY]):
            yield from self._complete(of_invoice)

    def _complete(self, rows: Iterator[Row]) -> Iterator[Row]:
        """Yield an invoice's rows, and one more for what they lack of the amount due."""
        cost, beside, row = Decimal(0), Decimal(0), Row()
        for row in rows:
            cost = exact_sum(cost, row["BilledCost"])
            if row["InvoiceDetailId"].rpartition("/")[2] in (PAID, ROUNDING):
                beside = exact_sum(beside, row["BilledCost"])
            yield {**row, "InvoiceDetailGrain": _compact(row["InvoiceDetailGrain"])}
        due = cost if row[_TOTAL] is None else _due(row[_PAYABLE], row[_TOTAL], beside)
        lacking = exact_difference(due, cost)
        if lacking:
            yield _difference(row, lacking)
        for sums in (self.totals, *([self._of_stated] if row[_TOTAL] is not None else [])):
            _add(sums, row["BillingCurrency"], due)
        self.without_currency += not row["BillingCurrency"]

    def _billing_period(self) -> Iterator[Row]:
        periods = self._periods
        return stream(self.connection, select(periods).order_by(bytewise(periods.c.InvoiceIssuerName, self.name)))


def texts(totals: dict[str, Decimal]) -> dict[str, str]:
    """Return totals by currency as canonical text."""
    return {currency: canonical(amount) for currency, amount in sorted(totals.items())}


def _add(sums: dict[str, Decimal], currency: str | None, amount: Decimal) -> None:
    sums[currency or ""] = exact_sum(sums.get(currency or "", Decimal(0)), amount)


def _due(payable: Decimal | None, total: Decimal, beside: Decimal) -> Decimal:
    return exact_sum(total, beside) if payable is None else payable


def _difference(row: Row, amount: Decimal) -> Row:
    own = {name: None for name in row if name.startswith("x_") and name not in (*_KEY, *_OF_INVOICE)}
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
    if name in _AMOUNTS:
        return FocusColumn(name, "amount")
    if name.endswith(_MOMENTS):
        return FocusColumn(name, "moment")
    return FocusColumn(name, "integer" if isinstance(type_, Integer) else "text")
