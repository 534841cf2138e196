"""What every task shares that waits for Sage: its hook, and how it is stopped."""

from __future__ import annotations

import threading
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_cloudbilling.client import Client
    from airflow_cloudbilling.hooks.sage import SageConnectedCloudHook


class Stoppable:
    """Base of tasks that ask Sage, beside Airflow's own."""

    conn_id: str
    _client: Client | None = None  # while Sage is being asked

    def on_kill(self) -> None:
        """Stop waiting for Sage's answer; a retry goes on with the upload."""
        self._stop.set()  # the client may not be there yet
        if self._client is not None:
            self._client.abort()

    @cached_property
    def _stop(self) -> threading.Event:
        """Is set when the task is being stopped; not made before a task runs, since DAGs are copied."""
        return threading.Event()

    def _hook(self) -> SageConnectedCloudHook:
        from airflow_cloudbilling.hooks.sage import SageConnectedCloudHook

        return SageConnectedCloudHook(self.conn_id)
