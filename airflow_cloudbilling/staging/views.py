"""Views over the staging tables: FOCUS 1.4's datasets, and purchase against sales.

They carry single amounts only where sums are floats, as in SQLite; sums are the package's work there.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.dialects import mysql, postgresql, sqlite

from airflow_cloudbilling.staging.focus import Focus
from airflow_cloudbilling.staging.margin import margin_query
from airflow_cloudbilling.staging.tables import Tables

_DIALECTS: dict[str, Any] = {
    "sqlite": sqlite.dialect,
    "postgresql": postgresql.dialect,
    "mysql": mysql.dialect,
    "mariadb": mysql.dialect,
}


def view_statements(tables: Tables, dialect_name: str) -> list[str]:
    """Return the statements that create the views in a dialect, in place of older ones; they may be repeated."""
    dialect = _DIALECTS[dialect_name]()
    schema = tables.metadata.schema
    prefix = f"{dialect.identifier_preparer.quote_schema(schema)}." if schema else ""
    focus = Focus(tables, dialect_name)
    views = {
        "focus_invoice_detail": focus.invoice_detail(),
        "focus_billing_period": focus.billing_period(),
        "margin": margin_query(tables, dialect_name),
    }
    statements = []
    for name, query in views.items():
        view = f"{prefix}cloudbilling_{name}"
        sql = query.compile(dialect=dialect, compile_kwargs={"literal_binds": True})
        statements += [f"DROP VIEW IF EXISTS {view}", f"CREATE VIEW {view} AS {sql}"]
    return statements
