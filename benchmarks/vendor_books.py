"""A month of invoices with five lines each, of the sandbox's data: the pages as bytes, and the exact truth about them.

A thousand invoices differ, all others are copies of those under ids of their own; in the state ``changed`` one invoice
in a hundred has a first line whose price is one unit of the currency higher.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from itertools import islice
from typing import Any, NamedTuple

from airflow_cloudbilling.model import Period
from airflow_cloudbilling.sandbox import cloudonex_records, store365_records
from airflow_cloudbilling.sandbox.bills import Bill, Charge
from airflow_cloudbilling.sandbox.books import Books, InvoiceTruth
from airflow_cloudbilling.sandbox.cloudonex import CloudOnex
from airflow_cloudbilling.sandbox.orange_books import OrangeBooks, OrangeReseller
from airflow_cloudbilling.sandbox.render import to_json
from airflow_cloudbilling.sandbox.store365 import Store365

MONTH = Period.month(2026, 10)
EACH = 100  # invoices in a page
LINES = 5
DISTINCT = 1000
STATES = ("present", "changed")


class FiveLines:
    """Mixed into a data set: its invoices that have five lines or more, cut after the fifth."""

    def bill(self, kind: str, month: Period, index: int) -> Bill:
        """Return one invoice of a month."""
        found = super().bill(kind, month, self._long(kind, month, index))
        kept = {charge.line for charge in islice(found.charges, LINES)}
        own = self.invoice_id(kind, month, index)
        return found.with_charges(lambda charge: charge if charge.line in kept else None, invoice_id=own)

    def _long(self, kind: str, month: Period, nth: int) -> int:
        """Return the index of the nth invoice that is long enough; there is one kind and one month."""
        known: list[int] = self.__dict__.setdefault("_known", [])
        index = known[-1] + 1 if known else 0
        while len(known) <= nth:
            if len([*super().bill(kind, month, index).charges]) >= LINES:
                known.append(index)
            index += 1
        return known[nth]


class OfStore365(FiveLines, OrangeReseller):
    """Store365's invoices, which state no line's tax."""


class OfCloudOnex(FiveLines, cloudonex_records.Numbered):
    """CloudOnex's invoices, whose ids are numbers."""


class Rendered(NamedTuple):
    """An invoice as it is sent; its id and its number stand for those of its copies."""

    text: str
    invoice_id: str
    number: str

    def copy(self, invoice_id: str, number: str) -> str:
        """Return the text of a copy."""
        return self.text.replace(self.invoice_id, invoice_id).replace(self.number, number)


class Month:
    """What one vendor has to say.

    :param vendor: ``store365`` or ``cloudonex``.
    :param pages: how many, of a hundred invoices each.
    """

    def __init__(self, vendor: str, pages: int) -> None:
        self.vendor, self.pages = vendor, pages
        self.invoices = pages * EACH
        self._distinct = min(self.invoices, DISTINCT)
        arguments: Any = (1, 1, self._distinct, date(2026, 10, 1))
        if vendor == "store365":
            self.kind = "purchase"
            self._reseller: Any = OfStore365(*arguments, Store365.prefixes, 0)
        else:
            self.kind = "sales"
            self._reseller = OfCloudOnex(*arguments, CloudOnex.prefixes, 0)

    def bodies(self, state: str) -> Iterator[bytes]:
        """Yield page after page, as the sandbox would render it."""
        once = [self._rendered(bill) for bill in self._books(state).bills(self.kind, MONTH.start, MONTH.end)]
        for page in range(self.pages):
            every = range(page * EACH, (page + 1) * EACH)
            yield self._page(page + 1, [once[index % self._distinct].copy(*self._ids(index)) for index in every])

    def truth(self, state: str) -> dict[str, Any]:
        """Return what each invoice says; ``originals`` repeat until there are ``invoices``."""
        records = self._books(state).records(self.kind, MONTH.start, MONTH.end)
        return {"invoices": self.invoices, "lines": LINES, "originals": [self._said(one) for one in records]}

    def _books(self, state: str) -> Books:
        """Return the books; one invoice in a hundred is changed, hence one on each page."""
        ours = self.vendor == "store365"
        books = OrangeBooks(self._reseller) if ours else cloudonex_records.Ledger(self._reseller, rows=False)
        for index in range(0, self._distinct, EACH) if state == "changed" else ():
            books.change("amount", invoice_id=self._reseller.invoice_id(self.kind, MONTH, index))
        return books

    def _said(self, one: InvoiceTruth) -> dict[str, Any]:
        """Return an invoice as it must be staged; ``sign`` turns it into what the vendor states."""
        stated = self.vendor == "store365" or one.bill.totals_stated
        names = [customer for customer, _ in _sold(one.bill)] if self.vendor == "store365" else [None] * LINES
        texts = [_description(charge, self.vendor) for charge in one.bill.charges]
        return {
            "sign": one.sign,
            "stated": stated,
            "currency": one.currency,
            "totals": _texts(one.net_amount, one.tax_amount, one.gross_amount),
            "lines": [
                [line.line_id, text, name, *_texts(line.quantity, line.unit_price, line.discount, line.net_amount)]
                for line, text, name in zip(one.lines(), texts, names, strict=True)
            ],
        }

    def _rendered(self, bill: Bill) -> Rendered:
        if self.vendor == "store365":
            text = "".join(store365_records.rendered(store365_records.invoice_record(bill), "Invoice", False))
            return Rendered(text, bill.invoice_id, bill.invoice_id)
        text = "".join(to_json(cloudonex_records.document(bill, "Unpaid")))
        return Rendered(text, bill.invoice_id, cloudonex_records.number(bill))

    def _ids(self, index: int) -> tuple[str, str]:
        invoice_id = self._reseller.invoice_id(self.kind, MONTH, index)
        return invoice_id, invoice_id if self.vendor == "store365" else f"INV-2026-{index:05d}"

    def _page(self, number: int, texts: list[str]) -> bytes:
        if self.vendor == "store365":
            said = {"pageNumber": number, "pageSize": EACH, "totalNumberOfPages": self.pages}
            said["totalNumberOfRecords"] = self.invoices
            return "".join(store365_records.as_json(said, texts)).encode()
        meta = {"current_page": number, "total_pages": self.pages, "total_records": self.invoices}
        return f'{{"success":true,"data":[{",".join(texts)}],"meta":{json.dumps(meta)},"message":""}}'.encode()


def _sold(bill: Bill) -> Iterator[tuple[str, Charge]]:
    """Yield each line with its end customer's name."""
    for share in bill.shares:
        for subscription in share.subscriptions:
            for charge in subscription.charges:
                yield share.customer.name, charge


def _description(charge: Charge, vendor: str) -> str:
    product = charge.product
    return f"{product.name} ({product.charge_type})" if vendor == "store365" else product.name


def _texts(*amounts: Decimal) -> list[str]:
    return [f"{amount:f}" for amount in amounts]
