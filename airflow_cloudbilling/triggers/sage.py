"""Waiting, without a worker, until Sage has made up its mind about an upload."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_cloudbilling.errors import (
    CloudBillingError,
    ConfigurationError,
    ExpiredKeyError,
    RefusedError,
)
from airflow_cloudbilling.http.deadlines import within

if TYPE_CHECKING:
    from airflow_cloudbilling.hooks.sage import SageConnectedCloudHook
    from airflow_cloudbilling.http.client import Client
    from airflow_cloudbilling.sources.sage_watch import Watch

_FRESH = 60.0  # seconds for which a connection that was read is taken as it is


class SageUploadTrigger(BaseTrigger):
    """Asks Sage for an upload again and again; yields one event: ``ended``, ``timeout``, ``renew`` or ``failed``.

    All triggers of a triggerer share one client for each connection. An outage does not end the wait. The API key is
    never rotated here: when the stored one is over too, ``renew`` asks a worker to do it. Nothing is kept: a trigger
    that another triggerer takes over goes on where it was.

    :param conn_id: connection of the type ``sage_connected_cloud``.
    :param tracking_id: Sage's id of the upload.
    :param deadline: seconds since the epoch at which the wait is over.
    :param poll_interval: seconds between two questions, give or take a tenth.
    :param outage: seconds for which Sage may be out of reach.
    :param success_states: of an upload; None: the usual.
    :param failure_states: so too.
    :param unknown_until: seconds since the epoch, until which the upload is so new that Sage may not know its id yet.
    :param barren: how often in a row a trigger for this upload ended with ``renew`` and without an answer.
    """

    def __init__(
        self,
        conn_id: str,
        tracking_id: str,
        deadline: float,
        poll_interval: float,
        outage: float,
        success_states: Sequence[str] | None = None,
        failure_states: Sequence[str] | None = None,
        unknown_until: float = 0.0,
        barren: int = 0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # Airflow says no types of it
        self.conn_id = conn_id
        self.tracking_id = tracking_id
        self.deadline = deadline
        self.poll_interval = poll_interval
        self.outage = outage
        self.success_states = None if success_states is None else [*success_states]
        self.failure_states = None if failure_states is None else [*failure_states]
        self.unknown_until = unknown_until
        self.barren = barren

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and what it is made of; plain values, no secrets."""
        own = {name: getattr(self, name) for name in ("conn_id", "tracking_id", "deadline", "poll_interval", "outage")}
        own |= {name: getattr(self, name) for name in ("success_states", "failure_states", "unknown_until", "barren")}
        return f"{__name__}.{type(self).__name__}", own

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield the one event."""
        watch = self._watch()
        try:
            status = await self._wait(watch)
            event: dict[str, Any] = {"status": status, "state": watch.state, "answers": watch.answers}
            event |= {"deadline": self.deadline, "barren": self.barren}
        except (ConfigurationError, RefusedError) as error:
            event = {"status": "failed", "message": str(error), "for_good": True}
        except CloudBillingError as error:
            event = {"status": "failed", "message": str(error), "for_good": False}
        yield TriggerEvent({"tracking_id": self.tracking_id, **event})

    def _watch(self) -> Watch:
        from airflow_cloudbilling.sources.sage_results import States
        from airflow_cloudbilling.sources.sage_watch import Watch

        states = States(self.success_states, self.failure_states)
        return Watch(states, self.poll_interval, self.outage, grace=self.unknown_until - time.time())

    async def _wait(self, watch: Watch) -> str:
        async with shared_client(self.conn_id) as (hook, client):
            pause = self.poll_interval * random.random()  # noqa: S311 # so that thousands do not march in step
            while (left := self.deadline - time.time()) > 0:
                await asyncio.sleep(min(pause, left))
                try:
                    pause = watch.interval * random.uniform(0.9, 1.1)  # noqa: S311 # so too
                    if await self._ask(hook, client, watch):
                        return "ended"
                except asyncio.TimeoutError:
                    break
                except ExpiredKeyError:
                    return "renew"
                except CloudBillingError as error:
                    pause = watch.failed(error)
                    self.log.warning("%s Asking again in %.0f s.", error, pause)
            return "timeout"

    async def _ask(self, hook: SageConnectedCloudHook, client: Client, watch: Watch) -> bool:
        """Ask once, within the time that is left; return whether the upload has ended."""
        left = max(1.0, self.deadline - time.time())
        before = watch.state
        end = watch.said(await within(left, hook.atrack(self.tracking_id, client)))
        if watch.state != before:
            self.log.info("Upload %s is %s.", self.tracking_id, watch.state)
        return end is not None


class _Shared:
    """The client of one connection on one event loop, and how many triggers use it."""

    def __init__(self, conn_id: str) -> None:
        from airflow_cloudbilling.hooks.sage import SageConnectedCloudHook

        self.hook = SageConnectedCloudHook(conn_id)
        self.client: Client | None = None
        self.users = 0
        self._read_at = 0.0
        self._changed = False
        self.opening = asyncio.Lock()

    async def open(self) -> Client:
        """Return the client, opened by whoever comes first."""
        async with self.opening:
            if self.client is None:
                await self.hook.aget_settings()
                self.client = await asyncio.to_thread(self.hook.get_conn, keeps_tokens=False)
                self._read_at = time.monotonic()
            return self.client

    async def is_current(self) -> bool:
        """Whether the connection is still what it was when it was read."""
        async with self.opening:
            if self.client is not None and time.monotonic() - self._read_at > _FRESH:
                self._read_at = time.monotonic()
                now = await type(self.hook)(self.hook.conn_id).aget_settings()
                self._changed = self._changed or now != self.hook.settings
            return not self._changed


_shared: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Shared]] = WeakKeyDictionary()


@asynccontextmanager
async def shared_client(conn_id: str) -> AsyncIterator[tuple[SageConnectedCloudHook, Client]]:
    """Lend the one client that this event loop has for a connection; the last user closes it."""
    ours = _shared.setdefault(asyncio.get_running_loop(), {})
    one = ours.get(conn_id)
    while one is not None and not (await one.is_current() and ours.get(conn_id) is one):
        if ours.get(conn_id) is one:
            del ours[conn_id]  # whoever uses it keeps it to the end
        one = ours.get(conn_id)
    if one is None:
        one = ours[conn_id] = _Shared(conn_id)
    one.users += 1
    try:
        yield one.hook, await one.open()
    finally:
        one.users -= 1
        if not one.users:
            if ours.get(conn_id) is one:
                del ours[conn_id]
            if one.client is not None:
                await one.client.aclose()
