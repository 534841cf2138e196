"""The closes of months as rows: which invoices a set has, what was looked at, and what a person has approved."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, column, delete, exists, inspect, or_, select, table

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.staging.dialects import dialect_of
from airflow_cloudbilling.staging.reading import KEY, TAKEN_BACK, is_approved, same_invoice
from airflow_cloudbilling.staging.rows import ROW, row_of
from airflow_cloudbilling.staging.tables import Tables

_BLOCK = 1000  # rows sent at once
_SLICE = KEY[:3]

Member = tuple[str, str, str, str, str]  # provider, account, kind, invoice_id, content_hash


def add_members(connection: Connection, tables: Tables, close_id: str, members: Iterable[Member]) -> None:
    """Write the invoices of a close, in the caller's transaction."""
    target, dialect = tables.close_invoice, dialect_of(connection.dialect.name)
    name = connection.dialect.identifier_preparer.format_table(target)
    rows = (row_of((close_id, *member)) for member in members)
    while block := list(islice(rows, _BLOCK)):
        dialect.insert(connection, name, ("close_id", *KEY, "content_hash"), ROW.join(block))


def members_of(connection: Connection, tables: Tables, close_id: str) -> list[Member]:
    """Return the invoices of a close, those of an account and kind together."""
    member = tables.close_invoice
    columns = [member.c[name] for name in (*KEY, "content_hash")]
    query = select(*columns).where(member.c.close_id == close_id).order_by(*columns[:-1])
    return [(row[0], row[1], row[2], row[3], row[4]) for row in connection.execute(query)]


def add_slices(connection: Connection, tables: Tables, close_id: str, slices: Iterable[tuple[str, str, str]]) -> None:
    """Write what was looked at for a close, besides what is known of it."""
    own, new = tables.close_slice, set(slices)
    new -= {(row[0], row[1], row[2]) for row in slices_of(connection, tables, close_id)}
    if new:
        rows = [{"close_id": close_id, **dict(zip(_SLICE, key, strict=True))} for key in sorted(new)]
        connection.execute(own.insert(), rows)


def slices_of(connection: Connection, tables: Tables, close_id: str) -> Iterator[tuple[str, str, str]]:
    """Yield what was looked at for a close: provider, account and kind of each slice."""
    own = tables.close_slice
    query = select(*(own.c[name] for name in _SLICE)).where(own.c.close_id == close_id)
    yield from ((row[0], row[1], row[2]) for row in connection.execute(query).all())


def check_approved(connection: Connection, tables: Tables, close_id: str, *, hold: bool = False) -> Any:
    """Return when a close was made which a person has approved.

    :param hold: let nobody take that back until the transaction ends.
    :raises ConfigurationError: when there is none of this id, nobody has approved it, or somebody has taken it back.
    """
    close = tables.close
    chosen = select(close.c.status, close.c.approved_at, close.c.created_at).where(close.c.close_id == close_id)
    row = connection.execute(chosen.with_for_update() if hold else chosen).first()
    if row is None:
        raise ConfigurationError(f"there is no close {close_id!r}; reconcile the period first.", field="close_id")
    status = (row.status or "").lower()
    if status in TAKEN_BACK:
        raise ConfigurationError(f"close {close_id!r} is {row.status}; nothing of it is sent.", field="close_id")
    if row.approved_at is None and status != "approved":
        message = f"close {close_id!r} is {row.status or 'open'}, nobody has approved it yet; nothing of it is sent."
        raise ConfigurationError(message, field="close_id")
    return row.created_at


def in_approved_close(tables: Tables) -> ColumnElement[bool]:
    """Return the condition that a row of ``cloudbilling_invoice`` is as a person has approved it.

    Usage reports are in no close; they go with the slice that was looked at.
    """
    invoice, close, member, own = tables.invoice, tables.close, tables.close_invoice, tables.close_slice
    same_slice = and_(*(own.c[name] == invoice.c[name] for name in _SLICE), close.c.period == invoice.c.slice_period)
    return or_(
        exists().where(
            same_invoice(member, invoice),
            member.c.content_hash == invoice.c.content_hash,
            close.c.close_id == member.c.close_id,
            is_approved(close),
        ),
        and_(
            invoice.c.kind == "usage",
            exists().where(same_slice, close.c.close_id == own.c.close_id, is_approved(close)),
        ),
    )


def stood_with(tables: Tables, close_id: str, states: Collection[str]) -> ColumnElement[bool]:
    """Return the condition that a row of ``cloudbilling_invoice`` stands in an upload of a close.

    :param states: of its item there.
    """
    item, upload = tables.upload_item.alias("of_close"), tables.upload  # whoever asks may read items too
    own = and_(upload.c.close_id == close_id, item.c.upload_id == upload.c.upload_id, item.c.status.in_(states))
    return exists().where(own, same_invoice(item, tables.invoice))


def carry_over(connection: Connection, tables: Tables) -> None:
    """Make rows of what closes were until version 6: one JSON text of ``[*key, content_hash]``; may be repeated."""
    close = tables.close
    if "invoices" not in {one["name"] for one in inspect(connection).get_columns(close.name, schema=close.schema)}:
        return
    texts = table(close.name, column("close_id"), column("invoices"), schema=close.schema)
    for close_id in connection.scalars(select(close.c.close_id)).all():
        text = connection.scalar(select(texts.c.invoices).where(texts.c.close_id == close_id))
        members = [(one[0], one[1], one[2], one[3], one[4]) for one in json.loads(text or "[]")]
        connection.execute(delete(tables.close_invoice).where(tables.close_invoice.c.close_id == close_id))
        add_members(connection, tables, close_id, members)
        add_slices(connection, tables, close_id, _looked_at(connection, tables, close_id, members))
    name = connection.dialect.identifier_preparer.format_table(close)
    connection.exec_driver_sql(f"ALTER TABLE {name} DROP COLUMN invoices")


def _looked_at(
    connection: Connection, tables: Tables, close_id: str, members: Iterable[Member]
) -> Iterator[tuple[str, str, str]]:
    """Yield the slices of a close that did not say so: of the vendors in it, all that were loaded by then."""
    load, close = tables.load, tables.close
    loaded = and_(load.c.status == "committed", load.c.period == close.c.period, load.c.ended_at <= close.c.created_at)
    query = select(*(load.c[name] for name in _SLICE)).where(close.c.close_id == close_id, loaded).distinct()
    providers = {member[0] for member in members}
    for provider, account, kind in connection.execute(query).all():
        if provider in providers:
            yield provider, account, kind
