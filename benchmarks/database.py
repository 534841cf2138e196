"""A database of the benchmark's own on each kind of server, and what the server counts: log bytes, dead tuples."""

from __future__ import annotations

import os
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, create_engine, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from airflow_cloudbilling.staging.engine import Database, engine_for
from airflow_cloudbilling.staging.loader import Staging

SERVERS = {"postgres": "CLOUDBILLING_TEST_POSTGRES", "mysql": "CLOUDBILLING_TEST_MYSQL"}
DRIVERS = {"postgres": "postgresql+psycopg", "mysql": "mysql+pymysql"}
KINDS = ("sqlite", *SERVERS)
NAME = os.environ.setdefault("CLOUDBILLING_BENCH_NAME", f"cloudbilling_bench_{os.getpid()}")  # also for its children


class Bench:
    """The database that is loaded into, named alike in every process of one run.

    :param kind: ``sqlite``, ``postgres`` or ``mysql``, the type of the Airflow connection.
    :param folder: where a SQLite file is put.
    """

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.path = folder / f"{NAME}.db"
        self.fields: dict[str, Any] = {"conn_type": kind, "host": str(self.path)}
        if kind != "sqlite":
            self.server = make_url(os.environ[SERVERS[kind]]).set(drivername=DRIVERS[kind])
            u = self.server
            fields = {"host": u.host, "port": u.port, "login": u.username, "password": u.password, "schema": NAME}
            self.fields = {"conn_type": kind, **{name: value for name, value in fields.items() if value is not None}}

    @property
    def engine(self) -> Engine:
        """A new engine, as the package makes it."""
        return engine_for(Database("bench", **self.fields))

    def renew(self) -> None:
        """Begin with empty tables."""
        self.drop()
        if self.kind != "sqlite":
            self._on_server(f"CREATE DATABASE {NAME}")
        Staging(self.engine).create()

    def drop(self) -> None:
        """Remove the database."""
        if self.kind == "sqlite":
            for suffix in ("", "-wal", "-shm"):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        else:
            force = " WITH (FORCE)" if self.kind == "postgres" else ""
            self._on_server(f"DROP DATABASE IF EXISTS {NAME}{force}")

    def settle(self) -> None:
        """Let the server write out what earlier work left, so that it does not do so while the clock runs."""
        if self.kind == "postgres":
            with suppress(DBAPIError):  # needs a right that not everybody has
                self._on_server("CHECKPOINT")

    def version(self) -> str:
        """Return the server's product and version."""
        product = {"sqlite": "SQLite ", "postgres": "PostgreSQL ", "mysql": ""}[self.kind]
        sql = {"sqlite": "SELECT sqlite_version()", "postgres": "SHOW server_version", "mysql": "SELECT version()"}
        return product + str(self._scalar(sql[self.kind])).split(" ")[0]

    def log_position(self) -> int | None:
        """Return the bytes that the server has written to its log (WAL, redo log) so far; SQLite does not tell."""
        if self.kind == "postgres":
            return int(self._scalar("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')"))
        if self.kind == "mysql":
            name = "Innodb_os_log_written"
            return int(
                self._scalar(
                    f"SELECT variable_value FROM information_schema.global_status WHERE variable_name = '{name}'"
                )
            )
        return None

    def dead_tuples(self) -> int | None:
        """Return the dead tuples of all tables; only PostgreSQL counts them."""
        if self.kind != "postgres":
            return None
        return int(self._scalar("SELECT COALESCE(SUM(n_dead_tup), 0) FROM pg_stat_user_tables"))

    def staged(self) -> tuple[int, int, str]:
        """Return the numbers of invoices and of lines, and the exact sum of the lines' net amounts."""
        with self.engine.connect() as connection:
            amounts = connection.exec_driver_sql("SELECT net_amount FROM cloudbilling_invoice_line").scalars()
            lines, total = 0, Decimal(0)
            for amount in amounts:
                lines, total = lines + 1, total + Decimal(amount)
        return int(self._scalar("SELECT COUNT(*) FROM cloudbilling_invoice")), lines, f"{total:.2f}"

    def _scalar(self, sql: str) -> Any:
        with self.engine.connect() as connection:
            return connection.exec_driver_sql(sql).scalar_one()

    def _on_server(self, sql: str) -> None:
        url: URL = self.server
        with create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT").connect() as connection:
            connection.exec_driver_sql(sql)
