"""FOCUS 1.4's requirements, as the views keep them on every database."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text
from staged import Erp, invoice, invoices, load, of, open_staging, rows

from airflow_cloudbilling.exact import exact_sum
from airflow_cloudbilling.model import Invoice, InvoiceLine
from airflow_cloudbilling.reconcile.approval import approve, reject
from airflow_cloudbilling.reconcile.month import Scope, reconcile

pytestmark = pytest.mark.each_database

Row = dict[str, Any]
BIG = "12345678901234567890123456.123456789012"
STRING_COLUMNS = {
    *("BillingAccountId", "BillingCurrency", "ChargeCategory", "InvoiceDetailId", "InvoiceId", "InvoiceIssueStatus"),
    *("InvoiceIssuerName", "PaymentCurrency", "PaymentTerms", "ReferenceInvoiceId"),
}
MOMENTS = {"BillingPeriodEnd", "BillingPeriodStart", "InvoiceDetailCreated", "InvoiceDetailLastUpdated"}
NULLABLE_MOMENTS = {"InvoiceIssueDate", "PaymentDueDate"}
NULLABLE = {"InvoiceDetailDescription", "InvoiceDetailGrain", *NULLABLE_MOMENTS}
MANDATORY = {"BilledCost", *STRING_COLUMNS, *MOMENTS, *NULLABLE}
DATE_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


def specimens() -> Iterator[Any]:
    """Return a month's purchases: all that an invoice may say beside its lines."""
    more: dict[str, Any] = {
        "issue_date": "2026-10-31", "due_date": "2026-11-30", "seller_name": "Seller B.V.", "invoice_number": "N-1",
    }  # fmt: skip
    yield InvoiceLine(
        line_id="1", item_code="sku", description="Seats", quantity="2", unit_price="5.000001", net_amount="10.000002",
        tax_rate="21", tax_amount="2.1", charge_type="Cycle Fee", customer_id="77", subscription_id="sub",
    )  # fmt: skip
    yield InvoiceLine(line_id="2", net_amount="0.000001", charge_type="Usage Fee")
    yield Invoice("INV-1", net_amount="10.000003", tax_amount="2.1", gross_amount="12.100003", currency="EUR", **more)
    yield InvoiceLine(net_amount="10", charge_type="Correction")  # stated positive; sign makes it negative
    yield Invoice("INV-2", document_type="credit_note", net_amount="10", tax_amount="2.1", gross_amount="12.1",
                  currency="EUR", sign=-1, preceding_invoice="N-1", issue_date="2026-10-31")  # fmt: skip
    yield InvoiceLine(net_amount="100")
    yield Invoice("INV-3", net_amount="95", tax_amount="0", gross_amount="95", allowance_total="10", charge_total="5",
                  rounding_amount="-0.005", paid_amount="50", payable_amount="44.995", currency="KWD")  # fmt: skip
    yield InvoiceLine(net_amount="10.00")
    yield Invoice("INV-4", net_amount="10.01", tax_amount="2.1", gross_amount="12.12", currency="EUR", status="Void")
    yield Invoice("INV-5", net_amount="7", tax_amount="1", gross_amount="8", currency="JPY", status="draft")
    yield Invoice("INV-9", net_amount="3", gross_amount="3", payable_amount="0", currency="EUR")  # what was paid unsaid
    yield InvoiceLine(net_amount="5")
    yield Invoice("INV-10", document_type="credit_note", net_amount="5", tax_amount="1", gross_amount="6", sign=-1,
                  paid_amount="2", currency="EUR")  # fmt: skip
    yield InvoiceLine(net_amount=BIG)
    yield Invoice("INV-6", net_amount=BIG, gross_amount=BIG, currency="USD", totals_origin="computed")


@pytest.fixture
def filled(erp: Erp) -> Erp:
    staging = open_staging(erp)
    load(staging, specimens())
    load(staging, invoice(7, lines=1), of("2026-10")._replace(kind="sales"))
    load(staging, invoices([8]), of("2026-10")._replace(kind="usage"))
    load(staging, invoices([1]), of("2026-10")._replace(kind="consolidated"))
    return erp


def detail(erp: Erp, view: str = "focus_invoice_detail") -> list[Row]:
    with erp.engine().connect() as connection:
        return [dict(row) for row in connection.execute(text(f"SELECT * FROM cloudbilling_{view}")).mappings()]


def test_every_mandatory_column_is_there_with_its_type(filled: Erp) -> None:
    found = detail(filled)
    assert set(found[0]) >= MANDATORY
    assert all(name.startswith("x_") for name in set(found[0]) - MANDATORY)
    for row in found:
        assert all(row[name] is not None for name in MANDATORY - NULLABLE)
        assert all(isinstance(row[name], str) for name in STRING_COLUMNS | MOMENTS)
        assert all(DATE_TIME.fullmatch(row[name]) for name in MOMENTS)
        assert all(row[name] is None or DATE_TIME.fullmatch(row[name]) for name in NULLABLE_MOMENTS)
        cost = row["BilledCost"]
        assert re.fullmatch(r"-?\d+(\.\d+)?", cost if isinstance(cost, str) else f"{cost:f}")  # NumericFormat
        assert row["ChargeCategory"] in {"Usage", "Purchase", "Tax", "Credit", "Adjustment"}
        assert row["InvoiceIssueStatus"] in {"Open", "Issued", "Voided"}
        assert re.fullmatch("[A-Z]{3}", row["BillingCurrency"])
        assert row["InvoiceDetailCreated"] <= row["InvoiceDetailLastUpdated"]


def test_the_id_of_a_detail_is_unique_and_periods_are_half_open(filled: Erp) -> None:
    found = detail(filled)
    ids = [(row["InvoiceIssuerName"], row["InvoiceId"], row["InvoiceDetailId"]) for row in found]
    assert len(set(ids)) == len(ids)
    periods = {(row["BillingPeriodStart"], row["BillingPeriodEnd"]) for row in found}
    assert periods == {("2026-10-01T00:00:00Z", "2026-11-01T00:00:00Z")}


def test_two_invoices_of_one_number_do_not_share_ids(erp: Erp) -> None:
    same = {"invoice_number": "N", "seller_name": "S"}
    load(open_staging(erp), [*invoice(1, lines=1, **same), *invoice(2, lines=1, **same)])
    ids = [row["InvoiceDetailId"] for row in detail(erp)]
    assert len(set(ids)) == len(ids) == 4


def by_part(erp: Erp, invoice_id: str) -> dict[str, Row]:
    return {r["InvoiceDetailId"].rpartition("/")[2]: r for r in detail(erp) if r["x_InvoiceId"] == invoice_id}


def test_rows_say_what_the_invoice_says(filled: Erp) -> None:
    first = by_part(filled, "INV-1")
    assert set(first) == {"1", "2", "tax"}
    assert {r["InvoiceId"] for r in first.values()} == {r["ReferenceInvoiceId"] for r in first.values()} == {"N-1"}
    assert {r["PaymentTerms"] for r in first.values()} == {"Net 30"}
    assert (first["1"]["InvoiceIssueDate"], first["1"]["PaymentDueDate"]) == (
        "2026-10-31T00:00:00Z",
        "2026-11-30T00:00:00Z",
    )
    assert json.loads(first["1"]["InvoiceDetailGrain"]) == {"SubAccountId": "77", "ResourceId": "sub", "SkuId": "sku"}
    assert first["2"]["InvoiceDetailGrain"] is None
    assert [first[part]["ChargeCategory"] for part in ("1", "2", "tax")] == ["Purchase", "Usage", "Tax"]
    measured = [first["1"][name] for name in ("x_Quantity", "x_UnitPrice", "x_TaxRate", "x_TaxAmount")]
    assert list(map(Decimal, measured)) == [Decimal("2"), Decimal("5.000001"), Decimal("21"), Decimal("2.1")]
    assert first["1"]["x_LineNumber"] == 1
    assert first["tax"]["x_LineNumber"] is None


def test_a_credit_note_is_negative_and_names_what_it_adjusts(filled: Erp) -> None:
    credit = by_part(filled, "INV-2")
    assert {part: Decimal(row["BilledCost"]) for part, row in credit.items()} == {
        "1": Decimal("-10"),
        "tax": Decimal("-2.1"),
    }
    assert {row["ReferenceInvoiceId"] for row in credit.values()} == {"N-1"}
    assert {row["InvoiceId"] for row in credit.values()} == {"INV-2"}
    assert credit["1"]["ChargeCategory"] == "Adjustment"
    assert credit["1"]["PaymentTerms"] == "As on the invoice"


def test_a_credit_note_that_names_an_id_refers_to_that_invoices_number(erp: Erp) -> None:
    staging = open_staging(erp)
    credit = {"document_type": "credit_note", "gross_amount": "-1", "net_amount": "-1", "currency": "EUR"}
    load(staging, [*invoice(1, lines=1, invoice_number="N-1"), InvoiceLine(net_amount="-1"),
                   Invoice("C-1", preceding_invoice="INV-1", **credit), InvoiceLine(net_amount="-1"),
                   Invoice("C-2", preceding_invoice="OLD", **credit)])  # fmt: skip
    found = {row["InvoiceId"]: row["ReferenceInvoiceId"] for row in detail(erp)}
    assert found == {"N-1": "N-1", "C-1": "N-1", "C-2": "OLD"}  # the vendor's word, though it is not staged


def test_what_an_invoice_says_beside_its_lines_is_there(filled: Erp) -> None:
    found = by_part(filled, "INV-3")
    assert {part: Decimal(row["BilledCost"]) for part, row in found.items()} == {
        "1": 100, "allowance": -10, "charge": 5, "rounding": Decimal("-0.005"), "paid": -50,
    }  # fmt: skip
    assert {part: row["x_PaidAmount"] and Decimal(row["x_PaidAmount"]) for part, row in found.items()} == {
        "1": None, "allowance": None, "charge": None, "rounding": None, "paid": 50,
    }  # fmt: skip
    assert {Decimal(row["x_PayableAmount"]) for row in found.values()} == {Decimal("44.995")}
    assert [by_part(filled, i)["tax"]["InvoiceIssueStatus"] for i in ("INV-1", "INV-4", "INV-5")] == [
        "Issued",
        "Voided",
        "Open",
    ]
    assert {row["x_InvoiceStatus"] for row in by_part(filled, "INV-4").values()} == {"Void"}  # as the vendor says it
    assert {p: Decimal(r["BilledCost"]) for p, r in by_part(filled, "INV-5").items()} == {"total": 7, "tax": 1}


def test_rows_add_up_to_the_amount_due(filled: Erp) -> None:
    sums: dict[str, Decimal] = defaultdict(Decimal)
    found = detail(filled)
    for row in found:
        sums[row["x_InvoiceId"]] = exact_sum(sums[row["x_InvoiceId"]], Decimal(row["BilledCost"]))
    columns = "invoice_id, payable_amount, gross_amount, paid_amount, rounding_amount"
    staged = rows(filled, "invoice", columns, "kind IN ('purchase', 'sales')")
    assert {name: amount for name, *amounts in staged for amount in amounts[:1] if amount} == {
        "INV-3": "44.995", "INV-9": "0",
    }  # fmt: skip
    for invoice_id, payable, gross, paid, rounding in staged:
        due = exact_sum(Decimal(gross), -Decimal(paid or 0), Decimal(rounding or 0)) if payable is None else payable
        assert exact_sum(sums[invoice_id], lacking(filled, invoice_id)) == Decimal(due)
    assert (sums["INV-6"], sums["INV-10"]) == (Decimal(BIG), -4)
    assert {row["x_Kind"] for row in found} == {"purchase", "sales"}  # usage and consolidated would count twice


def lacking(erp: Erp, invoice_id: str) -> Decimal:
    """Return what SQLite's view lacks of an invoice, since sums are floats there; files have it."""
    return Decimal({"INV-4": "0.02", "INV-9": "-3"}.get(invoice_id, 0) if erp.kind == "sqlite" else 0)


def test_what_lines_lack_of_the_total_is_an_adjustment(filled: Erp) -> None:
    different = [row for row in detail(filled) if row["InvoiceDetailId"].endswith("/difference")]
    if filled.kind == "sqlite":
        assert different == []
        return
    told = sorted((row["x_InvoiceId"], row["ChargeCategory"], row["BilledCost"]) for row in different)
    assert told == [("INV-4", "Adjustment", Decimal("0.02")), ("INV-9", "Adjustment", Decimal(-3))]


def test_an_issuer_without_a_name_goes_by_what_is_known(filled: Erp) -> None:
    assert by_part(filled, "INV-7")["1"]["InvoiceIssuerName"] == "10001"  # one's own account: one sells there
    assert by_part(filled, "INV-3")["1"]["InvoiceIssuerName"] == "twotcloud"


def test_a_period_is_open_until_its_close_is_approved(filled: Erp) -> None:
    columns = {"InvoiceIssuerName", "BillingPeriodStatus"} | {
        f"BillingPeriod{n}" for n in ("Start", "End", "Created", "LastUpdated")
    }

    def statuses() -> dict[str, str]:
        found = detail(filled, "focus_billing_period")
        for row in found:
            assert set(row) == columns
            assert all(
                DATE_TIME.fullmatch(v) for n, v in row.items() if n not in ("BillingPeriodStatus", "InvoiceIssuerName")
            )
            assert row["BillingPeriodCreated"] <= row["BillingPeriodLastUpdated"]
            assert (row["BillingPeriodStart"], row["BillingPeriodEnd"]) == (
                "2026-10-01T00:00:00Z",
                "2026-11-01T00:00:00Z",
            )
        return {row["InvoiceIssuerName"]: row["BillingPeriodStatus"] for row in found}

    issuers = {"Seller B.V.", "twotcloud", "10001"}
    assert statuses() == dict.fromkeys(issuers, "Open")
    staging = open_staging(filled)
    close_id = reconcile(staging, Scope(of("2026-10").period)).close.close_id
    assert statuses() == dict.fromkeys(issuers, "Open")
    approve(staging, close_id, "Jo")
    assert statuses() == dict.fromkeys(issuers, "Closed")
    load(staging, invoice(99, seller_name="Seller B.V."), of("2026-10")._replace(account="new"))
    assert statuses() == {**dict.fromkeys(issuers, "Closed"), "Seller B.V.": "Open"}
    reject(staging, close_id, "Jo")
    assert statuses() == dict.fromkeys(issuers, "Open")
