"""A staging database that fails: what is there stays whole, the error says what to do, and the retry ends right."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import pytest
import small_disk
from proxy import Proxy
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError
from staged import NAMED, OCTOBER, Erp, dump, invoices, load, open_staging, rows, statuses
from test_staging_kill import BEFORE, after

from airflow_cloudbilling.errors import CloudBillingError
from airflow_cloudbilling.staging import dialects, engine
from airflow_cloudbilling.staging.loader import Staging

on_servers = pytest.mark.parametrize("erp", NAMED, indirect=True)
WORDS = {
    "busy": "somebody else works on the same rows; run the task again",
    "full": "the database's disk is full; free space there",
    "read only": "the database takes no writing; name the primary server",
    "rights": "the user lacks a right",
    "older": "the tables are not those of this version",
    "lost": "the connection was lost; nothing half-written stays, run the task again",
}
INJECTED = {  # what a server says by itself → PostgreSQL's SQLSTATE, MySQL's number
    "busy": ("40001", 1205),
    "full": ("53100", 1114),
}


def told(erp: Erp, staging: Staging, words: str) -> None:
    """Load, and see that it fails in words, changes nothing, and ends right the next time, without the fault."""
    before = dump(erp)
    with pytest.raises((SQLAlchemyError, CloudBillingError)) as failed:
        load(staging, after())
    assert "'erp_staging'" in str(failed.value)
    assert words in str(failed.value)
    assert dump(erp) == before


def mended(erp: Erp) -> None:
    """See that a retry brings the slice to the vendor's truth, and that no dead load is left open."""
    merged = load(open_staging(erp), after()).merged
    assert (merged.new, merged.changed, merged.removed) == (1, 1, 1)
    assert load(open_staging(erp), after()).merged.unchanged == 30
    assert set(statuses(erp)) <= {"committed", "failed", "abandoned"}


@pytest.fixture
def staging(erp: Erp) -> Staging:
    """Return the tables with October as it was."""
    found = open_staging(erp)
    load(found, invoices(BEFORE))
    return found


def on_connect(staging: Staging, sql: str) -> None:
    """Let every session of an engine begin with a statement."""

    @event.listens_for(staging.engine, "connect")
    def begin(driver: Any, _: object) -> None:
        driver.cursor().execute(sql)
        driver.commit()


def signal(erp: Erp, kind: str, times: int) -> None:
    """Let the server itself fail as many merges with an error of its own, and none after them.

    What counts them outlives the transactions that it ends.
    """
    postgres, mysql = INJECTED[kind]
    if erp.kind == "postgres":
        erp.execute("CREATE SEQUENCE faults")
        body = (
            f"IF nextval('faults') <= {times} THEN RAISE 'injected' USING ERRCODE = '{postgres}'; END IF; RETURN NULL;"
        )
        erp.execute(f"CREATE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$")
        erp.execute("CREATE TRIGGER fault AFTER INSERT ON cloudbilling_slice_invoice EXECUTE FUNCTION fault()")
    else:
        erp.execute("CREATE TABLE faults (n INT AUTO_INCREMENT PRIMARY KEY) ENGINE = MyISAM")
        raised = f"SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = {mysql}, MESSAGE_TEXT = 'injected';"
        body = f"INSERT INTO faults VALUES (NULL); IF LAST_INSERT_ID() <= {times} THEN {raised} END IF;"
        erp.execute(f"CREATE TRIGGER fault AFTER INSERT ON cloudbilling_slice_invoice FOR EACH ROW BEGIN {body} END")


@pytest.mark.thorough
@on_servers
@pytest.mark.parametrize("kind", INJECTED)
def test_a_server_that_refuses_in_the_middle_of_the_merge(erp: Erp, staging: Staging, kind: str) -> None:
    signal(erp, kind, times=3)  # deadlocks and the like are tried three times
    told(erp, staging, WORDS[kind])
    erp.execute("DROP TRIGGER fault" + (" ON cloudbilling_slice_invoice" if erp.kind == "postgres" else ""))
    mended(erp)


@pytest.mark.thorough
@on_servers
def test_a_transaction_that_the_server_gives_up_is_run_again(erp: Erp, staging: Staging) -> None:
    signal(erp, "busy", times=2)
    assert load(staging, after()).merged.new == 1
    assert statuses(erp) == ["committed", "committed"]


@on_servers
def test_a_real_deadlock_ends_with_both_done(erp: Erp, staging: Staging) -> None:
    """Somebody holds a row and wants one that the merge holds, which wants the first one."""
    other, holding, asked = erp.engine(), threading.Event(), threading.Event()
    change = "UPDATE cloudbilling_{} SET {} = 'x' WHERE invoice_id = 'INV-28'"
    changes = [change.format("invoice", "status"), change.format("invoice_line", "description")]
    first, then = changes if erp.kind == "postgres" else reversed(changes)  # as the server takes its own locks

    def somebody() -> None:
        with suppress(SQLAlchemyError), other.connect() as connection:  # the server may choose this one to give way
            connection.exec_driver_sql(first)
            holding.set()
            asked.wait(20)
            time.sleep(0.3)
            connection.exec_driver_sql(then)
            connection.commit()

    thread = threading.Thread(target=somebody)
    thread.start()
    assert holding.wait(20)
    event.listen(staging.engine, "before_cursor_execute", lambda *a: asked.set() if "DELETE" in a[2] else None)
    deadlocks = list[str]()
    for one in (staging.engine, other):
        event.listen(one, "handle_error", lambda context: deadlocks.append(str(context.original_exception).lower()))
    assert load(staging, after()).merged.new == 1
    thread.join()
    assert "deadlock" in "".join(deadlocks)
    assert load(open_staging(erp), after()).merged.unchanged == 30
    assert set(statuses(erp)) == {"committed"}


@pytest.mark.thorough
def test_a_lock_that_stays_taken(erp: Erp, staging: Staging, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialects, "LOCK_SECONDS", 1)
    monkeypatch.setattr(engine, "BUSY_SECONDS", 1)
    staging = Staging(erp.engine())
    with open_staging(erp).engine.connect() as other, staging.locked(other, OCTOBER):
        before = dump(erp)
        with pytest.raises((SQLAlchemyError, CloudBillingError)) as failed:
            load(staging, after())
        assert any(words in str(failed.value) for words in (WORDS["busy"], "Another load of the same account"))
        assert dump(erp) == before
    mended(erp)


READ_ONLY = {
    "sqlite": "PRAGMA query_only = ON",
    "postgres": "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "mysql": "SET SESSION TRANSACTION READ ONLY",
}


@pytest.mark.thorough
def test_a_database_that_takes_no_writing(erp: Erp, staging: Staging) -> None:
    refusing = Staging(erp.engine())
    on_connect(refusing, READ_ONLY[erp.kind])
    told(erp, refusing, WORDS["read only"])
    mended(erp)


@pytest.mark.parametrize("erp", ["sqlite"], indirect=True)
def test_a_disk_that_is_full(erp: Erp, staging: Staging) -> None:
    ((pages,),) = erp.query("PRAGMA page_count")
    full = Staging(erp.engine())
    on_connect(full, f"PRAGMA max_page_count = {pages}")
    before = dump(erp)
    with pytest.raises(SQLAlchemyError, match=WORDS["full"]):
        load(full, invoices(range(2000)), allow_removals=True)
    assert dump(erp) == before
    mended(erp)


@pytest.mark.slow
@pytest.mark.parametrize("kind", small_disk.KINDS)
def test_a_disk_that_really_is_full(
    kind: str, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    with small_disk.small(kind, monkeypatch) as here:
        load(open_staging(here.erp), invoices(BEFORE))
        before = dump(here.erp)
        here.fill()
        words = WORDS["full"] if kind != "mysql" else f"{WORDS['full']}|{WORDS['lost']}"
        with pytest.raises(SQLAlchemyError, match=words):
            load(Staging(here.erp.engine()), invoices(range(3000)), allow_removals=True)
        here.free()
        assert dump(here.erp) == before
        mended(here.erp)
    record_property("full disks", 1)


@pytest.mark.thorough
@on_servers
def test_a_user_without_the_right_to_write(erp: Erp, staging: Staging) -> None:
    name = "cloudbilling_looker"
    at = "" if erp.kind == "postgres" else "@'%%'"
    try:
        erp.execute(f"CREATE USER {name}{at}")
    except SQLAlchemyError:
        pass  # a server keeps its users for longer than a test's database
    on = "ALL TABLES IN SCHEMA public" if erp.kind == "postgres" else f"{erp.name}.*"
    more = ", CREATE TEMPORARY TABLES" if erp.kind == "mysql" else ""
    erp.execute(f"GRANT SELECT{more} ON {on} TO {name}{at}")
    try:
        told(erp, Staging(erp.engine(login=name)), WORDS["rights"])
        mended(erp)
    finally:
        erp.execute(f"REVOKE SELECT{more} ON {on} FROM {name}{at}")


@pytest.mark.bare
@pytest.mark.thorough
def test_tables_that_somebody_changed(erp: Erp, staging: Staging) -> None:
    was = rows(erp, "invoice")
    erp.execute("ALTER TABLE cloudbilling_load DROP COLUMN try_number")
    with pytest.raises(SQLAlchemyError, match=WORDS["older"]):
        load(open_staging(erp), after())
    assert rows(erp, "invoice") == was
    erp.execute("DELETE FROM cloudbilling_schema_version")  # what the error says
    mended(erp)


@contextmanager
def behind(erp: Erp) -> Iterator[tuple[Proxy, Staging]]:
    """Reach a database through a proxy."""
    with Proxy(int(erp.connection["port"])) as proxy:
        yield proxy, Staging(erp.engine(host="127.0.0.1", port=proxy.port))


@on_servers
@pytest.mark.parametrize(
    "moment", ["at", *(pytest.param(each, marks=pytest.mark.slow) for each in ("before", "after"))]
)
def test_a_connection_that_is_lost_around_the_commit(erp: Erp, staging: Staging, moment: str) -> None:
    """At: the server commits, and nobody hears of it; neither the ledger nor the retry may take it for undone."""
    before, merging, committed = dump(erp, with_load=False), False, False
    with behind(erp) as (proxy, reached):

        def executing(*args: Any) -> None:
            nonlocal merging
            merging = merging or "INTO cloudbilling_slice_invoice" in args[2]
            proxy.mute = proxy.mute or (moment == "before" and merging) or (moment == "after" and committed)

        def committing(_: object) -> None:
            nonlocal committed
            committed = merging
            proxy.mute = proxy.mute or (moment == "at" and merging)

        event.listen(reached.engine, "before_cursor_execute", executing)
        event.listen(reached.engine, "commit", committing)
        hears = nullcontext() if moment == "after" else pytest.raises(SQLAlchemyError, match=WORDS["lost"])
        with hears:
            load(reached, after())
    time.sleep(0.1)  # the server may be at it still
    assert (dump(erp, with_load=False) == before) == (moment == "before")
    assert statuses(erp) == ["committed", "running" if moment == "before" else "committed"]
    merged = load(open_staging(erp), after()).merged
    assert (merged.new, merged.unchanged) == ((1, 28) if moment == "before" else (0, 30))
    assert statuses(erp)[1:] == ["abandoned" if moment == "before" else "committed", "committed"]
