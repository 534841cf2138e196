"""Temporary tables: how they are made, how rows get there in batches, and from there into the staging tables.

Temporary rows lock nothing, and vanish with the process.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import Any

from sqlalchemy import Column, Connection, MetaData, Select, Table, insert, literal
from sqlalchemy.sql.elements import ColumnElement

from airflow_cloudbilling.staging.dialects import dialect_of
from airflow_cloudbilling.staging.rows import ROW, Row, row_of

BATCH_ROWS = 2000
BATCH_BYTES = 1_000_000  # escaped twice still less than a packet of the strictest server


def temporary(name: str, metadata: MetaData, *columns: Column[Any]) -> Table:
    """Return a temporary table that takes every character, whatever the database's own character set is."""
    return Table(f"cloudbilling_{name}", metadata, *columns, prefixes=["TEMPORARY"], mysql_charset="utf8mb4")


def columns_like(table: Table, *without: str) -> list[Column[Any]]:
    """Return the columns of a staging table, without the slice's and some others."""
    dropped = {"provider", "account", "kind", *without}
    return [Column(column.name, column.type) for column in table.columns if column.name not in dropped]


class Sender:
    """Sends blocks of rows, one at a time, and lets the database work on the last while the next ones are read.

    :param connection: is used by nobody else but through :attr:`connection`.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._dialect = dialect_of(connection.dialect.name)
        self._sending = ExitStack()
        self._sent = True

    @property
    def connection(self) -> Connection:
        """Return the connection, when the database has taken in what was sent last."""
        self.settle()
        return self._connection

    def settle(self) -> None:
        """Wait for what is being sent."""
        if not self._sent:
            self._sent = True
            self._sending.close()
            self._connection.commit()

    def send(self, table: str, names: tuple[str, ...], block: bytes) -> None:
        """Send a block of rows in a transaction of its own."""
        inserting = self._dialect.inserting(self.connection, table, names, block)
        self._sending.enter_context(inserting)
        self._sent = False

    def close(self) -> None:
        """End a load that failed; what was sent last does not matter any more, nor how it ends."""
        with suppress(Exception):
            self._sending.close()


class Batch:
    """Rows of one temporary table that are not sent yet.

    :param names: of the columns that the rows have.
    """

    def __init__(self, sender: Sender, table: Table, names: tuple[str, ...]) -> None:
        self._sender = sender
        self._table = table.name
        self._names = names
        self._rows: list[bytes] = []
        self._bytes = 0

    def add(self, row: bytes | Row) -> bool:
        """Take in a row as bytes or as values; return whether it is time to send."""
        if not isinstance(row, bytes):
            row = row_of(row)
        self._rows.append(row)
        self._bytes += len(row)
        return len(self._rows) >= BATCH_ROWS or self._bytes >= BATCH_BYTES

    def flush(self) -> None:
        """Send what is there."""
        if self._rows:
            rows, self._rows, self._bytes = self._rows, [], 0
            self.send(ROW.join(rows))

    def send(self, block: bytes) -> None:
        """Send a block of rows."""
        self._sender.send(self._table, self._names, block)


def copy_rows(
    connection: Connection, target: Table, rows: Table, values: Mapping[str, Any], query: Select[Any]
) -> None:
    """Insert what a query over a temporary table finds.

    :param values: of the target's columns that are not the temporary table's own: constants or SQL expressions.
    """
    columns = {c.name: _value(values[c.name], c.type) if c.name in values else rows.c[c.name] for c in target.columns}
    chosen = query.with_only_columns(*(column.label(name) for name, column in columns.items()))
    connection.execute(insert(target).from_select(list(columns), chosen))


def _value(value: Any, type_: Any) -> Any:
    return value if isinstance(value, ColumnElement) else literal(value, type_)
