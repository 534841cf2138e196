"""Totals per month and vendor as bars: the geometry, which a template draws as SVG. Money stays in the titles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

from airflow_cloudbilling.model import Period
from airflow_cloudbilling.page.ledger import AMOUNTS
from airflow_cloudbilling.page.matrix import Cell, Column, Matrix

WIDTH, HEIGHT = 640, 200
LEFT = 78  # where the scale ends
_TOP, _BOTTOM = 10, 26
_STEPS = (Decimal(1), Decimal(2), Decimal("2.5"), Decimal(5), Decimal(10))


class Bar(NamedTuple):
    """A vendor's part of a month: a rectangle, and the amount that it stands for."""

    x: float
    y: float
    width: float
    height: float
    provider: str
    period: Period
    amount: Decimal


class Tick(NamedTuple):
    """A line of the scale."""

    y: float
    amount: Decimal


class Chart(NamedTuple):
    """What is drawn.

    :param vendors: with the number of the colour that each has in every chart.
    :param labels: where each month's name stands.
    """

    currency: str
    kind: str
    amount: str
    vendors: Mapping[str, int]
    bars: Sequence[Bar]
    ticks: Sequence[Tick]
    labels: Sequence[tuple[float, Period]]


def chart(matrix: Matrix, currency: str, kind: str, amount: str) -> Chart:
    """Return the bars of one currency and kind, the earliest month at the left.

    :param amount: ``net``, ``tax`` or ``gross``.
    """
    assert amount in AMOUNTS  # a view has checked it
    columns = [column for column in matrix.columns if column.kind == kind]
    every = list(dict.fromkeys(column.provider for column in matrix.columns))
    rows = list(reversed(matrix.rows))
    values = [[_amount_of(row.cells[column], currency, amount) for column in columns] for row in rows]
    high = max((sum(v for v in one if v > 0) for one in values), default=Decimal(0))
    low = min((sum(v for v in one if v < 0) for one in values), default=Decimal(0))
    ticks = _scale(Decimal(low), Decimal(high))
    top, bottom = ticks[-1], ticks[0]

    def y(value: Decimal) -> float:
        return round(_TOP + float((top - value) / (top - bottom)) * (HEIGHT - _TOP - _BOTTOM), 2)

    step = (WIDTH - LEFT) / max(len(rows), 1)
    width = min(step * 0.62, 54)
    bars: list[Bar] = []
    for n, (row, own) in enumerate(zip(rows, values, strict=True)):
        x = round(LEFT + n * step + (step - width) / 2, 2)
        for column, value, begin, end in _stacked(columns, own):
            edges = sorted((y(begin), y(end)))
            size = (x, edges[0], round(width, 2), round(max(edges[1] - edges[0], 1), 2))
            bars.append(Bar(*size, column.provider, row.period, value))
    labels = [(round(LEFT + (n + 0.5) * step, 2), row.period) for n, row in enumerate(rows)]
    scale = [Tick(y(one), one) for one in ticks]
    vendors = {column.provider: every.index(column.provider) for column in columns}
    return Chart(currency, kind, amount, vendors, bars, scale, labels)


def _amount_of(cell: Cell, currency: str, amount: str) -> Decimal:
    return cell.totals.get(currency, {}).get(amount) or Decimal(0)


def _stacked(
    columns: Sequence[Column], values: Sequence[Decimal]
) -> Iterator[tuple[Column, Decimal, Decimal, Decimal]]:
    """Yield what is not zero with where it begins and ends: upwards from zero, and what is negative downwards."""
    ends = {True: Decimal(0), False: Decimal(0)}
    for column, value in zip(columns, values, strict=True):
        if value:
            begin, ends[value > 0] = ends[value > 0], ends[value > 0] + value
            yield column, value, begin, ends[value > 0]


def _scale(low: Decimal, high: Decimal) -> list[Decimal]:
    """Return round amounts from below the lowest to above the highest, zero among them."""
    span = high - low or Decimal(1)
    rough = span / 4
    power = Decimal(10) ** (rough.adjusted())
    step = next(power * one for one in _STEPS if power * one >= rough)
    first = (low / step).to_integral_value("ROUND_FLOOR")
    last = (high / step).to_integral_value("ROUND_CEILING") or Decimal(1)
    return [step * n for n in range(int(first), int(last) + 1)]
