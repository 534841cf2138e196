"""Where CloudOnex's records hold what is staged: the document's fields, and the columns of the product's own tables.

The traps of the columns are in vendor facts 3b: the currency as a number, ``credit`` for what was paid.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_cloudbilling.parse import (
    Names,
    Shape,
    amount,
    country,
    currency,
    day,
    document_type,
    identifier,
    text,
)
from airflow_cloudbilling.parse.names import LINE_NAMES, Table

SHAPE = Shape(lists=("invoices", "items"), marks=("id",), root="")
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
