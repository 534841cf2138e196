"""How far a month of a vendor has come, in one word that people in finance use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, func, literal, or_, select

from airflow_cloudbilling.model import Period
from airflow_cloudbilling.staging.reading import is_approved, plain
from airflow_cloudbilling.staging.tables import Tables, posting_index

STATES = {
    "missing": "Nothing was imported, though there is an import of the month before, or one was tried.",
    "loading": "An import is under way, or waits for the vendor.",
    "staged": "Imported; nobody has approved it yet.",
    "findings": "Imported, and there is something that a person should look at.",
    "posted": "An ERP has posted all of it.",
    "approved": "A person has approved the month as it is.",
    "sent": "Sage has the invoices and has not answered yet, or nobody knows whether it has them.",
    "accepted": "Sage has accepted all that was sent.",
    "rejected": "Sage has rejected some of what was sent.",
}

Book = tuple[str, str, str]  # provider, account, kind


class Close(NamedTuple):
    """A close that a person has approved.

    :param books: what was looked at for it.
    :param read_at: when that was read.
    """

    close_id: str
    approved_by: str
    approved_at: str
    read_at: str
    books: Collection[Book]


class Sent(NamedTuple):
    """What became of the last file that some invoices went in.

    :param items: status → how many of them.
    """

    upload_id: str
    status: str
    dag_id: str | None
    items: Counter[str]

    @property
    def state(self) -> str:
        """The word for it, empty when it never came to Sage."""
        if self.status in ("intent", "submitted", "unknown") or self.items["unknown"]:
            return "sent"
        if self.items["rejected"] or self.items["failed"]:
            return "rejected"
        return "accepted" if self.items["accepted"] else ""


def is_open(finding: Any) -> ColumnElement[bool]:
    """Return the condition that a finding is neither mended nor accepted."""
    return and_(finding.c.resolved_at.is_(None), finding.c.accepted_at.is_(None))


def open_findings(
    connection: Connection, tables: Tables, periods: Collection[Period]
) -> dict[tuple[Book, str], Counter[str]]:
    """Return how many findings are open: (book, period) → severity → number."""
    finding = tables.finding
    by = [finding.c[name] for name in ("provider", "account", "kind", "period", "severity")]
    of_periods = finding.c.period.in_([str(period) for period in periods])
    counted = select(*by, func.count()).where(of_periods, is_open(finding)).group_by(*by)
    found: dict[tuple[Book, str], Counter[str]] = {}
    for row in connection.execute(counted):
        found.setdefault(((row[0], row[1], row[2]), row[3]), Counter())[row[4]] += row[5]
    return found


def approved_closes(connection: Connection, tables: Tables, periods: Collection[Period]) -> dict[str, Close]:
    """Return, of each period, the close that was approved last."""
    close, of_close = tables.close, tables.close_slice
    names = ("close_id", "approved_by", "approved_at", "created_at")
    where = (close.c.period.in_([str(period) for period in periods]), is_approved(close))
    query = select(close.c.period, *(close.c[name] for name in names)).where(*where).order_by(close.c.approved_at)
    found = {row.period: row for row in connection.execute(query)}
    books: dict[str, list[Book]] = {row.close_id: [] for row in found.values()}
    known = select(of_close).where(of_close.c.close_id.in_(list(books)))
    for row in connection.execute(known):
        books[row.close_id].append((row.provider, row.account, row.kind))
    return {
        period: Close(
            row.close_id,
            row.approved_by or "",
            plain(row.approved_at),
            plain(row.created_at),
            frozenset(books[row.close_id]),
        )
        for period, row in found.items()
    }


def last_changes(connection: Connection, tables: Tables, periods: Collection[Period]) -> dict[tuple[Book, str], str]:
    """Return when a load last changed each slice."""
    load = tables.load
    by = [load.c[name] for name in ("provider", "account", "kind", "period")]
    changed = or_(*(load.c[f"{name}_count"] > 0 for name in ("new", "changed", "removed")))
    where = (load.c.period.in_([str(period) for period in periods]), load.c.status == "committed", changed)
    query = select(*by, func.max(load.c.ended_at)).where(*where).group_by(*by)
    return {((row[0], row[1], row[2]), row[3]): plain(row[4]) for row in connection.execute(query)}


def sent(connection: Connection, tables: Tables, periods: Collection[Period]) -> dict[tuple[Book, str], Sent]:
    """Return, of each book and period, what became of the last file that its invoices went in."""
    upload, item, close = tables.upload, tables.upload_item, tables.close
    period = func.coalesce(upload.c.period, close.c.period).label("period")
    known = [str(one) for one in periods]
    names = ("upload_id", "status", "dag_id")
    uploads = select(*(upload.c[name] for name in names), period, upload.c.created_at)
    uploads = uploads.outerjoin(close, close.c.close_id == upload.c.close_id).where(period.in_(known))
    found: dict[tuple[Book, str], Sent] = {}
    for row in connection.execute(uploads.order_by(upload.c.created_at)).all():
        for book, counts in _items(connection.execute(_counted(item, row.upload_id))):
            one = Sent(row.upload_id, row.status, row.dag_id, counts)
            if one.state:
                found[book, row.period] = one
    return found


def posted(connection: Connection, tables: Tables, periods: Collection[Period]) -> set[tuple[Book, str]]:
    """Return the slices of which there are invoices, and every one of them is posted."""
    load, invoice = tables.load, tables.invoice
    names = ("provider", "account", "kind", "period")
    of_periods = (load.c.period.in_([str(period) for period in periods]), load.c.status == "committed")
    one = select(*(load.c[name] for name in names)).where(*of_periods).distinct().subquery()
    own = [invoice.c.slice_period == one.c.period, *(invoice.c[name] == one.c[name] for name in names[:3])]
    # One look into the index for each: MariaDB had rather walk an account's invoices, and joins all of them where these
    # are conditions.
    hint = f"FORCE INDEX ({posting_index(tables)})"
    first, other = (
        select(literal(1))
        .with_hint(invoice, hint, "mysql")
        .where(*own, condition)
        .correlate(one)
        .limit(1)
        .scalar_subquery()
        for condition in (invoice.c.posted_at.is_not(None), invoice.c.posted_at.is_(None))
    )
    rows = connection.execute(select(*one.c, first.label("first"), other.label("other")))
    return {((row.provider, row.account, row.kind), row.period) for row in rows if row.first and not row.other}


def _counted(item: Any, upload_id: str) -> Any:
    by = [item.c[name] for name in ("provider", "account", "kind", "status")]
    return select(*by, func.count()).where(item.c.upload_id == upload_id).group_by(*by)


def _items(rows: Iterable[Any]) -> Iterable[tuple[Book, Counter[str]]]:
    found: dict[Book, Counter[str]] = {}
    for row in rows:
        found.setdefault((row[0], row[1], row[2]), Counter())[row[3]] += row[4]
    return found.items()
