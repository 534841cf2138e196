"""Creating the staging tables and views: before and outside any load, under a lock, in steps that may be repeated."""

from __future__ import annotations

from sqlalchemy import Connection, Engine, inspect, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateIndex, CreateTable

from airflow_cloudbilling.errors import StagingError
from airflow_cloudbilling.staging.engine import let_readers_be
from airflow_cloudbilling.staging.ledger import now
from airflow_cloudbilling.staging.tables import SCHEMA_VERSION, Tables
from airflow_cloudbilling.staging.views import view_statements


def ddl(engine: Engine, tables: Tables) -> list[str]:
    """Return the statements that create every table, index and view in the engine's dialect."""
    statements = []
    for table in tables.metadata.sorted_tables:
        statements.append(str(CreateTable(table).compile(engine)).strip())
        statements += [
            str(CreateIndex(index).compile(engine)) for index in sorted(table.indexes, key=lambda i: str(i.name))
        ]
    return [*statements, *view_statements(tables, engine.dialect.name)]


def create_tables(engine: Engine, tables: Tables) -> None:
    """Create what is missing; nothing is done, and nothing locked, when all is there.

    :raises StagingError: when the connection's user may not; the message carries the SQL for somebody who may.
    """
    with engine.connect() as connection:
        if _complete(connection, tables):
            return
    let_readers_be(engine)
    try:
        with engine.execution_options(sqlite_begin="BEGIN IMMEDIATE").begin() as connection:
            tables.metadata.create_all(connection)
            for statement in view_statements(tables, connection.dialect.name):
                connection.exec_driver_sql(statement)
            if not _complete(connection, tables):
                row = {"version": SCHEMA_VERSION, "created_at": now()}
                connection.execute(tables.schema_version.insert(), [row])
    except DBAPIError as error:
        sql = ";\n".join(ddl(engine, tables))
        raise StagingError(
            f"The staging tables could not be created ({error.orig}). Let somebody who may create tables run:\n{sql};"
        ) from error


def _complete(connection: Connection, tables: Tables) -> bool:
    """Whether all tables of this version are there: the version is written last."""
    table = tables.schema_version
    if not inspect(connection).has_table(table.name, schema=table.schema):
        return False
    return connection.scalar(select(table.c.version)) == SCHEMA_VERSION
