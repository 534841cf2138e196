"""The token that tasks share: how they agree on the one that fetches it, and what a store may do wrong."""

from __future__ import annotations

import json
import logging
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from forked import forked
from tiny import Answer, FileStore, TinyTokens, TokenVendor, serving, token_settings

from airflow_cloudbilling.errors import RefusedError, WaitError
from airflow_cloudbilling.http import shared_token
from airflow_cloudbilling.http.client import Client
from airflow_cloudbilling.http.shared_token import Store
from airflow_cloudbilling.settings import Settings
from airflow_cloudbilling.source import Request

GET = Request("GET", "x")


def fetch(settings: Settings, store: Store | None, **more: Any) -> None:
    with Client(TinyTokens(), settings, store=store, **more) as opened:
        opened.request(GET).body.close()


TASK = """
    import os, signal
    from contextlib import suppress
    from pathlib import Path
    from tiny import FileStore, TinyTokens, token_settings
    from airflow_cloudbilling.http.client import Client
    from airflow_cloudbilling.errors import UnavailableError
    from airflow_cloudbilling.source import Request

    class Last(FileStore):
        def write(self, conn_id, text):
            super().write(conn_id, text)
            os.kill(os.getpid(), signal.SIGKILL)

    def task(host, folder, store):
        shared = {"none": None, "file": FileStore(Path(folder)), "last": Last(Path(folder))}[store]
        with Client(TinyTokens(), token_settings(host, "shared", max_attempts=1), store=shared) as client:
            client.request(Request("GET", "x")).body.close()

    with suppress(UnavailableError):
        task("http://127.0.0.1:1", ".", "none")  # loads what every process needs
"""


def tasks(count: int, host: str, folder: Path, store: str = "file") -> list[int]:
    """Send one request from each of so many processes; return how the processes ended."""
    return forked(count, TASK, host, folder, store)


class Memory:
    """A store that counts, and that a test can look into or break."""

    def __init__(self, text: str | None = None, *, writable: bool = True) -> None:
        self.text = text
        self.writable = writable
        self.writes = 0

    def read(self, conn_id: str) -> str | None:
        return self.text

    def write(self, conn_id: str, text: str) -> None:
        self.text = text
        self.writes += 1

    def says(self, **fields: Any) -> None:
        """Change what stands there, as another task would."""
        self.text = json.dumps({**json.loads(self.text or "{}"), **fields})

    @property
    def entry(self) -> dict[str, Any]:
        return dict(json.loads(self.text or "{}"))


def stored(host: str) -> tuple[Memory, dict[str, Any]]:
    """Return a store with a token that another process fetched, and the connection's fields."""
    store = Memory()
    settings = token_settings(host)
    fetch(settings, store)
    # The password tells this process from the other one: the store does not know it.
    return store, {"host": host, "conn_id": settings.conn_id, "password": "key-of-another-process"}


# Many tasks


def test_fifty_tasks_in_processes_of_their_own_cost_about_one_request(tmp_path: Path) -> None:
    vendor = TokenVendor(delay=0.1)
    with serving(vendor) as server:
        assert tasks(50, server.url, tmp_path) == [0] * 50
        assert vendor.asked <= 2
        assert len(server.seen) == vendor.asked + 50


def test_without_a_store_every_process_has_its_own(tmp_path: Path) -> None:
    vendor = TokenVendor()
    with serving(vendor) as server:
        assert tasks(5, server.url, tmp_path, "none") == [0] * 5
        assert vendor.asked == 5


def test_an_expired_token_is_renewed_once_for_all(tmp_path: Path) -> None:
    vendor = TokenVendor()
    with serving(vendor) as server:
        tasks(1, server.url, tmp_path)
        vendor.revoke()
        assert tasks(20, server.url, tmp_path) == [0] * 20
        assert vendor.asked <= 3


def test_a_token_of_the_store_is_used_by_another_process() -> None:
    vendor = TokenVendor()
    with serving(vendor) as server:
        store, fields = stored(server.url)
        fetch(token_settings(**fields), store)
        assert (vendor.asked, store.writes) == (1, 2)
        assert store.entry["value"] == vendor.given[0]
        assert 3530 < store.entry["until"] - time.time() <= 3540  # a minute before its end
        assert fields["password"] not in str(store.text)


@pytest.mark.parametrize("change", [{"login": "other"}, {"client_id": "other"}, {"host": "http://localhost:1"}])
def test_the_token_of_the_connection_as_it_was_is_not_used(change: dict[str, str]) -> None:
    vendor = TokenVendor()
    with serving(vendor) as server:
        store, fields = stored(server.url)
        if "host" in change:
            change = {"host": server.url.replace("127.0.0.1", "localhost")}
        fetch(token_settings(**{**fields, **change}), store)
        assert vendor.asked == 2


def test_a_wrong_clock_costs_a_renewal_at_most() -> None:
    vendor = TokenVendor()
    with serving(vendor) as server:
        store, fields = stored(server.url)
        store.says(until=time.time() - 7200)  # the vendor would still take it
        fetch(token_settings(**fields), store)
        assert vendor.asked == 2
        store, fields = stored(server.url)
        store.says(until=time.time() + 7200)
        vendor.revoke()
        fetch(token_settings(**fields), store)
        assert vendor.asked == 4


# Leases


class Slow(Memory):
    """Takes between 0.1 and 0.2 seconds to write."""

    def write(self, conn_id: str, text: str) -> None:
        self.writes += 1
        time.sleep(0.1 + 0.1 / self.writes)
        self.text = text


def test_tasks_that_find_nothing_at_the_same_moment_agree_in_a_slow_store() -> None:
    vendor, store = TokenVendor(), Slow()
    with serving(vendor) as server, ThreadPoolExecutor(4) as threads:
        passwords = [f"key-of-process-{number}" for number in range(4)]
        settings = [token_settings(server.url, "at_once", password=password) for password in passwords]
        list(threads.map(lambda one: fetch(one, store, draw=lambda: 0.0), settings))
        assert vendor.asked == 1


def test_a_task_waits_for_the_one_that_holds_the_lease() -> None:
    vendor = TokenVendor()
    with serving(vendor) as server:
        store, fields = stored(server.url)
        token = store.entry["value"]
        store.says(value="", lease="another task", until=time.time() + 60)
        threading.Timer(0.8, lambda: store.says(value=token, lease="", until=time.time() + 60)).start()
        began = time.monotonic()
        fetch(token_settings(**fields), store)
        assert time.monotonic() - began >= 0.8
        assert vendor.asked == 1


def test_the_lease_of_a_dead_task_ends() -> None:
    vendor = TokenVendor()
    with serving(vendor) as server:
        store, fields = stored(server.url)
        store.says(value="", lease="a dead task", until=time.time() + 1)
        began = time.monotonic()
        fetch(token_settings(**fields), store)
        assert 0.9 < time.monotonic() - began < 5
        assert store.entry["value"] == vendor.given[1]


def test_the_lease_of_a_dead_task_ends_though_its_clock_was_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_token, "LEASE", 1.0)
    vendor = TokenVendor()
    with serving(vendor) as server:
        store, fields = stored(server.url)
        store.says(value="", lease="a dead task", until=time.time() + 7200)
        began = time.monotonic()
        fetch(token_settings(**fields), store)
        assert 0.9 < time.monotonic() - began < 5
        assert store.entry["value"] == vendor.given[1]


def test_a_killed_holder_is_followed_by_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_token, "LEASE", 1.5)
    vendor = TokenVendor()
    with serving(vendor) as server:
        assert tasks(1, server.url, tmp_path, "last") == [-signal.SIGKILL]
        assert json.loads((tmp_path / "shared").read_text())["lease"]
        assert vendor.asked == 0
        fetch(token_settings(server.url, "shared"), FileStore(tmp_path))
        assert vendor.asked == 1


def test_a_failure_gives_the_lease_back() -> None:
    vendor = TokenVendor()
    vendor.instead = lambda answer: answer.give(400, b"no")
    with serving(vendor) as server:
        store = Memory()
        with pytest.raises(RefusedError):
            fetch(token_settings(server.url, "given_back"), store)
        vendor.instead = None
        began = time.monotonic()
        fetch(token_settings(server.url, "given_back"), store)
        assert time.monotonic() - began < 5
        assert vendor.asked == 2


def test_the_token_endpoints_wait_is_kept_by_every_task() -> None:
    vendor = TokenVendor()

    def once(answer: Answer) -> None:
        vendor.instead = None
        answer.give(429, Retry_After="3")

    vendor.instead = once
    with serving(vendor) as server:
        store = Memory()
        for _ in range(4):
            with pytest.raises(WaitError) as caught:
                fetch(token_settings(server.url, "waiting"), store, defer_after=0.5)
            assert 0 < (caught.value.retry_after or 0) <= 3
        assert vendor.asked == 1
        fetch(token_settings(server.url, "waiting"), store)
        assert server.seen[1].at - server.seen[0].at >= 2.9


# Stores that are of little use


class Full(Memory):
    def write(self, conn_id: str, text: str) -> None:
        raise OSError(f"disk full at {text}")


class Broken(Memory):
    def read(self, conn_id: str) -> str | None:
        raise OSError("unreachable, with password=secret")


class FullAtTheEnd(Memory):
    def write(self, conn_id: str, text: str) -> None:
        if json.loads(text)["value"]:
            raise OSError(f"disk full at {text}")
        super().write(conn_id, text)


@pytest.mark.parametrize("store", [Full(), Broken(), FullAtTheEnd()])
def test_a_store_that_fails_is_warned_of_and_the_process_has_its_own(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    vendor = TokenVendor()
    with serving(vendor) as server:
        fetch(token_settings(server.url), store)
        assert vendor.asked == 1
    assert "cannot be shared with other tasks (OSError)" in caplog.text
    assert vendor.given[0] not in caplog.text
    assert "secret" not in caplog.text


class Forgetful(Memory):
    def write(self, conn_id: str, text: str) -> None:
        """Lose it."""


def test_a_store_that_forgets_does_not_hold_a_task_up_for_good(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shared_token, "LEASE", 1.0)
    vendor = TokenVendor()
    with serving(vendor) as server:
        fetch(token_settings(server.url), Forgetful())
        assert vendor.asked == 1
    assert "tasks did not agree" in caplog.text


def test_a_store_that_is_only_read_is_not_written() -> None:
    vendor = TokenVendor()
    with serving(vendor) as server:
        store, fields = stored(server.url)
        store.writable = False
        fetch(token_settings(**fields), store)
        assert vendor.asked == 1
        vendor.revoke()
        fetch(token_settings(**{**fields, "password": "third-process"}), store)
        assert (vendor.asked, store.writes) == (2, 2)


@pytest.mark.parametrize(
    "text", ["", "{", "null", "[1]", '"text"', '{"value": "x"}', '{"for": [1]}', "[" * 100_000, "\0"]
)
def test_garbage_in_the_store_is_ignored(text: str, caplog: pytest.LogCaptureFixture) -> None:
    vendor = TokenVendor()
    with serving(vendor) as server:
        store = Memory(text)
        fetch(token_settings(server.url), store)
        assert store.entry["value"] == vendor.given[0]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize(
    "fields",
    [{"until": "soon"}, {"until": None}, {"until": float("nan")}, {"until": float("inf")}, {"value": 7}, {"lease": []}],
)
def test_a_damaged_entry_is_ignored(fields: dict[str, Any]) -> None:
    vendor = TokenVendor()
    with serving(vendor) as server:
        store, connection = stored(server.url)
        store.says(**{"value": "", **fields})
        fetch(token_settings(**connection), store)
        assert vendor.asked == 2
