"""What is particular to Store365: the password grant, its refusals, pages that shift or never end, any resource."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from conversations import PASSWORD, reply_to, settings_of
from importing import connect, stage

from airflow_cloudbilling.errors import ConfigurationError, IncompleteError, MalformedReplyError, RefusedError
from airflow_cloudbilling.found import Item, Record, singly
from airflow_cloudbilling.http.client import Client
from airflow_cloudbilling.model import Invoice, InvoiceLine, Notice, Outside, Period, Stated
from airflow_cloudbilling.sandbox import Sandbox
from airflow_cloudbilling.settings import Settings, settings_from
from airflow_cloudbilling.source import Again, Ahead, Ask, Ok, Refused, Renew, Reply, Request
from airflow_cloudbilling.sources.store365 import Store365

SOURCE = Store365()
CLIENT = {"client_id": "reseller-7"}
OCTOBER = Ask("purchase", Period.parse("2026-10"))
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(months=3, invoices=12, last_month=date(2026, 10, 1)) as one:
        yield one


def connected(sandbox: Sandbox, **extra: Any) -> Settings:
    """Return the sandbox's connection, with three pages of invoices unless told otherwise."""
    fields = sandbox.connections()["store365_default"]
    extra = {**fields["extra"], "page_size": 12, **extra}
    return settings_from(SOURCE, "store365_default", **{**fields, "extra": extra})


def imported(sandbox: Sandbox, ask: Ask = OCTOBER, **extra: Any) -> list[Item]:
    settings = connected(sandbox, **extra)
    with Client(SOURCE, settings) as client:
        return list(singly(client.stream(SOURCE.invoices(ask, settings))))


def called(sandbox: Sandbox, method: str, *arguments: Any, **extra: Any) -> list[Any]:
    settings = connected(sandbox, **extra)
    with Client(SOURCE, settings) as client:
        items = list(client.stream(getattr(SOURCE, method)(*arguments, settings)))
    return [item.value for item in items if isinstance(item, Record)]


def served(answers: Callable[[int], Any], size: int = 2, **extra: Any) -> list[Item]:
    """Hold the conversation with a vendor that answers each page by its number and the times it was asked."""
    settings = settings_of(SOURCE, {**CLIENT, "page_size": size, **extra})
    conversation = SOURCE.invoices(OCTOBER, settings)
    found: list[Item] = []
    answer: Reply | None = None
    while True:
        try:
            step = conversation.send(answer)
        except StopIteration:
            return found
        answer = None
        if isinstance(step, Request):
            answer = reply_to(step, json.dumps(answers(int(step.params["pageNumber"]))).encode())
        elif not isinstance(step, Ahead):
            found.extend(singly([step]))


def page(number: int, ids: range | list[int], pages: int, total: int) -> dict[str, Any]:
    results = [{"id": one, "invoiceDate": "2026-10-05T00:00:00Z", "currency": "EUR", "total": "1"} for one in ids]
    counters = {"pageNumber": number, "totalNumberOfPages": pages, "totalNumberOfRecords": total}
    return {**counters, "results": results}


def ids(items: list[Item]) -> list[str]:
    return [item.invoice_id for item in items if isinstance(item, Invoice)]


# --- the token -------------------------------------------------------------------------------------------------------


def test_the_token_is_asked_for_with_the_four_values_of_the_document() -> None:
    request = SOURCE.credential_request(settings_of(SOURCE, CLIENT))
    assert (request.method, request.path) == ("POST", "https://token.store-it365.eu/auth")
    assert request.form == {"username": "1000123", "password": PASSWORD, "grant_type": "password", **CLIENT}
    assert request.configured
    assert "Authorization" not in SOURCE.authorise(request, settings_of(SOURCE, CLIENT), TOKEN).headers


def test_the_printed_sample_is_read_with_its_comma_and_its_text() -> None:
    settings = settings_of(SOURCE, CLIENT)
    sample = f'{{\n    "access_token": "{TOKEN}",\n    "token_type": "bearer",\n    "expires_in": "21599",\n}}'
    found = SOURCE.credential(reply_to(SOURCE.credential_request(settings), sample.encode()), settings)
    assert found == (TOKEN, 21599)
    sent = SOURCE.authorise(SOURCE.probe(settings), settings, found.value)
    assert sent.headers["Authorization"] == f"bearer {TOKEN}"


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({}, "field 'client_id'.*enter the client ID"),
        ({**CLIENT, "auth_url": "http://token.example.com/auth"}, "field 'auth_url'.*clear text"),
        ({**CLIENT, "auth_url": "ftp://token.example.com/auth"}, "field 'auth_url'.*not supported"),
    ],
)
def test_a_bad_connection_is_an_error_before_any_request(extra: dict[str, Any], words: str) -> None:
    settings = settings_of(SOURCE, extra)
    with pytest.raises(ConfigurationError, match=words), Client(SOURCE, settings) as client:
        client.request(SOURCE.probe(settings))


@pytest.mark.parametrize(
    "extra", [{"page_size": 0}, {"page_size": "101"}, {"response_format": "yaml"}, {"invoices_path": "a/../b"}]
)
def test_a_field_out_of_bounds_is_named(extra: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=f"field '{next(iter(extra))}'"):
        next(SOURCE.invoices(OCTOBER, settings_of(SOURCE, {**CLIENT, **extra})))


def test_a_refused_login_is_sent_once_and_told_in_words(sandbox: Sandbox) -> None:
    settings = replace(connected(sandbox), password="wrong-password")
    words = r"invalid_grant: Bad credentials.*client_id"
    with Client(SOURCE, settings) as client, pytest.raises(RefusedError, match=words) as refused:
        client.request(SOURCE.probe(settings))
    assert "wrong-password" not in str(refused.value)
    assert [(seen.method, seen.status) for seen in sandbox.requests] == [("POST", 401)]


def test_an_expired_token_is_renewed_once(sandbox: Sandbox) -> None:
    settings = connected(sandbox)
    with Client(SOURCE, settings) as client:
        client.request(SOURCE.probe(settings)).body.close()
        sandbox.vendors["store365"].expire_tokens()
        assert len(ids(list(singly(client.stream(SOURCE.invoices(OCTOBER, settings)))))) == 12
    assert [seen.status for seen in sandbox.requests][:5] == [200, 200, 401, 200, 200]


# --- verdicts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdict", "statuses"),
    [(Ok, (200, 201, 204)), (Again, (408, 429, 500, 503)), (Renew, (401,)), (Refused, (206, 302, 400, 403, 404, 415))],
)
def test_the_verdict_is_by_status(verdict: type, statuses: tuple[int, ...]) -> None:
    settings = settings_of(SOURCE, CLIENT)
    for status in statuses:
        reply = reply_to(SOURCE.probe(settings), b"no", status=status)
        assert isinstance(SOURCE.verdict(reply, settings), verdict), status


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (400, {"code": 400, "message": "Further details"}, ("wrong (HTTP 400: Further details)", "SortOrder")),
        (404, {"code": 404, "message": "no invoices"}, ("no /invoices", "HTTP 404: no invoices", "invoices_path")),
        (415, None, ("content-type header", "response_format")),
        (403, {"status": 403, "error": "Forbidden", "message": "No access"}, ("Forbidden: No access",)),
    ],
)
def test_refusals_say_what_to_do(status: int, body: Any, words: tuple[str, ...]) -> None:
    settings = settings_of(SOURCE, CLIENT)
    reply = reply_to(SOURCE.probe(settings), json.dumps(body).encode() if body else b"", status=status)
    verdict = SOURCE.verdict(reply, settings)
    assert isinstance(verdict, Refused)
    for word in ("store365_default", *words):
        assert word in str(verdict.error)


def test_a_login_refused_with_400_is_not_tried_again() -> None:
    settings = settings_of(SOURCE, CLIENT)
    reply = reply_to(SOURCE.credential_request(settings), b'{"error": "invalid_client"}', status=400)
    verdict = SOURCE.verdict(reply, settings)
    assert isinstance(verdict, Refused)
    assert "invalid_client" in str(verdict.error)


# --- pages -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("response_format", ["json", "xml"])
def test_every_page_is_read_and_the_sums_are_the_truth(sandbox: Sandbox, response_format: str) -> None:
    items = imported(sandbox, response_format=response_format)
    truth = sandbox.truth("store365", "purchase", "2026-10")
    invoices = [item for item in items if isinstance(item, Invoice)]
    for currency, expected in truth.items():
        own = [item for item in invoices if item.currency == currency]
        assert len(own) == expected.invoices
        assert sum(item.sign * Decimal(item.gross_amount or "") for item in own) == expected.gross
        assert sum(item.sign * Decimal(item.tax_amount or "") for item in own) == expected.tax
    lines = [item for item in items if isinstance(item, InvoiceLine)]
    assert len(lines) == sum(expected.lines for expected in truth.values())
    assert {line.tax_amount for line in lines} == {None}
    assert sum(isinstance(item, Outside) for item in items) == 24
    assert items[-1] == Stated(36)
    asked = [seen for seen in sandbox.requests if seen.method == "GET"]
    assert {seen.headers["content-type"] for seen in asked} == {f"application/{response_format}"}
    assert sorted(seen.query["pageNumber"] for seen in asked) == ["1", "2", "3"]


def test_pages_are_asked_for_in_turn_and_announced_after_the_first() -> None:
    settings = settings_of(SOURCE, {**CLIENT, "page_size": 2})
    conversation = SOURCE.invoices(OCTOBER, settings)
    first = next(conversation)
    assert isinstance(first, Request)
    assert first.params == {"SortOrder": "id", "pageNumber": "1", "pageSize": "2"}
    step: Any = conversation.send(reply_to(first, json.dumps(page(1, [], 3, 5)).encode()))
    assert step == Stated(5)  # an empty page ends the list, what is missing is the loader's to say
    conversation = SOURCE.invoices(OCTOBER, settings)
    next(conversation)
    step = conversation.send(reply_to(first, json.dumps(page(1, [1, 2], 3, 5)).encode()))
    while not isinstance(step, Ahead):
        step = next(conversation)
    coming = list(step.requests)
    assert [request.params["pageNumber"] for request in coming] == ["2", "3"]
    assert next(conversation) == coming[0]


def test_a_record_that_moves_to_the_next_page_counts_once() -> None:
    """One comes in front while page 2 is asked for; the second reading finds it, the loader drops what is equal."""
    asked: list[int] = []

    def answer(number: int) -> Any:
        asked.append(number)
        ids = {1: [1, 2], 2: [2, 3]} if len(asked) < 3 else {1: [0, 1], 2: [2, 3]}
        return page(number, ids[number], 2, 3 if len(asked) == 1 else 4)

    items = served(answer)
    assert set(ids(items)) == {"0", "1", "2", "3"}
    assert asked == [1, 2, 1, 2]
    assert any(isinstance(item, Notice) and "3 → 4" in item.message for item in items)
    assert items[-1] == Stated(4)


def test_a_record_that_vanishes_is_not_taken_for_one_that_moved_away() -> None:
    """Record 1 goes and 3 moves to page 1, which was read before: only the second reading sees 3."""
    asked: list[int] = []

    def answer(number: int) -> Any:
        asked.append(number)
        now = [[1, 2], [3, 4], [5]] if len(asked) == 1 else [[2, 3], [4, 5], []]
        return page(number, now[number - 1], 3 if len(asked) == 1 else 2, 5 if len(asked) == 1 else 4)

    items = served(answer)
    assert set(ids(items)) == {"1", "2", "3", "4", "5"}
    assert items[-1] == Stated(4)  # five came: the load is refused as incomplete, and the next one is right


@pytest.mark.parametrize("size", [1, 2])
def test_a_list_that_never_ends_is_ended(size: int) -> None:
    asked = 0

    def endless(number: int) -> Any:
        nonlocal asked
        asked += 1
        return page(number, range(number * size, (number + 1) * size), number + 1, 7)

    with pytest.raises(MalformedReplyError, match=r"after 12 pages there is always one more, the first page said 2"):
        served(endless, size)
    assert asked == 12


@pytest.mark.parametrize(("manner", "words"), [("stuck", "nothing that did not come before"), ("endless", "one more")])
def test_a_vendor_that_cannot_turn_pages_is_noticed(sandbox: Sandbox, manner: str, words: str) -> None:
    sandbox.vendors["store365"].manner = manner
    with pytest.raises(MalformedReplyError, match=words):
        imported(sandbox)
    assert len(sandbox.requests) < 30


def test_lists_without_counters_of_pages_are_read_until_one_is_short() -> None:
    def answer(number: int) -> Any:
        return {
            "pageNumber": number,
            "results": page(number, range(number * 2, min(number * 2 + 2, 7)), 0, 0)["results"],
        }

    assert ids(served(answer)) == ["2", "3", "4", "5", "6"]


def test_an_order_of_the_users_own_replaces_ours(sandbox: Sandbox) -> None:
    assert len(ids(imported(sandbox, replace(OCTOBER, params={"sortOrder": "invoiceDate", "state": "open"})))) == 12
    asked = sandbox.requests[-1].query
    assert (asked["sortOrder"], asked["state"], asked.get("SortOrder")) == ("invoiceDate", "open", None)
    for name in ("pageNumber", "PAGESIZE"):
        with pytest.raises(ConfigurationError, match="page_size"):
            imported(sandbox, replace(OCTOBER, params={name: "3"}))


def test_an_unknown_order_is_refused_in_the_vendors_words(sandbox: Sandbox) -> None:
    with pytest.raises(RefusedError, match="SortOrder colour is not a property"):
        imported(sandbox, replace(OCTOBER, params={"SortOrder": "colour"}))


@pytest.mark.parametrize("change", ["add", "withdraw"])
def test_what_changes_while_pages_are_read_ends_in_the_truth_or_in_an_error(
    cloudbilling_sandbox: Sandbox, staging: Any, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    sandbox, last = cloudbilling_sandbox, cloudbilling_sandbox.months[-1]
    connect(sandbox, monkeypatch, conn_id="store365_default", page_size=7)
    first = next(sandbox.records("store365", "purchase", sandbox.months[0]))
    changed: list[str] = []

    def answer(request: Any) -> Any:
        if request.query["pageNumber"] == "3" and not changed:
            where = {"month": sandbox.months[0]} if change == "add" else {"invoice_id": first.invoice_id}
            changed.append(sandbox.change(change, vendor="store365", **where))
        return sandbox.vendors["store365"].answer(request)

    sandbox.serve("/store365/invoices", answer)
    if change == "withdraw":  # whether a record was lost between the pages cannot be known this time
        with pytest.raises(IncompleteError, match="states 35 records"):
            stage(last, conn_id="store365_default")
    truth = sandbox.truth("store365", "purchase", last)
    assert stage(last, conn_id="store365_default")["invoices"] == sum(one.invoices for one in truth.values())


# --- what is there, and everything else ------------------------------------------------------------------------------


def test_ready_looks_at_the_ends_of_the_list_first(sandbox: Sandbox) -> None:
    settings = connected(sandbox, page_size=1)
    with Client(SOURCE, settings) as client:
        assert isinstance(next(client.stream(SOURCE.ready(OCTOBER, settings))), Invoice)
        assert [seen.query.get("pageNumber") for seen in sandbox.requests] == [None, "1", "36"]
        november = replace(OCTOBER, period=Period.parse("2026-11"))
        assert not list(client.stream(SOURCE.ready(november, settings)))
        assert [seen.query.get("pageNumber") for seen in sandbox.requests][3:] == ["1", "36"]


def test_any_resource_is_reached_by_its_path(sandbox: Sandbox) -> None:
    users = called(sandbox, "list_records", "users", {}, page_size=5)
    assert [user["id"] for user in users] == list(range(1, 12))
    (user,) = called(sandbox, "get_record", "users", "7", {})
    assert user == users[6]
    (created,) = called(sandbox, "create_record", "customers", {"name": "New & Sons"})
    (changed,) = called(sandbox, "update_record", "customers", str(created["id"]), {"name": "Newer"})
    assert changed == {**created, "name": "Newer"}
    assert called(sandbox, "delete_record", "customers", str(created["id"])) == [None]
    with pytest.raises(RefusedError, match="HTTP 404"):
        called(sandbox, "get_record", "customers", str(created["id"]), {})
    (invoice,) = called(sandbox, "get_record", "/invoices/", "SB-202610-00000", {})
    assert isinstance(invoice["lines"][0]["unitPrice"], Decimal | int)


def test_a_list_that_lacks_records_is_not_taken_for_whole() -> None:
    settings = settings_of(SOURCE, CLIENT)
    conversation = SOURCE.list_records("users", {}, settings)
    request = next(conversation)
    assert isinstance(request, Request)
    first = conversation.send(reply_to(request, json.dumps(page(1, [1], 1, 2)).encode()))
    assert isinstance(first, Record)
    with pytest.raises(MalformedReplyError, match="totalNumberOfRecords is 2, 1 different ones came"):
        list(conversation)


@pytest.mark.parametrize("path", ["../users", "https://elsewhere.example/users", "users?x=1", "", "a b"])
def test_a_path_leads_nowhere_else(path: str) -> None:
    with pytest.raises(ConfigurationError, match="field 'resource'"):
        next(SOURCE.get_record(path, "1", {}, settings_of(SOURCE, CLIENT)))


def test_an_id_is_one_part_of_the_path() -> None:
    request = next(SOURCE.get_record("users", "../admin?x", {}, settings_of(SOURCE, CLIENT)))
    assert isinstance(request, Request)
    assert request.path == "/users/..%2Fadmin%3Fx"
