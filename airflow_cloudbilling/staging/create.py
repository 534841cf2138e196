"""Creating and upgrading the staging tables and views: outside any load, under a lock, in repeatable steps."""

from __future__ import annotations

from sqlalchemy import Connection, Engine, create_mock_engine, delete, inspect, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateColumn, CreateSchema, SetColumnComment

from airflow_cloudbilling.errors import StagingError
from airflow_cloudbilling.staging.advice import may_be_about_rights
from airflow_cloudbilling.staging.closes import carry_over
from airflow_cloudbilling.staging.dialects import dialect_of
from airflow_cloudbilling.staging.engine import let_readers_be
from airflow_cloudbilling.staging.search import COLUMN, search_index, search_statements
from airflow_cloudbilling.staging.tables import SCHEMA_VERSION, Tables
from airflow_cloudbilling.staging.views import view_statements


def ddl(engine: Engine, tables: Tables) -> list[str]:
    """Return the statements that create every table, index, comment and view in the engine's dialect."""
    statements: list[str] = []
    mock = create_mock_engine(engine.url, lambda sql, *_: statements.append(str(sql.compile(dialect=engine.dialect))))
    tables.metadata.create_all(mock, checkfirst=False)
    name = engine.dialect.name
    return [*(s.strip() for s in statements), *search_statements(tables, name), *view_statements(tables, name)]


def create_tables(engine: Engine, tables: Tables) -> None:
    """Create what is missing, and add what tables of an older version lack; nothing is done when all is there.

    :raises StagingError: when the database cannot be reached; when the connection's user may not, with the SQL for
        somebody who may; or when the tables are of a newer version than this package knows.
    """
    dialect = dialect_of(engine.dialect.name)
    try:
        with engine.connect() as connection:
            if _is_complete(connection, tables):
                return
        let_readers_be(engine)
        with engine.connect() as connection, dialect.locked(connection, f"ddl/{tables.metadata.schema}"):
            if not _is_complete(connection, tables):  # another process may have been quicker
                _upgrade(connection, tables)
    except (DBAPIError, OSError) as error:  # a driver that cannot read a TLS file says so as OSError
        raise StagingError(_in_words(error, engine, tables)) from error


def _in_words(error: DBAPIError | OSError, engine: Engine, tables: Tables) -> str:
    """Return what happened, with the SQL for somebody who may run it unless it is surely about something else."""
    cause = error.args[0] if isinstance(error, DBAPIError) else error
    told = f"The staging tables could not be reached or created ({' '.join(str(cause).split())})."
    if not isinstance(error, DBAPIError) or not may_be_about_rights(error.orig):
        return told
    return f"{told} If the right to create tables is missing, let somebody who has it run:\n{script(engine, tables)}"


def script(engine: Engine, tables: Tables) -> str:
    """Return what somebody runs who may create tables, for others who may not."""
    version = engine.dialect.identifier_preparer.format_table(tables.schema_version)
    sql = ";\n".join(ddl(engine, tables))
    return f"{sql};\nINSERT INTO {version} (version) VALUES ({SCHEMA_VERSION});"


def _is_complete(connection: Connection, tables: Tables) -> bool:
    """Whether the tables are of this version, which is written last."""
    version = version_of(connection, tables)
    if version is not None and version > SCHEMA_VERSION:
        raise StagingError(
            f"The staging tables are of version {version}, made by a newer airflow-provider-cloudbilling; this "
            f"one knows version {SCHEMA_VERSION}. Upgrade the package here."
        )
    return version == SCHEMA_VERSION


def version_of(connection: Connection, tables: Tables) -> int | None:
    """Return the version of the tables, which is written last; None when they are not all there."""
    table = tables.schema_version
    if not inspect(connection).has_table(table.name, schema=table.schema):
        return None
    found = connection.scalar(select(table.c.version).order_by(table.c.version.desc()).limit(1))
    return None if found is None else int(found)


def _upgrade(connection: Connection, tables: Tables) -> None:
    schema, table = tables.metadata.schema, tables.schema_version
    if schema and not inspect(connection).has_schema(schema):
        connection.execute(CreateSchema(schema))
    tables.metadata.create_all(connection)
    _add_columns(connection, tables)
    _add_indexes(connection, tables)
    _add_search(connection, tables)
    carry_over(connection, tables)
    for statement in view_statements(tables, connection.dialect.name):
        connection.exec_driver_sql(statement)
    connection.execute(delete(table))
    created = dialect_of(connection.dialect.name).now(connection)
    connection.execute(table.insert(), [{"version": SCHEMA_VERSION, "created_at": created}])


def _add_columns(connection: Connection, tables: Tables) -> None:
    """Add the columns that tables of an older version lack; a new column of ours is always nullable."""
    dialect, inspector = connection.dialect, inspect(connection)
    for table in tables.metadata.sorted_tables:
        present = {column["name"] for column in inspector.get_columns(table.name, schema=table.schema)}
        for column in table.columns:
            if column.name not in present:
                name, definition = dialect.identifier_preparer.format_table(table), CreateColumn(column)
                connection.exec_driver_sql(f"ALTER TABLE {name} ADD COLUMN {definition.compile(dialect=dialect)}")
                if dialect.supports_comments and not dialect.inline_comments:
                    connection.execute(SetColumnComment(column))


def _add_indexes(connection: Connection, tables: Tables) -> None:
    """Add the indexes that tables of an older version lack."""
    inspector = inspect(connection)
    for table in tables.metadata.sorted_tables:
        present = {index["name"] for index in inspector.get_indexes(table.name, schema=table.schema)}
        for index in table.indexes:
            if index.name not in present:
                index.create(connection)


def _add_search(connection: Connection, tables: Tables) -> None:
    """Add what a search looks through, as far as it is not there: a step may have been the last before a crash."""
    table, inspector = tables.invoice, inspect(connection)
    present = {one["name"] for one in inspector.get_columns(table.name, schema=table.schema)} & {COLUMN}
    present |= {one["name"] or "" for one in inspector.get_indexes(table.name, schema=table.schema)}
    for made, statement in zip(
        (COLUMN, search_index(tables)), search_statements(tables, connection.dialect.name), strict=False
    ):
        if made not in present:
            connection.exec_driver_sql(statement)
