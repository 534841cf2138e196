"""What a task may want to send: the staged invoices of a period or an approved set, or a user's own file."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.operators.arguments import given, needed, period_of
from airflow_cloudbilling.operators.sage_file import OutgoingFile, file_of_invoices, file_of_source
from airflow_cloudbilling.staging.posting import InvoiceKey
from airflow_cloudbilling.staging.uploads_selection import Selection, Survey, approved

if TYPE_CHECKING:
    from airflow.sdk import Context
    from sqlalchemy import Connection

    from airflow_cloudbilling.operators.sage_upload import SageUploadOperator
    from airflow_cloudbilling.sources.sage_orders import Mapper
    from airflow_cloudbilling.staging.uploads import Upload, Uploads

_SHOWN = 20

log = logging.getLogger(__name__)


class Invoices:
    """Staged invoices: each goes once, until Sage rejects it.

    :param mapping: as :class:`~airflow_cloudbilling.sources.sage_orders.Records` takes it; so the defaults.
    """

    reason: str | None = None

    def __init__(
        self,
        selection: Selection,
        scope: str,
        mapping: Mapper | Mapping[str, str] | None,
        defaults: Mapping[str, Any] | None,
    ) -> None:
        from airflow_cloudbilling.sources.sage_orders import Records

        self.selection = selection
        self.close_id = selection.approved.close_id if selection.approved else None
        self.period = str(selection.period) if selection.period else None
        self._scope = scope
        self._make_records = partial(Records, scope, selection.kind, mapping, defaults)
        self._raw = mapping is not None
        self._make_records()  # a mapping that is none is refused before anything is read
        self._survey = Survey(0, 0, {})

    def related(self, uploads: Uploads, connection: Connection) -> list[Upload]:
        """Return the uploads that hold some of the invoices and may have reached Sage."""
        self._survey = survey = self.selection.survey(connection)
        counts = sorted(survey.uploads.items(), key=lambda pair: pair[1], reverse=True)
        return [uploads.get(upload_id, connection) for upload_id, _ in counts]

    def concerns(self, uploads: Uploads, upload: Upload, connection: Connection) -> bool:
        """Whether some of the invoices are in an upload, whatever became of them."""
        return self.selection.has_some_of(upload.upload_id, connection)

    def remains(self, related: Sequence[Upload]) -> bool:
        """Whether invoices are free; of an approved set, none may be missing, changed, or in a file of its own.

        :raises ConfigurationError: naming what changed since the approval.
        """
        survey = self._survey
        held = sum(survey.uploads.values())
        log.info("%s: %s to send, %s in uploads, %s posted.", self.selection.words, survey.free, held, survey.posted)
        if not (survey.free or held or survey.posted):
            log.warning("There are no %s in staging.", self.selection.words)
        if self.selection.approved:
            self._check_approved(survey, related)
        return survey.free > 0

    def file(self) -> OutgoingFile:
        """Return the file of the free invoices."""
        return file_of_invoices(self.selection, self._make_records(), f"{self._scope}.json", raw=self._raw)

    def is_whole(self, file: OutgoingFile) -> bool:
        """Whether exactly those that were free are in the file, and as they were approved."""
        if file.count != self._survey.free:
            return False
        hashes = self.selection.hashes
        return not hashes or all(hashes.get(InvoiceKey(*item[:4])) == item.content_hash for item in file.items())

    def _check_approved(self, survey: Survey, related: Sequence[Upload]) -> None:
        here = {upload.upload_id for upload in related if upload.close_id == self.close_id}
        elsewhere = {one: count for one, count in survey.uploads.items() if one not in here}
        if survey.uploads and not survey.free and not elsewhere:
            return  # it is sent
        wrong = self.selection.differences()
        wrong += [f"{count} went with upload {upload_id}" for upload_id, count in elsewhere.items()]
        marked = len(self.selection.hashes) - survey.free - survey.before - sum(survey.uploads.values())
        if marked and not wrong:
            wrong = [f"{marked} were posted meanwhile"]
        if wrong:
            told = "; ".join(wrong[:_SHOWN]) + (f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else "")
            raise ConfigurationError(
                f"close {self.close_id!r} was approved for {len(self.selection.hashes)} invoices, and is not what is"
                f" staged now: {told}. Nothing was sent; reconcile and approve again.",
                field="close_id",
            )


class OwnFile:
    """A user's own file, sent as it is: its content goes once, unless a reason is given.

    :param location: a path or an address of object storage.
    :param reason: why a content that was sent before is sent again; each sends once, whatever the content: one that is
        left in a DAG shall not speak for the next file.
    """

    close_id: str | None = None
    period: str | None = None

    def __init__(self, location: str, conn_id: str, scope: str, reason: str | None) -> None:
        self.reason = reason
        self._location = location
        self._conn_id = conn_id
        self._scope = scope
        with file_of_source(location) as file:
            self._sha256 = file.sha256

    def related(self, uploads: Uploads, connection: Connection) -> list[Upload]:
        """Return the uploads of the same content, the newest first."""
        if self.reason and (spent := uploads.of_reason(self._conn_id, self._scope, self.reason, connection)):
            words = "resend=%r was the reason of upload %s already; give another one to send again."
            log.warning(words, self.reason, spent[-1].upload_id)
            self.reason = None
        return uploads.of_content(self._conn_id, self._scope, self._sha256, connection)[::-1]

    def concerns(self, uploads: Uploads, upload: Upload, connection: Connection) -> bool:
        """Whether an upload is of the same content."""
        return upload.content_sha256 == self._sha256

    def remains(self, related: Sequence[Upload]) -> bool:
        """Whether this content was not sent before, or is to be sent again."""
        return not related or (bool(self.reason) and all(upload.status == "accepted" for upload in related))

    def file(self) -> OutgoingFile:
        """Return a copy of the file."""
        return file_of_source(self._location)

    def is_whole(self, file: OutgoingFile) -> bool:
        """Whether it is the content that was asked for.

        :raises ConfigurationError: when it is another one.
        """
        if file.sha256 != self._sha256:
            raise ConfigurationError(f"{self._location!r} changed while it was sent; try again.", field="source")
        return True


def unit_of(task: SageUploadOperator, context: Context, uploads: Uploads) -> Invoices | OwnFile:
    """Return what a task wants to send.

    :raises ConfigurationError: when its arguments do not go together.
    """
    source = None if task.source is None else needed(task.source, "source", "a file, or leave it out")
    close_id = None if task.close_id is None else needed(task.close_id, "close_id", "a close, or leave it out")
    reason = given(task.resend)
    # One that rendered empty must not make it a whole period, which nobody has approved.
    if source:
        if close_id or given(task.period):
            raise ConfigurationError("give either a file or which invoices, not both.", field="source")
        return OwnFile(source, task.conn_id, task.scope, reason)
    if reason:
        message = "is for a file of your own; staged invoices go again when Sage rejected them or they are released."
        raise ConfigurationError(message, field="resend")
    if close_id:
        selection = Selection(uploads.staging, given(task.kind), approved=approved(uploads.staging, close_id))
        if left := selection.left_out:
            words = (
                "Close %s was approved with %s invoices of other kinds (%s), which kind=%r leaves out; None takes all."
            )
            log.warning(words, close_id, left.total(), ", ".join(left), selection.kind)
    else:
        chosen = period_of(context, task.period, task.timezone)
        log.info("Period %s: %s.", chosen.period.key, chosen.reason)
        selection = Selection(uploads.staging, given(task.kind) or "sales", chosen.period)
    return Invoices(selection, task.scope, task.mapping, task.defaults)


def show(unit: Invoices | OwnFile, uploads: Uploads, scope: str) -> int:
    """Say in the log what would be sent, and what was sent before; return how many records would go."""
    with uploads.reading() as connection:
        related = unit.related(uploads, connection)
    for one in related:
        words = "Dry run: upload %s by %s holds it or some of it, and is %s as %s."
        log.info(words, one.upload_id, one.sender, one.status, one.tracking_id)
    if not unit.remains(related):  # which says how many there are, and what is wrong with them
        log.info("Dry run: nothing would be sent to %s.", scope)
        return 0
    with unit.file() as file:
        log.info("Dry run, nothing is sent to %s: %s.", scope, file.words())
        return file.count or 0
