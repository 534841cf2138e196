"""CloudOnex's records as invoices, and what the rows of the product's own tables leave open is worked out.

The traps of the rows are in vendor facts 3b: a line's tax amount that is never filled, a number in two parts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache, partial
from typing import Any

from airflow_cloudbilling.errors import RecordError
from airflow_cloudbilling.exact import canonical, exact_difference, exact_product, exact_sum
from airflow_cloudbilling.model import Invoice, Period
from airflow_cloudbilling.parse import (
    CLOSE,
    LEAVES,
    MEMBERS,
    OPEN,
    WHOLE,
    Event,
    Fields,
    InvoiceReader,
    Names,
    Unreadable,
    Wanted,
    Whole,
    amount,
    document_type,
    fold,
    text,
)
from airflow_cloudbilling.parse.fields import Values
from airflow_cloudbilling.parse.header import Header
from airflow_cloudbilling.parse.names import LINE_NAMES
from airflow_cloudbilling.parse.nesting import Columns
from airflow_cloudbilling.parse.records import json_text, listed, source_text
from airflow_cloudbilling.parse.totals import minus
from airflow_cloudbilling.sources.cloudonex_names import SHAPE

_ITEMS = ("items", "invoiceitems", "lineitems", "lines")  # folded
_NAMES_KEPT = 500  # in one shape
_ASIDE = ("invoicenum", "cn", "type", "tax2", "taxtotal", "currency")
_DISCOUNT, _NET, _TAX, _RATE, _QUANTITY, _PRICE = map(
    LINE_NAMES.index, ("discount", "net_amount", "tax_amount", "tax_rate", "quantity", "unit_price")
)


def has_items(record: Any) -> bool:
    """Whether a record says what its lines are, if only that there are none."""
    return not isinstance(record, dict) or bool(_named(record, _ITEMS))


def _named(record: Mapping[str, Any], names: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Return which members of a record have one of some names: the folded name, and as it is written."""
    find = _find if len(record) <= _NAMES_KEPT else _find.__wrapped__
    return find(tuple(record), names)


@lru_cache(maxsize=256)
def _find(shape: tuple[str, ...], names: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    return tuple((fold(name), name) for name in shape if fold(name) in names)


def merged(record: Any) -> Any:
    """Return ``{"invoice": {…}, "items": […]}`` as one record; any other as it is."""
    if isinstance(record, dict):
        for name, inner in record.items():
            if isinstance(inner, dict) and fold(name) in ("invoice", "purchase"):
                return {**inner, **{other: value for other, value in record.items() if other != name}}
    return record


class Reader(InvoiceReader):
    """Reads records, and works out what the rows leave open.

    :param names: with the user's ``field_map`` in it.
    :param mapped: the canonical names in that map; what they say is not improved on.
    :param default_currency: of invoices that state none.
    :param period: lines of other invoices are passed over.
    """

    _written = staticmethod(json_text)

    def __init__(
        self,
        names: Names,
        mapped: Collection[str],
        default_currency: str | None,
        *,
        keep_raw: bool,
        period: Period | None = None,
    ) -> None:
        super().__init__(names, keep_raw=keep_raw, sha256=None, period=period)
        self._mapped = mapped
        self._default_currency = default_currency
        self._line = Fields([*self._line.wanted, Wanted("discount_type", _percentage, ("discount_type",))])

    def events(self, records: Sequence[Any]) -> Iterator[Event]:
        """Yield the steps through records."""
        whole = [one for one in map(self._whole, records) if one]
        if whole and len(whole) == len(records):
            yield Event(WHOLE, 1, whole=whole, steps=partial(self._each, records))
        else:
            yield from self._each(records)

    def _whole(self, record: Any) -> Whole | None:
        """Return a record with its lines, unless it is something else, or has several lists of them."""
        if not isinstance(record, dict) or "" in record:
            return None
        own, lists = _split(record)
        lines = lists[0] if lists else []
        if len(lists) > 1 or set(map(type, lines)) - {dict}:
            return None
        return Whole(own, lines, self._raws(own), self._texts(lines))

    def _each(self, records: Iterable[Any]) -> Iterator[Event]:
        """Yield the same step by step."""
        for record in records:
            yield Event(OPEN, 1)
            own, lists = _split(record if isinstance(record, dict) else {"": record})
            yield Event(MEMBERS, 1, own, raws=self._raws(own))
            for items in lists:
                yield Event(LEAVES, SHAPE.leaf, leaves=items, raws=self._texts(items))
            yield Event(CLOSE, 1)

    def _raws(self, own: Mapping[str, Any]) -> dict[str, str]:
        return {name: source_text(value) for name, value in own.items()} if self._keep_raw else {}

    def _texts(self, items: Sequence[Any]) -> Sequence[str]:
        return list(map(source_text, items)) if self._keep_raw else ()

    def _invoice(self, values: dict[str, str | None], header: Header) -> Invoice:
        said = {folded: header.members[name] for folded, name in _named(header.members, _ASIDE)}
        worked_out = {
            "invoice_number": values["invoice_number"] or _number(said),
            "document_type": values["document_type"] or _document_type(said),
            "currency": values["currency"] or self._default_currency,
            "tax_amount": _taxes(values["tax_amount"], said),
        }
        values |= {name: value for name, value in worked_out.items() if name not in self._mapped or not values[name]}
        values |= {name: value for name, value in _sums(values).items() if name not in self._mapped}
        if values["currency"] is None:
            raise RecordError(
                "field currency (currency_iso_code, currency): expected a currency's three letters, came"
                f" {json_text(said.get('currency'))[:40]}; enter default_currency in the connection's extra"
            )
        return super()._invoice(values, header)

    def _line_columns(self, leaves: list[Any]) -> Columns:
        *lines, percentages = super()._line_columns(leaves)
        zeros = "0" in lines[_TAX] or None in lines[_NET]
        if zeros or any(percentages):
            rows = map(self._completed, *lines, percentages)
            lines = [*zip(*rows, strict=True)] if leaves else lines
        return lines

    def _completed(self, *values: str | None) -> Values:
        """Return a line's values, of which the last says whether its discount is a percentage."""
        *line, percentage = values
        if percentage and line[_DISCOUNT] not in (None, "0"):
            line[_DISCOUNT] = None
        elif line[_NET] is None and "line.net_amount" not in self._mapped:
            line[_NET] = _line_net(line[_QUANTITY], line[_PRICE], line[_DISCOUNT])
        if line[_TAX] == "0" and line[_RATE] not in (None, "0") and line[_NET] != "0":
            line[_TAX] = None  # the product writes 0.00 whatever the tax is
        return tuple(line)


def _split(record: Mapping[str, Any]) -> tuple[dict[str, Any], list[list[Any]]]:
    """Return what a record says of itself, and its lists of lines."""
    lists = [name for _, name in _named(record, _ITEMS)]
    own = {name: value for name, value in record.items() if name not in lists}
    return own, [listed(record[name]) for name in lists]


def _percentage(kind: Any) -> str | None:
    return "yes" if isinstance(kind, str) and kind.strip().casefold().startswith("p") else None


def _number(said: Mapping[str, Any]) -> str | None:
    try:
        return "".join(text(said.get(name)) or "" for name in ("invoicenum", "cn")) or None
    except Unreadable as error:
        raise RecordError(f"field invoice_number (invoicenum, cn): {error}") from None


def _document_type(said: Mapping[str, Any]) -> str | None:
    kind = said.get("type")
    return document_type(kind) if isinstance(kind, str) else None


def _taxes(tax: str | None, said: Mapping[str, Any]) -> str | None:
    """Return tax + tax2; where those are nothing, ``tax_total``."""
    try:
        second, total = amount(said.get("tax2")), amount(said.get("taxtotal"))
    except Unreadable as error:
        raise RecordError(f"field tax_amount (tax2, tax_total): {error}") from None
    if second not in (None, "0"):
        tax = _staged(exact_sum(Decimal(tax or 0), Decimal(second or 0)))
    return total if tax in (None, "0") and total is not None else tax


def _sums(values: Mapping[str, str | None]) -> dict[str, str | None]:
    """Return the net amount without the discount, where the sums say that ``subtotal`` is before it; what is due."""
    net, gross, discount, paid = map(values.get, ("net_amount", "gross_amount", "allowance_total", "paid_amount"))
    found: dict[str, str | None] = {}
    if net and gross and discount not in (None, "0"):
        less = minus(net, discount)
        if exact_sum(less, Decimal(values["tax_amount"] or 0)) == Decimal(gross):
            found["net_amount"] = _staged(less)
    if values["payable_amount"] is None and gross and paid:
        found["payable_amount"] = _staged(minus(gross, paid))
    return found


def _line_net(quantity: str | None, price: str | None, discount: str | None) -> str | None:
    """Return quantity times price less the discount."""
    if quantity is None or price is None:
        return None
    try:
        product = exact_product(Decimal(quantity), Decimal(price))
        return canonical(exact_difference(product, Decimal(discount or 0)))
    except ValueError:  # more decimals than can be staged: nobody has said how to round
        return None


def _staged(total: Decimal) -> str:
    try:
        return canonical(total)
    except ValueError as error:
        raise RecordError(f"a sum of the invoice's amounts cannot be staged: {error}") from None
