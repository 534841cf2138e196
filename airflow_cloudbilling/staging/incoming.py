"""The temporary tables that a load fills while the vendor is read: invoices, lines, tax rows, and what they hash to.

Lines usually come before the header of their invoice, so both carry the invoice's ordinal within the load (``seq``) and
meet when the load is merged.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from itertools import count
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Index,
    Integer,
    MetaData,
    String,
    and_,
    exists,
    func,
    select,
    update,
)

from airflow_cloudbilling.model import Invoice, Invoices, InvoiceTax, Slice
from airflow_cloudbilling.staging.columns import INVOICE_AMOUNTS
from airflow_cloudbilling.staging.dialects import dialect_of
from airflow_cloudbilling.staging.documents import Documents
from airflow_cloudbilling.staging.findings import Findings
from airflow_cloudbilling.staging.ledger import of_slice
from airflow_cloudbilling.staging.lines import LINE_ROW, NEGATED, Lines, negated, turned
from airflow_cloudbilling.staging.rows import COLUMN, ROW, Row, is_clean, joined, joined_columns, row_of
from airflow_cloudbilling.staging.tables import Tables
from airflow_cloudbilling.staging.temporary import Batch, Sender, columns_like, temporary

_NOT_FROM_VENDOR = ("slice_period", "load_id", "posted_at", "posted_reference")
_INVOICE = Invoice._fields[: Invoice._fields.index("sign")]  # ends with what does not count: raw, source_sha256
_INVOICE_ROW = (*_INVOICE, "line_count", "content_hash", "sign", "action", "seq")
_TAX_ROW = ("seq", "tax_number", *InvoiceTax._fields)
_RAW = Invoice._fields.index("raw")


def _content_hash(invoice: Invoice, *parts: bytes) -> str:
    """Return the hash of an invoice's parts, its sign and its taxes."""
    taxes = sorted([sha256(joined(tax)).digest() for tax in invoice.taxes]) if invoice.taxes else ()
    return sha256(COLUMN.join((*parts, b"%d" % invoice.sign, *taxes))).hexdigest()


class Incoming:
    """The temporary tables of one load, on the load's own connection.

    :param connection: stays open for the whole load; temporary tables live and die with it.
    :param tables: the staging tables whose columns they take over.
    :param slice_: what is loaded; lines of its invoices that are staged as they came are not sent.
    """

    def __init__(self, connection: Connection, tables: Tables, slice_: Slice) -> None:
        self._sender = Sender(connection)
        self._staged = tables.invoice
        self._own = of_slice(tables.invoice, slice_, period=False)
        self.dialect = dialect_of(connection.dialect.name)
        self._create(tables)
        self.documents = Documents(self._sender, tables, slice_)
        self.findings = Findings(self._sender, tables, slice_)
        again = connection.scalar(select(exists().where(of_slice(tables.slice_invoice, slice_))))
        connection.commit()
        self._invoices = Batch(self._sender, self.invoice, _INVOICE_ROW)
        self._taxes = Batch(self._sender, self.tax, _TAX_ROW)
        to_lines = Batch(self._sender, self.line, LINE_ROW)
        self._lines = Lines(to_lines.send, self._unchanged if again else None)
        self.add_lines = self._lines.add
        self._asked = 0  # the last invoice that was compared with what is staged
        self.negative = False
        self.invoices = 0
        self.lines = 0

    @property
    def connection(self) -> Connection:
        """Return the load's connection when nothing is being sent over it."""
        return self._sender.connection

    def settle(self) -> None:
        """Wait for what is being sent."""
        self._sender.settle()

    def _create(self, tables: Tables) -> None:
        metadata = MetaData()
        late = (Column("sign", Integer()), Column("action", String(16)), Column("staged_period", String(32)))
        self.invoice = temporary(
            "new_invoice", metadata, _seq(key=True), *columns_like(tables.invoice, *_NOT_FROM_VENDOR), *late
        )
        parts = {"line": tables.invoice_line, "tax": tables.invoice_tax}
        self.line, self.tax = (
            temporary(f"new_invoice_{name}", metadata, _seq(), *columns_like(table, "invoice_id"))
            for name, table in parts.items()
        )
        invoice_id = tables.invoice.c.invoice_id.type
        self.protected = temporary("protected", metadata, Column("invoice_id", invoice_id))
        self.gone = temporary("gone", metadata, Column("invoice_id", invoice_id, primary_key=True))
        period = Column("period", tables.slice_invoice.c.period.type)
        self.elsewhere = temporary("elsewhere", metadata, Column("invoice_id", invoice_id, primary_key=True), period)
        metadata.create_all(self.connection, checkfirst=False)

    def add_invoice(self, invoice: Invoice) -> None:
        """Take in an invoice; the lines since the one before are its own."""
        content = joined(invoice[:_RAW])  # type: ignore[arg-type] # the fields before sign are texts
        self._add_invoice(invoice, content, self._lines.seq, *self._lines.content())
        self.next()

    def add_invoices(self, some: Invoices) -> None:
        """Take in whole invoices; lines that came before and that no invoice claimed are left behind."""
        self.next()
        contents = joined_columns(list(zip(*some.invoices, strict=True))[:_RAW])
        seqs = count(self._lines.seq)
        hashes = self._lines.add_whole(some.counts, some.lines)
        for each in zip(some.invoices, contents, seqs, some.counts, hashes):  # noqa: B905 - seqs has no end
            self._add_invoice(*each)
        self.next()

    def _add_invoice(self, invoice: Invoice, content: bytes, number: int, lines: int, hashes: bytes) -> None:
        values: Row = invoice[:_RAW]  # type: ignore[assignment] # the fields before raw are texts
        taxes, seq = invoice.taxes, str(number)
        content_hash = _content_hash(invoice, content, b"%d" % lines, hashes)
        if invoice.sign < 0:
            self.negative = self.negative or lines > 0
            pairs = zip(_INVOICE[:_RAW], values, strict=True)
            values = tuple(negated(value) if name in INVOICE_AMOUNTS else value for name, value in pairs)
            content = joined(values)
            taxes = tuple(InvoiceTax(t[0], t[1], negated(t.taxable_amount), negated(t.tax_amount)) for t in taxes)
        late = (invoice.raw, invoice.source_sha256, str(lines), content_hash, str(invoice.sign), "new", seq)
        row = COLUMN.join((content, joined(late)))
        self._put(self._invoices, row if is_clean(row, 1, len(_INVOICE_ROW)) else row_of((*values, *late)))
        for number, tax in enumerate(taxes, 1):
            self._put(self._taxes, (seq, str(number), *tax))
        self.invoices += 1
        self.lines += lines

    def next(self) -> None:
        """Begin the next invoice; lines that no invoice claimed are left behind and never merged."""
        self._lines.next()

    def finish(self) -> None:
        """Write what is still held, and negate the lines of credit notes that the vendor states as positive."""
        for batch in (self._lines, self._invoices, self._taxes):
            batch.flush()
        self.documents.finish()
        self.findings.finish()
        Index("cloudbilling_new_invoice_by_id", self.invoice.c.invoice_id).create(self.connection)
        self._negate()
        self.dialect.analyze(self.connection, self.invoice.c.invoice_id)
        self.connection.commit()

    def send_held_back(self) -> None:
        """Send, during the merge, the lines of invoices that somebody else has changed since they were held back."""
        new, line = self.invoice, self.line
        if self._lines.held_back.empty:
            return
        sent = select(line.c.seq, func.count().label("lines")).group_by(line.c.seq).subquery()
        fewer = new.c.line_count > func.coalesce(sent.c.lines, 0)
        fresh = new.c.action.in_(("new", "changed", "frozen"))
        lacking = select(new.c.seq).outerjoin(sent, sent.c.seq == new.c.seq).where(fresh, fewer)
        seqs = list(self.connection.scalars(lacking))
        negative = select(new.c.seq).where(new.c.seq.in_(seqs), new.c.sign < 0)
        credits = set(self.connection.scalars(negative))
        for groups in self._lines.held_back.of(set(seqs)) if seqs else ():
            if blocks := [turned(block) if seq in credits else block for seq, block in groups]:
                self.dialect.insert(self.connection, line.name, LINE_ROW, ROW.join(blocks))

    def close(self) -> None:
        """End what is being sent, and give the disk space back that rows take."""
        self._sender.close()
        self._lines.held_back.close()

    def protect(self, invoice_ids: Sequence[str]) -> None:
        """Note invoices that came but cannot be staged, so that they do not count as withdrawn."""
        if invoice_ids:
            rows = [{"invoice_id": invoice_id} for invoice_id in invoice_ids]
            self.connection.execute(self.protected.insert(), rows)
            self.connection.commit()

    def duplicates(self) -> list[tuple[str, int]]:
        """Drop repeated invoices: equal ones but for the first, contradictory ones wholly.

        :returns: the contradictory ones as id and number of times that they came.
        """
        table = self.invoice
        repeated = self.connection.execute(
            select(table.c.invoice_id, func.count(), func.count(table.c.content_hash.distinct()), func.min(table.c.seq))
            .group_by(table.c.invoice_id)
            .having(func.count() > 1)
        ).all()
        for invoice_id, _, contents, first in repeated:
            others = table.c.invoice_id == invoice_id
            self.connection.execute(table.delete().where(others if contents > 1 else others & (table.c.seq > first)))
        self.invoices -= sum(times if contents > 1 else times - 1 for _, times, contents, _ in repeated)
        self.connection.commit()
        return [(invoice_id, times) for invoice_id, times, contents, _ in repeated if contents > 1]

    def _put(self, batch: Batch, row: bytes | Row) -> None:
        if batch.add(row):
            batch.flush()

    def _unchanged(self) -> set[int]:
        """Return which invoices, of those since it was asked last, are staged as they came."""
        self._invoices.flush()
        new, staged = self.invoice, self._staged
        own = and_(self._own, staged.c.invoice_id == new.c.invoice_id)
        known = select(staged.c.content_hash).where(own).scalar_subquery()
        asked = new.c.seq.between(self._asked + 1, self._lines.seq)
        same = set(self.connection.scalars(select(new.c.seq).where(asked, new.c.content_hash == known)))
        self.connection.commit()
        self._asked = self._lines.seq - 1
        return same

    def _negate(self) -> None:
        if self.negative:
            seqs = select(self.invoice.c.seq).where(self.invoice.c.sign < 0)
            values = {name: self.dialect.negated(self.line.c[name]) for name in NEGATED}
            self.connection.execute(update(self.line).where(self.line.c.seq.in_(seqs)).values(values))


def _seq(*, key: bool = False) -> Column[Any]:
    """Return the column of an invoice's ordinal."""
    return Column("seq", Integer, primary_key=key, autoincrement=False)
