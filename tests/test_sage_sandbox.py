"""The sandbox's Sage enforces what Sage does, and counts what users' tests have to prove."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from airflow_cloudbilling.sandbox.sage import Sage
from airflow_cloudbilling.sandbox.server import Sandbox

ORDERS = b'[{"id": "CI-1"}, {"id": "CI-2"}]'
TOLD = {"fileName": "o.json", "size": len(ORDERS), "sha256": hashlib.sha256(ORDERS).hexdigest()}


class Got(NamedTuple):
    status: int
    body: Any


class Caller:
    """Calls the sandbox with the key that a test gives."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        found = sandbox.vendors["sage_connected_cloud"]
        assert isinstance(found, Sage)
        self.sage = found

    def __call__(self, method: str, path: str, body: Any = None, key: str | None = "", **headers: str) -> Got:
        """Call a path below ``/sage/api``, or an address; an empty key is the one in force, None is none."""
        parts = urlsplit(path if "://" in path else f"{self.sandbox.url}/sage/api{path}")
        sent = {} if key is None else {"apikey": key or self.sage.key}
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        connection = HTTPConnection(str(parts.hostname), int(parts.port or 0), timeout=5)
        connection.request(method, f"{parts.path}?{parts.query}", data, {**sent, **headers})
        response = connection.getresponse()
        text = response.read()
        connection.close()
        return Got(response.status, json.loads(text) if text else None)

    def upload(self, content: bytes = ORDERS) -> str:
        got = self("POST", "/files/Orders", content)
        assert got.status == 202
        return str(got.body["trackingId"])

    def track(self, tracking_id: str) -> Any:
        return self("GET", f"/files/{tracking_id}/tracking").body

    def rotate(self, **changes: str) -> Got:
        data = {"initialApikey": self.sage.initial_key, "secret": self.sage.secret, **changes}
        return self("PATCH", "/apikey", data, key=None)


@pytest.fixture
def call() -> Iterator[Caller]:
    with Sandbox(months=1, invoices=1) as sandbox:
        yield Caller(sandbox)


def test_an_upload_goes_through_its_states_and_ends_with_a_result_for_each_record(call: Caller) -> None:
    call.sage.statuses = ["validating", "processing", "accepted"]
    call.sage.rejects = {"CI-2"}
    tracking_id = call.upload()
    said = [call.track(tracking_id) for _ in range(4)]
    assert [each["status"] for each in said] == ["validating", "processing", "accepted", "accepted"]
    assert [bool(each["downloadResultUrl"]) for each in said] == [False, False, True, True]
    result = call("GET", said[-1]["downloadResultUrl"], key=None)
    assert [(each["id"], each["status"], bool(each["errors"])) for each in result.body] == [
        ("CI-1", "accepted", False),
        ("CI-2", "rejected", True),
    ]


@pytest.mark.parametrize("content", [b"", b"no json", b"{}", b'[{"name": "no id"}]', b"[1]"])
def test_a_file_that_is_no_list_of_records_fails_validation(content: bytes, call: Caller) -> None:
    tracking_id = call.upload(content)
    said = [call.track(tracking_id) for _ in range(2)]
    assert [each["status"] for each in said] == ["validating", "failed"]
    assert call("GET", said[-1]["downloadResultUrl"], key=None).body["status"] == "failed"


def test_every_content_and_record_is_counted(call: Caller) -> None:
    call.upload()
    call.upload()
    call.upload(b'[{"id": "CI-2"}]')
    assert call.sage.contents[hashlib.sha256(ORDERS).hexdigest()] == 2
    assert call.sage.records == {"CI-1": 2, "CI-2": 3}


def test_a_form_is_taken_by_its_field(call: Caller) -> None:
    def form(field: str) -> bytes:
        head = f'--b\r\nContent-Disposition: form-data; name="{field}"; filename="o.json"\r\n\r\n'
        return head.encode() + ORDERS + b"\r\n--b--\r\n"

    media = {"Content-Type": "multipart/form-data; boundary=b"}
    assert call("POST", "/files/Orders", form("document"), **media).status == 400
    assert call("POST", "/files/Orders", form("file"), **media).status == 202
    assert call.sage.contents == {TOLD["sha256"]: 1}


# The second host


def test_the_host_of_files_takes_the_file_that_was_told_once_it_is_signed(call: Caller) -> None:
    begun = call("POST", "/files/Orders", TOLD).body
    url = begun["uploadUrl"]
    assert urlsplit(url).port != urlsplit(call.sandbox.url).port
    assert call.track(begun["trackingId"])["status"] == "awaiting_upload"
    assert call("PUT", url, b"another", key=None).status == 400
    assert call("PUT", url.replace("sig=", "sig=x"), ORDERS, key=None).status == 403
    assert call("PUT", url, ORDERS, key=None).status == 200
    assert call.sage.contents == {TOLD["sha256"]: 1}
    assert call.track(begun["trackingId"])["status"] == "validating"


@pytest.mark.parametrize("header", ["apikey", "Authorization", "X-API-Key", "Cookie"])
def test_the_host_of_files_refuses_credentials(header: str, call: Caller) -> None:
    url = call("POST", "/files/Orders", TOLD).body["uploadUrl"]
    assert call("PUT", url, ORDERS, key=None, **{header: "x"}).status == 400
    assert (call.sage.leaks, call.sage.contents.total()) == (1, 0)


# Keys


@pytest.mark.parametrize("path", ["/files/Orders", "/files/x/tracking"])
@pytest.mark.parametrize("key", [None, "wrong"])
def test_without_the_key_everything_is_refused(path: str, key: str | None, call: Caller) -> None:
    assert call("GET", path, key=key).status == 401


def test_a_key_expires_on_demand_or_after_so_many_requests_and_every_rotation_ends_the_one_before(
    call: Caller,
) -> None:
    before = call.sage.key
    call.sage.expire_key()
    assert call("GET", "/files/Products", key=before).status == 401
    assert call.rotate().body["apikey"] == call.sage.key
    call.sage.key_uses = 2
    assert [call("GET", "/files/Products", key=call.sage.key or "gone").status for _ in range(3)] == [200, 200, 401]
    assert call.rotate().status == 200
    assert call.sage.rotations == 2


@pytest.mark.parametrize("wrong", [{"secret": "x"}, {"initialApikey": "x"}])
def test_a_key_is_rotated_with_the_initial_one_and_the_secret_only(wrong: dict[str, str], call: Caller) -> None:
    call.rotate()
    assert call.rotate(**wrong).status == 401
    assert call.rotate(initialApikey=call.sage.key).status == 401
    assert (call.sage.rotations, call.sage.refused_rotations) == (1, 2)
    assert call.rotate().status == 200


# On-boarding, scopes, steering


def test_on_boarding(call: Caller) -> None:
    applications = f"/developers/{call.sage.developer_id}/applications"
    assert "registrationUrl" in call("POST", "/developers", {"name": "x"}, key=None).body
    assert "registrationUrl" in call("POST", applications, {"name": "x"}, key=None).body
    passcodes = f"{applications}/{call.sage.application_id}/passcodes"
    assert call("POST", passcodes, {"secret": "x"}, key=None).status == 400
    assert set(call("POST", passcodes, {"secret": call.sage.secret}, key=None).body) == {"passcode", "expires"}
    assert call("POST", "/developers/other/applications", {}, key=None).status == 404
    assert call("GET", "/developers", key=None).status == 405


def test_a_scopes_file_is_the_last_one_that_came(call: Caller) -> None:
    assert len(call("GET", "/files/Products").body) > 1
    assert call("GET", "/files/Orders").status == 404
    call.upload(b'[{"id": "1"}]')
    call.upload(b'[{"id": "2"}]')
    assert call("GET", "/files/Orders").body == [{"id": "2"}]


def test_it_is_steered_and_looked_into_from_outside(call: Caller) -> None:
    steer, state = (f"{call.sandbox.url}/_sandbox/{name}" for name in ("steer", "state?vendor=sage_connected_cloud"))
    change = {"vendor": "sage_connected_cloud", "statuses": ["failed"], "rejects": ["CI-1"], "key_uses": 9}
    assert call("POST", steer, change, key=None).status == 200
    tracking_id = call.upload()
    assert call.track(tracking_id)["status"] == "failed"
    assert call("POST", steer, {"vendor": "sage_connected_cloud", "expire_key": True}, key=None).status == 200
    found = call("GET", state, key=None).body
    assert found["uploads"] == {tracking_id: {"scope": "Orders", "status": "failed"}}
    assert found["records"] == {"CI-1": 1, "CI-2": 1}
    assert call.sage.key == ""


@pytest.mark.parametrize("change", [{"colour": "red"}, {"vendor": "store365", "statuses": []}, {"vendor": "none"}])
def test_a_change_that_it_does_not_know_is_named(change: dict[str, Any], call: Caller) -> None:
    connection = HTTPConnection(call.sandbox.host, int(urlsplit(call.sandbox.url).port or 0), timeout=5)
    body = json.dumps({"vendor": "sage_connected_cloud", **change})
    connection.request("POST", "/_sandbox/steer", body)
    response = connection.getresponse()
    assert (response.status, b"Error" in response.read()) == (400, True)
    connection.close()


def test_the_command_line_sets_states_and_how_long_keys_live() -> None:
    from airflow_cloudbilling.sandbox.__main__ import SETTINGS

    assert {"sage_statuses", "sage_key_uses"} <= set(SETTINGS)
    with Sandbox(months=1, invoices=1, sage_statuses="received,accepted", sage_key_uses=1) as sandbox:
        call = Caller(sandbox)
        key = call.sage.key
        tracking_id = call.upload()
        assert call("GET", f"/files/{tracking_id}/tracking", key=key).status == 401
        call.rotate()
        assert call.track(tracking_id)["status"] == "received"
