"""Sage Connected Cloud through its hook, over real HTTP: the connection, uploads in every way, tracking, files."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import re
import tracemalloc
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest
from conversations import reply_to, settings_of
from sages import CONN_ID, ORDERS, connect, upload
from tiny import Answer as Told
from tiny import serving

from airflow_cloudbilling.errors import (
    ConfigurationError,
    InDoubtError,
    MalformedReplyError,
    RefusedError,
    UnavailableError,
)
from airflow_cloudbilling.hooks.sage import SageConnectedCloudHook
from airflow_cloudbilling.sandbox.sage import Sage
from airflow_cloudbilling.sandbox.server import Sandbox
from airflow_cloudbilling.sandbox.vendor import Answer, Incoming
from airflow_cloudbilling.source import Again, Ok, Refused, Renew, Request
from airflow_cloudbilling.sources import SOURCES
from airflow_cloudbilling.sources.sage import SageConnectedCloud
from airflow_cloudbilling.sources.sage_answers import folded_status, tracking_of, uploaded_of

SOURCE = SageConnectedCloud()
UPLOAD = "/sage/api/files/Orders"
STRATEGIES = ("direct", "presigned", "multipart")


# The connection


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        ({"uplaod": "/x"}, "'uplaod' is no operation; they are register_developer"),
        ({"upload": "/x/{tracking_id}"}, "placeholder that is not known; this operation has {scope}"),
        ({"rotate_api_key": "/x/{0}"}, "this operation has no placeholder"),
        ({"upload": "/x/{scope!r}"}, "placeholder that is not known"),
        ({"upload": "/x/{scope"}, "is no template"),
        ({"tracking": "/x"}, "lacks {tracking_id}, so that it would always ask the same"),
        ({"upload": "https://elsewhere.example/x"}, "a path below the host, such as '/api/files/{scope}'"),
        ({"upload": "//elsewhere.example/x"}, "a path below the host"),
        ({"upload": 7}, "a path below the host"),
    ],
)
def test_a_path_that_makes_no_sense_is_named_before_anything_is_asked(
    paths: dict[str, Any], words: str, vendor: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = connect(vendor, monkeypatch, paths=paths)
    with pytest.raises(ConfigurationError, match=f"'{CONN_ID}', field 'paths': .*{re.escape(words)}"):
        hook.track("1")
    assert vendor.requests == []


def test_paths_and_the_keys_header_are_the_connections(
    vendor: Sandbox, sage: Sage, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Incoming] = []

    def answer(request: Incoming) -> Answer:
        seen.append(request)
        return Answer(200, (b'{"status": "Accepted", "progress": "3/10"}',))

    vendor.serve("/sage/v9/a%2F..%20b/status", answer)
    hook = connect(
        vendor,
        monkeypatch,
        paths=json.dumps({"tracking": "/v9/{tracking_id}/status"}),
        key_header="X-API-Key",
        key_prefix="Bearer",
    )
    found = hook.track("a/.. b")
    assert (found.status, found.progress, found.result_url) == ("Accepted", "3/10", None)
    assert seen[0].headers["x-api-key"] == f"Bearer {sage.initial_key}"
    assert "apikey" not in seen[0].headers


@pytest.mark.parametrize("name", ["two words", "line\nbreak", "colon:", "ключ"])
def test_a_header_that_is_none_is_named(name: str, vendor: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="'key_header'"):
        connect(vendor, monkeypatch, key_header=name).track("1")


def test_without_a_key_it_is_said_where_it_comes_from(vendor: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    hook = connect(vendor, monkeypatch, login="", password="", secret="")
    with pytest.raises(ConfigurationError, match=r"'password': is empty; enter the API key.*after consent"):
        hook.track("1")
    assert vendor.requests == []


def test_the_host_is_required(vendor: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="'host': is empty"):
        connect(vendor, monkeypatch, host="").track("1")


def test_every_secret_is_known_as_one() -> None:
    settings = settings_of(SOURCES["sage_connected_cloud"], {"secret": "my-own-secret"})
    assert set(SOURCE.secrets(settings)) == set(settings.secrets) == {settings.password, "my-own-secret"}


# Uploads


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_file_arrives_once_as_it_is(
    strategy: str, vendor: Sandbox, sage: Sage, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = connect(vendor, monkeypatch, upload_strategy=strategy)
    known: list[tuple[str, int]] = []
    tracking_id = upload(hook, on_tracking_id=lambda each: known.append((each, sage.contents.total())))
    assert known == [(tracking_id, 0 if strategy == "presigned" else 1)]
    assert sage.contents == {hashlib.sha256(ORDERS).hexdigest(): 1}
    assert sage.records == {"CI-1": 1, "CI-2": 1}
    assert sage.leaks == 0


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("content", [b"", b"\r\n--x\r\n", bytes(range(256)) * 3000])
def test_any_bytes_arrive_as_they_are(
    strategy: str, content: bytes, vendor: Sandbox, sage: Sage, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(connect(vendor, monkeypatch, upload_strategy=strategy), content, name='a "b"\r\n; c.json')
    assert sage.contents == {hashlib.sha256(content).hexdigest(): 1}


def test_a_presigned_upload_tells_what_comes_and_sends_only_that(
    vendor: Sandbox, sage: Sage, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracking_id = upload(connect(vendor, monkeypatch, upload_strategy="presigned"))
    post, put = vendor.requests
    assert sage.uploads[tracking_id].told == {
        "fileName": "orders.json",
        "size": len(ORDERS),
        "sha256": hashlib.sha256(ORDERS).hexdigest(),
    }
    assert post.headers["apikey"] == "***"
    assert put.path == f"/_files/uploads/{tracking_id}"
    assert set(put.headers) == {
        *("host", "user-agent", "content-type", "content-length"),
        *("accept", "accept-encoding", "connection"),
    }


class Endless(io.RawIOBase):
    """A file of zeros that remembers the largest piece that was read of it."""

    def __init__(self, size: int) -> None:
        self.size, self.at, self.largest = size, 0, 0

    def seek(self, offset: int, whence: int = 0) -> int:
        self.at = self.size + offset if whence == 2 else offset
        return self.at

    def read(self, size: int = -1) -> bytes:
        given = min(size, self.size - self.at)
        self.at += given
        self.largest = max(self.largest, given)
        return bytes(given)


@pytest.mark.parametrize("strategy", ["direct", "multipart"])
def test_a_big_file_is_never_held(strategy: str, vendor: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def swallow(told: Told) -> None:
        left = int(told.headers["Content-Length"])
        while left > 0:
            left -= (got := len(told.rfile.read(min(left, 65536))))
            read.append(got)
        told.give(202, b'{"trackingId": "big"}')

    size = 64 * 1024 * 1024
    file = Endless(size)
    monkeypatch.setattr(Told, "do_POST", lambda told: told.server.script(told))  # it reads the body itself
    with serving(swallow) as server:
        hook = connect(vendor, monkeypatch, host=server.url, upload_strategy=strategy)
        tracemalloc.start()
        try:
            content: Any = file
            assert hook.upload("Orders", content, name="big", size=size, sha256="").tracking_id == "big"
            assert tracemalloc.get_traced_memory()[1] < 8_000_000
        finally:
            tracemalloc.stop()
    assert sum(read) >= size
    assert file.largest <= 256 * 1024


def test_a_file_that_has_changed_is_not_sent(vendor: Sandbox, sage: Sage) -> None:
    with pytest.raises(ConfigurationError, match=r"not of 7 bytes any more"):
        upload(SageConnectedCloudHook(), size=7)
    assert vendor.requests == []


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("fault", ["reset", "cut", "status"])
def test_an_upload_in_doubt_is_never_sent_again(
    fault: str, strategy: str, vendor: Sandbox, sage: Sage, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = connect(vendor, monkeypatch, upload_strategy=strategy)
    vendor.inject(fault, match="_files" if strategy == "presigned" else UPLOAD, times=None)
    known: list[str] = []
    with pytest.raises(InDoubtError, match="may have been carried out or not"):
        upload(hook, on_tracking_id=known.append)
    assert sage.contents.total() == 1
    assert len(known) == (strategy == "presigned")


@pytest.mark.parametrize("body", ["", "[]", "<html>", '{"trackingId": null}', '{"trackingId": "cut'])
def test_an_upload_without_an_id_is_in_doubt(body: str, vendor: Sandbox) -> None:
    vendor.serve(UPLOAD, body)
    with pytest.raises(InDoubtError, match=f"'{CONN_ID}'.*Sage may have the file; look there before"):
        upload(SageConnectedCloudHook())
    assert len(vendor.requests) == 1


@pytest.mark.parametrize("body", ['{"trackingId": "1"}', '{"uploadUrl": "http://127.0.0.1:9/x"}', "", "<html>"])
def test_a_presigned_upload_without_its_address_has_sent_nothing(
    body: str, vendor: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    vendor.serve(UPLOAD, body)
    with pytest.raises(MalformedReplyError):
        upload(connect(vendor, monkeypatch, upload_strategy="presigned"))
    assert len(vendor.requests) == 1


@pytest.mark.parametrize("url", [r"https:\/\/files.example\/x", "HTTPS://files.example/x"])
def test_no_signature_is_quoted_however_its_address_is_written(
    url: str, vendor: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    vendor.serve(UPLOAD, '{"uploadUrl": "' + url + '?sig=signature-1"}')
    with pytest.raises(MalformedReplyError, match="holds no tracking id") as caught:
        upload(connect(vendor, monkeypatch, upload_strategy="presigned"))
    assert "signature-1" not in str(caught.value)


def test_a_signed_address_below_the_host_is_not_shown(
    vendor: Sandbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    vendor.serve(UPLOAD, '{"trackingId": "9", "uploadUrl": "/uploads/9?sig=signature-1"}')
    vendor.serve("/sage/uploads/9", Answer.text(403, "signature-1 has expired"))
    with pytest.raises(RefusedError, match=r"PUT .*/uploads/9\?… was refused") as caught:
        upload(connect(vendor, monkeypatch, upload_strategy="presigned"))
    assert "signature-1" not in f"{caught.value}{caplog.text}"


@pytest.mark.parametrize("status", [302, 303])
def test_an_upload_that_is_answered_with_a_redirect_is_in_doubt(status: int, vendor: Sandbox) -> None:
    vendor.inject("redirect", match=UPLOAD, url=f"{vendor.url}/sage/api/files/7/tracking", status=status)
    with pytest.raises(InDoubtError, match=r"was redirected.* may have been carried out"):
        upload(SageConnectedCloudHook())
    assert len(vendor.requests) == 1


@pytest.mark.parametrize("body", ['{"success": false, "message": "no such scope"}', '{"error": true, "id": 7}'])
def test_a_failure_inside_a_good_status_is_a_refusal(body: str, vendor: Sandbox) -> None:
    vendor.serve(UPLOAD, body)
    with pytest.raises(RefusedError, match=r"HTTP 200 and a failure: .*(no such scope|error)"):
        upload(SageConnectedCloudHook())


@pytest.mark.parametrize("status", [400, 403, 404, 409, 413, 422])
def test_a_refused_upload_is_told_in_sages_words(status: int, vendor: Sandbox) -> None:
    vendor.serve(UPLOAD, Answer.text(status, "the scope is not consented"))
    with pytest.raises(RefusedError, match=f"HTTP {status}.*the scope is not consented") as caught:
        upload(SageConnectedCloudHook())
    assert caught.value.status == status


def test_an_upload_that_is_too_early_is_sent_again_when_sage_wants_it(vendor: Sandbox, sage: Sage) -> None:
    vendor.inject("status", match=UPLOAD, status=429, headers={"Retry-After": "0"})
    upload(SageConnectedCloudHook())
    assert sage.contents.total() == 1


def test_an_upload_that_never_left_may_be_tried_again(vendor: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnavailableError, match="ConnectError"):
        upload(connect(vendor, monkeypatch, host="http://127.0.0.1:1", max_attempts=1))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://files.example.test/put?sig=abcdefgh12", "not the connection's own host; add it to allowed_hosts"),
        ("http://169.254.169.254/latest?sig=abcdefgh12", "allowed_hosts are asked over https only"),
        ("file:///etc/passwd?sig=abcdefgh12", "not followed"),
        ("http://user:pass@127.0.0.1/?sig=abcdefgh12", "carries user info"),
    ],
)
def test_no_file_goes_to_a_host_that_nobody_allowed(
    url: str, words: str, vendor: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    vendor.serve(UPLOAD, json.dumps({"uploadUrl": url, "trackingId": "1"}))
    with pytest.raises(RefusedError, match=words) as caught:
        upload(connect(vendor, monkeypatch, upload_strategy="presigned"))
    assert "abcdefgh12" not in str(caught.value)


# Where the tracking id stands

IDS = [
    ({"trackingId": "t1", "id": "x"}, None),
    ({"TrackingID": "t1"}, None),
    ({"id": "t1", "fileId": "x"}, None),
    ({"fileId": "t1", "trackingUrl": "https://h/x"}, None),
    ({"trackingUrl": "https://h/v1/tracking/t1"}, None),
    ({"trackingUrl": "https://h/base/api/files/t1/tracking?sig=1"}, "https://h/x"),
    ({"name": "orders"}, "https://h/tracking/t1/"),
    (None, "/api/files/t1"),
]


@pytest.mark.parametrize(("members", "location"), IDS)
def test_the_tracking_id_is_found_wherever_it_stands(members: Any, location: str | None) -> None:
    body = b"" if members is None else json.dumps(members).encode()
    reply = reply_to(Request("POST", "/x"), body, status=202)
    if location:
        assert isinstance(reply.headers, dict)
        reply.headers["location"] = location
    assert uploaded_of(reply, settings_of(SOURCE)).tracking_id == "t1"


def test_a_numeric_id_is_a_text() -> None:
    assert uploaded_of(reply_to(Request("POST", "/x"), b'{"id": 4711}'), settings_of(SOURCE)).tracking_id == "4711"


# Tracking and results


def test_an_upload_is_followed_to_its_result(sage: Sage) -> None:
    hook = SageConnectedCloudHook()
    tracking_id = upload(hook)
    said = [hook.track(tracking_id) for _ in range(4)]
    assert [(each.status, each.progress) for each in said] == [
        ("validating", "33"),
        ("processing", "66"),
        ("accepted", "100"),
        ("accepted", "100"),
    ]
    assert [each.result_uri for each in said] == [None, None, *[f"{sage.files_url}/results/{tracking_id}"] * 2]
    with hook.download_result(str(said[-1].result_url)).body as body:
        assert {each["id"]: each["status"] for each in json.load(body)} == {"CI-1": "accepted", "CI-2": "accepted"}
    assert sage.leaks == 0


def test_one_client_may_follow_and_fetch_again_and_again(sage: Sage) -> None:
    sage.statuses = ["accepted"]
    hook = SageConnectedCloudHook()
    tracking_id = upload(hook)
    with hook.get_conn() as client:
        for _ in range(3):
            url = str(hook.track(tracking_id, client).result_url)
            hook.download_result(url, client).body.close()


@pytest.mark.parametrize("status", ["IN_PROGRESS", "in-progress", "In Progress", "inprogress"])
def test_states_are_compared_as_people_read_them(status: str) -> None:
    assert folded_status(status) == "inprogress"


@pytest.mark.parametrize(
    "body", ["", "[]", "null", "<html>", '{"progress": 3}', '{"status": null}', '{"status": ""}', '{"status": "acc']
)
def test_an_answer_without_a_status_is_named(body: str) -> None:
    reply = reply_to(Request("GET", "/x"), body.encode())
    with pytest.raises(MalformedReplyError, match=r"status.*; came "):
        tracking_of(reply, settings_of(SOURCE))


def test_a_result_on_the_own_host_is_asked_for_with_the_key_and_elsewhere_without(vendor: Sandbox, sage: Sage) -> None:
    seen: list[Incoming] = []

    def answer(request: Incoming) -> Answer:
        seen.append(request)
        return Answer(200, (b"[]",))

    vendor.serve("/results/1", answer)
    vendor.serve("/_files/results/1", answer)
    for url in (f"{vendor.url}/results/1?sig=1", f"{vendor.files_url}/results/1"):
        SageConnectedCloudHook().download_result(url).body.close()
    assert [request.headers.get("apikey") for request in seen] == [sage.initial_key, None]


@pytest.mark.parametrize(
    "url", ["https://files.example.test/r?sig=abcdefgh12", "file:///etc/passwd", "ftp://127.0.0.1/"]
)
def test_a_result_elsewhere_is_not_fetched(url: str, vendor: Sandbox) -> None:
    with pytest.raises(RefusedError, match="is not followed"):
        SageConnectedCloudHook().download_result(url)
    assert vendor.requests == []


def test_a_result_that_is_refused_elsewhere_rotates_nothing(vendor: Sandbox, sage: Sage) -> None:
    vendor.serve("/_files/results/1", Answer.text(401, "no"))
    with pytest.raises(RefusedError, match="HTTP 401"):
        SageConnectedCloudHook().download_result(f"{vendor.files_url}/results/1")
    assert sage.rotations == 0


# Verdicts


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        *((each, Ok) for each in (200, 201, 202, 204)),
        *((each, Again) for each in (408, 429, 500, 502, 503, 504)),
        (401, Renew),
        *((each, Refused) for each in (206, 302, 400, 403, 404, 405, 409, 413, 415, 422)),
    ],
)
def test_verdicts(status: int, verdict: type) -> None:
    settings = settings_of(SOURCE)
    reply = replace(reply_to(Request("GET", "/api/files/1/tracking"), b"", status=status), url=settings.base_url)
    assert isinstance(SOURCE.verdict(reply, settings), verdict)


# What must not show


def test_no_signature_shows_anywhere(
    vendor: Sandbox, sage: Sage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("", "httpx", "httpcore"):
        caplog.set_level(logging.DEBUG, name)
    sage.statuses = ["accepted"]
    hook = connect(vendor, monkeypatch, upload_strategy="presigned")
    told: list[object] = []
    tracking_id = upload(hook)
    signature = sage.uploads[tracking_id].signature("results")
    echo = f'<Error><SignatureProvided>{signature}</SignatureProvided> "{sage.files_url}/x?se=1&sig=other-one"</Error>'
    vendor.serve(f"/_files/results/{tracking_id}", Answer(403, (echo.encode(),), "application/xml"))
    with hook.get_conn(on_exchange=lambda *exchange: told.append(exchange)) as client:
        found = hook.track(tracking_id, client)
        with pytest.raises(RefusedError, match=r"SignatureProvided>\*\*\*") as caught:
            hook.download_result(str(found.result_url), client)
    shown = f"{caplog.text}{caught.value}{told}{found!r}{vendor.requests}"
    assert "httpcore" in caplog.text
    for text in (signature, sage.uploads[tracking_id].signature("uploads"), "other-one", quote(signature), "sig="):
        assert text not in shown
