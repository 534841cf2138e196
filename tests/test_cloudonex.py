"""What is particular to CloudOnex: two ways to send the key, failures inside 200, its rate limit, its ten resources."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from conversations import PASSWORD, reply_to, settings_of

from airflow_cloudbilling.errors import (
    ConfigurationError,
    InDoubtError,
    MalformedReplyError,
    RefusedError,
    WaitError,
)
from airflow_cloudbilling.found import Item, Record, singly
from airflow_cloudbilling.http.client import Client
from airflow_cloudbilling.http.drivers import drive
from airflow_cloudbilling.model import Invoice, InvoiceLine, Outside, Period, Reject, Stated
from airflow_cloudbilling.sandbox import Sandbox
from airflow_cloudbilling.settings import Settings, settings_from
from airflow_cloudbilling.source import Again, Ask, Conversation, Ok, Refused, Reply, Request
from airflow_cloudbilling.sources.cloudonex import CloudOnex
from airflow_cloudbilling.sources.cloudonex_pages import DROPPED, RESOURCES
from airflow_cloudbilling.urls import target

SOURCE = CloudOnex()
OCTOBER = Period.parse("2026-10")
MONTH = date(2026, 10, 1)
STYLES = ("enveloped", "meta", "bare", "rows")
GET = Request("GET", "/api/v2/invoices")
POST = Request("POST", "/api/v2/invoices", json={})


def settings(**extra: Any) -> Settings:
    return settings_of(SOURCE, extra)


def judged(body: str = "{}", status: int = 200, request: Request = GET, **headers: str) -> Any:
    reply = reply_to(request, body.encode(), status=status)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return SOURCE.verdict(replace(reply, headers={**reply.headers, **named}), settings())


def asked(conversation: Conversation) -> Request:
    request = next(conversation)
    assert isinstance(request, Request)
    return request


# Requests


def test_the_key_goes_as_bearer_token_or_in_the_query_and_never_in_what_is_shown() -> None:
    bearer = SOURCE.probe(settings())
    assert (bearer.path, bearer.params) == ("/api/v2/invoices", {"page": "1", "limit": "1"})
    assert SOURCE.authorise(bearer, settings()).headers["Authorization"] == f"Bearer {PASSWORD}"
    query = settings(auth_mode="query")
    request = SOURCE.probe(query)
    assert (request.path, request.params["ng"]) == ("/", "api/v2/invoices")
    sent = SOURCE.authorise(request, query)
    assert list(sent.params.items())[:2] == [("api_key", PASSWORD), ("ng", "api/v2/invoices")]
    assert "Authorization" not in sent.headers
    assert target(request, query).shown == "https://api.example.com/?ng=api/v2/invoices&page=1&limit=1"


def test_a_redirect_that_repeats_the_key_gets_it_once() -> None:
    query = settings(auth_mode="query")
    again = Request("GET", f"https://api.example.com/?api_key={PASSWORD}&ng=api/v2/invoices")
    assert SOURCE.authorise(again, query) == again


def test_the_documents_own_base_url_will_do() -> None:
    def entered(**extra: Any) -> Settings:
        host = "https://your-domain.com/shop/api/v2/"
        return settings_from(SOURCE, "c", conn_type="cloudonex", host=host, password="key", extra=extra)

    assert target(SOURCE.probe(entered()), entered()).url == "https://your-domain.com/shop/api/v2/invoices"
    assert SOURCE.account(entered()) == "your-domain.com"
    with pytest.raises(ConfigurationError, match=r"field 'host': ends in /api/v2"):
        SOURCE.probe(entered(auth_mode="query"))


@pytest.mark.parametrize(
    ("ask", "extra", "words"),
    [
        ({"kind": "consolidated"}, {}, "no kind 'consolidated'; it has sales, purchase"),
        ({"params": {"Date_From": "x"}}, {}, "'params': Date_From: not yours to set"),
        ({}, {"default_currency": "euro"}, "field 'default_currency': expected a currency's three letters"),
        ({"field_map": {"total": "x"}}, {}, "'total' is no canonical name"),
    ],
)
def test_what_cannot_be_asked_is_an_error_before_any_request(
    ask: dict[str, Any], extra: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        next(SOURCE.invoices(Ask(**{"kind": "sales", "period": OCTOBER, **ask}), settings(**extra)))


def test_the_test_button_refuses_a_currency_that_the_import_would() -> None:
    with pytest.raises(ConfigurationError, match="field 'default_currency'"):
        SOURCE.probe(settings(default_currency="EURO"))


def test_single_records_are_plural_or_singular() -> None:
    for style, one, new in (("plural", "invoices/7", "invoices"), ("singular", "invoice/7", "invoice")):
        s = settings(resource_style=style)
        assert asked(SOURCE.get_record("invoices", "7", {}, s)).path == f"/api/v2/{one}"
        assert asked(SOURCE.create_record("Invoices", {}, s)).path == f"/api/v2/{new}"
        put, delete = SOURCE.update_record("invoices", "7", {}, s), SOURCE.delete_record("invoices", "7", s)
        assert [(r.method, r.path) for r in map(asked, (put, delete))] == [
            ("PUT", f"/api/v2/{one}"),
            ("DELETE", f"/api/v2/{one}"),
        ]
    assert asked(SOURCE.get_record("tickets", "../7?x", {}, settings())).path == "/api/v2/tickets/..%2F7%3Fx"


def test_bodies_are_json_or_phps_forms() -> None:
    data = {"customer_id": 123, "items": [{"description": "Product A", "amount": Decimal("100.00"), "qty": 1}]}
    assert asked(SOURCE.create_record("invoices", data, settings())).json == data
    form = asked(SOURCE.create_record("invoices", data, settings(body_format="form")))
    assert form.json is None
    assert form.form == {
        "customer_id": "123",
        "items[0][description]": "Product A",
        "items[0][amount]": "100.00",
        "items[0][qty]": "1",
    }
    for bad, words in (({"a": 1.5}, "a float is not exact"), ([1], "expected an object")):
        with pytest.raises(ConfigurationError, match=f"'data'.*{words}"):
            next(SOURCE.create_record("invoices", bad, settings(body_format="form")))


def test_an_unknown_resource_is_an_error_that_names_the_one_that_looks_like_it_or_all() -> None:
    known = r'there is ListRecordsOperator\(resource="customers'
    for name, words in (("users", "did you mean 'customers'"), ("xyz", known)):
        with pytest.raises(ConfigurationError, match=f"no resource '{name}' to list; {words}"):
            next(SOURCE.list_records(name, {}, settings()))
    assert {e.document.split()[1].split("/")[1] for e in SOURCE.endpoints} == set(RESOURCES)


# Verdicts


@pytest.mark.parametrize(
    ("verdict", "statuses"),
    [(Ok, (200, 201, 204)), (Again, (408, 429, 500, 503)), (Refused, (206, 302, 400, 401, 403, 404, 422))],
)
def test_the_verdict_is_by_status(verdict: type, statuses: tuple[int, ...]) -> None:
    assert {type(judged(status=status)) for status in statuses} == {verdict}


@pytest.mark.parametrize(
    ("body", "error", "words"),
    [
        ('{"success": false, "errors": {"email": "bad"}, "message": "No"}', RefusedError, "failed: No; email: bad"),
        ('{"error": true, "message": ["one", "two"]}', RefusedError, "failed: one; two"),
        ('{"error": "Invalid key"}', RefusedError, "failed: Invalid key"),
        ('{"error": true, "message": "Unknown resources requested!"}', RefusedError, "resource_style"),
        ("<!DOCTYPE html><p>Login</p>", MalformedReplyError, "expected JSON. The answer begins: <!DOCTYPE html>"),
        ("", MalformedReplyError, "an empty body"),
        ('{"success": true, "data": [', MalformedReplyError, "breaks off"),
    ],
)
def test_a_failure_inside_200_is_refused_in_words(body: str, error: type[Exception], words: str) -> None:
    verdict = judged(body)
    assert type(verdict.error) is error
    assert words in str(verdict.error)
    assert "'cloudonex_default'" in str(verdict.error)


def test_what_is_no_failure_is_not_taken_for_one() -> None:
    for body in ('{"success": true, "data": [], "message": "None found"}', '{"error": false, "invoice_id": 1}', "[]"):
        assert isinstance(judged(body), Ok), body


def test_a_post_whose_answer_says_nothing_is_in_doubt_and_an_empty_one_is_done() -> None:
    assert isinstance(judged("<b>Warning</b>", request=POST).error, InDoubtError)
    assert isinstance(judged("", 201, request=POST), Ok)
    assert isinstance(judged("", 200, request=replace(POST, method="PUT")), Ok)
    assert isinstance(judged("", 200, request=POST).error, InDoubtError)  # what a PHP script that died answers
    assert isinstance(judged('{"success": false}', request=POST).error, RefusedError)


def test_401_and_404_say_what_to_do() -> None:
    assert "Settings → API Access" in str(judged(status=401).error)
    assert "auth_mode" in str(judged(status=403).error)
    assert "resource_style" in str(judged(status=404).error)


def test_429_waits_as_told() -> None:
    told = {"x_ratelimit_reset": "40", "x_ratelimit_remaining": "0"}
    assert judged(status=429).after is None
    assert judged(status=429, **told).after == 40
    assert judged(status=429, retry_after="3", **told).after is None  # the client reads Retry-After itself


def test_dropped_fields_are_quoted_nowhere() -> None:
    body = '{"data": [{"id": 1, "password": "$2y$10$hash", "Token": "t0ken", "vtoken": 77, "autologin": "aut0"'
    conversation = SOURCE.list_records("customers", {}, settings())
    reply = reply_to(asked(conversation), body.encode())
    with pytest.raises(MalformedReplyError) as refused:
        conversation.send(reply)
    assert '"password": "***"' in str(refused.value)
    for secret in ("$2y", "t0ken", "77", "aut0"):
        assert secret not in str(refused.value)


def test_pages_without_end_are_noticed() -> None:
    def ask(request: Request) -> Reply:
        number = int(request.params["page"])
        body = {"data": [{"id": number}], "meta": {"current_page": number, "total_pages": number + 2}}
        return reply_to(request, json.dumps(body).encode())

    with pytest.raises(MalformedReplyError, match="after 13 pages there is always one more"):
        list(drive(SOURCE.list_records("leads", {}, settings()), ask, lambda: None))


def test_one_page_is_one_request() -> None:
    conversation = SOURCE.list_records("leads", {"page": "4", "limit": "5"}, settings())
    request = asked(conversation)
    assert request.params == {"limit": "5", "page": "4"}
    assert conversation.send(reply_to(request, b'[{"id": 1}]')) == Record({"id": 1})
    assert list(conversation) == []


# Over HTTP, against the sandbox


def connected(sandbox: Sandbox, **extra: Any) -> Settings:
    fields = sandbox.connections()["cloudonex_default"]
    return settings_from(SOURCE, "cloudonex_default", **{**fields, "extra": {**fields["extra"], **extra}})


def client(sandbox: Sandbox, defer_after: float | None = None, **extra: Any) -> Client:
    return Client(SOURCE, connected(sandbox, **extra), defer_after=defer_after, draw=lambda: 0.0)


def found(opened: Client, kind: str = "sales", **ask: Any) -> list[Item]:
    return list(singly(opened.stream(SOURCE.invoices(Ask(kind, OCTOBER, **ask), opened.settings))))


def sums(items: list[Item]) -> dict[str, Counter[str]]:
    """Return what staging would hold: currency → the fields of the sandbox's truth."""
    total: dict[str, Counter[str]] = {}
    lines: list[InvoiceLine] = []
    for item in items:
        if isinstance(item, InvoiceLine):
            lines.append(item)
        elif isinstance(item, Invoice):
            add = total.setdefault(str(item.currency), Counter())
            add.update({"invoices": 1, "lines": len(lines)})
            for name, field in (("net", "net_amount"), ("tax", "tax_amount"), ("gross", "gross_amount")):
                add[name] += item.sign * Decimal(getattr(item, field) or 0)
            for name, field in (("quantity", "quantity"), ("discount", "discount"), ("line_net", "net_amount"),
                                ("line_tax", "tax_amount")):  # fmt: skip
                add[name] += item.sign * sum(Decimal(getattr(line, field) or 0) for line in lines)
            add["unit_price"] += sum(Decimal(line.unit_price or 0) for line in lines)
            lines = []
        elif isinstance(item, Outside):
            lines = []
    return total


@pytest.mark.parametrize("filters", [True, False], ids=["filters", "no-filters"])
@pytest.mark.parametrize("style", STYLES)
def test_every_style_kind_and_key_gives_the_truth_to_the_last_digit(style: str, filters: bool) -> None:
    with Sandbox(months=2, invoices=24, last_month=MONTH, cloudonex_style=style, cloudonex_filters=filters) as sandbox:
        for kind, mode in (("sales", "bearer"), ("purchase", "query")):
            with client(sandbox, auth_mode=mode) as opened:
                items = found(opened, kind)
            truth = {code: one._asdict() for code, one in sandbox.truth("cloudonex", kind, "2026-10").items()}
            assert {code: dict(one) for code, one in sums(items).items()} == truth
            assert sum(isinstance(item, Outside) for item in items) == (0 if filters else 24)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(months=2, last_month=MONTH, cloudonex_style="meta") as one:
        yield one


def test_both_worlds_find_the_same(sandbox: Sandbox) -> None:
    async def collect(opened: Client) -> list[Item]:
        async with opened:
            conversation = SOURCE.invoices(Ask("sales", OCTOBER), opened.settings)
            return list(singly([item async for item in opened.astream(conversation)]))

    with client(sandbox) as opened:
        assert found(opened) == asyncio.run(collect(client(sandbox)))


def test_the_endpoint_keeps_its_slashes_in_the_query(sandbox: Sandbox) -> None:
    sandbox.inject("delay", match="&ng=api/v2/invoices&", times=None)
    with client(sandbox, auth_mode="query") as opened:
        found(opened)
    assert sandbox.faults.state()[0]["fired"] == len(sandbox.requests) == 1


def test_the_key_is_in_no_log_address_or_error(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    key = connected(sandbox).password
    shown: list[str] = []
    sandbox.inject("status", status=503, body=f"{key} is not known")
    sandbox.inject("redirect", url=f"{sandbox.url}/?api_key={quote(key, safe='')}&ng=api/v2/invoices&page=1&limit=100")
    with client(sandbox, auth_mode="query") as opened:
        opened._on_exchange = lambda url, *_: shown.append(url)
        found(opened)
        sandbox.inject("status", status=403, body=f"{key} may not")
        with pytest.raises(RefusedError) as refused:
            found(opened)
    assert len(shown) == 4
    for form in (key, quote(key), quote(key, safe="")):
        assert form not in caplog.text + str(refused.value) + "".join(shown) + str(sandbox.requests)


def test_sixty_pages_pass_a_limit_of_twenty_without_one_refusal() -> None:
    with Sandbox(months=1, invoices=60, last_month=MONTH, cloudonex_style="meta", rate_limit=20, rate_window=2) as one:
        with client(one) as opened:
            items = found(opened, params={"limit": "1"})
        pages = [seen.query["page"] for seen in one.requests]
        assert pages == [str(number) for number in range(1, 61)]
        assert {seen.status for seen in one.requests} == {200}
        assert sum(isinstance(item, Invoice) for item in items) == 60
        assert Stated(60) in items


@pytest.mark.parametrize("told", [False, True], ids=["reset", "retry-after"])
def test_a_budget_that_others_used_up_is_waited_for(told: bool) -> None:
    with Sandbox(
        months=1, last_month=MONTH, cloudonex_style="meta", rate_limit=1, rate_window=1.5, rate_retry_after=told
    ) as one:
        with client(one) as other:
            found(other)
        with client(one) as opened:
            began = time.monotonic()
            assert sum(isinstance(item, Invoice) for item in found(opened)) == 12
            assert time.monotonic() - began > 0.3
        assert [seen.status for seen in one.requests] == [200, 429, 200]


def test_a_long_wait_gives_the_worker_back() -> None:
    with (
        Sandbox(months=1, last_month=MONTH, cloudonex_style="meta", rate_limit=2) as one,
        client(one, defer_after=60) as opened,
        pytest.raises(WaitError) as wait,
    ):
        found(opened, params={"limit": "1"})
    assert 3500 < (wait.value.retry_after or 0) <= 3600
    assert len(one.requests) == 2


@pytest.mark.parametrize("style", STYLES)
def test_ten_resources_are_listed_and_customers_keep_their_secrets(style: str) -> None:
    with Sandbox(months=1, last_month=MONTH, cloudonex_style=style) as one, client(one) as opened:
        for resource in RESOURCES:
            listed = [
                item.value for item in opened.stream(SOURCE.list_records(resource, {"limit": "2"}, opened.settings))
            ]
            assert len({record["id"] for record in listed}) == len(listed) >= 3, resource
            assert not any(name in DROPPED for record in listed for name in record)
            if resource == "products":
                assert {type(record["sales_price"]) for record in listed} == {Decimal, int}


@pytest.mark.parametrize("body_format", ["json", "form"])
@pytest.mark.parametrize("style", STYLES)
def test_records_are_created_changed_and_deleted(style: str, body_format: str) -> None:
    with (
        Sandbox(months=1, last_month=MONTH, cloudonex_style=style) as one,
        client(one, body_format=body_format) as opened,
    ):
        s = opened.settings

        def answer(conversation: Conversation) -> Any:
            (item,) = opened.stream(conversation)
            assert isinstance(item, Record)
            return item.value

        new = {"account": "Jane Döe & Sons", "email": "jane@example.com", "balance": Decimal("0.10")}
        made = answer(SOURCE.create_record("customers", new, s))
        number = str(made.get("id") or made["customer_id"])
        assert str(answer(SOURCE.get_record("customers", number, {}, s))["balance"]) == "0.10"
        answer(SOURCE.update_record("customers", number, {"phone": "1"}, s))
        got = answer(SOURCE.get_record("customers", number, {}, s))
        assert (got["account"], got["phone"]) == ("Jane Döe & Sons", "1")
        answer(SOURCE.delete_record("customers", number, s))
        with pytest.raises(RefusedError, match=r"Not found|has no"):
            answer(SOURCE.get_record("customers", number, {}, s))
        with pytest.raises(RefusedError, match="the name is required"):
            answer(SOURCE.create_record("customers", {"email": "x"}, s))


def test_the_wrong_style_of_resource_is_explained() -> None:
    with (
        Sandbox(months=1, cloudonex_style="rows") as one,
        client(one, resource_style="plural") as opened,
        pytest.raises(RefusedError, match=r"Unknown resources requested!.*resource_style"),
    ):
        list(opened.stream(SOURCE.get_record("customers", "1", {}, opened.settings)))


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("filters", [True, False], ids=["filters", "no-filters"])
def test_a_period_is_ready_when_it_has_an_invoice(style: str, filters: bool) -> None:
    def ready(opened: Client, period: str) -> bool:
        items = opened.stream(SOURCE.ready(Ask("sales", Period.parse(period)), opened.settings))
        return any(isinstance(item, Invoice) for item in items)

    options = {"months": 2, "last_month": MONTH, "cloudonex_style": style, "cloudonex_filters": filters}
    with Sandbox(**options) as one, client(one) as opened:
        assert ready(opened, "2026-10")
        before = len(one.requests)
        assert not ready(opened, "2026-11")
        assert (len(one.requests) == before + 1) is filters


def test_a_web_page_or_a_zero_byte_answer_is_an_error_in_words(sandbox: Sandbox) -> None:
    with client(sandbox) as opened:
        for fault, words in (("html", "The answer begins: <!DOCTYPE html>"), ("empty", "an empty body")):
            sandbox.inject(fault)
            with pytest.raises(MalformedReplyError, match=words):
                found(opened)


def test_replies_are_read_again_from_the_archive_without_a_verdict() -> None:
    """A failure is refused also where no client has judged it."""
    conversation = SOURCE.invoices(Ask("sales", OCTOBER), settings())
    reply: Reply = reply_to(asked(conversation), b'{"error": true, "message": "Invalid API Key"}')
    with pytest.raises(MalformedReplyError, match="Invalid API Key"):
        conversation.send(reply)


@pytest.mark.parametrize("odd", [{"discount_type": ["p"]}, {"discount_type": {"a": 1}}, {"discount_type": None}])
def test_an_odd_kind_of_discount_is_no_percentage(odd: dict[str, Any]) -> None:
    line = {"description": "x", "qty": 1, "amount": "10", "discount_amount": "1", "total": "9", **odd}
    record = {"id": 1, "date": "2026-10-05", "currency_iso_code": "EUR", "total": "9", "items": [line]}
    conversation = SOURCE.invoices(Ask("sales", OCTOBER), settings())
    reply = reply_to(asked(conversation), json.dumps({"success": True, "data": [record]}).encode())
    line, _ = singly([conversation.send(reply)])
    assert isinstance(line, InvoiceLine)
    assert line.discount == "1"


@pytest.mark.parametrize("odd", [{"invoicenum": ["1"]}, {"cn": {"a": 1}}])
def test_an_odd_number_rejects_its_invoice_alone(odd: dict[str, Any]) -> None:
    record = {"id": "7", "date": "2026-10-05", "currency_iso_code": "EUR", "total": "9", "items": [], **odd}
    conversation = SOURCE.invoices(Ask("sales", OCTOBER), settings())
    found = conversation.send(reply_to(asked(conversation), json.dumps({"data": [record], "meta": 7}).encode()))
    assert isinstance(found, Reject)
    assert "invoice_number (invoicenum, cn)" in found.reason


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"tax2": msgspec.Raw(b"NaN")}, "tax2"),
        ({"total": msgspec.Raw(b"1e99999999999999999999")}, "gross_amount"),
        ({"tax": "9" * 26, "tax2": "9" * 26}, "a sum of the invoice's amounts cannot be staged"),
    ],
)
def test_a_number_out_of_bounds_rejects_its_invoice_alone(bad: dict[str, Any], words: str) -> None:
    good = {"id": 1, "date": "2026-10-05", "currency_iso_code": "EUR", "total": "9", "items": []}
    body = msgspec.json.encode({"success": True, "data": [{**good, "id": 2, **bad}, {**good, "id": "\u20ac"}]})
    reply = reply_to(GET, body)
    assert isinstance(SOURCE.verdict(reply, settings()), Ok)
    conversation = SOURCE.invoices(Ask("sales", OCTOBER), settings())
    asked(conversation)
    found = [conversation.send(reply), next(conversation)]
    assert isinstance(found[0], Reject)
    assert words in found[0].reason
    assert (found[0].invoice_id, getattr(found[1], "invoice_id", None)) == ("2", "€")


def test_an_id_that_no_text_can_hold_ends_nothing() -> None:
    conversation = SOURCE.list_records("leads", {}, settings())
    found = conversation.send(reply_to(asked(conversation), rb'[{"id": "\ud800"}]'))
    assert found == Record({"id": "\ud800"})


@pytest.mark.parametrize("shift", [0, 1])
def test_nothing_is_used_of_a_page_with_records_of_another(shift: int) -> None:
    def ask(request: Request) -> Reply:
        first = 1 if request.params["page"] == "1" else 3 - shift
        numbers = range(first, first + 2) if int(request.params["page"]) < 3 else ()
        return reply_to(request, json.dumps([{"id": number} for number in numbers]).encode())

    found: list[Item] = []
    records = drive(SOURCE.list_records("leads", {}, settings()), ask, lambda: None)
    with pytest.raises(MalformedReplyError, match="1 of 2 records that came before") if shift else nullcontext():
        found.extend(records)
    assert [item.value["id"] for item in found if isinstance(item, Record)] == ([1, 2] if shift else [1, 2, 3, 4])
