"""Which invoices a load changes, with their totals before and after: for a person who mended a mapping."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, select

from airflow_cloudbilling.exact import canonical
from airflow_cloudbilling.staging.frozen import is_frozen
from airflow_cloudbilling.staging.ledger import of_slice
from airflow_cloudbilling.staging.loader import Load


class Change(NamedTuple):
    """A changed invoice and its gross amount before and after, as canonical text with the currency."""

    invoice_id: str
    before: str
    after: str


class Changes:
    """Looks at the first changes of a load, by invoice id; create it before the load is committed.

    :param limit: how many it looks at.
    """

    def __init__(self, load: Load, limit: int) -> None:
        self._load = load
        self._limit = limit
        self._found: list[Change] = []
        load.before_merge = self._look

    def made(self) -> list[Change]:
        """Return the changes that the committed load made."""
        load, invoice = self._load, self._load.staging.tables.invoice
        ids = [change.invoice_id for change in self._found]
        own = and_(of_slice(invoice, load.slice, period=False), invoice.c.load_id == load.load_id)
        with load.staging.engine.connect() as connection:
            query = select(invoice.c.invoice_id).where(own, invoice.c.invoice_id.in_(ids))
            written = set(connection.scalars(query))
        return [change for change in self._found if change.invoice_id in written]

    def _look(self, connection: Connection) -> None:
        tables, new = self._load.staging.tables, self._load.incoming.invoice
        staged = tables.invoice
        same = and_(of_slice(staged, self._load.slice, period=False), staged.c.invoice_id == new.c.invoice_id)
        columns = [t.c[name] for t in (staged, new) for name in ("gross_amount", "currency")]
        differs = and_(same, staged.c.content_hash != new.c.content_hash, ~is_frozen(tables))
        query = select(new.c.invoice_id, *columns).where(differs).order_by(new.c.invoice_id).limit(self._limit)
        self._found = [Change(row[0], _money(*row[1:3]), _money(*row[3:5])) for row in connection.execute(query)]


def _money(amount: Any, currency: str | None) -> str:
    return "no amount" if amount is None else f"{canonical(Decimal(amount))} {currency or ''}".rstrip()
