"""From what a task wants to send to the one upload of it: an earlier one that is found again, or a new one."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Protocol

from airflow_cloudbilling.errors import UnavailableError
from airflow_cloudbilling.operators.sage_file import OutgoingFile
from airflow_cloudbilling.operators.sage_resolving import Word, in_doubt, resolve, too_early
from airflow_cloudbilling.operators.sage_sending import Connect, Sending
from airflow_cloudbilling.staging.uploads import UNDECIDED, Upload, Uploads, new_id
from airflow_cloudbilling.staging.uploads_intent import File, TakenError, intend
from airflow_cloudbilling.staging.uploads_results import Results
from airflow_cloudbilling.staging.uploads_sending import sending

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from airflow_cloudbilling.hooks.sage import SageConnectedCloudHook
    from airflow_cloudbilling.staging.ledger import Run

_LOOK = 1.0  # seconds between two looks at a sender that still sends
_ATTEMPTS = 5

log = logging.getLogger(__name__)


class Unit(Protocol):
    """What is to be sent once: staged invoices, or a user's own file."""

    close_id: str | None
    reason: str | None
    period: str | None

    def related(self, uploads: Uploads, connection: Connection) -> list[Upload]:
        """Return the uploads that hold some of it and may have reached Sage; the one that holds most comes first.

        :param connection: reads the whole ledger as of one moment.
        """
        ...

    def concerns(self, uploads: Uploads, upload: Upload, connection: Connection) -> bool:
        """Whether an upload holds some of it, or did."""
        ...

    def remains(self, related: Sequence[Upload]) -> bool:
        """Whether something is to be sent, besides what the related uploads hold."""
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
    :param connect: opens a client, which is stopped with the task, to send with.
    :param word: what a person says of an upload that is unknown.
    """

    def __init__(
        self,
        hook: SageConnectedCloudHook,
        uploads: Uploads,
        run: Run,
        scope: str,
        stop: threading.Event,
        connect: Connect,
        word: Word | None = None,
    ) -> None:
        self.hook = hook
        self.uploads = uploads
        self.run = run
        self.scope = scope
        self.stop = stop
        self.connect = connect
        self.word = word

    def find_or_send(self, unit: Unit, deadline: float) -> Upload | None:
        """Return the upload of a unit: an earlier one, or a new one; None when there is nothing to send.

        :param deadline: seconds since the epoch, until which a sender that still sends is waited for.
        :raises InDoubtError: when nobody can know whether an earlier file has reached Sage.
        :raises RefusedError: when Sage did not take the file.
        :raises WaitError: when Sage wants no file for a while; nothing was sent.
        :raises UnavailableError: when it was not sent, or somebody else still sends it.
        """
        for _ in range(_ATTEMPTS):
            found, own = self._related(unit)
            if own is not None and self._is_untold(own):
                return own
            settled = [self._settled(upload, deadline) for upload in found]
            if [one.status for one in settled] != [one.status for one in found]:
                continue  # what was held may be free now
            under_way = own is not None and any(one[:1] == own[:1] and one.status == "submitted" for one in settled)
            if under_way or not unit.remains([one for one in settled if one.status != "failed"]):
                return self._earlier(settled)
            try:
                return self._send(unit)
            except TakenError:
                log.info("What was to be sent has been changed or taken by another task meanwhile; choosing again.")
        raise UnavailableError(
            f"What was to be sent changed {_ATTEMPTS} times while the file was made; try again later."
        )

    def resolve(self, unit: Unit) -> None:
        """Take the person's word that came with the task, see :func:`resolve`."""
        if self.word is not None:
            self.word.check()
            resolve(self.uploads, self.hook.conn_id, self._related(unit)[0], self.word)

    def _related(self, unit: Unit) -> tuple[list[Upload], Upload | None]:
        """Return the uploads that hold some of a unit, and this task instance's own, if it is about the unit."""
        with self.uploads.reading() as connection:
            own = self.uploads.of_task(self.run, self.hook.conn_id, self.scope, connection)
            related = unit.related(self.uploads, connection)
            if own is None or unit.concerns(self.uploads, own, connection):
                return sorted(related, key=lambda one: own is None or one.upload_id != own.upload_id), own
        if own.status in UNDECIDED:
            words = "Upload %s of this task (%s, tracking id %s) is of something else than what is to be sent now."
            log.warning(words, own.upload_id, own.status, own.tracking_id)
        return related, None

    def _is_untold(self, own: Upload) -> bool:
        """Whether it has ended badly and the try that saw it died before it said so: nothing goes again in silence."""
        if own.told_at is not None or own.status in UNDECIDED:
            return False
        results = Results(self.uploads, own)
        ended = results.told()
        return bool(ended.rejected or ended.unknown or (own.status == "failed" and not results.has_items))

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
                raise too_early(upload)
        if upload.status == "unknown":
            raise in_doubt(upload, "The task that sent it ended in between.")
        return upload

    def _earlier(self, related: list[Upload]) -> Upload | None:
        """Return the upload that speaks for what this task wants: one under way, in question, or that ended well."""
        under_way = (one for one in related if one.status == "submitted")
        in_question = (one for one in related if Results(self.uploads, one).told().unknown)
        ended = (one for one in related if one.status == "accepted")
        chosen = next(chain(under_way, in_question, ended), None)
        if chosen is not None:
            words = "Nothing is to be sent: upload %s by %s holds it, and is %s as %s."
            log.info(words, chosen.upload_id, chosen.sender, chosen.status, chosen.tracking_id)
        return chosen

    def _send(self, unit: Unit) -> Upload:
        upload_id = new_id()
        with unit.file() as file, sending(self.uploads.engine, upload_id):
            if not unit.is_whole(file):
                raise TakenError
            word = self.word.text if self.word else None
            about = (unit.close_id, unit.reason, file.count, word, unit.period)
            entry = File(self.hook.conn_id, self.scope, file.sha256, *about)
            intend(self.uploads, upload_id, entry, self.run, file.items, file.accounts)
            log.info("Upload %s to %s: %s.", upload_id, self.scope, file.words())
            Sending(self.hook, self.uploads, self.connect, self.stop, upload_id).send(self.scope, file)
        return self.uploads.get(upload_id)
