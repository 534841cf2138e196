"""From staged invoices to Sage's records: the documented fields, a user's own mapping, and what is missing."""

from __future__ import annotations

import io
import json
from decimal import Decimal
from typing import Any

import pytest

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.parse.events import Malformed
from airflow_cloudbilling.parse.records import json_text
from airflow_cloudbilling.sources.sage_orders import Records
from airflow_cloudbilling.sources.sage_results import ResultFile, States

INVOICE = {
    "provider": "twotcloud",
    "account": "1",
    "kind": "sales",
    "invoice_id": "CI-1",
    "invoice_number": "2026/1",
    "issue_date": "2026-10-05",
    "due_date": "2026-11-04",
    "currency": "EUR",
    "buyer_id": "C-77",
    "buyer_name": "Jansen BV",
    "buyer_vat_id": "NL000000000B00",
    "buyer_country": "NL",
    "allowance_total": None,
    "charge_total": Decimal("1.5"),
    "gross_amount": Decimal("12345678901234567.89"),
    "raw": '{"Receiver": {"City": "Eindhoven", "Phones": ["+31 40", "+31 41"], "Rate": 1.10}}',
}
LINES = [
    {"line_number": 1, "item_code": "SKU", "description": None, "quantity": Decimal(25), "unit_price": Decimal("16.5"),
     "tax_rate": Decimal(21), "discount": None, "net_amount": Decimal("412.5"), "match_key": "abc"},
]  # fmt: skip
ADDRESS = {"address1": "Teststraat 1", "city": "Eindhoven", "postCode": "5600 AA", "telephone1": "+31400000000"}
DEFAULTS = {
    "deliveryAddress": ADDRESS,
    "invoiceAddress": ADDRESS,
    "customer.firstName": "-",
    "customer.email": "billing@example.test",
    "currencyRate": 1.5,
    "paymentMethod": "transfer",
}


def record(mapping: Any = None, defaults: Any = None, scope: str = "Orders", **changed: Any) -> dict[str, Any]:
    records = Records(scope, "sales", mapping, DEFAULTS if defaults is None else defaults)
    made = records.record({**INVOICE, **changed}, LINES)
    records.check()
    return made


def test_an_order_has_the_documented_fields() -> None:
    address = {"id": "C-77", "contactName": "Jansen BV", "country": "NL", "timestamp": "2026-10-05T00:00:00Z"}
    assert record() == {
        "id": "CI-1",
        "orderDate": "2026-10-05T00:00:00Z",
        "deliveryAddress": {**address, **ADDRESS},
        "invoiceAddress": {**address, **ADDRESS},
        "customer": {
            "id": "C-77",
            "idNumber": "NL000000000B00",
            "firstName": "-",
            "lastName": "Jansen BV",
            "email": "billing@example.test",
            "addresses": [],
            "currency": "EUR",
            "timestamp": "2026-10-05T00:00:00Z",
        },
        "discount": 0,
        "totalShipping": Decimal("1.5"),
        "currencyRate": Decimal("1.5"),
        "paymentMethod": "transfer",
        "currency": "EUR",
        "lines": [
            {"productId": "SKU", "quantity": 25, "netPrice": Decimal("16.5"), "tax": 21, "netAmount": Decimal("412.5")}
        ],
    }


def test_every_missing_field_is_named_with_invoices_that_lack_it() -> None:
    records = Records("Orders", "sales", None, {"customer.email": "a@example.test"})
    for number in range(5):
        records.record({**INVOICE, "invoice_id": f"CI-{number}", "buyer_id": None if number == 4 else "C"}, LINES)
    with pytest.raises(ConfigurationError) as refused:
        records.check()
    told = str(refused.value)
    by_all, of_one = told.split(" (CI-0, CI-1, CI-2); ")  # what the same invoices lack is told together
    for field in ("address1", "city", "postCode", "telephone1"):
        assert f"deliveryAddress.{field}," in by_all
    for field in ("customer.firstName", "currencyRate", "paymentMethod"):
        assert field in by_all
    assert "customer.id (CI-4)" in of_one
    assert "5 invoices" in told
    assert "customer.email" not in told
    assert "discount" not in told  # an invoice that states no allowance has none


def test_staging_comes_before_defaults_and_a_mapping_before_both() -> None:
    assert record(defaults={**DEFAULTS, "customer.id": "D"})["customer"]["id"] == "C-77"
    own = {**DEFAULTS, **dict.fromkeys(("customer.id", "deliveryAddress.id", "invoiceAddress.id"), "D")}
    assert record(defaults=own, buyer_id=None)["customer"]["id"] == "D"
    mapped = record({"customer.id": "invoice.invoice_number", "eta": "due_date", "lines.productId": "line.match_key"})
    assert mapped["customer"]["id"] == "2026/1"
    assert mapped["eta"] == "2026-11-04T00:00:00Z"
    assert mapped["lines"][0]["productId"] == "abc"


def test_a_mapping_reaches_into_what_the_vendor_sent() -> None:
    mapping = {
        "deliveryAddress.city": "invoice.raw.Receiver.City",
        "deliveryAddress.telephone1": "invoice.raw.Receiver.Phones.1",
        "currencyRate": "invoice.raw.Receiver.Rate",
        "invoiceAddress.city": "invoice.raw.Receiver.Nowhere",
    }
    made = record(mapping)
    assert (made["deliveryAddress"]["city"], made["deliveryAddress"]["telephone1"]) == ("Eindhoven", "+31 41")
    assert made["invoiceAddress"]["city"] == "Eindhoven"  # by the defaults
    assert '"currencyRate": 1.10' in json_text(made)
    assert record({"invoiceAddress.city": "invoice.raw.City"}, raw="<xml/>")["invoiceAddress"]["city"] == "Eindhoven"


def test_another_scope_has_nothing_but_the_mapping() -> None:
    mapping = {"id": "invoice.invoice_number", "total": "gross_amount", "lines.sku": "item_code"}
    made = record(mapping, {"ledger": {"name": "cloud"}, "lines.unit": "piece"}, scope="Invoices")
    assert made == {
        "id": "2026/1",
        "total": Decimal("12345678901234567.89"),
        "lines": [{"sku": "SKU", "unit": "piece"}],
        "ledger": {"name": "cloud"},
    }
    assert '"total": 12345678901234567.89' in json_text(made)


def test_a_function_makes_the_whole_record_and_defaults_fill_it() -> None:
    made = record(lambda invoice, lines: {"id": invoice["invoice_id"], "n": len(lines)}, {"currencyRate": 1})
    assert made == {"id": "CI-1", "n": 1, "currencyRate": 1}
    with pytest.raises(ConfigurationError, match="id \\(CI-1\\)"):
        record(lambda invoice, lines: {"n": 1}, {})
    with pytest.raises(ConfigurationError, match="returned list for invoice 'CI-1'"):
        record(lambda invoice, lines: [1])


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        ({"id": "invoice.invoice_nr"}, "invoice.invoice_nr is not staged; there are provider, account"),
        ({"lines.sku": "line.sku"}, "line.sku is not staged"),
        ({"id": "line.item_code"}, "'line.item_code' is no expression such as invoice.description"),
        ({"id": "{{ invoice.invoice_id }}"}, "is no expression"),
        ({"id": 7}, "values that are always the same go into defaults"),
    ],
)
def test_an_expression_that_is_none_is_refused_in_words(mapping: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        record(mapping)


@pytest.mark.parametrize(("scope", "kind"), [("Invoices", "sales"), ("Orders", "purchase"), ("Orders", None)])
def test_only_sales_invoices_have_a_mapping_of_their_own(scope: str, kind: str | None) -> None:
    with pytest.raises(ConfigurationError, match="have no mapping to the scope"):
        Records(scope, kind, None)


def test_a_kind_that_is_none_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"'kind': 'purchases' is none of purchase, sales"):
        Records("Orders", "purchases", None)


@pytest.mark.parametrize(
    ("status", "end"),
    [("Accepted", "accepted"), ("_accep-ted ", "accepted"), ("FAILED", "failed"), ("in valid", "failed"),
     ("processing", None), ("", None)],
)  # fmt: skip
def test_states_compare_without_case_and_signs(status: str, end: str | None) -> None:
    assert States().end(status) == end


def test_states_can_be_named() -> None:
    states = States(success=("Done-Well",), failure=())
    assert [states.end(status) for status in ("done well", "accepted", "failed")] == ["accepted", None, None]


def told(value: Any, end: str = "accepted") -> list[tuple[str, str, str]]:
    return [tuple(one) for one in ResultFile(io.BytesIO(json.dumps(value).encode()), end)]


def test_results_tell_what_became_of_each_record() -> None:
    assert told(
        [
            {"id": "1", "status": "Accepted", "errors": []},
            {"id": 2, "status": "rejected", "errors": ["no such customer", {"field": "tax", "message": "is odd"}]},
            {"orderId": "3", "errors": [{"message": "late, see https://files.example/3?sig=abc"}]},
            {"recordId": "4"},
            {"id": "5", "success": False, "message": "closed\nbooks"},
            {"id": "6", "status": "parked", "message": "for review"},
        ]
    ) == [
        ("1", "accepted", ""),
        ("2", "rejected", "no such customer; tax is odd"),
        ("3", "rejected", "late, see https://files.example/3?…"),
        ("4", "accepted", ""),
        ("5", "rejected", "closed books"),
        ("6", "unknown", "Sage's word for it is 'parked'; for review"),
    ]
    assert told({"status": "failed", "results": [{"id": "1"}]}, "failed") == [("1", "rejected", "")]
    assert told([]) == []


def test_a_result_may_speak_of_the_file_alone() -> None:
    body = io.BytesIO(b'{"status": "failed", "errors": ["expected a list"]}')
    result = ResultFile(body, "failed")
    assert list(result) == []
    assert result.words == "expected a list"


def test_a_result_that_is_none_is_no_result() -> None:
    with pytest.raises(Malformed):
        told("accepted")
    with pytest.raises(Malformed):
        told([1, 2])
