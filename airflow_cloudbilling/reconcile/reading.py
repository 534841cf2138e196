"""A month as it is staged, read as of one moment, slice by slice and some hundred invoices at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Table, and_, func, or_, select

from airflow_cloudbilling.exact import exact_sum, exactly
from airflow_cloudbilling.model import Period, Slice
from airflow_cloudbilling.reconcile.arithmetic import Head, LineSums, Tax
from airflow_cloudbilling.reconcile.currencies import rounded
from airflow_cloudbilling.staging.frozen import is_frozen
from airflow_cloudbilling.staging.ledger import of_slice
from airflow_cloudbilling.staging.tables import Tables

_PAGE = 500  # invoices read at once
_LINES = 5_000  # lines held at once: one invoice may have a million
_FIRST, _LAST = Head._fields.index("net_amount"), Head._fields.index("payable_amount") + 1  # of a head's amounts

Line = tuple[str, Any, Any, Any, "str | None", "str | None"]  # invoice_id, net, tax, rate, customer_id, item_code


class SliceKey(NamedTuple):
    """An account and kind of a provider, of whatever period."""

    provider: str
    account: str
    kind: str


class Charges(NamedTuple):
    """What lines come to by currency and customer, and by currency and item."""

    customers: defaultdict[tuple[str, str], Decimal]
    items: defaultdict[tuple[str, str], Decimal]

    @classmethod
    def none(cls) -> Charges:
        """Return the charges of no line."""
        return cls(defaultdict(Decimal), defaultdict(Decimal))


class Reader:
    """Reads invoices by their ids, which every database finds whatever it knows of its tables.

    :param connection: from :func:`~airflow_cloudbilling.staging.reading.snapshot`.
    """

    def __init__(self, connection: Connection, tables: Tables) -> None:
        self.connection = connection
        self.tables = tables

    def ids(self, key: SliceKey, period: Period) -> Iterator[list[str]]:
        """Yield the ids of a slice's invoices in their order, a page at a time."""
        slices = self.tables.slice_invoice
        own = of_slice(slices, Slice(*key, period))
        query = select(slices.c.invoice_id).where(own).order_by(slices.c.invoice_id).limit(_PAGE)
        page = list(self.connection.scalars(query))
        while page:
            yield page
            page = list(self.connection.scalars(query.where(slices.c.invoice_id > page[-1])))

    def heads(self, key: SliceKey, ids: Collection[str]) -> dict[str, Head]:
        """Return the staged invoices of a page by their ids."""
        invoice = self.tables.invoice
        columns = [invoice.c[name] for name in Head._fields[:-1]]
        query = select(*columns, is_frozen(self.tables)).where(_in(invoice, key, ids))
        return {row.invoice_id: _head(row) for row in self.connection.execute(query)}

    def elsewhere(self, key: SliceKey, period: Period, ids: Collection[str]) -> Iterator[tuple[str, str]]:
        """Yield which invoices of a page another period returns too that has no day in common with this one."""
        slices = self.tables.slice_invoice
        other = or_(
            func.substr(slices.c.period, 1, 10) >= period.end.isoformat(),
            func.substr(slices.c.period, 12, 10) <= period.start.isoformat(),
        )
        query = select(slices.c.invoice_id, slices.c.period).where(_in(slices, key, ids), other)
        for invoice_id, found in self.connection.execute(query.order_by(slices.c.invoice_id, slices.c.period)):
            yield invoice_id, Period.parse(found).key

    def sums(self, key: SliceKey, heads: dict[str, Head], charges: Charges | None = None) -> list[LineSums]:
        """Return what the lines of each invoice come to, in the order of ``heads``.

        :param charges: takes in what they come to by customer and item.
        """
        line = self.tables.invoice_line
        names = ("invoice_id", "net_amount", "tax_amount", "tax_rate", "customer_id", "item_code")
        found: dict[str, _Added] = {invoice_id: _Added() for invoice_id in heads}
        with closing(self._stream(select(*(line.c[name] for name in names)).where(_in(line, key, heads)))) as rows:
            for chunk in rows.partitions():
                _add(chunk, found)
                if charges:
                    _charge(chunk, heads, charges)
        if charges:
            bare = (head for head in heads.values() if not head.line_count)
            _charge([(head.invoice_id, head.net_amount, None, None, None, None) for head in bare], heads, charges)
        return [one.sums() for one in found.values()]

    def taxes(self, key: SliceKey, ids: Collection[str]) -> dict[str, list[Tax]]:
        """Return the VAT breakdowns of a page's invoices, of those that have one."""
        tax = self.tables.invoice_tax
        columns = [tax.c[name] for name in Tax._fields]
        query = select(tax.c.invoice_id, *columns).where(_in(tax, key, ids)).order_by(tax.c.invoice_id, "tax_number")
        found: dict[str, list[Tax]] = {}
        for invoice_id, rate, taxable, amount, category in self.connection.execute(query):
            row = Tax(_decimal(rate), _decimal(taxable), _decimal(amount), category)
            found.setdefault(invoice_id, []).append(row)
        return found

    def rounded_lines(self, key: SliceKey, head: Head) -> Callable[[], Decimal]:
        """Return a function that adds up an invoice's lines, each rounded to its currency's smallest unit."""

        def total() -> Decimal:
            line, found = self.tables.invoice_line, Decimal(0)
            query = select(line.c.net_amount).where(_in(line, key, [head.invoice_id]))
            with closing(self._stream(query)) as nets:
                for net in nets:
                    found = exact_sum(found, rounded(_decimal(net[0]) or Decimal(0), head.currency))
            return found

        return total

    def _stream(self, query: Any) -> Any:
        """Return rows that are fetched as they are read."""
        return self.connection.execute(query, execution_options={"yield_per": _LINES})


def _in(table: Table, key: SliceKey, ids: Collection[str]) -> ColumnElement[bool]:
    of_account = (table.c[name] == value for name, value in key._asdict().items())
    return and_(*of_account, table.c.invoice_id.in_(list(ids)))


def _head(row: Sequence[Any]) -> Head:
    *others, frozen = row[_LAST:]
    return Head(*row[:_FIRST], *map(_decimal, row[_FIRST:_LAST]), *others, bool(frozen))  # type: ignore[call-arg] # a column each


def _decimal(amount: Any) -> Decimal | None:
    return None if amount is None else Decimal(amount)  # SQLite has text


class _Added:
    """What an invoice's lines come to so far; these loops run for every line, so they are plain."""

    __slots__ = ("lines", "net", "nets", "rated", "rates", "tax", "taxes")

    def __init__(self) -> None:
        self.lines = self.nets = self.taxes = self.rates = 0
        self.net = self.tax = self.rated = Decimal(0)

    def sums(self) -> LineSums:
        return LineSums(self.lines, self.nets, self.net, self.taxes, self.tax, self.rates, self.rated)


def _add(lines: Iterable[Line], found: Mapping[str, _Added]) -> None:
    with exactly():
        for invoice_id, net, tax, rate, _, _ in lines:
            one = found[invoice_id]
            one.lines += 1
            if net is not None:
                one.nets += 1
                one.net += (amount := Decimal(net))
                if rate is not None:
                    one.rates += 1
                    one.rated += amount * Decimal(rate)
            if tax is not None:
                one.taxes += 1
                one.tax += Decimal(tax)


def _charge(lines: Iterable[Line], heads: Mapping[str, Head], charges: Charges) -> None:
    customers, items = charges
    with exactly():
        for invoice_id, net, _, _, customer, item in lines:
            if net is None:
                continue
            head, amount = heads[invoice_id], Decimal(net)
            currency = head.currency or ""
            if customer := customer or head.buyer_id:
                customers[currency, customer] += amount
            if item:
                items[currency, item] += amount
