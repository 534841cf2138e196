"""What was approved is what is sent: the invoices of a reconciled month with the hashes of their contents.

``sha256`` is that of the row's own three columns, ``period``, ``invoices`` and ``totals``, as UTF-8 with a line feed
between them. ``invoices`` is a JSON array, without blanks and in ASCII, of ``[provider, account, kind, invoice_id,
content_hash]``, sorted by their JSON texts; ``totals`` is by currency. The same month in the same state is the same
close.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from hashlib import sha256
from typing import Any, NamedTuple
from uuid import UUID, uuid5

from sqlalchemy import Connection, and_, insert, select, update

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.model import Period
from airflow_cloudbilling.reconcile.arithmetic import Head
from airflow_cloudbilling.staging.dialects import dialect_of
from airflow_cloudbilling.staging.frozen import FROZEN_STATES, is_frozen
from airflow_cloudbilling.staging.ledger import totals_json
from airflow_cloudbilling.staging.loader import Staging
from airflow_cloudbilling.staging.tables import Tables

OPEN, APPROVED, REJECTED = "open", "approved", "rejected"
_NAMESPACE = UUID("6f0d35c5-3f0a-5d0c-9a57-5a4b3f1c7e21")

Totals = Mapping[str, Mapping[str, "str | None"]]


class Close(NamedTuple):
    """A row of ``cloudbilling_close``, without its invoices.

    :param approved_by: the person who decided, whatever it was.
    """

    close_id: str
    period: str
    totals: str
    sha256: str
    status: str
    approved_by: str | None
    approved_at: Any


def member(head: Head) -> str:
    """Return an invoice as it stands in a close."""
    key = (head.provider, head.account, head.kind, head.invoice_id, head.content_hash)
    return json.dumps(key, separators=(",", ":"))


def write(connection: Connection, tables: Tables, period: Period, members: Iterable[str], totals: Totals) -> Close:
    """Write a close, unless it is there; in the caller's transaction.

    One that is there, and not sent, knows from now on what was posted since it was reconciled; who approved it did not,
    and is asked again.
    """
    ordered = sorted(members)
    invoices, sums = f"[{','.join(ordered)}]", totals_json(totals)
    digest = sha256(f"{period}\n{invoices}\n{sums}".encode()).hexdigest()
    close_id = str(uuid5(_NAMESPACE, digest))
    now = dialect_of(connection.dialect.name).now(connection)
    if found := _read(connection, tables, close_id):
        if uploads_of(connection, tables, close_id) or not _posted_since(connection, tables, found, set(ordered)):
            return found
        seen: dict[str, str | None] = {"created_at": now}
        if found.status == APPROVED:
            seen |= {"status": OPEN, "approved_by": None, "approved_at": None}
        connection.execute(update(tables.close).where(tables.close.c.close_id == close_id).values(seen))
        return _there(_read(connection, tables, close_id), close_id)
    row = {"close_id": close_id, "period": str(period), "totals": sums, "sha256": digest, "status": OPEN}
    connection.execute(insert(tables.close), [{**row, "invoices": invoices, "created_at": now}])
    return Close(**row, approved_by=None, approved_at=None)


def _posted_since(connection: Connection, tables: Tables, close: Close, members: Collection[str]) -> bool:
    """Whether some of a close's invoices were posted after it was reconciled."""
    invoice, slices = tables.invoice, tables.slice_invoice
    names = ("provider", "account", "kind", "invoice_id")
    here = and_(*(slices.c[n] == invoice.c[n] for n in names), slices.c.period == close.period)
    reconciled = select(tables.close.c.created_at).where(tables.close.c.close_id == close.close_id).scalar_subquery()
    columns = [invoice.c[n] for n in (*names, "content_hash")]
    posted = select(*columns).select_from(invoice.join(slices, here)).where(invoice.c.posted_at >= reconciled)
    rows = connection.execute(posted).all()
    return any(json.dumps(tuple(row), separators=(",", ":")) in members for row in rows)


def read(staging: Staging, close_id: str) -> Close:
    """Return a close.

    :raises ConfigurationError: when there is none of this id.
    """
    with staging.engine.connect() as connection:
        return _there(_read(connection, staging.tables, close_id), close_id)


def uploads_of(
    connection: Connection, tables: Tables, close_id: str, states: Collection[str] = FROZEN_STATES
) -> list[str]:
    """Return the uploads that a close is on its way in, or was sent with."""
    upload = tables.upload
    own = select(upload.c.upload_id).where(upload.c.close_id == close_id, upload.c.status.in_(states))
    return list(connection.scalars(own))


def unsent(staging: Staging, uploads: Collection[str]) -> bool:
    """Whether invoices that stood in these uploads may go again: rejected by Sage, or released."""
    tables = staging.tables
    invoice, item = tables.invoice, tables.upload_item.alias()  # is_frozen looks at items by itself
    same = and_(*(item.c[n] == invoice.c[n] for n in ("provider", "account", "kind", "invoice_id")))
    own = select(item.c.invoice_id).select_from(invoice.join(item, same)).where(item.c.upload_id.in_([*uploads]))
    with staging.engine.connect() as connection:
        return connection.execute(own.where(~is_frozen(tables)).limit(1)).first() is not None


def decide(staging: Staging, close_id: str, status: str, by: str) -> Close:
    """Write a person's decision; one that is made stays with who made it first.

    :param status: ``approved``, or ``rejected``: then nothing of it may be sent, even if it was approved before.
    :raises ConfigurationError: when there is no such close, nobody is named, or what is rejected was sent.
    """
    if not by.strip():
        raise ConfigurationError("is empty; say who decides.", field="by")
    tables, dialect = staging.tables, dialect_of(staging.engine.dialect.name)
    with staging.engine.connect() as connection, dialect.locked(connection, f"close/{close_id}"):
        before = _there(_read(connection, tables, close_id), close_id)
        if before.status == status:
            return before
        if status == REJECTED and (sent := uploads_of(connection, tables, close_id)):
            raise ConfigurationError(f"close {close_id!r} went with upload {sent[0]} already.", field="close_id")
        at = dialect.now(connection) if status == APPROVED else None
        values = {"status": status, "approved_by": by, "approved_at": at}
        connection.execute(update(tables.close).where(tables.close.c.close_id == close_id).values(values))
        return _there(_read(connection, tables, close_id), close_id)


def _read(connection: Connection, tables: Tables, close_id: str) -> Close | None:
    close = tables.close
    columns = [close.c[name] for name in Close._fields]
    row = connection.execute(select(*columns).where(close.c.close_id == close_id)).first()
    return Close(*row) if row else None


def _there(close: Close | None, close_id: str) -> Close:
    if close is None:
        message = f"there is no close {close_id!r}; reconcile the period first."
        raise ConfigurationError(message, field="close_id")
    return close


def members(connection: Connection, tables: Tables, close_id: str) -> list[list[str]]:
    """Return the invoices of a close: key and content hash of each."""
    text = connection.scalar(select(tables.close.c.invoices).where(tables.close.c.close_id == close_id))
    found: list[list[str]] = json.loads(text or "[]")
    return found
