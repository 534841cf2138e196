"""What is particular to Orange: tokens and keys, its table of errors, slices, document types, months, paths."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from conversations import LOGIN, PASSWORD, reply_to, settings_of

from airflow_cloudbilling.errors import ConfigurationError, MalformedReplyError, RefusedError
from airflow_cloudbilling.found import Item, Record
from airflow_cloudbilling.model import Document, Finding, Invoice, Notice, Outside, Period, Portion, Reject
from airflow_cloudbilling.settings import Settings
from airflow_cloudbilling.source import Again, Ahead, Ask, Conversation, Ok, Refused, Renew, Reply, Request
from airflow_cloudbilling.sources.orange import OrangeCloudStore

SOURCE = OrangeCloudStore()
KEY = "sekret-api-key-1234"
BASIC = base64.b64encode(f"{LOGIN}:{PASSWORD}".encode()).decode()
OCTOBER = Period.parse("2026-10")
PDF = b"%PDF-1.4 no invoice"
GET = Request("GET", "/cloud/b2b/v1/documents")
TOKEN = Request("POST", "https://api.orange.com/oauth/v3/token", configured=True)


def settings(**extra: Any) -> Settings:
    return settings_of(SOURCE, {"api_key": KEY, **extra})


def asked(conversation: Conversation, *bodies: Any, status: int = 200) -> tuple[list[Request], list[Item | Ahead]]:
    """Hold a conversation; each request is answered with the next body, as JSON unless it is bytes."""
    requests: list[Request] = []
    items: list[Item | Ahead] = []
    answers: Iterator[Any] = iter(bodies)
    reply: Reply | None = None
    while True:
        try:
            step = conversation.send(reply)
        except StopIteration:
            return requests, items
        reply = None
        if isinstance(step, Request):
            requests.append(step)
            body = next(answers)
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            reply = reply_to(step, data, "application/json", status)
        else:
            items.append(step)


def listed(*documents: dict[str, Any], extra: dict[str, Any] | None = None, **ask: Any) -> list[Item]:
    """Return what a list yields; every file is a PDF without an invoice."""
    wanted = Ask(**{"kind": "purchase", "period": OCTOBER, **ask})
    conversation = SOURCE.invoices(wanted, settings(contract_id="OCB1", **(extra or {})))
    return [i for i in asked(conversation, list(documents), *[PDF] * 99)[1] if not isinstance(i, Ahead)]


# Tokens and keys


def test_the_token_is_asked_for_with_basic_and_a_form() -> None:
    request = SOURCE.credential_request(settings())
    assert request == Request(
        "POST",
        "https://api.orange.com/oauth/v3/token",
        headers={"Accept": "application/json", "Authorization": f"Basic {BASIC}"},
        form={"grant_type": "client_credentials"},
        configured=True,
    )
    assert {PASSWORD, KEY, BASIC} <= set(SOURCE.secrets(settings()))


def test_requests_carry_the_token_and_the_api_key() -> None:
    sent = SOURCE.authorise(Request("GET", "/x", headers={"Accept": "a"}), settings(), "token")
    assert sent.headers == {"Accept": "a", "X-API-Key": KEY, "Authorization": "Bearer token"}


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"auth_url": "http://auth.example.com/token"}, "field 'auth_url': http:// would send"),
        ({"auth_url": "https://auth.example.com/token?x=1"}, "field 'auth_url'"),
        ({"api_key": ""}, "field 'api_key': is empty"),
        ({"base_path": "/a/../b"}, "field 'base_path'"),
        ({"contract_id": "no id"}, "field 'contract_id'"),
        ({"key_expires": "soon"}, "field 'key_expires': 'soon' is no day"),
    ],
)
def test_a_wrong_field_is_an_error_before_any_request(extra: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        SOURCE.credential_request(settings(**extra))


@pytest.mark.parametrize("url", ["https://auth.example.com/t", "http://127.0.0.1:8080/t"])
def test_tokens_may_come_from_elsewhere(url: str) -> None:
    request = SOURCE.credential_request(settings(auth_url=url))
    assert request
    assert request.path == url
    insecure = SOURCE.credential_request(settings(auth_url="http://auth.example.com/t", allow_insecure_http=True))
    assert insecure


@pytest.mark.parametrize(
    ("said", "seconds"),
    [({"expires_in": "1800"}, 1800), ({"expires_in": 60}, 60), ({}, 3600), ({"expires_in": ""}, 3600)],
)
def test_the_lifetime_may_be_a_text(said: dict[str, Any], seconds: float) -> None:
    reply = reply_to(TOKEN, json.dumps({"access_token": "t", **said}).encode())
    assert SOURCE.credential(reply, settings()) == ("t", seconds)


def test_an_answer_without_a_token_names_what_came_and_no_value() -> None:
    with pytest.raises(MalformedReplyError, match="came error, refresh_token") as refused:
        SOURCE.credential(reply_to(TOKEN, b'{"error": "x", "refresh_token": "hush-hush"}'), settings())
    assert "hush-hush" not in str(refused.value)


# The table of errors


@pytest.mark.parametrize(
    ("request_", "status", "code", "verdict"),
    [
        (GET, 200, None, Ok), (GET, 206, None, Refused), (GET, 401, 42, Renew), (GET, 410, 42, Renew),
        (GET, 401, 40, Refused), (GET, 401, 41, Refused), (GET, 401, None, Refused), (GET, 403, 53, Again),
        (GET, 403, 51, Refused), (GET, 404, 60, Refused), (GET, 406, 62, Refused), (GET, 400, 25, Refused),
        (GET, 429, 53, Again), (GET, 408, 63, Again), (GET, 500, 1, Again), (GET, 503, 5, Again), (GET, 503, 6, Again),
        (GET, 502, None, Again), (TOKEN, 400, None, Refused), (TOKEN, 401, 42, Refused), (TOKEN, 429, None, Again),
    ],
)  # fmt: skip
def test_the_verdict_is_by_status_and_code(request_: Request, status: int, code: int | None, verdict: type) -> None:
    body = {"code": code, "message": "words", "description": "more"} if code else {"error": "words"}
    reply = reply_to(request_, json.dumps(body).encode(), status=status)
    assert isinstance(SOURCE.verdict(reply, settings()), verdict)


@pytest.mark.parametrize(
    ("request_", "status", "code", "words"),
    [
        (GET, 401, 41, "code 41: the credentials are not valid.*state 'approved'"),
        (GET, 403, 52, "does not see this contract"),
        (Request("POST", "/cloud/b2b/v1/contract/"), 404, 60, "set contract_path_style in extra to the other style"),
        (TOKEN, 401, 41, r"client ID \(login\), client secret \(password\) and auth_url"),
    ],
)
def test_a_refusal_says_what_to_do_and_quotes_no_secret(request_: Request, status: int, code: int, words: str) -> None:
    body = {"code": code, "message": f"words {KEY}", "description": BASIC}
    verdict = SOURCE.verdict(reply_to(request_, json.dumps(body).encode(), status=status), settings())
    assert isinstance(verdict, Refused)
    with pytest.raises(RefusedError, match=words) as refused:
        raise verdict.error
    assert KEY not in str(refused.value)
    assert BASIC not in str(refused.value)


def test_the_verdict_reads_no_more_than_the_beginning() -> None:
    reply = reply_to(GET, b'{"code": 42,' + b" " * 10_000_000, status=401, dribble=False)
    read = reply.body.read
    reply.body.read = lambda size=-1: read(size) if 0 <= size <= 4096 else pytest.fail("the whole body was read")
    assert isinstance(SOURCE.verdict(reply, settings()), Renew)


# Slices


@pytest.mark.parametrize("wrapped", [lambda rows: rows, lambda rows: {"contracts": rows}, lambda rows: {"data": rows}])
def test_every_contract_is_a_slice(wrapped: Any) -> None:
    rows = [{"id": "OCB1"}, {"id": "OCB2"}, {"id": "OCB1"}]
    requests, items = asked(SOURCE.slices(Ask("purchase", OCTOBER), settings()), wrapped(rows))
    assert [r.path for r in requests] == ["/cloud/b2b/v1/contracts"]
    assert items == [Portion("OCB1", "purchase"), Portion("OCB2", "purchase")]


def test_one_contract_needs_no_request() -> None:
    ask = Ask("purchase", OCTOBER, document_types=("bills", "reports"))
    renamed = settings(contract_id="OCB7", account="before")
    requests, items = asked(SOURCE.slices(ask, renamed))
    assert requests == []
    assert items == [Portion("before", "purchase"), Portion("before", "usage")]
    (request,), _ = asked(
        SOURCE.invoices(Ask("purchase", OCTOBER, account="before"), settings(contract_id="OCB7", account="before")), []
    )
    assert request.headers["X-ECCS-Contract-Id"] == "OCB7"


def test_an_account_for_all_contracts_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match=r"field 'account'.*each overwrites the others"):
        asked(SOURCE.slices(Ask("purchase", OCTOBER), settings(account="mine")))


@pytest.mark.parametrize("rows", [[{"name": "no id"}], [{"id": "OCB1\r\nX: y"}], ["OCB1"], None, {"code": 1}])
def test_contracts_that_cannot_be_named_are_an_error(rows: Any) -> None:
    with pytest.raises(MalformedReplyError):
        asked(SOURCE.slices(Ask("purchase", OCTOBER), settings()), rows)


# Documents


@pytest.mark.parametrize(
    ("kind", "given", "sent"),
    [
        ("purchase", (), ["invoices"]),
        ("usage", (), ["comsumptionRatedReports"]),
        ("purchase", ("bills", "reports", "toto"), ["bills", "toto"]),
        ("usage", ("bills", "reports", "consumptionRatedReports"), ["reports", "consumptionRatedReports"]),
    ],
)
def test_types_go_out_as_they_are_written_each_in_its_kind(kind: str, given: tuple[str, ...], sent: list[str]) -> None:
    ask = Ask(kind, OCTOBER, account="OCB1", document_types=given, params={"limit": "9"})
    requests, _ = asked(SOURCE.invoices(ask, settings()), *[[]] * 9)
    assert [r.params for r in requests] == [{"documentType": each, "limit": "9"} for each in sent]
    assert requests[0].headers == {"Accept": "application/json", "X-ECCS-Contract-Id": "OCB1"}


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        ({"kind": "sales"}, "no kind 'sales'"),
        ({"document_types": ("reports",)}, "reports are no documents of the kind 'purchase'"),
        ({"params": {"DocumentType": "x"}}, "use document_types"),
        ({"field_map": {"total": "x"}}, "'total' is no canonical name"),
    ],
)
def test_what_cannot_be_asked_is_an_error(ask: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        listed(**ask)


def test_null_is_no_empty_list() -> None:
    for bad in ({"documents": None}, None, {"code": 1, "message": "x"}):
        with pytest.raises(MalformedReplyError):
            asked(SOURCE.invoices(Ask("purchase", OCTOBER, account="OCB1"), settings()), bad)


def test_a_list_that_is_shorter_than_stated_is_an_error() -> None:
    conversation = SOURCE.invoices(Ask("purchase", OCTOBER, account="OCB1"), settings())
    reply = reply_to(next(conversation), b"[]")
    with pytest.raises(MalformedReplyError, match="Orange states 7 documents and sent 0"):
        conversation.send(replace(reply, headers={"x-total-count": "7"}))


def test_a_list_as_long_as_its_limit_is_said() -> None:
    items = listed({"id": "a", "period": "202609"}, params={"limit": "1"})
    assert [type(item) for item in items] == [Notice, Outside]


@pytest.mark.parametrize(
    ("document", "found"),
    [
        ({"period": "202610"}, Invoice), ({"period": "2026-10"}, Invoice), ({"period": "20261031"}, Invoice),
        ({"period": 202610}, Invoice), ({"period": "202609"}, Outside), ({"period": "202611"}, Outside),
        ({"createdAt": "2026-10-01T00:00:00Z"}, Invoice), ({"createdAt": "2026-09-30T23:00:00Z"}, Outside),
        ({"period": "202613"}, Reject), ({"period": "Oct"}, Reject), ({}, Reject), ({"createdAt": "yesterday"}, Reject),
    ],
)  # fmt: skip
def test_documents_are_of_the_month_they_name(document: dict[str, Any], found: type) -> None:
    closing = [i for i in listed({"id": "d-1", **document}) if isinstance(i, Invoice | Outside | Reject)]
    assert [type(item) for item in closing] == [found]
    assert closing[0].invoice_id == "d-1"


def test_a_period_that_is_no_month_is_said() -> None:
    notices = [
        i for i in listed(period=Period.parse("2026-10-15/2026-11-15"), window_shift_days=3) if isinstance(i, Notice)
    ]
    assert "months that begin within 2026-10-15/2026-11-15" in notices[0].message
    assert "window_shift_days has no effect" in notices[0].message


def test_a_document_that_is_listed_twice_counts_once() -> None:
    document = {"id": "d-1", "period": "202610"}
    assert len([i for i in listed(document, document) if isinstance(i, Invoice)]) == 1


def test_files_are_announced_and_asked_for_one_by_one() -> None:
    ids = ["a", "b/../c", "..", "ö?x=1#y", "n\x00ul", "\ud800"]
    ask = Ask("purchase", OCTOBER, account="OCB1", params={"zipped": "0"})
    rows = [{"id": each, "period": "202610"} for each in ids]
    requests, items = asked(SOURCE.invoices(ask, settings()), rows, *[PDF] * len(ids))
    (ahead,) = (i for i in items if isinstance(i, Ahead))
    assert list(ahead.requests) == requests[1:]
    names = ("a", "b%2F..%2Fc", "%2E%2E", "%C3%B6%3Fx%3D1%23y", "n%00ul", "%ED%A0%80")
    assert [r.path for r in requests[1:]] == [f"/cloud/b2b/v1/documents/{name}/file" for name in names]
    assert requests[0].params == {"documentType": "invoices"}
    assert requests[1].params == {"zipped": "0"}


def test_the_lists_alone_say_whether_there_are_any() -> None:
    rows = [{"id": "x", "period": "202609"}, {"id": "y", "period": "202610", "filename": "y.pdf"}]
    requests, items = asked(SOURCE.ready(Ask("purchase", OCTOBER, account="OCB1"), settings()), rows)
    assert len(requests) == 1
    assert items == [Document("y", "y", "invoices", "y.pdf")]


def test_a_field_map_reads_the_list() -> None:
    row = {"id": "d-1", "period": "202610", "amount": {"total": "12,50"}, "currency": "eur"}
    found = listed(row, field_map={"gross_amount": "amount.total", "currency": "currency"})
    (invoice,) = (i for i in found if isinstance(i, Invoice))
    assert (invoice.gross_amount, invoice.currency, invoice.totals_origin) == ("12.5", "EUR", "stated")
    assert not any(isinstance(i, Finding) for i in found)


@pytest.mark.parametrize(("days", "warned"), [(40, False), (30, True), (0, True), (-3, True)])
def test_the_log_warns_before_the_key_ends(days: int, warned: bool) -> None:
    ends = datetime.now(tz=timezone.utc).date() + timedelta(days=days)
    notices = [i.message for i in listed(extra={"key_expires": str(ends)}) if isinstance(i, Notice)]
    assert [str(ends) in each for each in notices] == [True] * warned


# The other endpoints


@pytest.mark.parametrize(("style", "base"), [("singular", "contract"), ("plural", "contracts")])
def test_users_and_contracts_are_created_on_either_path(style: str, base: str) -> None:
    chosen = settings(contract_path_style=style)
    user = {"contract_id": "OCB1", "lastName": "Doe"}
    (request,), items = asked(SOURCE.create_record("user", user, chosen), {"id": "U1"}, status=201)
    assert (request.method, request.path) == ("POST", f"/cloud/b2b/v1/{base}/OCB1/user")
    assert (request.json, request.headers) == ({"lastName": "Doe"}, {"Accept": "application/json"})
    assert items == [Record({"id": "U1"})]
    (request,), items = asked(SOURCE.create_record("contract", {"offerCode": "HONEY"}, chosen), b"", status=204)
    assert request.path == f"/cloud/b2b/v1/{base}/"
    assert items == [Record({})]


def test_what_was_created_is_no_error_whatever_is_answered() -> None:
    _, items = asked(SOURCE.create_record("contract", {}, settings()), f"<p>ok {KEY}".encode(), status=201)
    assert items == [Record("<p>ok ***")]


def test_records_are_listed_and_fetched() -> None:
    params = {"contract_id": "OCB1", "documentType": "bills"}
    (request,), items = asked(SOURCE.list_records("documents", params, settings()), {"documents": [{"id": 1}]})
    assert (request.params, request.headers["X-ECCS-Contract-Id"]) == ({"documentType": "bills"}, "OCB1")
    assert items == [Record({"id": 1})]
    (request,), items = asked(SOURCE.get_record("contract", "OCB2", {}, settings()), {"id": "OCB2"})
    assert (request.path, request.headers["X-ECCS-Contract-Id"]) == ("/cloud/b2b/v1/contract", "OCB2")
    assert items == [Record({"id": "OCB2"})]
    file = SOURCE.file_request("documents", "d", {"contract_id": "OCB1"}, settings())
    assert (file.path, file.params) == ("/cloud/b2b/v1/documents/d/file", {})


def test_an_unknown_resource_names_the_known_ones() -> None:
    listed, created = SOURCE.list_records("users", {}, settings()), SOURCE.create_record("bill", {}, settings())
    operators = ('ListRecordsOperator(resource="contracts")', 'CreateRecordOperator(resource="user")')
    for call, known in zip((listed, created), operators, strict=True):
        with pytest.raises(ConfigurationError, match=re.escape(known)):
            next(call)
