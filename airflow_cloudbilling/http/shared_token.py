"""One access token for tasks in many processes, kept in a store that knows nothing but to read and to write.

It costs the vendor's token endpoint one request instead of one for each task. Tasks that find none at the same moment
agree on the one that fetches it: each waits a random moment, writes a *lease* if nobody did, waits until every other
write must have been seen, looks whether the lease is still its own, and only then asks.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable
from uuid import uuid4

from airflow_cloudbilling.errors import CloudBillingError, UnavailableError

LEASE = 75.0  # seconds after which the task that wanted to fetch a token is taken for dead; it may wait for 60 of them
_JITTER = 0.5
_SETTLE = 0.25  # between writing a lease and trusting it, at least
_LOOK = 0.2
_T = TypeVar("_T")

log = logging.getLogger(__name__)


@runtime_checkable
class Store(Protocol):
    """Where tokens are kept for other tasks; its methods may block, and are called in a thread of their own."""

    writable: bool

    def read(self, conn_id: str) -> str | None:
        """Return what was written last for the connection, if anything."""

    def write(self, conn_id: str, text: str) -> None:
        """Keep a text, which holds a secret."""


class Token(NamedTuple):
    """An access token, good before ``until`` (seconds since the epoch).

    :param fetched: when this process got it from the vendor, on the monotonic clock; 0: it stood in a store.
    """

    value: str
    until: float
    fetched: float = 0.0

    def good(self, refused: str | None) -> bool:
        """Whether it may be used: not over, and not the one that the vendor refused."""
        return self.until > time.time() and self.value != refused


class Entry(NamedTuple):
    """What stands in the store: a token, a lease, or, without either, that nobody may ask before ``until``."""

    value: str = ""
    lease: str = ""
    until: float = 0.0

    @staticmethod
    def read(text: str | None, owner: str) -> Entry:
        """Return what a text says; nothing when it is garbage, or of the connection as it was before a change."""
        try:
            found = json.loads(text or "null")
        except (ValueError, RecursionError):
            return NOTHING
        if not isinstance(found, dict) or found.get("for") != owner:
            return NOTHING
        value, lease, until = (found.get(name) for name in Entry._fields)
        if isinstance(value, str) and isinstance(lease, str) and isinstance(until, float) and math.isfinite(until):
            return Entry(value, lease, until)
        return NOTHING


NOTHING = Entry()  # it alone means that a text says nothing; what was written is never the same object


class StoreError(Exception):
    """The store is of no use; the message says why, without a secret.

    :param fault: an error of ours that says so in whole sentences, if that is what it was.
    """

    def __init__(self, message: str, fault: CloudBillingError | None = None) -> None:
        super().__init__(message)
        self.fault = fault


class SharedToken:
    """The access token of one connection, kept in a store.

    :param owner: tells the connection from what it was before a change; no secret.
    :param fetch: asks the vendor for a token.
    :param rest: waits for so many seconds, or raises when that is too long.
    :param draw: the random numbers in [0, 1) of the jitter.
    """

    def __init__(
        self,
        store: Store,
        owner: str,
        conn_id: str,
        fetch: Callable[[], Awaitable[Token]],
        rest: Callable[[float], Awaitable[None]],
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._conn_id = conn_id
        self._owner = owner
        self._fetch = fetch
        self._rest = rest
        self._draw = draw

    async def get(self, refused: str | None) -> Token:
        """Return the token of the store, or fetch one, for all if possible; a useless store is no reason to fail.

        :param refused: the token that the vendor takes no longer.
        :raises VendorError: when the vendor gives none.
        """
        try:
            token = await self._agreed(refused)
        except StoreError as error:
            self._do_without(error)
            token = None
        return token or await self._fetch()

    async def stored(self, refused: str | None) -> Token | None:
        """Return the token of the store if it is another than the refused one; nothing is fetched."""
        try:
            entry = await self._read()
        except StoreError as error:
            self._do_without(error)
            return None
        token = Token(entry.value, entry.until)
        return token if entry.value and token.good(refused) else None

    async def _agreed(self, refused: str | None) -> Token | None:
        """Return a token that all may use, or None when this process is to have its own."""
        lease, seen, end = "", 0.0, time.monotonic() + 2 * LEASE
        while (now := time.monotonic()) < end:
            entry = await self._read()
            seconds = entry.until - time.time()
            if entry.value and (token := Token(entry.value, entry.until)).good(refused):
                return token
            if entry.lease != lease:
                lease, seen = entry.lease, now
            if seconds > 0 and not entry.value and not lease:
                end += seconds
                await self._rest(seconds)
            elif not self._store.writable:
                return None
            elif seconds > 0 and lease and now - seen < LEASE:  # by the own clock too: the holder's may be wrong
                await asyncio.sleep(_LOOK * (1 + self._draw()))
            elif await self._claimed(entry):
                return await self._fetch_for_all()
        raise StoreError("tasks did not agree on the one that fetches it")

    async def _claimed(self, entry: Entry) -> bool:
        """Write a lease in place of an entry; return whether it stands when every other task must have seen it."""
        own = Entry(lease=uuid4().hex, until=time.time() + LEASE)
        await asyncio.sleep(_JITTER * self._draw())
        began = time.monotonic()
        if await self._read() != entry:
            return False
        await self._write(own)
        await asyncio.sleep(max(_SETTLE, 2 * (time.monotonic() - began)))
        return (await self._read()).lease == own.lease

    async def _fetch_for_all(self) -> Token:
        entry = Entry()  # when it fails, the next one may try at once
        try:
            token = await self._fetch()
            entry = Entry(token.value, until=token.until)
            return token
        except UnavailableError as error:
            entry = Entry(until=time.time() + (error.retry_after or 0))
            raise
        finally:
            try:
                await self._write(entry)
            except StoreError as error:
                self._do_without(error)

    async def _read(self) -> Entry:
        return Entry.read(await self._call(self._store.read, self._conn_id), self._owner)

    async def _write(self, entry: Entry) -> None:
        await self._call(self._store.write, self._conn_id, self._text(entry))

    def _text(self, entry: Entry) -> str:
        return json.dumps({"for": self._owner, **entry._asdict()})

    async def _call(self, method: Callable[..., _T], *args: str) -> _T:
        """Call a method of the store in a thread; what it raises may quote what was written."""
        try:
            return await asyncio.to_thread(method, *args)
        except CloudBillingError as error:
            raise StoreError(str(error), error) from None
        except Exception as error:  # stores raise what their backends raise
            raise StoreError(type(error).__name__) from None

    def _do_without(self, error: StoreError) -> None:
        words = "Connection %r: the access token cannot be shared with other tasks (%s); this process uses its own."
        log.warning(words, self._conn_id, error)
