"""The sandbox serves what it says it serves: known sums in both formats, the vendor's refusals, faults on the wire."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from airflow_cloudbilling.sandbox import Sandbox
from airflow_cloudbilling.sandbox.faults import parse
from airflow_cloudbilling.sources import SOURCES

KINDS = {"purchase": "invoices", "sales": "customerinvoices", "consolidated": "consolidatedinvoices"}
JSON = {"Accept": "application/json"}
MONTH = date(2026, 10, 1)
WINDOW = "?startDate=20261001&endDate=20261031"
INVOICES = f"/v2/invoices{WINDOW}"


class Got(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body, parse_float=Decimal)


@pytest.fixture(scope="module")
def rich() -> Iterator[Sandbox]:
    """Return a sandbox that nobody changes, with enough invoices to have everything once."""
    with Sandbox(months=2, invoices=30, last_month=MONTH) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(months=2, last_month=MONTH) as one:
        yield one


def address(sandbox: Sandbox) -> tuple[str, int]:
    return sandbox.host, int(sandbox.url.rpartition(":")[2])


def basic(sandbox: Sandbox, key: str | None = None) -> dict[str, str]:
    connection = sandbox.connections()["twotcloud_default"]
    pair = f"{connection['login']}:{key or connection['password']}"
    return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


def get(sandbox: Sandbox, path: str, headers: dict[str, str] | None = None, **more: Any) -> Got:
    headers = basic(sandbox) | (JSON if headers is None else headers)
    return send(sandbox, "GET", path, headers=headers, **more)


def send(
    sandbox: Sandbox, method: str, path: str, *, headers: Any = (), body: Any = None, source: str = "127.0.0.1"
) -> Got:
    connection = http.client.HTTPConnection(*address(sandbox), timeout=5, source_address=(source, 0))
    try:
        connection.request(method, path, body=None if body is None else json.dumps(body), headers=dict(headers))
        reply = connection.getresponse()
        return Got(reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read())
    finally:
        connection.close()


def on_the_wire(sandbox: Sandbox, path: str = INVOICES) -> bytes:
    """Return all bytes of an answer until the end of the connection; a reset raises."""
    headers = {"Host": "sandbox", **basic(sandbox), **JSON, "Connection": "close"}
    lines = (f"{name}: {value}" for name, value in headers.items())
    with socket.create_connection(address(sandbox), timeout=5) as connection:
        connection.sendall("\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode())
        return b"".join(iter(lambda: connection.recv(65536), b""))


def lines_of(invoice: Any) -> Iterator[Any]:
    for customer in invoice["Customers"]:
        for subscription in customer["Subscriptions"]:
            yield from subscription["PriceLines"]


def from_xml(element: ET.Element) -> Any:
    """Return an element as JSON would have it, all values as text; a container ``Xs`` of ``X`` is a list."""
    if element.tag in ("Customers", "Subscriptions", "PriceLines", "SubscriptionDetails"):
        return [from_xml(child) for child in element]
    return {child.tag: from_xml(child) for child in element} if len(element) else element.text


def plain(value: Any) -> Any:
    """Return a record of either format in one spelling: text, numbers without exponent, nothing empty."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items() if item not in (None, "")}
    if isinstance(value, list):
        return [plain(item) for item in value]
    try:
        return Decimal(value).normalize()
    except ArithmeticError:
        return value


# --- the data set ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accept", ["application/json", "text/xml"])
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(accept: str) -> None:
    bodies = []
    for seed in (7, 7, 8):
        with Sandbox(seed=seed, months=1, last_month=MONTH) as sandbox:
            bodies.append(get(sandbox, INVOICES, {"Accept": accept}).body)
    assert bodies[0] == bodies[1] != bodies[2]


@pytest.mark.parametrize("kind", KINDS)
def test_json_holds_the_truth(rich: Sandbox, kind: str) -> None:
    invoices = get(rich, f"/v2/{KINDS[kind]}{WINDOW}").json["Invoices"]
    truth = {record.invoice_id: record for record in rich.records("twotcloud", kind, "2026-10")}
    assert [invoice["Header"]["InvoiceID"] for invoice in invoices] == list(truth)
    for invoice in invoices:
        expected = truth[invoice["Header"]["InvoiceID"]]
        lines = list(lines_of(invoice))
        assert len(lines) == expected.line_count
        for line, true in zip(lines, expected.lines(), strict=True):
            assert true.quantity == expected.sign * line["Quantity"]
            assert true.unit_price == line["UnitPrice"]
            assert true.discount == expected.sign * line["Discount"]
            assert true.net_amount == expected.sign * line["ExtendedPrice"]
            assert true.tax_amount == (None if line["VAT"] is None else expected.sign * line["VAT"])
            assert (true.line_id, true.match_key) == (str(line["LineId"]), line["InvoiceRowHash"])
        assert expected.net_amount == expected.sign * sum(line["ExtendedPrice"] for line in lines)
        assert expected.tax_amount == expected.sign * sum(line["VAT"] or 0 for line in lines)
        if stated := invoice.get("Totals"):
            assert expected.sign * stated["TotalInclVAT"] == expected.gross_amount
        assert expected.gross_amount <= 0 or expected.document_type == "invoice"


@pytest.mark.parametrize("kind", KINDS)
def test_xml_says_the_same_as_json(rich: Sandbox, kind: str) -> None:
    path = f"/v2/{KINDS[kind]}{WINDOW}"
    root = ET.fromstring(get(rich, path, {}).body)
    assert root.tag == "InvoiceResponse"
    assert [child.tag for child in root[0]][:4] == ["Header", "Sender", "Receiver", "Customers"]
    from_json = get(rich, path).json["Invoices"]
    for element, invoice in zip(root, from_json, strict=True):
        given, wanted = plain(from_xml(element)), plain(invoice)
        assert given["Customers"] == wanted["Customers"]
        assert given.get("Totals") == wanted.get("Totals")
        assert given["Receiver"]["Street"] == wanted["Receiver"]["Address"]
        assert given["Sender"]["PostalCode"] == wanted["Sender"]["Zip"]
        assert given["Receiver"]["Country"] == wanted["Receiver"]["Country"]
        assert "CountryCode" not in given["Receiver"]
        common = given["Header"].keys() & wanted["Header"].keys()
        assert {name: given["Header"][name] for name in common} == {name: wanted["Header"][name] for name in common}
        assert common == wanted["Header"].keys() - {"Description"}


def test_json_keys_come_in_alphabetical_order(rich: Sandbox) -> None:
    invoice = get(rich, INVOICES).json["Invoices"][0]
    assert list(invoice) == ["Customers", "Header", "Receiver", "Sender", "Totals"]
    subscription = invoice["Customers"][0]["Subscriptions"][0]
    assert list(subscription).index("PriceLines") < list(subscription).index("SubscriptionID")


def test_the_data_set_has_what_is_difficult(rich: Sandbox) -> None:
    body = get(rich, INVOICES).body
    invoices = json.loads(body, parse_float=Decimal)["Invoices"]
    records = list(rich.records("twotcloud", "purchase", "2026-10"))
    lines = [line for invoice in invoices for line in lines_of(invoice)]
    assert {record.currency for record in records} == {"EUR", "USD", "GBP", "JPY", "KWD"}
    assert {record.sign for record in records if record.document_type == "credit_note"} == {1, -1}
    assert any(record.document_type == "credit_note" and record.totals_origin == "computed" for record in records)
    assert {"Totals" in invoice for invoice in invoices} == {True, False}
    assert any(line["UnitPrice"] == Decimal("0.000001") for line in lines)
    assert any(line["ExtendedPrice"] == 0 for line in lines)
    assert any(line["ExtendedPrice"] < 0 for line in lines)
    assert any(line["VAT"] is None for line in lines)
    assert b'"UnitPrice":1e-06' in body
    assert b'"UnitPrice":0.0000' in get(rich, f"/v2/customerinvoices{WINDOW}").body
    assert "🚀".encode() in body
    assert b"\\ud83d\\ude80" in body
    assert {record.issue_date.day for record in records} >= {1, 31}


def test_a_charge_has_one_key_on_both_sides_and_costs_more_when_sold(rich: Sandbox) -> None:
    bought, sold = (
        {
            line["InvoiceRowHash"]: line
            for invoice in get(rich, f"/v2/{path}{WINDOW}").json["Invoices"]
            for line in lines_of(invoice)
        }
        for path in ("invoices", "customerinvoices")
    )
    assert sold.keys() < bought.keys()
    assert all(line["UnitPrice"] == bought[key]["UnitPrice"] * Decimal("1.18") for key, line in sold.items())


def test_v1_lacks_what_came_with_v2(sandbox: Sandbox) -> None:
    line = next(lines_of(get(sandbox, f"/v1/invoices{WINDOW}").json["Invoices"][0]))
    assert not line.keys() & {"InvoiceRowHash", "ChargeType", "BillingFrequency"}


@pytest.mark.parametrize("accept", ["application/json", "text/xml"])
def test_a_huge_invoice_is_streamed_and_its_sums_are_known(accept: str) -> None:
    with Sandbox(months=1, invoices=2, last_month=MONTH, huge_invoice_mb=3) as sandbox:
        reply = get(sandbox, INVOICES, {"Accept": accept})
        truth = next(sandbox.records("twotcloud", "purchase", "2026-10"))
        assert reply.headers["transfer-encoding"] == "chunked"
        assert 2_500_000 < len(reply.body) < 5_000_000
        invoice = from_xml(ET.fromstring(reply.body)[0]) if accept == "text/xml" else reply.json["Invoices"][0]
        lines = list(lines_of(invoice))
        assert truth.line_count == len(lines) == len({line["InvoiceRowHash"] for line in lines})
        assert sum(Decimal(line["ExtendedPrice"]) for line in lines) == truth.net_amount
        assert Decimal(invoice["Totals"]["TotalInclVAT"]) == truth.gross_amount
        assert [true.match_key for true in truth.lines()] == [line["InvoiceRowHash"] for line in lines]


# --- what the vendor enforces -----------------------------------------------------------------------------------------


def test_only_the_billing_key_of_the_account_opens_the_billing_api(sandbox: Sandbox) -> None:
    connection = sandbox.connections()["twotcloud_default"]
    wrong = base64.b64encode(f"999:{connection['password']}".encode()).decode()
    refused = [
        {},
        {"Authorization": f"Basic {wrong}"},
        {"Authorization": "Basic not base64"},
        {"Authorization": f"Bearer {connection['password']}"},
        basic(sandbox, "guessed"),
        basic(sandbox, connection["extra"]["customers_api_key"]),
        basic(sandbox, connection["extra"]["cloudstore_api_key"]),
        basic(sandbox, sandbox.vendors["twotcloud"].keys["revoked"]),
    ]
    assert {send(sandbox, "GET", INVOICES, headers=headers).status for headers in refused} == {403}
    assert get(sandbox, INVOICES).status == 200


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux answers on all of 127.0.0.0/8 by itself")
def test_only_the_registered_ip_address_may_call(sandbox: Sandbox) -> None:
    assert get(sandbox, INVOICES, source="127.0.0.2").status == 403
    assert get(sandbox, INVOICES, source="127.0.0.1").status == 200


def test_versions_of_one_api_do_not_mix_but_differ_between_apis(sandbox: Sandbox) -> None:
    customers = basic(sandbox, sandbox.connections()["twotcloud_default"]["extra"]["customers_api_key"])
    assert get(sandbox, f"/V2/invoices{WINDOW}").status == 200
    mixed = get(sandbox, f"/v1/customerinvoices{WINDOW}")
    assert (mixed.status, b"Mixing versions" in mixed.body) == (400, True)
    assert send(sandbox, "GET", "/v1/customers", headers=customers).status == 200
    assert get(sandbox, f"/v9/invoices{WINDOW}").status == 404
    with Sandbox(months=1, last_month=MONTH, strict_versions=False) as lax:
        assert [get(lax, f"/{version}/invoices{WINDOW}").status for version in ("v1", "v2")] == [200, 200]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v2/invoices", 405),
        ("HEAD", "/v2/invoices", 405),
        ("GET", "/v2/nothing", 404),
        ("GET", "/elsewhere", 404),
        ("GET", "/v2/invoices?startDate=2026-10-01", 400),
        ("GET", "/v2/invoices?startDate=20261301", 400),
        ("GET", "/v2/invoices?startDate=20261031&endDate=20261001", 400),
    ],
)
def test_what_the_vendor_does_not_know_is_refused_in_words(
    sandbox: Sandbox, method: str, path: str, status: int
) -> None:
    assert send(sandbox, method, path, headers=basic(sandbox)).status == status


def test_xml_is_the_default_and_json_is_for_who_accepts_it(sandbox: Sandbox) -> None:
    assert get(sandbox, INVOICES, {}).headers["content-type"].startswith("application/xml")
    assert get(sandbox, INVOICES, {"Accept": "application/json"}).headers["content-type"].startswith("application/json")


def test_both_ends_of_the_window_are_included(sandbox: Sandbox) -> None:
    for day in ("20261001", "20261031"):
        invoices = get(sandbox, f"/v2/invoices?startDate={day}&endDate={day}").json["Invoices"]
        assert {invoice["Header"]["Date"].replace("-", "") for invoice in invoices} == {day}


def test_without_dates_the_last_three_months_are_returned() -> None:
    with Sandbox(months=5, last_month=MONTH) as sandbox:
        invoices = get(sandbox, "/v2/invoices").json["Invoices"]
        assert {invoice["Header"]["Date"][:7] for invoice in invoices} == {"2026-08", "2026-09", "2026-10"}


@pytest.mark.parametrize(
    ("shape", "as_json", "as_xml"),
    [
        ("list", b'{"Invoices":[]}', b"</InvoiceResponse>"),
        ("null", b'{"Invoices":null}', b"<InvoiceResponse />"),
        ("no_content", b"", b""),
    ],
)
def test_an_empty_month_has_every_shape(shape: str, as_json: bytes, as_xml: bytes) -> None:
    with Sandbox(months=1, last_month=MONTH, empty_shape=shape) as sandbox:
        path = "/v2/invoices?startDate=20200101&endDate=20200131"
        assert get(sandbox, path).body == as_json
        assert get(sandbox, path, {}).body.endswith(as_xml)
        assert get(sandbox, path).status == (204 if shape == "no_content" else 200)


def test_customers_come_in_both_formats(sandbox: Sandbox) -> None:
    key = basic(sandbox, sandbox.connections()["twotcloud_default"]["extra"]["customers_api_key"])
    customers = send(sandbox, "GET", "/v2/customers", headers=key | JSON).json["Customers"]
    root = ET.fromstring(send(sandbox, "GET", "/v2/customers", headers=key).body)
    assert {customer["AccountStatus"] for customer in customers} == {"Active", "Inactive"}
    assert [plain(from_xml(element)) for element in root] == plain(customers)


# --- changes at the vendor --------------------------------------------------------------------------------------------


def test_the_truth_follows_changes(sandbox: Sandbox) -> None:
    before = sandbox.truth("twotcloud", "purchase", "2026-10")
    sandbox.change("amount", invoice_id="CI-202610-00000")
    sandbox.change("withdraw", invoice_id="CI-202610-00001")
    assert sandbox.change("add", kind="purchase", month="2026-10") == "CI-202610-00012"
    after = sandbox.truth("twotcloud", "purchase", "2026-10")
    invoices = {one["Header"]["InvoiceID"]: one for one in get(sandbox, INVOICES).json["Invoices"]}
    assert "CI-202610-00001" not in invoices
    assert "CI-202610-00012" in invoices
    assert after != before
    assert sum(one.invoices for one in after.values()) == len(invoices) == 12
    assert sandbox.truth("twotcloud", "sales", "2026-10").keys() == before.keys()
    with pytest.raises(ValueError, match="CI-202610-00001"):
        sandbox.change("amount", invoice_id="CI-202610-00001")


def test_some_changes_change_nothing_that_counts(sandbox: Sandbox) -> None:
    before = sandbox.truth("twotcloud", "purchase", "2026-10")
    plainly = get(sandbox, INVOICES)
    sandbox.change("touch_unknown_field", invoice_id="CI-202610-00000")
    sandbox.change("reorder", invoice_id="CI-202610-00002")
    changed = get(sandbox, INVOICES)
    assert sandbox.truth("twotcloud", "purchase", "2026-10") == before
    assert changed.body != plainly.body
    first, third = changed.json["Invoices"][0], changed.json["Invoices"][2]
    assert first["Header"].pop("SandboxRevision") == 1
    assert list(third).index("Header") < list(third).index("Customers")
    assert [first, third] == [plainly.json["Invoices"][0], plainly.json["Invoices"][2]]
    assert ET.fromstring(get(sandbox, INVOICES, {}).body)[2][0].tag != "Header"


# --- faults -----------------------------------------------------------------------------------------------------------


def test_a_status_comes_as_often_as_told_with_its_headers(sandbox: Sandbox) -> None:
    sandbox.inject("status", status=429, times=2, after=1, headers={"Retry-After": "7"}, body="slow down")
    replies = [get(sandbox, INVOICES) for _ in range(4)]
    assert [reply.status for reply in replies] == [200, 429, 429, 200]
    assert (replies[1].headers["retry-after"], replies[1].body) == ("7", b"slow down")


def test_faults_meet_only_what_they_match(sandbox: Sandbox) -> None:
    sandbox.inject("status", match="customerinvoices", times=None)
    assert get(sandbox, INVOICES).status == 200
    assert [get(sandbox, f"/v2/customerinvoices{WINDOW}").status for _ in range(2)] == [503, 503]
    sandbox.clear_faults()
    assert get(sandbox, f"/v2/customerinvoices{WINDOW}").status == 200


def test_probability_is_of_the_seed(sandbox: Sandbox) -> None:
    sandbox.inject("status", probability=0.5, times=None)
    statuses = [get(sandbox, "/elsewhere").status for _ in range(30)]
    assert set(statuses) == {404, 503}


def test_replaced_bodies(sandbox: Sandbox) -> None:
    sandbox.inject("html")
    sandbox.inject("empty")
    sandbox.inject("body", body='{"Invoices":[', content_type="application/json")
    sandbox.inject("redirect", url="http://127.0.0.2:1/elsewhere", status=307)
    web_page, empty, body, redirect = (get(sandbox, INVOICES) for _ in range(4))
    assert (web_page.status, web_page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert (empty.status, empty.body, empty.headers["content-length"]) == (200, b"", "0")
    assert body.body == b'{"Invoices":['
    assert (redirect.status, redirect.headers["location"]) == (307, "http://127.0.0.2:1/elsewhere")


@pytest.mark.parametrize("at", [0, 10, 5000])
def test_a_reset_ends_the_connection_after_so_many_bytes(sandbox: Sandbox, at: int) -> None:
    sandbox.inject("reset", at=at)
    with pytest.raises(ConnectionResetError):
        on_the_wire(sandbox)
    assert on_the_wire(sandbox).startswith(b"HTTP/1.1 200 OK")


def test_cut_bodies_on_the_wire(sandbox: Sandbox) -> None:
    for how in ("length", "clean", "chunked"):
        sandbox.inject("cut", at=1000, how=how)
    longer, clean, chunked = (on_the_wire(sandbox).split(b"\r\n\r\n", 1) for _ in range(3))
    assert len(longer[1]) == len(clean[1]) == 1000
    assert b"Content-Length: 1000" not in longer[0]
    assert b"Content-Length: 1000" in clean[0]
    assert chunked[1].startswith(b"3e8\r\n")
    assert not chunked[1].endswith(b"0\r\n\r\n")


def test_a_drip_is_slow_and_a_delay_is_late(sandbox: Sandbox) -> None:
    sandbox.serve("/slow", "x" * 20)
    sandbox.inject("drip", rate=100)
    sandbox.inject("drip", rate=400, how="head")
    sandbox.inject("delay", seconds=0.2)
    for _ in range(3):
        start = time.monotonic()
        assert on_the_wire(sandbox, "/slow").endswith(b"x" * 20)
        assert time.monotonic() - start >= 0.18


def test_leaving_ends_what_still_drips() -> None:
    with Sandbox(months=1, last_month=MONTH) as sandbox:
        sandbox.inject("drip", rate=0.1, how="head")
        connection = socket.create_connection(address(sandbox), timeout=5)
        connection.sendall(b"GET /v2/invoices HTTP/1.1\r\nHost: sandbox\r\n\r\n")
        while not sandbox.faults.state()[0]["fired"]:
            time.sleep(0.01)
        start = time.monotonic()
    assert time.monotonic() - start < 1
    assert connection.recv(1) == b""
    connection.close()


@pytest.mark.parametrize(
    "spec",
    [
        "status:status=418,times=3",
        '{"fault": "status", "status": 418, "times": 3}',
        '[{"fault":"status","status":418,"times":3}]',
    ],
)
def test_faults_are_read_from_text(spec: str, tmp_path: Path) -> None:
    (fault,) = parse(spec)
    assert (fault.fault, fault.status, fault.times) == ("status", 418, 3)
    (tmp_path / "faults.json").write_text(json.dumps({"fault": "html"}))
    assert parse(f"@{tmp_path / 'faults.json'}")[0].fault == "html"


@pytest.mark.parametrize("spec", ["nonsense", "status:unknown=1", "[1]", "redirect", "drip:rate=0"])
def test_a_fault_that_makes_no_sense_is_an_error(spec: str) -> None:
    with pytest.raises(ValueError, match="fault"):
        parse(spec)


# --- control, fixture, command line -----------------------------------------------------------------------------------


def test_the_control_endpoints(sandbox: Sandbox) -> None:
    assert send(sandbox, "POST", "/_sandbox/faults", body=[{"fault": "status", "status": 500}]).status == 200
    assert get(sandbox, INVOICES).status == 500
    assert [rule["fired"] for rule in send(sandbox, "GET", "/_sandbox/faults").json] == [1]
    assert send(sandbox, "DELETE", "/_sandbox/faults").status == 200
    assert send(sandbox, "GET", "/_sandbox/faults").json == []
    change = {"change": "withdraw", "invoice_id": "CI-202610-00003"}
    assert send(sandbox, "POST", "/_sandbox/change", body=change).json == {"invoice_id": "CI-202610-00003"}
    (row,) = send(sandbox, "GET", "/_sandbox/truth?vendor=twotcloud&kind=purchase&month=2026-10").json
    assert row["invoices"] == 11
    assert row["totals"]["EUR"]["net"] == f"{sandbox.truth('twotcloud', 'purchase', '2026-10')['EUR'].net:f}"
    assert [seen["status"] for seen in send(sandbox, "GET", "/_sandbox/requests").json] == [500]
    assert send(sandbox, "POST", "/_sandbox/change", body=change).status == 400
    assert send(sandbox, "POST", "/_sandbox/faults", body=[{"fault": "nonsense"}]).status == 400
    assert send(sandbox, "GET", "/_sandbox/nonsense").status == 404


def test_requests_are_kept_without_secrets(sandbox: Sandbox) -> None:
    get(sandbox, INVOICES)
    (seen,) = sandbox.requests
    assert (seen.method, seen.path, seen.status, seen.source) == ("GET", "/v2/invoices", 200, "127.0.0.1")
    assert seen.query == {"startDate": "20261001", "endDate": "20261031"}
    assert seen.headers["authorization"] == "***"


def test_a_connection_is_kept_alive(sandbox: Sandbox) -> None:
    connection = http.client.HTTPConnection(*address(sandbox), timeout=5)
    for _ in range(3):
        connection.request("GET", INVOICES, headers=basic(sandbox))
        connection.getresponse().read()
        used = connection.sock
    assert used is connection.sock is not None
    connection.close()


def test_a_path_may_serve_whatever_a_test_wants(sandbox: Sandbox) -> None:
    sandbox.serve("/v2/invoices", '{"Invoices": null}')
    assert get(sandbox, INVOICES).json == {"Invoices": None}


def test_the_fixture_is_a_sandbox_for_users_tests(cloudbilling_sandbox: Sandbox) -> None:
    month = cloudbilling_sandbox.months[-1]
    assert sum(one.invoices for one in cloudbilling_sandbox.truth("twotcloud", "sales", month).values()) == 12
    names = {f"AIRFLOW_CONN_{conn_type.upper()}_DEFAULT" for conn_type in SOURCES}
    assert set(cloudbilling_sandbox.environment()) == names


def test_hosts_that_others_can_reach_are_refused() -> None:
    for host in ("0.0.0.0", "192.0.2.1", "example.test"):  # noqa: S104 - refused
        with pytest.raises(ValueError, match="not a loopback address"):
            Sandbox(host=host)


def test_tls(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    with Sandbox(months=1, last_month=MONTH, tls=(certificate, key)) as sandbox:
        context = ssl.create_default_context(cafile=certificate)
        connection = http.client.HTTPSConnection(*address(sandbox), timeout=5, context=context)
        connection.request("GET", INVOICES, headers=basic(sandbox))
        assert connection.getresponse().status == 200
        assert sandbox.url.startswith("https://")
        connection.close()


def self_signed(folder: Path) -> tuple[str, str]:
    """Write a certificate for 127.0.0.1 and its key, and return their paths."""
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sandbox")])
    now = datetime.now(tz=timezone.utc)
    host = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1), [])
    certificate = builder.add_extension(host, critical=False).sign(key, hashes.SHA256())
    private = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, *private))
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return str(folder / "cert.pem"), str(folder / "key.pem")


def test_the_command_prints_connections_and_ends_on_sigterm() -> None:
    options = ["--months", "1", "--export", "--last-month", "2026-10"]
    process = python("-m", "airflow_cloudbilling.sandbox", *options)
    assert process.stdout
    printed = []
    for line in process.stdout:
        printed.append(line)
        if line.startswith("# Ready"):
            break
    connections = [line for line in printed if line.startswith("export AIRFLOW_CONN_")]
    assert len(connections) == len(SOURCES)
    (connection,) = (line for line in connections if "TWOTCLOUD" in line)
    shown = subprocess.check_output(["sh", "-c", f"{connection}printenv AIRFLOW_CONN_TWOTCLOUD_DEFAULT"])
    assert json.loads(shown)["conn_type"] == "twotcloud"
    assert any("purchase" in line and "2026-10" in line and "EUR" in line for line in printed)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=5) == 0
    process.stdout.close()


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (["--help"], "/_sandbox/faults", 0),
        (["--host", "0.0.0.0"], "not a loopback address", 2),  # noqa: S104 - refused
        (["--last-month", "2026-13"], "not a month", 2),
        (["--faults", "nonsense"], "is none of status", 2),
        (["--months", "0"], "not within", 2),
        (["--set", "contract=3"], "none of registered_ip, contracts", 2),
        (["--set", "rate_limit=few"], "a value such as 1000", 2),
        (["--set", "cloudonex_style=odd"], "odd", 2),
    ],
)
def test_the_command_says_what_it_takes(
    arguments: list[str], words: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    from airflow_cloudbilling.sandbox.__main__ import main

    with pytest.raises(SystemExit) as end:
        main(arguments)
    out, err = capsys.readouterr()
    assert (end.value.code, words in out + err) == (code, True)


def test_nothing_but_the_standard_library_is_needed() -> None:
    heavy = "{'airflow', 'httpx', 'lxml', 'pytest'} & set(sys.modules)"
    process = python("-c", f"import sys; from airflow_cloudbilling.sandbox import Sandbox; print({heavy})")
    assert process.communicate()[0] == "set()\n"


def python(*arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    return subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True, env=environment)
