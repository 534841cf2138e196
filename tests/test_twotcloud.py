"""What is particular to 2tCloud: credentials, verdicts, requests, and lines that are named after they have come."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from decimal import Decimal
from itertools import chain
from typing import Any

import pytest
from conversations import LOGIN, PASSWORD, reply_to, settings_of

from airflow_cloudbilling.errors import ConfigurationError, MalformedReplyError, RefusedError
from airflow_cloudbilling.found import Item, singly
from airflow_cloudbilling.hooks.twotcloud import TwoTCloudHook
from airflow_cloudbilling.model import Invoice, InvoiceLine, Notice, Period, Reject
from airflow_cloudbilling.source import Again, Ask, Ok, Refused, Request
from airflow_cloudbilling.sources.twotcloud import TwoTCloud

SOURCE = TwoTCloud()
JUNE = Period.parse("2020-06")
HEADER = {"InvoiceID": "CI-1", "Currency": "EUR"}


def basic(key: str) -> str:
    return "Basic " + base64.b64encode(f"{LOGIN}:{key}".encode()).decode()


def converse(body: Any, extra: dict[str, Any] | None = None, **ask: Any) -> Iterator[Item]:
    """Yield what one answer holds; it is sent as JSON unless it is text."""
    conversation = SOURCE.invoices(Ask(**{"kind": "purchase", "period": JUNE, **ask}), settings_of(SOURCE, extra))
    step = next(conversation)
    while not isinstance(step, Request):
        yield step
        step = next(conversation)
    data = body if isinstance(body, str) else json.dumps(body)
    yield from singly(chain([conversation.send(reply_to(step, data.encode()))], conversation))


def subscription(*lines: dict[str, Any], **members: Any) -> dict[str, Any]:
    """Return a subscription as the vendor sends it: its price lines before its name."""
    return {"PriceLines": list(lines), **members}


def test_each_api_has_its_key() -> None:
    settings = settings_of(SOURCE, {"customers_api_key": "c-key", "cloudstore_api_key": "s-key"})
    for api, key in (("default", PASSWORD), ("customers", "c-key"), ("cloudstore", "s-key")):
        sent = SOURCE.authorise(Request("GET", "/v2/x", headers={"Accept": "a"}, api=api), settings)
        assert sent.headers == {"Accept": "a", "Authorization": basic(key)}
    for secret in (PASSWORD, "c-key", "s-key", basic(PASSWORD)[6:], basic("s-key")[6:]):
        assert secret in SOURCE.secrets(settings)


def test_a_missing_key_names_its_field() -> None:
    with pytest.raises(ConfigurationError, match=r"field 'customers_api_key'.*enter an active key"):
        SOURCE.authorise(Request("GET", "/v2/customers", api="customers"), settings_of(SOURCE))


def test_each_api_has_one_version() -> None:
    settings = settings_of(SOURCE, {"version": "V3", "cloudstore_version": "v1"})
    assert SOURCE.path("invoices", settings) == "/V3/invoices"
    assert SOURCE.path("customers", settings, "customers") == "/v2/customers"
    assert SOURCE.path("/orders", settings, "cloudstore") == "/v1/orders"
    with pytest.raises(ConfigurationError, match=r"field 'version'.*is no version"):
        SOURCE.path("invoices", settings_of(SOURCE, {"version": "../v2"}))


def test_the_account_is_the_account_id() -> None:
    assert SOURCE.account(settings_of(SOURCE)) == LOGIN


@pytest.mark.parametrize(
    ("verdict", "statuses"),
    [(Ok, (200, 204)), (Again, (408, 429, 500, 503)), (Refused, (302, 400, 401, 403, 404, 410))],
)
def test_the_verdict_is_by_status(verdict: type, statuses: tuple[int, ...]) -> None:
    settings = settings_of(SOURCE)
    for status in statuses:
        reply = reply_to(SOURCE.probe(settings), b"no", status=status)
        assert isinstance(SOURCE.verdict(reply, settings), verdict), status


def test_a_403_names_both_causes_and_no_secret() -> None:
    settings = settings_of(SOURCE)
    verdict = SOURCE.verdict(reply_to(SOURCE.probe(settings), basic(PASSWORD).encode(), status=403), settings)
    assert isinstance(verdict, Refused)
    assert isinstance(verdict.error, RefusedError)
    message = str(verdict.error)
    for words in ("twotcloud_default", "Basic header", "field password", "another IP address", "Your APIs"):
        assert words in message
    assert PASSWORD not in message
    assert basic(PASSWORD)[6:] not in message


def test_other_refusals_quote_what_came_without_secrets() -> None:
    settings = settings_of(SOURCE)
    reply = reply_to(
        SOURCE.probe(settings), f"range too long\n\x1b[0m for {PASSWORD}".encode() + b"x" * 9000, status=400
    )
    verdict = SOURCE.verdict(reply, settings)
    assert isinstance(verdict, Refused)
    assert "range too long \\x1b[0m for ***" in str(verdict.error)
    assert len(str(verdict.error)) < 500


def test_the_probe_asks_for_today() -> None:
    probe = SOURCE.probe(settings_of(SOURCE, {"response_format": "xml"}))
    assert (probe.method, probe.path, probe.headers) == ("GET", "/v2/invoices", {"Accept": "application/json"})
    assert probe.params["startDate"] == probe.params["endDate"]


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        ({"kind": "usage"}, "no kind 'usage'"),
        ({"params": {"StartDate": "20200101"}}, "use period and window_shift_days"),
        ({"field_map": {"total": "Totals.X"}}, "'total' is no canonical name; known are invoice_id, .*line.net_amount"),
    ],
)
def test_what_cannot_be_asked_is_an_error_before_any_request(ask: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        next(converse([], **ask))


def test_the_map_of_the_connection_counts_too_and_the_operators_wins() -> None:
    invoice = {"Header": {**HEADER, "A": "from the connection", "B": "from the operator"}}
    (found,) = converse([invoice], {"field_map": {"status": "Header.A"}})
    assert isinstance(found, Invoice)
    assert found.status == "from the connection"
    (found,) = converse([invoice], {"field_map": {"status": "Header.A"}}, field_map={"status": "Header.B"})
    assert isinstance(found, Invoice)
    assert found.status == "from the operator"


def test_lines_leave_in_order_as_soon_as_they_are_named() -> None:
    """Each line waits for its own subscription and customer only, beyond a thousand of them on disk."""
    lines = [{"LineId": number, "ExtendedPrice": 1} for number in range(2500)]
    first = subscription(*lines, SubscriptionID=1, SubscriptionName="a")
    second = subscription(*lines[:2], SubscriptionID=2)
    third = {"SubscriptionID": 3, "SubscriptionName": "c", "PriceLines": lines[:2]}
    customers = [
        {"Subscriptions": [first, second], "AccountID": 7, "CompanyName": "late"},
        {"AccountID": 8, "CompanyName": "early", "Subscriptions": [third]},
        {"AccountID": 9, "PriceLines": lines[:1]},
    ]
    found = list(converse({"Invoices": [{"Customers": customers, "Header": HEADER}]}))
    named = [(line.line_id, *line[12:16]) for line in found if isinstance(line, InvoiceLine)]
    assert named == [
        *((str(number), "1", "a", "7", "late") for number in range(2500)),
        ("0", "2", None, "7", "late"),
        ("1", "2", None, "7", "late"),
        ("0", "3", "c", "8", "early"),
        ("1", "3", "c", "8", "early"),
        ("0", None, None, "9", None),
    ]
    assert isinstance(found[-2], Invoice)
    assert (found[-2].net_amount, found[-2].totals_origin) == ("2505", "computed")
    assert isinstance(found[-1], Notice)


def test_lines_that_are_named_already_do_not_wait_for_the_end() -> None:
    named = {"SubscriptionID": 1, "SubscriptionName": "a", **subscription(*[{"LineId": 1}] * 1000)}
    body = json.dumps({"Invoices": [{"Customers": [{"AccountID": 7, "CompanyName": "x", "Subscriptions": [named]}]}]})
    cut = body[: body.index("}]}]}]")] + "}, "
    first = next(converse(cut + " " * 1_100_000))
    assert isinstance(first, InvoiceLine)


def test_a_bad_line_spoils_its_invoice_alone_and_the_reject_knows_it() -> None:
    bad = {
        "Customers": [{"Subscriptions": [subscription({"LineId": 1, "Quantity": "many"}, {"LineId": 2})]}],
        "Header": HEADER,
    }
    good = {"Header": {**HEADER, "InvoiceID": "CI-2"}}
    reject, invoice = converse({"Invoices": [bad, good]})
    assert isinstance(reject, Reject)
    assert reject.invoice_id == "CI-1"
    assert reject.reason == "line 1: field quantity (Quantity): expected a decimal amount, came 'many'"
    assert '"Quantity": "many"' in reject.raw
    assert '"InvoiceID": "CI-1"' in reject.raw
    assert isinstance(invoice, Invoice)
    assert invoice.invoice_id == "CI-2"


def test_a_rejected_record_is_kept_up_to_a_limit() -> None:
    (reject,) = converse([{"Header": {**HEADER, "Currency": "x" * 200_000}}])
    assert isinstance(reject, Reject)
    assert len(reject.raw) == 64 * 1024
    assert len(reject.reason) < 200


def test_nothing_is_kept_of_the_sent_text_when_it_is_not_wanted() -> None:
    invoice = {
        "Customers": [{"Subscriptions": [subscription({"LineId": 1})]}],
        "Header": HEADER,
        "Totals": {"TotalExclVAT": 1},
    }
    assert [item.raw for item in converse([invoice], keep_raw=False) if isinstance(item, Invoice | InvoiceLine)] == [
        None,
        None,
    ]


# The Customers and Cloudstore APIs

KEYS = {"customers_api_key": "c-key", "cloudstore_api_key": "s-key"}
CUSTOMERS_JSON = """{"Customers": [{"AccountId": 1000456, "CompanyName": "A & B", "CostCenter": null, "Credit": "0123"},
 {"AccountId": 1000457, "CompanyName": "C", "CostCenter": null, "Credit": "7"}]}"""
CUSTOMERS_XML = """<?xml version="1.0"?><GetCustomerResponse>
 <Customer><AccountId>1000456</AccountId><CompanyName>A &amp; B</CompanyName>
  <CostCenter /><Credit>0123</Credit></Customer>
 <Customer><AccountId>1000457</AccountId><CompanyName>C</CompanyName><CostCenter /><Credit>7</Credit></Customer>
</GetCustomerResponse>"""


def called(conversation: Any, body: str, status: int = 200) -> tuple[Request, list[Any]]:
    """Hold a conversation of one request; return the request and the values of the records."""
    request = next(conversation)
    found = []
    try:
        found.append(conversation.send(reply_to(request, body.encode(), status=status)).value)
    except StopIteration:
        pass
    return request, [*found, *(record.value for record in conversation)]


def listed(resource: str, body: str, status: int = 200, **extra: Any) -> list[Any]:
    return called(SOURCE.list_records(resource, {}, settings_of(SOURCE, KEYS | extra)), body, status)[1]


@pytest.mark.parametrize(
    ("resource", "path", "api", "headers"),
    [
        ("customers", "/v2/customers", "customers", {"Accept": "application/json"}),
        ("customers:contacts/7", "/v2/contacts/7", "customers", {"Accept": "application/json"}),
        ("cloudstore:/orders/", "/v1/orders", "cloudstore", {}),
        ("billing:subscriptiondetails", "/v2/subscriptiondetails", "default", {"Accept": "application/json"}),
    ],
)
def test_a_resource_is_an_endpoint_of_an_api(resource: str, path: str, api: str, headers: dict[str, str]) -> None:
    request, found = called(SOURCE.list_records(resource, {"a": "1"}, settings_of(SOURCE, KEYS)), "[]")
    assert request == Request("GET", path, {"a": "1"}, headers, api=api)
    assert found == []


@pytest.mark.parametrize(
    "resource", ["orders", "cloudstore", "cloudstore:", "customers:../v1/x", "customers:a?b", "x:y"]
)
def test_what_is_no_resource_is_an_error_before_any_request(resource: str) -> None:
    with pytest.raises(ConfigurationError, match=r"field 'resource'.*no resource.*'cloudstore:<endpoint>'"):
        next(SOURCE.list_records(resource, {}, settings_of(SOURCE)))


def test_an_id_cannot_lead_elsewhere() -> None:
    request, _ = called(SOURCE.get_record("cloudstore:orders", "../7", {}, settings_of(SOURCE, KEYS)), "{}")
    assert request.path == "/v1/orders/..%2F7"
    for record_id in ("", "..", " "):
        with pytest.raises(ConfigurationError, match="no id of a record"):
            next(SOURCE.get_record("customers", record_id, {}, settings_of(SOURCE)))


def test_customers_are_the_same_in_both_formats() -> None:
    records = listed("customers", CUSTOMERS_JSON)
    assert [record["AccountId"] for record in records] == [1000456, 1000457]
    assert listed("customers", CUSTOMERS_XML) == records
    single = CUSTOMERS_XML[: CUSTOMERS_XML.index("</Customer>")] + "</Customer></GetCustomerResponse>"
    assert listed("customers", single) == records[:1]
    of_wcf = single.replace("Customer>", "GetCustomerResponse.Customer>").replace("<GetCustomerResponse>", "<R>")
    assert listed("customers", of_wcf[: of_wcf.rindex("</")] + "</R>") == records[:1]


@pytest.mark.parametrize(
    ("body", "values"),
    [
        ('[{"Id": 1.10}]', [{"Id": Decimal("1.10")}]),
        ('{"Count": 1, "Orders": [{"Id": 1}]}', [{"Id": 1}]),
        ('{"Id": 1, "Lines": [1, 2]}', [{"Id": 1, "Lines": [1, 2]}]),
        ('{"Orders": null}', []),
        ("null", []),
    ],
)
def test_records_stand_in_a_list_or_alone(body: str, values: list[Any]) -> None:
    assert listed("cloudstore:orders", body) == values
    assert listed("cloudstore:orders", "", status=204) == []


@pytest.mark.parametrize("body", ["", "busy", '{"Orders": [{"Id": 1}'])
def test_what_holds_no_records_is_malformed(body: str) -> None:
    with pytest.raises(MalformedReplyError, match=r"GET /v1/orders was not answered with records"):
        listed("cloudstore:orders", body)


def test_a_post_is_json_and_never_safe() -> None:
    data = {"Price": Decimal("1.10")}
    conversation = SOURCE.create_record("cloudstore:orders", data, settings_of(SOURCE, KEYS))
    request, found = called(conversation, '{"Order": {"OrderId": 7, "Price": 1.10}}', 201)
    assert (request.method, request.path, request.json, request.safe) == ("POST", "/v1/orders", data, False)
    assert found == [{"OrderId": 7, **data}]
    assert called(SOURCE.create_record("customers", data, settings_of(SOURCE, KEYS)), "", 204)[1] == [None]
    with pytest.raises(ConfigurationError, match=r"field 'data'.*NaN"):
        next(SOURCE.create_record("customers", {"Price": Decimal("NaN")}, settings_of(SOURCE)))


@pytest.mark.parametrize("response_format", ["json", "xml"])
def test_each_api_is_called_with_its_key_and_version(vendor: Any, monkeypatch: Any, response_format: str) -> None:
    fields = vendor.connections()["twotcloud_default"]
    fields["extra"] |= {"response_format": response_format, "customers_version": "v1"}
    monkeypatch.setenv("AIRFLOW_CONN_TWOTCLOUD_DEFAULT", json.dumps(fields))
    hook = TwoTCloudHook()
    before = list(hook.customers())
    created = hook.customers_api("customers", data={"CompanyName": "New & Co"})
    assert (created["AccountId"], created["CompanyName"]) == (1000456 + len(before), "New & Co")
    assert hook.customers_api("customers") == [*before, created]
    order = hook.cloudstore_api("orders", data={"Price": Decimal("12345678901234567.89")})
    assert order == {"OrderId": 1, "Price": Decimal("12345678901234567.89")}
    assert hook.cloudstore_api("orders") == [order]
    assert hook.get_record("cloudstore:orders", "1") == order
    with pytest.raises(RefusedError, match=r"has no /v1/nothing \(HTTP 40"):
        hook.cloudstore_api("nothing")
    assert {seen.path for seen in vendor.requests} == {"/v1/customers", "/v1/orders", "/v1/orders/1", "/v1/nothing"}
