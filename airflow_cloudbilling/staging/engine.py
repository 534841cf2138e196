"""From the fields of an Airflow connection to a SQLAlchemy engine for the staging database."""

from __future__ import annotations

from contextlib import closing
from sqlite3 import OperationalError
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import NullPool

from airflow_cloudbilling.errors import ConfigurationError

BUSY_SECONDS = 60  # how long a statement waits for another writer of a SQLite file


class Database(NamedTuple):
    """The fields of the Airflow connection that names the staging database."""

    conn_id: str
    conn_type: str
    host: str | None = None
    port: int | None = None
    login: str | None = None
    password: str | None = None
    schema: str | None = None


def engine_for(database: Database) -> Engine:
    """Return an engine for the staging database; nothing is opened yet.

    :param database: the connection's fields.
    :raises ConfigurationError: when the connection's type is not supported or a field is missing.
    """
    if database.conn_type == "sqlite":
        return _sqlite(database)
    raise ConfigurationError(
        f"connection type {database.conn_type!r} cannot hold the staging tables; use 'sqlite'.",
        conn_id=database.conn_id,
        field="conn_type",
    )


def _sqlite(database: Database) -> Engine:
    path = database.host or database.schema  # sqlite:////abs/path puts the path into the schema field
    if not path or path == ":memory:":
        raise ConfigurationError(
            "give the path of the database file, e.g. /data/erp_staging.db; staging in memory would be lost.",
            conn_id=database.conn_id,
            field="host",
        )
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool, connect_args={"timeout": BUSY_SECONDS})
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _configure_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions begin where we say so, not where the driver guesses


def let_readers_be(engine: Engine) -> None:
    """Switch a SQLite file, for good, to the journal that lets readers see the last commit while a load is merged."""
    if engine.dialect.name == "sqlite":
        with closing(engine.raw_connection()) as connection:
            try:
                connection.cursor().execute("PRAGMA journal_mode=WAL")
            except OperationalError:
                pass  # locked: another process is switching, or creating the tables, right now


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN"))
