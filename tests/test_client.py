"""The exchange over real HTTP: bounds, retries, redirects, TLS, abort, and what must not leak."""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import itertools
import json
import logging
import os
import signal
import ssl
import subprocess
import sys
import textwrap
import threading
import time
import traceback
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote_plus

import pytest
from certificates import Authority
from tiny import KEY, Answer, Tiny, pages, serving, tiny_settings

from airflow_cloudbilling.errors import (
    ConfigurationError,
    InDoubtError,
    MalformedReplyError,
    RefusedError,
    UnavailableError,
    WaitError,
)
from airflow_cloudbilling.http.client import Client
from airflow_cloudbilling.model import Notice, Period
from airflow_cloudbilling.settings import Settings
from airflow_cloudbilling.source import Ask, Conversation, Reply, Request, Verdict

ASK = Ask("purchase", Period.month(2026, 10))
GET = Request("GET", "x")
POST = Request("POST", "x", json={"create": "me"})


def client(host: str, *, defer_after: float | None = None, on_exchange: Any = None, **extra: Any) -> Client:
    settings = tiny_settings(host, **extra)
    return Client(Tiny(), settings, defer_after=defer_after, on_exchange=on_exchange, draw=lambda: 0.0)


def fetch(host: str, request: Request = GET, **extra: Any) -> bytes:
    with client(host, **extra) as opened:
        reply = opened.request(request)
        with reply.body as body:
            return body.read()


def statuses(*codes: int, **headers: str) -> Callable[[Answer], None]:
    """Answer with these statuses one after the other, the last one for good."""
    return lambda answer: answer.give(codes[min(answer.number, len(codes)) - 1], **headers)


# Conversations


def test_both_worlds_find_the_same() -> None:
    def script(answer: Answer) -> None:
        answer.give(body=answer.path.encode())

    async def collect(opened: Client) -> list[Any]:
        async with opened:
            return [item async for item in opened.astream(Tiny().invoices(ASK, opened.settings))]

    with serving(script) as server:
        with client(server.url) as opened:
            found = list(opened.stream(Tiny().invoices(ASK, opened.settings)))
        assert found == [Notice("/v2/one?month=2026-10"), Notice("/v2/two?month=2026-10")]
        assert asyncio.run(collect(client(server.url))) == found
        assert {answer.headers["X-Key"] for answer in server.seen} == {KEY}


def test_a_conversation_left_early_is_closed_with_its_reply() -> None:
    ended: list[Any] = []

    def conversation() -> Conversation:
        reply = yield GET
        assert reply is not None
        try:
            while True:
                yield Notice("more")
        finally:
            ended.append(reply.body)

    with serving(statuses(200)) as server, client(server.url) as opened:
        items = opened.stream(conversation())
        assert next(items) == Notice("more")
        items.close()
    assert ended[0].closed


def test_a_reply_is_closed_when_the_next_one_replaces_it() -> None:
    bodies: list[Any] = []

    def conversation() -> Conversation:
        for _ in range(2):
            reply = yield GET
            assert reply is not None
            bodies.append(reply.body)
            yield Notice(str([body.closed for body in bodies]))

    async def collect(opened: Client) -> list[Any]:
        async with opened:
            return [item async for item in opened.astream(conversation())]

    with serving(statuses(200)) as server:
        with client(server.url) as opened:
            assert list(opened.stream(conversation())) == [Notice("[False]"), Notice("[True, False]")]
        bodies.clear()
        assert asyncio.run(collect(client(server.url))) == [Notice("[False]"), Notice("[True, False]")]


def test_a_stop_iteration_inside_a_conversation_is_no_quiet_end() -> None:
    def conversation() -> Conversation:
        yield Notice("one")
        next(iter(()))

    with client("http://127.0.0.1:1") as opened, pytest.raises(RuntimeError):
        list(opened.stream(conversation()))


# A reading in parts


class Kept:
    """What an earlier part of the reading was answered, in memory."""

    def __init__(self, *before: str) -> None:
        self.before = list(before)
        self.told: list[str] = []

    def answer(self, request: Request) -> Reply | None:
        if not self.before:
            return None
        body = self.before.pop(0).encode()
        return Reply(request, "https://before", 200, {}, io.BytesIO(body), len(body), "")

    def fresh(self, requests: Iterable[Request]) -> Iterable[Request]:
        return itertools.islice(requests, len(self.before), None)

    def done(self, reply: Reply) -> None:
        reply.body.seek(0)
        self.told.append(reply.body.read().decode())


@pytest.mark.parametrize("announced", [True, False])
def test_what_was_answered_before_is_not_asked_again(announced: bool) -> None:
    kept, seen = Kept("/0", "/1"), []
    with serving(lambda answer: answer.give(body=answer.path.encode())) as server, client(server.url) as opened:
        found = list(opened.stream(pages(5, announced=announced), lambda reply: seen.append(reply.url), kept))
        assert found == [Notice(f"/{number}") for number in range(5)]
        assert sorted(answer.path for answer in server.seen) == ["/2", "/3", "/4"]
        assert seen == [f"{server.url}/{number}" for number in (2, 3, 4)]
        assert kept.told == ["/0", "/1", "/2", "/3"]  # each that another request follows


def test_a_reading_that_waits_goes_on_where_it_was() -> None:
    def script(answer: Answer) -> None:
        answer.give(429, Retry_After="9") if answer.number == 4 else answer.give(body=answer.path.encode())

    kept = Kept()
    with serving(script) as server:
        with client(server.url, defer_after=5) as opened, pytest.raises(WaitError):
            list(opened.stream(pages(6, announced=False), pages=kept))
        kept.before, kept.told = kept.told, []
        with client(server.url) as opened:
            found = list(opened.stream(pages(6, announced=False), pages=kept))
        assert found == [Notice(f"/{number}") for number in range(6)]
        assert [answer.path for answer in server.seen] == ["/0", "/1", "/2", "/3", "/3", "/4", "/5"]


# Retries


def test_a_busy_vendor_is_asked_again_and_every_exchange_is_told() -> None:
    told: list[Any] = []
    with serving(statuses(503, 429, 200)) as server:
        with client(server.url, on_exchange=lambda *exchange: told.append(exchange)) as opened:
            opened.request(Request("GET", "x", {"month": "2026-10"})).body.close()
        assert (opened.counters.requests, opened.counters.retries, opened.counters.bytes) == (3, 2, 12)
    assert [status for _, status, _ in told] == [503, 429, 200]
    assert {url for url, _, _ in told} == {f"{server.url}/x?month=2026-10"}
    assert len({sha256 for _, _, sha256 in told}) == 1


def test_one_pool_serves_all_attempts_and_requests() -> None:
    with serving(statuses(503, 200)) as server, client(server.url) as opened:
        for _ in range(5):
            opened.request(GET).body.close()
        assert len(server.seen) == 6
        assert len(server.sockets) == 1


def test_a_wrong_key_sends_exactly_one_request() -> None:
    with serving(statuses(403)) as server:
        with pytest.raises(RefusedError, match=r"'tiny_default'.*HTTP 403.*said: fine"):
            fetch(server.url)
        assert len(server.seen) == 1


def test_attempts_end() -> None:
    with serving(statuses(500)) as server:
        with pytest.raises(UnavailableError, match="given up after 3 attempts"):
            fetch(server.url, max_attempts=3)
        assert len(server.seen) == 3


def test_the_vendors_wait_is_kept_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "airflow_cloudbilling")
    with serving(statuses(429, 200, Retry_After="1")) as server, client(server.url) as opened:
        began = time.monotonic()
        opened.request(GET).body.close()
        assert time.monotonic() - began >= 1
        assert opened.counters.waited == 1
    assert "waiting 1.0 s, then attempt 2 of 5" in caplog.text


def test_a_long_wait_is_left_to_the_caller_at_once() -> None:
    with serving(statuses(429, Retry_After="61")) as server, client(server.url, defer_after=60) as opened:
        began = time.monotonic()
        with pytest.raises(WaitError) as caught:
            opened.request(GET)
        assert time.monotonic() - began < 1
    assert caught.value.retry_after == 61


def test_an_absurd_wait_fails_in_words_at_once() -> None:
    with serving(statuses(429, Retry_After="99999999999")) as server:
        with pytest.raises(UnavailableError, match="more than max_wait"):
            fetch(server.url)
        assert len(server.seen) == 1


def test_a_vendor_that_is_not_there() -> None:
    with serving(statuses(200)) as server:
        pass
    with pytest.raises(UnavailableError, match=r"ConnectError.*given up after 2 attempts"):
        fetch(server.url, max_attempts=2)
    with pytest.raises(UnavailableError):  # never sent: as safe as a GET
        fetch(server.url, POST, max_attempts=2)


def test_a_request_that_creates_something_is_never_sent_twice_in_doubt() -> None:
    def script(answer: Answer) -> None:
        answer.close_connection = True

    with serving(script) as server:
        with pytest.raises(InDoubtError, match="may have been carried out"):
            fetch(server.url, POST)
        assert len(server.seen) == 1


# Bodies


def cut_short(answer: Answer) -> None:
    answer.give(body=b"half", Content_Length="8")
    answer.close_connection = True


def cut_chunk(answer: Answer) -> None:
    answer.send_response_only(200)
    answer.send_header("Transfer-Encoding", "chunked")
    answer.end_headers()
    answer.wfile.write(b"5\r\nhello\r\n")
    answer.close_connection = True


def cut_gzip(answer: Answer) -> None:
    answer.give_gzip(b"whole" * 1000, keep=30)


def broken_gzip(answer: Answer) -> None:
    answer.give(body=b"no gzip at all", Content_Encoding="gzip")


@pytest.mark.parametrize("script", [cut_short, cut_chunk, cut_gzip, broken_gzip])
def test_a_cut_body_is_asked_for_again(script: Callable[[Answer], None]) -> None:
    with serving(lambda answer: script(answer) if answer.number == 1 else answer.give(body=b"whole")) as server:
        assert fetch(server.url) == b"whole"


def test_gzip_is_asked_for_and_read() -> None:
    body = os.urandom(3_000_000)
    with serving(lambda answer: answer.give_gzip(body)) as server, client(server.url) as opened:
        reply = opened.request(GET)
        assert server.seen[0].headers["Accept-Encoding"] == "gzip"
        with reply.body:
            assert (reply.body.read(), reply.size) == (body, len(body))
            assert reply.head(4) == body[:4]


def test_gzip_of_several_members_is_one_body() -> None:
    body = gzip.compress(b"one ") + gzip.compress(b"two")
    with serving(lambda answer: answer.give(body=body, Content_Encoding="gzip")) as server:
        assert fetch(server.url) == b"one two"


def test_an_empty_body_is_no_error_of_the_client() -> None:
    with serving(lambda answer: answer.give(body=b"", Content_Encoding="gzip")) as server:
        assert fetch(server.url) == b""


def test_another_encoding_than_offered_is_refused() -> None:
    with serving(lambda answer: answer.give(Content_Encoding="br")) as server:
        with pytest.raises(MalformedReplyError, match="encoded as 'br'"):
            fetch(server.url)
        assert len(server.seen) == 1


def test_a_body_over_the_cap_is_refused_while_it_is_read() -> None:
    with serving(lambda answer: answer.give(body=b"x" * 2_000_000)) as server:
        with pytest.raises(RefusedError, match=r"max_body \(1000000 bytes\)"):
            fetch(server.url, max_body=1_000_000)
        assert len(server.seen) == 1


def test_a_gzip_bomb_meets_the_cap_in_bounded_memory() -> None:
    bomb = gzip.compress(bytes(300_000_000), compresslevel=9)
    with serving(lambda answer: answer.give(body=bomb, Content_Encoding="gzip")) as server:
        tracemalloc.start()
        try:
            with pytest.raises(RefusedError, match="max_body"):
                fetch(server.url, max_body=100_000_000)
            assert tracemalloc.get_traced_memory()[1] < 20_000_000
        finally:
            tracemalloc.stop()


# Time


def test_a_vendor_that_falls_silent_is_asked_again() -> None:
    def script(answer: Answer) -> None:
        if answer.number == 1:
            time.sleep(0.6)
        answer.give()

    with serving(script) as server:
        assert fetch(server.url, timeout=0.2) == b"fine"
        assert len(server.seen) == 2


def drip_header(answer: Answer) -> None:
    answer.wfile.write(b"HTTP/1.1 200 OK\r\nX-Drip: ")
    for _ in range(100):
        answer.wfile.write(b"x")
        time.sleep(0.05)


def drip_body(answer: Answer) -> None:
    answer.give(body=b"", Content_Length="100")
    for _ in range(100):
        answer.wfile.write(b"x")
        time.sleep(0.05)


@pytest.mark.parametrize("script", [drip_header, drip_body])
def test_a_dripping_vendor_is_cut_by_the_total_timeout(script: Callable[[Answer], None]) -> None:
    with serving(script) as server:
        began = time.monotonic()
        with pytest.raises(UnavailableError, match=r"total_timeout \(0.4 s\)"):
            fetch(server.url, timeout=5, total_timeout=0.4)
        assert time.monotonic() - began < 2
        with pytest.raises(InDoubtError):
            fetch(server.url, POST, timeout=5, total_timeout=0.4)


def test_the_event_loop_runs_on_while_a_big_body_is_received() -> None:
    body = os.urandom(40_000_000)

    async def longest_gap(host: str) -> float:
        gaps, ended = [0.0], False

        async def tick() -> None:
            while not ended:
                before = time.monotonic()
                await asyncio.sleep(0.01)
                gaps.append(time.monotonic() - before)

        ticking = asyncio.create_task(tick())
        async with client(host) as opened:
            (await opened.arequest(GET)).body.close()
        ended = True
        await ticking
        return max(gaps)

    with serving(lambda answer: answer.give(body=body)) as server:
        assert asyncio.run(longest_gap(server.url)) < 0.5


# Stopping


@pytest.mark.parametrize("script", [drip_body, statuses(429, Retry_After="60")])
def test_abort_ends_a_wait_with_an_error(script: Callable[[Answer], None]) -> None:
    with serving(script) as server, client(server.url) as opened:
        threading.Timer(0.3, opened.abort).start()
        began = time.monotonic()
        with pytest.raises(UnavailableError, match="aborted"):
            list(opened.stream(Tiny().invoices(ASK, opened.settings)))
        assert time.monotonic() - began < 2
        with pytest.raises(UnavailableError, match="aborted"):
            opened.request(GET)


def test_abort_ends_a_wait_on_a_callers_loop_without_cancelling_the_caller() -> None:
    async def run(host: str) -> str:
        async with client(host) as opened:
            threading.Timer(0.3, opened.abort).start()
            with pytest.raises(UnavailableError, match="aborted"):
                await opened.arequest(GET)
            await asyncio.sleep(0)
            return "still running"

    with serving(drip_body) as server:
        assert asyncio.run(run(server.url)) == "still running"


def test_an_answer_that_cannot_be_judged_is_closed() -> None:
    class Odd(Tiny):
        judged: ClassVar[list[Reply]] = []

        def verdict(self, reply: Reply, settings: Settings) -> Verdict:
            self.judged.append(reply)
            raise KeyError("no such status")

    with serving(statuses(200)) as server:
        settings = tiny_settings(server.url)
        with Client(Odd(), settings) as opened, pytest.raises(KeyError):
            opened.request(GET)
    (reply,) = Odd.judged
    assert reply.body.closed


def test_a_patient_abort_lets_a_request_end_and_makes_no_other() -> None:
    def script(answer: Answer) -> None:
        opened.abort(at_once=False)
        answer.give()

    with serving(script) as server, client(server.url) as opened:
        assert opened.request(GET).status == 200
        with pytest.raises(UnavailableError, match="aborted"):
            opened.request(GET)


def test_abort_before_and_after_is_harmless() -> None:
    opened = client("http://127.0.0.1:1")
    opened.abort()
    with opened, pytest.raises(UnavailableError, match="aborted"):
        opened.request(GET)
    opened.abort()


@pytest.mark.parametrize(("number", "end"), [(signal.SIGINT, "KeyboardInterrupt"), (signal.SIGTERM, "aborted")])
def test_ctrl_c_and_a_signal_handler_that_aborts_end_a_waiting_process(number: int, end: str) -> None:
    program = """
        import signal, sys
        from tiny import Tiny, tiny_settings
        from airflow_cloudbilling.http.client import Client
        from airflow_cloudbilling.source import Request
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
        with Client(Tiny(), tiny_settings(sys.argv[1])) as client:
            signal.signal(signal.SIGTERM, lambda *_: client.abort())
            client.request(Request("GET", "x"))
    """
    arrived = threading.Event()

    def script(answer: Answer) -> None:
        arrived.set()
        time.sleep(5)

    with serving(script) as server:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["tests", "."])}
        command = [sys.executable, "-c", textwrap.dedent(program), server.url]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, text=True)
        assert arrived.wait(20)
        time.sleep(0.1)
        process.send_signal(number)
        assert end in process.communicate(timeout=4)[1]


# Redirects


@pytest.fixture
def two_hosts() -> Iterator[tuple[Any, Any]]:
    """Give the connection's server, whose ``/x`` leads to the second one, and the second."""
    with (
        serving(lambda answer: answer.give(body=b"moved here")) as second,
        serving(lambda answer: answer.give(302, Location=f"{second.url}/file?sig=secret-signature")) as first,
    ):
        yield first, second


def test_another_port_of_this_machine_is_followed_without_credentials(
    two_hosts: tuple[Any, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "httpx")
    first, second = two_hosts
    told: list[str] = []
    with client(first.url, on_exchange=lambda url, *_: told.append(url)) as opened:
        reply = opened.request(GET)
        assert (reply.body.read(), reply.url) == (b"moved here", f"{second.url}/file?…")
        reply.body.close()
    assert first.seen[0].headers["X-Key"] == KEY
    assert second.seen[0].headers["X-Key"] is None
    assert second.seen[0].path == "/file?sig=secret-signature"
    assert told == [f"{first.url}/x", f"{second.url}/file?…"]
    assert f"{second.url}/file?…" in caplog.text
    assert "secret-signature" not in caplog.text


def test_a_redirect_on_the_own_origin_keeps_credentials_and_drops_parameters() -> None:
    def script(answer: Answer) -> None:
        answer.give(307, Location="/y?z=1") if answer.number == 1 else answer.give(body=answer.path.encode())

    with serving(script) as server:
        assert fetch(server.url, Request("GET", "x", {"a": "1"})) == b"/y?z=1"
        assert server.seen[1].headers["X-Key"] == KEY


@pytest.mark.parametrize("location", ["https://evil.example/x?sig=abc", "http://127.0.0.2/x", "//evil.example/x"])
def test_a_redirect_elsewhere_is_refused_with_the_fix(location: str) -> None:
    with serving(lambda answer: answer.give(302, Location=location)) as server:
        with pytest.raises(RefusedError, match="allowed_hosts") as caught:
            fetch(server.url)
        assert "sig=abc" not in str(caught.value)
        assert len(server.seen) == 1


@pytest.mark.parametrize(
    "form", [KEY, quote_plus(KEY), quote_plus(KEY).lower(), base64.b64encode(KEY.encode()).decode()]
)
def test_a_redirect_to_an_allowed_host_that_would_carry_a_secret_is_refused(form: str) -> None:
    with serving(lambda answer: answer.give(302, Location=f"https://files.example/x?api_key={form}")) as server:
        with pytest.raises(RefusedError, match="its address would carry a credential") as caught:
            fetch(server.url, allowed_hosts=["files.example"])
        assert form not in str(caught.value)


def test_redirects_end() -> None:
    with serving(lambda answer: answer.give(302, Location=f"/{answer.number}")) as server:
        with pytest.raises(RefusedError, match="more than 5 times"):
            fetch(server.url)
        assert len(server.seen) == 6


def test_only_get_is_followed() -> None:
    with serving(lambda answer: answer.give(307, Location="/y")) as server:
        with pytest.raises(RefusedError, match="only GET is followed"):
            fetch(server.url, POST)
        assert len(server.seen) == 1


def big(answer: Answer) -> None:
    answer.give(body=bytes(3_000_000))


def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/dev/null")
    with serving(big) as server, pytest.raises(UnavailableError, match="set TMPDIR"):
        fetch(server.url)


def test_cookies_are_not_kept() -> None:
    with serving(lambda answer: answer.give(Set_Cookie="session=1")) as server, client(server.url) as opened:
        for _ in range(2):
            opened.request(GET).body.close()
        assert server.seen[1].headers["Cookie"] is None


# TLS and proxies


@pytest.fixture(scope="module")
def own_ca(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def test_an_own_ca_is_trusted_by_verify_and_a_stranger_is_explained(own_ca: Authority) -> None:
    with serving(statuses(200), tls=own_ca.vouches().context) as server:
        host = server.url.replace("http:", "https:")
        assert fetch(host, verify=own_ca.bundle) == b"fine"
        with pytest.raises(ConfigurationError, match="not trusted") as caught:
            fetch(host)
        assert (caught.value.conn_id, caught.value.field) == ("tiny_default", "verify")
        assert len(server.seen) == 1


@pytest.mark.parametrize("own", [True, False])
def test_certificates_are_read_beside_the_loop_and_once(
    own_ca: Authority, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    threads, real = list[threading.Thread](), ssl.create_default_context

    def noted(*args: Any, **more: Any) -> ssl.SSLContext:
        threads.append(threading.current_thread())
        return real(*args, **more)

    async def run(host: str) -> None:
        async with client(host, **({"verify": own_ca.bundle} if own else {})) as opened:
            for reply in await asyncio.gather(*(opened.arequest(GET) for _ in range(5))):
                reply.body.close()

    monkeypatch.setattr(ssl, "create_default_context", noted)
    with serving(statuses(200)) as server:
        asyncio.run(run(server.url))
    assert len(threads) == 1
    assert threads != [threading.main_thread()]


def test_a_ca_bundle_that_is_none_is_named(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text("no certificate")
    with pytest.raises(ConfigurationError, match="field 'verify'"):
        fetch("https://127.0.0.1:1", verify=str(bundle))


def test_this_machine_is_asked_directly_whatever_proxy_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with serving(statuses(200)) as server:
        assert fetch(server.url) == b"fine"


def test_a_proxy_that_the_connection_names_is_asked_for_this_machine_too() -> None:
    with serving(lambda answer: answer.give(body=answer.path.encode())) as proxy:
        assert fetch("http://127.0.0.1:1", proxy=proxy.url) == b"http://127.0.0.1:1/x"


def test_another_machine_is_asked_through_the_proxy_of_the_connection_or_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving(lambda answer: answer.give(body=answer.path.encode())) as proxy:
        assert fetch("http://api.example", proxy=proxy.url, allow_insecure_http=True) == b"http://api.example/x"
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        assert fetch("http://api.example", allow_insecure_http=True) == b"http://api.example/x"


def test_a_proxy_of_the_environment_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "nonsense://proxy.example")
    with pytest.raises(ConfigurationError, match="HTTPS_PROXY"):
        fetch("https://api.example")


# What must not leak


def test_neither_logs_nor_errors_show_secrets(caplog: pytest.LogCaptureFixture) -> None:
    for name in ("", "httpx", "httpcore"):  # Airflow itself quiets httpx
        caplog.set_level(logging.DEBUG, name)
    forms = [KEY, quote_plus(KEY), base64.b64encode(f"acc:{KEY}".encode()).decode(), json.dumps(KEY)]

    def script(answer: Answer) -> None:
        status = 503 if answer.number == 1 else 403
        answer.give(status, " | ".join(forms).encode(), Location=f"/?token={KEY}")

    told: list[str] = []
    with serving(script) as server, client(server.url, on_exchange=lambda url, *_: told.append(url)) as opened:
        with pytest.raises(RefusedError) as caught:
            opened.request(Request("GET", "x", {"q": KEY}))
        assert len(told) == 2
    text = caplog.text + str(caught.value) + str(caught.value.url) + str(told)
    assert "httpx" in caplog.text
    assert "***" in str(caught.value)
    for secret in (KEY, quote_plus(KEY), base64.b64encode(KEY.encode()).decode()[:16]):
        assert secret not in text
    assert base64.b64encode(f"acc:{KEY}".encode()).decode()[8:20] not in text


def test_a_traceback_shows_no_secret_either() -> None:
    def script(answer: Answer) -> None:
        answer.wfile.write(b"HTTP/1.1 200 OK\r\nbroken header " + KEY.encode() + b"\r\n\r\n")
        answer.close_connection = True

    with serving(script) as server, pytest.raises(UnavailableError, match="RemoteProtocolError") as caught:
        fetch(server.url)
    assert KEY not in "".join(traceback.format_exception(caught.type, caught.value, caught.tb))


def test_an_excerpt_cannot_forge_lines_of_a_log() -> None:
    body = b"a\r\nERROR forged\x1b[31m\x00 \xe2\x80\xa8 " + b"z" * 4000
    with serving(lambda answer: answer.give(400, body)) as server, pytest.raises(RefusedError) as caught:
        fetch(server.url)
    said = str(caught.value).partition("said: ")[2]
    assert said.isprintable()
    assert len(said) <= 300
    assert said.startswith(r"a ERROR forged\x1b[31m")


def test_threads_take_short_turns_only_while_a_client_works() -> None:
    usual = sys.getswitchinterval()
    with serving(statuses(200)) as server, client(server.url) as first, client(server.url) as second:
        first.request(GET).body.close()
        second.request(GET).body.close()
        assert sys.getswitchinterval() < usual
        first.close()
        assert sys.getswitchinterval() < usual
    assert sys.getswitchinterval() == usual


def test_a_caller_is_told_that_an_answer_takes_long_and_only_then() -> None:
    told: list[float] = []

    def script(answer: Answer) -> None:
        if answer.path.endswith("1"):
            time.sleep(0.3)
        answer.give()

    with serving(script) as server, client(server.url) as opened:
        opened.request(GET).body.close()  # connects
        list(opened.stream(pages(2, announced=False), idle=lambda: told.append(time.monotonic())))
        asked = [answer.at for answer in server.seen]
    assert len([moment for moment in told if moment > asked[2]]) == 1
    assert told[-1] < asked[2] + 0.25
