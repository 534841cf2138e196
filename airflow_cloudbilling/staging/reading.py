"""Reading what is staged as of one moment, row after row, in the form that is the same on every database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Table, and_, func, select

from airflow_cloudbilling.exact import canonical
from airflow_cloudbilling.staging.columns import AMOUNT
from airflow_cloudbilling.staging.dialects import moment_text

Row = dict[str, Any]
KEY = ("provider", "account", "kind", "invoice_id")
TAKEN_BACK = ("rejected", "refused", "superseded", "withdrawn", "cancelled")  # an approval that is none
_ROWS = 2_000  # fetched at once


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """Read as of one moment, whatever is committed meanwhile."""
    with engine.connect() as connection:
        if engine.dialect.name != "sqlite":  # which has no other way to read
            connection.execution_options(isolation_level="REPEATABLE READ")
        yield connection


def let_the_database_learn(engine: Engine, *tables: Table) -> None:
    """Let PostgreSQL count tables that it has never counted: it takes them for empty and walks them for each page."""
    if engine.dialect.name != "postgresql":
        return
    known = "SELECT 1 FROM pg_stats WHERE tablename = %s AND attname = 'invoice_id' LIMIT 1"
    with engine.begin() as connection:
        for table in tables:
            if connection.exec_driver_sql(known, (table.name,)).first() is None:
                connection.exec_driver_sql(f"ANALYZE {connection.dialect.identifier_preparer.format_table(table)}")


def stream(connection: Connection, query: Any) -> Iterator[Row]:
    """Yield rows as they are fetched: numbers with a fraction as ``Decimal`` in their one form, days as ISO text.

    On MySQL no other statement may run on the connection until the last one was read.

    :param query: a ``Select``; text columns that hold amounts (SQLite's) must be told by :func:`amounts`.
    """
    with closing(connection.execute(query, execution_options={"yield_per": _ROWS})) as rows:
        for row in rows.mappings():
            yield {name: plain(value) for name, value in row.items()}


def amounts(row: Row, names: tuple[str, ...]) -> Row:
    """Return the row with these columns as ``Decimal`` in their one form."""
    return {**row, **{name: exact(row[name]) for name in names}}


def of_table(table: Table, row: Row) -> Row:
    """Return a row of a table with its amounts as ``Decimal`` in their one form, and its days as ISO text."""
    return {name: exact(value) if table.c[name].type is AMOUNT else plain(value) for name, value in row.items()}


def exact(value: Any) -> Decimal | None:
    """Return an amount in its one form: SQLite has text, MySQL twelve decimals."""
    return None if value is None else Decimal(canonical(Decimal(value)))


def plain(value: Any) -> Any:
    """Return a day as ISO text, and a moment as UTC text; anything else as it is."""
    if isinstance(value, datetime):
        return moment_text(value)
    return value.isoformat() if isinstance(value, date) else value


def bytewise(column: Any, dialect_name: str) -> Any:
    """Return a key column as it sorts by byte on every database."""
    return column.collate("C") if dialect_name == "postgresql" else column


def same_invoice(one: Any, other: Any) -> ColumnElement[bool]:
    """Return the condition that two rows are of one invoice."""
    return and_(*(one.c[name] == other.c[name] for name in KEY))


def credited_number(invoice: Table) -> Any:
    """Return the number of the invoice that a row of ``cloudbilling_invoice`` names by its id, where vendors do.

    Whom it names by its number (BT-25), or what is not staged, needs no other word: NULL.
    """
    other = invoice.alias("adjusted")
    same = [other.c[name] == invoice.c[name] for name in KEY[:3]]
    same += [other.c.invoice_id == invoice.c.preceding_invoice, other.c.document_type != "credit_note"]
    return select(other.c.invoice_number).where(*same).scalar_subquery()


def is_approved(close: Table) -> ColumnElement[bool]:
    """Return the condition that a person has approved a row of ``cloudbilling_close`` and not taken it back."""
    return and_(close.c.approved_at.is_not(None), func.lower(close.c.status).not_in(TAKEN_BACK))
