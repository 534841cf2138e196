"""What every task shares that waits for Sage: its hook, and how it is stopped."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_cloudbilling.hooks.sage import SageConnectedCloudHook
    from airflow_cloudbilling.http.client import Client


class Stoppable:
    """Base of tasks that ask Sage, beside Airflow's own."""

    conn_id: str
    _client: Client | None = None  # while Sage is being asked
    _sending = False  # whether what is under way had better end: else nobody knew what became of it

    def on_kill(self) -> None:
        """Stop waiting for Sage's answer; a retry goes on with the upload."""
        self._stop.set()  # the client may not be there yet
        if self._client is not None:
            self._client.abort(at_once=not self._sending)

    @contextmanager
    def _asking(self, hook: SageConnectedCloudHook, defer_after: float, *, sending: bool = False) -> Iterator[Client]:
        """Lend a client that is stopped with the task.

        :param sending: let a request that is under way end, and make no other.
        """
        with hook.get_conn(defer_after=defer_after) as client:
            self._client, self._sending = client, sending
            if self._stop.is_set():
                self.on_kill()
            yield client

    @cached_property
    def _stop(self) -> threading.Event:
        """Is set when the task is being stopped; not made before a task runs, since DAGs are copied."""
        return threading.Event()

    def _hook(self) -> SageConnectedCloudHook:
        from airflow_cloudbilling.hooks.sage import SageConnectedCloudHook

        return SageConnectedCloudHook(self.conn_id)
