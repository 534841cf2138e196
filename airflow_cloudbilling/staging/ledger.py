"""The load ledger: which loads ran, what they asked, what they could not read; each entry its own short transaction."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple
from uuid import uuid4

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Select,
    Table,
    and_,
    delete,
    func,
    insert,
    literal,
    select,
    update,
)

from airflow_cloudbilling.model import Period, Reject, Slice
from airflow_cloudbilling.staging.columns import MOMENT
from airflow_cloudbilling.staging.dialects import dialect_of, moment_text
from airflow_cloudbilling.staging.results import Loaded, Merged
from airflow_cloudbilling.staging.spool import Spool, SpooledPage
from airflow_cloudbilling.staging.tables import Tables

OPEN = ("running", "waiting")


class Run(NamedTuple):
    """The task instance that loads, as the ledger names it."""

    dag_id: str | None = None
    task_id: str | None = None
    run_id: str | None = None
    map_index: int | None = None
    try_number: int | None = None


class Exchange(NamedTuple):
    """One request to a vendor and its answer, without secrets."""

    url: str
    status: int | None
    sha256: str | None
    method: str | None = None  # this and the following: of a good answer, for a replay
    headers: str | None = None
    request_key: str | None = None


class Original(NamedTuple):
    """A load that can be read again from the archive."""

    load_id: str
    slice: Slice
    status: str
    fetch_started_at: str


def of_slice(table: Table, slice_: Slice, *, period: bool = True) -> ColumnElement[bool]:
    """Return the condition that a row belongs to the slice, or, without its period, to the slice's account and kind."""
    same = and_(table.c.provider == slice_.provider, table.c.account == slice_.account, table.c.kind == slice_.kind)
    return and_(same, table.c.period == str(slice_.period)) if period else same


def slice_values(slice_: Slice) -> dict[str, str]:
    """Return the slice as column values."""
    return {**slice_._asdict(), "period": str(slice_.period)}


class Ledger:
    """Writes ``cloudbilling_load`` and what hangs on it.

    :param engine: of the staging database.
    :param tables: of the staging schema.
    """

    def __init__(self, engine: Engine, tables: Tables) -> None:
        self.engine = engine
        self.tables = tables
        self._spool = Spool(engine, tables)
        self.now = dialect_of(engine.dialect.name).now

    def begin(self, slice_: Slice, run: Run, original: Original | None = None) -> tuple[str, str]:
        """Open a load before the first request, or take up again the one with which this task instance waits.

        Its reading counts from when it began, if the pages that it received are spooled; else from now.
        Open loads of its earlier tries are marked abandoned.

        :param original: the load that is read again; the reading counts from when that one's did.
        :returns: the load's id and the moment from which its reading counts.
        """
        load = self.tables.load
        with self._write() as connection:
            started = self.now(connection)
            if waiting := connection.execute(self._waiting(slice_, run)).first():
                return waiting.load_id, self._take_up(connection, waiting.load_id, waiting.fetch_started_at, started)
            if run.try_number is not None:
                earlier = and_(*self._of_task(run), load.c.try_number < run.try_number)
                self._abandon(connection, slice_, earlier, started)
            read_at = original.fetch_started_at if original else started
            row = {"load_id": str(uuid4()), **slice_values(slice_), "status": "running", **run._asdict()}
            times = {"fetch_started_at": read_at, "started_at": started}
            connection.execute(insert(load), [{**row, **times, "replay_of": original.load_id if original else None}])
        return row["load_id"], read_at

    def _take_up(self, connection: Connection, load_id: str, read_at: datetime | str, now: str) -> str:
        """Let a waiting load run again; without pages in the spool its reading begins anew.

        What the conversation says of records it says again, so rejects are forgotten.
        """
        load, reject, request = self.tables.load, self.tables.reject, self.tables.request
        counts_from = moment_text(read_at)
        if not self._spool.holds(connection, load_id):
            counts_from = now
            unanswered = update(request).where(request.c.load_id == load_id).values(request_key=None)
            connection.execute(unanswered)  # a replay would give the same answer twice
        connection.execute(delete(reject).where(reject.c.load_id == load_id))
        again = {"status": "running", "fetch_started_at": counts_from, "ended_at": None, "error": None}
        connection.execute(update(load).where(load.c.load_id == load_id).values(again))
        return counts_from

    def abandon_older(self, connection: Connection, slice_: Slice, fetch_started_at: str) -> None:
        """Mark the slice's open loads whose reading began earlier: nothing that they hold can be committed any more."""
        older = self.tables.load.c.fetch_started_at < literal(fetch_started_at, MOMENT)
        self._abandon(connection, slice_, older, self.now(connection))

    def end(self, connection: Connection, load_id: str, status: str, **values: Any) -> None:
        """Write how a load ended, or that it waits, in the caller's transaction."""
        load = self.tables.load
        if status not in OPEN:
            self._spool.forget(connection, [load_id])
        ended = {"status": status, "ended_at": self.now(connection), **values}
        connection.execute(update(load).where(load.c.load_id == load_id).values(ended))

    def stop(self, load_id: str, status: str, error: str, **counts: int | None) -> None:
        """Mark a load as failed or waiting, with the reason, unless it has ended already.

        A connection that breaks while a commit is under way may hide a commit that went well.
        """
        load = self.tables.load
        with self._write() as connection:
            known = select(load.c.status).where(load.c.load_id == load_id)
            if connection.scalar(known) in OPEN:
                self.end(connection, load_id, status, error=error, **counts)

    def requests(self, load_id: str, exchanges: Iterable[Exchange]) -> None:
        """Add to the request log."""
        self._append(self.tables.request, load_id, [e._asdict() for e in exchanges])

    def rejects(self, load_id: str, slice_: Slice, rejects: Iterable[Reject]) -> None:
        """Add to the reject table."""
        self._append(self.tables.reject, load_id, [{**slice_values(slice_), **r._asdict()} for r in rejects])

    def _append(self, table: Table, load_id: str, rows: list[dict[str, Any]]) -> None:
        if not rows:
            return
        with self._write() as connection:
            last = select(func.max(table.c.sequence)).where(table.c.load_id == load_id)
            first = (connection.scalar(last) or 0) + 1
            numbered = [{**row, "load_id": load_id, "sequence": n} for n, row in enumerate(rows, first)]
            connection.execute(insert(table), numbered)

    def original(self, slice_: Slice, *statuses: str) -> Original | None:
        """Return the slice's load of these statuses whose reading began last; of a replay, the one that it read."""
        load = self.tables.load
        last = load.c.fetch_started_at.desc()
        of_status = and_(of_slice(load, slice_), load.c.status.in_(statuses))
        which = select(func.coalesce(load.c.replay_of, load.c.load_id)).where(of_status).order_by(last).limit(1)
        with self.engine.connect() as connection:
            found = connection.scalar(which)
        return self.load(found) if found else None

    def load(self, load_id: str) -> Original | None:
        """Return a load by its id; of a replay, the one that it read."""
        load = self.tables.load
        wanted = select(func.coalesce(load.c.replay_of, load.c.load_id)).where(load.c.load_id == load_id)
        names = ("load_id", "provider", "account", "kind", "period", "status", "fetch_started_at")
        with self.engine.connect() as connection:
            row = connection.execute(
                select(*(load.c[n] for n in names)).where(load.c.load_id == wanted.scalar_subquery())
            ).first()
        if row is None:
            return None
        slice_ = Slice(row.provider, row.account, row.kind, Period.parse(row.period))
        return Original(row.load_id, slice_, row.status, moment_text(row.fetch_started_at))

    def answers(self, load_id: str) -> list[Exchange]:
        """Return the good answers of a load in the order in which they came."""
        request = self.tables.request
        good = and_(request.c.load_id == load_id, request.c.request_key.is_not(None))
        columns = [request.c[name] for name in Exchange._fields]
        with self.engine.connect() as connection:
            return [Exchange(*row) for row in connection.execute(select(*columns).where(good).order_by("sequence"))]

    def spool(self, load_id: str, pages: Iterable[SpooledPage]) -> None:
        """Keep pages that a load has received, before it waits; their bodies without what nobody may store.

        Once more before the next wait, with the pages received since. They go when the load ends.
        """
        self._spool.write(load_id, pages)

    def spooled(self, load_id: str) -> list[SpooledPage]:
        """Return the pages that a load received before it waited, in their order; bodies are read when iterated."""
        return self._spool.pages(load_id)

    def committed_by(self, run: Run, slice_: Slice) -> Loaded | None:
        """Return the load of a slice that this very task instance and try has committed, as it ended.

        For a task of several slices that is taken up after a wait.
        """
        load = self.tables.load
        if run.try_number is None:  # nobody knows which task that was
            return None
        own = and_(of_slice(load, slice_), load.c.status == "committed", *self._of_try(run))
        with self.engine.connect() as connection:
            row = connection.execute(select(load).where(own).order_by(load.c.ended_at.desc())).mappings().first()
        if row is None:
            return None
        changes = {name: row[f"{name}_count"] for name in ("new", "changed", "unchanged", "removed", "frozen")}
        sizes = {f"{name}s": row[f"{name}_count"] for name in ("invoice", "line", "document")}
        merged = Merged(**changes, **sizes, totals=json.loads(row["totals"]))
        records = (row[f"{name}_count"] for name in ("received", "outside", "rejected"))
        return Loaded(slice_, row["load_id"], "committed", merged, *records)

    def accounts(self, provider: str, kind: str, period: Period) -> list[str]:
        """Return, sorted, the accounts of which a period has been loaded."""
        load = self.tables.load
        loaded = and_(load.c.provider == provider, load.c.kind == kind, load.c.period == str(period))
        found = select(load.c.account).where(loaded, load.c.status == "committed").distinct()
        with self.engine.connect() as connection:
            return sorted(connection.scalars(found))

    def status(self, load_id: str) -> str | None:
        """Return the status of a load."""
        load = self.tables.load
        with self.engine.connect() as connection:
            found: str | None = connection.scalar(select(load.c.status).where(load.c.load_id == load_id))
            return found

    def _of_task(self, run: Run) -> list[ColumnElement[bool]]:
        load = self.tables.load
        return [load.c[name] == getattr(run, name) for name in ("dag_id", "task_id", "run_id", "map_index")]

    def _of_try(self, run: Run) -> list[ColumnElement[bool]]:
        return [*self._of_task(run), self.tables.load.c.try_number == run.try_number]

    def _waiting(self, slice_: Slice, run: Run) -> Select[Any]:
        load = self.tables.load
        waits = and_(of_slice(load, slice_), load.c.status == "waiting", *self._of_try(run))
        return select(load.c.load_id, load.c.fetch_started_at).where(waits)

    def _abandon(self, connection: Connection, slice_: Slice, which: ColumnElement[bool], moment: str) -> None:
        load = self.tables.load
        is_open = load.c.status.in_(OPEN)
        found = select(load.c.load_id).where(of_slice(load, slice_), is_open, which).order_by(load.c.load_id)
        # Read first: two copies that search and lock in one statement may each wait for the other on MariaDB.
        if dead := list(connection.scalars(found)):
            self._spool.forget(connection, dead)
            ended = {"status": "abandoned", "ended_at": moment}
            connection.execute(update(load).where(load.c.load_id.in_(dead), is_open).values(ended))

    def _write(self) -> Any:
        return self.engine.execution_options(sqlite_begin="BEGIN IMMEDIATE").begin()


def totals_json(totals: Mapping[str, Mapping[str, str | None]]) -> str:
    """Return totals by currency as JSON with decimal texts."""
    return json.dumps(totals, sort_keys=True)
