"""Invoices from memory, as a source would yield them: a reseller's month, five lines each, and what the vendor sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from airflow_cloudbilling.model import Invoice, InvoiceLine, Period, Slice

OCTOBER = Slice("twotcloud", "10001", "purchase", Period.parse("2026-10"))
LINES = 5  # of each invoice
ROWS = LINES + 1
PRODUCTS = (
    ("CFQ7TTC0LH16", "Microsoft 365 Business Premium", 20_60),
    ("CFQ7TTC0LF8R", "Microsoft 365 E3", 35_70),
    ("CFQ7TTC0LHSL", "Microsoft Defender for Office 365 (Plan 2)", 4_20),
    ("DZH318Z0BQ35", "Azure plan – virtual machines, Europe West", 7_13),
    ("CFQ7TTC0HL8W", "Exchange Online Archiving für Exchange Online", 2_81),
    ("AAD-33168", "Acronis Cyber Protect – per gigabyte", 9),
    ("CFQ7TTC0LH18", "Microsoft 365 Apps for Business", 9_80),
)
VAT = 21


def items(invoices: int, *, keep_raw: bool, changed: bool = False) -> Iterator[InvoiceLine | Invoice]:
    """Yield lines and then their invoice, again and again.

    :param invoices: how many.
    :param keep_raw: whether each record keeps some 600 bytes of what the vendor sent.
    :param changed: every hundredth invoice has another quantity in its first line.
    """
    for number in range(invoices):
        net = 0
        for position in range(1, LINES + 1):
            more = changed and position == 1 and number % 100 == 0
            line, cents = _line(number, position, more, keep_raw)
            net += cents
            yield line
        yield _invoice(number, net, keep_raw)


def _line(number: int, position: int, more: bool, keep_raw: bool) -> tuple[InvoiceLine, int]:
    code, name, price = PRODUCTS[(number * 3 + position) % len(PRODUCTS)]
    quantity = 1 + (number * 7 + position * 13) % 60 + more
    cents = quantity * price
    customer, subscription = f"C{number:06d}", f"{number * LINES + position:08x}-5e2b-4c0d-9a57-3f1c8e6b7a90"
    values: dict[str, Any] = {
        "line_id": f"{number}-{position}",
        "item_code": code,
        "description": f"{name}, October 2026, position {position}",
        "quantity": str(quantity),
        "unit": "license",
        "unit_price": _euros(price),
        "discount": "0",
        "net_amount": _euros(cents),
        "tax_rate": str(VAT),
        "tax_amount": _euros(round(cents * VAT / 100)),
        "period_start": "2026-10-01",
        "period_end": "2026-10-31",
        "subscription_id": subscription,
        "subscription_name": name,
        "customer_id": customer,
        "customer_name": f"Bakkerij De Gouden Korenaar {number} B.V.",
        "charge_type": "cycleFee",
        "match_key": f"{number:016x}{position:016x}",
    }
    return InvoiceLine(**values, raw=_raw(values) if keep_raw else None), cents


def _invoice(number: int, net: int, keep_raw: bool) -> Invoice:
    tax = round(net * VAT / 100)
    values: dict[str, Any] = {
        "invoice_id": f"2026-{number:08d}",
        "invoice_number": f"F{number:08d}",
        "issue_date": "2026-11-01",
        "due_date": "2026-12-01",
        "period_start": "2026-10-01",
        "period_end": "2026-10-31",
        "currency": "EUR",
        "seller_name": "2tCloud B.V.",
        "seller_vat_id": "NL123456789B01",
        "seller_country": "NL",
        "buyer_id": "10001",
        "buyer_name": "Reseller GmbH",
        "buyer_vat_id": "DE123456789",
        "buyer_country": "DE",
        "net_amount": _euros(net),
        "tax_amount": _euros(tax),
        "gross_amount": _euros(net + tax),
        "payable_amount": _euros(net + tax),
        "status": "Open",
    }
    return Invoice(**values, raw=_raw(values) if keep_raw else None, source_sha256="ab" * 32)


def _euros(cents: int) -> str:
    """Return canonical decimal text."""
    whole, rest = divmod(cents, 100)
    return f"{whole}.{rest:02d}".rstrip("0").rstrip(".")


def _raw(values: dict[str, Any]) -> str:
    return json.dumps(values, separators=(",", ":"), ensure_ascii=False)
