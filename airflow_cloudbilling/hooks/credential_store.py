"""Where access tokens are kept for other tasks: an Airflow Variable, which Airflow encrypts, or a class of yours.

``[cloudbilling] credential_store`` in Airflow's configuration names the class; empty: every process has its own token.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, cast

from airflow.sdk import Variable
from airflow.sdk.configuration import conf

from airflow_cloudbilling.credentials import Store
from airflow_cloudbilling.errors import ConfigurationError

DEFAULT = "airflow_cloudbilling.hooks.credential_store.VariableStore"


class VariableStore:
    """Keeps the token of a connection in the Variable ``cloudbilling_token__<conn_id>``.

    :param writable: whether this process may write it; a triggerer only reads.
    """

    prefix = "cloudbilling_token__"  # with "token" in it, Airflow masks the value in its UI and logs

    def __init__(self, *, writable: bool = True) -> None:
        self.writable = writable

    def read(self, conn_id: str) -> str | None:
        """Return what was written last for the connection, if anything."""
        return cast("str | None", Variable.get(self.prefix + conn_id, default=None))

    def write(self, conn_id: str, text: str) -> None:
        """Keep a text.

        :raises ConfigurationError: when another text is read back: a secrets backend has a variable of this name.
        """
        name = self.prefix + conn_id
        Variable.set(name, text, description="Access token; kept by airflow-provider-cloudbilling, may be deleted.")
        found = self.read(conn_id)
        if found is None:
            raise ConfigurationError(f"Variable {name!r} was written and is not there.", conn_id=conn_id)
        if found != text and not found.startswith("{"):  # another task may have written its own meanwhile
            raise ConfigurationError(
                f"Variable {name!r} in a secrets backend hides the one that tasks write; remove it there.",
                conn_id=conn_id,
            )


def open_store(*, writable: bool) -> Store | None:
    """Return the configured store, or None when tokens are not shared.

    :param writable: whether this process may write to it.
    :raises ConfigurationError: when the configured class cannot be used.
    """
    name = conf.get("cloudbilling", "credential_store", fallback=DEFAULT)
    if not name:
        return None
    module, _, attribute = name.rpartition(".")
    try:
        kind: Any = getattr(import_module(module), attribute)
        return cast("Store", kind(writable=writable))
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ConfigurationError(
            f"[cloudbilling] credential_store = {name!r} cannot be used ({type(error).__name__}: {error}); name a class"
            " with read, write and writable, or leave it empty."
        ) from error
