"""What conversations find: what is staged, and records as they are; no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from airflow_cloudbilling.model import (
    Document,
    Finding,
    Invoice,
    InvoiceLine,
    Invoices,
    Notice,
    Outside,
    Portion,
    Reject,
    Stated,
)


class Record(NamedTuple):
    """One record of a vendor's resource as it is, for users of the API rather than for staging.

    :param value: JSON's value, numbers with a fraction or an exponent as ``Decimal``; without ``dropped_fields``.
    """

    value: Any


Item = (
    InvoiceLine
    | list[InvoiceLine]
    | Invoice
    | Invoices
    | Reject
    | Outside
    | Stated
    | Notice
    | Document
    | Finding
    | Portion
    | Record
)


def singly(items: Iterable[Item]) -> Iterator[Item]:
    """Yield each item by itself; conversations yield lines, or whole invoices, some hundred at a time."""
    for item in items:
        if isinstance(item, list):
            yield from item
        elif isinstance(item, Invoices):
            yield from singly(item.singly())
        else:
            yield item
