"""What is earned on a month: the margin report by customer, kept as long as the month stays as it is."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TimeoutError  # an own class before Python 3.11
from threading import Lock
from typing import NamedTuple

from sqlalchemy import Connection, Engine, func, select

from airflow_cloudbilling.model import Period
from airflow_cloudbilling.staging.margin_report import MarginReport, Sums
from airflow_cloudbilling.staging.reading import snapshot
from airflow_cloudbilling.staging.tables import Tables

_CUSTOMERS = 200  # shown; the file has them all
_KEPT = 32  # months, of all databases
_PATIENCE = 0.15  # seconds that a view waits for what is soon there


class Line(NamedTuple):
    """A customer in one currency."""

    customer_id: str
    name: str
    currency: str
    sums: Sums


class Margin(NamedTuple):
    """A month's margin.

    :param left_out: how many customers are not among the ``rows``, which are those that most was sold to.
    """

    rows: Sequence[Line]
    totals: Mapping[str, Sums]
    charges: int
    below_cost: int
    left_out: int


class Margins:
    """Adds margins up in a thread of its own; a month that no load has changed since is not read again."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._thread = ThreadPoolExecutor(1, "cloudbilling-margin")
        self._kept: OrderedDict[tuple[object, ...], Future[Margin]] = OrderedDict()

    def of(self, connection: Connection, tables: Tables, period: Period) -> Margin | None:
        """Return the margin of a month; None while it is being added up, which takes seconds where there is a lot."""
        load = tables.load
        changes = select(func.count(), func.max(load.c.ended_at)).where(load.c.status == "committed")
        key = (connection.engine.url, tables.metadata.schema, period, *connection.execute(changes).one())
        with self._lock:
            if key not in self._kept:
                self._kept[key] = self._thread.submit(_read, connection.engine, tables, period)
                while len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            made = self._kept[key]
        try:
            return made.result(_PATIENCE)
        except TimeoutError:
            return None
        except BaseException:
            with self._lock:
                self._kept.pop(key, None)  # the next one who asks has it read again
            raise


def _read(engine: Engine, tables: Tables, period: Period) -> Margin:
    with snapshot(engine) as connection:
        report = MarginReport(connection, tables)
        for _ in report.charges([period]):
            pass
    lines = [
        Line(one.customer_id, report.names.get(one.customer_id, ""), one.currency, sums)
        for one, sums in report.sums.items()
    ]
    lines.sort(key=lambda line: (line.currency, -line.sums.sales, -line.sums.purchase, line.customer_id))
    charges = sum(report.states.values())
    return Margin(lines[:_CUSTOMERS], report.totals, charges, report.below_cost, max(len(lines) - _CUSTOMERS, 0))
