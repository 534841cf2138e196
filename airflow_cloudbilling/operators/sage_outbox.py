"""From what a task wants to send to the one upload of it: an earlier one that is found again, or a new one."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn, Protocol

from airflow_cloudbilling.errors import (
    CloudBillingError,
    ConfigurationError,
    InDoubtError,
    RefusedError,
    UnavailableError,
)
from airflow_cloudbilling.operators.sage_file import OutgoingFile

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from airflow_cloudbilling.hooks.sage import SageConnectedCloudHook
    from airflow_cloudbilling.staging.ledger import Run
    from airflow_cloudbilling.staging.uploads import Upload, Uploads

_LOOK = 1.0  # seconds between two looks at a sender that still sends
_ATTEMPTS = 5
_PAUSES = (1.0, 5.0, 15.0)  # seconds, when the staging database cannot be written at the moment that matters

log = logging.getLogger(__name__)


class Unit(Protocol):
    """What is to be sent once: staged invoices, or a user's own file."""

    close_id: str | None
    reason: str | None

    def related(self, uploads: Uploads, connection: Connection) -> list[Upload]:
        """Return the uploads that hold some of it and may have reached Sage; the one that holds most comes first.

        :param connection: reads the whole ledger as of one moment.
        """
        ...

    def remains(self, related: Sequence[Upload], own: Upload | None) -> bool:
        """Whether something is to be sent, besides what the related uploads hold.

        :param own: that of the same task instance, which has ended.
        """
        ...

    def file(self) -> OutgoingFile:
        """Return the file to send; it is closed by the caller."""
        ...

    def is_whole(self, file: OutgoingFile) -> bool:
        """Whether the file holds exactly what :meth:`related` found to be free: time has passed since."""
        ...


class Outbox:
    """Sends at most once, whatever died before.

    :param run: the task instance; a retry of it finds its upload again.
    :param stop: is set when the task is being stopped.
    """

    def __init__(
        self, hook: SageConnectedCloudHook, uploads: Uploads, run: Run, scope: str, stop: threading.Event
    ) -> None:
        self.hook = hook
        self.uploads = uploads
        self.run = run
        self.scope = scope
        self.stop = stop

    def find_or_send(self, unit: Unit, deadline: float) -> Upload | None:
        """Return the upload of a unit: an earlier one, or a new one; None when there is nothing to send.

        :param deadline: seconds since the epoch, until which a sender that still sends is waited for.
        :raises InDoubtError: when nobody can know whether an earlier file has reached Sage.
        :raises RefusedError: when Sage did not take the file.
        :raises UnavailableError: when it was not sent, or somebody else still sends it.
        """
        from airflow_cloudbilling.staging.uploads_intent import TakenError

        for _ in range(_ATTEMPTS):
            found = self._related(unit)
            settled = [self._settled(upload, deadline) for upload in found]
            if [one.status for one in settled] != [one.status for one in found]:
                continue  # what was held may be free now
            related = [one for one in settled if one.status != "failed"]
            own = next(filter(self._is_own, related), None)
            if (own is not None and own.status == "submitted") or not unit.remains(related, own):
                return self._earlier(related)
            try:
                return self._send(unit)
            except TakenError:
                log.info("What was to be sent has been changed or taken by another task meanwhile; choosing again.")
        raise UnavailableError(
            f"What was to be sent changed {_ATTEMPTS} times while the file was made; try again later."
        )

    def resolve(self, unit: Unit, what: str, tracking_id: str | None) -> None:
        """Take a person's word for an upload that is unknown.

        Only one that an earlier try has found to be unknown: none is ever decided in the try that finds it.

        :param what: ``sent`` or ``not_sent``.
        :param tracking_id: Sage's id, of one that was sent; with ``not_sent`` it names an upload that Sage never got
            although it gave an id.
        :raises ConfigurationError: when that makes no sense.
        :raises UnavailableError: when it is still being sent.
        """
        if what not in ("sent", "not_sent"):
            raise ConfigurationError(f"{what!r} is neither 'sent' nor 'not_sent'.", field="resolve")
        if what == "sent" and not tracking_id:
            raise ConfigurationError("say as what Sage tracks it: the id that Sage shows.", field="tracking_id")
        unknown = self._in_doubt(unit, what, tracking_id)
        if what == "sent" and unknown and (other := self.uploads.tracked(self.hook.conn_id, tracking_id or "")):
            message = (
                f"{tracking_id!r} is upload {other.upload_id}, which is another file; look at Sage for this one's id."
            )
            raise ConfigurationError(message, field="tracking_id")
        for upload in unknown:
            log.warning("Upload %s is resolved as %s, by a person's word.", upload.upload_id, what)
            if what == "sent":
                self.uploads.sent(upload.upload_id, tracking_id or "")
            else:
                self.uploads.not_sent(upload.upload_id, "a person says that it was not sent")

    def _in_doubt(self, unit: Unit, what: str, tracking_id: str | None) -> list[Upload]:
        """Return the uploads that a person's word is about."""
        related = self._related(unit)
        if what == "not_sent" and tracking_id:
            return [self._at_rest(upload) for upload in related if upload.tracking_id == tracking_id]
        unknown = [upload for upload in related if upload.status == "unknown"]
        if what == "sent" and len(unknown) > 1:
            ids = ", ".join(upload.upload_id for upload in unknown)
            message = f"{len(unknown)} uploads are unknown ({ids}); name one by the period or close of its own task."
            raise ConfigurationError(message, field="resolve")
        if not unknown:
            log.info("No upload of this is unknown; resolve=%r is not needed.", what)
        return unknown

    def _at_rest(self, upload: Upload) -> Upload:
        """Return an upload that has its id, unless its file is still going out: of a presigned one that comes later.

        :raises UnavailableError: when it does.
        """
        from airflow_cloudbilling.staging.uploads_sending import is_sending

        if is_sending(self.uploads.engine, upload.upload_id):
            raise self._too_early(upload)
        return upload

    def _too_early(self, upload: Upload) -> UnavailableError:
        message = f"Upload {upload.upload_id} is still being sent by {upload.sender}; try again later."
        return UnavailableError(message, conn_id=self.hook.conn_id)

    def _related(self, unit: Unit) -> list[Upload]:
        with self.uploads.reading() as connection:
            own = self.uploads.of_task(self.run, self.hook.conn_id, self.scope, connection)
            related = unit.related(self.uploads, connection)
        found = [one for one in related if own is None or one.upload_id != own.upload_id]
        return [own, *found] if own else found

    def _is_own(self, upload: Upload) -> bool:
        own = (upload.dag_id, upload.task_id, upload.run_id, upload.map_index)
        return self.run.task_id is not None and own == self.run[:4]

    def _settled(self, upload: Upload, deadline: float) -> Upload:
        """Return the upload once its sender is done or dead.

        :raises InDoubtError: when it is unknown.
        """
        told = False
        while (upload := self.uploads.settled(upload)).status == "intent":
            if not told:
                log.info("Upload %s is being sent by %s; waiting for it.", upload.upload_id, upload.sender)
                told = True
            if time.time() >= deadline or self.stop.wait(_LOOK):
                raise self._too_early(upload)
        if upload.status == "unknown":
            self._doubt(upload)
        return upload

    def _doubt(self, upload: Upload, why: str = "The task that sent it ended in between.") -> NoReturn:
        what = "a file" if upload.record_count is None else f"{upload.record_count} invoices"
        raise InDoubtError(
            f"nobody knows whether upload {upload.upload_id} ({what} for {upload.scope}, SHA-256"
            f" {upload.content_sha256}) has reached Sage. {why} It is not sent again by itself: look at Sage, then run"
            ' this task with resolve="sent" and tracking_id=…, or with resolve="not_sent".',
            conn_id=self.hook.conn_id,
        )

    def _earlier(self, related: list[Upload]) -> Upload | None:
        """Return the earlier upload that speaks for what this task wants: one that is under way, or that ended."""
        chosen = next(iter([one for one in related if one.status == "submitted"] or related), None)
        if chosen is not None:
            words = "Nothing is to be sent: upload %s by %s holds it, and is %s as %s."
            log.info(words, chosen.upload_id, chosen.sender, chosen.status, chosen.tracking_id)
        return chosen

    def _send(self, unit: Unit) -> Upload:
        from airflow_cloudbilling.staging.uploads import new_id
        from airflow_cloudbilling.staging.uploads_intent import File, TakenError, intend
        from airflow_cloudbilling.staging.uploads_sending import sending

        upload_id = new_id()
        with unit.file() as file, sending(self.uploads.engine, upload_id):
            if not unit.is_whole(file):
                raise TakenError
            entry = File(self.hook.conn_id, self.scope, file.sha256, unit.close_id, unit.reason, file.count)
            intend(self.uploads, upload_id, entry, self.run, file.items, file.accounts)
            log.info("Upload %s to %s: %s.", upload_id, self.scope, file.words())
            self._request(upload_id, file)
        return self.uploads.get(upload_id)

    def _request(self, upload_id: str, file: OutgoingFile) -> None:
        """Send a file, and write what is known of it afterwards."""
        told: list[str] = []
        try:
            self.hook.upload(
                self.scope,
                file.content,
                name=file.name,
                size=file.size,
                sha256=file.sha256,
                on_tracking_id=self._keeper(upload_id, told),
            )
        except CloudBillingError as error:
            if self.stop.is_set():
                raise  # what was under way was cut off: the next try finds that nobody knows
            self._failed(upload_id, error, told)

    def _keeper(self, upload_id: str, told: list[str]) -> Callable[[str], None]:
        from sqlalchemy.exc import DBAPIError

        def keep(tracking_id: str) -> None:
            log.info("Sage tracks upload %s as %s.", upload_id, tracking_id)
            for pause in (*_PAUSES, None):
                try:
                    self.uploads.submitted(upload_id, tracking_id)
                    break
                except DBAPIError as error:
                    if pause is None:
                        self._unwritten(upload_id, tracking_id, error)
                    self.stop.wait(pause)
            told.append(tracking_id)

        return keep

    def _unwritten(self, upload_id: str, tracking_id: str, error: Exception) -> NoReturn:
        raise InDoubtError(
            f"Sage tracks upload {upload_id} as {tracking_id}, and that could not be written ({type(error).__name__})."
            f' Run this task with resolve="sent" and tracking_id={tracking_id!r} when the database works again.',
            conn_id=self.hook.conn_id,
        ) from error

    def _failed(self, upload_id: str, error: CloudBillingError, told: list[str]) -> NoReturn:
        """Write what a failed request means, and raise.

        :param told: the tracking id, once it was known.
        """
        from sqlalchemy.exc import DBAPIError

        answered = 200 <= (getattr(error, "status", None) or 0) < 300  # good, by its status: something may be there
        not_taken = isinstance(error, RefusedError) and not answered
        if not_taken or (not told and not answered and isinstance(error, (UnavailableError, ConfigurationError))):
            self.uploads.not_sent(upload_id, str(error))
            raise error
        if told:  # a retry asks Sage what it has under that id
            raise UnavailableError(f"{error} Sage tracks it as {told[0]}; the next try looks there.") from error
        try:
            self.uploads.lost(upload_id)
            upload = self.uploads.get(upload_id)
        except DBAPIError:  # the next try finds that nobody knows; what is known now must not get lost
            raise error from None
        self._doubt(upload, str(error))
