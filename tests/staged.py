"""What tests say of a staging database: which ones there are, invoices to load, and what the tables hold afterwards."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from datetime import date, datetime
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

from sqlalchemy import URL, Engine, create_engine, inspect, make_url, text
from sqlalchemy.pool import NullPool

from airflow_cloudbilling.exact import canonical
from airflow_cloudbilling.model import Document, Invoice, InvoiceLine, Period, Slice
from airflow_cloudbilling.staging.engine import Database, engine_for
from airflow_cloudbilling.staging.ledger import Run
from airflow_cloudbilling.staging.loader import Loaded, Rules, Staging
from airflow_cloudbilling.staging.tables import tables

OCTOBER = Slice("twotcloud", "10001", "purchase", Period.parse("2026-10"))
BUSINESS = ("invoice", "invoice_line", "invoice_tax", "slice_invoice", "document")
SERVERS = {"postgres": "CLOUDBILLING_TEST_POSTGRES", "mysql": "CLOUDBILLING_TEST_MYSQL"}
DRIVERS = {"postgres": "postgresql+psycopg", "mysql": "mysql+pymysql"}
MADE = {  # what tells a database from another, but for rows
    "postgres": (
        "SELECT attrelid::regclass, attname, atttypid, atttypmod, attnotnull FROM pg_attribute JOIN pg_class"
        " ON pg_class.oid = attrelid WHERE relnamespace = current_schema()::regnamespace",
        "SELECT indrelid, indkey, indisvalid FROM pg_index WHERE indrelid >= 16384",
        "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_'",
    ),
    "mysql": (
        "SELECT * FROM information_schema.columns WHERE table_schema = '{}'",
        "SELECT table_name, index_name, column_name FROM information_schema.statistics WHERE table_schema = '{}'",
        "SELECT * FROM information_schema.schemata WHERE schema_name = '{}'",
    ),
}
THOROUGH = "CLOUDBILLING_TEST_THOROUGH" in os.environ  # make torture
NAMED = [kind for kind, variable in SERVERS.items() if os.environ.get(variable)]


class Erp:
    """A staging database of one test: a SQLite file, or a database of its own on a server that the environment names.

    On a server the tables are there already, and empty: to make them takes longer than most tests.

    :param kind: ``sqlite``, ``postgres`` or ``mysql``: the type of the Airflow connection.
    :param bare: whether not even tables may be there.
    """

    kept: ClassVar[list[Erp]] = []  # of servers, with empty tables

    def __init__(self, kind: str, folder: Path, *, bare: bool = False) -> None:
        self.kind = kind
        self.name = f"cloudbilling_test_{uuid4().hex[:12]}"
        self._looking: dict[str, Engine] = {}  # how it is connected to → what looks into it
        self._made = ""  # what is in the database by its own account, where the package's tables are
        if kind == "sqlite":
            self.connection: dict[str, Any] = {"conn_type": kind, "host": str(folder / f"{self.name}.db")}
            return
        self.server = make_url(os.environ[SERVERS[kind]]).set(drivername=DRIVERS[kind])
        before = next((one for one in self.kept if one.kind == kind and not bare), None)
        if before:
            self.kept.remove(before)
            self.name, self._made = before.name, before._made
        else:
            self._on_server(f"CREATE DATABASE {self.name}")
            if kind == "postgres":  # no test pulls the server's plug
                self._on_server(f"ALTER DATABASE {self.name} SET synchronous_commit TO off")
        u = self.server
        fields = {"host": u.host, "port": u.port, "login": u.username, "password": u.password, "schema": self.name}
        self.connection = {"conn_type": kind, **{name: value for name, value in fields.items() if value is not None}}
        if not bare and not before:
            Staging(self.engine()).create()
            self._made = self._everything_made()

    def drop(self) -> None:
        """Empty the tables for the next test; remove the database if the test has made something else of it."""
        if self.kind == "sqlite":
            return
        if self.kind == "postgres":
            others = f"datname = '{self.name}' AND pid <> pg_backend_pid()"
            self._on_server(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")
        if self._made and self._everything_made() == self._made:
            self._empty()
            self.kept.append(self)
        else:
            self._on_server(f"DROP DATABASE {self.name}{self._force()}")

    @classmethod
    def drop_kept(cls) -> None:
        """Remove the databases that were kept for further tests."""
        for one in cls.kept:
            one._on_server(f"DROP DATABASE {one.name}{one._force()}")

    def _force(self) -> str:
        return " WITH (FORCE)" if self.kind == "postgres" else ""

    def _empty(self) -> None:
        names = sorted(tables().metadata.tables)
        names.remove("cloudbilling_schema_version")
        full = " UNION ALL ".join(f"SELECT '{name}' WHERE EXISTS (SELECT 1 FROM {name})" for name in names)
        with self.looking().begin() as connection:
            for (name,) in connection.exec_driver_sql(full).all():
                connection.exec_driver_sql(f"DELETE FROM {name}")

    def _everything_made(self) -> str:
        """Return all columns, indexes and schemas of the database, and the version of its tables."""
        with self.looking().connect() as connection:
            queries = (*MADE[self.kind], "SELECT version FROM cloudbilling_schema_version")
            found = [connection.exec_driver_sql(sql.format(self.name)).all() for sql in queries]
        return repr([sorted(map(repr, rows)) for rows in found])

    def engine(self, **changed: Any) -> Engine:
        """Return an engine as the package makes it."""
        return engine_for(Database("erp_staging", **{**self.connection, **changed}))

    def looking(self) -> Engine:
        """Return the engine of who looks into the database: one, since each asks the server much when it is new."""
        there = repr(self.connection)
        if there not in self._looking:
            self._looking[there] = self.engine()
        return self._looking[there]

    def query(self, sql: str, **values: Any) -> list[tuple[Any, ...]]:
        """Return rows with amounts and days in the one text form that SQLite keeps them in."""
        with self.looking().connect() as connection:
            return [tuple(map(_plain, row)) for row in connection.execute(text(sql), values)]

    def execute(self, sql: str) -> None:
        """Run a statement and commit it."""
        with self.looking().begin() as connection:
            connection.exec_driver_sql(sql)

    def everything(self) -> str:
        """Return all that the database holds, as text."""
        engine = self.looking()
        return repr([self.query(f"SELECT * FROM {name}") for name in inspect(engine).get_table_names()])

    def _on_server(self, sql: str) -> None:
        url: URL = self.server
        with create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT").connect() as connection:
            connection.exec_driver_sql(sql)


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return canonical(value)
    return value.isoformat() if isinstance(value, (date, datetime)) else value


def moments(steps: int, few: int) -> list[int]:
    """Return at which of so many steps to kill: all in ``make torture``, else one in so ``few``, always the last."""
    return [*range(1, steps, 1 if THOROUGH else few), steps]


def open_staging(erp: Erp) -> Staging:
    """Return the staging tables in a database, created."""
    staging = Staging(erp.engine())
    staging.create()
    return staging


def of(period: str) -> Slice:
    """Return October's slice with another period."""
    return OCTOBER._replace(period=Period.parse(period))


def invoice(number: int, net: str = "10", lines: int = 2, **header: Any) -> list[InvoiceLine | Invoice]:
    """Return an invoice as a source yields it: its lines, each an equal part of nothing in particular, then itself."""
    items: list[InvoiceLine | Invoice] = [
        InvoiceLine(line_id=str(n), description=f"line {n}", quantity="1", net_amount=net, tax_amount="2.1", raw="{}")
        for n in range(1, lines + 1)
    ]
    gross = canonical(Decimal(net) + Decimal("2.1")) if len(net) < 20 else net
    amounts = {"currency": "EUR", "net_amount": net, "tax_amount": "2.1", "gross_amount": gross}
    return [*items, Invoice(f"INV-{number}", **{**amounts, **header})]


def invoices(numbers: Iterable[int], **header: Any) -> Iterator[InvoiceLine | Invoice]:
    """Return several invoices as a source yields them."""
    for number in numbers:
        yield from invoice(number, **header)


def document(document_id: str, invoice_id: str | None = None, body: str = "%PDF", **changed: Any) -> Document:
    """Return a file that came with an invoice."""
    digest = sha256(body.encode()).hexdigest()
    name, type_ = f"{document_id}.pdf", "application/pdf"
    return Document(document_id, invoice_id, "invoices", name, type_, len(body), digest)._replace(**changed)


def load(
    staging: Staging, items: Iterable[Any], slice_: Slice = OCTOBER, run: Run | None = None, **rules: Any
) -> Loaded:
    """Load items into a slice."""
    with staging.load(slice_, run, Rules(**rules)) as one:
        for item in items:
            one.add(item)
        return one.commit()


def rows(erp: Erp, table: str, columns: str = "*", where: str = "1 = 1") -> list[tuple[Any, ...]]:
    """Return rows of a staging table in a fixed order."""
    return sorted(erp.query(f"SELECT {columns} FROM cloudbilling_{table} WHERE {where}"), key=repr)


def dump(erp: Erp, *, with_load: bool = True, account: str | None = None) -> dict[str, list[tuple[Any, ...]]]:
    """Return every business row; ``with_load=False`` leaves out which load wrote it, and from which text.

    :param account: only this account's rows, without its name.
    """
    left_out = {"search_text"} | ({"account"} if account else set())  # which is MariaDB's, and computed
    left_out |= set() if with_load else {"load_id", "source_sha256", "raw"}
    where, result = f"account = '{account}'" if account else "1 = 1", {}
    with erp.looking().connect() as connection:
        for table in BUSINESS:
            found = connection.exec_driver_sql(f"SELECT * FROM cloudbilling_{table} WHERE {where}")
            kept = [place for place, name in enumerate(found.keys()) if name not in left_out]
            result[table] = sorted([tuple(_plain(row[place]) for place in kept) for row in found], key=repr)
    return result


def ids(erp: Erp) -> set[str]:
    """Return the staged invoices' numbers."""
    return {row[0].removeprefix("INV-") for row in rows(erp, "invoice", "invoice_id")}


def statuses(erp: Erp, account: str | None = None) -> list[str]:
    """Return the loads' statuses, oldest first."""
    where = f"WHERE account = '{account}'" if account else ""
    return [row[0] for row in erp.query(f"SELECT status FROM cloudbilling_load {where} ORDER BY started_at")]
