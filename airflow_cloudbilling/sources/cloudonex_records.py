"""Where CloudOnex's records hold what is staged: the document's fields, and the rows of the product's own tables.

The traps of the rows are in vendor facts 3b: a line's tax amount that is never filled, the currency as a number,
``credit`` for what was paid, a number in two parts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from airflow_cloudbilling.errors import RecordError
from airflow_cloudbilling.exact import canonical, exact_product, exact_sum
from airflow_cloudbilling.model import Invoice
from airflow_cloudbilling.parse import (
    CLOSE,
    LEAVES,
    MEMBERS,
    OPEN,
    Event,
    InvoiceReader,
    Names,
    Shape,
    Unreadable,
    amount,
    country,
    currency,
    day,
    document_type,
    fold,
    identifier,
    text,
)
from airflow_cloudbilling.parse.fields import Values
from airflow_cloudbilling.parse.header import Header
from airflow_cloudbilling.parse.names import LINE_NAMES, Table
from airflow_cloudbilling.parse.records import json_text, listed

SHAPE = Shape(lists=("invoices", "items"), marks=("id",), root="")
_ITEMS = ("items", "invoiceitems", "lineitems", "lines")  # folded
_YES = ("1", "true", "yes", "on")
_NO_DAY = "0000-00-00"  # how MySQL writes nothing


def _day(value: Any) -> str | None:
    return None if isinstance(value, str) and value.strip().startswith(_NO_DAY) else day(value)


def _iso(value: Any) -> str | None:
    """Read a currency where it may also be a number of the product's own table, or a symbol."""
    code = text(value)
    return currency(code) if code and len(code) == 3 and code.isascii() and code.isalpha() else None


def _credit(value: Any) -> str | None:
    return "credit_note" if (text(value) or "").casefold() in _YES else document_type(value)


_NOWHERE: tuple[str, ...] = ()
_HEAD: Table = {
    "invoice_id": (identifier, ("id",)),
    "invoice_number": (text, ("invoice_number", "purchase_number", "number")),  # else invoicenum + cn
    "document_type": (_credit, ("is_credit_invoice", "document_type")),
    "issue_date": (_day, ("date", "issued_date", "issue_date", "invoice_date", "purchase_date", "created_at")),
    "due_date": (_day, ("due_date", "duedate")),  # never datepaid, which is filled when the invoice is made
    "period_start": (day, _NOWHERE),
    "period_end": (day, _NOWHERE),
    "currency": (_iso, ("currency_iso_code", "currency_code", "currency")),
    "seller_name": (text, _NOWHERE),
    "seller_vat_id": (text, _NOWHERE),
    "seller_country": (country, _NOWHERE),
    "buyer_id": (text, _NOWHERE),
    "buyer_name": (text, _NOWHERE),
    "buyer_vat_id": (text, _NOWHERE),
    "buyer_country": (country, _NOWHERE),
    "net_amount": (amount, ("subtotal", "net_amount")),
    "tax_amount": (amount, ("tax", "tax_amount")),  # + tax2, or tax_total
    "gross_amount": (amount, ("total", "amount", "grand_total", "gross_amount")),
    "allowance_total": (amount, ("discount",)),
    "charge_total": (amount, _NOWHERE),
    "rounding_amount": (amount, _NOWHERE),
    "paid_amount": (amount, ("credit", "paid_amount", "amount_paid")),
    "payable_amount": (amount, ("amount_due", "balance_due", "due_amount")),  # else total - credit
    "status": (text, ("status",)),
    "preceding_invoice": (text, _NOWHERE),
}
_OTHER_PARTY: Mapping[str, Table] = {  # of an invoice it buys, of a purchase it sells
    "sales": {
        "buyer_id": (text, ("customer_id", "userid", "cid", "customer.id", "contact.id")),
        "buyer_name": (text, ("customer_name", "account", "customer.account", "contact.account", "contact.name")),
        "buyer_country": (country, ("billing_country",)),
    },
    "purchase": {
        "seller_name": (text, ("supplier_name", "account", "supplier.account", "supplier.name", "contact.account")),
        "seller_country": (country, ("billing_country",)),
    },
}
_LINE: Table = {
    **dict.fromkeys(LINE_NAMES, (text, _NOWHERE)),
    "line_id": (text, ("id",)),
    "item_code": (text, ("itemcode", "item_code", "sku")),
    "description": (text, ("description", "name")),
    "quantity": (amount, ("qty", "quantity")),
    "unit": (text, ("unit",)),
    "unit_price": (amount, ("amount", "unit_price", "price")),
    "discount": (amount, ("discount_amount", "discount")),
    "net_amount": (amount, ("total", "line_total")),
    "tax_rate": (amount, ("tax_rate", "taxrate")),
    "tax_amount": (amount, ("taxamount", "tax_amount")),
    "period_start": (day, _NOWHERE),
    "period_end": (day, _NOWHERE),
}
NAMES = {kind: Names(SHAPE, {**_HEAD, **theirs}, _LINE, {}) for kind, theirs in _OTHER_PARTY.items()}


def has_items(record: Any) -> bool:
    """Whether a record says what its lines are, if only that there are none."""
    return not isinstance(record, dict) or any(fold(name) in _ITEMS for name in record)


def merged(record: Any) -> Any:
    """Return ``{"invoice": {…}, "items": […]}`` as one record; any other as it is."""
    if isinstance(record, dict):
        for name, inner in record.items():
            if fold(name) in ("invoice", "purchase") and isinstance(inner, dict):
                return {**inner, **{other: value for other, value in record.items() if other != name}}
    return record


class Reader(InvoiceReader):
    """Reads records one by one and works out what the rows leave open.

    :param names: with the user's ``field_map`` in it.
    :param mapped: the canonical names in that map; what they say is not improved on.
    :param default_currency: of invoices that state none.
    """

    def __init__(self, names: Names, mapped: Collection[str], default_currency: str | None, *, keep_raw: bool) -> None:
        super().__init__(names, keep_raw=keep_raw, sha256=None)
        self._mapped = mapped
        self._default_currency = default_currency

    def events(self, record: Any, sha256: str) -> Iterator[Event]:
        """Yield the steps through one record.

        :param sha256: of the body that it came in.
        """
        self._sha256 = sha256
        yield Event(OPEN, 1)
        members = record if isinstance(record, dict) else {"": record}
        lists = [name for name in members if fold(name) in _ITEMS]
        own = {name: value for name, value in members.items() if name not in lists}
        yield Event(MEMBERS, 1, own, raws={name: json_text(value) for name, value in own.items()})
        for items in (listed(members[name]) for name in lists):
            yield Event(LEAVES, SHAPE.leaf, leaves=items, raws=list(map(json_text, items)) if self._keep_raw else ())
        yield Event(CLOSE, 1)

    def _invoice(self, values: dict[str, str | None], header: Header) -> Invoice:
        said = {fold(name): value for name, value in header.members.items()}
        worked_out = {
            "invoice_number": values["invoice_number"] or _number(said),
            "document_type": values["document_type"] or _document_type(said),
            "currency": values["currency"] or self._default_currency,
            "tax_amount": _taxes(values["tax_amount"], said),
        }
        values |= {name: value for name, value in worked_out.items() if name not in self._mapped or not values[name]}
        try:
            values |= {name: value for name, value in _sums(values).items() if name not in self._mapped}
        except ValueError as error:
            raise RecordError(f"a sum of the invoice's amounts cannot be staged: {error}") from None
        if values["currency"] is None:
            raise RecordError(
                "field currency (currency_iso_code, currency): expected a currency's three letters, came"
                f" {json_text(said.get('currency'))[:40]}; enter default_currency in the connection's extra"
            )
        return super()._invoice(values, header)

    def _completed(self, leaves: Sequence[Any], lines: list[Any]) -> Sequence[Values]:
        return [self._line_completed(leaf, values) for leaf, values in zip(leaves, lines, strict=True)]

    def _line_completed(self, record: Mapping[str, Any], values: Values) -> Values:
        line = dict(zip(LINE_NAMES, values, strict=True))
        kind = next((value for name, value in record.items() if fold(name) == "discounttype"), None)
        if isinstance(kind, str) and kind.strip().casefold().startswith("p") and line["discount"] not in (None, "0"):
            line["discount"] = None  # a percentage
        elif "line.net_amount" not in self._mapped:
            line["net_amount"] = _line_net(line)
        if line["tax_amount"] == "0" and line["tax_rate"] not in (None, "0") and line["net_amount"] != "0":
            line["tax_amount"] = None  # the product writes 0.00 whatever the tax is
        return tuple(line.values())


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
        tax = canonical(exact_sum(Decimal(tax or 0), Decimal(second or 0)))
    return total if tax in (None, "0") and total is not None else tax


def _sums(values: Mapping[str, str | None]) -> dict[str, str | None]:
    """Return the net amount without the discount, where the sums say that ``subtotal`` is before it; what is due."""
    net, tax, gross, discount, paid = (
        None if values[name] is None else Decimal(str(values[name]))
        for name in ("net_amount", "tax_amount", "gross_amount", "allowance_total", "paid_amount")
    )
    found: dict[str, str | None] = {}
    if net is not None and gross is not None and discount:
        less = exact_sum(net, discount.copy_negate())
        if exact_sum(less, tax or Decimal(0)) == gross:
            found["net_amount"] = canonical(less)
    if values["payable_amount"] is None and gross is not None and paid is not None:
        found["payable_amount"] = canonical(exact_sum(gross, paid.copy_negate()))
    return found


def _line_net(line: Mapping[str, str | None]) -> str | None:
    """Return the stated total; where there is none, quantity times price less the discount."""
    stated, quantity, price = line["net_amount"], line["quantity"], line["unit_price"]
    if stated is not None or quantity is None or price is None:
        return stated
    try:
        product = exact_product(Decimal(quantity), Decimal(price))
        return canonical(exact_sum(product, Decimal(line["discount"] or 0).copy_negate()))
    except ValueError:  # more decimals than can be staged: nobody has said how to round
        return stated
