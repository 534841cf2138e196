"""When a request is made again, and when not."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from typing import Any

import pytest
from tiny import KEY, Tiny, tiny_settings

from airflow_cloudbilling.errors import InDoubtError, RefusedError, UnavailableError, WaitError
from airflow_cloudbilling.retry import Judge, Pause, backoff, retry_after
from airflow_cloudbilling.source import Renew, Reply, Request, Verdict

GET = Request("GET", "x")
POST = Request("POST", "x", json={})
URL = "https://api.example/x"


def reply(status: int, body: bytes = b"", request: Request = GET, **headers: str) -> Reply:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(request, URL, status, names, io.BytesIO(body), len(body), hashlib.sha256(body).hexdigest())


def judge(defer_after: float | None = None, **extra: Any) -> Judge:
    settings = tiny_settings(**extra)
    return Judge(Tiny(), settings, settings.secrets, defer_after, draw=lambda: 0.5)


DATE = "Sun, 22 Nov 2026 08:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "0"}, 0),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "9" * 400}, 365 * 86400),
        ({"retry-after": "Sun, 22 Nov 2026 08:00:30 GMT", "date": DATE}, 30),
        ({"retry-after": "Sun, 22 Nov 2026 07:00:00 GMT", "date": DATE}, 0),
        ({"retry-after": "Sun, 22 Nov 9999 07:00:00 GMT", "date": DATE}, 365 * 86400),
        ({"retry-after": "Sun, 99 Nov 2026 07:00:00 GMT", "date": DATE}, None),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, 90),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT", "date": "yesterday"}, 90),
    ],
)
def test_retry_after_is_read_against_the_vendors_own_clock(headers: Mapping[str, str], seconds: float | None) -> None:
    assert retry_after(headers, now=lambda: 10.0) == seconds


def test_back_off_doubles_up_to_a_bound_with_full_jitter() -> None:
    assert [backoff(n, lambda: 1.0) for n in (1, 2, 3, 4, 7, 1000)] == [1, 2, 4, 8, 60, 60]
    assert backoff(3, lambda: 0.0) == 0


def test_a_good_reply_is_used() -> None:
    assert judge().reply(reply(200, b"x"), 1) is None


def test_the_vendors_wait_comes_before_the_back_off() -> None:
    assert judge().reply(reply(503), 3) == Pause(f"Tiny is busy (HTTP 503 from GET {URL}: no body)", 2.0)
    pause = judge().reply(reply(429, retry_after="0"), 1)
    assert pause is not None
    assert pause.seconds == 0


def test_a_wait_over_max_wait_ends_in_words() -> None:
    with pytest.raises(UnavailableError, match=r"asks to wait 100000 s, more than max_wait \(86400 s\)") as caught:
        judge().reply(reply(429, retry_after="100000"), 1)
    assert caught.value.retry_after == 100_000
    assert not isinstance(caught.value, WaitError)


def test_a_wait_over_defer_after_is_left_to_the_caller() -> None:
    with pytest.raises(WaitError) as caught:
        judge(defer_after=60).reply(reply(429, retry_after="61"), 1)
    assert (caught.value.retry_after, caught.value.status) == (61, 429)
    assert judge(defer_after=60).reply(reply(429, retry_after="60"), 1) is not None


def test_the_last_attempt_ends_in_words_with_what_the_vendor_said() -> None:
    body = b"<h1>down</h1>\r\nroot: forged line " + KEY.encode()
    with pytest.raises(UnavailableError, match="given up after 5 attempts") as caught:
        judge().reply(reply(500, body), 5)
    assert "<h1>down</h1> root: forged line ***" in str(caught.value)
    assert (caught.value.status, caught.value.url) == (500, URL)


def test_a_refusal_is_final_and_quotes_the_vendor() -> None:
    with pytest.raises(RefusedError, match=r"HTTP 403\. The vendor said: wrong key \*\*\*"):
        judge().reply(reply(403, f"wrong key {KEY}".encode()), 1)


def test_an_expired_credential_that_nobody_renews_is_refused() -> None:
    class Renewing(Tiny):
        def verdict(self, reply: Reply, settings: Any) -> Verdict:
            return Renew("the token has expired")

    with pytest.raises(RefusedError, match="a new credential cannot be had"):
        Judge(Renewing(), tiny_settings()).reply(reply(401), 1)


def test_a_lost_request_is_sent_again_only_where_that_does_no_harm() -> None:
    assert judge().failure(GET, URL, "cut", 1, sent=True).seconds == 0.5
    assert judge().failure(POST, URL, "no route", 1, sent=False).seconds == 0.5
    with pytest.raises(InDoubtError, match="may have been carried out"):
        judge().failure(POST, URL, "cut", 1, sent=True)
    for status in (500, 502, 503, 504):
        with pytest.raises(InDoubtError):
            judge().reply(reply(status, request=POST), 1)
    with pytest.raises(InDoubtError):
        judge().too_long(POST, URL)
    assert judge().reply(reply(429, request=POST), 1) is not None  # it was not looked at
