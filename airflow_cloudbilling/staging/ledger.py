"""The load ledger: which loads ran, what they asked, what they could not read; each entry its own short transaction."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Any, NamedTuple
from uuid import uuid4

from sqlalchemy import ColumnElement, Connection, Engine, Table, and_, insert, select, update

from airflow_cloudbilling.model import Slice
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


def now() -> str:
    """Return the present moment as UTC text with microseconds, which sorts as time does."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S.%f")


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

    def begin(self, slice_: Slice, run: Run) -> tuple[str, str]:
        """Open a load before the first request; earlier tries of the same task instance are marked abandoned.

        :returns: the load's id and the moment from which its reading counts.
        """
        load_id, started = str(uuid4()), now()
        row = {"load_id": load_id, **slice_values(slice_), "status": "running", **run._asdict()}
        with self._write() as connection:
            if run.try_number is not None:
                self._abandon(connection, slice_, self._earlier_try(run), started)
            connection.execute(insert(self.tables.load), [{**row, "fetch_started_at": started, "started_at": started}])
        return load_id, started

    def abandon_older(self, connection: Connection, slice_: Slice, fetch_started_at: str) -> None:
        """Mark the slice's open loads whose reading began earlier: nothing that they hold can be committed any more."""
        self._abandon(connection, slice_, self.tables.load.c.fetch_started_at < fetch_started_at, now())

    def end(self, connection: Connection, load_id: str, status: str, **values: Any) -> None:
        """Write how a load ended, in the caller's transaction."""
        load = self.tables.load
        connection.execute(
            update(load).where(load.c.load_id == load_id).values(status=status, ended_at=now(), **values)
        )

    def fail(self, load_id: str, error: str, **counts: int | None) -> None:
        """Mark a load as failed, with the reason."""
        with self._write() as connection:
            self.end(connection, load_id, "failed", error=error, **counts)

    def requests(self, load_id: str, first: int, exchanges: Iterable[Exchange]) -> None:
        """Add to the request log.

        :param first: sequence number of the first exchange.
        """
        rows = [{"load_id": load_id, "sequence": n, **e._asdict()} for n, e in enumerate(exchanges, first)]
        if rows:
            with self._write() as connection:
                connection.execute(insert(self.tables.request), rows)

    def rejects(self, load_id: str, slice_: Slice, first: int, rejects: Iterable[tuple[str | None, str, str]]) -> None:
        """Add to the reject table.

        :param rejects: invoice id where known, reason, cleaned text of the record.
        """
        base = {"load_id": load_id, **slice_values(slice_)}
        rows = [
            {**base, "sequence": n, "invoice_id": invoice_id, "reason": reason, "raw": raw}
            for n, (invoice_id, reason, raw) in enumerate(rejects, first)
        ]
        if rows:
            with self._write() as connection:
                connection.execute(insert(self.tables.reject), rows)

    def status(self, load_id: str) -> str | None:
        """Return the status of a load."""
        load = self.tables.load
        with self.engine.connect() as connection:
            found: str | None = connection.scalar(select(load.c.status).where(load.c.load_id == load_id))
            return found

    def _earlier_try(self, run: Run) -> ColumnElement[bool]:
        load = self.tables.load
        same = [load.c[name] == getattr(run, name) for name in ("dag_id", "task_id", "run_id", "map_index")]
        return and_(*same, load.c.try_number < run.try_number)

    def _abandon(self, connection: Connection, slice_: Slice, which: ColumnElement[bool], moment: str) -> None:
        load = self.tables.load
        dead = and_(of_slice(load, slice_), load.c.status.in_(OPEN), which)
        connection.execute(update(load).where(dead).values(status="abandoned", ended_at=moment))

    def _write(self) -> Any:
        return self.engine.execution_options(sqlite_begin="BEGIN IMMEDIATE").begin()


def totals_json(totals: Mapping[str, Mapping[str, str]]) -> str:
    """Return totals by currency as JSON with decimal texts."""
    return json.dumps(totals, sort_keys=True)
