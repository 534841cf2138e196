"""A person's word about an upload of which nobody knows: ``resolve=`` and ``tracking_id=``, for no other file."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from airflow_cloudbilling.errors import ConfigurationError, InDoubtError, UnavailableError

if TYPE_CHECKING:
    from airflow_cloudbilling.staging.uploads import Upload, Uploads

log = logging.getLogger(__name__)


class Word(NamedTuple):
    """What a person says.

    :param what: ``sent`` or ``not_sent``.
    :param name: Sage's id of an upload that was sent; with ``not_sent`` the ledger's id of the upload that is meant, or
        Sage's, of one that Sage never got although it gave an id.
    """

    what: str
    name: str | None = None

    @property
    def text(self) -> str:
        """What the ledger keeps of it."""
        return " ".join(filter(None, self))

    def check(self) -> None:
        """Look whether it says something.

        :raises ConfigurationError: when it does not.
        """
        if self.what not in ("sent", "not_sent"):
            raise ConfigurationError(f"{self.what!r} is neither 'sent' nor 'not_sent'.", field="resolve")
        if self.what == "sent" and not self.name:
            raise ConfigurationError("say as what Sage tracks it: the id that Sage shows.", field="tracking_id")


def resolve(uploads: Uploads, conn_id: str, related: Sequence[Upload], word: Word) -> None:
    """Take a person's word.

    Only for an upload that an earlier try has found to be unknown: none is ever decided in the try that finds it.

    :param related: the uploads of what the task wants to send.
    :raises ConfigurationError: when that makes no sense, or the word stood in the task already when the file was sent,
        so that it cannot be about it.
    :raises UnavailableError: when it is still being sent.
    """
    word.check()
    meant = _sent(uploads, conn_id, related, word) if word.what == "sent" else _not_sent(uploads, related, word)
    if not meant:
        log.info("No upload of this is unknown; resolve=%r is not needed.", word.what)
    for upload in meant:
        log.warning("Upload %s is resolved as %s, by a person's word.", upload.upload_id, word.what)
        if word.what == "sent":
            uploads.sent(upload.upload_id, word.name or "")
        else:
            uploads.not_sent(upload.upload_id, "a person says that it was not sent")


def too_early(upload: Upload) -> UnavailableError:
    """Return the error that says that an upload is still being sent."""
    message = f"Upload {upload.upload_id} is still being sent by {upload.sender}; try again later."
    return UnavailableError(message, conn_id=upload.conn_id)


def in_doubt(upload: Upload, why: str) -> InDoubtError:
    """Return the error that says that nobody knows whether a file has reached Sage, and what to do now."""
    what = "a file" if upload.record_count is None else f"{upload.record_count} invoices"
    return InDoubtError(
        f"nobody knows whether upload {upload.upload_id} ({what} for {upload.scope}, SHA-256"
        f" {upload.content_sha256}) has reached Sage. {why} It is not sent again by itself: look at Sage, then run"
        ' this task with resolve="sent" and tracking_id=…, or with resolve="not_sent".',
        conn_id=upload.conn_id,
    )


def _sent(uploads: Uploads, conn_id: str, related: Sequence[Upload], word: Word) -> list[Upload]:
    unknown = [upload for upload in related if upload.status == "unknown"]
    if len(unknown) > 1:
        ids = ", ".join(upload.upload_id for upload in unknown)
        message = f"{len(unknown)} uploads are unknown ({ids}); name one by the period or close of its own task."
        raise ConfigurationError(message, field="resolve")
    other = uploads.tracked(conn_id, word.name or "") if unknown else None
    if other and other.content_sha256 != unknown[0].content_sha256:
        message = f"{word.name!r} is upload {other.upload_id}, which is another file; look at Sage for this one's id."
        raise ConfigurationError(message, field="tracking_id")
    return unknown


def _not_sent(uploads: Uploads, related: Sequence[Upload], word: Word) -> list[Upload]:
    from airflow_cloudbilling.staging.uploads_sending import is_sending

    if not word.name:
        unknown = [upload for upload in related if upload.status == "unknown"]
        for upload in unknown:
            _check_said_after(upload, word)
        return unknown
    named = [one for one in related if word.name in (one.tracking_id, one.upload_id) and one.status != "intent"]
    for upload in named:  # of a presigned one the file comes after the id
        if is_sending(uploads.engine, upload.upload_id):
            raise too_early(upload)
    return [upload for upload in named if upload.status in ("submitted", "unknown")]


def _check_said_after(upload: Upload, word: Word) -> None:
    if upload.word == word.text:
        raise ConfigurationError(
            f"{word.what!r} stood in the task already when upload {upload.upload_id} was sent, so that it is not taken"
            f" for it. Look at Sage; if it was not sent, say so with tracking_id={upload.upload_id!r} beside it.",
            field="resolve",
        )
