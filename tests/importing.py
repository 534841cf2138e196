"""Imports as tests make them: an operator's run, a changed connection, and what was staged, added up by hand."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from staged import Erp

from airflow_cloudbilling.operators.invoices import StageInvoicesOperator
from airflow_cloudbilling.sandbox.books import Truth
from airflow_cloudbilling.sandbox.server import Sandbox

INVOICE_SUMS = {"net": "net_amount", "tax": "tax_amount", "gross": "gross_amount"}
WHERE = "provider = :provider AND kind = :kind AND s.period LIKE :month"
LINE_SUMS = {
    "quantity": "quantity",
    "unit_price": "unit_price",
    "discount": "discount",
    "line_net": "net_amount",
    "line_tax": "tax_amount",
}


def stage(period: str, **arguments: Any) -> dict[str, Any]:
    """Stage a period as a task would, and return the task's result."""
    arguments = {"conn_id": "twotcloud_default", "staging_conn_id": "erp_staging", **arguments}
    result: dict[str, Any] = StageInvoicesOperator(task_id="stage", period=period, **arguments).execute({})
    return result


def connect(
    vendor: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    *,
    password: str | None = None,
    conn_id: str = "twotcloud_default",
    **extra: Any,
) -> None:
    """Change a vendor's connection."""
    fields = vendor.connections()[conn_id]
    fields = {**fields, "password": password or fields["password"], "extra": {**fields.get("extra", {}), **extra}}
    monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))


def staged_sums(erp: Erp, provider: str, kind: str, month: str) -> dict[str, dict[str, Decimal]]:
    """Add every amount column by currency, in Decimal, as somebody who trusts nobody would."""
    sums: dict[str, dict[str, Decimal]] = {}
    key = "(provider, account, kind, invoice_id)"
    tables = f"cloudbilling_invoice AS i JOIN cloudbilling_slice_invoice AS s USING {key}"
    lines = f" JOIN cloudbilling_invoice_line AS l USING {key}"
    for prefix, columns, more in (("i", INVOICE_SUMS, ""), ("l", LINE_SUMS, lines)):
        names = ", ".join(f"{prefix}.{c}" for c in columns.values())
        query = f"SELECT i.currency, {names} FROM {tables}{more} WHERE {WHERE}"
        for currency, *amounts in erp.query(query, provider=provider, kind=kind, month=f"{month}%"):
            of_currency = sums.setdefault(currency, {})
            for name, amount in zip(columns, amounts, strict=True):
                assert amount is None or isinstance(amount, str)
                of_currency[name] = of_currency.get(name, Decimal(0)) + Decimal(amount or 0)
    return sums


def expected_sums(truth: dict[str, Truth]) -> dict[str, dict[str, Decimal]]:
    """Return what :func:`staged_sums` must return, by the vendor's books."""
    return {c: {n: getattr(t, n) for n in (*INVOICE_SUMS, *LINE_SUMS)} for c, t in truth.items()}
