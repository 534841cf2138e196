"""Waiting between requests: as long as the vendor wants it, and no longer than the task runs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from airflow_cloudbilling.redaction import Secrets, redact
from airflow_cloudbilling.urls import target

if TYPE_CHECKING:
    from airflow_cloudbilling.http.transport import Counters
    from airflow_cloudbilling.retry import Judge, Pause
    from airflow_cloudbilling.settings import Settings
    from airflow_cloudbilling.source import Reply, Request

log = logging.getLogger(__name__)


class Pauses:
    """The waits of one client.

    :param judge: says which wait is too long.
    :param counters: told what was waited.
    :param check: raises when the task is being stopped.
    """

    def __init__(
        self, settings: Settings, judge: Judge, secrets: Secrets, counters: Counters, check: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._judge = judge
        self._secrets = secrets
        self._counters = counters
        self._check = check
        self._waits: set[asyncio.Future[None]] = set()
        self._quiet_until = 0.0  # on the monotonic clock: the vendor wants no request before

    async def keep_quiet(self, request: Request, shown: str) -> None:
        """Wait as long as the vendor wants no request; a token endpoint is not meant."""
        while (seconds := self._quiet_until - time.monotonic()) > 0:
            await self._rest(request, shown, seconds)

    async def rest(self, request: Request, seconds: float) -> None:
        """Wait as long as another task was told to by the token endpoint."""
        await self._rest(request, redact(target(request, self._settings).shown, self._secrets), seconds)

    async def between(self, pause: Pause, attempt: int) -> None:
        """Wait before the next attempt."""
        conn_id, last = self._settings.conn_id, self._settings.max_attempts
        words = "Connection %r: %s; waiting %.1f s, then attempt %d of %d"
        log.info(words, conn_id, pause.reason, pause.seconds, attempt + 1, last)
        await self._wait(pause.seconds)
        self._counters.retries += 1

    def hold(self, reply: Reply, seconds: float | None) -> None:
        """Let no request out for a while when there were too many; that means every connection."""
        if reply.status == 429:
            self.be_quiet(seconds, reply.request)

    def be_quiet(self, seconds: float | None, request: Request) -> None:
        """Let no request out for so many seconds, after the answer to one that was not for a token."""
        if seconds is not None and not request.configured:
            self._quiet_until = max(self._quiet_until, time.monotonic() + seconds)

    def end(self) -> None:
        """End every wait, on the loop on which they are."""
        for over in self._waits:
            _end(over)

    async def _rest(self, request: Request, shown: str, seconds: float) -> None:
        pause = self._judge.quiet(request, shown, seconds)
        log.info("Connection %r: %s; waiting %.1f s", self._settings.conn_id, pause.reason, pause.seconds)
        await self._wait(pause.seconds)

    async def _wait(self, seconds: float) -> None:
        self._check()
        over = asyncio.get_running_loop().create_future()
        timer = over.get_loop().call_later(seconds, _end, over)
        self._waits.add(over)
        try:
            await over
        finally:
            timer.cancel()
            self._waits.discard(over)
        self._check()
        self._counters.waited += seconds


def _end(over: asyncio.Future[None]) -> None:
    if not over.done():
        over.set_result(None)
