"""Months as tests stage them: invoices that add up in any currency, and what a reconciliation says of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from staged import OCTOBER, Erp, load, open_staging, rows

from airflow_cloudbilling.exact import canonical, exact_product, exact_sum
from airflow_cloudbilling.model import Invoice, InvoiceLine, InvoiceTax, Period, Slice
from airflow_cloudbilling.reconcile.currencies import rounded
from airflow_cloudbilling.reconcile.month import Scope, reconcile
from airflow_cloudbilling.reconcile.summary import Summary
from airflow_cloudbilling.staging.loader import Loaded

SEPTEMBER = OCTOBER._replace(period=Period.parse("2026-09"))
Item = InvoiceLine | Invoice


def bill(
    number: int | str,
    nets: Sequence[str] = ("60", "40"),
    currency: str = "EUR",
    rate: str = "21",
    customer: str = "C-1",
    line: dict[str, Any] | None = None,
    **header: Any,
) -> list[Item]:
    """Return an invoice whose sums hold, with its lines and its VAT breakdown.

    :param line: fields of every line that differ.
    :param header: fields of the invoice that differ; ``{name: None}`` leaves one out.
    """
    net = exact_sum(*map(Decimal, nets))
    tax = rounded(exact_product(exact_product(net, Decimal(rate)), Decimal("0.01")), currency)
    lines = [
        InvoiceLine(str(n), f"item-{n}", quantity="1", net_amount=one, tax_rate=rate, customer_id=customer)
        for n, one in enumerate(nets, 1)
    ]
    sums = {"net_amount": net, "tax_amount": tax, "gross_amount": exact_sum(net, tax)}
    sums["payable_amount"] = sums["gross_amount"]
    amounts = {name: canonical(amount) for name, amount in sums.items()}
    own = {"invoice_number": f"F-{number}", "currency": currency, "seller_name": "Seller", "buyer_id": "B-1"}
    taxes = (InvoiceTax("S", rate, amounts["net_amount"], amounts["tax_amount"]),)
    invoice = Invoice(f"INV-{number}", **{**own, **amounts, "taxes": taxes, **header})
    return [*(one._replace(**(line or {})) for one in lines), invoice]


def bills(numbers: Iterable[int | str], **more: Any) -> list[Item]:
    """Return several such invoices."""
    return [item for number in numbers for item in bill(number, **more)]


def stage(erp: Erp, items: Iterable[Any], slice_: Slice = OCTOBER, **rules: Any) -> Loaded:
    """Load a slice; what is there may go."""
    return load(open_staging(erp), items, slice_, **{"allow_removals": True, **rules})


def check(erp: Erp, **scope: Any) -> Summary:
    """Reconcile October."""
    return reconcile(open_staging(erp), Scope(OCTOBER.period, **scope))


def found(erp: Erp, columns: str = "rule, severity, invoice_id, expected, actual") -> list[tuple[Any, ...]]:
    """Return the findings that are neither resolved nor accepted."""
    return rows(erp, "finding", columns, "resolved_at IS NULL AND accepted_at IS NULL")


def rules(erp: Erp) -> list[str]:
    """Return the rules of those findings."""
    return [rule for (rule,) in found(erp, "rule")]
