"""The books of the sandbox's Orange: e-invoices with VAT by rate, and consumption reports without any tax."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from decimal import ROUND_HALF_UP, Decimal, localcontext

from airflow_cloudbilling.model import Period
from airflow_cloudbilling.sandbox.bills import EXACT, Bill
from airflow_cloudbilling.sandbox.books import Books, InvoiceTruth, Truth
from airflow_cloudbilling.sandbox.data import Reseller


class OrangeReseller(Reseller):
    """The data set without tax on lines, which e-invoices do not have; a report is never a credit note."""

    def bill(self, kind: str, month: Period, index: int) -> Bill:
        """Return one invoice, or one report, of a month."""
        bill = super().bill("purchase", month, index)
        return bill.with_charges(
            lambda charge: charge._replace(tax=None),
            kind=kind,
            invoice_id=self.invoice_id(kind, month, index),
            credit=bill.credit and kind == "purchase",
            totals_stated=kind == "purchase",
        )


class OrangeBooks(Books):
    """What staging must hold of all contracts together."""

    def records(self, kind: str, start: date, end: date) -> Iterator[InvoiceTruth]:
        """Return what staging must hold of each invoice; a report has no tax, hence no gross amount."""
        for record in super().records(kind, start, end):
            bill = record.bill
            if kind == "usage":
                day = bill.issued.replace(day=1)
                yield record._replace(issue_date=day, tax_amount=Decimal(0), gross_amount=Decimal(0))
            else:
                tax = record.sign * vat(bill)
                with localcontext(EXACT):
                    yield record._replace(tax_amount=tax, gross_amount=record.net_amount + tax)

    def truth(self, kind: str, start: date, end: date) -> dict[str, Truth]:
        """Return the sums; the tax stands with the invoice, not with its lines."""
        sums = super().truth(kind, start, end)
        return {currency: one._replace(line_tax=Decimal(0)) for currency, one in sums.items()}


def vat(bill: Bill) -> Decimal:
    """Return the tax of the invoice's one rate, rounded half up as BR-CO-17 has it."""
    step = Decimal(1).scaleb(-bill.currency.decimals)
    with localcontext(EXACT):
        return (bill.total("net") * bill.currency.tax_rate / 100).quantize(step, rounding=ROUND_HALF_UP)
