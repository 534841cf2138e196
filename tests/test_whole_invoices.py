"""Invoices that come whole are read many at a time: the same must come of them as when they are read step by step."""

from __future__ import annotations

import io
import json
import random
from typing import Any

import pytest

from airflow_cloudbilling.found import singly
from airflow_cloudbilling.model import Invoice, InvoiceLine, Invoices, Period, Reject
from airflow_cloudbilling.parse import InvoiceReader, Malformed, read
from airflow_cloudbilling.parse.json_whole import LARGEST
from airflow_cloudbilling.sources.store365_names import NAMES, SHAPE

OCTOBER = Period.parse("2026-10")
ODD = (None, "", "x", True, 7, -1, [], {}, [1], {"a": 1}, [{}], [{"id": 1}], "1,234", "9" * 40, "\x1f", "\u20ac", " z ")


def page(chance: random.Random) -> str:
    """Return a page of invoices, of which some are odd in some way."""
    invoices = [invoice(chance, number) for number in range(chance.randrange(1, 6))]
    body: Any = {"pageNumber": 1, "results": invoices, "totalNumberOfRecords": len(invoices)}
    return json.dumps(chance.choice((body, body, invoices)), ensure_ascii=chance.random() < 0.5)


def invoice(chance: random.Random, number: int) -> Any:
    lines = [line(chance, nth) for nth in range(chance.randrange(4))]
    found: dict[str, Any] = {
        "id": f"F{number}",
        "invoiceDate": f"2026-{chance.choice(('10', '10', '10', '09'))}-0{number + 1}",
        "currency": "EUR",
        "customer": {"id": number, "name": "Café", "country": "Nederland"},
        "lines": lines,
        "type": chance.choice(("invoice", "invoice", "credit")),
        "totalExclVat": "10.0",
        "vatAmount": 2.1,
        "totalInclVat": 12.1,
    }
    return spoilt(chance, found, ("vatAmount", "totalExclVat", "totalInclVat", "lines", "customer", "Items"))


def line(chance: random.Random, number: int) -> Any:
    found = {"id": number, "description": "Licence  é", "quantity": 2, "unitPrice": 5, "totalExclVat": 10.50}
    return spoilt(chance, found, ("vatAmount", "quantity", "totalExclVat"))


def spoilt(chance: random.Random, record: dict[str, Any], names: tuple[str, ...]) -> Any:
    if chance.random() < 0.85:
        return record
    odd = chance.choice(ODD)
    lacking = {name: value for name, value in record.items() if name != chance.choice((*names, *record))}
    return chance.choice((lacking, lacking, {**record, chance.choice((*names, "")): odd}, odd))


def found(text: str, *, keep_raw: bool) -> Any:
    """Return each invoice of the month with its lines, the ids of rejects, and what the reader says of the body."""
    reader = InvoiceReader(NAMES, keep_raw=keep_raw, sha256="ab", period=OCTOBER)
    try:
        items = list(singly(reader.items(read(io.BytesIO(text.encode()), None, SHAPE, keep_raw=keep_raw))))
    except Malformed as error:
        return str(error)
    came: list[Any] = []
    lines: list[Any] = []
    for item in items:
        if isinstance(item, InvoiceLine):
            lines.append(item)
            continue
        inside = isinstance(item, Invoice) and OCTOBER.holds(item.issue_date or "")
        came.append((item, lines) if inside else item.invoice_id if isinstance(item, Reject) else item)
        lines = []
    return came, reader.invoices, reader.computed, reader.outside


@pytest.mark.parametrize("keep_raw", [False, True])
def test_what_comes_whole_is_read_as_what_comes_in_steps(keep_raw: bool) -> None:
    for text in map(page, map(random.Random, range(200))):
        assert found(text, keep_raw=keep_raw) == found(text + " " * LARGEST, keep_raw=keep_raw), text


def test_good_invoices_come_many_at_a_time() -> None:
    lines = [{"id": nth, "quantity": 1, "totalExclVat": "0.10"} for nth in range(3)]
    good = [{"id": nth, "invoiceDate": "2026-10-05", "currency": "EUR", "lines": lines} for nth in range(900)]
    body = io.BytesIO(json.dumps({"results": good}).encode())
    reader = InvoiceReader(NAMES, keep_raw=False, sha256="ab", period=OCTOBER)
    items = list(reader.items(read(body, None, SHAPE, keep_raw=False)))
    assert {type(item) for item in items} == {Invoices}
    assert [len(item.invoices) for item in items if isinstance(item, Invoices)] == [334, 334, 232]
    assert reader.computed == 900
