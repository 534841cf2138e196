"""The upload ledger: which files went to Sage, with which invoices, and what became of them.

``intent → submitted → accepted | failed``, and ``unknown`` where a sender died in between: then a person decides. The
intent is written, with every invoice of the file, before any request; one in an open item never goes into another file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

from sqlalchemy import ColumnElement, Connection, and_, select, update

from airflow_cloudbilling.errors import StagingError
from airflow_cloudbilling.model import Period, Slice
from airflow_cloudbilling.staging.frozen import FROZEN_STATES
from airflow_cloudbilling.staging.ledger import Run
from airflow_cloudbilling.staging.reading import snapshot
from airflow_cloudbilling.staging.uploads_sending import is_sending

if TYPE_CHECKING:
    from airflow_cloudbilling.staging.loader import Staging

Account = tuple[str, str, str]  # provider, account, kind
UNDECIDED = ("intent", "submitted", "unknown")  # of an upload: how it ends is not known yet
_NONE = Period.month(1, 1)  # an account's lock is of no period


class Upload(NamedTuple):
    """An upload as the ledger has it."""

    upload_id: str
    conn_id: str
    scope: str
    close_id: str | None
    reason: str | None
    content_sha256: str
    status: str
    tracking_id: str | None
    progress: str | None
    result_uri: str | None
    dag_id: str | None
    task_id: str | None
    run_id: str | None
    map_index: int | None
    word: str | None
    told_at: datetime | str | None
    record_count: int | None
    accepted_count: int | None
    rejected_count: int | None

    @property
    def sender(self) -> str:
        """The task that sends it, in words."""
        return f"task {self.task_id!r} of run {self.run_id!r}" if self.task_id else "a task without a name"


class Uploads:
    """Writes ``cloudbilling_upload`` and its items; each entry is its own short transaction.

    :param staging: the staging database.
    """

    def __init__(self, staging: Staging) -> None:
        self.staging = staging
        self.engine = staging.engine
        self.upload = staging.tables.upload
        self.item = staging.tables.upload_item

    def reading(self) -> AbstractContextManager[Connection]:
        """Read as of one moment: what others write meanwhile is seen by all statements, or by none."""
        return snapshot(self.engine)

    def get(self, upload_id: str, connection: Connection | None = None) -> Upload:
        """Return an upload by its id.

        :param connection: from :meth:`reading`; so below.
        """
        (found,) = self._uploads(self.upload.c.upload_id == upload_id, connection)
        return found

    def of_task(self, run: Run, conn_id: str, scope: str, connection: Connection | None = None) -> Upload | None:
        """Return the last upload of a task instance, whichever its try, if it has made one."""
        if run.task_id is None:
            return None
        names = ("dag_id", "task_id", "run_id", "map_index")
        own = [self.upload.c[name] == getattr(run, name) for name in names]
        of_scope = and_(self.upload.c.conn_id == conn_id, self.upload.c.scope == scope)
        found = self._uploads(and_(*own, of_scope), connection)
        return found[-1] if found else None

    def of_content(
        self, conn_id: str, scope: str, content_sha256: str, connection: Connection | None = None
    ) -> list[Upload]:
        """Return the uploads of the same file that may have reached Sage, the oldest first."""
        upload = self.upload
        same = and_(upload.c.conn_id == conn_id, upload.c.scope == scope, upload.c.content_sha256 == content_sha256)
        return self._uploads(and_(same, upload.c.status.in_(FROZEN_STATES)), connection)

    def of_reason(self, conn_id: str, scope: str, reason: str, connection: Connection | None = None) -> list[Upload]:
        """Return the uploads that were sent again for a reason and may have reached Sage, the oldest first."""
        upload = self.upload
        same = and_(upload.c.conn_id == conn_id, upload.c.scope == scope, upload.c.reason == reason)
        return self._uploads(and_(same, upload.c.status.in_(FROZEN_STATES)), connection)

    def tracked(self, conn_id: str, tracking_id: str) -> Upload | None:
        """Return the upload that Sage tracks under an id."""
        found = self._uploads(and_(self.upload.c.conn_id == conn_id, self.upload.c.tracking_id == tracking_id))
        return found[-1] if found else None

    def submitted(self, upload_id: str, tracking_id: str) -> None:
        """Write that Sage has taken a file, the moment that its tracking id is known.

        :raises StagingError: when a person has said meanwhile that it was not sent.
        """
        self._write_tracking(upload_id, tracking_id, ("intent", "unknown"))

    def progressed(self, upload_id: str, progress: str) -> None:
        """Write what Sage says of a file that is under way."""
        with self._writing() as connection:
            connection.execute(update(self.upload).where(self._undecided(upload_id)).values(progress=progress))

    def not_sent(self, upload_id: str, words: str) -> None:
        """Write that a file has not reached Sage; its invoices may go again.

        :param words: who says so, or what went wrong; kept with the items.
        """
        with self._writing() as connection:
            now = self.staging.ledger.now(connection)
            values = {"status": "failed", "progress": words, "ended_at": now, "told_at": now}
            if connection.execute(update(self.upload).where(self._undecided(upload_id)).values(values)).rowcount:
                self.set_items(connection, upload_id, status="failed", message=words, ended_at=now)

    def told(self, upload_id: str) -> None:
        """Write that a task now says how an upload has ended."""
        with self._writing() as connection:
            untold = and_(self.upload.c.upload_id == upload_id, self.upload.c.told_at.is_(None))
            values = {"told_at": self.staging.ledger.now(connection)}
            connection.execute(update(self.upload).where(untold).values(values))

    def lost(self, upload_id: str) -> None:
        """Write that nobody knows whether a file has reached Sage."""
        with self._writing() as connection:
            intent = and_(self.upload.c.upload_id == upload_id, self.upload.c.status == "intent")
            if connection.execute(update(self.upload).where(intent).values(status="unknown")).rowcount:
                self.set_items(connection, upload_id, status="unknown")

    def sent(self, upload_id: str, tracking_id: str) -> None:
        """Write a person's word that a file of an unknown upload has reached Sage, and under which tracking id."""
        self._write_tracking(upload_id, tracking_id, ("unknown",))

    def settled(self, upload: Upload) -> Upload:
        """Return an upload as it is now; one whose sender has died is ``unknown``, of one that lives ``intent``."""
        now = self.get(upload.upload_id)
        if now.status != "intent" or is_sending(self.engine, now.upload_id):
            return now
        self.lost(now.upload_id)  # unless it has been written in between that the file was submitted
        return self.get(now.upload_id)

    def set_items(self, connection: Connection, upload_id: str, **values: object) -> None:
        """Change the undecided items of an upload, in the caller's transaction."""
        open_items = and_(self.item.c.upload_id == upload_id, self.item.c.status.in_(UNDECIDED))
        connection.execute(update(self.item).where(open_items).values(values))

    @contextmanager
    def locked(self, accounts: Iterable[Account]) -> Iterator[Connection]:
        """Run one transaction under the locks of several accounts, under which their loads are merged."""
        slices = [Slice(*account, _NONE) for account in sorted(set(accounts))]
        if self.engine.dialect.name == "sqlite":
            slices = slices[:1]  # which has one lock for all
        with ExitStack() as stack:
            connections = [stack.enter_context(self.engine.connect()) for _ in slices]
            for connection, slice_ in zip(connections, slices, strict=True):  # the last one's commits first
                stack.enter_context(self.staging.locked(connection, slice_))
            yield connections[-1]

    def accounts(self, upload: Upload) -> list[Account]:
        """Return the accounts of the invoices in an upload; of a user's own file what stands for them."""
        columns = [self.item.c[name] for name in ("provider", "account", "kind")]
        with self.engine.connect() as connection:
            found = connection.execute(select(*columns).where(self.item.c.upload_id == upload.upload_id).distinct())
            return [(row[0], row[1], row[2]) for row in found] or [own_file(upload.conn_id, upload.scope)]

    def _write_tracking(self, upload_id: str, tracking_id: str, before: tuple[str, ...]) -> None:
        expected = and_(self.upload.c.upload_id == upload_id, self.upload.c.status.in_(before))
        with self._writing() as connection:
            now = self.staging.ledger.now(connection)
            values = {"status": "submitted", "tracking_id": tracking_id, "submitted_at": now}
            if not connection.execute(update(self.upload).where(expected).values(values)).rowcount:
                raise StagingError(
                    f"Upload {upload_id} is {self.get(upload_id).status}, although Sage tracks it as {tracking_id}; "
                    "look at Sage whether its records were taken twice."
                )
            self.set_items(connection, upload_id, status="submitted")

    def _undecided(self, upload_id: str) -> ColumnElement[bool]:
        return and_(self.upload.c.upload_id == upload_id, self.upload.c.status.in_(UNDECIDED))

    def _uploads(self, which: ColumnElement[bool], connection: Connection | None = None) -> list[Upload]:
        columns = [self.upload.c[name] for name in Upload._fields]
        found = select(*columns).where(which).order_by(self.upload.c.created_at)
        with self.engine.connect() if connection is None else nullcontext(connection) as reading:
            return [Upload(*row) for row in reading.execute(found)]

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self.engine.execution_options(sqlite_begin="BEGIN IMMEDIATE").begin() as connection:
            yield connection


def own_file(conn_id: str, scope: str) -> Account:
    """Return what stands for an account where a user's own file is sent: its lock."""
    return "", conn_id, scope


def new_id() -> str:
    """Return the id of a new upload."""
    return str(uuid4())
