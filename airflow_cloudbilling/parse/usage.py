"""Consumption reports as a stream of invoice lines, read column by column, and their sums; any number of rows."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from functools import lru_cache
from typing import IO

from airflow_cloudbilling.errors import RecordError
from airflow_cloudbilling.exact import canonical, exact_difference
from airflow_cloudbilling.model import InvoiceLine
from airflow_cloudbilling.parse.fields import Fields, Values, Wanted
from airflow_cloudbilling.parse.names import LINE_NAMES, Table
from airflow_cloudbilling.parse.totals import RunningSum, Totals
from airflow_cloudbilling.parse.usage_rows import Rows, comma_amount, rows_of
from airflow_cloudbilling.parse.values import currency, day, text

LINE: Table = {
    **dict.fromkeys(LINE_NAMES, (text, ())),
    "item_code": (text, ("CodeLabel",)),
    "description": (text, ("ChargeLabel",)),
    "quantity": (comma_amount, ("Quantity",)),
    "unit": (text, ("BillingUnit",)),
    "unit_price": (comma_amount, ("UnitPrice",)),
    "discount": (comma_amount, ()),  # VolumeDiscount is a rate; the amount is what both amounts differ by
    "net_amount": (comma_amount, ("DiscountedAmount", "Amount")),
    "tax_rate": (comma_amount, ()),
    "tax_amount": (comma_amount, ()),
    "period_start": (day, ("BeginDate",)),
    "period_end": (day, ("EndDate",)),
    "subscription_id": (text, ("ServiceID",)),
    "subscription_name": (text, ("ServiceCloud",)),
    "customer_name": (text, ("TenantLabel",)),
    "charge_type": (text, ("BillingMode",)),
}
_FURTHER = (
    Wanted("currency", lru_cache(maxsize=16)(currency), ("Currency",)),
    Wanted("amount", comma_amount, ("Amount",)),
    Wanted("discounted", comma_amount, ("DiscountedAmount",)),
)
_DISCOUNT, _NET, _TAX = (LINE_NAMES.index(name) for name in ("discount", "net_amount", "tax_amount"))
_CURRENCY = len(LINE_NAMES)


class UsageReader:
    """Reads the reports of one document, row by row, and adds them up.

    :param line: how a line's values are read, :data:`LINE` with the user's ``field_map`` in it.
    :param keep_raw: whether lines carry their row.
    """

    def __init__(self, line: Table = LINE, *, keep_raw: bool = True) -> None:
        self._fields = Fields([*(Wanted(name, *line[name]) for name in LINE_NAMES), *_FURTHER])
        self._keep_raw = keep_raw
        self._sum = RunningSum()
        self.currency: str | None = None

    def lines(self, body: IO[bytes]) -> Iterator[list[InvoiceLine]]:
        """Yield a line for each row of a report, some hundred at a time.

        :param body: is read twice: once for its encoding.
        :raises ColumnsError: when the first row has not 27 columns.
        :raises RecordError: naming the row and the column that cannot be read.
        """
        for some in rows_of(body):
            yield self._lines(some)

    def _lines(self, some: Rows) -> list[InvoiceLine]:
        *values, _, full, discounted = zip(*self._values(some), strict=True)
        values[_DISCOUNT] = tuple(map(_discount, values[_DISCOUNT], full, discounted))
        self._sum.add(values[_NET], values[_TAX])
        raws = some.texts() if self._keep_raw else [None] * len(some.rows)
        return list(map(InvoiceLine._make, zip(*values, raws, strict=True)))

    def _values(self, some: Rows) -> Iterator[Values]:
        """Yield the canonical values of each row."""
        for number, values in zip(some.numbers, self._fields.read_rows(some.names, some.rows), strict=True):
            if isinstance(values, RecordError):
                raise RecordError(f"row {number}: {values.reason}")
            if values[_CURRENCY] != self.currency:
                self._turn(number, values[_CURRENCY])
            yield values

    def totals(self) -> Totals:
        """Return the sums of all rows so far.

        :raises RecordError: when rows lack an amount or their currency.
        """
        totals = self._sum.complete(None, None, None)
        if totals.net is not None and self.currency is None:
            raise RecordError("field currency (Currency): expected a value in some row, nothing came")
        return totals

    def _turn(self, number: int, code: str | None) -> None:
        """Take the report's currency from its first row that has one; amounts of two do not add up."""
        if code is not None and self.currency is not None:
            raise RecordError(
                f"row {number}: field currency (Currency): expected {self.currency} as in the rows before, came {code}"
            )
        self.currency = self.currency or code


def _discount(stated: str | None, full: str | None, discounted: str | None) -> str | None:
    if stated is not None or full is None or discounted is None:
        return stated
    try:
        return "0" if full == discounted else canonical(exact_difference(Decimal(full), Decimal(discounted)))
    except ValueError as error:
        raise RecordError(f"field discount: {full} less {discounted} cannot be staged: {error}") from None
