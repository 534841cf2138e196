"""From the fields of an Airflow connection to a SQLAlchemy engine for the staging database."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from sqlite3 import OperationalError
from types import MappingProxyType
from typing import Any, NamedTuple

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.pool import NullPool

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.staging.advice import explain_errors

_LIBPQ_TLS = (
    *("sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcrl", "sslcrldir", "sslcertmode", "sslsni"),
    *("sslnegotiation", "sslcompression", "ssl_min_protocol_version", "ssl_max_protocol_version"),
)
_MYSQL_TLS = ("ssl", "ssl_ca", "ssl_cert", "ssl_key")
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
    extra: Mapping[str, Any] = MappingProxyType({})


def engine_for(database: Database) -> Engine:
    """Return an engine for the staging database; nothing is opened yet.

    :param database: the connection's fields.
    :raises ConfigurationError: when the connection's type is not supported or a field is missing.
    """
    make = _ENGINES.get(database.conn_type)
    if make is None:
        raise ConfigurationError(
            f"connection type {database.conn_type!r} cannot hold the staging tables; use {', '.join(_ENGINES)}.",
            conn_id=database.conn_id,
            field="conn_type",
        )
    engine = make(database)
    explain_errors(engine, database.conn_id)
    return engine


def _postgres(database: Database) -> Engine:
    _check_tls(database, _LIBPQ_TLS)
    names = (*_LIBPQ_TLS, "connect_timeout", "options", "application_name")
    arguments = {name: database.extra[name] for name in names if database.extra.get(name) not in (None, "")}
    # libpq's own option, so that moments are written and read as UTC whatever the server's time zone is
    arguments["options"] = f"{arguments.get('options', '')} -c timezone=UTC".strip()
    return _server(database, "postgresql+psycopg", "psycopg", "postgres", arguments)


def _mysql(database: Database) -> Engine:
    arguments: dict[str, Any] = {"charset": "utf8mb4"}
    _check_tls(database, _MYSQL_TLS)
    if ssl := _mysql_ssl(database):
        arguments["ssl"] = ssl
    if database.extra.get("connect_timeout"):
        arguments["connect_timeout"] = _seconds(database, database.extra["connect_timeout"])
    return _server(database, "mysql+pymysql", "pymysql", "mysql", arguments, isolation_level="READ COMMITTED")


def _mysql_ssl(database: Database) -> dict[str, Any]:
    ssl = database.extra.get("ssl") or {}
    if isinstance(ssl, str):
        with suppress(ValueError):
            ssl = json.loads(ssl)
    if not isinstance(ssl, dict):
        message = 'is no JSON object such as {"ca": "/etc/ssl/erp-ca.pem"}.'
        raise ConfigurationError(message, conn_id=database.conn_id, field="ssl")
    flat = {name: database.extra.get(f"ssl_{name}") for name in ("ca", "cert", "key")}
    return {**ssl, **{name: path for name, path in flat.items() if path}}


def _seconds(database: Database, value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        message = f"{value!r} is no whole number of seconds."
        raise ConfigurationError(message, conn_id=database.conn_id, field="connect_timeout") from None


def _check_tls(database: Database, known: tuple[str, ...]) -> None:
    """Refuse what is meant for TLS and would be passed over: the connection would be less safe than it looks."""
    for name in database.extra:
        if name.lower().startswith("ssl") and name not in known:
            message = f"is not known here, so that TLS would not be as you mean it; known are {', '.join(known)}."
            raise ConfigurationError(message, conn_id=database.conn_id, field=name)


def _server(
    database: Database, drivername: str, module: str, extra: str, arguments: dict[str, Any], **options: Any
) -> Engine:
    if not database.host or not database.schema:
        field = "schema" if database.host else "host"
        what = "the database's name" if database.host else "the server's name"
        raise ConfigurationError(f"is empty; give {what}.", conn_id=database.conn_id, field=field)
    url = URL.create(
        drivername, database.login, database.password, database.host, database.port, database=database.schema
    )
    options = {"poolclass": NullPool, "hide_parameters": True, "connect_args": arguments, **options}
    try:
        return create_engine(url, **options)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"needs the Python package {module}; install airflow-provider-cloudbilling[{extra}].",
            conn_id=database.conn_id,
            field="conn_type",
        ) from error


def _sqlite(database: Database) -> Engine:
    path = database.host or database.schema  # sqlite:////abs/path puts the path into the schema field
    if not path or path == ":memory:":
        raise ConfigurationError(
            "give the path of the database file, e.g. /data/erp_staging.db; staging in memory would be lost.",
            conn_id=database.conn_id,
            field="host",
        )
    arguments = {"timeout": BUSY_SECONDS}
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool, hide_parameters=True, connect_args=arguments)
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


_ENGINES: Mapping[str, Callable[[Database], Engine]] = {"sqlite": _sqlite, "postgres": _postgres, "mysql": _mysql}
