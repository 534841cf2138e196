"""Where access tokens and keys are kept for other tasks: an Airflow Variable, which Airflow encrypts, or your class.

``[cloudbilling] credential_store`` in Airflow's configuration names the class; empty: every process has its own token.
API keys of Sage have to be kept: a rotated one would be lost with the process.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, cast

from airflow.sdk import Variable
from airflow.sdk.configuration import conf

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.http.shared_key import INITIAL_SUFFIX, NoStore
from airflow_cloudbilling.http.shared_token import Store

KEY_PREFIX = "cloudbilling_api_key__"
DEFAULT = "airflow_cloudbilling.hooks.credential_store.VariableStore"


class VariableStore:
    """Keeps the token of a connection in the Variable ``cloudbilling_token__<conn_id>``, a key in another.

    :param writable: whether this process may write it; a triggerer only reads.
    :param prefix: of the Variable's name.
    """

    prefix = "cloudbilling_token__"  # with "token" or "api_key" in it, Airflow masks the value in its UI and logs

    def __init__(self, *, writable: bool = True, prefix: str = prefix) -> None:
        self.writable = writable
        self.prefix = prefix
        self.set_variable: Callable[..., None] = Variable.set
        self._found: dict[str, str | None] = {}

    def read(self, conn_id: str) -> str | None:
        """Return what was written last for the connection, if anything."""
        self._found[conn_id] = cast("str | None", Variable.get(self.prefix + conn_id, default=None))
        return self._found[conn_id]

    def write(self, conn_id: str, text: str) -> None:
        """Keep a text.

        :raises ConfigurationError: when what was there before is read again: a secrets backend has a variable of this
            name. Another text than the written one is no error, another task may have written it meanwhile.
        """
        name = self.prefix + conn_id
        before = self._found[conn_id] if conn_id in self._found else self.read(conn_id)
        advice = "it rotates every later key, do not delete it." if name.endswith(INITIAL_SUFFIX) else "may be deleted."
        self.set_variable(name, text, description=f"Kept by airflow-provider-cloudbilling; {advice}")
        found = self.read(conn_id)
        if found == text or (found is not None and found != before):
            return
        where = "is not there after it was written" if found is None else "is hidden by one that is not in the database"
        raise ConfigurationError(
            f"Variable {name!r} {where}; remove it from the environment or the secrets backend, or set [cloudbilling]"
            " credential_store to a class that keeps tokens elsewhere.",
            conn_id=conn_id,
        )


def open_store(*, writable: bool, keys: bool = False, in_server: bool = False) -> Store | None:
    """Return the configured store, or None when tokens are not shared.

    :param writable: whether this process may write to it.
    :param keys: whether it is for API keys.
    :param in_server: whether this is Airflow's API server, which writes Variables to its database itself.
    :raises ConfigurationError: when the configured class cannot be used.
    """
    name = conf.get("cloudbilling", "credential_store", fallback=DEFAULT)
    if not name:
        return NoStore(writable=writable) if keys else None
    module, _, attribute = name.rpartition(".")
    try:
        kind: Any = getattr(import_module(module), attribute)
        store: object = kind(writable=writable)
        if not isinstance(store, Store):
            raise TypeError("it lacks one of them")
        if keys and isinstance(store, VariableStore):
            store.prefix = KEY_PREFIX
        if in_server and isinstance(store, VariableStore):
            from airflow.models.variable import Variable as Stored

            store.set_variable = Stored.set
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ConfigurationError(
            f"[cloudbilling] credential_store = {name!r} cannot be used ({type(error).__name__}: {error}); name a class"
            " with read, write and writable, or leave it empty."
        ) from error
    return store
