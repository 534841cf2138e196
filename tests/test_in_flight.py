"""Requests that are sent early over real HTTP: order, bounds, failures, early ends, and what it gains."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tiny import Answer, Tiny, TinyTokens, pages, serving, tiny_settings, token_settings

from airflow_cloudbilling.errors import RefusedError, UnavailableError, WaitError
from airflow_cloudbilling.found import Item
from airflow_cloudbilling.http.client import Client
from airflow_cloudbilling.model import Notice
from airflow_cloudbilling.source import Ahead, Conversation, Request

Collect = Callable[[Client, Conversation], "list[Item]"]


def client(host: str, **extra: Any) -> Client:
    return Client(Tiny(), tiny_settings(host, **extra), draw=lambda: 0.0)


def in_thread(opened: Client, conversation: Conversation) -> list[Item]:
    with opened:
        return list(opened.stream(conversation))


def on_loop(opened: Client, conversation: Conversation) -> list[Item]:
    async def collect() -> list[Item]:
        async with opened:
            return [item async for item in opened.astream(conversation)]

    return asyncio.run(collect())


@pytest.fixture(params=[in_thread, on_loop])
def collect(request: pytest.FixtureRequest) -> Collect:
    """Give each of the two worlds in turn."""
    return request.param


@pytest.fixture(autouse=True)
def nothing_left(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail when a body stays open, or an exception that nobody took is left to the event loop."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        yield
        gc.collect()
    assert [str(warning.message) for warning in caught if "unclosed file" in str(warning.message)] == []
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


class Pages:
    """A script: answers ``/5`` with ``5`` after a while, and knows how many requests it had at once.

    :param delay: page → seconds.
    """

    def __init__(self, delay: Callable[[int], float] = lambda page: 0.02, size: int = 0) -> None:
        self.delay = delay
        self.size = size
        self.now = self.most = 0
        self._lock = threading.Lock()

    def __call__(self, answer: Answer) -> None:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        page = int(answer.path.strip("/"))
        time.sleep(self.delay(page))
        with self._lock:
            self.now -= 1
        self.answer(answer, page)

    def answer(self, answer: Answer, page: int) -> None:
        answer.give(body=f"{page}".encode() + b"." * self.size)


class FailingAt(Pages):
    """Refuses one page, sooner than any other is answered."""

    def __init__(self, page: int) -> None:
        super().__init__(lambda number: 0.0 if number == page else 0.05)
        self.page = page

    def answer(self, answer: Answer, page: int) -> None:
        answer.give(403 if page == self.page else 200, f"{page}".encode())


def numbers(count: int) -> list[Item]:
    return [Notice(str(number)) for number in range(count)]


def test_answers_come_in_the_order_of_the_conversation(collect: Collect) -> None:
    with serving(Pages(lambda page: 0.1 if page % 3 == 0 else 0.0)) as server:
        assert collect(client(server.url), pages(30)) == numbers(30)
        assert len(server.seen) == 30


def test_no_more_requests_are_on_the_wire_than_allowed(collect: Collect) -> None:
    vendor = Pages()
    with serving(vendor) as server:
        collect(client(server.url, max_connections=3), pages(20))
        assert vendor.most == 3
        assert len(server.sockets) == 3


def test_forty_pages_take_less_than_a_quarter_of_the_time(collect: Collect) -> None:
    with serving(Pages(lambda page: 0.3)) as server:
        began = time.monotonic()
        assert collect(client(server.url, max_connections=8), pages(40)) == numbers(40)
        assert time.monotonic() - began < 40 * 0.3 / 4


def test_what_is_announced_is_read_and_sent_no_faster_than_it_is_used() -> None:
    read: list[int] = []

    def requests() -> Iterator[Request]:
        for number in range(1000):
            read.append(number)
            yield Request("GET", str(number))

    def conversation() -> Conversation:
        yield Ahead(requests())
        for request in (Request("GET", str(number)) for number in range(1000)):
            reply = yield request
            assert reply is not None
            yield Notice(reply.body.read().decode())

    with serving(Pages(lambda page: 0.0)) as server, client(server.url, max_connections=4) as opened:
        items = opened.stream(conversation())
        assert next(items) == Notice("0")
        time.sleep(0.3)
        assert len(server.seen) == len(read) == 1 + 2 * 4
        assert next(items) == Notice("1")
        time.sleep(0.1)
        assert len(server.seen) == len(read) == 2 + 2 * 4
        items.close()


def test_pages_can_be_announced_one_by_one(collect: Collect) -> None:
    def conversation() -> Conversation:
        yield Ahead([Request("GET", "0")])
        for number in range(3000):
            yield Ahead([Request("GET", str(number + 1))])
        for number in range(20):
            reply = yield Request("GET", str(number))
            assert reply is not None
            yield Notice(reply.body.read().decode())

    with serving(Pages(lambda page: 0.0)) as server:
        assert collect(client(server.url), conversation()) == numbers(20)


def test_other_requests_may_come_in_between_and_the_same_one_twice(collect: Collect) -> None:
    def conversation() -> Conversation:
        yield Ahead([Request("GET", number) for number in ("0", "1", "1", "2")])
        for number in ("0", "7", "1", "1", "7", "2"):
            reply = yield Request("GET", number)
            assert reply is not None
            yield Notice(reply.body.read().decode())

    with serving(Pages()) as server:
        assert collect(client(server.url), conversation()) == [Notice(number) for number in "071172"]
        assert sorted(answer.path for answer in server.seen) == ["/0", "/1", "/1", "/2", "/7", "/7"]


def test_what_creates_something_waits_for_its_turn() -> None:
    requests = [Request("GET", "0"), Request("POST", "1", json={}), Request("GET", "2")]

    def conversation() -> Conversation:
        yield Ahead(requests)
        for request in requests:
            reply = yield request
            assert reply is not None
            yield Notice(reply.body.read().decode())

    with serving(Pages(lambda page: 0.0)) as server, client(server.url) as opened:
        items = opened.stream(conversation())
        assert next(items) == Notice("0")
        time.sleep(0.2)
        assert len(server.seen) == 1
        assert list(items) == numbers(3)[1:]
        assert len(server.seen) == 3


# Failures and early ends


def test_an_early_failure_shows_when_its_turn_comes(collect: Collect) -> None:
    found: list[Item] = []

    def conversation() -> Conversation:
        requests = [Request("GET", str(number)) for number in range(30)]
        yield Ahead(requests)
        for request in requests:
            reply = yield request
            assert reply is not None
            found.append(Notice(reply.body.read().decode()))

    with serving(FailingAt(5)) as server:
        with pytest.raises(RefusedError, match=r"HTTP 403.*said: 5"):
            collect(client(server.url), conversation())
        assert found == numbers(5)
        assert len(server.seen) <= 5 + 1 + 16


def test_a_failure_whose_turn_never_comes_is_none(collect: Collect) -> None:
    def conversation() -> Conversation:
        yield Ahead(Request("GET", str(number)) for number in range(10))
        yield Request("GET", "0")
        yield Notice("enough")

    with serving(FailingAt(5)) as server:
        assert collect(client(server.url), conversation()) == [Notice("enough")]


def test_a_conversation_that_ends_early_leaves_nothing_behind() -> None:
    told: list[Any] = []
    vendor = Pages(lambda page: 0.02 if page < 6 else 30, size=1_500_000)
    with serving(vendor) as server:
        with Client(Tiny(), tiny_settings(server.url), on_exchange=lambda *exchange: told.append(exchange)) as opened:
            items = opened.stream(pages(30))
            next(items)
            time.sleep(0.5)
            began = time.monotonic()
            items.close()
            assert time.monotonic() - began < 1
        told_of = {url.rpartition("/")[2]: status for url, status, _ in told}
        assert told_of == {answer.path.strip("/"): 200 if int(answer.path[1:]) < 6 else None for answer in server.seen}


def test_the_asynchronous_world_leaves_nothing_behind_either() -> None:
    async def run(host: str) -> float:
        async with client(host) as opened:
            items = opened.astream(pages(30))
            assert await items.__anext__() == Notice("0" + "." * 99)
            await asyncio.sleep(0.3)
            began = time.monotonic()
            await items.aclose()
            assert len(asyncio.all_tasks()) == 1
            return time.monotonic() - began

    with serving(Pages(lambda page: 0.02 if page < 6 else 30, size=1_500_000)) as server:
        assert asyncio.run(run(server.url)) < 1


def test_a_cancelled_task_cancels_what_it_sent_early() -> None:
    async def run(host: str) -> None:
        async def read() -> None:
            async with client(host) as opened:
                async for _ in opened.astream(pages(30)):
                    pass

        reading = asyncio.create_task(read())
        await asyncio.sleep(0.3)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert len(asyncio.all_tasks()) == 1

    with serving(Pages(lambda page: 0.02 if page < 6 else 30)) as server:
        began = time.monotonic()
        asyncio.run(run(server.url))
        assert time.monotonic() - began < 2


def test_an_error_in_what_is_announced_is_no_quiet_end(collect: Collect) -> None:
    def requests() -> Iterator[Request]:
        yield Request("GET", "0")
        raise ZeroDivisionError

    def conversation() -> Conversation:
        yield Ahead(requests())
        yield Request("GET", "0")

    with serving(Pages()) as server, pytest.raises(ZeroDivisionError):
        collect(client(server.url), conversation())


def test_abort_ends_all_that_is_under_way(collect: Collect) -> None:
    with serving(Pages(lambda page: 30)) as server:
        opened = client(server.url)
        began = time.monotonic()
        threading.Timer(0.3, opened.abort).start()
        with pytest.raises(UnavailableError, match="aborted"):
            collect(opened, pages(30))
        assert time.monotonic() - began < 1.3


def test_a_page_that_never_ends_is_cut_in_its_turn(collect: Collect) -> None:
    with serving(Pages(lambda page: 5 if page == 3 else 0.0)) as server:
        began = time.monotonic()
        with pytest.raises(UnavailableError, match=r"/3 was not complete after total_timeout \(0.5 s\)"):
            collect(client(server.url, total_timeout=0.5), pages(10))
        assert time.monotonic() - began < 2


def test_a_client_serves_one_conversation_after_the_other() -> None:
    with serving(FailingAt(3)) as server, client(server.url) as opened:
        for _ in range(2):
            with pytest.raises(RefusedError):
                list(opened.stream(pages(9)))
        assert list(opened.stream(pages(3))) == numbers(3)
    with serving(Pages()) as server:
        opened = client(server.url)
        for _ in range(2):  # closed, and opened again
            with opened:
                assert list(opened.stream(pages(20))) == numbers(20)


# A vendor that wants a pause


def limited(status: int, **headers: str) -> Callable[[Answer], None]:
    """Answer the third request with these; it takes as long as those that are sent with it."""

    def script(answer: Answer) -> None:
        time.sleep(0.1)
        if answer.number == 3:
            answer.give(status, b"slowly", **headers)
        else:
            answer.give(body=answer.path.encode())

    return script


@pytest.mark.parametrize("script", [limited(200, X_Quiet="1"), limited(429, Retry_After="1")])
def test_a_pause_holds_every_connection(script: Callable[[Answer], None]) -> None:
    with serving(script) as server:
        with Client(QUIET, token_settings(server.url, max_connections=3), draw=lambda: 0.0) as opened:
            assert len(list(opened.stream(pages(12)))) == 12
        told = server.seen[2].at + 0.1
        assert [answer.at for answer in server.seen if told + 0.05 < answer.at < told + 0.95] == []
        assert server.seen[-1].at > told + 0.95


@pytest.mark.parametrize("script", [limited(200, X_Quiet="9"), limited(429, Retry_After="9")])
def test_a_long_pause_is_left_to_the_caller_and_nothing_is_sent(script: Callable[[Answer], None]) -> None:
    with serving(script) as server:
        settings = token_settings(server.url, max_connections=3)
        with Client(QUIET, settings, draw=lambda: 0.0, defer_after=5) as opened:
            with pytest.raises(WaitError) as caught:
                list(opened.stream(pages(40)))
            assert 8 < (caught.value.retry_after or 0) <= 9
            with pytest.raises(WaitError):
                opened.request(Request("GET", "once more"))
        assert len(server.seen) <= 5


def test_a_pause_over_max_wait_ends_in_words() -> None:
    with serving(lambda answer: answer.give(X_Quiet="100000")) as server:
        with Client(QUIET, token_settings(server.url)) as opened:
            opened.request(Request("GET", "x")).body.close()
            with pytest.raises(UnavailableError, match=r"no further request yet.*more than max_wait \(86400 s\)"):
                opened.request(Request("GET", "x"))
        assert len(server.seen) == 1


class Quiet(TinyTokens):
    """The vendor with a budget, without tokens."""

    def credential_request(self, settings: Any) -> None:
        return None


QUIET = Quiet()
