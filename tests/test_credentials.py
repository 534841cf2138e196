"""Access tokens over real HTTP: how few are asked for, what happens when one is refused, and where none may show up."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import pytest
from tiny import KEY, Answer, TinyTokens, TokenVendor, pages, serving, token_settings

from airflow_cloudbilling.errors import (
    ConfigurationError,
    MalformedReplyError,
    RefusedError,
    UnavailableError,
    WaitError,
)
from airflow_cloudbilling.http.client import Client
from airflow_cloudbilling.settings import Settings
from airflow_cloudbilling.source import Request

GET = Request("GET", "x")


def client(settings: Settings, **more: Any) -> Client:
    return Client(TinyTokens(), settings, draw=lambda: 0.0, **more)


def fetch(settings: Settings, **more: Any) -> bytes:
    with client(settings, **more) as opened:
        reply = opened.request(GET)
        with reply.body as body:
            return body.read()


def bearers(server: Any) -> list[str]:
    """Return the tokens that came with the requests, in order."""
    return [
        answer.headers["Authorization"].removeprefix("Bearer ") for answer in server.seen if answer.path != "/token"
    ]


# One for many


def test_one_token_serves_all_clients_of_a_process() -> None:
    vendor = TokenVendor(delay=0.02)
    with serving(vendor) as server:
        settings = token_settings(server.url)
        with ThreadPoolExecutor(12) as threads:
            assert set(threads.map(lambda _: fetch(settings), range(24))) == {b"/x"}
        assert (vendor.asked, len(server.seen)) == (1, 25)


def test_one_token_serves_both_worlds() -> None:
    vendor = TokenVendor(delay=0.02)

    async def many(settings: Settings) -> None:
        async with client(settings) as one, client(settings) as two:
            for reply in await asyncio.gather(*(opened.arequest(GET) for opened in (one, two) for _ in range(5))):
                reply.body.close()

    with serving(vendor) as server:
        settings = token_settings(server.url)
        asyncio.run(many(settings))
        fetch(settings)
        assert vendor.asked == 1


def test_the_request_for_a_token_carries_what_the_vendor_wants_and_no_token() -> None:
    vendor = TokenVendor()
    with serving(vendor) as server:
        fetch(token_settings(server.url, client_id="me"))
        assert server.seen[0].headers["Authorization"] == "Basic " + base64.b64encode(f"acc:{KEY}".encode()).decode()
        assert server.seen[0].sent == b"grant_type=client_credentials&client_id=me"


@pytest.mark.parametrize(
    "change", [{"login": "other"}, {"password": "other-key"}, {"client_id": "other"}, {"host": ""}]
)
def test_a_token_of_one_connection_is_not_used_for_another(change: dict[str, str]) -> None:
    first, second = TokenVendor(), TokenVendor()
    with serving(first) as server, serving(second) as other:
        settings = token_settings(server.url)
        fetch(settings)
        fields: dict[str, Any] = {"host": server.url, "conn_id": settings.conn_id, **change}
        fetch(token_settings(**{**fields, "host": fields["host"] or other.url}))
        assert first.asked + second.asked == 2


def test_a_token_is_replaced_a_margin_before_its_end() -> None:
    vendor = TokenVendor(expires_in="0.5")
    with serving(vendor) as server, client(token_settings(server.url)) as opened:
        for pause in (0.0, 0.46):
            time.sleep(pause)
            opened.request(GET).body.close()
        assert vendor.asked == 2
        assert set(bearers(server)) == vendor.good


def test_a_vendor_may_give_the_same_token_again() -> None:
    vendor = TokenVendor()
    vendor.good = {"always-the-same-token"}
    vendor.instead = lambda answer: answer.give(body=b'{"access_token": "always-the-same-token", "expires_in": 0.3}')
    with serving(vendor) as server, client(token_settings(server.url)) as opened:
        for _ in range(2):
            opened.request(GET).body.close()
            time.sleep(0.3)
        assert vendor.asked == 2


def test_with_one_connection_the_request_for_a_token_comes_through() -> None:
    vendor = TokenVendor()
    with serving(vendor) as server, client(token_settings(server.url, max_connections=1)) as opened:
        assert len(list(opened.stream(pages(4)))) == 4


# Expiry


def test_an_expired_token_is_renewed_once_and_the_request_repeated_once() -> None:
    vendor = TokenVendor()
    with serving(vendor) as server, client(token_settings(server.url)) as opened:
        opened.request(GET).body.close()
        vendor.revoke()
        opened.request(GET).body.close()
        assert [answer.path for answer in server.seen] == ["/token", "/x", "/x", "/token", "/x"]
        assert opened.counters.retries == 0


def test_a_creating_request_is_repeated_after_a_renewal_since_the_vendor_did_not_take_it() -> None:
    vendor = TokenVendor()
    with serving(vendor) as server, client(token_settings(server.url)) as opened:
        opened.request(GET).body.close()
        vendor.revoke()
        opened.request(Request("POST", "x", json={"create": "me"})).body.close()
        assert [
            json.loads(answer.sent) for answer in server.seen if answer.command == "POST" and answer.path == "/x"
        ] == [
            {"create": "me"},
            {"create": "me"},
        ]


def test_a_second_refusal_ends_in_words() -> None:
    vendor = TokenVendor()
    vendor.says = lambda answer: answer.give(401, b"who are you?")
    with serving(vendor) as server:
        with pytest.raises(RefusedError, match=r"expired.*a new credential cannot be had, or was refused too"):
            fetch(token_settings(server.url))
        assert [answer.path for answer in server.seen] == ["/token", "/x", "/token", "/x"]


def test_many_requests_that_were_sent_early_renew_together() -> None:
    vendor = TokenVendor(delay=0.03)
    with serving(vendor) as server, client(token_settings(server.url)) as opened:
        opened.request(GET).body.close()
        vendor.revoke()
        assert len(list(opened.stream(pages(30)))) == 30
        assert vendor.asked == 2
        assert bearers(server).count(vendor.given[0]) <= 1 + opened.settings.max_connections


# A token endpoint that gives none


def busy(answer: Answer) -> None:
    answer.give(429, b"too many", Retry_After="1")


def test_a_token_endpoints_wait_is_kept() -> None:
    vendor = TokenVendor()

    def once(answer: Answer) -> None:
        vendor.instead = None
        busy(answer)

    vendor.instead = once
    with serving(vendor) as server, client(token_settings(server.url)) as opened:
        began = time.monotonic()
        opened.request(GET).body.close()
        assert time.monotonic() - began >= 1
        assert [answer.path for answer in server.seen] == ["/token", "/token", "/x"]


def test_a_token_endpoints_long_wait_is_left_to_the_caller_and_asked_once() -> None:
    vendor = TokenVendor()
    vendor.instead = busy
    with serving(vendor) as server, client(token_settings(server.url), defer_after=0.5) as opened:
        with pytest.raises(WaitError) as caught:
            list(opened.stream(pages(30)))
        assert caught.value.retry_after == 1
        assert [answer.path for answer in server.seen] == ["/token"]


@pytest.mark.parametrize("status", [400, 401])
def test_a_refused_login_fails_at_once_and_is_asked_once(status: int) -> None:
    vendor = TokenVendor(delay=0.02)
    with serving(vendor) as server, client(token_settings(server.url)) as opened:
        opened.request(GET).body.close()
        vendor.instead = lambda answer: answer.give(status, b"wrong secret " + KEY.encode())
        vendor.revoke()
        with pytest.raises(RefusedError, match=rf"HTTP {status}.*wrong secret \*\*\*"):
            list(opened.stream(pages(30)))
        assert vendor.asked == 2
        vendor.instead = None
        opened.request(GET).body.close()  # another request is another try


def test_an_answer_without_a_token_is_named() -> None:
    vendor = TokenVendor()
    vendor.instead = lambda answer: answer.give(body=b'{"token": "secret-of-another-name"}')
    with serving(vendor) as server, pytest.raises(MalformedReplyError, match="without an access_token") as caught:
        fetch(token_settings(server.url))
    assert "secret-of-another-name" not in str(caught.value)


def test_abort_ends_the_wait_for_a_token() -> None:
    vendor = TokenVendor()
    vendor.instead = lambda answer: time.sleep(3)
    with serving(vendor) as server, client(token_settings(server.url)) as opened:
        threading.Timer(0.2, opened.abort).start()
        began = time.monotonic()
        with pytest.raises(UnavailableError, match="aborted"):
            list(opened.stream(pages(30)))
        assert time.monotonic() - began < 1.2


# Another host


def test_a_token_endpoint_of_another_host_is_asked_without_further_credentials() -> None:
    vendor = TokenVendor()
    with serving(vendor) as tokens, serving(vendor) as api:
        settings = token_settings(api.url, auth_url=f"{tokens.url.replace('127.0.0.1', 'localhost')}/token")
        assert fetch(settings) == b"/x"
        assert [answer.path for answer in tokens.seen] == ["/token"]
        assert [answer.path for answer in api.seen] == ["/x"]


class ByGet(TinyTokens):
    """A vendor whose tokens are asked for with GET."""

    def credential_request(self, settings: Settings) -> Request | None:
        headers = {"Authorization": f"Basic {settings.password}"}
        return Request("GET", settings.option("auth_url"), headers=headers, configured=True)


@pytest.mark.parametrize("source", [TinyTokens(), ByGet()])
def test_a_token_endpoints_redirect_is_not_followed(source: TinyTokens) -> None:
    with (
        serving(lambda answer: answer.give(body=b'{"access_token": "stolen"}')) as elsewhere,
        serving(lambda answer: answer.give(307, Location=f"{elsewhere.url}/token")) as tokens,
        Client(source, token_settings(elsewhere.url, auth_url=f"{tokens.url}/token")) as opened,
    ):
        with pytest.raises(RefusedError, match="was redirected"):
            opened.request(GET)
        assert (len(tokens.seen), len(elsewhere.seen)) == (1, 0)


def test_a_token_is_not_asked_for_in_clear_text() -> None:
    with pytest.raises(ConfigurationError, match=r"'auth_url'.*clear text"):
        client(token_settings("https://api.example", auth_url="http://login.example/token"))


# What must not leak


def forms(token: str) -> list[str]:
    return [token, quote(token, safe=""), base64.b64encode(token.encode()).decode(), json.dumps(token)]


def echo(status: int) -> Callable[[Answer], None]:
    def say(answer: Answer) -> None:
        told = " | ".join(forms(answer.headers["Authorization"].removeprefix("Bearer ")))
        answer.give(status, told.encode(), X_Echo=told)

    return say


def test_a_token_shows_neither_in_bodies_nor_in_logs_errors_or_exchanges(caplog: pytest.LogCaptureFixture) -> None:
    for name in ("", "httpx", "httpcore"):
        caplog.set_level(logging.DEBUG, name)
    vendor, told = TokenVendor(), []
    vendor.says = echo(200)
    with (
        serving(vendor) as server,
        client(token_settings(server.url), on_exchange=lambda *exchange: told.append(exchange)) as opened,
    ):
        with opened.request(Request("GET", "x", {"q": "1"})).body as body:
            assert body.read() == b'*** | *** | *** | "***"'
        vendor.says = echo(403)
        with pytest.raises(RefusedError) as caught:
            opened.request(GET)
    (token,) = vendor.given
    seen = f"{caplog.text}{caught.value}{told}{opened.counters}"
    assert "httpcore" in caplog.text
    assert "***" in str(caught.value)
    for form in forms(token):
        assert form not in seen
    assert [status for _, status, _ in told] == [200, 200, 403]
    assert told[0] == (f"{server.url}/token", 200, None)


def test_every_token_is_learnt_before_it_is_used_once_by_each_client() -> None:
    vendor, learnt = TokenVendor(delay=0.02), []

    def learn(token: str) -> None:
        learnt.append((token, token in bearers(server)))

    with serving(vendor) as server:
        settings = token_settings(server.url)
        with client(settings, learn=learn) as opened:
            list(opened.stream(pages(20)))
            vendor.revoke()
            list(opened.stream(pages(20)))
        assert learnt == [(token, False) for token in vendor.given]
        with client(settings, learn=learn) as opened:
            opened.request(GET).body.close()
        assert len(learnt) == 3
