"""The temporary tables that a load fills while the vendor is read: invoices, lines, tax rows, and what they hash to.

Lines usually come before the header of their invoice, so both carry the invoice's ordinal within the load (``seq``) and
meet when the load is merged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Any, cast

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

from airflow_cloudbilling.model import Invoice, InvoiceLine, InvoiceTax, Slice
from airflow_cloudbilling.staging.columns import INVOICE_AMOUNTS
from airflow_cloudbilling.staging.dialects import dialect_of
from airflow_cloudbilling.staging.documents import Documents
from airflow_cloudbilling.staging.findings import Findings
from airflow_cloudbilling.staging.held_back import HeldBack
from airflow_cloudbilling.staging.ledger import of_slice
from airflow_cloudbilling.staging.rows import Row
from airflow_cloudbilling.staging.tables import Tables
from airflow_cloudbilling.staging.temporary import Batch, columns_like, temporary

NEGATED = ("quantity", "discount", "net_amount", "tax_amount")  # unit prices stay: BR-27 wants them not negative
_NOT_FROM_VENDOR = ("slice_period", "load_id", "posted_at", "posted_reference")
_MODULUS = 1 << 256
_INVOICE = Invoice._fields[: Invoice._fields.index("sign")]  # ends with what does not count: raw, source_sha256
_INVOICE_ROW = ("seq", *_INVOICE, "line_count", "content_hash", "sign", "action")
_LINE_ROW = ("seq", "line_number", *InvoiceLine._fields)
_TAX_ROW = ("seq", "tax_number", *InvoiceTax._fields)
_LINE_RAW, _INVOICE_RAW = InvoiceLine._fields.index("raw"), Invoice._fields.index("raw")


def _digest(values: Iterable[str | None]) -> bytes:
    """Return SHA-256 over values, told apart by a separator that no text of ours contains."""
    joined = "\x1f".join(["\0" if value is None else value for value in values])
    return sha256(joined.encode()).digest()


def _negated(amount: str | None) -> str | None:
    if amount is None or amount == "0":
        return amount
    return amount[1:] if amount[0] == "-" else f"-{amount}"


class LineHash:
    """A hash over a multiset of lines: the order in which the vendor sends them does not matter, nor their number."""

    def __init__(self) -> None:
        self.count = 0
        self._sum = 0

    def add(self, line: InvoiceLine) -> None:
        """Take in one line; what the vendor sent verbatim does not count."""
        self.count += 1
        self._sum += int.from_bytes(_digest(line[:_LINE_RAW]), "big")

    def with_header(self, invoice: Invoice) -> str:
        """Return the content hash of the invoice with the lines so far, as hex."""
        taxes = sorted(_digest(tax).hex() for tax in invoice.taxes)
        lines = (str(self.count), str(self._sum % _MODULUS))
        return _digest([*cast(Row, invoice[:_INVOICE_RAW]), str(invoice.sign), *lines, *taxes]).hex()


class Incoming:
    """The temporary tables of one load, on the load's own connection.

    :param connection: stays open for the whole load; temporary tables live and die with it.
    :param tables: the staging tables whose columns they take over.
    :param slice_: what is loaded; lines of its invoices that are staged as they came are not sent.
    """

    def __init__(self, connection: Connection, tables: Tables, slice_: Slice) -> None:
        self.connection = connection
        self._staged = tables.invoice
        self._own = of_slice(tables.invoice, slice_, period=False)
        self.dialect = dialect_of(connection.dialect.name)
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
        self.protected, self.gone = (
            temporary(name, metadata, Column("invoice_id", tables.invoice.c.invoice_id.type, primary_key=key))
            for name, key in (("protected", False), ("gone", True))
        )
        metadata.create_all(connection, checkfirst=False)
        self.documents = Documents(connection, tables, slice_)
        self.findings = Findings(connection, tables, slice_)
        self._again = connection.scalar(select(exists().where(of_slice(tables.slice_invoice, slice_))))
        connection.commit()
        self._lines = Batch(connection, self.line, _LINE_ROW)
        self._invoices = Batch(connection, self.invoice, _INVOICE_ROW)
        self._taxes = Batch(connection, self.tax, _TAX_ROW)
        self._asked = 0  # the last invoice that was compared with what is staged
        self._held_back = HeldBack()
        self._seq = 1
        self._hash = LineHash()
        self.negative = False
        self.invoices = 0
        self.lines = 0

    def add_line(self, line: InvoiceLine) -> None:
        """Take in one line of the invoice that is still to come."""
        self._hash.add(line)
        self._put(self._lines, line.raw, (str(self._seq), str(self._hash.count), *line))

    def add_invoice(self, invoice: Invoice) -> None:
        """Take in an invoice; the lines since the one before are its own."""
        content_hash, count = self._hash.with_header(invoice), self._hash.count
        values = cast(Row, invoice[: len(_INVOICE)])  # the fields before sign are texts
        taxes = invoice.taxes
        if invoice.sign < 0:
            self.negative = self.negative or count > 0
            pairs = zip(_INVOICE, values, strict=True)
            values = tuple(_negated(value) if name in INVOICE_AMOUNTS else value for name, value in pairs)
            taxes = tuple(InvoiceTax(t[0], t[1], _negated(t.taxable_amount), _negated(t.tax_amount)) for t in taxes)
        late = (str(count), content_hash, str(invoice.sign), "new")
        self._put(self._invoices, invoice.raw, (str(self._seq), *values, *late))
        self._add_taxes(taxes)
        self.invoices += 1
        self.lines += count
        self.next()

    def next(self) -> None:
        """Begin the next invoice; lines that no invoice claimed are left behind and never merged."""
        self._seq += 1
        self._hash = LineHash()

    def finish(self) -> None:
        """Write what is still held, and negate the lines of credit notes that the vendor states as positive."""
        for batch in (self._lines, self._invoices, self._taxes):
            self._flush(batch)
        self.documents.finish()
        self.findings.finish()
        Index("cloudbilling_new_invoice_by_id", self.invoice.c.invoice_id).create(self.connection)
        self._negate()
        self.dialect.analyze(self.connection, self.invoice.c.invoice_id)
        self.connection.commit()

    def send_held_back(self) -> None:
        """Send, during the merge, the lines of invoices that somebody else has changed since they were held back."""
        new, line = self.invoice, self.line
        if self._held_back.empty:
            return
        sent = select(line.c.seq, func.count().label("lines")).group_by(line.c.seq).subquery()
        fewer = new.c.line_count > func.coalesce(sent.c.lines, 0)
        fresh = new.c.action.in_(("new", "changed", "frozen"))
        lacking = select(new.c.seq).outerjoin(sent, sent.c.seq == new.c.seq).where(fresh, fewer)
        seqs = list(self.connection.scalars(lacking))
        negative = select(new.c.seq).where(new.c.seq.in_(seqs), new.c.sign < 0)
        turned = set(map(str, self.connection.scalars(negative)))
        for rows in self._held_back.of({str(seq) for seq in seqs}) if seqs else ():
            if rows:
                signed = [_turned(row) if row[0] in turned else row for row in rows]
                self.dialect.insert(self.connection, line.name, _LINE_ROW, signed)

    def close(self) -> None:
        """Give the disk space back that rows take."""
        self._held_back.close()

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

    def _add_taxes(self, taxes: tuple[InvoiceTax, ...]) -> None:
        for number, tax in enumerate(taxes, 1):
            self._put(self._taxes, None, (str(self._seq), str(number), *tax))

    def _put(self, batch: Batch, raw: str | None, row: Row) -> None:
        if batch.add(row, raw):
            self._flush(batch)

    def _flush(self, batch: Batch) -> None:
        rows = batch.take()
        batch.send(self._hold_back(rows) if batch is self._lines and self._again else rows)

    def _hold_back(self, rows: list[Row]) -> list[Row]:
        """Return the rows without those of invoices that are staged as they came."""
        self._flush(self._invoices)
        new, staged = self.invoice, self._staged
        own = and_(self._own, staged.c.invoice_id == new.c.invoice_id)
        known = select(staged.c.content_hash).where(own).scalar_subquery()
        asked = new.c.seq.between(self._asked + 1, self._seq)
        same = set(map(str, self.connection.scalars(select(new.c.seq).where(asked, new.c.content_hash == known))))
        self.connection.commit()
        self._asked = self._seq - 1
        if held := [row for row in rows if row[0] in same]:
            self._held_back.add(held)
        return [row for row in rows if row[0] not in same]

    def _negate(self) -> None:
        if self.negative:
            seqs = select(self.invoice.c.seq).where(self.invoice.c.sign < 0)
            values = {name: self.dialect.negated(self.line.c[name]) for name in NEGATED}
            self.connection.execute(update(self.line).where(self.line.c.seq.in_(seqs)).values(values))


def _turned(line: Row) -> Row:
    """Return a row of a line with the amounts negated that a credit note stated as positive has negated."""
    return tuple(_negated(value) if name in NEGATED else value for name, value in zip(_LINE_ROW, line, strict=True))


def _seq(*, key: bool = False) -> Column[Any]:
    """Return the column of an invoice's ordinal."""
    return Column("seq", Integer, primary_key=key, autoincrement=False)
