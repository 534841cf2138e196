"""What was approved is what is sent: the invoices of a reconciled month with the hashes of their contents.

``sha256`` is that of three texts, as UTF-8 with a line feed between them: ``period`` and ``totals`` as they stand in
the close's row, and between them its rows of ``cloudbilling_close_invoice``: a JSON array, without blanks and in ASCII,
of ``[provider, account, kind, invoice_id, content_hash]``, sorted by their JSON texts. The same month in the same state
is the same close.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any, NamedTuple
from uuid import UUID, uuid5

from sqlalchemy import Connection, and_, func, insert, select, update

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.model import Period
from airflow_cloudbilling.reconcile.arithmetic import Head
from airflow_cloudbilling.staging.closes import Member, add_members, add_slices, stood_with
from airflow_cloudbilling.staging.dialects import dialect_of, moment_text
from airflow_cloudbilling.staging.frozen import FROZEN_STATES, is_frozen
from airflow_cloudbilling.staging.ledger import totals_json
from airflow_cloudbilling.staging.loader import Staging
from airflow_cloudbilling.staging.reading import same_invoice
from airflow_cloudbilling.staging.tables import Tables
from airflow_cloudbilling.staging.uploads import UNDECIDED

OPEN, APPROVED, REJECTED = "open", "approved", "rejected"
RETURNED = ("rejected", "failed", "released")  # of an item: its invoice may go again
_NAMESPACE = UUID("6f0d35c5-3f0a-5d0c-9a57-5a4b3f1c7e21")

Totals = Mapping[str, Mapping[str, "str | None"]]


class Close(NamedTuple):
    """A row of ``cloudbilling_close``.

    :param approved_by: the person who decided, whatever it was.
    """

    close_id: str
    period: str
    totals: str
    sha256: str
    status: str
    approved_by: str | None
    approved_at: Any


class Reconciled(NamedTuple):
    """What a close is made of.

    :param slices: what was looked at.
    :param totals: by currency, as JSON.
    :param sha256: see above.
    :param read_at: when, by the database; what was posted by then is known.
    """

    period: str
    members: Sequence[Member]
    slices: Collection[tuple[str, str, str]]
    totals: str
    sha256: str
    read_at: str


def member(head: Head) -> Member:
    """Return an invoice as it stands in a close."""
    return head.provider, head.account, head.kind, head.invoice_id, head.content_hash


def reconciled(
    period: Period, members: Sequence[Member], slices: Collection[tuple[str, str, str]], totals: Totals, read_at: str
) -> Reconciled:
    """Return what a close is made of; of many invoices that takes a while, in which nothing is locked."""
    sums = totals_json(totals)
    return Reconciled(str(period), members, slices, sums, _digest(str(period), members, sums), read_at)


def write(connection: Connection, tables: Tables, found: Reconciled) -> Close:
    """Write a close, unless it is there; in the caller's transaction.

    One that is there knows from now on what was posted since it was reconciled, other than by its own uploads; who
    approved it did not, and is asked again.
    """
    close, close_id = tables.close, str(uuid5(_NAMESPACE, found.sha256))
    now = dialect_of(connection.dialect.name).now(connection)
    values: dict[str, str | None] = {"reconciled_at": now}
    if known := _read(connection, tables, close_id):
        if _posted_since(connection, tables, close_id):
            values["created_at"] = found.read_at
            values |= {"status": OPEN, "approved_by": None, "approved_at": None} if known.status == APPROVED else {}
        connection.execute(update(close).where(close.c.close_id == close_id).values(values))
    else:
        row = {name: getattr(found, name) for name in ("period", "totals", "sha256")} | values
        connection.execute(insert(close), [{**row, "close_id": close_id, "status": OPEN, "created_at": found.read_at}])
        add_members(connection, tables, close_id, found.members)
    add_slices(connection, tables, close_id, found.slices)
    return _there(_read(connection, tables, close_id), close_id)


def _digest(period: str, members: Iterable[Member], sums: str) -> str:
    digest = sha256(f"{period}\n[".encode())
    for number, text in enumerate(sorted(json.dumps(one, separators=(",", ":")) for one in members)):
        digest.update(f"{',' * bool(number)}{text}".encode())
    digest.update(f"]\n{sums}".encode())
    return digest.hexdigest()


def _posted_since(connection: Connection, tables: Tables, close_id: str) -> bool:
    """Whether some of a close's invoices were posted after it was reconciled, other than by its own uploads.

    Once it was sent, only those count that Sage rejected or a person released: nothing else of it may be sent. While an
    upload is under way it has to find its close as it was approved.
    """
    sent = uploads_of(connection, tables, close_id)
    if sent and uploads_of(connection, tables, close_id, UNDECIDED):
        return False
    invoice, own, close = tables.invoice, tables.close_invoice, tables.close
    member = and_(own.c.close_id == close_id, same_invoice(own, invoice), own.c.content_hash == invoice.c.content_hash)
    since = and_(close.c.close_id == close_id, invoice.c.posted_at >= close.c.created_at)
    posted = select(invoice.c.invoice_id).where(member, since, ~stood_with(tables, close_id, FROZEN_STATES))
    if sent:
        posted = posted.where(stood_with(tables, close_id, RETURNED))
    return connection.execute(posted.limit(1)).first() is not None


def last_reconciled(connection: Connection, tables: Tables, period: Period) -> str:
    """Return when a period was last reconciled: whoever reads it twice knows whether somebody did in between."""
    close = tables.close
    query = select(func.max(close.c.reconciled_at)).where(close.c.period == str(period))
    found = connection.scalar(query)
    return "" if found is None else moment_text(found)


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
        before = _there(_read(connection, tables, close_id, alone=True), close_id)
        if before.status == status:
            return before
        if status == REJECTED and (sent := uploads_of(connection, tables, close_id)):
            raise ConfigurationError(f"close {close_id!r} went with upload {sent[0]} already.", field="close_id")
        at = dialect.now(connection) if status == APPROVED else None
        values = {"status": status, "approved_by": by, "approved_at": at}
        connection.execute(update(tables.close).where(tables.close.c.close_id == close_id).values(values))
        return _there(_read(connection, tables, close_id), close_id)


def _read(connection: Connection, tables: Tables, close_id: str, *, alone: bool = False) -> Close | None:
    """Return a close, if there is one.

    :param alone: let nobody make an upload of it before the transaction ends.
    """
    close = tables.close
    query = select(*(close.c[name] for name in Close._fields)).where(close.c.close_id == close_id)
    row = connection.execute(query.with_for_update() if alone else query).first()
    return Close(*row) if row else None


def _there(close: Close | None, close_id: str) -> Close:
    if close is None:
        message = f"there is no close {close_id!r}; reconcile the period first."
        raise ConfigurationError(message, field="close_id")
    return close
