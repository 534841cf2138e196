"""The staging database behind an Airflow connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseHook

if TYPE_CHECKING:
    from airflow_cloudbilling.staging.loader import Staging


def open_staging(conn_id: str, schema: str | None = None) -> Staging:
    """Return the staging tables of a connection, created where they are missing.

    :param conn_id: an Airflow connection of a supported database type; its fields make the engine.
    :param schema: database schema of the tables; empty for the connection's default.
    :raises ConfigurationError: when the connection's type or a field does not fit.
    :raises StagingError: when tables are missing and may not be created.
    """
    from airflow_cloudbilling.staging.engine import Database, engine_for
    from airflow_cloudbilling.staging.loader import Staging

    connection = BaseHook.get_connection(conn_id)
    names = ("conn_type", "host", "port", "login", "password", "schema")
    fields = {name: getattr(connection, name) for name in names}
    database = Database(conn_id, **fields, extra=connection.extra_dejson)
    staging = Staging(engine_for(database), schema or None)
    staging.create()
    return staging
