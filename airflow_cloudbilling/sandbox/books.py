"""One vendor's books: the data set with what was changed since, and the truth about it that staging must hold."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from datetime import date
from decimal import Decimal, localcontext
from typing import NamedTuple

from airflow_cloudbilling.model import Period
from airflow_cloudbilling.sandbox.bills import EXACT, Bill, Charge, priced
from airflow_cloudbilling.sandbox.data import Reseller

CHANGES = ("amount", "withdraw", "add", "touch_unknown_field", "reorder")


class LineTruth(NamedTuple):
    """The amounts of one line as staging must hold them."""

    line_id: str
    quantity: Decimal
    unit_price: Decimal
    discount: Decimal
    net_amount: Decimal
    tax_amount: Decimal | None
    match_key: str


class InvoiceTruth(NamedTuple):
    """One invoice as staging must hold it.

    :param sign: -1 when the vendor states a credit note's total as positive; the amounts here are negated already.
    """

    invoice_id: str
    document_type: str
    issue_date: date
    currency: str
    sign: int
    totals_origin: str
    net_amount: Decimal
    tax_amount: Decimal
    gross_amount: Decimal
    line_count: int
    bill: Bill

    def lines(self) -> Iterator[LineTruth]:
        """Return the lines in the vendor's order, one by one."""
        for subscription in self.bill.subscriptions:
            for charge in subscription.charges:
                yield _line(charge, self.sign)


class Truth(NamedTuple):
    """Counts and exact sums of every amount column, for one currency."""

    invoices: int = 0
    lines: int = 0
    net: Decimal = Decimal(0)
    tax: Decimal = Decimal(0)
    gross: Decimal = Decimal(0)
    quantity: Decimal = Decimal(0)
    unit_price: Decimal = Decimal(0)
    discount: Decimal = Decimal(0)
    line_net: Decimal = Decimal(0)
    line_tax: Decimal = Decimal(0)


class Books:
    """The invoices that a vendor returns now.

    :param reseller: the data set as it was in the beginning.
    """

    def __init__(self, reseller: Reseller) -> None:
        self.reseller = reseller
        self._lock = threading.Lock()
        self._added: Counter[tuple[str, str]] = Counter()
        self._changes: dict[str, Counter[str]] = {}

    def bills(self, kind: str, start: date, end: date) -> Iterator[Bill]:
        """Return the invoices issued from ``start`` until before ``end``, as they are when each is reached."""
        for month in self.reseller.months:
            if month.start < end and start < month.end:
                for bill in self._month(kind, month):
                    if start <= bill.issued < end:
                        yield bill

    def bill(self, invoice_id: str) -> Bill | None:
        """Return one invoice as it is now, or None when there is none of that id."""
        last = self.reseller.months[-1]
        if self.reseller.huge_invoice_mb and invoice_id == (huge := self.reseller.huge(last)).invoice_id:
            return huge
        try:
            kind, month, index = self.reseller.locate(invoice_id)
        except ValueError:
            return None
        return self._present(kind, month, index) if self._exists(invoice_id) else None

    def change(
        self, change: str, *, invoice_id: str | None = None, kind: str = "purchase", month: str | None = None
    ) -> str:
        """Change the vendor's data from now on, and return the id of the invoice concerned.

        :param change: one of ``CHANGES``: ``amount`` raises the first line by one unit of the currency, ``add`` takes
            ``kind`` and ``month`` (``YYYY-MM``; default: the last), the others an ``invoice_id``.
        :raises ValueError: when the change or the invoice does not exist.
        """
        if change not in CHANGES:
            raise ValueError(f"change {change!r} is none of {', '.join(CHANGES)}")
        if change == "add":
            return self._add(kind, month)
        if invoice_id is None or not self._exists(invoice_id):
            raise ValueError(f"change {change!r} needs the invoice_id of an invoice that is there, not {invoice_id!r}")
        with self._lock:
            self._changes.setdefault(invoice_id, Counter())[change] += 1
        return invoice_id

    def records(self, kind: str, start: date, end: date) -> Iterator[InvoiceTruth]:
        """Return what staging must hold of each invoice issued from ``start`` until before ``end``."""
        return map(_invoice, self.bills(kind, start, end))

    def truth(self, kind: str, start: date, end: date) -> dict[str, Truth]:
        """Return what staging must hold of a period in sum: currency → counts and sums."""
        sums: dict[str, Truth] = {}
        for record in self.records(kind, start, end):
            sums[record.currency] = _added(sums.get(record.currency, Truth()), record)
        return dict(sorted(sums.items()))

    def _month(self, kind: str, month: Period) -> Iterator[Bill]:
        reseller = self.reseller
        if reseller.huge_invoice_mb and kind == "purchase" and month == reseller.months[-1]:
            yield reseller.huge(month)
        for index in range(reseller.invoices + self._added[kind, month.key]):
            if bill := self._present(kind, month, index):
                yield bill

    def _present(self, kind: str, month: Period, index: int) -> Bill | None:
        changes = self._changes.get(self.reseller.invoice_id(kind, month, index), Counter())
        if changes["withdraw"]:
            return None
        bill = self.reseller.bill(kind, month, index)
        return _changed(bill, changes) if changes else bill

    def _add(self, kind: str, month: str | None) -> str:
        chosen = Period.parse(month) if month else self.reseller.months[-1]
        if chosen not in self.reseller.months or kind not in self.reseller.prefixes:
            raise ValueError(f"the data set has no kind {kind!r} in month {chosen.key}")
        with self._lock:
            index = self.reseller.invoices + self._added[kind, chosen.key]
            self._added[kind, chosen.key] += 1
        return self.reseller.invoice_id(kind, chosen, index)

    def _exists(self, invoice_id: str) -> bool:
        kind, month, index = self.reseller.locate(invoice_id)
        withdrawn = self._changes.get(invoice_id, Counter())["withdraw"]
        in_month = 0 <= index < self.reseller.invoices + self._added[kind, month.key]
        return month in self.reseller.months and in_month and not withdrawn


def _changed(bill: Bill, changes: Counter[str]) -> Bill:
    first = next(bill.charges).line

    def raised(charge: Charge) -> Charge:
        if not changes["amount"] or charge.line != first:
            return charge
        return priced(charge, bill.currency, charge.unit_price + changes["amount"], charge.discount)

    return bill.with_charges(raised, revision=changes["touch_unknown_field"], reordered=changes["reorder"] % 2 == 1)


def _line(charge: Charge, sign: int) -> LineTruth:
    tax = None if charge.tax is None else sign * charge.tax
    return LineTruth(
        str(charge.line), sign * charge.quantity, charge.unit_price, sign * charge.discount, sign * charge.net, tax,
        charge.key,
    )  # fmt: skip


def _invoice(bill: Bill) -> InvoiceTruth:
    sign = bill.sign
    net, tax = sign * bill.total("net"), sign * bill.total("tax")
    return InvoiceTruth(
        bill.invoice_id, "credit_note" if bill.credit else "invoice", bill.issued, bill.currency.code, sign,
        "stated" if bill.totals_stated else "computed", net, tax, net + tax,
        sum(len(subscription.charges) for subscription in bill.subscriptions), bill,
    )  # fmt: skip


def _added(sums: Truth, record: InvoiceTruth) -> Truth:
    bill, sign = record.bill, record.sign
    with localcontext(EXACT):
        return Truth(
            sums.invoices + 1,
            sums.lines + record.line_count,
            sums.net + record.net_amount,
            sums.tax + record.tax_amount,
            sums.gross + record.gross_amount,
            sums.quantity + sign * bill.total("quantity"),
            sums.unit_price + bill.total("unit_price"),
            sums.discount + sign * bill.total("discount"),
            sums.line_net + record.net_amount,
            sums.line_tax + record.tax_amount,
        )
