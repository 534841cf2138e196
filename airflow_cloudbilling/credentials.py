"""Access tokens: fetched once, used by every client of a process, and through a store by tasks anywhere.

A token that other tasks can use costs the vendor's token endpoint one request instead of one for each task. Tasks that
find none at the same moment agree in the store on the one that fetches it: each waits a random moment, writes a
*lease*, looks whether it is still its own, and only then asks.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import random
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from uuid import uuid4

from airflow_cloudbilling.source import Reply, Request, Source

if TYPE_CHECKING:
    from airflow_cloudbilling.settings import Settings

MARGIN = 60.0  # seconds before its end in which a token is no longer used, at most a tenth of its lifetime
LEASE = 60.0  # seconds after which the task that wanted to fetch a token is taken for dead
_JITTER = 0.5
_SETTLE = 0.25  # between writing a lease and trusting it; longer than a look and a write take
_LOOK = 0.2

log = logging.getLogger(__name__)


class Store(Protocol):
    """Where tokens are kept for other tasks; its methods may block, and are called in a thread of their own."""

    writable: bool

    def read(self, conn_id: str) -> str | None:
        """Return what was written last for the connection, if anything."""

    def write(self, conn_id: str, text: str) -> None:
        """Keep a text, which holds a secret."""


class Token(NamedTuple):
    """An access token, good before ``until`` (seconds since the epoch)."""

    value: str
    until: float

    def good(self, refused: str | None) -> bool:
        """Whether it may be used: not over, and not the one that the vendor refused."""
        return self.until > time.time() and self.value != refused


_KNOWN: dict[str, Token] = {}
_LOCKS: dict[str, threading.Lock] = {}


class Credentials:
    """The access token of one connection.

    :param fetch: sends the source's credential request and returns the good reply.
    :param learn: is told each token before it is used, so that no log shows it; may block.
    :param store: shared with other tasks; None: every process has its own token.
    :param draw: the random numbers in [0, 1) of the jitter.
    """

    def __init__(
        self,
        source: Source,
        settings: Settings,
        fetch: Callable[[Request], Awaitable[Reply]],
        learn: Callable[[str], None],
        store: Store | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._source = source
        self._settings = settings
        self._fetch_reply = fetch
        self._learn = learn
        self._store = store
        self._draw = draw
        self._learnt: set[str] = set()
        request = source.credential_request(settings)
        self._wanted = request is not None
        asked = [request.path, settings.login, dict(request.form or {}).get("client_id")] if request else []
        self._key = hashlib.sha256(json.dumps([settings.conn_id, settings.base_url, *asked]).encode()).hexdigest()

    async def get(self, refused: str | None = None) -> str | None:
        """Return a token, or None for a vendor that wants none.

        :param refused: the one that the vendor takes no longer.
        :raises VendorError: when the vendor gives none.
        """
        if not self._wanted:
            return None
        token = _KNOWN.get(self._key)
        if token is None or not token.good(refused):
            async with self._alone():
                token = await self._one(refused)
                _KNOWN[self._key] = token
        if token.value not in self._learnt:
            await asyncio.to_thread(self._learn, token.value)
            self._learnt.add(token.value)
        return token.value

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Let one client of the process at a time look for a token, on whatever event loop it runs."""
        lock = _LOCKS.setdefault(self._key, threading.Lock())
        while not lock.acquire(blocking=False):
            await asyncio.sleep(0.02)
        try:
            yield
        finally:
            lock.release()

    async def _one(self, refused: str | None) -> Token:
        token = _KNOWN.get(self._key)
        if token and token.good(refused):  # somebody else was quicker
            return token
        if self._store is None:
            return await self._fetch()
        if not self._store.writable:
            return _token(await self._read(), refused) or await self._fetch()
        return await self._agreed(refused)

    async def _agreed(self, refused: str | None) -> Token:
        """Return the token of the store; fetch it when this task is the one whose lease stands there."""
        own = uuid4().hex
        while True:
            entry = await self._read()
            if token := _token(entry, refused):
                return token
            holder = entry.get("lease") if entry.get("until", 0) > time.time() else None
            if holder == own:
                return await self._fetch_for_all()
            if holder:
                await asyncio.sleep(_LOOK * (1 + self._draw()))
                continue
            await asyncio.sleep(_JITTER * self._draw())
            if await self._read() == entry:
                if not await self._write({"lease": own, "until": time.time() + LEASE}):
                    return await self._fetch()
                await asyncio.sleep(_SETTLE)

    async def _fetch_for_all(self) -> Token:
        entry: dict[str, Any] = {"lease": "", "until": 0}  # when it fails, the next one may try at once
        try:
            token = await self._fetch()
            entry = {"value": token.value, "until": token.until}
        finally:
            await self._write(entry)
        return token

    async def _fetch(self) -> Token:
        request = self._source.credential_request(self._settings)
        assert request is not None
        reply = await self._fetch_reply(request)
        with reply.body:
            credential = self._source.credential(reply, self._settings)
        margin = min(MARGIN, credential.lifetime / 10)
        return Token(credential.value, time.time() + credential.lifetime - margin)

    async def _read(self) -> dict[str, Any]:
        assert self._store is not None
        try:
            text = await asyncio.to_thread(self._store.read, self._settings.conn_id)
            entry = json.loads(text) if text else {}
        except ValueError:
            entry = {}
        same = isinstance(entry, dict) and entry.get("for") == self._key  # the connection may have been changed since
        return entry if same else {}

    async def _write(self, entry: dict[str, Any]) -> bool:
        """Keep an entry; a store that cannot is no reason to fail, every process then has its own token."""
        assert self._store is not None
        try:
            await asyncio.to_thread(self._store.write, self._settings.conn_id, json.dumps({**entry, "for": self._key}))
        except Exception as error:  # stores raise what their backends raise
            words = "Connection %r: the access token cannot be kept for other tasks (%s); this process uses its own."
            log.warning(words, self._settings.conn_id, type(error).__name__)
            return False
        return True


def _token(entry: dict[str, Any], refused: str | None) -> Token | None:
    value, until = entry.get("value"), entry.get("until")
    if not isinstance(value, str) or not isinstance(until, (int, float)):
        return None
    token = Token(value, until)
    return token if token.good(refused) else None
