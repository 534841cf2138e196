"""Orange over real HTTP: the sandbox's truth, tokens that end, limits, downloads at once, users and contracts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, cast

import pytest
from importing import connect, stage
from staged import Erp, rows

from airflow_cloudbilling.errors import InDoubtError, MalformedReplyError, RefusedError
from airflow_cloudbilling.found import Item, Record, singly
from airflow_cloudbilling.http.client import Client
from airflow_cloudbilling.model import Document, Finding, Invoice, InvoiceLine, Outside, Period, Portion, Reject
from airflow_cloudbilling.sandbox import Sandbox
from airflow_cloudbilling.sandbox.books import Truth
from airflow_cloudbilling.sandbox.orange import Orange
from airflow_cloudbilling.settings import Settings, settings_from
from airflow_cloudbilling.source import Ask, Conversation
from airflow_cloudbilling.sources.orange import OrangeCloudStore

SOURCE = OrangeCloudStore()
CONN_ID = "orange_cloudstore_default"


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """Serve two months of twelve invoices, dealt out to two contracts."""
    with Sandbox(months=2) as served:
        yield served


def settings_for(sandbox: Sandbox, **changed: Any) -> Settings:
    fields = sandbox.connections()[CONN_ID]
    extra = {**fields["extra"], "max_attempts": 3, **changed.pop("extra", {})}
    return settings_from(SOURCE, CONN_ID, **{**fields, **changed, "extra": extra})


def ask_of(sandbox: Sandbox, kind: str = "purchase", **more: Any) -> Ask:
    return Ask(**{"kind": kind, "period": Period.parse(sandbox.months[-1]), **more})


def held(settings: Settings, *conversations: Callable[[Settings], Conversation]) -> list[Item]:
    """Hold conversations with one client and return what they yield."""
    with Client(SOURCE, settings, draw=lambda: 0.0) as client:
        return [item for hold in conversations for item in singly(client.stream(hold(settings)))]


def imported(sandbox: Sandbox, settings: Settings | None = None, **ask: Any) -> list[Item]:
    """Return what every slice yields, as the operator would ask for it."""
    settings = settings or settings_for(sandbox)
    wanted = ask_of(sandbox, **ask)
    portions = [item for item in held(settings, lambda s: SOURCE.slices(wanted, s)) if isinstance(item, Portion)]
    asks = [ask_of(sandbox, **{**ask, "kind": p.kind}, account=p.account) for p in portions]
    return held(settings, *(lambda s, one=one: SOURCE.invoices(one, s) for one in asks))


def sums(items: list[Item]) -> dict[str, Truth]:
    """Return counts and sums by currency, as the sandbox states its truth; credit notes negated."""
    found: dict[str, Truth] = {}
    lines: list[InvoiceLine] = []
    for item in items:
        if isinstance(item, InvoiceLine):
            lines.append(item)
        elif isinstance(item, Invoice):
            totals = found.get(str(item.currency), Truth())
            found[str(item.currency)] = _added(totals, item, lines)
            lines = []
    assert not lines
    return dict(sorted(found.items()))


def amounts(invoice: Invoice) -> tuple[str | None, ...]:
    return invoice.net_amount, invoice.tax_amount, invoice.gross_amount


def _added(totals: Truth, invoice: Invoice, lines: list[InvoiceLine]) -> Truth:
    def total(name: str, sign: int = invoice.sign) -> Decimal:
        return sign * sum((Decimal(getattr(line, name) or 0) for line in lines), Decimal(0))

    stated = [invoice.sign * Decimal(amount or 0) for amount in amounts(invoice)]
    added = (1, len(lines), *stated, total("quantity"), total("unit_price", 1), total("discount"), total("net_amount"))
    return Truth._make(a + b for a, b in zip(totals, (*added, total("tax_amount")), strict=True))


def counted(sandbox: Sandbox, part: str) -> int:
    return sum(part in seen.path for seen in sandbox.requests)


def vendor(sandbox: Sandbox) -> Orange:
    return cast("Orange", sandbox.vendors["orange_cloudstore"])


@pytest.mark.parametrize("kind", ["purchase", "usage"])
def test_all_contracts_together_are_the_vendors_truth(sandbox: Sandbox, kind: str) -> None:
    items = imported(sandbox, kind=kind)
    assert sums(items) == sandbox.truth("orange_cloudstore", kind, sandbox.months[-1])
    documents = [item for item in items if isinstance(item, Document)]
    assert len(documents) == len({item.sha256 for item in documents}) == 12
    assert sum(isinstance(item, Outside) for item in items) == 12  # the month before
    assert not any(isinstance(item, Reject | Finding) for item in items)
    forms = {item.content_type for item in documents}
    expected = {"application/xml", "application/pdf", "application/zip"}
    assert forms == (expected if kind == "purchase" else {"text/csv", "application/zip"})


def test_both_worlds_find_the_same(sandbox: Sandbox) -> None:
    settings = settings_for(sandbox, extra={"contract_id": "OCB0001234"})
    ask = ask_of(sandbox)

    async def collect() -> list[Item]:
        async with Client(SOURCE, settings) as client:
            return list(singly([item async for item in client.astream(SOURCE.invoices(ask, settings))]))

    assert asyncio.run(collect()) == held(settings, lambda s: SOURCE.invoices(ask, s))


def test_one_token_serves_every_request_and_the_next_client(sandbox: Sandbox) -> None:
    imported(sandbox)
    imported(sandbox, kind="usage")
    assert counted(sandbox, "/oauth/") == 1


def test_a_token_that_ends_is_renewed_once(sandbox: Sandbox) -> None:
    imported(sandbox)
    vendor(sandbox).expire_tokens()
    assert sums(imported(sandbox)) == sandbox.truth("orange_cloudstore", "purchase", sandbox.months[-1])
    assert counted(sandbox, "/oauth/") == 2


def test_the_token_endpoints_limit_is_obeyed(sandbox: Sandbox) -> None:
    sandbox.inject("status", match="/oauth/", status=429, headers={"Retry-After": "1"})
    began = time.monotonic()
    imported(sandbox)
    assert time.monotonic() - began >= 1
    assert counted(sandbox, "/oauth/") == 2


def test_a_token_endpoint_that_stumbles_is_asked_again(sandbox: Sandbox) -> None:
    sandbox.inject("status", match="/oauth/", status=500)
    assert len(imported(sandbox)) > 100
    assert counted(sandbox, "/oauth/") == 2


@pytest.mark.parametrize(
    ("changed", "words", "requests"),
    [
        ({"password": "wrong"}, r"client ID \(login\), client secret \(password\) and auth_url.*invalid_client", 1),
        ({"extra": {"api_key": "wrong-key"}}, "code 51: the requester is forbidden: compare the X-API-Key", 2),
        ({"extra": {"contract_id": "OCB9999999"}}, "code 60: it was not found: compare the contract", 2),
        ({"extra": {"base_path": "/cloud/b2b/v1/old"}}, "code 60: it was not found.*base_path", 2),
    ],
)
def test_what_cannot_go_well_fails_at_once(sandbox: Sandbox, changed: Any, words: str, requests: int) -> None:
    settings = settings_for(sandbox, **changed)
    with pytest.raises(RefusedError, match=words) as refused:
        held(settings, lambda s: SOURCE.invoices(ask_of(sandbox, account=s.options["contract_id"] or "OCB1"), s))
    assert len(sandbox.requests) == requests
    assert not any(secret in str(refused.value) for secret in SOURCE.secrets(settings))


def test_files_without_amounts_are_kept_and_found() -> None:
    with Sandbox(months=1, invoices=4, unreadable_files=2) as sandbox:
        items = imported(sandbox)
        unknown = [item for item in items if isinstance(item, Invoice) and item.totals_origin == "none"]
        assert len(unknown) == 4
        assert all({*amounts(invoice), invoice.currency} == {None} for invoice in unknown)
        assert {item.invoice_id for item in items if isinstance(item, Finding)} == {one.invoice_id for one in unknown}
        sizes = {item.document_id: item.size for item in items if isinstance(item, Document)}
        assert all(sizes[one.invoice_id] > 1000 for one in unknown)


def test_what_has_no_amounts_is_staged_with_nulls_and_a_finding(erp: Erp, monkeypatch: pytest.MonkeyPatch) -> None:
    with Sandbox(months=1, invoices=2, contracts=1, unreadable_files=1) as sandbox:
        connect(sandbox, monkeypatch, conn_id=CONN_ID)
        result = stage(sandbox.months[-1], conn_id=CONN_ID)
        assert (result["invoices"], result["documents"]) == (3, 3)
        truth = sandbox.truth("orange_cloudstore", "purchase", sandbox.months[-1])
        assert {c: Decimal(t["gross"]) for c, t in result["totals"].items()} == {c: t.gross for c, t in truth.items()}
    ((number, currency, *unknown, document_id),) = rows(
        erp,
        "invoice",
        "invoice_number, currency, net_amount, tax_amount, gross_amount, invoice_id",
        "totals_origin = 'none'",
    )
    assert number.startswith("SCAN_")
    assert {currency, *unknown} == {None}
    assert rows(erp, "finding", "rule, severity, invoice_id") == [("unreadable-amounts", "warning", document_id)]


def test_an_unknown_type_is_no_empty_month(sandbox: Sandbox) -> None:
    with pytest.raises(MalformedReplyError, match="Orange knows no documents of the type 'toto'"):
        imported(sandbox, document_types=("toto",))


def test_types_of_both_kinds_are_two_slices(sandbox: Sandbox) -> None:
    items = imported(sandbox, document_types=("invoices", "partialConsumptionRatedReports", "bills"))
    types = [item.document_type for item in items if isinstance(item, Document)]
    assert {name: types.count(name) for name in types} == {
        "invoices": 12,
        "bills": 2,
        "partialConsumptionRatedReports": 2,
    }


def test_a_cut_file_is_asked_for_again(sandbox: Sandbox) -> None:
    sandbox.inject("cut", match="/file", times=2)
    assert sums(imported(sandbox)) == sandbox.truth("orange_cloudstore", "purchase", sandbox.months[-1])
    assert counted(sandbox, "/file") == 14


def test_many_files_come_at_once() -> None:
    def seconds(connections: int) -> float:
        with Sandbox(months=1, invoices=24, contracts=1, file_kb=100) as sandbox:
            sandbox.inject("delay", match="/file", seconds=0.1, times=None)
            settings = settings_for(sandbox, extra={"max_connections": connections})
            began = time.monotonic()
            assert sum(isinstance(item, Invoice) for item in imported(sandbox, settings)) == 24
            return time.monotonic() - began

    assert seconds(8) < seconds(1) / 2


# The other endpoints


def test_users_and_contracts_are_created_once(sandbox: Sandbox) -> None:
    settings = settings_for(sandbox)
    contract = {"billingAccountId": "B1", "offerCode": "HONEY", "contractName": "New"}
    (made,) = held(settings, lambda s: SOURCE.create_record("contract", contract, s))
    assert isinstance(made, Record)
    user = {"contract_id": made.value["id"], "lastName": "Doe", "firstName": "J", "email": "j@x.test", "login": "j.d"}
    (added,) = held(settings, lambda s: SOURCE.create_record("user", user, s))
    assert isinstance(added, Record)
    assert vendor(sandbox).users == [added.value]
    ids = [item.value["id"] for item in held(settings, lambda s: SOURCE.list_records("contracts", {}, s))]
    assert ids == ["OCB0001234", "OCB0001235", made.value["id"]]
    (same,) = held(settings, lambda s: SOURCE.get_record("contract", made.value["id"], {}, s))
    assert same == made


def test_the_other_path_is_named_not_tried(sandbox: Sandbox) -> None:
    vendor(sandbox).path_style = "plural"
    with pytest.raises(RefusedError, match="contract_path_style"):
        held(settings_for(sandbox), lambda s: SOURCE.create_record("contract", {"offerCode": "HONEY"}, s))
    assert counted(sandbox, "/v1/contract") == 1


@pytest.mark.parametrize("fault", [{"fault": "status", "status": 500}, {"fault": "reset"}])
def test_a_creation_in_doubt_is_not_repeated(sandbox: Sandbox, fault: dict[str, Any]) -> None:
    sandbox.inject(**fault, method="POST", match="/v1/contract")
    with pytest.raises(InDoubtError):
        held(settings_for(sandbox), lambda s: SOURCE.create_record("contract", {"offerCode": "HONEY"}, s))
    assert counted(sandbox, "/v1/contract") == 1


def test_the_hook_has_a_method_for_each(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_cloudbilling.hooks.orange import OrangeCloudStoreHook

    for name, value in sandbox.environment().items():
        monkeypatch.setenv(name, value)
    hook = OrangeCloudStoreHook()
    assert [each["id"] for each in hook.contracts()] == ["OCB0001234", "OCB0001235"]
    assert hook.contract("OCB0001235")["platformId"] == "OCB0001235"
    documents = list(hook.documents("OCB0001234", params={"limit": "3"}))
    assert len(documents) == 3
    with hook.download_document(documents[0]["id"], "OCB0001234").body as body:
        assert body.read(5) == b"<?xml"
    new = hook.create_contract({"billingAccountId": "B1", "offerCode": "HONEY", "contractName": "New"})
    user = {"lastName": "Doe", "firstName": "J", "email": "j@x.test", "login": "j.d"}
    assert hook.add_user(new["id"], user)["contractId"] == new["id"]
    assert hook.test_connection()[0]
