"""One API key for tasks in many processes, good until the vendor refuses it; then one task rotates it for all."""

from __future__ import annotations

import time
from typing import Any, NoReturn

from airflow_cloudbilling.errors import ConfigurationError, ExpiredKeyError, UnavailableError
from airflow_cloudbilling.http.shared_token import NOTHING, Entry, SharedToken, StoreError, Token

LEASE_SUFFIX = "__lease"  # of the name under which the lease of a key stands
INITIAL_SUFFIX = "__initial"  # of the first key, where it was not a person who entered it: it cannot be had again
_FOR_EVER = 253_402_300_799.0  # the last second of the year 9999


class NoStore:
    """Stands in where none is configured: an API key must be kept, or the next task would not know it.

    :param writable: whether it is said so when a key is to be kept; else none is ever rotated.
    """

    def __init__(self, *, writable: bool = False) -> None:
        self.writable = writable

    def read(self, conn_id: str) -> str | None:
        """Return nothing."""
        return None

    def write(self, conn_id: str, text: str) -> None:
        """Refuse.

        :raises ConfigurationError: always.
        """
        raise ConfigurationError(
            f"[cloudbilling] credential_store is empty, so that the rotated API key of connection"
            f" {conn_id.removesuffix(LEASE_SUFFIX)!r} would be lost with this process; name a class that keeps it."
        )


class SharedKey(SharedToken):
    """The API key of one connection, which is good until the vendor refuses it, and is then rotated.

    It stands in the store as it is, for people and other programs too; the lease stands beside it, under another name,
    so that nobody is without a key while it is rotated. Without a store that works there is no rotation: the next task
    would not know the key. Whatever gets lost on the way, the first key is kept in the connection and rotates again.

    :param first: the key in force as long as the store has none.
    :param owner: tells the connection and its first key from what they were before a change: another consent's key
        would send files to another company's books.
    """

    def __init__(self, *args: Any, first: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._first = first
        self._standing = ""  # the key that the store was found to hold
        self._foreign = False  # whether that is of the connection as it was before a change

    async def get(self, refused: str | None) -> Token:
        """Return the key of the store, or rotate it.

        :param refused: the key that the vendor takes no longer.
        :raises ExpiredKeyError: when the store may not be written, and holds no other key than the refused one.
        :raises VendorError: when the vendor gives none.
        :raises ConfigurationError: when the store is of no use.
        """
        try:
            token = await self._agreed(refused)
        except StoreError as error:
            self._do_without(error)
        if token is None:
            message = (
                "the API key has expired, and it is not rotated from here: a task on a worker does that by itself, with"
                " the initial key, which stays in the connection. If no task has ever run with it, compare password,"
                " key_header and key_prefix with what came at onboarding."
            )
            raise ExpiredKeyError(message, conn_id=self._conn_id)
        return token

    async def _read(self) -> Entry:
        key = (await self._call(self._store.read, self._conn_id) or "").strip()
        text = await self._call(self._store.read, self._conn_id + LEASE_SUFFIX)
        lease = Entry.read(text, self._owner)
        self._standing, self._foreign = key, bool(key and text) and lease is NOTHING
        if not key or self._foreign:
            key = self._first
        if lease.until > time.time():  # somebody rotates it, or the vendor wants to be left alone
            return Entry(key, lease.lease or "nobody", lease.until)
        return Entry(key, until=_FOR_EVER)

    async def _write(self, entry: Entry) -> None:
        key, before = entry.value or self._first, self._standing
        if entry.value or self._foreign:
            await self._call(self._store.write, self._conn_id, key)
            found = await self._call(self._store.read, self._conn_id)
            if found != key and found in (None, before):  # else another task has written meanwhile
                raise StoreError("it does not give back what was written")
        text = self._text(Entry() if entry.value else entry)
        await self._call(self._store.write, self._conn_id + LEASE_SUFFIX, text)

    def _do_without(self, error: StoreError) -> NoReturn:
        if error.fault is not None:
            raise error.fault from None
        message = f"the store of API keys cannot be used ({error}), so that nothing is rotated; try again later."
        raise UnavailableError(message, conn_id=self._conn_id) from None
