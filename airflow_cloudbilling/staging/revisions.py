"""Posted is posted: what the vendor says later of a frozen invoice becomes a revision and a finding, not a change."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, Table, and_, delete, exists, insert, or_, select
from sqlalchemy.sql.elements import ColumnElement

from airflow_cloudbilling.exact import canonical
from airflow_cloudbilling.model import Finding, Slice
from airflow_cloudbilling.staging.frozen import is_frozen
from airflow_cloudbilling.staging.incoming import Incoming
from airflow_cloudbilling.staging.ledger import of_slice, slice_values
from airflow_cloudbilling.staging.reading import same_invoice
from airflow_cloudbilling.staging.tables import Tables

RULES = {"changed": "changed-after-posting", "withdrawn": "withdrawn-after-posting"}

Row = dict[str, Any]


class Revisions:
    """The frozen invoices of one merge."""

    def __init__(self, connection: Connection, tables: Tables, slice_: Slice, incoming: Incoming, load_id: str) -> None:
        self.connection = connection
        self.tables = tables
        self.slice = slice_
        self.incoming = incoming
        self.load_id = load_id

    def record_changed(self) -> None:
        """Keep the new version of every frozen invoice that changed, once, and resolve what is as posted again."""
        new = self.incoming.invoice
        for row in self.connection.execute(select(new).where(new.c.action == "frozen")).mappings().all():
            own = {"load_id": self.load_id, "slice_period": str(self.slice.period)}
            lines = select(self.incoming.line).where(self.incoming.line.c.seq == row["seq"])
            self._record("changed", {**row, **own}, lines, self._staged(row["invoice_id"]))
        self._resolve(select(new.c.invoice_id).where(new.c.action == "unchanged"))

    def record_withdrawn(self) -> int:
        """Keep the frozen invoices among those that did not come, where no other slice returns them.

        :returns: how many; they are taken out of the list of those that go.
        """
        invoice, gone, line = self.tables.invoice, self.incoming.gone, self.tables.invoice_line
        same = and_(of_slice(invoice, self.slice, period=False), invoice.c.invoice_id == gone.c.invoice_id)
        frozen = select(invoice).join(gone, same).where(is_frozen(self.tables), ~self._elsewhere())
        rows = self.connection.execute(frozen).mappings().all()
        for row in rows:
            lines = select(line).where(of_slice(line, self.slice, period=False), line.c.invoice_id == row["invoice_id"])
            self._record("withdrawn", dict(row), lines, dict(row))
            self.connection.execute(delete(gone).where(gone.c.invoice_id == row["invoice_id"]))
        return len(rows)

    def _elsewhere(self) -> ColumnElement[bool]:
        """Return the condition that another slice returns the invoice too."""
        slices = self.tables.slice_invoice
        other = and_(of_slice(slices, self.slice, period=False), slices.c.period != str(self.slice.period))
        return exists().where(other, slices.c.invoice_id == self.tables.invoice.c.invoice_id)

    def _record(self, reason: str, row: Row, lines: Select[Any], staged: Row) -> None:
        """Keep a version and tell it; one that came before, went and is back is told again."""
        last = self._last(row["invoice_id"])
        if last is None or (last["reason"], last["content_hash"]) != (reason, row["content_hash"]):
            self._keep(reason, row, lines, last["revision"] + 1 if last else 1)
        elif self._is_told(reason, row):
            return
        self._resolve([row["invoice_id"]])  # what was said of it before is no longer true
        self._find(reason, row, staged)

    def _keep(self, reason: str, row: Row, lines: Select[Any], revision: int) -> None:
        own = {**slice_values(self.slice), "revision": revision, "reason": reason}
        target = self.tables.invoice_revision
        self.connection.execute(insert(target), [_values(target, {**row, **own})])
        target = self.tables.invoice_line_revision
        rows = self.connection.execute(lines).mappings().all()
        if rows:
            key = {**own, "invoice_id": row["invoice_id"]}
            self.connection.execute(insert(target), [_values(target, {**r, **key}) for r in rows])

    def _is_told(self, reason: str, row: Row) -> bool:
        """Whether a finding says so that is open, or that a person accepted and no release has ended since."""
        finding, release = self.tables.finding, self.tables.finding.alias("release")
        own = and_(of_slice(finding, self.slice, period=False), finding.c.invoice_id == row["invoice_id"])
        same = and_(finding.c.rule == RULES[reason], finding.c.actual == _actual(reason, row))
        released = and_(same_invoice(release, finding), release.c.rule == "released")
        ended = exists().where(released, release.c.created_at >= finding.c.accepted_at)
        stands = or_(finding.c.resolved_at.is_(None), and_(finding.c.accepted_at.is_not(None), ~ended))
        return self.connection.execute(select(finding.c.finding_id).where(own, same, stands)).first() is not None

    def _last(self, invoice_id: str) -> RowMapping | None:
        revision = self.tables.invoice_revision
        own = and_(of_slice(revision, self.slice, period=False), revision.c.invoice_id == invoice_id)
        columns = (revision.c.revision, revision.c.reason, revision.c.content_hash)
        newest = select(*columns).where(own).order_by(revision.c.revision.desc()).limit(1)
        return self.connection.execute(newest).mappings().first()

    def _staged(self, invoice_id: str) -> Row:
        invoice = self.tables.invoice
        own = and_(of_slice(invoice, self.slice, period=False), invoice.c.invoice_id == invoice_id)
        return dict(self.connection.execute(select(invoice).where(own)).mappings().one())

    def _find(self, reason: str, row: Row, staged: Row) -> None:
        message = (
            f"Invoice {row['invoice_id']} was {reason} at the vendor after it was posted; the posted version stays. "
            "Accept the finding, or release the invoice and load the period again."
        )
        told = Finding(row["invoice_id"], RULES[reason], "error", _gross(staged), _actual(reason, row), message)
        self.incoming.findings.tell(self.load_id, told)

    def _resolve(self, ids: Select[Any] | list[str]) -> None:
        self.incoming.findings.resolve(RULES.values(), self.tables.finding.c.invoice_id.in_(ids))


def _values(target: Table, row: Row) -> Row:
    return {column.name: row.get(column.name) for column in target.columns}


def _actual(reason: str, row: Row) -> str:
    return "withdrawn" if reason == "withdrawn" else _gross(row)


def _gross(row: Row) -> str:
    amount = row["gross_amount"]
    return "no amount" if amount is None else f"{canonical(Decimal(amount))} {row['currency']}"
