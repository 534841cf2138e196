"""CloudOnex's records (vendor facts 3d): with the document's fields, and as rows of the product's own tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date
from decimal import Decimal
from typing import Any

from airflow_cloudbilling.model import Period
from airflow_cloudbilling.sandbox.bills import Bill, Charge, priced
from airflow_cloudbilling.sandbox.books import Books, InvoiceTruth, Truth
from airflow_cloudbilling.sandbox.catalogue import CUSTOMERS, PRODUCTS, Currency, Customer
from airflow_cloudbilling.sandbox.data import Reseller

Record = dict[str, Any]
_INDEX = 100_000  # invoices in a month and kind


class Numbered(Reseller):
    """The data set with ids that are whole numbers: the kind's digit, the month, five digits."""

    def invoice_id(self, kind: str, month: Period, index: int) -> str:
        """Return the vendor's id; :meth:`locate` reads it back."""
        return f"{self.prefixes[kind]}{month.start:%Y%m}{index:05d}"

    def locate(self, invoice_id: str) -> tuple[str, Period, int]:
        """Return the kind, month and index of an invoice id.

        :raises ValueError: when it is not an id of this data set.
        """
        kinds = {prefix: kind for kind, prefix in self.prefixes.items()}
        if not (invoice_id.isdecimal() and len(invoice_id) == 12 and invoice_id[0] in kinds):
            raise ValueError(f"{invoice_id!r} is not an invoice id of the sandbox")
        month = int(invoice_id[5:7])
        return kinds[invoice_id[0]], Period.month(int(invoice_id[1:5]), month), int(invoice_id[7:])


class Ledger(Books):
    """The books, whose truth leaves out what CloudOnex does not state: the tax of most lines.

    :param rows: whether invoices are the product's rows, which state no line's tax and every invoice's totals.
    """

    def __init__(self, reseller: Reseller, *, rows: bool) -> None:
        super().__init__(reseller)
        self._rows = rows
        self._kept: dict[tuple[str, date, date], list[Bill]] = {}

    def change(self, change: str, **where: Any) -> str:
        """Change the data; see :meth:`Books.change`."""
        changed = super().change(change, **where)
        self._kept.clear()
        return changed

    def kept(self, kind: str, start: date, end: date) -> list[Bill]:
        """Return the invoices of a span in their order; pages of one list are cut from the same one."""
        if (kind, start, end) not in self._kept:
            self._kept = {(kind, start, end): list(self.bills(kind, start, end))}
        return self._kept[kind, start, end]

    def records(self, kind: str, start: date, end: date) -> Iterator[InvoiceTruth]:
        """Return what staging must hold of each invoice issued from ``start`` until before ``end``."""
        for record in super().records(kind, start, end):
            bill = record.bill.with_charges(lambda charge: charge._replace(tax=self.line_tax(charge)))
            yield record._replace(bill=bill, totals_origin="stated" if self._rows else record.totals_origin)

    def truth(self, kind: str, start: date, end: date) -> dict[str, Truth]:
        """Return what staging must hold of a period in sum: currency → counts and sums."""
        sums = super().truth(kind, start, end)
        return {code: one._replace(line_tax=Decimal(0)) if self._rows else one for code, one in sums.items()}

    def _present(self, kind: str, month: Period, index: int) -> Bill | None:
        bill = super()._present(kind, month, index)
        if bill is None or not self._rows:
            return bill
        return bill.with_charges(lambda charge: _taxed(charge, bill.currency))  # of which the row states the sum alone

    def line_tax(self, charge: Charge) -> Decimal | None:
        """Return a line's tax as far as it is stated: 0.00 of a line that costs something says nothing."""
        return None if self._rows or (not charge.tax and charge.net) else charge.tax


def _taxed(charge: Charge, currency: Currency) -> Charge:
    """Return a charge with the tax that its rate makes."""
    bare = charge._replace(tax=Decimal(0))
    return charge if charge.tax is not None else priced(bare, currency, charge.unit_price, charge.discount)


def document(bill: Bill, status: str) -> Record:
    """Return an invoice or a purchase with the document's fields, and the totals that newer versions state."""
    record: Record = {
        "id": int(bill.invoice_id),
        "invoice_number": number(bill),
        "date": bill.issued,
        "due_date": bill.due,
        "currency": bill.currency.code,
        "status": status,
        "is_credit_invoice": int(bill.credit),
        "vtoken": 1_000_000_007,
        "ptoken": "p-token-of-the-sandbox",
        "items": [_document_item(charge) for charge in bill.charges],
        **_other_party(bill, "customer_id"),
    }
    if bill.totals_stated:
        net, tax = bill.total("net"), bill.total("tax")
        record |= {"subtotal": net, "tax": tax, "amount": net + tax}
    if bill.revision:
        record["sandbox_revision"] = bill.revision
    return dict(reversed(record.items())) if bill.reordered else record


def row(bill: Bill, status: str) -> Record:
    """Return an invoice as a row of ``sys_invoices``: amounts as texts, a number in two parts, a currency's number."""
    net, tax = bill.total("net"), bill.total("tax")
    return {
        "id": int(bill.invoice_id),
        **_other_party(bill, "userid"),
        "invoicenum": "INV-",
        "cn": number(bill).removeprefix("INV-"),
        "date": bill.issued,
        "duedate": bill.due,
        "datepaid": f"{bill.issued} 00:00:00",
        "subtotal": f"{net:f}",
        "discount_type": "f",
        "discount": "0.00",
        "credit": "0.00",
        "tax": f"{tax:f}",
        "tax2": "0.00",
        "total": f"{net + tax:f}",
        "status": status,
        "vtoken": "1000000007",
        "ptoken": "2000000011",
        "currency": 1,
        "currency_iso_code": bill.currency.code,
        "is_credit_invoice": int(bill.credit),
        **({"sandbox_revision": bill.revision} if bill.revision else {}),
    }


def row_items(bill: Bill) -> list[Record]:
    """Return the rows of ``sys_invoiceitems``, with the tax amount that is never filled."""
    return [
        {
            "id": charge.line,
            "invoiceid": int(bill.invoice_id),
            "itemcode": charge.product.sku,
            "description": charge.product.name,
            "qty": f"{charge.quantity:f}",
            "amount": f"{charge.unit_price:f}",
            "taxed": 1,
            "tax_rate": f"{charge.tax_rate:f}",
            "taxamount": "0.00",
            "discount_type": "f",
            "discount_amount": f"{charge.discount:f}",
            "total": f"{charge.net:f}",
        }
        for charge in bill.charges
    ]


def number(bill: Bill) -> str:
    """Return the number that people know an invoice by."""
    return f"INV-{bill.issued:%Y%m}-{int(bill.invoice_id) % _INDEX:05d}"


def customers() -> list[Record]:
    """Return customers as the product gives them away, password's hash and all."""
    return [_customer(nth, customer) for nth, customer in enumerate(CUSTOMERS, 1)]


def products() -> list[Record]:
    """Return the product catalogue."""
    return [
        {"id": nth, "name": product.name, "item_number": product.sku, "sales_price": Decimal(product.price)}
        for nth, product in enumerate(PRODUCTS, 1)
    ]


def others(resource: str) -> list[Record]:
    """Return a few records of a resource that nothing else is about."""
    return [{"id": nth, "name": f"{resource} {nth}", "amount": Decimal(f"{nth}.50")} for nth in range(1, 4)]


def _customer(number: int, customer: Customer) -> Record:
    return {
        "id": number,
        "account": customer.name,
        "email": f"customer{number}@example.test",
        "phone": "1234567890",
        "balance": "0.00",
        "currency": 0,
        "password": f"$2y$10$sandboxhash{number:03d}",
        "token": f"customer-token-{number}",
        "autologin": f"autologin-{number}",
        "created_at": "2024-01-15T10:00:00Z",
        "updated_at": "2024-01-15T10:00:00Z",
    }


def _document_item(charge: Charge) -> Record:
    stated: Mapping[str, Any] = {} if charge.tax is None else {"tax_amount": charge.tax}
    return {
        "id": charge.line,
        "item_code": charge.product.sku,
        "description": charge.product.name,
        "qty": charge.quantity,
        "amount": charge.unit_price,
        "discount_amount": charge.discount,
        "total": charge.net,
        "tax_rate": charge.tax_rate,
        **stated,
    }


def _other_party(bill: Bill, key: str) -> Record:
    if bill.kind == "purchase":
        return {"supplier_id": bill.seller.account, "account": bill.seller.name}
    return {key: bill.buyer.account, "account": bill.buyer.name}
