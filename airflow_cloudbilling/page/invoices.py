"""Invoices of a slice, a page at a time by their keys; one invoice with its lines; and what a search finds."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Text, and_, column, func, or_, select, tuple_

from airflow_cloudbilling.model import Period, Slice
from airflow_cloudbilling.page.states import is_open
from airflow_cloudbilling.staging.ledger import of_slice
from airflow_cloudbilling.staging.posting import InvoiceKey
from airflow_cloudbilling.staging.reading import KEY, Row, of_table, plain, same_invoice
from airflow_cloudbilling.staging.search import COLUMN, SEARCHED, has_own_text, search_index
from airflow_cloudbilling.staging.tables import Tables

PAGE = 50  # invoices on a page
_MATCHING = 10_000_000  # more than there are
LINES = 100  # lines of an invoice on a page
HEAD = (
    *KEY, "invoice_number", "document_type", "issue_date", "due_date", "currency", "seller_name", "buyer_id",
    "buyer_name", "net_amount", "tax_amount", "gross_amount", "status", "line_count", "slice_period", "posted_at",
    "posted_reference",
)  # fmt: skip
LINE = (
    "line_number", "item_code", "description", "quantity", "unit", "unit_price", "discount", "net_amount", "tax_rate",
    "tax_amount", "period_start", "period_end", "subscription_id", "subscription_name", "customer_id",
    "customer_name", "charge_type", "match_key",
)  # fmt: skip


class Listed(NamedTuple):
    """Some rows, and the key from which on there are more; None at the end."""

    rows: list[Row]
    more: str | None = None


def listed(
    connection: Connection, tables: Tables, slice_: Slice, after: str = "", only: str = "", most: int = PAGE
) -> Listed:
    """Return invoices of a slice in the order of their ids.

    :param after: the id that they come after.
    :param only: ``findings`` for those that have open ones.
    """
    slices, invoice = tables.slice_invoice, tables.invoice
    where = [of_slice(slices, slice_), slices.c.invoice_id > after]
    if only == "findings":
        finding = tables.finding
        where.append(
            slices.c.invoice_id.in_(select(finding.c.invoice_id).where(of_slice(finding, slice_), is_open(finding)))
        )
    query = select(*(invoice.c[name] for name in HEAD)).select_from(slices.join(invoice, same_invoice(slices, invoice)))
    query = query.where(*where).order_by(slices.c.invoice_id).limit(most + 1)
    rows = [of_table(invoice, dict(row)) for row in connection.execute(query).mappings()]
    more = rows[most - 1]["invoice_id"] if len(rows) > most else None
    return Listed(_marked(connection, tables, rows[:most]), more)


def every(connection: Connection, tables: Tables, slice_: Slice) -> Iterator[Row]:
    """Yield all invoices of a slice, as they are read."""
    after: str | None = ""
    while after is not None:
        page = listed(connection, tables, slice_, after, most=1000)
        yield from page.rows
        after = page.more


def lines_of(connection: Connection, tables: Tables, key: InvoiceKey, after: int = 0, most: int = LINES) -> Listed:
    """Return lines of an invoice in their order, those after a number."""
    line = tables.invoice_line
    own = and_(*(line.c[name] == value for name, value in key._asdict().items()), line.c.line_number > after)
    query = select(*(line.c[name] for name in LINE)).where(own).order_by(line.c.line_number).limit(most + 1)
    rows = [of_table(line, dict(row)) for row in connection.execute(query).mappings()]
    return Listed(rows[:most], str(rows[most - 1]["line_number"]) if len(rows) > most else None)


def taxes_of(connection: Connection, tables: Tables, key: InvoiceKey) -> list[Row]:
    """Return the VAT breakdown of an invoice."""
    tax = tables.invoice_tax
    own = and_(*(tax.c[name] == value for name, value in key._asdict().items()))
    found = connection.execute(select(tax).where(own).order_by(tax.c.tax_number)).mappings()
    return [of_table(tax, dict(row)) for row in found]


def slices_with(connection: Connection, tables: Tables, key: InvoiceKey) -> list[Slice]:
    """Return the slices that have an invoice."""
    slices = tables.slice_invoice
    own = and_(*(slices.c[name] == value for name, value in key._asdict().items()))
    periods = connection.scalars(select(slices.c.period).where(own).order_by(slices.c.period))
    return [Slice(*key[:3], Period.parse(one)) for one in periods]


def search(
    connection: Connection, tables: Tables, text: str, slices: Collection[Slice], after: Sequence[str] = ()
) -> Listed:
    """Return invoices by their number, their vendor's id, or their customer's name or id.

    :param text: what one of them contains, whatever the case of its letters.
    :param slices: those that may be shown.
    :param after: key of the invoice that they come after.
    """
    allowed = {(*one[:3], str(one.period)) for one in slices}
    found: list[Row] = []
    while True:
        page = _heads(connection, tables, _keys_with(connection, tables, text, after))
        found += (row for row in page if (*(row[n] for n in KEY[:3]), row["slice_period"]) in allowed)
        if len(page) <= PAGE or len(found) > PAGE:
            break
        after = [page[-1][name] for name in KEY]
    more = json.dumps([found[PAGE - 1][name] for name in KEY]) if len(found) > PAGE else None
    return Listed(_marked(connection, tables, found[:PAGE]), more)


def _keys_with(connection: Connection, tables: Tables, text: str, after: Sequence[str]) -> list[tuple[str, ...]]:
    """Return keys of invoices that a text is in, in their order: as many as a page has, and one."""
    invoice, name = tables.invoice, connection.dialect.name
    by: list[Any] = [invoice.c[one] for one in KEY]
    query = select(*by)
    if has_own_text(name):
        # With the order in the same statement MariaDB leaves the index for the rows, and the limit keeps it apart.
        index = f"FORCE INDEX ({search_index(tables)})"
        query = query.with_hint(invoice, index, name).where(column(COLUMN, Text()).contains(text, autoescape=True))
    else:
        query = query.where(or_(*(_contains(invoice.c[one], text, name) for one in SEARCHED)))
    if after:
        query = query.where(tuple_(*by) > tuple_(*after))
    if has_own_text(name):
        matching = query.limit(_MATCHING).subquery()
        by = [matching.c[one] for one in KEY]
        query = select(*by)
    return [tuple(row) for row in connection.execute(query.order_by(*by).limit(PAGE + 1))]


def _heads(connection: Connection, tables: Tables, keys: Sequence[tuple[str, ...]]) -> list[Row]:
    """Return invoices in the order of their keys."""
    if not keys:
        return []
    invoice = tables.invoice
    query = select(*(invoice.c[name] for name in HEAD)).where(_of(invoice, keys))
    rows = [of_table(invoice, dict(row)) for row in connection.execute(query).mappings()]
    by_key = {tuple(row[name] for name in KEY): row for row in rows}
    return [by_key[key] for key in keys if key in by_key]


def _contains(within: Any, text: str, dialect_name: str) -> ColumnElement[bool]:
    """Return the condition that a column contains a text, whatever the case of its letters; so does SQLite's LIKE."""
    if dialect_name != "sqlite":
        within, text = func.lower(within), text.lower()
    found: ColumnElement[bool] = within.contains(text, autoescape=True)
    return found


def _marked(connection: Connection, tables: Tables, rows: list[Row]) -> list[Row]:
    """Return invoices with what became of them: ``sent``, the last file that each went in, and open ``findings``."""
    if not rows:
        return rows
    finding, item, upload = tables.finding, tables.upload_item, tables.upload
    keys = [tuple(row[name] for name in KEY) for row in rows]
    own = [finding.c[name] for name in KEY]
    counted = select(*own, func.count()).where(_of(finding, keys), is_open(finding)).group_by(*own)
    findings = {tuple(row[:4]): row[4] for row in connection.execute(counted)}
    files = select(*(item.c[name] for name in KEY), item.c.status, item.c.upload_id, item.c.message)
    files = (
        files.join(upload, upload.c.upload_id == item.c.upload_id).where(_of(item, keys)).order_by(upload.c.created_at)
    )
    sent = {
        tuple(row[:4]): {"status": row[4], "upload_id": row[5], "message": row[6]} for row in connection.execute(files)
    }
    return [
        {**row, "findings": findings.get(key, 0), "sent": sent.get(key), "posted_at": plain(row["posted_at"])}
        for key, row in zip(keys, rows, strict=True)
    ]


def _of(table: Any, keys: Sequence[tuple[str, ...]]) -> ColumnElement[bool]:
    """Return the condition that a row is about one of some invoices; every database looks them up by account."""
    accounts: dict[tuple[str, ...], list[str]] = {}
    for *account, invoice_id in keys:
        accounts.setdefault(tuple(account), []).append(invoice_id)
    return or_(
        *(
            and_(*(table.c[n] == v for n, v in zip(KEY[:3], account, strict=True)), table.c.invoice_id.in_(ids))
            for account, ids in accounts.items()
        )
    )
