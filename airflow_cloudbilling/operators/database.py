"""The staging database behind an Airflow connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_cloudbilling.hooks.lookup import connection_of
from airflow_cloudbilling.redaction import forgetting
from airflow_cloudbilling.settings import extra_of

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from airflow_cloudbilling.staging.engine import Database
    from airflow_cloudbilling.staging.loader import Staging

_looked_into: dict[tuple[str, str | None], tuple[Database, Staging]] = {}  # of a process that looks again and again


def open_staging(conn_id: str, schema: str | None = None) -> Staging:
    """Return the staging tables of a connection, created where they are missing.

    :param conn_id: an Airflow connection of a supported database type; its fields make the engine.
    :param schema: database schema of the tables; empty for the connection's default.
    :raises ConfigurationError: when the connection's type or a field does not fit.
    :raises StagingError: when tables are missing and may not be created.
    """
    from airflow_cloudbilling.staging.loader import Staging

    with forgetting():
        staging = Staging(_engine(conn_id), schema or None)
        staging.create()
    return staging


def look_into_staging(conn_id: str, schema: str | None = None) -> Staging:
    """Return the staging tables of a connection to read them; nothing is created, and they may not be there.

    It is the same object as long as the connection stays as it is, which saves preparing each statement again.

    :param conn_id: as of :func:`open_staging`; ``schema`` too.
    :raises ConfigurationError: when the connection's type or a field does not fit.
    """
    from airflow_cloudbilling.staging.engine import engine_for
    from airflow_cloudbilling.staging.loader import Staging

    key, database = (conn_id, schema or None), database_of(conn_id)
    known = _looked_into.get(key)
    if known is None or known[0] != database:
        known = _looked_into[key] = database, Staging(engine_for(database), schema or None)
    return known[1]


def _engine(conn_id: str) -> Engine:
    from airflow_cloudbilling.staging.engine import engine_for

    return engine_for(database_of(conn_id))


def database_of(conn_id: str) -> Database:
    """Return the fields of the Airflow connection that names a staging database."""
    from airflow_cloudbilling.staging.engine import Database

    connection = connection_of(conn_id, "staging_conn_id")
    names = ("conn_type", "host", "port", "login", "password", "schema")
    fields = {name: getattr(connection, name) for name in names}
    return Database(conn_id, **fields, extra=extra_of(conn_id, connection.extra))
