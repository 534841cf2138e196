"""Noticing, without a worker, that Sage has a new file of a scope: the watcher of an asset."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from airflow_cloudbilling.errors import CloudBillingError, ExpiredKeyError, UnavailableError
from airflow_cloudbilling.triggers.sage import shared_client

if TYPE_CHECKING:
    from airflow_cloudbilling.sources.sage_scopes import ScopeVersion

_SEEN = "cloudbilling_scope_seen"  # the key under which Airflow keeps what was seen last


class SageScopeTrigger(BaseEventTrigger):
    """Asks Sage for a scope's file again and again, and yields an event for each new one; it never ends by itself.

    It is asked for with the ETag and the moment that Sage named, so that an unchanged file is not sent; where Sage
    names neither, the file is fetched and its SHA-256 compared. All triggers of a triggerer share one client for each
    connection, and DAGs that watch a scope with the same arguments share one trigger.

    The first file that it sees is new to it. Airflow 3.3 and later keep what was seen last, earlier ones do not: there
    a triggerer that starts tells of the file again. Staging the same file again writes no record.

    No outage ends it, nor a wrong connection: it says so in the log and goes on. It never rotates an API key, and
    there is no worker whom it could ask: as long as the stored key is over it sees nothing. Any task that asks Sage
    rotates the key: let the DAG that waits for the scope run by time as well, say once a day.

    Where Sage's calls of a ``notificationUrl`` reach Airflow, or a service that tells Airflow, it is not needed: see
    ``docs/sage-notifications.md``.

    :param conn_id: connection of the type ``sage_connected_cloud``.
    :param scope: such as ``Products``.
    :param poll_interval: seconds between two questions, give or take a tenth.
    """

    def __init__(self, conn_id: str, scope: str, poll_interval: float = 300.0) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # Airflow says no types of it
        self.conn_id = conn_id
        self.scope = scope
        self.poll_interval = poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and what it is made of; plain values, no secrets."""
        own = {"conn_id": self.conn_id, "scope": self.scope, "poll_interval": self.poll_interval}
        return f"{__name__}.{type(self).__name__}", own

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield ``{conn_id, scope, sha256, size}`` for each new file."""
        seen = await self._remembered()
        pause = self.poll_interval * random.random()  # noqa: S311 # so that many do not march in step
        async with AsyncExitStack() as held:
            while True:
                await asyncio.sleep(pause)
                found, pause = await self._look(seen, held)
                if found is None or found == seen:
                    continue
                if seen is None or found.sha256 != seen.sha256:
                    yield self._told(found)
                seen = found
                await self._remember(found)  # after the event: one that comes twice does no harm, a lost one would

    def _told(self, found: ScopeVersion) -> TriggerEvent:
        self.log.info("Scope %s has a new file of %d bytes.", self.scope, found.size)
        told = {"conn_id": self.conn_id, "scope": self.scope, "sha256": found.sha256, "size": found.size}
        return TriggerEvent(told)

    async def _look(self, seen: ScopeVersion | None, held: AsyncExitStack) -> tuple[ScopeVersion | None, float]:
        """Return the state of the file, the one seen last where none can be had, and the seconds to wait.

        :param held: holds the client of the last good answer, which the next question uses.
        """
        pause = self.poll_interval * random.uniform(0.9, 1.1)  # noqa: S311 # so too
        try:
            async with AsyncExitStack() as taken:
                hook, client = await taken.enter_async_context(shared_client(self.conn_id))  # looks for a changed one
                await held.aclose()
                found = await hook.ascope_version(self.scope, client, seen)
                held.push_async_callback(taken.pop_all().aclose)
                return found, pause
        except ExpiredKeyError as error:
            self.log.warning("%s Nothing is seen until then.", error)
        except (CloudBillingError, AirflowNotFoundException) as error:
            told = error.retry_after if isinstance(error, UnavailableError) else None
            pause = max(pause, told or 0.0)
            self.log.warning("%s Asking again in %.0f s.", error, pause)
        return seen, pause

    async def _remembered(self) -> ScopeVersion | None:
        """Return what was seen last, before a restart too where Airflow keeps it."""
        from airflow_cloudbilling.sources.sage_scopes import ScopeVersion

        store = getattr(self, "asset_state_store", None)
        if store is None:
            return None
        try:
            kept = await store.aget(_SEEN, {})
            own = kept.pop("conn_id"), kept.pop("scope")
            return ScopeVersion(**kept) if own == (self.conn_id, self.scope) else None
        except Exception as error:  # whatever is wrong with the store, the file is then told of again
            self.log.debug("Nothing is kept of scope %s: %r", self.scope, error)
            return None

    async def _remember(self, seen: ScopeVersion) -> None:
        store = getattr(self, "asset_state_store", None)
        if store is None:
            return
        try:
            await store.aset(_SEEN, {"conn_id": self.conn_id, "scope": self.scope, **seen._asdict()})
        except Exception as error:  # so too: a watch goes on without it
            self.log.warning("What was seen of scope %s cannot be kept (%r).", self.scope, error)
