"""SQL that contenders share: marks for values, and an upsert that leaves equal rows alone."""

from __future__ import annotations

from collections.abc import Sequence

MARKS = {"sqlite": "?", "postgres": "%s", "mysql": "%s"}


def insert(kind: str, table: str, columns: Sequence[str]) -> str:
    """Return an INSERT with one mark a column."""
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join([MARKS[kind]] * len(columns))})"


def upsert_from(source: str, table: str, key: Sequence[str], others: Sequence[str]) -> str:
    """Return PostgreSQL's upsert of another table's rows; equal rows are not written."""
    values = ", ".join(f"{name} = excluded.{name}" for name in others)
    staged, new = (", ".join(f"{of}.{name}" for name in others) for of in (table, "excluded"))
    return (
        f"INSERT INTO {table} SELECT * FROM {source} "
        f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {values} WHERE ({staged}) IS DISTINCT FROM ({new})"
    )


def upsert(kind: str, table: str, key: Sequence[str], others: Sequence[str]) -> str:
    """Return the upsert of one row for SQLite or MariaDB; equal rows are not written."""
    start = insert(kind, table, [*key, *others])
    if kind == "mysql":
        return f"{start} ON DUPLICATE KEY UPDATE {', '.join(f'{name} = VALUES({name})' for name in others)}"
    values = ", ".join(f"{name} = excluded.{name}" for name in others)
    staged, new = (", ".join(f"{of}.{name}" for name in others) for of in (table, "excluded"))
    return f"{start} ON CONFLICT ({', '.join(key)}) DO UPDATE SET {values} WHERE ({staged}) IS NOT ({new})"
