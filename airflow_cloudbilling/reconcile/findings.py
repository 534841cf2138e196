"""The findings of a month: told once, mended ones resolved, accepted ones quiet until their actual value changes.

A finding is the same as long as rule, invoice (or slice) and actual value are. Those that a load writes have its
``load_id`` and are the loads' to resolve; those of a reconciliation have none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from hashlib import sha256
from itertools import islice
from typing import Any, NamedTuple
from uuid import uuid4

from sqlalchemy import ColumnElement, Connection, and_, case, func, insert, or_, select, update

from airflow_cloudbilling.model import Period
from airflow_cloudbilling.reconcile.arithmetic import BREAKDOWN, Broken
from airflow_cloudbilling.reconcile.reading import SliceKey
from airflow_cloudbilling.staging.dialects import dialect_of
from airflow_cloudbilling.staging.tables import Tables

_BATCH = 500  # rows in one statement
_WARNINGS = BREAKDOWN | {
    "BR-DEC",
    "amount-drift",
    "credit-without-invoice",
    "in-two-periods",
    "loaded-early",
    "not-issued",
    "unreadable-amounts",
    "volume-drift",
}


class Told(NamedTuple):
    """A rule that does not hold, and of what.

    :param severity: ``error`` or ``warning``; empty: the rule's own.
    """

    key: SliceKey
    broken: Broken
    invoice_id: str | None = None
    severity: str = ""


class Known(NamedTuple):
    """A finding that is open, or that a person has accepted.

    :param words: of one that was accepted, none: they stay as they were accepted.
    """

    finding_id: str
    is_open: bool
    words: bytes | None


class OpenFinding(NamedTuple):
    """A finding as a report shows it."""

    finding_id: str
    severity: str
    rule: str
    provider: str
    account: str
    kind: str
    invoice_id: str | None
    expected: str | None
    actual: str | None
    message: str | None


class MonthFindings:
    """Writes what a reconciliation finds, in the caller's transaction and under its lock.

    :param providers: those that were looked at; of others nothing is resolved.
    """

    def __init__(
        self, connection: Connection, tables: Tables, period: Period, providers: Collection[str] | None
    ) -> None:
        self.connection = connection
        self.tables = tables
        self.period = period
        self._of_month = _of_month(tables, period, providers)
        self._now = dialect_of(connection.dialect.name).now(connection)
        self._known = dict(self._read())
        self._new: list[dict[str, Any]] = []

    def _read(self) -> Iterator[tuple[bytes, Known]]:
        finding = self.tables.finding
        key = [finding.c[name] for name in ("rule", "provider", "account", "kind", "invoice_id", "actual")]
        words = [finding.c[name] for name in ("severity", "expected", "message")]
        lasting = or_(finding.c.resolved_at.is_(None), finding.c.accepted_at.is_not(None))
        own = and_(self._of_month, finding.c.load_id.is_(None), lasting)
        closed = case((finding.c.resolved_at.is_(None), 0), else_=1)
        accepted = case((finding.c.accepted_at.is_(None), 0), else_=1)
        query = select(finding.c.finding_id, closed, accepted, *key, *words).where(own).order_by(closed.desc())
        for finding_id, resolved, decided, *values in self.connection.execute(query):
            yield _digest(values[:6]), Known(finding_id, not resolved, None if decided else _digest(values[6:]))

    def write(self, found: Iterable[Told]) -> None:
        """Write what is not known yet, and resolve what is not told again."""
        for one in found:
            self._tell(*one)
        self._finish()

    def _tell(self, key: SliceKey, broken: Broken, invoice_id: str | None, severity: str) -> None:
        severity = severity or ("warning" if broken.rule in _WARNINGS else "error")
        identity = _digest([broken.rule, *key, invoice_id, broken.actual])
        words = {"severity": severity, "expected": broken.expected, "message": broken.message}
        known = self._known.get(identity)
        if known is None:
            own = {"finding_id": str(uuid4()), **key._asdict(), "invoice_id": invoice_id, "period": str(self.period)}
            self._new.append({**own, "rule": broken.rule, "actual": broken.actual, "created_at": self._now, **words})
            if len(self._new) >= _BATCH:
                self._flush()
        elif known.is_open and known.words not in (None, _digest(list(words.values()))):
            finding = self.tables.finding
            self.connection.execute(update(finding).where(finding.c.finding_id == known.finding_id).values(words))
        self._known[identity] = Known("", False, b"")  # whatever is left at the end is no longer true

    def _finish(self) -> None:
        self._flush()
        finding, mended = self.tables.finding, (one.finding_id for one in self._known.values() if one.is_open)
        while ids := list(islice(mended, _BATCH)):
            ended = update(finding).where(finding.c.finding_id.in_(ids)).values(resolved_at=self._now)
            self.connection.execute(ended)

    def _flush(self) -> None:
        if self._new:
            rows, self._new = self._new, []
            self.connection.execute(insert(self.tables.finding), rows)


def told_by_loads(connection: Connection, tables: Tables, rule: str, key: SliceKey, ids: Collection[str]) -> set[str]:
    """Return of which invoices loads have told a rule, and still do."""
    finding = tables.finding
    own = and_(*(finding.c[name] == value for name, value in key._asdict().items()), finding.c.rule == rule)
    by_load = and_(finding.c.load_id.is_not(None), finding.c.resolved_at.is_(None))
    query = select(finding.c.invoice_id).where(own, by_load, finding.c.invoice_id.in_(list(ids)))
    return set(connection.scalars(query))


class OpenFindings:
    """Reads what of a month a person should look at: neither resolved nor accepted, whoever told it."""

    def __init__(
        self, connection: Connection, tables: Tables, period: Period, providers: Collection[str] | None = None
    ) -> None:
        finding = self._table = tables.finding
        self._connection = connection
        undecided = and_(finding.c.resolved_at.is_(None), finding.c.accepted_at.is_(None))
        self._open = and_(_of_month(tables, period, providers), undecided)

    def counts(self) -> dict[tuple[str, str], int]:
        """Return how many there are: (severity, rule) → number, errors first."""
        by = (self._table.c.severity, self._table.c.rule)
        query = select(*by, func.count()).where(self._open).group_by(*by)
        return dict(sorted(((severity, rule), count) for severity, rule, count in self._connection.execute(query)))

    def listed(self, most: int | None = None) -> Iterator[OpenFinding]:
        """Yield them, errors first, at most so many."""
        finding = self._table.c
        order = (finding.severity, finding.rule, finding.provider, finding.account, finding.kind, finding.invoice_id)
        columns = [finding[name] for name in OpenFinding._fields]
        query = select(*columns).where(self._open).order_by(*order, finding.finding_id).limit(most)
        for row in self._connection.execute(query, execution_options={"yield_per": _BATCH}):
            yield OpenFinding(*row)


def _of_month(tables: Tables, period: Period, providers: Collection[str] | None) -> ColumnElement[bool]:
    finding = tables.finding
    own = finding.c.period == str(period)
    return own if providers is None else and_(own, finding.c.provider.in_(list(providers)))


def _digest(values: list[str | None]) -> bytes:
    return sha256("\0".join("\1" if value is None else value for value in values).encode()).digest()[:16]
