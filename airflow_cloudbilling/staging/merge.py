"""The merge: from a load's temporary tables into the staging tables, in one short transaction, set by set.

Nothing is rewritten that did not change. Changed invoices are deleted and inserted anew: the one form of "upsert" that
every database understands alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    Connection,
    Select,
    Table,
    and_,
    case,
    delete,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.sql.elements import ColumnElement

from airflow_cloudbilling.errors import RemovalError
from airflow_cloudbilling.exact import canonical, exactly
from airflow_cloudbilling.model import Slice
from airflow_cloudbilling.staging.columns import MOMENT, TOTALS
from airflow_cloudbilling.staging.frozen import is_frozen
from airflow_cloudbilling.staging.incoming import Incoming
from airflow_cloudbilling.staging.ledger import of_slice, slice_values
from airflow_cloudbilling.staging.results import Merged
from airflow_cloudbilling.staging.revisions import Revisions
from airflow_cloudbilling.staging.tables import Tables
from airflow_cloudbilling.staging.temporary import copy_rows


class Merge:
    """One merge, inside the transaction and under the lock of its caller.

    :param incoming: the filled temporary tables.
    :param fetch_started_at: when the load's reading began.
    """

    def __init__(
        self,
        connection: Connection,
        tables: Tables,
        slice_: Slice,
        incoming: Incoming,
        load_id: str,
        fetch_started_at: str,
    ) -> None:
        self.connection = connection
        self.tables = tables
        self.slice = slice_
        self.incoming = incoming
        self.load_id = load_id
        self.fetch_started_at = fetch_started_at
        self._own_tables = (tables.invoice_line, tables.invoice_tax, tables.invoice)
        self.revisions = Revisions(connection, tables, slice_, incoming, load_id)

    def superseded(self) -> bool:
        """Whether a load whose reading began later has already been committed for the slice."""
        load = self.tables.load
        later = and_(
            of_slice(load, self.slice),
            load.c.status == "committed",
            self._read_later(),
        )
        return self.connection.execute(select(load.c.load_id).where(later).limit(1)).first() is not None

    def run(self, *, removal: bool, allowed: Decimal | None) -> Merged:
        """Bring the slice to what the vendor returned.

        :param removal: whether invoices that did not come are taken as withdrawn.
        :param allowed: share of the slice's invoices that may go at most; ``None`` for any.
        :raises RemovalError: when more would go; the caller rolls back.
        """
        self._classify()
        merged = self._counts()
        if merged.new or merged.changed or merged.frozen:
            self.incoming.send_held_back()
        merged.removed = self._find_gone() if removal else 0
        self._check_removal(merged.removed, allowed)
        self.revisions.record_changed()
        if merged.removed:
            self._leave()
        if merged.changed:
            self.incoming.dialect.analyze(self.connection, self.incoming.invoice.c.action)
            self._delete_invoices(self._ids("changed"), self._own_tables)
        if merged.new or merged.changed:
            self._insert_invoices()
        if self._join():
            self._raise_periods()
        self._bring_what_hangs_on(removal=removal)
        self._measure(merged)
        return merged

    def _bring_what_hangs_on(self, *, removal: bool) -> None:
        """Bring documents and findings to what the load says of the invoices that are staged as they came."""
        came = self._ids("new", "changed", "unchanged")
        self.incoming.documents.merge(self.load_id, came, removal=removal)
        self.incoming.findings.merge(self.load_id, came, select(self.incoming.gone.c.invoice_id))

    def _read_later(self) -> ColumnElement[bool]:
        return self.tables.load.c.fetch_started_at > literal(self.fetch_started_at, MOMENT)

    def present(self) -> Merged:
        """Return the slice as it stands, without a change."""
        merged = Merged()
        self._measure(merged)
        merged.unchanged = merged.invoices
        return merged

    def _same(self, table: Table) -> ColumnElement[bool]:
        return of_slice(table, self.slice, period=False)

    def _ids(self, *actions: str) -> Select[Any]:
        return select(self.incoming.invoice.c.invoice_id).where(self.incoming.invoice.c.action.in_(actions))

    def _classify(self) -> None:
        """Mark every incoming invoice as new, changed, unchanged, frozen, or read earlier than what is staged."""
        new, staged = self.incoming.invoice, self.tables.invoice
        match = and_(self._same(staged), staged.c.invoice_id == new.c.invoice_id)
        known = case((staged.c.content_hash == new.c.content_hash, "unchanged"), else_="changed")
        values = {"action": known, "staged_period": staged.c.slice_period}
        if not self.connection.execute(update(new).where(match).values(values)).rowcount:
            return
        changed = new.c.action == "changed"
        if newer := self._newer_periods():
            slices = self.tables.slice_invoice
            elsewhere = and_(self._same(slices), slices.c.period.in_(newer), slices.c.invoice_id == new.c.invoice_id)
            self._mark("stale", and_(changed, exists().where(elsewhere)))
        self._mark("frozen", and_(changed, exists().where(match, is_frozen(self.tables))))

    def _mark(self, action: str, which: ColumnElement[bool]) -> None:
        self.connection.execute(update(self.incoming.invoice).where(which).values(action=action))

    def _newer_periods(self) -> list[str]:
        """Return the account's other slices read after this load began: they know better."""
        load = self.tables.load
        newer = and_(
            of_slice(load, self.slice, period=False),
            load.c.period != str(self.slice.period),
            load.c.status == "committed",
            self._read_later(),
        )
        return list(self.connection.scalars(select(load.c.period).where(newer).distinct()))

    def _counts(self) -> Merged:
        action = self.incoming.invoice.c.action
        counts = self.connection.execute(select(action, func.count()).group_by(action))
        found: dict[str, int] = dict(map(tuple, counts))
        unchanged = found.get("unchanged", 0) + found.get("stale", 0)
        return Merged(found.get("new", 0), found.get("changed", 0), unchanged, frozen=found.get("frozen", 0))

    def _find_gone(self) -> int:
        """Collect the slice's invoices that did not come and may go; return their number.

        A frozen one that no other slice returns stays in the slice as it was posted.
        """
        slices, gone = self.tables.slice_invoice, self.incoming.gone
        came = or_(
            *(
                exists().where(t.c.invoice_id == slices.c.invoice_id)
                for t in (self.incoming.invoice, self.incoming.protected)
            )
        )
        missing = select(slices.c.invoice_id).where(of_slice(slices, self.slice), ~came)
        found = self.connection.execute(insert(gone).from_select(["invoice_id"], missing)).rowcount
        if not found:
            return 0
        self.incoming.dialect.analyze(self.connection, gone.c.invoice_id)
        return found - self.revisions.record_withdrawn()

    def _check_removal(self, removed: int, allowed: Decimal | None) -> None:
        slices = self.tables.slice_invoice
        if allowed is None or removed <= 1:
            return
        before = (
            self.connection.scalar(select(func.count()).select_from(slices).where(of_slice(slices, self.slice))) or 0
        )
        if removed > max(1, int(before * allowed)):
            raise RemovalError(
                f"{removed} of the {before} staged invoices of {self.slice.provider} account {self.slice.account!r}, "
                f"{self.slice.kind}, {self.slice.period.key} did not come this time; at most {allowed:%} (and always "
                "1) may go without a person's word. Nothing was changed. If the vendor really withdrew them, run once "
                "with allow_removals=True or a higher max_removed."
            )

    def _leave(self) -> None:
        """Take the missing invoices out of the slice, and out of staging where no other slice returns them."""
        slices, gone = self.tables.slice_invoice, self.incoming.gone
        missing = select(gone.c.invoice_id)
        self.connection.execute(delete(slices).where(of_slice(slices, self.slice), slices.c.invoice_id.in_(missing)))
        self._settle_periods()
        self.connection.execute(delete(gone).where(gone.c.invoice_id.in_(select(self.incoming.elsewhere.c.invoice_id))))
        self._delete_invoices(missing, (*self._own_tables, self.tables.document))

    def _delete_invoices(self, ids: Select[Any], tables: Iterable[Table]) -> None:
        for table in tables:
            self.connection.execute(delete(table).where(self._same(table), table.c.invoice_id.in_(ids)))

    def _insert_invoices(self) -> None:
        new, line, tax = self.incoming.invoice, self.incoming.line, self.incoming.tax
        self.incoming.dialect.analyze(self.connection, new.c.action, line.c.seq, tax.c.seq)
        fresh = new.c.action.in_(("new", "changed"))
        period, before = literal(str(self.slice.period)), new.c.staged_period
        own = {
            "load_id": self.load_id,
            "slice_period": case((before > period, before), else_=period),
            "posted_at": None,
            "posted_reference": None,
        }
        self._copy(self.tables.invoice, new, own, select(new).where(fresh))
        for target, rows in ((self.tables.invoice_line, line), (self.tables.invoice_tax, tax)):
            self._copy(target, rows, {}, select(rows).join(new, new.c.seq == rows.c.seq).where(fresh))

    def _copy(self, target: Table, rows: Table, own: Mapping[str, Any], query: Select[Any]) -> None:
        values = {**slice_values(self.slice), "invoice_id": self.incoming.invoice.c.invoice_id, **own}
        copy_rows(self.connection, target, rows, values, query)

    def _join(self) -> int:
        """Remember that this slice returns the invoices; return how many it did not return before."""
        slices, new = self.tables.slice_invoice, self.incoming.invoice
        own = [literal(value).label(name) for name, value in slice_values(self.slice).items()]
        known = exists().where(of_slice(slices, self.slice), slices.c.invoice_id == new.c.invoice_id)
        rows = select(*own, new.c.invoice_id).where(~known)
        joining = insert(slices).from_select([*slice_values(self.slice), "invoice_id"], rows)
        return self.incoming.dialect.walk_once(self.connection, joining).rowcount

    def _raise_periods(self) -> None:
        """Let staged invoices that this slice now returns too have its period, where it is greater than theirs."""
        invoice, period = self.tables.invoice, str(self.slice.period)
        ids = select(self.incoming.invoice.c.invoice_id)
        lower = and_(self._same(invoice), invoice.c.slice_period < period, invoice.c.invoice_id.in_(ids))
        self.connection.execute(update(invoice).where(lower).values(slice_period=period))

    def _settle_periods(self) -> None:
        """Set ``slice_period`` of invoices that left a slice to the greatest period among their others."""
        invoice, slices = self.tables.invoice, self.tables.slice_invoice
        gone, elsewhere = self.incoming.gone, self.incoming.elsewhere
        # the concatenation has the account walked once; databases without statistics do so once for each invoice
        same = gone.c.invoice_id == slices.c.invoice_id.concat("")
        greatest = select(slices.c.invoice_id, func.max(slices.c.period)).join(gone, same).where(self._same(slices))
        of_each = greatest.group_by(slices.c.invoice_id)
        self.connection.execute(insert(elsewhere).from_select(["invoice_id", "period"], of_each))
        self.incoming.dialect.analyze(self.connection, elsewhere.c.invoice_id)
        of_invoice = and_(self._same(invoice), invoice.c.invoice_id == elsewhere.c.invoice_id)
        differs = and_(of_invoice, invoice.c.slice_period != elsewhere.c.period)
        self.connection.execute(update(invoice).where(differs).values(slice_period=elsewhere.c.period))

    def _measure(self, merged: Merged) -> None:
        """Read the slice's counts and totals back from the tables."""
        invoice, slices = self.tables.invoice, self.tables.slice_invoice
        amounts = [invoice.c[name] for name in TOTALS.values()]
        # the concatenation keeps PostgreSQL, before it has statistics, from walking the account once for each invoice
        same = (invoice.c[name] == slices.c[name].concat("") for name in ("provider", "account", "kind"))
        member = and_(*same, of_slice(slices, self.slice), slices.c.invoice_id == invoice.c.invoice_id)
        query = select(invoice.c.currency, literal(1), invoice.c.line_count, *amounts).where(member)
        if self.incoming.dialect.sums:
            counts = (func.count(), func.sum(invoice.c.line_count))
            query = (
                select(invoice.c.currency, *counts, *map(func.sum, amounts)).where(member).group_by(invoice.c.currency)
            )
        sums: dict[str, list[Decimal | None]] = {}
        with exactly():
            for currency, invoices, lines, *found in self.connection.execute(query):
                merged.invoices += int(invoices)
                merged.lines += int(lines)
                for nth, amount in enumerate(found):
                    if currency and amount is not None:  # one that nobody stated is no zero
                        totals = sums.setdefault(currency, [None] * 3)
                        totals[nth] = Decimal(amount) + (totals[nth] or 0)
        merged.totals = {
            currency: {name: None if a is None else canonical(a) for name, a in zip(TOTALS, total, strict=True)}
            for currency, total in sorted(sums.items())
        }
        merged.documents = self._count_documents()

    def _count_documents(self) -> int:
        """Return the number of files of the slice's invoices, and of its own."""
        document, slices = self.tables.document, self.tables.slice_invoice
        of_member = document.c.invoice_id.in_(select(slices.c.invoice_id).where(of_slice(slices, self.slice)))
        # "or" in one query keeps PostgreSQL, before it has statistics, from walking the slice once for each file
        which = or_(of_member, self.incoming.documents.without_invoice())
        return self.connection.scalar(select(func.count()).where(self._same(document), which)) or 0
