"""What is staged, in EN 16931's terms: slices, invoices, lines, tax breakdown; no I/O.

Amounts, quantities and rates are *canonical decimal text* (no exponent, no trailing zeros, ``-`` for negative, at most
26 digits before and 12 after the point), days are ISO text ``YYYY-MM-DD``: exact on every database, cheap to hash.
``decimal.Decimal(text)`` is lossless. A float never occurs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import date
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from airflow_cloudbilling.errors import ConfigurationError

KINDS = ("purchase", "sales", "consolidated", "usage")
# The vendor's words, by FOCUS's, for what is no obligation (yet, or any more); any other invoice has been issued.
NOT_ISSUED = {"Open": ("draft",), "Voided": ("void", "voided", "cancelled", "canceled")}
_UNISSUED = frozenset(word for words in NOT_ISSUED.values() for word in words)
_MONTH = re.compile(r"(\d{4})-(\d{2})")
_RANGE = re.compile(r"(\d{4}-\d{2}-\d{2})/(\d{4}-\d{2}-\d{2})")


def is_issued(status: str | None) -> bool:
    """Whether an invoice of a vendor's status is an obligation: no draft, and not cancelled."""
    return (status or "").lower() not in _UNISSUED


class Period(NamedTuple):
    """A half-open span of days, ``start`` included and ``end`` excluded; usually one calendar month."""

    start: date
    end: date

    @classmethod
    def month(cls, year: int, month: int) -> Period:
        """Return the calendar month as a period; ``month`` may run over (13 is next January, 0 last December)."""
        year, month = year + (month - 1) // 12, (month - 1) % 12 + 1
        following = (year + 1, 1) if month == 12 else (year, month + 1)
        return cls(date(year, month, 1), date(*following, 1))

    @classmethod
    def parse(cls, text: str) -> Period:
        """Read ``2026-10`` or ``2026-10-01/2026-11-01``.

        :raises ConfigurationError: when the text is neither, or the end is not after the start.
        """
        text = text.strip()
        try:
            if month := _MONTH.fullmatch(text):
                if not 1 <= int(month[2]) <= 12:
                    raise ValueError("no such month")
                return cls.month(int(month[1]), int(month[2]))
            if span := _RANGE.fullmatch(text):
                period = cls(date.fromisoformat(span[1]), date.fromisoformat(span[2]))
                if period.start < period.end:
                    return period
        except ValueError:
            pass
        raise ConfigurationError(
            f"period {text!r} is not a month (2026-10) or a half-open range of days (2026-10-01/2026-11-01)."
        )

    @property
    def is_month(self) -> bool:
        """Whether the span is exactly one calendar month."""
        return self == Period.month(self.start.year, self.start.month)

    @property
    def key(self) -> str:
        """Return the shortest form that :meth:`parse` reads: ``2026-10`` for a calendar month, else the range."""
        return f"{self.start:%Y-%m}" if self.is_month else str(self)

    def holds(self, day: str) -> bool:
        """Whether a day, ISO text, is within the span."""
        start, end = _bounds(self)
        return start <= day < end

    def shifted(self, months: int) -> Period:
        """Return the calendar month that lies ``months`` after the month of ``start`` (negative: before)."""
        return Period.month(self.start.year, self.start.month + months)

    def __str__(self) -> str:
        """Return ``start/end``, the form in which periods are stored."""
        return f"{self.start.isoformat()}/{self.end.isoformat()}"


@lru_cache(maxsize=16)
def _bounds(period: Period) -> tuple[str, str]:
    return period.start.isoformat(), period.end.isoformat()


class Slice(NamedTuple):
    """The unit of a load: what one account was billed, of one kind, in one period."""

    provider: str
    account: str
    kind: str
    period: Period


class InvoiceTax(NamedTuple):
    """One row of the VAT breakdown (BG-23)."""

    category: str | None = None  # BT-118
    rate: str | None = None  # BT-119
    taxable_amount: str | None = None  # BT-116
    tax_amount: str | None = None  # BT-117


class InvoiceLine(NamedTuple):
    """One invoice line (BG-25). Amounts as the vendor states them; see :attr:`Invoice.sign`."""

    line_id: str | None = None  # BT-126
    item_code: str | None = None  # BT-155
    description: str | None = None  # BT-153
    quantity: str | None = None  # BT-129
    unit: str | None = None  # BT-130
    unit_price: str | None = None  # BT-146
    discount: str | None = None
    net_amount: str | None = None  # BT-131
    tax_rate: str | None = None  # BT-152
    tax_amount: str | None = None
    period_start: str | None = None  # BT-134
    period_end: str | None = None  # BT-135
    subscription_id: str | None = None  # BT-128
    subscription_name: str | None = None
    customer_id: str | None = None
    customer_name: str | None = None
    charge_type: str | None = None
    match_key: str | None = None
    raw: str | None = None


class Invoice(NamedTuple):
    """An invoice or credit note without its lines, which a source yields *before* it.

    A vendor may send the header after thousands of lines (2tCloud's JSON does), so an invoice closes the lines that
    came since the one before it, and nobody ever holds them all.
    """

    invoice_id: str
    invoice_number: str | None = None  # BT-1
    document_type: str = "invoice"  # BT-3: invoice | credit_note
    issue_date: str | None = None  # BT-2
    due_date: str | None = None  # BT-9
    period_start: str | None = None  # BT-73
    period_end: str | None = None  # BT-74
    currency: str | None = None  # BT-5
    seller_name: str | None = None  # BT-27
    seller_vat_id: str | None = None  # BT-31
    seller_country: str | None = None  # BT-40
    buyer_id: str | None = None  # BT-46
    buyer_name: str | None = None  # BT-44
    buyer_vat_id: str | None = None  # BT-48
    buyer_country: str | None = None  # BT-55
    net_amount: str | None = None  # BT-109
    tax_amount: str | None = None  # BT-110
    gross_amount: str | None = None  # BT-112
    allowance_total: str | None = None  # BT-107
    charge_total: str | None = None  # BT-108
    rounding_amount: str | None = None  # BT-114
    paid_amount: str | None = None  # BT-113
    payable_amount: str | None = None  # BT-115
    status: str | None = None
    totals_origin: str = "stated"  # stated | computed | none
    preceding_invoice: str | None = None  # BT-25
    raw: str | None = None  # as received, without its lines
    source_sha256: str | None = None  # of the body that it came in
    sign: int = 1  # -1: a credit note whose total the vendor states as positive; the loader negates it as a whole
    taxes: tuple[InvoiceTax, ...] = ()


class Invoices(NamedTuple):
    """Whole invoices, many at a time: the fastest way for those that come whole, and have few lines each.

    :param counts: how many lines each has.
    :param lines: those of all the invoices in turn, column by column, in the order of :class:`InvoiceLine`'s fields.
    """

    invoices: Sequence[Invoice]
    counts: Sequence[int]
    lines: Sequence[Sequence[str | None]]

    def singly(self) -> Iterator[list[InvoiceLine] | Invoice]:
        """Yield each invoice's lines, and then the invoice that closes them."""
        lines = map(InvoiceLine._make, zip(*self.lines, strict=True))
        for invoice, count in zip(self.invoices, self.counts, strict=True):
            if count:
                yield list(islice(lines, count))
            yield invoice


class Reject(NamedTuple):
    """A record that cannot be read; like an invoice it closes the lines that came before it, and drops them."""

    reason: str
    raw: str
    invoice_id: str | None = None  # None: unreadable too, so no invoice of the slice may be taken as withdrawn


class Outside(NamedTuple):
    """A well-formed record that is not of the period asked for; it closes its lines and drops them."""

    invoice_id: str


class Stated(NamedTuple):
    """The number of records that the vendor says there are."""

    number: int


class Notice(NamedTuple):
    """Something that a reader of the task's log should know."""

    message: str


class Document(NamedTuple):
    """A file that came with an invoice (BG-24); like a notice it closes no lines.

    Where the archive keeps it is the loader's to know.
    """

    document_id: str  # BT-122
    invoice_id: str | None = None
    document_type: str | None = None  # in the vendor's word
    filename: str | None = None  # BT-125, made safe
    content_type: str | None = None
    size: int = 0  # bytes
    sha256: str = ""  # of the bytes as received


class Finding(NamedTuple):
    """Something about an invoice that a person should look at; resolved when a later load says it no more."""

    invoice_id: str
    rule: str
    severity: str  # error | warning
    expected: str
    actual: str
    message: str


class Portion(NamedTuple):
    """One of the slices that a connection has: a contract of several, or usage beside invoices."""

    account: str
    kind: str


class Outcome(NamedTuple):
    """What the ERP says of one record that it was sent.

    :param record_key: the record's id.
    :param status: ``accepted``, ``rejected``, or ``unknown`` when its word for it is not known.
    """

    record_key: str
    status: str
    message: str = ""
