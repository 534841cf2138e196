"""What the loads' ledger says of each slice: how its last load ended, and what it holds since the last good one."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import Connection, RowMapping, and_, case, func, or_, select

from airflow_cloudbilling.exact import exact_sum
from airflow_cloudbilling.model import Period, Slice
from airflow_cloudbilling.staging.ledger import OPEN
from airflow_cloudbilling.staging.reading import plain
from airflow_cloudbilling.staging.tables import Tables

AMOUNTS = ("net", "tax", "gross")
Totals = dict[str, dict[str, "Decimal | None"]]  # currency → net, tax, gross; None where nobody stated it


class Held(NamedTuple):
    """What a slice holds, as its last committed load left it."""

    load_id: str
    invoices: int
    lines: int
    totals: Totals
    at: str


class Loaded(NamedTuple):
    """A slice in the ledger.

    :param status: of its last load; ``load_id``, ``dag_id`` and ``at`` too.
    :param dag_id: the DAG whose task loaded it last; None when no task did.
    :param held: None when no load was ever committed.
    """

    slice: Slice
    status: str
    load_id: str
    dag_id: str | None
    at: str
    held: Held | None = None

    @property
    def is_loading(self) -> bool:
        """Whether a load is under way, or waits for the vendor."""
        return self.status in OPEN

    @property
    def failed(self) -> bool:
        """Whether the last load came to nothing."""
        return self.status in ("failed", "abandoned")


def periods_of(connection: Connection, tables: Tables) -> list[Period]:
    """Return every period that was loaded, or was to be, the latest first."""
    period = tables.load.c.period
    return [Period.parse(one) for one in connection.scalars(select(period).distinct().order_by(period.desc()))]


def slices_of(
    connection: Connection, tables: Tables, periods: Collection[Period] | None = None, **key: str
) -> list[Loaded]:
    """Return the slices of some periods, or of all, sorted.

    :param key: ``provider``, ``account`` or ``kind`` that they must have.
    """
    load = tables.load
    names = ("provider", "account", "kind", "period")
    where = [load.c[name] == value for name, value in key.items()]
    if periods is not None:
        where.append(load.c.period.in_([str(period) for period in periods]))
    by = [load.c[name] for name in names]
    bad = case((load.c.status == "committed", 0), else_=1)
    last = func.row_number().over(partition_by=by, order_by=(load.c.started_at.desc(), load.c.load_id))
    good = func.row_number().over(partition_by=by, order_by=(bad, load.c.ended_at.desc(), load.c.load_id))
    ranked = select(load.c.load_id, last.label("last"), good.label("good")).where(*where).subquery()
    chosen = or_(ranked.c.last == 1, and_(ranked.c.good == 1, load.c.status == "committed"))
    more = ("load_id", "status", "dag_id", "started_at", "ended_at", "invoice_count", "line_count", "totals")
    columns = [*by, *(load.c[name] for name in more), ranked.c.last, ranked.c.good]
    query = select(*columns).join(ranked, ranked.c.load_id == load.c.load_id).where(chosen).order_by(*by)
    found: dict[Slice, dict[str, Any]] = {}
    for row in connection.execute(query).mappings():
        slice_ = Slice(row["provider"], row["account"], row["kind"], Period.parse(row["period"]))
        found.setdefault(slice_, {}).update(_parts(row))
    return [Loaded(slice_, **parts) for slice_, parts in found.items()]


def _parts(row: RowMapping) -> dict[str, Any]:
    """Return what a load says of its slice: as the last one, as the last good one, or as both."""
    parts: dict[str, Any] = {}
    if row["last"] == 1:
        parts = {name: row[name] for name in ("status", "load_id", "dag_id")} | {"at": plain(row["started_at"])}
    if row["good"] == 1 and row["status"] == "committed":
        totals = read_totals(row["totals"])
        counts = row["invoice_count"] or 0, row["line_count"] or 0
        parts["held"] = Held(row["load_id"], *counts, totals, plain(row["ended_at"]))
    return parts


def read_totals(text: str | None) -> Totals:
    """Return totals by currency from the JSON that the ledger keeps."""
    totals: dict[str, dict[str, str | None]] = json.loads(text or "{}")
    return {
        currency: {name: Decimal(value) if (value := own.get(name)) is not None else None for name in AMOUNTS}
        for currency, own in totals.items()
    }


def add_up(totals: Iterable[Totals]) -> Totals:
    """Return the sum of totals, to the last digit; an amount that nobody stated is no zero."""
    sums: Totals = {}
    for one in totals:
        for currency, own in one.items():
            known = sums.setdefault(currency, dict.fromkeys(AMOUNTS))
            for name in AMOUNTS:
                if (amount := own[name]) is not None:
                    known[name] = exact_sum(known[name] or Decimal(0), amount)
    return dict(sorted(sums.items()))


def months_down(periods: Sequence[Period], newest: Period, most: int) -> list[Period]:
    """Return periods to show, the latest first: those given, and each month without a load between them.

    :param newest: a month that is shown though nothing was loaded of it.
    """
    shown = sorted({*periods, newest}, reverse=True)
    month, oldest = shown[0].shifted(0), shown[-1]
    found = set(shown)
    while month.start > oldest.start and len(found) < 10 * most:
        month = month.shifted(-1)
        found.add(month)
    return sorted(found, key=lambda one: (one.start, one.end), reverse=True)[:most]
