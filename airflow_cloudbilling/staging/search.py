"""What a search for invoices looks through on MySQL and MariaDB: a narrow copy that the database keeps by itself.

Their rows lie in the order of the key with all that the vendor sent, so that looking for a number would read every byte
of it; and a text of any length cannot be in an index. The column is invisible: ``SELECT *`` is what it was.
"""

from __future__ import annotations

from airflow_cloudbilling.staging.tables import Tables

SEARCHED = ("invoice_number", "invoice_id", "buyer_id", "buyer_name")
COLUMN = "search_text"
_LENGTH = 700  # characters, of four bytes; an index holds 3,072 bytes
_KEEPING = ("mysql", "mariadb")


def has_own_text(dialect_name: str) -> bool:
    """Whether a search has a column of its own in this database."""
    return dialect_name in _KEEPING


def search_index(tables: Tables) -> str:
    """Return the name of the index that holds the column."""
    return f"{tables.invoice.name}_by_search"


def search_statements(tables: Tables, dialect_name: str) -> list[str]:
    """Return the statements that add the column and its index, none where the database needs none."""
    if not has_own_text(dialect_name):
        return []
    schema, name = tables.metadata.schema, tables.invoice.name
    table = f"`{schema}`.{name}" if schema else name
    text = f"LEFT(CONCAT_WS('\n', {', '.join(SEARCHED)}), {_LENGTH})"
    words = "what a search looks through, kept by the database"
    column = f"{COLUMN} VARCHAR({_LENGTH}) GENERATED ALWAYS AS ({text}) VIRTUAL INVISIBLE COMMENT '{words}'"
    return [
        f"ALTER TABLE {table} ADD COLUMN {column}",
        f"CREATE INDEX {search_index(tables)} ON {table} ({COLUMN})",
    ]
