"""The temporary tables that a load fills while the vendor is read: invoices, lines, tax rows, and what they hash to.

Lines usually come before the header of their invoice, so both carry the invoice's ordinal within the load (``seq``) and
meet when the load is merged. Temporary rows lock nothing, and vanish with the process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Column, Connection, Index, Integer, MetaData, String, Table, func, select, update

from airflow_cloudbilling.model import Invoice, InvoiceLine, InvoiceTax
from airflow_cloudbilling.staging.dialects import dialect_of
from airflow_cloudbilling.staging.tables import INVOICE_AMOUNTS, Tables

BATCH_ROWS = 2000
BATCH_CHARACTERS = 2_000_000
NEGATED = ("quantity", "discount", "net_amount", "tax_amount")  # unit prices stay: BR-27 wants them not negative
_NOT_FROM_VENDOR = ("slice_period", "load_id", "posted_at", "posted_reference")
_MODULUS = 1 << 256
_HEADER = tuple(n for n in Invoice._fields if n not in ("raw", "source_sha256", "taxes"))
_INVOICE = tuple(n for n in Invoice._fields if n not in ("sign", "taxes"))
_INVOICE_ROW = ("seq", *_INVOICE, "line_count", "content_hash", "sign")
_LINE_ROW = ("seq", "line_number", *InvoiceLine._fields)
_TAX_ROW = ("seq", "tax_number", *InvoiceTax._fields)
_RAW = InvoiceLine._fields.index("raw")


def _digest(values: Iterable[object]) -> bytes:
    """Return SHA-256 over values, told apart by a separator that no text of ours contains."""
    joined = "\x1f".join(["\0" if value is None else str(value) for value in values])
    return hashlib.sha256(joined.encode()).digest()


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
        self._sum += int.from_bytes(_digest(line[:_RAW]), "big")

    def with_header(self, invoice: Invoice) -> str:
        """Return the content hash of the invoice with the lines so far, as hex."""
        taxes = sorted(_digest(tax) for tax in invoice.taxes)
        header = [getattr(invoice, name) for name in _HEADER]
        return _digest([*header, self.count, self._sum % _MODULUS, *(tax.hex() for tax in taxes)]).hex()


class Incoming:
    """The temporary tables of one load, on the load's own connection.

    :param connection: stays open for the whole load; temporary tables live and die with it.
    :param tables: the staging tables whose columns they take over.
    """

    def __init__(self, connection: Connection, tables: Tables) -> None:
        self.connection = connection
        self.dialect = dialect_of(connection.dialect.name)
        metadata = MetaData()
        self.invoice = _like("new_invoice", tables.invoice, metadata, _NOT_FROM_VENDOR)
        late = (("staged_hash", String(64)), ("staged_period", String(32)), ("action", String(16)))
        for name, type_ in (("sign", Integer()), *late):
            self.invoice.append_column(Column(name, type_))
        self.line = _like("new_invoice_line", tables.invoice_line, metadata, ("invoice_id",))
        self.tax = _like("new_invoice_tax", tables.invoice_tax, metadata, ("invoice_id",))
        self.protected = Table("cloudbilling_protected", metadata, *_ids(tables), prefixes=["TEMPORARY"])
        self.gone = Table("cloudbilling_gone", metadata, *_ids(tables), prefixes=["TEMPORARY"])
        metadata.create_all(connection, checkfirst=False)
        connection.commit()
        filled: dict[Table, tuple[str, ...]] = {self.invoice: _INVOICE_ROW, self.line: _LINE_ROW, self.tax: _TAX_ROW}
        self._names = filled
        self._rows: dict[Table, list[tuple[Any, ...]]] = {table: [] for table in filled}
        self._held = 0  # characters of verbatim text in the rows held
        self._seq = 1
        self._hash = LineHash()
        self.negative = False
        self.invoices = 0
        self.lines = 0

    def add_line(self, line: InvoiceLine) -> None:
        """Take in one line of the invoice that is still to come."""
        self._hash.add(line)
        self._held += len(line.raw or "")
        self._put(self.line, (self._seq, self._hash.count, *line))

    def add_invoice(self, invoice: Invoice) -> None:
        """Take in an invoice; the lines since the one before are its own."""
        content_hash, count = self._hash.with_header(invoice), self._hash.count
        values, taxes = [getattr(invoice, name) for name in _INVOICE], invoice.taxes
        if invoice.sign < 0:
            self.negative = self.negative or count > 0
            values = [_negated(v) if n in INVOICE_AMOUNTS else v for n, v in zip(_INVOICE, values, strict=True)]
            taxes = tuple(InvoiceTax(t[0], t[1], _negated(t.taxable_amount), _negated(t.tax_amount)) for t in taxes)
        self._put(self.invoice, (self._seq, *values, count, content_hash, invoice.sign))
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
        for table in self._rows:
            self._flush(table)
        Index("cloudbilling_new_invoice_by_id", self.invoice.c.invoice_id).create(self.connection)
        if self.negative:
            seqs = select(self.invoice.c.seq).where(self.invoice.c.sign < 0)
            values = {name: self.dialect.negated(self.line.c[name]) for name in NEGATED}
            self.connection.execute(update(self.line).where(self.line.c.seq.in_(seqs)).values(values))
        self.connection.commit()

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
            self._put(self.tax, (self._seq, number, *tax))

    def _put(self, table: Table, row: tuple[Any, ...]) -> None:
        rows = self._rows[table]
        rows.append(row)
        if len(rows) >= BATCH_ROWS or self._held >= BATCH_CHARACTERS:
            self._flush(table)

    def _flush(self, table: Table) -> None:
        rows = self._rows[table]
        if rows:
            self.dialect.insert(self.connection, table.name, self._names[table], rows)
            self.connection.commit()
            rows.clear()
            self._held = 0


def _like(name: str, table: Table, metadata: MetaData, without: tuple[str, ...]) -> Table:
    """Return a temporary table with the columns of a staging table, keyed by the invoice's ordinal."""
    dropped = {"provider", "account", "kind", *without}
    columns = [Column(c.name, c.type) for c in table.columns if c.name not in dropped]
    seq = Column("seq", Integer, primary_key=name == "new_invoice", autoincrement=False)
    return Table(f"cloudbilling_{name}", metadata, seq, *columns, prefixes=["TEMPORARY"])


def _ids(tables: Tables) -> list[Column[Any]]:
    return [Column("invoice_id", tables.invoice.c.invoice_id.type)]
