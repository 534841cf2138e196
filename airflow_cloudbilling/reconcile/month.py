"""Reconciling a month: one pass over its invoices and lines, one over those of the month before, then the verdict."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set
from typing import Any, NamedTuple

from sqlalchemy import Connection

from airflow_cloudbilling.model import Period, is_issued
from airflow_cloudbilling.reconcile.arithmetic import Broken, Head, check
from airflow_cloudbilling.reconcile.closes import last_reconciled, member, reconciled, write
from airflow_cloudbilling.reconcile.findings import MonthFindings, OpenFindings, Told, told_by_loads
from airflow_cloudbilling.reconcile.history import Limits, drifts, invoices_of, month_before, volume
from airflow_cloudbilling.reconcile.loads import (
    Loads,
    counts,
    early,
    fingerprint,
    loads_of,
    missing,
    nothing,
    overlapping_of,
    rejects_of,
    wanted,
)
from airflow_cloudbilling.reconcile.reading import Charges, Reader, SliceKey
from airflow_cloudbilling.reconcile.references import References
from airflow_cloudbilling.reconcile.summary import SHOWN, Summary, Sums
from airflow_cloudbilling.staging.closes import Member
from airflow_cloudbilling.staging.dialects import dialect_of
from airflow_cloudbilling.staging.loader import Staging
from airflow_cloudbilling.staging.posting import InvoiceKey
from airflow_cloudbilling.staging.reading import let_the_database_learn, snapshot
from airflow_cloudbilling.staging.tables import Tables

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

    Everything is read as of one moment, while others may write; what is found is written at the end, in one short
    transaction. When another reconciliation of the month has written in between, it is read anew. A load in between
    stops nothing: the close says what was read, and whoever approves or sends it is told what has changed since.

    :raises ConfigurationError: when ``expected`` names no slice.
    """
    t, period = staging.tables, scope.period
    let_the_database_learn(staging.engine, t.invoice, t.invoice_line, t.slice_invoice, t.invoice_tax, t.finding)
    dialect, name = dialect_of(staging.engine.dialect.name), f"{t.metadata.schema}/reconcile/{period}"
    while True:
        with snapshot(staging.engine) as reading:
            month = _Month(t, reading, scope)
            month.look()
        with staging.engine.connect() as connection, dialect.locked(connection, name):
            if last_reconciled(connection, t, period) == month.before:
                return month.write(connection)


class _Month:
    """One reconciliation.

    :param reading: sees the tables as of one moment.
    """

    def __init__(self, tables: Tables, reading: Connection, scope: Scope) -> None:
        self.tables, self.reading, self.scope = tables, reading, scope
        self.read_at = dialect_of(reading.dialect.name).now(reading)
        self.before = last_reconciled(reading, tables, scope.period)
        self.reader = Reader(reading, tables)
        self.told: list[Told] = []
        self.slices: list[SliceKey] = []
        self.members: list[Member] = []
        self.sums = Sums()
        self.credits: dict[InvoiceKey, str] = {}

    def look(self) -> None:
        """Look at everything."""
        period, providers = self.scope.period, self.scope.providers
        loads = loads_of(self.reading, self.tables, period, providers)
        self.slices = [key for key, one in loads.items() if one.committed]
        earlier = loads_of(self.reading, self.tables, month_before(period), providers)
        before = {key for key, one in earlier.items() if one.committed}
        for key, one in loads.items():
            self._slice(key, one, compare=key in before)
        self.told += [Told(*one) for one in self._lacking(loads, before)]
        references = References(self.reading, self.tables, period)
        for found in (references.duplicates(providers), references.orphans(self.credits)):
            self.told += [_of_invoice(invoice, broken) for invoice, broken in found]
        self.found = reconciled(period, self.members, self.slices, self.sums.totals(), self.read_at)

    def _lacking(self, loads: Mapping[SliceKey, Loads], before: Set[SliceKey]) -> list[tuple[SliceKey, Broken]]:
        """Return what was not imported.

        :param before: slices of the month before.
        """
        period, providers, expected = self.scope.period, self.scope.providers, self.scope.expected
        tried = loads.keys() - self.slices  # a first month that failed is no clean one
        others = overlapping_of(self.reading, self.tables, period, providers)
        lacking = list(missing(wanted(expected, before | tried, providers), loads, others))
        if lacking or self.slices or (expected is not None and not expected):  # a person may say: of none
            return lacking
        return list(nothing(period, providers, others))

    def write(self, connection: Connection) -> Summary:
        """Write what was found, and return it as it stands now."""
        period, providers, tables = self.scope.period, self.scope.providers, self.tables
        MonthFindings(connection, tables, period, providers).write(self.told)
        close = write(connection, tables, self.found)
        open_ones = OpenFindings(connection, tables, period, providers)
        return Summary(
            period, close, dict(sorted(self.sums.by.items())), open_ones.counts(), list(open_ones.listed(SHOWN))
        )

    def _slice(self, key: SliceKey, loads: Loads, *, compare: bool) -> None:
        """Look at a slice: its invoices, their number, and what both were the month before."""
        limits, period = self.scope.limits, month_before(self.scope.period)
        drifting = compare and limits.drift is not None and key.kind != "usage"
        now = Charges.none() if drifting else None
        present = self._invoices(key, now)
        found = [*counts(loads, present, self._rejects), *early(loads, self.scope.period)]
        self.told += [Told(key, broken) for broken in found]
        had = invoices_of(self.reading, self.tables, key, period) if compare else None
        if loads.committed and (far := volume(present, had, limits)):
            self.told.append(Told(key, far[1], severity=far[0]))
        elif loads.committed and now:  # where the number of invoices is far off, so is every amount
            self.told += [Told(key, broken) for broken in drifts(now, self._charges(key, period), limits)]

    def _rejects(self, load_id: str) -> str:
        return rejects_of(self.reading, self.tables, load_id)

    def _invoices(self, key: SliceKey, charges: Charges | None) -> int:
        """Look at each invoice of a slice; return how many are staged."""
        present, unissued, elsewhere = 0, list[str](), list[str]()
        for ids in self.reader.ids(key, self.scope.period):
            heads = self.reader.heads(key, ids)
            present += len(heads)
            if key.kind == "usage":  # reports of what is billed elsewhere
                continue
            elsewhere += (f"{one} ({period})" for one, period in self.reader.elsewhere(key, self.scope.period, ids))
            for head, broken in self._broken(key, heads, charges):
                self.told.append(Told(key, broken, head.invoice_id))
            for head in heads.values():
                self.members.append(member(head))
                self.sums.add(head)
                if head.document_type == "credit_note" and head.preceding_invoice:
                    self.credits[InvoiceKey(*key, head.invoice_id)] = head.preceding_invoice
                if not is_issued(head.status):
                    unissued.append(f"{head.invoice_id} ({head.status})")
        if unissued:
            self.told.append(Told(key, _not_issued(unissued)))
        if elsewhere:
            self.told.append(Told(key, _in_two_periods(elsewhere)))
        return present

    def _broken(self, key: SliceKey, heads: dict[str, Head], charges: Charges | None) -> list[tuple[Head, Broken]]:
        """Return the rules that a page's invoices break; what a load has told already is the load's to tell."""
        taxes = self.reader.taxes(key, heads)
        found: list[tuple[Head, Broken]] = []
        for head, sums in zip(heads.values(), self.reader.sums(key, heads, charges), strict=True):
            rounded_lines = self.reader.rounded_lines(key, head)
            found += ((head, broken) for broken in check(head, sums, taxes.get(head.invoice_id, ()), rounded_lines))
        unread = [head.invoice_id for head, broken in found if broken.rule == _UNREAD]
        told = told_by_loads(self.reading, self.tables, _UNREAD, key, unread) if unread else set()
        return [one for one in found if one[1].rule != _UNREAD or one[0].invoice_id not in told]

    def _charges(self, key: SliceKey, period: Period) -> Charges:
        """Return what a slice of another period comes to."""
        charges = Charges.none()
        for ids in self.reader.ids(key, period):
            self.reader.sums(key, self.reader.heads(key, ids), charges)
        return charges


def _of_invoice(invoice: InvoiceKey, broken: Broken) -> Told:
    return Told(SliceKey(*invoice[:3]), broken, invoice.invoice_id)


def _not_issued(invoices: Sequence[str]) -> Broken:
    """Return ``not-issued``, which names drafts and cancelled invoices: they stay in the totals, a person decides."""
    message = "They count in the totals and in the close. Ask the vendor, import again, or accept that they count."
    return Broken("not-issued", "issued invoices", _named(invoices), message)


def _in_two_periods(invoices: Sequence[str]) -> Broken:
    """Return ``in-two-periods``, which names invoices that the vendor gave in another period too: it has moved them."""
    message = (
        "They count in the totals of both, and are sent once. Import both periods again: the vendor names one now."
    )
    return Broken("in-two-periods", "invoices of this period alone", _named(invoices), message)


def _named(invoices: Sequence[str]) -> str:
    more = len(invoices) - SHOWN
    return ", ".join(invoices[:SHOWN]) + (f" and {more} more ({fingerprint(invoices)})" if more > 0 else "")
