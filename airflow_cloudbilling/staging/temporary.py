"""Temporary tables: how they are made, how rows get there in batches, and from there into the staging tables.

Temporary rows lock nothing, and vanish with the process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Column, Connection, MetaData, Select, Table, insert, literal
from sqlalchemy.sql.elements import ColumnElement

from airflow_cloudbilling.staging.dialects import dialect_of
from airflow_cloudbilling.staging.rows import Row

BATCH_ROWS = 2000
BATCH_CHARACTERS = 1_000_000  # of verbatim text; at four bytes each still less than a packet of the strictest server


def temporary(name: str, metadata: MetaData, *columns: Column[Any]) -> Table:
    """Return a temporary table that takes every character, whatever the database's own character set is."""
    return Table(f"cloudbilling_{name}", metadata, *columns, prefixes=["TEMPORARY"], mysql_charset="utf8mb4")


def columns_like(table: Table, *without: str) -> list[Column[Any]]:
    """Return the columns of a staging table, without the slice's and some others."""
    dropped = {"provider", "account", "kind", *without}
    return [Column(column.name, column.type) for column in table.columns if column.name not in dropped]


class Batch:
    """Rows of one temporary table that are not sent yet.

    :param names: of the columns that the rows have.
    """

    def __init__(self, connection: Connection, table: Table, names: tuple[str, ...]) -> None:
        self._connection = connection
        self._insert = dialect_of(connection.dialect.name).insert
        self._table = table.name
        self._names = names
        self._rows: list[Row] = []
        self._characters = 0  # of verbatim text

    def add(self, row: Row, raw: str | None = None) -> bool:
        """Take in a row with its verbatim text, if it has one; return whether it is time to send."""
        self._rows.append(row)
        if raw:
            self._characters += len(raw)
        return len(self._rows) >= BATCH_ROWS or self._characters >= BATCH_CHARACTERS

    def take(self) -> list[Row]:
        """Return the rows and forget them."""
        rows, self._rows, self._characters = self._rows, [], 0
        return rows

    def send(self, rows: list[Row]) -> None:
        """Send rows in a transaction of their own."""
        if rows:
            self._insert(self._connection, self._table, self._names, rows)
            self._connection.commit()

    def flush(self) -> None:
        """Send what is there."""
        self.send(self.take())


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
