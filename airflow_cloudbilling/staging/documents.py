"""The files of one load: taken in while the vendor is read, merged under their invoices.

A file belongs to its invoice, and comes and goes with it; one without an invoice belongs to the slice that listed it
first. An invoice that is posted keeps the files with which it was posted.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Index,
    Integer,
    MetaData,
    Select,
    String,
    and_,
    case,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.sql.elements import ColumnElement

from airflow_cloudbilling.model import Document, Slice
from airflow_cloudbilling.staging.dialects import dialect_of
from airflow_cloudbilling.staging.frozen import is_frozen
from airflow_cloudbilling.staging.ledger import of_slice, slice_values
from airflow_cloudbilling.staging.tables import Tables
from airflow_cloudbilling.staging.temporary import Batch, Sender, columns_like, copy_rows, temporary

_TEXTS = ("document_type", "filename", "content_type", "uri")


class Documents:
    """The temporary tables of a load's files and of where the archive keeps bodies, on the load's own connection."""

    def __init__(self, sender: Sender, tables: Tables, slice_: Slice) -> None:
        self._sender = sender
        connection = sender.connection
        self._dialect = dialect_of(connection.dialect.name)
        self._tables = tables
        self._slice = slice_
        self._staged = tables.document
        self._own = of_slice(tables.document, slice_, period=False)
        metadata = MetaData()
        seq = Column("seq", Integer, primary_key=True, autoincrement=False)
        columns = columns_like(tables.document, "load_id", "period")
        invoice_id = tables.document.c.invoice_id.type
        late = (Column("action", String(16)), Column("staged_invoice", invoice_id))
        self.new = temporary("new_document", metadata, seq, *columns, *late)
        self._followed = temporary("followed", metadata, Column("invoice_id", invoice_id, primary_key=True))
        body = [Column(name, tables.document.c[name].type) for name in ("sha256", "uri")]
        self._kept = temporary("new_archived", metadata, *body)
        metadata.create_all(connection, checkfirst=False)
        self._documents = Batch(sender, self.new, ("seq", *Document._fields, "action"))
        self._bodies = Batch(sender, self._kept, ("sha256", "uri"))
        self._seq = 0

    @property
    def _connection(self) -> Connection:
        return self._sender.connection

    def add(self, document: Document) -> None:
        """Take in a file; of several with the same id the last one counts."""
        self._seq += 1
        facts = document._replace(sha256=document.sha256 or None)  # type: ignore[arg-type] # unknown is NULL
        row = (str(self._seq), *(None if value is None else str(value) for value in facts), "new")
        if self._documents.add(row):
            self._documents.flush()

    def archived(self, sha256: str, uri: str) -> None:
        """Note where the archive keeps a body."""
        if self._bodies.add((sha256, uri)):
            self._bodies.flush()

    def finish(self) -> None:
        """Write what is still held, and find each file's place in the archive."""
        self._documents.flush()
        self._bodies.flush()
        if not self._seq:
            return
        new, kept = self.new, self._kept
        Index("cloudbilling_new_document_by_id", new.c.document_id).create(self._connection)
        repeated = select(new.c.document_id, func.max(new.c.seq)).group_by(new.c.document_id).having(func.count() > 1)
        for document_id, last in self._connection.execute(repeated).all():
            earlier = and_(new.c.document_id == document_id, new.c.seq < last)
            self._connection.execute(delete(new).where(earlier))
        places = select(kept.c.sha256, func.min(kept.c.uri).label("uri")).group_by(kept.c.sha256).subquery()
        self._connection.execute(update(new).where(new.c.sha256 == places.c.sha256).values(uri=places.c.uri))
        self._dialect.analyze(self._connection, new.c.document_id)
        self._connection.commit()

    def merge(self, load_id: str, came: Select[Any], *, removal: bool) -> None:
        """Bring the files of the invoices that came, and those without an invoice, to what the vendor lists.

        :param came: ids of the invoices whose present version is staged.
        :param removal: whether files without an invoice that did not come are taken as withdrawn.
        """
        new, staged = self.new, self._staged
        if not self._seq and not self._connection.scalar(select(exists().where(self._own))):
            return
        self._follow(came)
        if self._seq:
            self._classify()
        listed = select(new.c.document_id).where(new.c.action == "unchanged")
        of_came = staged.c.invoice_id.in_(select(self._followed.c.invoice_id))
        subject = or_(of_came, self.without_invoice()) if removal else of_came
        self._connection.execute(delete(staged).where(self._own, subject, staged.c.document_id.not_in(listed)))
        if self._seq:
            changed = select(new.c.document_id).where(new.c.action == "changed")
            self._connection.execute(delete(staged).where(self._own, staged.c.document_id.in_(changed)))
            self._insert(load_id)

    def without_invoice(self) -> ColumnElement[bool]:
        """Return the condition that a staged file is the slice's own."""
        return and_(self._staged.c.invoice_id.is_(None), of_slice(self._staged, self._slice))

    def _follow(self, came: Select[Any]) -> None:
        """Note the invoices whose files follow the vendor: those that came and are not posted."""
        followed = self._followed
        self._connection.execute(insert(followed).from_select(["invoice_id"], came))
        self._connection.execute(delete(followed).where(self._is_posted(followed.c.invoice_id)))
        self._dialect.analyze(self._connection, followed.c.invoice_id)

    def _is_posted(self, invoice_id: Column[Any]) -> ColumnElement[bool]:
        invoice = self._tables.invoice
        match = and_(of_slice(invoice, self._slice, period=False), invoice.c.invoice_id == invoice_id)
        return exists().where(match, is_frozen(self._tables))

    def _classify(self) -> None:
        """Mark every incoming file as new, changed, unchanged, or left out because of its invoice."""
        new, staged = self.new, self._staged
        same = and_(self._own, staged.c.document_id == new.c.document_id)
        self._connection.execute(update(new).where(same).values(staged_invoice=staged.c.invoice_id))
        moves = and_(new.c.staged_invoice.is_not(None), new.c.staged_invoice.is_distinct_from(new.c.invoice_id))
        followed = select(self._followed.c.invoice_id)
        self._mark("left out", and_(new.c.invoice_id.is_not(None), new.c.invoice_id.not_in(followed)))
        self._mark("left out", and_(moves, self._is_posted(new.c.staged_invoice)))
        known = and_(same, new.c.uri.is_(None), new.c.sha256 == staged.c.sha256)
        self._connection.execute(update(new).where(known).values(uri=staged.c.uri))
        columns = ((new.c[name], staged.c[name]) for name in (*Document._fields[1:], "uri"))
        bytewise = self._dialect.bytewise
        differs = or_(*((bytewise(a) if a.name in _TEXTS else a).is_distinct_from(b) for a, b in columns))
        values = {"action": case((differs, "changed"), else_="unchanged")}
        self._connection.execute(update(new).where(same, new.c.action == "new").values(values))

    def _mark(self, action: str, which: ColumnElement[bool]) -> None:
        self._connection.execute(update(self.new).where(which).values(action=action))

    def _insert(self, load_id: str) -> None:
        new = self.new
        whole = slice_values(self._slice)
        period = case((new.c.invoice_id.is_(None), whole["period"]), else_=None)
        values = {**whole, "load_id": load_id, "period": period}
        fresh = select(new).where(new.c.action.in_(("new", "changed")))
        copy_rows(self._connection, self._staged, new, values, fresh)
