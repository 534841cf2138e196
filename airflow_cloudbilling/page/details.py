"""What stands behind the figures: findings, a load with what it could not read, an upload with its records."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, and_, select, tuple_

from airflow_cloudbilling.page.invoices import Listed
from airflow_cloudbilling.page.states import Book, is_open
from airflow_cloudbilling.staging.reading import KEY, Row, of_table
from airflow_cloudbilling.staging.tables import Tables

PAGE = 50
WHICH = ("open", "accepted", "resolved")  # findings
_FINDING = ("severity", "rule", "finding_id")
_BEHIND = 100  # requests and rejects of a load that are shown


def findings(
    connection: Connection,
    tables: Tables,
    which: str,
    after: Sequence[str] = (),
    *,
    of: Mapping[str, str],
    seen: Collection[Book] | None = None,
    most: int = PAGE,
) -> Listed:
    """Return findings, errors first.

    :param which: one of ``WHICH``.
    :param after: severity, rule and id of the finding that they come after.
    :param of: ``period``, ``provider``, ``account``, ``kind``, ``rule`` that they must have.
    :param seen: accounts and kinds that may be shown; None: all.
    """
    finding = tables.finding
    where = [finding.c[name] == value for name, value in of.items()]
    where.append(_is(which, finding))
    if seen is not None:
        where.append(tuple_(*(finding.c[name] for name in KEY[:3])).in_(list(seen)))
    by = [finding.c[name] for name in _FINDING]
    if after:
        where.append(tuple_(*by) > tuple_(*after))
    query = select(finding).where(*where).order_by(*by).limit(most + 1)
    rows = _rows(connection, finding, query)
    more = json.dumps([rows[most - 1][name] for name in _FINDING]) if len(rows) > most else None
    return Listed(rows[:most], more)


def _is(which: str, finding: Table) -> ColumnElement[bool]:
    return {
        "open": is_open(finding),
        "accepted": and_(finding.c.accepted_at.is_not(None), finding.c.resolved_at.is_(None)),
        "resolved": finding.c.resolved_at.is_not(None),
    }[which]


def every_finding(
    connection: Connection, tables: Tables, which: str, of: Mapping[str, str], seen: Collection[Book] | None
) -> Iterator[Row]:
    """Yield what :func:`findings` returns page by page, as it is read."""
    after: Sequence[str] = ()
    while True:
        page = findings(connection, tables, which, after, of=of, seen=seen, most=1000)
        yield from page.rows
        if page.more is None:
            return
        after = json.loads(page.more)


def load_of(connection: Connection, tables: Tables, load_id: str) -> Row | None:
    """Return a load with its first requests and rejects; None when there is no such load."""
    own = _rows(connection, tables.load, select(tables.load).where(tables.load.c.load_id == load_id))
    if not own:
        return None
    behind = {}
    for name in ("request", "reject"):
        table = getattr(tables, name)
        query = select(table).where(table.c.load_id == load_id).order_by(table.c.sequence).limit(_BEHIND)
        behind[f"{name}s"] = _rows(connection, table, query)
    return {**own[0], **behind}


def upload_of(connection: Connection, tables: Tables, upload_id: str) -> Row | None:
    """Return an upload; None when there is no such one."""
    upload = tables.upload
    own = _rows(connection, upload, select(upload).where(upload.c.upload_id == upload_id))
    return own[0] if own else None


def items_of(
    connection: Connection, tables: Tables, upload_id: str, status: str = "", after: Sequence[str] = ()
) -> Listed:
    """Return the invoices in an upload, with what became of each.

    :param status: that they must have; empty: any.
    :param after: key of the invoice that they come after.
    """
    item = tables.upload_item
    by = [item.c[name] for name in KEY]
    where: list[ColumnElement[bool]] = [item.c.upload_id == upload_id]
    if status:
        where.append(item.c.status == status)
    if after:
        where.append(tuple_(*by) > tuple_(*after))
    rows = _rows(connection, item, select(item).where(*where).order_by(*by).limit(PAGE + 1))
    more = json.dumps([rows[PAGE - 1][name] for name in KEY]) if len(rows) > PAGE else None
    return Listed(rows[:PAGE], more)


def _rows(connection: Connection, table: Table, query: Any) -> list[Row]:
    return [of_table(table, dict(row)) for row in connection.execute(query).mappings()]
