"""Following an upload to its end: progress into log and ledger, results into the ledger, refusals into words."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

from airflow_cloudbilling.errors import CloudBillingError, MalformedReplyError, RefusedError, UnavailableError
from airflow_cloudbilling.parse.events import Malformed
from airflow_cloudbilling.sources.sage_results import ResultFile

if TYPE_CHECKING:
    from airflow_cloudbilling.hooks.sage import SageConnectedCloudHook, Tracking
    from airflow_cloudbilling.http.client import Client
    from airflow_cloudbilling.sources.sage_watch import Watch
    from airflow_cloudbilling.staging.uploads import Upload, Uploads
    from airflow_cloudbilling.staging.uploads_results import Ended

_DOUBT = "look at Sage, then mark them with MarkPostedOperator, or release them with ReleaseInvoicesOperator"

log = logging.getLogger(__name__)


class Following:
    """Asks for an upload until it has ended, and writes what became of it.

    :param uploads: the ledger.
    :param upload: one that was sent.
    :param stop: is set when the task is being stopped.
    """

    def __init__(
        self,
        hook: SageConnectedCloudHook,
        uploads: Uploads,
        upload: Upload,
        watch: Watch,
        stop: threading.Event,
    ) -> None:
        self.hook = hook
        self.uploads = uploads
        self.upload = upload
        self.watch = watch
        self.stop = stop
        self._words = ""

    def look(self, client: Client) -> Ended | None:
        """Ask once; return how the upload has ended, None when it is under way.

        :raises VendorError: when the question, or the one for the result, has no good answer.
        """
        from airflow_cloudbilling.staging.uploads_results import Results

        if self.upload.status in ("accepted", "failed"):
            return Results(self.uploads, self.upload).told()
        tracking = self.hook.track(self.upload.tracking_id or "", client)
        before, end = self.watch.state, self.watch.said(tracking)
        if self.watch.state != before:
            log.info("Upload %s (%s) is %s.", self.upload.upload_id, self.upload.tracking_id, self.watch.state)
            self.uploads.progressed(self.upload.upload_id, self.watch.state)
        return self._settle(client, tracking, end) if end else None

    def look_once(self, client: Client) -> Ended | None:
        """Ask once, as :meth:`look` does; an outage leaves it to the next question."""
        try:
            return self.look(client)
        except CloudBillingError as error:
            if self.stop.is_set():
                raise
            self.watch.failed(error)
            log.warning("%s", error)
            return None

    def wait(self, client: Client, deadline: float) -> Ended:
        """Ask until the upload has ended.

        :param deadline: seconds since the epoch.
        :raises UnavailableError: when it has not by then, or the task is being stopped; a retry goes on.
        """
        while True:
            pause = self.watch.interval
            try:
                if (ended := self.look(client)) is not None:
                    return ended
            except CloudBillingError as error:
                if self.stop.is_set():
                    raise
                pause = self.watch.failed(error)
                log.warning("%s Asking again in %.0f s.", error, pause)
            if (left := deadline - time.time()) <= 0:
                raise self.too_late()
            if self.stop.wait(min(pause, left)):
                raise UnavailableError("The wait was stopped; a retry goes on with it.", conn_id=self.hook.conn_id)

    def too_late(self, state: str = "") -> UnavailableError:
        """Return the error that says that the time to wait is over.

        :param state: the last that somebody else saw.
        """
        return UnavailableError(
            f"upload {self.upload.upload_id} ({self.upload.tracking_id}) has not ended in time; its last state is"
            f" {state or self.watch.state}. It is not sent again: the next try goes on waiting. If Sage"
            f' never got the file, run this task with resolve="not_sent" and tracking_id={self.upload.tracking_id!r}.',
            conn_id=self.hook.conn_id,
        )

    def check(self, ended: Ended, *, fail_on_rejected: bool) -> None:
        """Raise when Sage refused the file, or records of it.

        :raises RefusedError: with the first of Sage's words.
        """
        from airflow_cloudbilling.staging.uploads_results import shown

        upload = ended.upload
        if upload.status == "failed" or ended.rejected or ended.unknown:
            self.uploads.told(upload.upload_id)
        said = "; ".join(filter(None, (self._words, *shown(ended.first))))
        name = f"upload {upload.upload_id} ({upload.tracking_id})"
        told = f" Sage says: {said}." if said else ""
        doubt = f"{ended.unknown} have an outcome that is not known: {_DOUBT}" if ended.unknown else ""
        if upload.status == "failed":
            again = f"of them {doubt}; the others may go again" if doubt else "they may go again"
            message = f"Sage refused {name} with {upload.record_count or 0} records; {again}.{told}"
            raise RefusedError(message, conn_id=self.hook.conn_id)
        if not (ended.rejected or doubt):
            return
        what = f"{ended.rejected} of {upload.record_count or 0} records of {name} were rejected"
        what += f", {doubt}" if doubt else ""
        if fail_on_rejected:
            raise RefusedError(f"{what}; what was rejected may go again.{told}", conn_id=self.hook.conn_id)
        log.warning("%s.%s", what, told)

    def _settle(self, client: Client, tracking: Tracking, end: str) -> Ended:
        """Fetch the results and write how the upload has ended, in one transaction."""
        from airflow_cloudbilling.staging.uploads_results import Results

        results = Results(self.uploads, self.upload)
        if not tracking.result_url:
            log.info("Sage gives no result file; every record shares the fate of the file.")
            return results.end(end)
        reply = self.hook.download_result(tracking.result_url, client)
        with closing(reply.body):
            file = ResultFile(reply.body, end)
            try:
                ended = results.end(end, file, tracking.result_uri)
            except Malformed as error:
                message = f"the result file at {reply.url} cannot be read: {error}."
                raise MalformedReplyError(message, conn_id=self.hook.conn_id, url=reply.url) from None
            self._words = file.words
        self._tell(ended)
        return ended

    def _tell(self, ended: Ended) -> None:
        upload = ended.upload
        counts = (upload.record_count or 0, upload.accepted_count or 0, upload.rejected_count or 0)
        log.info(
            "Upload %s has ended %s: %s records, %s accepted, %s rejected.", upload.upload_id, upload.status, *counts
        )
        if ended.strangers:
            log.warning("The result names %s records that the file has not.", ended.strangers)


def result_of(upload: Upload | None, scope: str, status: str = "") -> dict[str, Any]:
    """Return a task's result: plain, small, without secrets.

    :param status: instead of the upload's.
    """
    names = {"records": "record_count", "accepted": "accepted_count", "rejected": "rejected_count"}
    return {
        "upload_id": upload.upload_id if upload else None,
        "tracking_id": upload.tracking_id if upload else None,
        "status": status or (upload.status if upload else "empty"),
        "scope": scope,
        **{name: (getattr(upload, column) if upload else 0) or 0 for name, column in names.items()},
        "result_uri": upload.result_uri if upload else None,
    }
