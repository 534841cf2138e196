"""One load of one slice: fill temporary tables while the vendor is read, then merge in one short transaction."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from airflow_cloudbilling.errors import ConfigurationError, IncompleteError, RejectedRecordsError, WaitError
from airflow_cloudbilling.model import (
    Document,
    Finding,
    Invoice,
    InvoiceLine,
    Invoices,
    Notice,
    Outside,
    Reject,
    Slice,
    Stated,
)
from airflow_cloudbilling.staging.create import create_tables
from airflow_cloudbilling.staging.dialects import dialect_of
from airflow_cloudbilling.staging.incoming import Incoming
from airflow_cloudbilling.staging.ledger import Exchange, Ledger, Original, Run, totals_json
from airflow_cloudbilling.staging.merge import Merge
from airflow_cloudbilling.staging.refusals import Refusals
from airflow_cloudbilling.staging.results import Loaded as Loaded
from airflow_cloudbilling.staging.results import Merged
from airflow_cloudbilling.staging.tables import tables

_FLUSH = 200  # ledger rows held before they are written
_ID_LENGTH = 255


class Rules(NamedTuple):
    """What a load may do.

    :param max_removed: share of a slice's invoices (0 to 1) that may vanish; one may always.
    :param allow_removals: lifts that limit.
    :param quarantine: stage what could be read although some records could not.
    """

    max_removed: Decimal = Decimal("0.1")
    allow_removals: bool = False
    quarantine: bool = False


class Staging:
    """The staging tables in one database.

    :param engine: from :func:`airflow_cloudbilling.staging.engine.engine_for`.
    :param schema: database schema of the tables; ``None`` for the connection's default.
    """

    def __init__(self, engine: Engine, schema: str | None = None) -> None:
        if schema and engine.dialect.name == "sqlite":
            raise ConfigurationError(
                f"SQLite has no schemas; leave schema empty instead of {schema!r}.", field="schema"
            )
        self.engine = engine
        self.tables = tables(schema)
        self.ledger = Ledger(engine, self.tables)

    def create(self) -> None:
        """Create what is missing of the tables and views, before and outside any load's transaction."""
        create_tables(self.engine, self.tables)

    def locked(self, connection: Connection, slice_: Slice) -> AbstractContextManager[None]:
        """Return a transaction that no other has at the same time for the slice's account and kind."""
        name = f"{self.tables.metadata.schema}/{slice_.provider}/{slice_.account}/{slice_.kind}"
        return dialect_of(self.engine.dialect.name).locked(connection, name)

    def load(
        self, slice_: Slice, run: Run | None = None, rules: Rules | None = None, original: Original | None = None
    ) -> Load:
        """Open a load of a slice; use it as a context manager.

        :param run: the task instance, for the ledger.
        :param original: the load whose answers are read again; the reading counts from when that one's did.
        """
        return Load(self, slice_, run or Run(), rules or Rules(), original)


class Load:
    """Takes in what a source yields; an exception inside the ``with`` block leaves staging as it was.

    The load's reading counts from the moment that the block is entered.
    """

    def __init__(
        self, staging: Staging, slice_: Slice, run: Run, rules: Rules, original: Original | None = None
    ) -> None:
        if len(slice_.account) > 128:
            raise ConfigurationError(
                f"account {slice_.account[:40]!r}… is longer than 128 characters.", field="account"
            )
        self.staging = staging
        self.ledger = staging.ledger
        self.slice = slice_
        self.run = run
        self.rules = rules
        self.original = original
        self.load_id = ""
        self.fetch_started_at = ""
        self.stated: int | None = None
        self.outside = 0
        self.notices: Callable[[str], None] = lambda message: None
        self.before_merge: Callable[[Connection], None] = lambda connection: None
        self._exchanges: list[Exchange] = []
        self._pages = 0
        self._take: dict[type, Callable[[Any], None]] = {
            Invoice: self._invoice,
            Invoices: self._invoices,
            Reject: self._reject,
            Outside: self._left_out,
            Stated: self._state,
            Document: self._document,
            Finding: lambda finding: self.incoming.findings.add(finding),
            Notice: lambda notice: self.notices(notice.message),
        }

    def __enter__(self) -> Load:
        """Open the ledger's entry and the temporary tables."""
        self.load_id, self.fetch_started_at = self.ledger.begin(self.slice, self.run, self.original)
        self._connection = self.staging.engine.connect().execution_options(preserve_rowcount=True)
        self.incoming = Incoming(self._connection, self.staging.tables, self.slice)
        self.refusals = Refusals(self.incoming.protect, self._write_rejects, _ID_LENGTH)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Close the temporary tables; mark the load as failed when an error ends it."""
        self.incoming.close()
        try:
            self._connection.close()
        except DBAPIError:
            pass  # it is broken already, which is what ended the load
        if error is None:
            return
        # a database that is gone takes no note of it either: the next load marks this one as abandoned
        with suppress(DBAPIError) if isinstance(error, DBAPIError) else nullcontext():
            self._flush()
            status = "waiting" if isinstance(error, WaitError) else "failed"
            self.ledger.stop(self.load_id, status, f"{type(error).__name__}: {error}", **self._counts())

    def add(self, item: Any) -> None:
        """Take in one item of a conversation."""
        if type(item) is list:
            self.incoming.add_lines(item)
        elif type(item) is InvoiceLine:
            self.incoming.add_lines([item])
        else:
            self._take[type(item)](item)

    def settle(self) -> None:
        """Let the database finish with what it was sent: no transaction is open while the vendor is waited for."""
        self.incoming.settle()

    def exchanged(self, url: str, status: int | None, sha256: str | None) -> None:
        """Note an exchange with the vendor for the request log; ``url`` carries no secret."""
        self._pages += 1
        if len(self._exchanges) >= _FLUSH:  # the last one stays, it may turn out to be a good answer
            self._flush()
        self._exchanges.append(Exchange(url, status, sha256))

    def answered(self, method: str, headers: str, request_key: str) -> None:
        """Note that the last exchange was a good answer, and what a replay needs to know of it."""
        last = self._exchanges[-1]
        self._exchanges[-1] = last._replace(method=method, headers=headers, request_key=request_key)

    def archived(self, sha256: str, uri: str) -> None:
        """Note where the archive keeps a body; documents with that SHA-256 are then found there."""
        self.incoming.documents.archived(sha256, uri)

    def commit(self) -> Loaded:
        """Check what came, and merge it.

        :returns: what changed, read back from the tables.
        :raises RejectedRecordsError: when records could not be read and are not put in quarantine.
        :raises IncompleteError: when the vendor states another number of records than came.
        :raises RemovalError: when too many invoices would vanish.
        """
        self.incoming.finish()
        for invoice_id, times in self.incoming.duplicates():
            self.refusals.add(Reject(f"came {times} times with different content", "", invoice_id))
        self._flush()
        self._check()
        return self._merge()

    def progress(self) -> str:
        """Return what came so far, in numbers."""
        sizes = f"{self.incoming.invoices} invoices, {self.incoming.lines} lines"
        return f"{self._pages} requests, {sizes}, {self.refusals.number} rejected"

    @property
    def received(self) -> int:
        """Distinct records that came: to be staged, outside the period, or rejected."""
        return self.incoming.invoices + self.outside + self.refusals.number

    def _check(self) -> None:
        if self.stated is not None and self.stated != self.received:
            raise IncompleteError(
                f"The vendor states {self.stated} records for {self._name()}, and {self.received} distinct ones came. "
                "Nothing was changed; run the task again, and ask the vendor if it stays so."
            )
        if self.refusals.number and not self.rules.quarantine:
            raise RejectedRecordsError(
                f"{self.refusals.number} of {self.received} records of {self._name()} could not be read; nothing was "
                f"staged. First: {self.refusals.first}. All stand in cloudbilling_reject with load_id {self.load_id}. "
                'Map the field with field_map, ask the vendor, or stage the others with on_reject="quarantine".'
            )

    def _merge(self, attempts: int = 3) -> Loaded:
        """Merge under the account's lock; once more when the database gave way to somebody else."""
        try:
            return self._merge_once()
        except DBAPIError as error:
            if attempts == 1 or error.connection_invalidated or not self.incoming.dialect.is_transient(error):
                raise
        return self._merge(attempts - 1)

    def _merge_once(self) -> Loaded:
        connection, slice_ = self._connection, self.slice
        with self.staging.locked(connection, slice_):
            merge = Merge(connection, self.staging.tables, slice_, self.incoming, self.load_id, self.fetch_started_at)
            superseded = merge.superseded()
            if superseded:
                merged = merge.present()
            else:
                self.before_merge(connection)
                allowed = None if self.rules.allow_removals else self.rules.max_removed
                merged = merge.run(removal=not self.refusals.blind, allowed=allowed)
            status = "superseded" if superseded else "committed"
            self._end(connection, status, merged)
        return Loaded(slice_, self.load_id, status, merged, self.received, self.outside, self.refusals.number)

    def _end(self, connection: Connection, status: str, merged: Merged) -> None:
        changes = {f"{n}_count": getattr(merged, n) for n in ("new", "changed", "unchanged", "removed", "frozen")}
        staged = merged.new + merged.changed + merged.unchanged
        sizes = {f"{n}_count": getattr(merged, f"{n}s") for n in ("invoice", "line", "document")}
        values = {**self._counts(), **changes, **sizes, "staged_count": staged, "totals": totals_json(merged.totals)}
        self.ledger.end(connection, self.load_id, status, **values)
        if status == "committed":
            self.ledger.abandon_older(connection, self.slice, self.fetch_started_at)

    def _counts(self) -> dict[str, int | None]:
        return {
            "received_count": self.received,
            "outside_count": self.outside,
            "rejected_count": self.refusals.number,
            "stated_count": self.stated,
        }

    def _name(self) -> str:
        return f"{self.slice.provider} account {self.slice.account!r}, {self.slice.kind}, {self.slice.period.key}"

    def _invoice(self, invoice: Invoice) -> None:
        if len(invoice.invoice_id) > _ID_LENGTH:
            self._reject(Reject(f"invoice_id is longer than {_ID_LENGTH} characters", invoice.raw or "", None))
        else:
            self.incoming.add_invoice(invoice)

    def _invoices(self, some: Invoices) -> None:
        if all(len(one.invoice_id) <= _ID_LENGTH for one in some.invoices):
            self.incoming.add_invoices(some)
        else:
            for item in some.singly():
                self.add(item)

    def _document(self, document: Document) -> None:
        if max(len(document.document_id), len(document.invoice_id or "")) <= _ID_LENGTH:
            self.incoming.documents.add(document)
        else:
            self.notices(
                f"File {document.document_id[:40]!r}… has an id longer than {_ID_LENGTH} characters; left out."
            )

    def _left_out(self, outside: Outside) -> None:
        self.outside += 1
        self.incoming.next()

    def _state(self, stated: Stated) -> None:
        self.stated = stated.number

    def _reject(self, reject: Reject) -> None:
        self.incoming.next()
        self.refusals.add(reject)

    def _write_rejects(self, rejects: list[Reject]) -> None:
        self.ledger.rejects(self.load_id, self.slice, rejects)

    def _flush(self) -> None:
        exchanges, self._exchanges = self._exchanges, []
        self.refusals.flush()
        self.ledger.requests(self.load_id, exchanges)
