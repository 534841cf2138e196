"""Tables of an older version of this package: upgraded in place, with what is in them; of a newer one: left alone."""

from __future__ import annotations

import json

import pytest
import staged
from sqlalchemy import inspect
from staged import OCTOBER, Erp, dump, invoices, load, of, open_staging, rows

from airflow_cloudbilling.errors import StagingError
from airflow_cloudbilling.reconcile.approval import approve
from airflow_cloudbilling.reconcile.month import Scope, reconcile
from airflow_cloudbilling.staging.ledger import Run
from airflow_cloudbilling.staging.tables import SCHEMA_VERSION, tables

pytestmark = pytest.mark.each_database


@pytest.mark.bare
def test_an_older_schema_is_upgraded_in_place(erp: Erp) -> None:
    staging = open_staging(erp)
    load(staging, invoices([1]))
    before = dump(erp)
    was = shape(erp)
    erp.execute("ALTER TABLE cloudbilling_load DROP COLUMN error")
    erp.execute("DROP TABLE cloudbilling_spool")
    erp.execute("UPDATE cloudbilling_schema_version SET version = 0")
    assert load(open_staging(erp), invoices([1])).merged.unchanged == 1
    assert dump(erp) == before
    assert shape(erp) == was
    assert rows(erp, "load", "error") == [(None,), (None,)]
    assert rows(erp, "schema_version", "version") == [(SCHEMA_VERSION,)]


VERSION_2 = {
    "spool": ("chunk", "request_key", "sha256", "size"),
    "document": ("period",),
    "load": ("invoice_count",),
}


@pytest.mark.bare
def test_the_first_schema_is_upgraded_with_what_waits_in_it(erp: Erp) -> None:
    run = Run("dag", "task", "run", -1, 1)
    staging = open_staging(erp)
    load(staging, [*invoices([1]), staged.document("D-1", "INV-1")])
    waiting, _ = staging.ledger.begin(of("2026-11"), run)
    staging.ledger.stop(waiting, "waiting", "ask later")
    before, was = dump(erp), shape(erp)
    on = "" if erp.kind != "mysql" else " ON cloudbilling_{}"
    for table in ("document", "finding"):
        erp.execute(f"DROP INDEX cloudbilling_{table}_by_invoice{on.format(table)}")
    for table, columns in VERSION_2.items():
        for column in columns:
            erp.execute(f"ALTER TABLE cloudbilling_{table} DROP COLUMN {column}")
    erp.execute("UPDATE cloudbilling_schema_version SET version = 1")
    staging = open_staging(erp)
    assert shape(erp) == was
    assert dump(erp) == before
    assert load(staging, [*invoices([1]), staged.document("D-1", "INV-1")]).merged.documents == 1
    assert dump(erp) == before
    assert staging.ledger.begin(of("2026-11"), run)[0] == waiting


@pytest.mark.bare
def test_a_schema_without_scopes_gets_their_tables(erp: Erp) -> None:
    load(open_staging(erp), invoices([1]))
    before, was = dump(erp), shape(erp)
    for table in ("scope", "scope_record"):
        erp.execute(f"DROP TABLE cloudbilling_{table}")
    erp.execute("UPDATE cloudbilling_schema_version SET version = 3")
    open_staging(erp)
    assert shape(erp) == was
    assert dump(erp) == before
    assert rows(erp, "schema_version", "version") == [(SCHEMA_VERSION,)]


@pytest.mark.bare
def test_a_schema_whose_closes_are_texts_gets_them_as_rows(erp: Erp) -> None:
    staging = open_staging(erp)
    load(staging, invoices(["ö-4", 1, 2], currency="EUR"))
    load(staging, [], OCTOBER._replace(kind="sales"))
    close = approve(staging, reconcile(staging, Scope(OCTOBER.period)).close.close_id, "A. Controller")
    before, was = (rows(erp, "close_invoice"), rows(erp, "close_slice")), shape(erp)
    erp.execute("DROP VIEW cloudbilling_focus_billing_period")
    members = json.dumps([list(row[1:]) for row in before[0]])
    for change in (
        "ALTER TABLE cloudbilling_close ADD COLUMN invoices TEXT",
        f"UPDATE cloudbilling_close SET invoices = '{members}'".replace("\\", "\\\\" if erp.kind == "mysql" else "\\"),
        "ALTER TABLE cloudbilling_close DROP COLUMN reconciled_at",
        "DROP TABLE cloudbilling_close_invoice",
        "DROP TABLE cloudbilling_close_slice",
        "UPDATE cloudbilling_schema_version SET version = 6",
    ):
        erp.execute(change)
    staging = open_staging(erp)
    assert shape(erp) == was
    assert (rows(erp, "close_invoice"), rows(erp, "close_slice")) == before
    assert reconcile(staging, Scope(OCTOBER.period)).close == close


@pytest.mark.bare
def test_a_schema_without_what_the_page_looks_up_gets_it(erp: Erp) -> None:
    load(open_staging(erp), invoices([1]))
    before, was = dump(erp), shape(erp)
    on = " ON cloudbilling_invoice" if erp.kind == "mysql" else ""
    erp.execute(f"DROP INDEX cloudbilling_invoice_by_posting{on}")
    if erp.kind == "mysql":
        erp.execute("ALTER TABLE cloudbilling_invoice DROP COLUMN search_text")
    erp.execute("UPDATE cloudbilling_schema_version SET version = 7")
    open_staging(erp)
    assert shape(erp) == was
    assert dump(erp) == before
    if erp.kind == "mysql":  # and what SELECT * gives is as it was
        assert len(rows(erp, "invoice", "*")[0]) == len(tables().invoice.columns)


def shape(erp: Erp) -> dict[str, object]:
    """Return the columns, with their types and comments, and the indexes of every table."""
    inspector, found = inspect(erp.engine()), {}
    for table in inspector.get_table_names():
        columns = {c["name"]: (str(c["type"]), c["nullable"], c.get("comment")) for c in inspector.get_columns(table)}
        found[table] = (columns, {i["name"]: i["column_names"] for i in inspector.get_indexes(table)})
    return found


def test_a_newer_schema_is_left_alone(erp: Erp) -> None:
    open_staging(erp)
    erp.execute(f"UPDATE cloudbilling_schema_version SET version = {SCHEMA_VERSION + 1}")
    with pytest.raises(StagingError, match="newer airflow-provider-cloudbilling"):
        open_staging(erp)
