"""What a person should look at: findings are told once, stay quiet once accepted, and are resolved by later loads."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from sqlalchemy import (
    Column,
    Connection,
    Index,
    MetaData,
    Select,
    Table,
    and_,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.sql.elements import ColumnElement

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.model import Finding, Period, Slice
from airflow_cloudbilling.staging.dialects import dialect_of
from airflow_cloudbilling.staging.ledger import of_slice, slice_values
from airflow_cloudbilling.staging.tables import Tables
from airflow_cloudbilling.staging.temporary import Batch, Sender, copy_rows, temporary

if TYPE_CHECKING:
    from airflow_cloudbilling.staging.loader import Staging

_CHUNK = 500  # ids in one statement
RULES_OF_SOURCES = ("unreadable-amounts",)  # a load that does not state them of an invoice resolves them


class Findings:
    """The findings of one load: those that its source states, in a temporary table, and those of the merge itself."""

    def __init__(self, sender: Sender, tables: Tables, slice_: Slice) -> None:
        self._sender = sender
        connection = sender.connection
        self._dialect = dialect_of(connection.dialect.name)
        self._table = tables.finding
        self._slice = slice_
        self._own = of_slice(tables.finding, slice_, period=False)
        names = ("finding_id", *Finding._fields)
        metadata = MetaData()
        columns = [Column(name, tables.finding.c[name].type) for name in names]
        self._new = temporary("new_finding", metadata, *columns)
        metadata.create_all(connection, checkfirst=False)
        self._stated = Batch(sender, self._new, names)
        self._any = False

    @property
    def _connection(self) -> Connection:
        return self._sender.connection

    def add(self, finding: Finding) -> None:
        """Take in what a source states.

        :raises ValueError: for a rule that no later load would resolve: add it to ``RULES_OF_SOURCES``.
        """
        if finding.rule not in RULES_OF_SOURCES:
            raise ValueError(f"{finding.rule!r} is not among the rules of sources: {', '.join(RULES_OF_SOURCES)}")
        self._any = True
        if self._stated.add((str(uuid4()), *finding)):
            self._stated.flush()

    def finish(self) -> None:
        """Write what is still held."""
        self._stated.flush()
        if self._any:
            Index("cloudbilling_new_finding_by_invoice", self._new.c.invoice_id).create(self._connection)
            self._dialect.analyze(self._connection, self._new.c.invoice_id)
            self._connection.commit()

    def merge(self, load_id: str, came: Select[Any], gone: Select[Any]) -> None:
        """Tell what was not told before, and resolve what the source no longer states.

        :param came: ids of the invoices whose present version is staged.
        :param gone: ids of the invoices that are staged no more.
        """
        finding, new = self._table, self._new
        of_sources = and_(
            self._own, _by_load(finding), finding.c.rule.in_(RULES_OF_SOURCES), finding.c.resolved_at.is_(None)
        )
        if not self._any and not self._connection.scalar(select(exists().where(of_sources))):
            return
        stated = exists().where(self._same())
        ended = or_(and_(finding.c.invoice_id.in_(came), ~stated), finding.c.invoice_id.in_(gone))
        self.resolve(RULES_OF_SOURCES, ended)
        if self._any:
            quiet = or_(finding.c.resolved_at.is_(None), finding.c.accepted_at.is_not(None))
            known = exists().where(self._own, _by_load(finding), self._same(), quiet)
            self._tell_all(load_id, and_(new.c.invoice_id.in_(came), ~known))

    def tell(self, load_id: str, finding: Finding) -> None:
        """Write a finding of the merge."""
        values = {**self._facts(load_id), **finding._asdict(), "finding_id": str(uuid4())}
        self._connection.execute(insert(self._table), [values])

    def resolve(self, rules: Collection[str], which: ColumnElement[bool]) -> None:
        """Note that findings of the slice's account and kind are no longer true."""
        finding = self._table
        open_ = and_(self._own, _by_load(finding), finding.c.rule.in_(rules), finding.c.resolved_at.is_(None))
        now = self._dialect.now(self._connection)
        self._connection.execute(update(finding).where(open_, which).values(resolved_at=now))

    def _facts(self, load_id: str) -> dict[str, Any]:
        return {**slice_values(self._slice), "load_id": load_id, "created_at": self._dialect.now(self._connection)}

    def _same(self) -> ColumnElement[bool]:
        """Return the condition that a finding is the stated one: of the same rule and invoice, with the same value."""
        finding, new = self._table, self._new
        keys = (finding.c[name] == new.c[name] for name in ("rule", "invoice_id"))
        return and_(*keys, self._dialect.bytewise(finding.c.actual) == new.c.actual)

    def _tell_all(self, load_id: str, which: ColumnElement[bool]) -> None:
        """Write what was stated; once, though it may have been stated twice."""
        new, finding = self._new, self._table
        names = ("finding_id", "severity", "expected", "actual", "message")
        values = {**dict.fromkeys(c.name for c in finding.columns), **self._facts(load_id)}
        values |= {name: func.min(new.c[name]) for name in names}
        values |= {name: new.c[name] for name in ("invoice_id", "rule")}
        each = (new.c.invoice_id, new.c.rule, self._dialect.bytewise(new.c.actual))
        copy_rows(self._connection, finding, new, values, select(new).where(which).group_by(*each))


def _by_load(finding: Table) -> ColumnElement[bool]:
    """Return the condition that a load told it: what a reconciliation tells is its own to resolve."""
    return finding.c.load_id.is_not(None)


def open_ones(staging: Staging, period: Period, rule: str) -> list[str]:
    """Return the ids of a period's findings of a rule that are neither resolved nor accepted.

    :raises ConfigurationError: when there never was one: the rule, or the period, is rather mistyped.
    """
    finding = staging.tables.finding
    columns = (finding.c.finding_id, func.coalesce(finding.c.resolved_at, finding.c.accepted_at))
    query = select(*columns).where(finding.c.period == str(period), finding.c.rule == rule)
    with staging.engine.connect() as connection:
        found = connection.execute(query).all()
    if not found:
        raise ConfigurationError(f"{period.key} has no finding of the rule {rule!r}.", field="rule")
    return [finding_id for finding_id, decided in found if decided is None]


def accept(staging: Staging, ids: Sequence[str], who: str, reason: str) -> int:
    """Take a person's word that findings are in order; they stay quiet until their actual value changes.

    :param who: the person; kept with ``reason``. One that was accepted before stays with who did so first.
    :returns: how many were accepted now.
    :raises ConfigurationError: when there is none of an id; then none is accepted.
    """
    finding, accepted = staging.tables.finding, 0
    with staging.engine.execution_options(sqlite_begin="BEGIN IMMEDIATE").begin() as connection:
        values = {"accepted_by": who, "accepted_at": staging.ledger.now(connection), "accept_reason": reason}
        wanted = sorted(set(ids))
        for start in range(0, len(wanted), _CHUNK):
            chunk = wanted[start : start + _CHUNK]
            of_chunk = finding.c.finding_id.in_(chunk)
            unknown = set(chunk) - set(connection.scalars(select(finding.c.finding_id).where(of_chunk)))
            if unknown:
                first = ", ".join(map(repr, sorted(unknown)[:5]))
                raise ConfigurationError(f"there is no finding {first} in {finding.name}.", field="findings")
            fresh = update(finding).where(of_chunk, finding.c.accepted_at.is_(None)).values(values)
            accepted += connection.execute(fresh).rowcount
    return accepted
