"""Orange's lists of documents: which types are asked for, and which documents are of the period."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from airflow_cloudbilling.errors import ConfigurationError, RecordError
from airflow_cloudbilling.model import Outside, Period, Reject
from airflow_cloudbilling.parse import (
    Fields,
    Names,
    Shape,
    Unreadable,
    Wanted,
    amount,
    currency,
    day,
    flatten,
    fold,
    identifier,
    shown,
    text,
    usage,
)
from airflow_cloudbilling.parse.names import Table
from airflow_cloudbilling.parse.records import json_text
from airflow_cloudbilling.settings import Settings
from airflow_cloudbilling.source import Ask

DEFAULT_TYPES = {"purchase": ("invoices",), "usage": ("comsumptionRatedReports",)}  # sic: the vendor's own spelling
_LONGEST_REJECT = 64 * 1024
AMOUNTS = ("net_amount", "tax_amount", "gross_amount")
_DAYS = ("issue_date", "due_date", "period_start", "period_end")
# What a list says of a document; ``id``, ``filename`` and ``period`` are what real callers have seen (vendor facts 2b).
_RECORD = Fields(
    [
        Wanted("document_id", identifier, ("id",)),
        Wanted("filename", text, ("filename",)),
        Wanted("period", text, ("period",)),
        Wanted("created", text, ("createdAt",)),
    ]
)
# Amounts and the like are no fields of the list, so they come by field_map alone.
_TEXTS = (
    "invoice_number", "seller_name", "seller_vat_id", "seller_country", "buyer_id", "buyer_name", "buyer_vat_id",
    "buyer_country", "status", "preceding_invoice",
)  # fmt: skip
_HEAD: Table = {
    **dict.fromkeys(_TEXTS, (text, ())),
    **dict.fromkeys(_DAYS, (day, ())),
    **dict.fromkeys((*AMOUNTS, "paid_amount", "payable_amount"), (amount, ())),
    "currency": (currency, ()),
}
_NAMES = Names(Shape(("documents",), (), ""), _HEAD, usage.LINE, {})


def kind_of(document_type: str) -> str:
    """Return the kind that a document type belongs to: every report is usage, spelt as it may be."""
    return "usage" if "report" in document_type.lower() else "purchase"


def types_of(ask: Ask) -> Sequence[str]:
    """Return the document types that are asked for in the slice's kind, each as the user wrote it.

    :raises ConfigurationError: when there is none, or the kind does not exist.
    """
    if ask.kind not in DEFAULT_TYPES:
        raise ConfigurationError(f"Orange has no kind {ask.kind!r}; it has {', '.join(DEFAULT_TYPES)}.", field="kind")
    types = [one for one in dict.fromkeys(ask.document_types) if kind_of(one) == ask.kind]
    if ask.document_types and not types:
        raise ConfigurationError(
            f"{', '.join(ask.document_types)} are no documents of the kind {ask.kind!r}.", field="document_types"
        )
    return types or DEFAULT_TYPES[ask.kind]


class Listed(NamedTuple):
    """A document of the period, as the list has it.

    :param asked_as: the id as the vendor wrote it, which its file is asked for by; staging may not keep all of it.
    :param month: the one that it bills.
    :param mapped: what the user's ``field_map`` found in the list's record.
    """

    document_id: str
    asked_as: str
    document_type: str
    filename: str | None
    month: Period
    mapped: dict[str, str]
    raw: str


class Lists:
    """Reads the lists of one slice.

    :param ask: what is wanted.
    :raises ConfigurationError: when its ``field_map`` has an unknown name.
    """

    def __init__(self, ask: Ask, settings: Settings) -> None:
        self._ask = ask
        self._map = {**settings.field_map, **ask.field_map}
        self.names = _NAMES.mapped(self._map, settings.conn_id)
        self._head = Fields([Wanted(name, *how) for name, how in self.names.head.items()])
        self._seen: set[str] = set()

    def notice(self) -> str | None:
        """Return words on what the ask has and Orange has not, if anything."""
        period = self._ask.period
        words = []
        if period.start.day != 1 or period.end.day != 1:
            words.append(f"Orange's documents name a month: those of months that begin within {period} are taken.")
        if self._ask.window_shift_days:
            words.append("window_shift_days has no effect: Orange's documents are chosen by the month they bill.")
        return " ".join(words) or None

    def placed(self, records: Sequence[Any], document_type: str) -> Iterator[Listed | Outside | Reject]:
        """Yield each record of a list: as wanted, outside the period, or unreadable; one that was listed before once.

        :param document_type: that was asked for.
        """
        for record in records:
            try:
                found = self._place(record, document_type)
            except RecordError as error:
                yield Reject(error.reason, _raw(record), error.invoice_id)
                continue
            document_id = found.invoice_id if isinstance(found, Outside) else found.document_id
            if document_id not in self._seen:
                self._seen.add(document_id)
                yield found

    def _place(self, record: Any, document_type: str) -> Listed | Outside:
        if not isinstance(record, dict):
            raise RecordError(f"expected an object with the document's id, came {shown(record)}")
        flat = flatten(record)
        document_id, filename, period, created = _RECORD.read(flat)
        if not document_id:
            raise RecordError("field id: expected the document's id, nothing came")
        try:
            month = _month(period, created)
            if not self._ask.period.start <= month.start < self._ask.period.end:
                return Outside(document_id)
            values = zip(self.names.head, self._head.read(flat), strict=True)
            mapped = {name: value for name, value in values if value is not None and name in self._map}
        except (RecordError, Unreadable) as error:
            raise RecordError(getattr(error, "reason", str(error)), invoice_id=document_id) from None
        return Listed(
            document_id, _as_written(record, document_id), document_type, filename, month, mapped, _raw(record)
        )


def _as_written(record: Mapping[str, Any], document_id: str) -> str:
    return next((value for name, value in record.items() if fold(name) == "id" and isinstance(value, str)), document_id)


def _month(period: str | None, created: str | None) -> Period:
    """Return the month of ``YYYYMM``, ``YYYY-MM`` or ``YYYYMMDD``; without a period, that of the day of creation."""
    said = period or day(created) or ""
    digits = re.sub(r"\D", "", said)
    if len(digits) < 6 or not 1 <= int(digits[4:6]) <= 12 or not 1900 <= int(digits[:4]) <= 9998:
        came = shown(said) if said else "neither period nor createdAt"
        raise RecordError(f"field period: expected a month such as 202610, came {came}")
    return Period.month(int(digits[:4]), int(digits[4:6]))


def _raw(record: Any) -> str:
    try:
        return json_text(record)[:_LONGEST_REJECT]
    except Unreadable:
        return shown(record, 1000)
