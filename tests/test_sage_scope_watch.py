"""Noticing new data at Sage: one event for each new file, none for the same one, whatever Sage says of itself."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import Asset, AssetWatcher
from airflow.triggers.base import BaseEventTrigger
from sages import CONN_ID, connect
from tiny import FileStore

from airflow_cloudbilling.assets import scope_asset
from airflow_cloudbilling.hooks.sage import SageConnectedCloudHook
from airflow_cloudbilling.sandbox.sage import Sage
from airflow_cloudbilling.sandbox.server import Sandbox
from airflow_cloudbilling.sandbox.vendor import Answer
from airflow_cloudbilling.triggers.sage_scope import SageScopeTrigger

PRODUCTS = "/sage/api/files/Products"
SECONDS = 20.0  # for anything; a machine that tests is busy


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileStore:
    """Keep API keys in files: outside a task there are no Variables."""
    monkeypatch.setenv("AIRFLOW__CLOUDBILLING__CREDENTIAL_STORE", "tiny.FileStore")
    monkeypatch.setenv("TINY_STORE", str(tmp_path))
    return FileStore(tmp_path)


class Kept:
    """What Airflow's store of asset states does, on this side of it."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    async def aget(self, key: str, default: Any = None) -> Any:
        return json.loads(self.values[key]) if key in self.values else default

    async def aset(self, key: str, value: Any) -> None:
        self.values[key] = json.dumps(value)


class Watching:
    """A trigger that runs, as a triggerer runs it."""

    def __init__(self, vendor: Sandbox, trigger: SageScopeTrigger) -> None:
        self.vendor = vendor
        self.events: list[dict[str, Any]] = []
        self._task = asyncio.create_task(self._run(trigger))

    async def _run(self, trigger: SageScopeTrigger) -> None:
        async for event in trigger.run():
            self.events.append(event.payload)

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait for something to be true while the trigger runs."""
        end = time.monotonic() + SECONDS
        while not condition():
            assert not self._task.done(), self._task.exception()
            assert time.monotonic() < end, "it did not come true in time"
            await asyncio.sleep(0.02)

    async def asked(self, times: int) -> None:
        """Wait until Sage has been asked so many times more, and has answered."""
        before = len(self.vendor.requests)
        await self.until(lambda: len(self.vendor.requests) >= before + times)

    async def stop(self) -> None:
        """Cancel it once, as Airflow does; it ends."""
        self._task.cancel()
        _, running = await asyncio.wait({self._task}, timeout=SECONDS)
        assert not running


def watching(
    vendor: Sandbox, body: Callable[[Watching], Awaitable[None]], kept: Kept | None = None, **changed: Any
) -> list[dict[str, Any]]:
    """Run a trigger while the body acts, and return what it told."""

    async def run() -> list[dict[str, Any]]:
        trigger = SageScopeTrigger(**{"conn_id": CONN_ID, "scope": "Products", "poll_interval": 0.05, **changed})
        if kept is not None:
            trigger.asset_state_store = kept
        watch = Watching(vendor, trigger)
        try:
            await body(watch)
        finally:
            await watch.stop()
        return watch.events

    return asyncio.run(run())


def change(sage: Sage, number: int) -> None:
    sage.shelf.scopes["Products"] = json.dumps([{"id": "P-1", "version": number}]).encode()


@pytest.mark.parametrize("validators", [("ETag", "Last-Modified"), ("ETag",), ("Last-Modified",), ()])
def test_each_new_file_is_told_once(validators: Collection[str], vendor: Sandbox, sage: Sage) -> None:
    sage.shelf.validators = validators

    async def body(watch: Watching) -> None:
        for number in range(1, 4):
            change(sage, number)
            await watch.until(lambda number=number: len(watch.events) == number)
            await watch.asked(3)

    told = watching(vendor, body)
    assert len({one["sha256"] for one in told}) == len(told) == 3
    assert told[-1]["size"] == len(sage.shelf.scopes["Products"])
    assert set(told[-1]) == {"conn_id", "scope", "sha256", "size"}
    assert {one.status for one in vendor.requests} == ({200, 304} if validators else {200})


def test_a_file_that_was_written_again_as_it_was_is_not_told(vendor: Sandbox, sage: Sage) -> None:
    sage.shelf.validators = ("Last-Modified",)

    async def body(watch: Watching) -> None:
        change(sage, 1)
        await watch.until(lambda: watch.events)
        sage.shelf.touch("Products")
        await watch.asked(4)

    assert len(watching(vendor, body)) == 1
    assert sum(one.status == 200 for one in vendor.requests) == 2


def test_what_was_seen_outlives_the_triggerer_where_airflow_keeps_it(vendor: Sandbox, sage: Sage) -> None:
    kept = Kept()

    async def told(watch: Watching) -> None:
        await watch.until(lambda: watch.events)
        await watch.asked(1)  # so that it was kept

    async def same(watch: Watching) -> None:
        await watch.asked(3)

    assert len(watching(vendor, told, kept)) == 1
    before = len(vendor.requests)
    assert watching(vendor, same, kept) == []
    assert {one.status for one in vendor.requests[before:]} == {304}
    change(sage, 2)
    assert len(watching(vendor, told, kept)) == 1
    assert len(watching(vendor, told, kept, scope="Customers")) == 1  # what is kept of another scope says nothing


def test_without_such_a_store_a_restart_tells_again(vendor: Sandbox, sage: Sage) -> None:
    async def body(watch: Watching) -> None:
        await watch.until(lambda: watch.events)

    assert watching(vendor, body) == watching(vendor, body)


@pytest.mark.parametrize(
    "answer",
    [
        Answer.text(503, "down", Retry_After="0"),
        Answer.text(404, "no such scope"),
        Answer(200, ()),
        Answer(200, (b"<html>log in</html>",)),
        Answer(304, ()),
    ],
)
def test_no_answer_ends_the_watch_and_none_that_is_no_file_is_told(
    answer: Answer, vendor: Sandbox, sage: Sage, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(vendor, monkeypatch, max_attempts=1)
    vendor.serve(PRODUCTS, answer)

    async def body(watch: Watching) -> None:
        await watch.asked(3)
        assert watch.events == []
        vendor.serve(PRODUCTS, Answer(200, (b"[]",)))
        await watch.until(lambda: watch.events)

    (told,) = watching(vendor, body)
    assert told["size"] == 2


def test_an_expired_key_is_never_rotated_here_and_a_new_one_is_taken(
    vendor: Sandbox, sage: Sage, capsys: pytest.CaptureFixture[str]
) -> None:
    async def body(watch: Watching) -> None:
        await watch.until(lambda: watch.events)
        sage.expire_key()
        change(sage, 2)
        await asyncio.sleep(0.5)
        assert (len(watch.events), sage.rotations) == (1, 0)
        await asyncio.to_thread(SageConnectedCloudHook().rotate_api_key)  # as a task on a worker does
        await watch.until(lambda: len(watch.events) == 2)

    watching(vendor, body)
    assert sage.rotations == 1
    assert "Nothing is seen until then" in capsys.readouterr().out


def test_a_connection_that_is_missing_or_changed_is_seen_without_a_restart(
    vendor: Sandbox, sage: Sage, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"AIRFLOW_CONN_{CONN_ID.upper()}"
    monkeypatch.delenv(name)

    async def body(watch: Watching) -> None:
        await asyncio.sleep(0.3)
        connect(vendor, monkeypatch, host="http://elsewhere.example")  # refused: no https
        await asyncio.sleep(0.3)
        connect(vendor, monkeypatch)
        await watch.until(lambda: watch.events)

    assert len(watching(vendor, body)) == 1


def test_watchers_of_a_connection_share_its_client(
    vendor: Sandbox, sage: Sage, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(vendor, monkeypatch, max_connections=2)
    scopes = [f"Scope{number}" for number in range(20)]
    sage.shelf.scopes |= dict.fromkeys(scopes, b"[]")
    open_at_once = []

    async def run() -> None:
        before = sockets()
        watches = [Watching(vendor, SageScopeTrigger(CONN_ID, scope, 0.1)) for scope in scopes]
        asked = len(vendor.requests) + 10 * len(scopes)

        def enough() -> bool:
            open_at_once.append(sockets() - before)
            return len(vendor.requests) >= asked and all(watch.events for watch in watches)

        await watches[0].until(enough)
        for watch in watches:
            await watch.stop()

    asyncio.run(run())
    assert max(open_at_once) <= 2 * 2 + 4  # both ends of two connections, which are here, and one of each that closes


def sockets() -> int:
    """Return how many sockets this process has open."""
    return sum(file.is_socket() for file in Path("/proc/self/fd").iterdir())


def test_a_watch_that_is_cancelled_ends_whatever_it_is_doing(vendor: Sandbox, sage: Sage) -> None:
    async def run() -> None:
        for number in range(100):
            watch = Watching(vendor, SageScopeTrigger(CONN_ID, "Products", 0.001))
            if number % 2:
                await watch.asked(1)  # what was asked for comes just now
            else:
                await asyncio.sleep(number / 2000)
            await watch.stop()

    asyncio.run(run())


def test_airflow_takes_it_as_a_watcher_made_of_plain_values() -> None:
    trigger = SageScopeTrigger("sage", "Products", 60)
    path, arguments = trigger.serialize()
    assert path == "airflow_cloudbilling.triggers.sage_scope.SageScopeTrigger"
    assert json.loads(json.dumps(arguments)) == {"conn_id": "sage", "scope": "Products", "poll_interval": 60}
    assert BaseEventTrigger.hash(path, arguments) == BaseEventTrigger.hash(*SageScopeTrigger(**arguments).serialize())
    asset = scope_asset("sage", "Products", AssetWatcher(name="w", trigger=trigger))
    assert (asset.uri, [one.name for one in asset.watchers]) == ("cloudbilling://sage/scope/Products", ["w"])
    assert "queue" not in vars(trigger)


def test_a_scopes_asset_keeps_its_name_in_one_part() -> None:
    assert scope_asset("sage", "Ä/b?").uri == "cloudbilling://sage/scope/%C3%84%2Fb%3F"
    for odd in ("cloudbilling://sage/scope", "cloudbilling://sage/scope/a/b", "cloudbilling://sage/other"):
        with pytest.raises(ValueError, match="is neither cloudbilling://"):
            Asset(odd)
