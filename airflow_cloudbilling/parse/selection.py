"""The invoices of a period out of all that a vendor sends, where it has no filter of its own that can be relied on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import blake2b

from airflow_cloudbilling.model import Invoice, InvoiceLine, Invoices, Outside, Period, Reject
from airflow_cloudbilling.parse.invoices import Found
from airflow_cloudbilling.parse.spill import Spill

Selected = Iterator["list[InvoiceLine] | Invoice | Invoices | Reject | Outside"]


class Seen:
    """Which texts have come before, in some bytes for each."""

    def __init__(self) -> None:
        self._digests: set[int] = set()

    def add(self, text: str) -> bool:
        """Take in a text; whether it is new."""
        before = len(self._digests)
        self._digests.add(digest(text))
        return len(self._digests) > before

    def __contains__(self, text: str) -> bool:
        return digest(text) in self._digests


class Selection:
    """Holds each invoice's lines, many of them on disk, until the invoice itself says of which day it is.

    A record that comes again counts once: the loader drops equal invoices, what is left out is dropped here.

    :param period: invoices issued within it pass, others become :class:`Outside`.
    """

    def __init__(self, period: Period) -> None:
        self._period = period
        self._lines: Spill[list[InvoiceLine]] = Spill(keep=400)
        self._readings = [Seen()]
        self.records = 0  # of the body that was read last
        self.new = 0  # those of them that had not come before, since the beginning or the last :meth:`again`

    def again(self) -> None:
        """Begin to read the same list anew: what comes again is no repetition within it."""
        self._readings.append(Seen())

    def items(self, found: Found, rejected_day: Callable[[], str | None] = lambda: None) -> Selected:
        """Yield what a body holds: the lines and invoices of the period, its rejects, and what is outside.

        :param rejected_day: returns the day of the record that was rejected last, where it can be read.
        """
        self.records = self.new = 0
        for item in opened(found, lambda some: all_within(self._period, some)):
            if isinstance(item, Invoices):
                self.records += len(item.invoices)
                self.new += sum([self._readings[-1].add(one.invoice_id) for one in item.invoices])
                yield item
            elif isinstance(item, list):
                self._lines.append(item, len(item))
            else:
                yield from self._closed(item, item.issue_date if isinstance(item, Invoice) else rejected_day())

    def _closed(self, item: Invoice | Reject, day: str | None) -> Selected:
        key = item.invoice_id or f"\0{item.raw}"
        new = self._readings[-1].add(key)
        self.records += 1
        self.new += new
        found = within(self._period, item, day)
        if isinstance(found, Invoice):
            yield from self._lines.drain()
            yield found
            return
        self._lines.clear()
        if new and not any(key in earlier for earlier in self._readings[:-1]):
            yield found


def opened(found: Found, whole: Callable[[Invoices], bool]) -> Found:
    """Yield what was found; whole invoices one by one, unless they may pass as they are."""
    for item in found:
        if isinstance(item, Invoices) and not whole(item):
            yield from item.singly()
        else:
            yield item


def all_within(period: Period, some: Invoices) -> bool:
    """Whether all of some invoices are issued within a period."""
    return all(one.issue_date and period.holds(one.issue_date) for one in some.invoices)


def within(period: Period, item: Invoice | Reject, day: str | None) -> Invoice | Reject | Outside:
    """Return a record of the period as it is, and what becomes of another, or of one without a day: an unreadable one
    of another month is that month's concern.
    """
    if day and period.holds(day):
        return item
    if day and item.invoice_id:
        return Outside(item.invoice_id)
    if isinstance(item, Reject):
        return item
    reason = "field issue_date: expected a day, to know the invoice's period by; nothing came"
    return Reject(reason, item.raw or "", item.invoice_id)


def digest(text: str) -> int:
    """Return a text's own number, of 64 bits."""
    return int.from_bytes(blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "big")
