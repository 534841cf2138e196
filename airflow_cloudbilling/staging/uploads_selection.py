"""Which staged invoices a file is about: those of a period, or exactly an approved set; and what became of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Table, and_, false, func, select

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.model import Period
from airflow_cloudbilling.staging.closes import check_approved, members_of, slices_of, stood_with
from airflow_cloudbilling.staging.frozen import FROZEN_STATES, is_frozen
from airflow_cloudbilling.staging.invoices import keys_of_period
from airflow_cloudbilling.staging.loader import Staging
from airflow_cloudbilling.staging.posting import InvoiceKey
from airflow_cloudbilling.staging.reading import Row, let_the_database_learn, of_table, same_invoice
from airflow_cloudbilling.staging.uploads_intent import chunks, in_account

_LINES = 20_000  # lines read at once, of one invoice more if it has more


class Survey(NamedTuple):
    """What a selection comes to.

    :param free: invoices that may be sent.
    :param posted: invoices that an ERP has marked as posted, or that were accepted before.
    :param uploads: upload → how many of its invoices are in it and not rejected.
    :param before: invoices of an approved set that were posted before it was reconciled, and are in no ``uploads``: a
        second close of a month names them too, and whoever approved it saw that they are not sent again. What the set's
        own uploads have posted stands with these, however often it is reconciled.
    """

    free: int
    posted: int
    uploads: Mapping[str, int]
    before: int = 0


class Approved(NamedTuple):
    """A row of ``cloudbilling_close``: the invoices that a person has approved, with the hashes of their contents.

    :param kinds: those that were looked at, whether there was any invoice or not.
    """

    close_id: str
    hashes: Mapping[InvoiceKey, str]
    created_at: Any = None
    kinds: Collection[str] = ()


class Selection:
    """Invoices of one kind: of a period's slices, or of an approved set.

    :param kind: ``sales`` …; None, of an approved set: all of them.
    :raises ConfigurationError: when an approved set has none of the kind, and nobody looked for any.
    """

    def __init__(
        self, staging: Staging, kind: str | None, period: Period | None = None, approved: Approved | None = None
    ) -> None:
        self.staging = staging
        self.kind = kind
        self.period = period
        self.approved = approved
        self.hashes: dict[InvoiceKey, str] = {}
        if approved:
            self.hashes = {k: h for k, h in approved.hashes.items() if kind is None or k.kind == kind}
            if approved.hashes and not self.hashes and kind not in approved.kinds:
                kinds = " and ".join(sorted({key.kind for key in approved.hashes}))
                message = (
                    f"close {approved.close_id!r} has no {kind} invoices, it has {kinds}; say which of them is meant."
                )
                raise ConfigurationError(message, field="kind")

    @property
    def left_out(self) -> Counter[str]:
        """How many invoices of which other kinds an approved set has."""
        return Counter(key.kind for key in (self.approved.hashes if self.approved else ()) if key not in self.hashes)

    @property
    def words(self) -> str:
        """What is selected, for logs."""
        what = f"{self.kind} invoices" if self.kind else "invoices"
        where = f"close {self.approved.close_id}" if self.approved else self.period.key if self.period else ""
        return f"{what} of {where}"

    def survey(self, connection: Connection) -> Survey:
        """Count what is free, what is posted, and what stands in which upload.

        :param connection: reads as of one moment; else an invoice that changes sides meanwhile would count as neither.
        """
        tables, uploads = self.staging.tables, dict[str, int]()
        invoice, item = tables.invoice, tables.upload_item
        free = posted = before = 0
        in_upload = and_(same_invoice(item, invoice), item.c.status.in_(FROZEN_STATES))
        early = self._posted_before()
        let_the_database_learn(self.staging.engine, tables.invoice, tables.invoice_line, tables.slice_invoice)
        for part in self._parts(connection):
            free += self._count(connection, and_(part, ~is_frozen(tables)))
            posted += self._count(connection, and_(part, invoice.c.posted_at.is_not(None)))
            before += self._count(connection, and_(part, early)) if self.approved else 0
            joined = select(item.c.upload_id, func.count()).select_from(invoice.join(item, in_upload))
            for upload_id, count in connection.execute(joined.where(part, ~early).group_by(item.c.upload_id)):
                uploads[upload_id] = uploads.get(upload_id, 0) + count
        return Survey(free, posted, uploads, before)

    def has_some_of(self, upload_id: str, connection: Connection) -> bool:
        """Whether one of the invoices is in an upload, whatever became of it."""
        invoice, item = self.staging.tables.invoice, self.staging.tables.upload_item
        same = and_(same_invoice(item, invoice), item.c.upload_id == upload_id)
        found = select(item.c.invoice_id).select_from(invoice.join(item, same)).limit(1)
        return any(connection.scalar(found.where(part)) is not None for part in self._parts(connection))

    def differences(self) -> list[str]:
        """Return in words, of an approved set, which invoices are no longer staged as they were approved."""
        invoice, left, told = self.staging.tables.invoice, dict(self.hashes), list[str]()
        columns = [invoice.c[n] for n in (*InvoiceKey._fields, "content_hash")]
        with self.staging.engine.connect() as connection:
            for part in self._parts(connection):
                for row in connection.execute(select(*columns).where(part)):
                    key = InvoiceKey(*row[:4])
                    if left.pop(key, row[4]) != row[4]:
                        told.append(f"{key.invoice_id} was changed")
        return told + [f"{key.invoice_id} is no longer staged" for key in left]

    def invoices(self, *, raw: bool = False) -> Iterator[tuple[Row, list[Row]]]:
        """Yield the free invoices in a fixed order, each with its lines; memory does not grow with their number.

        Amounts are ``Decimal`` in their one form, days ISO text.

        :param raw: whether they have what the vendor sent as well.
        """
        tables = self.staging.tables
        with closing(self.staging.engine.connect()) as connection:
            for part in self._parts(connection):
                for page in self._pages(connection, and_(part, ~is_frozen(tables)), raw):
                    lines = self._lines(connection, page, raw)
                    for header in page:
                        yield header, lines.pop(header["invoice_id"], [])

    def _posted_before(self) -> ColumnElement[bool]:
        """Return the condition that an invoice was posted before the approved set was reconciled, and not by itself."""
        tables = self.staging.tables
        if self.approved is None or self.approved.created_at is None:
            return false()
        posted_at, own = tables.invoice.c.posted_at, stood_with(tables, self.approved.close_id, FROZEN_STATES)
        return and_(posted_at.is_not(None), posted_at < self.approved.created_at, ~own)

    def _parts(self, connection: Connection) -> Iterator[ColumnElement[bool]]:
        """Yield conditions that together choose the invoices, each a few hundred of one account by their ids.

        Every database finds rows by ids, whatever it knows of its tables; a join may take hours where it knows nothing.
        """
        keys = iter(sorted(self.hashes)) if self.approved else self._of_period(connection)
        for account, of_account in groupby(keys, key=lambda key: key[:3]):
            for chunk in chunks(key.invoice_id for key in of_account):
                yield in_account(self.staging.tables.invoice, account, chunk)

    def _of_period(self, connection: Connection) -> Iterator[InvoiceKey]:
        assert self.period is not None
        assert self.kind is not None
        return keys_of_period(connection, self.staging.tables, self.period, self.kind)

    def _count(self, connection: Connection, which: ColumnElement[bool]) -> int:
        counted = select(func.count()).select_from(self.staging.tables.invoice).where(which)
        return connection.scalar(counted) or 0

    def _pages(self, connection: Connection, which: ColumnElement[bool], raw: bool) -> Iterator[list[Row]]:
        """Yield invoices in their order, in pages that do not hold too many lines."""
        invoice = self.staging.tables.invoice
        query = select(*_columns(invoice, raw)).where(which).order_by(invoice.c.invoice_id)
        page: list[Row] = []
        lines = 0
        for row in connection.execute(query).mappings().all():
            lines += row["line_count"]
            if page and lines > _LINES:
                yield page
                page, lines = [], row["line_count"]
            page.append(of_table(invoice, dict(row)))
        if page:
            yield page

    def _lines(self, connection: Connection, page: list[Row], raw: bool) -> dict[str, list[Row]]:
        line, first = self.staging.tables.invoice_line, page[0]
        account = first["provider"], first["account"], first["kind"]
        own = in_account(line, account, [header["invoice_id"] for header in page])
        query = select(*_columns(line, raw)).where(own).order_by(line.c.invoice_id, line.c.line_number)
        lines: dict[str, list[Row]] = {}
        for row in connection.execute(query).mappings():
            lines.setdefault(row["invoice_id"], []).append(of_table(line, dict(row)))
        return lines


def approved(staging: Staging, close_id: str) -> Approved:
    """Return an approved set.

    :raises ConfigurationError: when there is none of this id, or nobody has approved it.
    """
    with staging.engine.connect() as connection:
        created_at = check_approved(connection, staging.tables, close_id)
        hashes = {InvoiceKey(*member[:4]): member[4] for member in members_of(connection, staging.tables, close_id)}
        kinds = frozenset(kind for _, _, kind in slices_of(connection, staging.tables, close_id))
    return Approved(close_id, hashes, created_at, kinds)


def _columns(table: Table, raw: bool) -> list[ColumnElement[Any]]:
    return [column for column in table.columns if raw or column.name != "raw"]
