"""Who loads: this package, the driver's plain ``executemany``, Airflow's ``insert_rows``, and on PostgreSQL COPY.

The others write into the same tables without hashes, ledger, slice memory or temporary tables. To be repeatable they
do what their users do: delete the month and insert it anew, or replace row by row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from importlib.util import find_spec
from itertools import islice
from typing import Any

from books import OCTOBER
from database import Bench
from hooks import hook_of
from peers.statements import MARKS, insert, upsert_from
from sqlalchemy import Table

from airflow_cloudbilling.model import Invoice, InvoiceLine
from airflow_cloudbilling.staging.loader import Staging
from airflow_cloudbilling.staging.tables import tables

Row = tuple[Any, ...]
Items = Callable[[], Iterable[InvoiceLine | Invoice]]
Work = Callable[[], None]

LIMIT = "COPY + upsert by hand"
COPIED = 2000  # rows joined to one text

STAGED = tables()
KEY = (OCTOBER.provider, OCTOBER.account, OCTOBER.kind)
PARTS = {InvoiceLine: STAGED.invoice_line, Invoice: STAGED.invoice}
OWN = {"line_count": 5, "slice_period": str(OCTOBER.period), "content_hash": "0" * 64, "load_id": "0" * 36}


def cloudbilling(bench: Bench, items: Items, again: bool) -> Work:
    """Return the work of this package's loader, from opening the load to its commit."""
    staging, found = Staging(bench.engine), items()

    def work() -> None:
        with staging.load(OCTOBER) as load:
            add = load.add
            for item in found:
                add(item)
            load.commit()

    return work


def executemany(bench: Bench, items: Items, again: bool) -> Work:
    """Return the work of the driver's own ``executemany``, in one transaction."""
    mark = MARKS[bench.kind]
    rows = {part: _rows(items, part) for part in PARTS}

    def work() -> None:
        with closing(bench.engine.raw_connection()) as connection, closing(connection.cursor()) as cursor:
            if bench.kind == "sqlite":
                cursor.execute("BEGIN")
            for part, table in PARTS.items():
                if again:
                    where = f"provider = {mark} AND account = {mark} AND kind = {mark}"
                    cursor.execute(f"DELETE FROM {table.name} WHERE {where}", KEY)
                cursor.executemany(insert(bench.kind, table.name, table.columns.keys()), rows[part])
            connection.commit()

    return work


def copy_and_upsert(bench: Bench, items: Items, again: bool) -> Work:
    """Return the work of COPY into a temporary table and one upsert from there: what the server itself allows."""
    rows = {part: _rows(items, part) for part in PARTS}

    def work() -> None:
        with closing(bench.engine.raw_connection()) as connection, closing(connection.cursor()) as cursor:
            for part, table in PARTS.items():
                cursor.execute(f"CREATE TEMPORARY TABLE new_rows (LIKE {table.name}) ON COMMIT DROP")
                with cursor.copy("COPY new_rows FROM STDIN") as copy:
                    source = iter(rows[part])
                    while block := list(islice(source, COPIED)):
                        copy.write("".join([_copied(row) for row in block]))
                cursor.execute(_upsert(table))
                connection.commit()

    return work


def _copied(row: Row) -> str:
    return "\t".join(["\\N" if value is None else str(value) for value in row]) + "\n"


def _upsert(table: Table) -> str:
    key, others = (
        [column.name for column in table.columns if column.primary_key is is_key] for is_key in (True, False)
    )
    return upsert_from("new_rows", table.name, key, others)


def insert_rows(bench: Bench, items: Items, again: bool) -> Work:
    """Return the work of the database's hook with ``insert_rows`` as it comes."""
    return _hook_work(bench, items, again)


def insert_rows_many(bench: Bench, items: Items, again: bool) -> Work:
    """Return the work of ``insert_rows(executemany=True)``, where the hook does not do so by itself."""
    return _hook_work(bench, items, again, executemany=True)


def _hook_work(bench: Bench, items: Items, again: bool, **options: bool) -> Work:
    hook = hook_of(bench.kind, bench.fields)
    rows = {part: _rows(items, part) for part in PARTS}

    def work() -> None:
        for part, table in PARTS.items():
            own: dict[str, Any] = dict(options)
            if again:
                own["replace"] = True
                if bench.kind == "postgres":
                    own["replace_index"] = [column.name for column in table.primary_key]
            hook.insert_rows(table.name, rows[part], table.columns.keys(), **own)

    return work


CONTENDERS: dict[str, Callable[[Bench, Items, bool], Work]] = {
    "cloudbilling": cloudbilling,
    LIMIT: copy_and_upsert,
    "executemany": executemany,
    "insert_rows": insert_rows,
    "insert_rows (executemany=True)": insert_rows_many,
}


def contenders(kind: str) -> list[str]:
    """Return who can take part on a database; PostgreSQL's hook uses ``executemany`` without being told."""
    absent = find_spec("airflow.providers") is None or find_spec(f"airflow.providers.{kind}") is None
    names = [name for name in CONTENDERS if kind != "postgres" or "executemany=" not in name]
    names = [name for name in names if kind == "postgres" or name != LIMIT]
    return [name for name in names if not (absent and name.startswith("insert_rows"))]


def _rows(items: Items, part: type) -> Iterable[Row]:
    """Return the rows of one table: a list when the items are one, so that the clock does not count their making."""
    source = items()
    rows = _table_rows(source, part)
    return list(rows) if isinstance(source, list) else rows


def _table_rows(items: Iterable[InvoiceLine | Invoice], part: type) -> Iterator[Row]:
    """Yield rows in the table's order of columns."""
    names = PARTS[part].columns.keys()
    key = dict(zip(("provider", "account", "kind"), KEY, strict=True))
    waiting: list[dict[str, Any]] = []
    for item in items:
        own = {**key, **OWN, **item._asdict()}
        waiting.append({**own, "line_number": len(waiting) + 1})
        if type(item) is Invoice:
            chosen = waiting[-1:] if part is Invoice else waiting[:-1]
            for values in chosen:
                values["invoice_id"] = item.invoice_id
                yield tuple(values.get(name) for name in names)
            waiting.clear()
