"""Waiting, without a worker, until a vendor has invoices of a period."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_cloudbilling.errors import CloudBillingError, ConfigurationError, RefusedError, UnavailableError

if TYPE_CHECKING:
    from airflow_cloudbilling.http.client import Client
    from airflow_cloudbilling.readiness import Readiness


class InvoicesReadyTrigger(BaseTrigger):
    """Asks a vendor again and again; yields one event: ``ready``, ``timeout`` or ``failed``.

    A vendor that cannot be reached now does not end the wait, and one that names a longer wait than the interval is
    not asked before. Nothing is kept: a trigger that another triggerer takes over goes on where it was.

    :param conn_id: connection of a billing vendor.
    :param question: what :class:`~airflow_cloudbilling.readiness.Readiness` takes, as plain values.
    :param deadline: seconds since the epoch at which the wait is over.
    :param poll_interval: seconds between two questions.
    """

    def __init__(self, conn_id: str, question: Mapping[str, Any], deadline: float, poll_interval: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # Airflow says no types of it
        self.conn_id = conn_id
        self.question = dict(question)
        self.deadline = deadline
        self.poll_interval = poll_interval
        self._client: Client | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and what it is made of; plain values, no secrets."""
        names = ("conn_id", "question", "deadline", "poll_interval")
        return f"{__name__}.{type(self).__name__}", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield the one event."""
        try:
            event = await self._wait()
        except (ConfigurationError, RefusedError) as error:
            event = {"status": "failed", "message": str(error), "for_good": True}
        except CloudBillingError as error:
            event = {"status": "failed", "message": str(error), "for_good": False}
        yield TriggerEvent(event)

    async def cleanup(self) -> None:
        """Close the connections, however the wait ends."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _wait(self) -> dict[str, Any]:
        from airflow_cloudbilling.hooks.billing import BillingHook
        from airflow_cloudbilling.readiness import Readiness

        hook = BillingHook(self.conn_id)
        settings = await hook.aget_settings()
        open_client = partial(hook.get_conn, keeps_tokens=False, defer_after=self.poll_interval)
        self._client = client = await asyncio.to_thread(open_client)
        try:
            while (left := self.deadline - time.time()) > 0:
                readiness = Readiness(hook.source, settings, **self.question)
                pause = await self._ask(client, readiness, left)
                if readiness.ready:
                    return {"status": "ready", "message": readiness.words}
                self.log.info("%s; asking again in %.0f s.", readiness.words, pause)
                await asyncio.sleep(max(0.0, min(pause, self.deadline - time.time())))
            return {"status": "timeout", "message": "the time to wait is over"}
        finally:
            await self.cleanup()

    async def _ask(self, client: Client, readiness: Readiness, seconds: float) -> float:
        """Ask once, within so many seconds; return those before the next question."""
        try:
            await asyncio.wait_for(_hold(client, readiness), seconds)
        except asyncio.TimeoutError:
            readiness.words = "the vendor had not answered when the time to wait was over"
        except UnavailableError as error:
            readiness.words = str(error)
            return max(self.poll_interval, error.retry_after or 0)
        return self.poll_interval


async def _hold(client: Client, readiness: Readiness) -> None:
    """Hold the conversation; answers may be large, so that they are read off the loop."""
    reader = ThreadPoolExecutor(1, "cloudbilling-read")
    try:
        async with aclosing(client.astream(readiness.conversation(), reader=reader)) as items:
            async for _ in items:
                pass
    finally:
        reader.shutdown(wait=False)
