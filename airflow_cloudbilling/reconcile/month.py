"""Reconciling a month: one pass over its invoices and lines, one over those of the month before, then the verdict."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection

from airflow_cloudbilling.model import Period
from airflow_cloudbilling.reconcile.arithmetic import Broken, Head, check
from airflow_cloudbilling.reconcile.closes import member, write
from airflow_cloudbilling.reconcile.findings import MonthFindings, OpenFindings
from airflow_cloudbilling.reconcile.history import (
    Limits,
    Loads,
    counts,
    drifts,
    invoices_of,
    loads_of,
    missing,
    month_before,
    volume,
    wanted,
)
from airflow_cloudbilling.reconcile.reading import Charges, Reader, SliceKey
from airflow_cloudbilling.reconcile.references import References
from airflow_cloudbilling.reconcile.summary import SHOWN, Summary, Sums
from airflow_cloudbilling.staging.dialects import dialect_of
from airflow_cloudbilling.staging.loader import Staging
from airflow_cloudbilling.staging.posting import InvoiceKey
from airflow_cloudbilling.staging.reading import let_the_database_learn, snapshot

_UNREAD = "unreadable-amounts"


class Scope(NamedTuple):
    """What is reconciled.

    :param providers: connection types of the vendors; None: all.
    :param expected: slices that must be there, mappings of ``provider, account, kind``; None: the month before's.
    """

    period: Period
    providers: Collection[str] | None = None
    expected: Sequence[Mapping[str, Any]] | None = None
    limits: Limits = Limits()


def reconcile(staging: Staging, scope: Scope) -> Summary:
    """Check a month, write its findings and its close, and return both in numbers.

    Two that reconcile the same month at the same time do so one after the other. Everything is read as of one moment.

    :raises ConfigurationError: when ``expected`` names no slice.
    """
    let_the_database_learn(staging.engine, staging.tables)
    dialect, period = dialect_of(staging.engine.dialect.name), scope.period
    name = f"{staging.tables.metadata.schema}/reconcile/{period}"
    with staging.engine.connect() as connection, dialect.locked(connection, name):
        if staging.engine.dialect.name == "sqlite":  # whose lock lets nobody else write, so it is one moment
            return _Month(staging, connection, connection, scope).run()
        with snapshot(staging.engine) as reading:
            return _Month(staging, connection, reading, scope).run()


class _Month:
    """One reconciliation.

    :param connection: to write with.
    :param reading: sees the tables as of one moment.
    """

    def __init__(self, staging: Staging, connection: Connection, reading: Connection, scope: Scope) -> None:
        self.tables, self.connection, self.reading, self.scope = staging.tables, connection, reading, scope
        self.findings = MonthFindings(connection, self.tables, scope.period, scope.providers)
        self.reader = Reader(reading, self.tables)
        self.members: list[str] = []
        self.sums = Sums()
        self.credits: dict[InvoiceKey, str] = {}

    def run(self) -> Summary:
        """Look at everything, then write."""
        period, providers = self.scope.period, self.scope.providers
        loads = loads_of(self.reading, self.tables, period, providers)
        earlier = loads_of(self.reading, self.tables, month_before(period), providers)
        before = {key for key, one in earlier.items() if one.committed}
        for key, one in loads.items():
            self._slice(key, one, compare=key in before)
        tried = {key for key, one in loads.items() if not one.committed}  # a first month that failed is no clean one
        for key, broken in missing(wanted(self.scope.expected, before | tried, providers), loads):
            self.findings.tell(key, broken)
        references = References(self.reading, self.tables, period)
        for found in (references.duplicates(providers), references.orphans(self.credits)):
            for invoice, broken in found:
                self._tell(invoice, broken)
        self.findings.finish()
        close = write(self.connection, self.tables, period, self.members, self.sums.totals())
        told = OpenFindings(self.connection, self.tables, period, providers)
        return Summary(period, close, dict(sorted(self.sums.by.items())), told.counts(), list(told.listed(SHOWN)))

    def _slice(self, key: SliceKey, loads: Loads, *, compare: bool) -> None:
        """Look at a slice: its invoices, their number, and what both were the month before."""
        limits, period = self.scope.limits, month_before(self.scope.period)
        drifting = compare and limits.drift is not None and key.kind != "usage"
        now = Charges.none() if drifting else None
        present = self._invoices(key, now)
        for broken in counts(loads, present):
            self.findings.tell(key, broken)
        had = invoices_of(self.reading, self.tables, key, period) if compare else None
        if loads.committed and (far := volume(present, had, limits)):
            self.findings.tell(key, far[1], severity=far[0])
        elif loads.committed and now:  # where the number of invoices is far off, so is every amount
            for broken in drifts(now, self._charges(key, period), limits):
                self.findings.tell(key, broken)

    def _invoices(self, key: SliceKey, charges: Charges | None) -> int:
        """Look at each invoice of a slice; return how many are staged."""
        present = 0
        for ids in self.reader.ids(key, self.scope.period):
            heads = self.reader.heads(key, ids)
            present += len(heads)
            if key.kind == "usage":  # reports of what is billed elsewhere
                continue
            for head, broken in self._broken(key, heads, charges):
                self._tell(InvoiceKey(*key, head.invoice_id), broken)
            for head in heads.values():
                self.members.append(member(head))
                self.sums.add(head)
                if head.document_type == "credit_note" and head.preceding_invoice:
                    self.credits[InvoiceKey(*key, head.invoice_id)] = head.preceding_invoice
        return present

    def _broken(self, key: SliceKey, heads: dict[str, Head], charges: Charges | None) -> list[tuple[Head, Broken]]:
        """Return the rules that a page's invoices break; what a load has told already is the load's to tell."""
        taxes = self.reader.taxes(key, heads)
        found: list[tuple[Head, Broken]] = []
        for head, sums in zip(heads.values(), self.reader.sums(key, heads, charges), strict=True):
            rounded_lines = self.reader.rounded_lines(key, head)
            found += ((head, broken) for broken in check(head, sums, taxes.get(head.invoice_id, ()), rounded_lines))
        unread = [head.invoice_id for head, broken in found if broken.rule == _UNREAD]
        told = self.findings.told_by_loads(_UNREAD, key, unread) if unread else set()
        return [one for one in found if one[1].rule != _UNREAD or one[0].invoice_id not in told]

    def _charges(self, key: SliceKey, period: Period) -> Charges:
        """Return what a slice of another period comes to."""
        charges = Charges.none()
        for ids in self.reader.ids(key, period):
            self.reader.sums(key, self.reader.heads(key, ids), charges)
        return charges

    def _tell(self, invoice: InvoiceKey, broken: Broken) -> None:
        self.findings.tell(SliceKey(*invoice[:3]), broken, invoice_id=invoice.invoice_id)
