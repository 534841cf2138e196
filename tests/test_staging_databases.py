"""The same import on every database; sessions that die, rights that lack."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import staged
from psycopg import OperationalError
from sqlalchemy import Connection, create_engine, event, inspect
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool
from staged import OCTOBER, Erp, dump, invoices, load, of, open_staging, rows, statuses
from test_staging_kill import BEFORE, THOROUGH, after

from airflow_cloudbilling.errors import ConfigurationError, StagingError
from airflow_cloudbilling.model import Finding, Period
from airflow_cloudbilling.operators.invoices import StageInvoicesOperator
from airflow_cloudbilling.sandbox.server import Sandbox
from airflow_cloudbilling.staging.advice import advice, may_be_about_rights
from airflow_cloudbilling.staging.create import ddl
from airflow_cloudbilling.staging.engine import Database, engine_for
from airflow_cloudbilling.staging.loader import Staging
from airflow_cloudbilling.staging.tables import tables

POSTGRES, MYSQL = ({"conn_type": kind, "host": "db", "schema": "erp"} for kind in ("postgres", "mysql"))


@pytest.fixture
def all_databases(tmp_path: Path) -> Iterator[list[Erp]]:
    databases = [Erp(kind, tmp_path) for kind in ("sqlite", *staged.NAMED)]
    yield databases
    for database in databases:
        database.drop()


def test_the_same_import_gives_the_same_rows_in_every_database(
    all_databases: list[Erp], monkeypatch: pytest.MonkeyPatch
) -> None:
    dumps = []
    with Sandbox(months=2, invoices=40, last_month=date(2026, 10, 1)) as vendor:
        vendor.serve("/v2/customerinvoices", json.dumps({"Invoices": list(exotic())}))
        for name, value in vendor.environment().items():
            monkeypatch.setenv(name, value)
        for erp in all_databases:
            monkeypatch.setenv("AIRFLOW_CONN_ERP_STAGING", json.dumps(erp.connection))
            for month, kind in (("2026-09", "purchase"), ("2026-10", "purchase"), ("2026-10", "sales")):
                arguments = {"conn_id": "twotcloud_default", "staging_conn_id": "erp_staging", "kind": kind}
                StageInvoicesOperator(task_id="stage", period=month, **arguments).execute({})
            dumps.append(dump(erp, with_load=False))
    assert len(dumps[0]["invoice"]) == 82
    assert all(one == dumps[0] for one in dumps)


def exotic() -> Iterator[dict[str, Any]]:
    """Return two invoices at the limits of what is staged."""
    widest = "9" * 26 + "." + "9" * 12
    for number, amount in (("X-1", widest), ("X-2", "-0.000000000001")):
        line = {
            "ExtendedPrice": amount,
            "VAT": "0.00",
            "Description": "NUL \u0000, 😀, \ud800 alone",
            "UnitPrice": "1e-06",
        }
        customer = {"Subscriptions": [{"PriceLines": [line]}]}
        header = {"InvoiceID": number, "Date": "2026-10-05", "Currency": "EUR", "Type": "Invoice"}
        yield {"Customers": [customer], "Header": header, "Totals": {"TotalExclVAT": amount, "TotalInclVAT": amount}}


@pytest.mark.thorough
def test_24_months_in_any_order_end_alike(erp: Erp) -> None:
    staging, dumps = open_staging(erp), []
    windows = {Period.month(2025, n): range(10 * n, 10 * n + 12) for n in range(1, 25)}  # neighbours share two invoices
    for n in range(3 if THOROUGH else 2):
        order = list(windows)
        random.Random(n).shuffle(order)
        for period in order:
            load(staging, invoices(windows[period]), of(str(period))._replace(account=str(n)))
        dumps.append(dump(erp, with_load=False, account=str(n)))
    assert all(each == dumps[0] for each in dumps)
    assert len(dumps[0]["invoice"]) == 242


class SessionKiller:
    """Ends the database session of a load from outside at one of its steps."""

    def __init__(self, erp: Erp, staging: Staging, at: int) -> None:
        self.erp = erp
        self.at = at
        self.steps = 0
        for name in ("before_cursor_execute", "after_cursor_execute", "commit"):
            event.listen(staging.engine, name, self.step)

    def step(self, connection: Connection, *_: object) -> None:
        """Count a step, and kill at the chosen one."""
        self.steps += 1
        if self.steps == self.at:
            driver: Any = connection.connection.dbapi_connection
            if self.erp.kind == "postgres":
                self._kill(f"SELECT pg_terminate_backend({driver.info.backend_pid})")
            else:
                self._kill(f"KILL {driver.thread_id()}")

    def _kill(self, sql: str) -> None:
        with create_engine(self.erp.server, poolclass=NullPool).connect() as admin:
            admin.exec_driver_sql(sql)


@pytest.mark.thorough
def test_a_session_killed_at_any_step_leaves_no_half_slice_and_the_retry_ends_right(erp: Erp) -> None:
    if erp.kind == "sqlite":
        return  # it has no sessions; the processes that use it are killed in test_staging_kill.py
    staging = open_staging(erp)
    counter = SessionKiller(erp, counted := Staging(erp.engine()), at=0)
    load(staging, invoices(BEFORE), OCTOBER._replace(account="whole"))
    old = dump(erp, with_load=False, account="whole")
    load(counted, after(), OCTOBER._replace(account="whole"))
    new = dump(erp, with_load=False, account="whole")
    failed = 0
    early, late = (5, 1) if THOROUGH else (15, 2)
    last = counter.steps - 12  # the merge's end and the commit
    for at in [*range(1, last, early), *range(last, counter.steps + 1, late)]:
        account, own = str(at), OCTOBER._replace(account=str(at))
        load(staging, invoices(BEFORE), own)
        victim = Staging(erp.engine())
        SessionKiller(erp, victim, at)
        try:
            load(victim, after(), own)
        except (SQLAlchemyError, StagingError):
            failed += 1
        left = dump(erp, with_load=False, account=account)
        assert left in (old, new), f"half a slice after step {at}"
        load(staging, after(), own)
        assert dump(erp, with_load=False, account=account) == new
        assert set(statuses(erp, account)) <= {"committed", "failed", "abandoned"}
    assert failed > 5


@pytest.mark.bare
def test_creating_again_changes_nothing_and_the_ddl_is_complete(erp: Erp) -> None:
    staging = open_staging(erp)
    load(staging, invoices([1]))
    before = dump(erp)
    staging.create()
    assert dump(erp) == before
    names = {t.name for t in staging.tables.metadata.sorted_tables}
    assert names <= set(inspect(erp.engine()).get_table_names())
    views = {"cloudbilling_focus_invoice_detail", "cloudbilling_focus_billing_period", "cloudbilling_margin"}
    assert set(inspect(erp.engine()).get_view_names()) == views
    assert all(any(f"CREATE TABLE {n} " in s for s in ddl(erp.engine(), staging.tables)) for n in names)


@pytest.mark.bare
def test_the_business_term_stands_in_the_columns_comment(erp: Erp) -> None:
    open_staging(erp)
    if erp.kind == "sqlite":
        ((sql,),) = erp.query("SELECT sql FROM sqlite_master WHERE name = 'cloudbilling_invoice'")
        assert "net_amount TEXT /* BT-109 " in sql
    else:
        columns = {c["name"]: c["comment"] for c in inspect(erp.engine()).get_columns("cloudbilling_invoice")}
        assert columns["net_amount"].startswith("BT-109 ")
    assert [str(c) for t in tables().metadata.sorted_tables for c in t.columns if not c.comment] == []


@pytest.mark.bare
def test_temporary_tables_take_what_the_staging_tables_take(erp: Erp) -> None:
    if erp.kind != "mysql":
        return  # elsewhere a database has one character set
    erp.execute(f"ALTER DATABASE {erp.name} CHARACTER SET latin1")
    file = staged.document("D-1", "INV-1", filename="rechnung-😀.pdf")
    items = [*invoices([1], seller_name="Zoë 😀"), file, Finding("INV-1", "unreadable-amounts", "error", "✓", "😀", "")]
    for _ in range(2):
        load(open_staging(erp), items)
    assert rows(erp, "invoice", "seller_name") == [("Zoë 😀",)]
    assert rows(erp, "document", "filename") == [("rechnung-😀.pdf",)]
    assert rows(erp, "finding", "expected, actual") == [("✓", "😀")]


@pytest.mark.bare
def test_without_the_right_to_create_tables_the_error_prints_the_sql(erp: Erp) -> None:
    if erp.kind == "sqlite":
        return  # knows no users
    with suppress(SQLAlchemyError):  # a server keeps its users for longer than a test's database
        erp.execute("CREATE USER cloudbilling_reader" + ("" if erp.kind == "postgres" else "@'%%'"))
    if erp.kind == "mysql":
        erp.execute(f"GRANT SELECT ON {erp.name}.* TO cloudbilling_reader@'%%'")
    engine = erp.engine(login="cloudbilling_reader")
    with pytest.raises(StagingError, match=r"(?s)CREATE TABLE cloudbilling_invoice .*CREATE.* VIEW"):
        Staging(engine).create()


UNREACHED = {
    "sqlite": [({"host": "/no/such/folder/erp.db"}, "the folder must be there")],
    "postgres": [
        ({"port": 1}, "compare host and port"),
        ({"host": "db.invalid"}, "compare host and port"),
        ({"schema": "cloudbilling_nowhere"}, "compare the database's name (schema)"),
        ({"extra": {"sslmode": "yes"}}, "compare the TLS fields"),
    ],
    "mysql": [
        ({"port": 1}, "compare host and port"),
        ({"host": "db.invalid"}, "compare host and port"),
        ({"schema": "cloudbilling_nowhere"}, "compare the database's name (schema)"),
        ({"login": "cloudbilling_nobody", "password": "wrong"}, "compare login and password"),
    ],
}


@pytest.mark.bare
def test_a_database_that_is_not_reached_is_told_in_one_sentence_without_sql(erp: Erp) -> None:
    for fields, words in UNREACHED[erp.kind]:
        with pytest.raises(StagingError) as failed:
            Staging(erp.engine(**fields)).create()
        told = str(failed.value)
        assert words in told, told
        assert "'erp_staging'" in told
        assert "CREATE TABLE" not in told
        assert "\n" not in told


def test_a_wrong_password_of_postgresql_is_not_a_missing_right() -> None:
    error = OperationalError('FATAL:  password authentication failed for user "erp"')
    assert advice(error, lost=False) == "compare login and password"
    assert not may_be_about_rights(error)


def test_what_mysql_says_in_one_number_is_told_by_what_it_may_be() -> None:
    denied = OperationalError(1044, "Access denied for user 'erp'@'%' to database 'other'")
    assert "temporary tables" in advice(denied, lost=False)
    assert may_be_about_rights(denied)
    untrusted = OperationalError(2003, "Can't connect to MySQL server on 'db' ([SSL] certificate verify failed)")
    assert "TLS" in advice(untrusted, lost=False)


@pytest.mark.bare
def test_tables_in_a_schema_of_their_own(erp: Erp) -> None:
    if erp.kind == "sqlite":
        with pytest.raises(ConfigurationError, match="SQLite has no schemas"):
            Staging(erp.engine(), "finance")
        return
    schema = f"{erp.name}-Finance"
    quoted = f'"{schema}"' if erp.kind == "postgres" else f"`{schema}`"
    staging = Staging(erp.engine(), schema)
    staging.create()
    try:
        assert load(staging, invoices([1])).merged.new == 1
        assert erp.query(f"SELECT COUNT(*) FROM {quoted}.cloudbilling_invoice") == [(1,)]
        assert not inspect(erp.engine()).has_table("cloudbilling_invoice")
    finally:
        erp.execute(f"DROP SCHEMA {quoted}" + (" CASCADE" if erp.kind == "postgres" else ""))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"conn_type": "oracle"}, "'oracle' cannot hold"),
        ({"conn_type": "sqlite"}, "path of the database file"),
        ({"conn_type": "sqlite", "host": ":memory:"}, "would be lost"),
        ({"conn_type": "postgres", "schema": "erp"}, "field 'host'"),
        ({"conn_type": "mysql", "host": "db.example.com"}, "field 'schema'"),
        ({**POSTGRES, "extra": {"ssl_mode": "verify-full"}}, "'ssl_mode': .* TLS would not be as you mean it"),
        ({**MYSQL, "extra": {"sslmode": "require"}}, "'sslmode': .* known are ssl,"),
        ({**MYSQL, "extra": {"ssl": "ca.pem"}}, "'ssl': is no JSON object"),
        ({**MYSQL, "extra": {"connect_timeout": "5 s"}}, "number of seconds"),
    ],
)
def test_a_connection_that_cannot_be_used_is_named(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        engine_for(Database("erp_staging", **fields))


def test_tls_extras_reach_the_drivers(tmp_path: Path) -> None:
    extra = {"sslmode": "verify-full", "sslrootcert": str(tmp_path / "ca.pem")}
    for fields in (
        {"conn_type": "postgres", "extra": extra},
        {"conn_type": "mysql", "extra": {"ssl": {"ca": str(tmp_path / "ca.pem")}}},
        {"conn_type": "mysql", "extra": {"ssl_ca": str(tmp_path / "ca.pem")}},
    ):
        engine = engine_for(Database("erp_staging", host="127.0.0.1", schema="erp", port=1, **fields))
        with pytest.raises(StagingError, match=r"(?i)certificate|ca\.pem|refused|no such file"):
            Staging(engine).create()


def test_a_password_and_rows_stay_out_of_errors(erp: Erp) -> None:
    staging = open_staging(erp)
    for view in ("margin", "focus_invoice_detail", "focus_billing_period"):
        erp.execute(f"DROP VIEW cloudbilling_{view}")
    erp.execute("DROP TABLE cloudbilling_invoice_line")
    with pytest.raises(SQLAlchemyError) as caught:
        load(staging, invoices([1], seller_name="Nobody Must See This"))
    assert "Nobody Must See This" not in str(caught.value)
    assert statuses(erp) == ["failed"]
    assert "Nobody Must See This" not in str(rows(erp, "load", "error"))


def test_tables_of_two_schemas_are_told_apart() -> None:
    assert tables("a") is tables("a")
    assert tables("a").invoice.schema == "a"


def test_a_slow_vendor_is_no_slow_statement(erp: Erp) -> None:
    if erp.kind != "postgres":
        return  # no other has rows on their way while the vendor is waited for
    open_staging(erp)
    staging = Staging(erp.engine())

    @event.listens_for(staging.engine, "connect")
    def limit(driver: Any, _: object) -> None:
        driver.execute("SET statement_timeout = '1s'")
        driver.commit()

    with staging.load(OCTOBER) as one:
        for item in invoices(range(1100)):  # more lines than are sent at once
            one.add(item)
        time.sleep(1.3)
        assert one.commit().merged.new == 1100
