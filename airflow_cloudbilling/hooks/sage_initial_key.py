"""Sage's initial API key: the one that a person entered, or one that Sage announced and that proved to be ours.

What is announced counts for nothing until a rotation with it and the connection's own secret has gone well: any account
of Sage has keys that Sage takes, and with another's our invoices would go to another company's books. Until then it
stands apart, in the store of keys under ``<conn_id>__announced``; the one that was taken stands under
``<conn_id>__initial``, and is in force as long as the connection's password is what it was then.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any, NamedTuple

from airflow_cloudbilling.errors import CloudBillingError, UnavailableError
from airflow_cloudbilling.http.shared_key import INITIAL_SUFFIX, LEASE_SUFFIX
from airflow_cloudbilling.http.shared_token import Store
from airflow_cloudbilling.settings import Settings
from airflow_cloudbilling.sources.sage import SageConnectedCloud

_ANNOUNCED_SUFFIX = "__announced"
_PATIENCE = 600.0  # seconds in which a refused key is tried again: it may be announced before it is good
_FORMER = 20  # initial keys that are remembered, by their hash, so that an old announcement brings none back


class Announced(NamedTuple):
    """A key that waits for its proof.

    :param text: what stands in the store: the key as it is, or with the moment at which Sage refused it first.
    :param refused: seconds since the epoch; 0: it was not tried yet.
    """

    text: str
    api_key: str
    refused: float = 0.0

    def __repr__(self) -> str:
        return f"Announced(refused={self.refused})"


class InitialKeys:
    """The initial API keys of one connection, as the store has them.

    :param store: where keys are kept.
    :param entered: the connection as a person entered it.
    """

    def __init__(self, store: Store, entered: Settings) -> None:
        self._store = store
        self._entered = entered
        self._conn_id = entered.conn_id

    def in_force(self) -> Settings:
        """Return the connection with the key in force as its password.

        :raises UnavailableError: when the store does not answer, and the connection holds no key of its own.
        """
        try:
            taken = self._taken()
        except UnavailableError:
            if not self._entered.password:
                raise
            return self._entered  # a rotation with it will say when it is no longer the right one
        return self.trial(taken["api_key"]) if taken.get("for") == _digest(self._entered.password) else self._entered

    def trial(self, api_key: str) -> Settings:
        """Return the connection with another initial key."""
        return replace(self._entered, password=api_key, secrets=(api_key, *self._entered.secrets))

    def announced(self) -> Announced | None:
        """Return the key that waits for its proof, if any."""
        text = self._read(_ANNOUNCED_SUFFIX).strip()
        found = _object(text) if text.startswith("{") else {"api_key": text}
        api_key, refused = found.get("api_key"), found.get("refused")
        if not isinstance(api_key, str) or not api_key:
            return None
        return Announced(text, api_key, float(refused) if isinstance(refused, int | float) else 0.0)

    def is_known(self, api_key: str, in_force: str) -> bool:
        """Whether a key is the one in force, or one of those before it."""
        return api_key == in_force or _digest(api_key) in self._taken().get("former", [])

    def take(self, announced: Announced, in_force: str, current: str) -> None:
        """Put a key in force that has proved to be ours.

        :param in_force: the initial key until now, if any.
        :param current: the API key that the proof has brought, which is the one in use from now on.
        """
        former = [*self._taken().get("former", []), *([_digest(in_force)] if in_force else [])][-_FORMER:]
        taken = {"for": _digest(self._entered.password), "api_key": announced.api_key, "former": former}
        self._write(INITIAL_SUFFIX, json.dumps(taken))
        self._write(LEASE_SUFFIX, "")  # else the key beside it would be taken for one of the consent before
        self._write("", current)
        self.drop(announced)

    def refuse(self, announced: Announced) -> bool:
        """Note that Sage refused a key; return whether that was the end of it."""
        if announced.refused and not 0 <= time.time() - announced.refused < _PATIENCE:
            self.drop(announced)
            return True
        if not announced.refused:
            self._replace(announced, json.dumps({"api_key": announced.api_key, "refused": time.time()}))
        return False

    def drop(self, announced: Announced) -> None:
        """Forget a key that was announced."""
        self._replace(announced, "")

    def _replace(self, announced: Announced, text: str) -> None:
        if self._read(_ANNOUNCED_SUFFIX).strip() == announced.text:  # else another one was announced meanwhile
            self._write(_ANNOUNCED_SUFFIX, text)

    def _taken(self) -> dict[str, Any]:
        taken = _object(self._read(INITIAL_SUFFIX))
        return taken if isinstance(taken.get("api_key"), str) and isinstance(taken.get("former"), list) else {}

    def _read(self, suffix: str) -> str:
        return _asked(self._conn_id, self._store.read, self._conn_id + suffix) or ""

    def _write(self, suffix: str, text: str) -> None:
        _asked(self._conn_id, self._store.write, self._conn_id + suffix, text)


def prove(source: SageConnectedCloud, trial: Settings) -> str:
    """Rotate with a connection's initial key, and return the API key that Sage gives for it and our secret.

    :raises ConfigurationError: when the connection has no secret, without which nothing is proved.
    :raises RefusedError: when Sage does not take the two together.
    :raises VendorError: when Sage gives no answer of use.
    """
    from airflow_cloudbilling.http.client import Client

    source.check_rotation(trial)
    request = source.credential_request(trial)
    assert request is not None
    with Client(source, trial) as client:
        reply = client.request(request)
        with closing(reply.body):
            return source.credential(reply, trial).value


def announce(store: Store, conn_id: str, api_key: str) -> None:
    """Keep a key that came to the notification URL, until a task finds it there and tries it.

    :raises UnavailableError: when the store does not take it.
    """
    _asked(conn_id, store.write, conn_id + _ANNOUNCED_SUFFIX, api_key)


def _asked(conn_id: str, method: Callable[..., str | None], *args: str) -> str | None:
    """Call a method of the store; what it raises may quote what was written."""
    try:
        return method(*args)
    except CloudBillingError:
        raise
    except Exception as error:  # stores raise what their backends raise
        message = f"the store of API keys cannot be used ({type(error).__name__}); try again later."
        raise UnavailableError(message, conn_id=conn_id) from None


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text or "null")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()  # keys are random, so that it tells nothing
