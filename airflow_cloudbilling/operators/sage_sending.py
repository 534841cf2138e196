"""The one request that sends a file: what is known of it afterwards goes into the ledger."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, NoReturn

from sqlalchemy.exc import DBAPIError

from airflow_cloudbilling.errors import (
    CloudBillingError,
    ConfigurationError,
    InDoubtError,
    RefusedError,
    UnavailableError,
)
from airflow_cloudbilling.operators.sage_resolving import in_doubt

if TYPE_CHECKING:
    from airflow_cloudbilling.hooks.sage import SageConnectedCloudHook
    from airflow_cloudbilling.http.client import Client
    from airflow_cloudbilling.operators.sage_file import OutgoingFile
    from airflow_cloudbilling.staging.uploads import Uploads

Connect = Callable[[], AbstractContextManager["Client"]]
_PAUSES = (1.0, 5.0, 15.0)  # seconds, when the staging database cannot be written at the moment that matters

log = logging.getLogger(__name__)


class Sending:
    """Sends the file of an upload whose intent is written.

    :param connect: opens a client, which is stopped with the task.
    :param stop: is set when the task is being stopped.
    """

    def __init__(
        self,
        hook: SageConnectedCloudHook,
        uploads: Uploads,
        connect: Connect,
        stop: threading.Event,
        upload_id: str,
    ) -> None:
        self.hook = hook
        self.uploads = uploads
        self.connect = connect
        self.stop = stop
        self.upload_id = upload_id
        self._tracking_id = ""  # once it is written

    def send(self, scope: str, file: OutgoingFile) -> None:
        """Send the file.

        :raises CloudBillingError: as :meth:`~airflow_cloudbilling.operators.sage_outbox.Outbox.find_or_send` says.
        """
        try:
            with self.connect() as client:
                self.hook.upload(
                    scope,
                    file.content,
                    name=file.name,
                    size=file.size,
                    sha256=file.sha256,
                    on_tracking_id=self._keeper(file.sha256),
                    client=client,
                )
        except CloudBillingError as error:
            self._failed(error)

    def _keeper(self, sha256: str) -> Callable[[str], None]:
        def keep(tracking_id: str) -> None:
            log.info("Sage tracks upload %s as %s.", self.upload_id, tracking_id)
            for pause in (*_PAUSES, None):
                try:
                    self._check_new(tracking_id, sha256)
                    self.uploads.submitted(self.upload_id, tracking_id)
                    break
                except DBAPIError as error:
                    if pause is None:
                        self._unwritten(tracking_id, error)
                    self.stop.wait(pause)
            self._tracking_id = tracking_id

        return keep

    def _check_new(self, tracking_id: str, sha256: str) -> None:
        """Look whether Sage has named another file so; the results of one would be taken for the other's."""
        other = self.uploads.tracked(self.hook.conn_id, tracking_id)
        if other and other.content_sha256 != sha256:
            message = f"Sage tracks it as {tracking_id}, as which it tracks upload {other.upload_id}, another file."
            raise InDoubtError(message, conn_id=self.hook.conn_id)

    def _unwritten(self, tracking_id: str, error: Exception) -> NoReturn:
        raise InDoubtError(
            f"Sage tracks upload {self.upload_id} as {tracking_id}, and that could not be written"
            f' ({type(error).__name__}). Run this task with resolve="sent" and tracking_id={tracking_id!r} when the'
            " database works again.",
            conn_id=self.hook.conn_id,
        ) from error

    def _failed(self, error: CloudBillingError) -> NoReturn:
        """Write what a failed request means, and raise."""
        answered = 200 <= (getattr(error, "status", None) or 0) < 300  # good, by its status: something may be there
        not_taken = isinstance(error, RefusedError) and not answered
        known = self._tracking_id or answered
        if not_taken or (not known and isinstance(error, (UnavailableError, ConfigurationError))):
            self.uploads.not_sent(self.upload_id, str(error))
            raise error
        if self._tracking_id:  # a retry asks Sage what it has under that id
            message = f"{error} Sage tracks it as {self._tracking_id}; the next try looks there."
            raise UnavailableError(message) from error
        try:
            self.uploads.lost(self.upload_id)
            upload = self.uploads.get(self.upload_id)
        except DBAPIError:  # the next try finds that nobody knows; what is known now must not get lost
            raise error from None
        raise in_doubt(upload, str(error))
