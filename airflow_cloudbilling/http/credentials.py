"""Access tokens and keys: fetched once, and used by every client of a process; through a store by tasks anywhere."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_cloudbilling.errors import CloudBillingError
from airflow_cloudbilling.http.in_flight import Asked
from airflow_cloudbilling.http.shared_key import NoStore, SharedKey
from airflow_cloudbilling.http.shared_token import SharedToken, Store, Token
from airflow_cloudbilling.source import Reply, Request, Source

if TYPE_CHECKING:
    from airflow_cloudbilling.settings import Settings

_MOST = 3  # refused tokens of one request: its own, one of the store, and the one that was fetched
MARGIN = 60.0  # seconds before its end in which a token is no longer used, at most a tenth of its lifetime
_KNOWN: dict[str, Token] = {}
_REFUSED: dict[str, str] = {}
_LOCKS: dict[str, threading.Lock] = {}


class Credentials:
    """The access token of one connection.

    :param fetch: sends the source's credential request and returns the good reply.
    :param learn: is told each token before it is used, so that no log shows it; may block.
    :param rest: waits for so many seconds because another task was told to, or raises when that is too long.
    :param store: shared with other tasks; None: every process has its own token.
    :param draw: the random numbers in [0, 1) of the jitter.
    """

    def __init__(
        self,
        source: Source,
        settings: Settings,
        fetch: Callable[[Request], Awaitable[Reply]],
        learn: Callable[[str], None],
        rest: Callable[[Request, float], Awaitable[None]],
        store: Store | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._source = source
        self._settings = settings
        self._fetch_reply = fetch
        self._learn = learn
        self._learnt: set[str] = set()
        self._failed: tuple[float, CloudBillingError] | None = None
        self._request = request = source.credential_request(settings)
        self._shared: SharedToken | None = None
        if request is not None:
            client_id = dict(request.form or {}).get("client_id")
            # A hash of this stands in the store, so no password is in it.
            owner = [settings.conn_id, settings.base_url, settings.login, request.path, client_id]
            self._key = _digest([owner, settings.secrets])
            shared = (settings.conn_id, self._fetch, partial(rest, request), draw)
            if source.rotates:  # the first key is random, so that its hash tells nothing
                first = settings.password
                self._shared = SharedKey(store or NoStore(), _digest([*owner, first]), *shared, first=first)
            elif store is not None:
                self._shared = SharedToken(store, _digest(owner), *shared)

    def refuse(self, token: str) -> None:
        """Use a token no longer, in this whole process: the vendor does not take it."""
        _REFUSED[self._key] = token

    async def another(self, asked: Asked, token: Token) -> bool:
        """Use a token no longer that the vendor refused; return whether the request may be sent with another one.

        At most one token is fetched for it, and when that one is refused too, the store is looked at once more:
        another task may have fetched a later one.
        """
        self.refuse(token.value)
        asked.refused += 1
        if asked.renewed or asked.refused > _MOST:
            return False
        if asked.refused == 1 or token.fetched < asked.since:
            return True
        asked.renewed = True
        async with self._alone():
            found = self._known() or (await self._shared.stored(token.value) if self._shared else None)
            if found is not None:
                _KNOWN[self._key] = found
        return found is not None

    async def renew(self) -> None:
        """Fetch a token now, whatever the one of the store is good for.

        :raises VendorError: when the vendor gives none; the one of the store stays in use.
        """
        known, refused = _KNOWN.pop(self._key, None), _REFUSED.get(self._key, "")
        token = await self._shared.stored(None) if self._shared else known
        self.refuse(token.value if token else refused)
        try:
            await self.get(time.monotonic())
        except CloudBillingError:
            self.refuse(refused)
            raise

    async def get(self, since: float) -> Token | None:
        """Return a token, or None for a vendor that wants none.

        :param since: when the request that needs it was asked for, on the monotonic clock: what was under way when no
            token could be had shares the error instead of asking again.
        :raises VendorError: when the vendor gives none.
        """
        if self._request is None:
            return None
        token = self._known()
        if token is None or token.value not in self._learnt:
            async with self._alone():
                token = self._known() or await self._one(since)
                if token.value not in self._learnt:
                    await asyncio.to_thread(self._learn, token.value)
                    self._learnt.add(token.value)
        return token

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

    def _known(self) -> Token | None:
        token = _KNOWN.get(self._key)
        return token if token and token.good(_REFUSED.get(self._key)) else None

    async def _one(self, since: float) -> Token:
        if self._failed and self._failed[0] >= since:
            raise self._failed[1]
        try:
            token = await (self._shared.get(_REFUSED.get(self._key)) if self._shared else self._fetch())
        except CloudBillingError as error:
            self._failed = time.monotonic(), error
            raise
        _KNOWN[self._key] = token
        return token

    async def _fetch(self) -> Token:
        request = self._source.credential_request(self._settings)  # anew: it may be made for one use
        assert request is not None
        reply = await self._fetch_reply(request)
        with reply.body:
            credential = self._source.credential(reply, self._settings)
        margin = min(MARGIN, credential.lifetime / 10)
        return Token(credential.value, time.time() + credential.lifetime - margin, time.monotonic())


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
