"""Retention: what vendors sent and names of customers go after a time; figures, ids and content hashes stay.

A later load of the same data changes nothing, since only the content hash tells what changed: what was erased stays
erased. An invoice that did change is written anew, with its names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import ColumnElement, Connection, Table, and_, case, exists, false, func, or_, select, update

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.model import Period, Slice
from airflow_cloudbilling.staging.closes import in_approved_close
from airflow_cloudbilling.staging.ledger import OPEN, of_slice
from airflow_cloudbilling.staging.reading import same_invoice
from airflow_cloudbilling.staging.revisions import RULES
from airflow_cloudbilling.staging.uploads import UNDECIDED

if TYPE_CHECKING:
    from airflow_cloudbilling.staging.loader import Staging

PERSONAL = ("buyer_name", "customer_name")
ERASABLE = (*PERSONAL, "buyer_vat_id", "seller_name", "subscription_name", "description")
_INVOICES, _LINES, _BODIES = 200, 20_000, 2_000  # of one transaction


class Bodies(Protocol):
    """An archive, as far as it is needed here."""

    def find(self, sha256: str) -> str | None:
        """Return the address of a body, or None when it is not here."""
        ...

    def has(self, address: str) -> bool:
        """Whether an address is one of this archive."""
        ...

    def remove(self, digests: Any, needed: Any) -> int:
        """Remove bodies and return how many were there."""
        ...


@dataclass
class Erased:
    """How much was erased, or would be.

    :param kept: invoices that are old enough and stay: under way at Sage, or not closed.
    :param bodies: objects of the archive; in a dry run, digests that nothing else refers to.
    :param elsewhere: bodies that nothing else refers to and this archive does not have: they were never archived, or in
        another one, where they can still be read.
    """

    invoices: int = 0
    lines: int = 0
    revisions: int = 0
    rejects: int = 0
    bodies: int = 0
    elsewhere: int = 0
    kept: int = 0

    def as_dict(self) -> dict[str, int]:
        """Return plain data."""
        return asdict(self)


class Retention:
    """Erases batch by batch, each its own short transaction under its account's lock; running it again erases nothing.

    :param before: periods that end by this day are old enough.
    :param raw: whether what vendors sent goes.
    :param fields: which personal fields go, of :data:`ERASABLE`.
    :param include_open: also invoices that are neither posted nor in an approved close, or have an open finding. What
        is under way at Sage never goes.
    :param dry_run: only count.
    :raises ConfigurationError: for a field that is none of them.
    """

    def __init__(
        self,
        staging: Staging,
        before: date,
        *,
        raw: bool = True,
        fields: Sequence[str] = PERSONAL,
        include_open: bool = False,
        dry_run: bool = False,
    ) -> None:
        if unknown := [field for field in fields if field not in ERASABLE]:
            raise ConfigurationError(f"has no {', '.join(unknown)}; it may be {', '.join(ERASABLE)}.", field="fields")
        self.staging = staging
        self.tables = staging.tables
        self.before = before.isoformat()
        self.columns = (*(("raw",) if raw else ()), *fields)
        self.include_open = include_open
        self.dry_run = dry_run
        self.erased = Erased()

    def run(self, archive: Bodies | None = None) -> Erased:
        """Erase rows, then the archive's bodies that only erased ones refer to.

        :param archive: where the imports kept them; ``None``: they stay.
        """
        invoice = self.tables.invoice
        names = [invoice.c[name] for name in ("provider", "account", "kind")]
        with self.staging.engine.connect() as connection:
            old = select(*names).where(self._is_old(invoice.c.slice_period)).distinct()
            accounts = [(row[0], row[1], row[2]) for row in connection.execute(old)]
            kept = select(func.count()).select_from(invoice)
            of_old = and_(self._is_old(invoice.c.slice_period), ~self._may_go())
            self.erased.kept = connection.scalar(kept.where(of_old)) or 0
        for provider, account, kind in sorted(accounts):
            self._account(Slice(provider, account, kind, Period.month(1, 1)))  # of whatever period
        if "raw" in self.columns:
            self._rejects()
            if archive is not None:
                self._bodies(archive)
        return self.erased

    def _account(self, slice_: Slice) -> None:
        """Erase an account's invoices with their lines and revisions."""
        tables, last = self.tables, ""
        with self.staging.engine.connect() as connection:
            while True:
                with self.staging.locked(connection, slice_):
                    ids = self._page(connection, slice_, last)
                    for name, table in (
                        ("invoices", tables.invoice),
                        ("lines", tables.invoice_line),
                        ("revisions", tables.invoice_revision),
                        ("revisions", tables.invoice_line_revision),
                    ):
                        own = and_(of_slice(table, slice_, period=False), table.c.invoice_id.in_(ids))
                        self._count(name, self._erase(connection, table, own))
                if not ids:
                    return
                last = ids[-1]

    def _page(self, connection: Connection, slice_: Slice, last: str) -> list[str]:
        """Return ids of invoices of which something is left, some hundred or with so many lines."""
        tables = self.tables
        invoice = tables.invoice
        hanging = (tables.invoice_line, tables.invoice_revision, tables.invoice_line_revision)
        left = [self._is_left(invoice)]
        left += [exists().where(same_invoice(table, invoice), self._is_left(table)) for table in hanging]
        own = and_(of_slice(invoice, slice_, period=False), invoice.c.invoice_id > last)
        old = and_(self._is_old(invoice.c.slice_period), self._may_go(), or_(*left))
        query = select(invoice.c.invoice_id, invoice.c.line_count).where(own, old).order_by(invoice.c.invoice_id)
        ids: list[str] = []
        lines = 0
        for invoice_id, line_count in connection.execute(query.limit(_INVOICES)).all():
            lines += line_count
            if ids and lines > _LINES:
                break
            ids.append(invoice_id)
        return ids

    def _erase(self, connection: Connection, table: Table, which: ColumnElement[bool]) -> int:
        chosen = and_(which, self._is_left(table))
        if self.dry_run:
            return connection.scalar(select(func.count()).select_from(table).where(chosen)) or 0
        values = {name: None for name in self.columns if name in table.c}
        return connection.execute(update(table).where(chosen).values(values)).rowcount

    def _is_left(self, table: Table) -> ColumnElement[bool]:
        return or_(*(table.c[name].is_not(None) for name in self.columns if name in table.c), false())

    def _rejects(self) -> None:
        reject = self.tables.reject
        own = and_(self._is_old(reject.c.period), self._is_settled(reject))
        with self.staging.engine.begin() as connection:
            self._count("rejects", self._erase(connection, reject, own))

    def _bodies(self, archive: Bodies) -> None:
        """Remove the bodies that only old loads refer to; without them these can be read again no more."""
        if self.dry_run:
            with self.staging.engine.connect() as connection:
                self.erased.bodies = len(list(connection.scalars(self._unneeded())))
            return
        request, digests = self.tables.request, [""]
        while digests:
            later = self._unneeded().where(request.c.sha256 > digests[-1]).order_by(request.c.sha256).limit(_BODIES)
            with self.staging.engine.connect() as connection:
                digests = list(connection.scalars(later))
            here = [digest for digest in digests if archive.find(digest)]
            self._count("bodies", archive.remove(here, self._needed))
            gone = self._forget(archive, digests, here)
            self._count("elsewhere", len(digests) - gone)

    def _unneeded(self) -> Any:
        """Return the query for digests of good answers to loads that are all old and settled."""
        request, load, invoice = self.tables.request, self.tables.load, self.tables.invoice
        goes = and_(self._is_old(load.c.period), load.c.status.not_in(OPEN), self._is_settled(load))
        staying = select(invoice.c.source_sha256).where(
            invoice.c.source_sha256.is_not(None), or_(~self._is_old(invoice.c.slice_period), ~self._may_go())
        )
        joined = select(request.c.sha256).join_from(request, load, load.c.load_id == request.c.load_id)
        good = and_(request.c.request_key.is_not(None), request.c.sha256.is_not(None))
        all_go = func.min(case((goes, 1), else_=0)) == 1
        return joined.where(good, request.c.sha256.not_in(staying)).group_by(request.c.sha256).having(all_go)

    def _needed(self, digests: set[str]) -> set[str]:
        """Return which bodies are good answers to some load; what was removed is no more."""
        request = self.tables.request
        good = and_(request.c.sha256.in_(digests), request.c.request_key.is_not(None))
        with self.staging.engine.connect() as connection:
            return {*connection.scalars(select(request.c.sha256).where(good))}

    def _forget(self, archive: Bodies, digests: Sequence[str], removed: Sequence[str]) -> int:
        """Note that bodies are no longer kept, so that nobody reads them again; return of how many.

        A file says where it is kept. What this archive never had, and nothing says it should, may be in another.
        """
        request, document = self.tables.request, self.tables.document
        kept = and_(document.c.sha256.in_(digests), document.c.uri.is_not(None))
        with self.staging.engine.begin() as connection:
            files = connection.execute(select(document.c.sha256, document.c.uri).where(kept).distinct()).all()
            absent = {row.uri: row.sha256 for row in files if archive.has(row.uri)}
            gone = ({*removed} | {*absent.values()}) - {row.sha256 for row in files if row.uri not in absent}
            lost = request.c.sha256.in_(gone)
            connection.execute(update(request).where(lost).values(request_key=None, headers=None))
            connection.execute(update(document).where(kept, document.c.uri.in_([*absent])).values(uri=None))
        return len(gone)

    def _is_old(self, period: Any) -> ColumnElement[bool]:
        found: ColumnElement[bool] = func.substr(period, 12, 10) <= self.before
        return found

    def _may_go(self) -> ColumnElement[bool]:
        """Return the condition that an invoice is closed, and not under way at Sage.

        What came or changed after a month was reconciled is not in its close; nor are other vendors in one of some.
        """
        invoice, item = self.tables.invoice, self.tables.upload_item
        under_way = exists().where(same_invoice(item, invoice), item.c.status.in_(UNDECIDED))
        if self.include_open:
            return ~under_way
        return and_(
            ~under_way, ~self._is_disputed(), or_(invoice.c.posted_at.is_not(None), in_approved_close(self.tables))
        )

    def _is_disputed(self) -> ColumnElement[bool]:
        """Return the condition that nobody has yet said what a change after posting means."""
        finding = self.tables.finding
        undecided = and_(finding.c.resolved_at.is_(None), finding.c.accepted_at.is_(None))
        told = and_(same_invoice(finding, self.tables.invoice), finding.c.rule.in_(RULES.values()))
        return exists().where(told, undecided)

    def _is_settled(self, table: Table) -> ColumnElement[bool]:
        """Return the condition that no invoice of a row's slice has to stay."""
        invoice = self.tables.invoice
        same = and_(*(invoice.c[name] == table.c[name] for name in ("provider", "account", "kind")))
        return ~exists().where(same, invoice.c.slice_period == table.c.period, ~self._may_go())

    def _count(self, name: str, number: int) -> None:
        setattr(self.erased, name, getattr(self.erased, name) + number)


def cutoff(today: date, keep_months: int) -> date:
    """Return the day by which a period must have ended: the first of the month so many months ago."""
    return Period.month(today.year, today.month).shifted(-keep_months).start
