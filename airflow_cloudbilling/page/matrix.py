"""The overview: one row a month, one column a vendor and kind, with its state, its counts and its totals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import NamedTuple

from sqlalchemy import Connection

from airflow_cloudbilling.exact import exact_difference
from airflow_cloudbilling.model import Period
from airflow_cloudbilling.page.access import Access
from airflow_cloudbilling.page.ledger import AMOUNTS, Loaded, Totals, add_up, months_down, periods_of, slices_of
from airflow_cloudbilling.page.states import (
    Book,
    Close,
    Sent,
    approved_closes,
    last_changes,
    open_findings,
    posted,
    sent,
)
from airflow_cloudbilling.staging.tables import Tables

MONTHS = 12
COUNTED = ("purchase", "sales")  # consolidated invoices and usage tell of the same money once more


class Column(NamedTuple):
    """A vendor and a kind."""

    provider: str
    kind: str


@dataclass
class Cell:
    """What there is of a vendor and kind in a period, all accounts together.

    :param lacking: accounts that were there the month before.
    :param sent: what became of the last file, of each account that was in one.
    :param approved: the accounts that a person has approved as they are.
    :param posted: the accounts of which an ERP has posted everything.
    """

    period: Period
    column: Column
    slices: list[Loaded] = field(default_factory=list)
    lacking: list[str] = field(default_factory=list)
    findings: Counter[str] = field(default_factory=Counter)
    sent: list[Sent] = field(default_factory=list)
    approved: list[Book] = field(default_factory=list)
    posted: list[Book] = field(default_factory=list)

    @property
    def held(self) -> list[Loaded]:
        """The slices that have been imported."""
        return [one for one in self.slices if one.held]

    @property
    def accounts(self) -> list[str]:
        """The accounts, whether they hold anything or not."""
        return sorted({one.slice.account for one in self.slices} | set(self.lacking))

    @property
    def invoices(self) -> int:
        """How many invoices it holds."""
        return sum(one.held.invoices for one in self.slices if one.held)

    @property
    def totals(self) -> Totals:
        """What they come to by currency."""
        return add_up(one.held.totals for one in self.slices if one.held)

    @property
    def failed(self) -> list[Loaded]:
        """The slices whose last import came to nothing."""
        return [one for one in self.slices if one.failed]

    @property
    def state(self) -> str:
        """The one word for it, see ``STATES``; empty where nothing is expected."""
        if any(one.is_loading for one in self.slices):
            return "loading"
        if self.lacking or len(self.held) < len(self.slices):
            return "missing"
        states = {one.state for one in self.sent}
        for state in ("rejected", "sent"):
            if state in states:
                return state
        filled = [one for one in self.held if one.held and one.held.invoices]
        if "accepted" in states and len(self.sent) == len(filled):
            return "accepted"
        if self.posted and len(self.posted) == len(filled):
            return "posted"
        if self.held and len(self.approved) == len(self.held):
            return "approved"
        if self.findings:
            return "findings"
        return "staged" if self.slices else ""


class Row(NamedTuple):
    """A period with its cells.

    :param close: what a person has approved of it last.
    """

    period: Period
    cells: Mapping[Column, Cell]
    close: Close | None = None

    @property
    def is_approved(self) -> bool:
        """Whether all of it is approved as it is."""
        return all(len(cell.approved) == len(cell.slices) for cell in self.cells.values() if cell.slices)

    def totals(self, kind: str) -> Totals:
        """Return what its invoices of a kind come to, of all vendors."""
        return add_up(cell.totals for column, cell in self.cells.items() if column.kind == kind)

    @property
    def difference(self) -> Totals:
        """What was sold less what was bought, in currencies that have both."""
        bought, sold = (self.totals(kind) for kind in COUNTED)
        return {
            currency: {name: _less(sold[currency][name], bought[currency][name]) for name in AMOUNTS}
            for currency in sold
            if currency in bought
        }


class Matrix(NamedTuple):
    """Some months.

    :param earlier: the month from which on one may look further back; None where there is nothing.
    """

    columns: Sequence[Column]
    rows: Sequence[Row]
    earlier: Period | None = None

    @property
    def states(self) -> Counter[str]:
        """How many cells are in which state."""
        return Counter(cell.state for row in self.rows for cell in row.cells.values() if cell.state)

    @property
    def currencies(self) -> list[str]:
        """The currencies, those of the most cells first."""
        found = Counter(name for row in self.rows for cell in row.cells.values() for name in cell.totals)
        return sorted(found, key=lambda name: (-found[name], name))


def matrix(connection: Connection, tables: Tables, access: Access, today: date, until: Period | None = None) -> Matrix:
    """Return a year of months, the latest first.

    :param today: months that have ended by then are expected to be there.
    :param until: the latest month to show; None: the last that there is.
    """
    known = periods_of(connection, tables)
    if not known:
        return Matrix((), ())
    newest = max(known[0], Period.month(today.year, today.month - 1))
    every = months_down(known, newest, len(known) + 1200)
    shown = [one for one in every if until is None or one.start <= until.start]
    before = shown[MONTHS : MONTHS + 1]  # which is read too, since a month lacks what the one before has
    shown = shown[:MONTHS]
    slices = access.of(slices_of(connection, tables, [*shown, *before]))
    cells = _cells(slices, shown, newest)
    _mark(connection, tables, cells, shown)
    columns = sorted({column for _, column in cells}, key=lambda one: (one.provider, _place(one.kind)))
    closes = approved_closes(connection, tables, shown)
    rows = [
        Row(one, {column: cells.get((one, column)) or Cell(one, column) for column in columns}, closes.get(str(one)))
        for one in shown
    ]
    return Matrix(columns, rows, before[0] if before else None)


def _cells(slices: Iterable[Loaded], shown: Sequence[Period], newest: Period) -> dict[tuple[Period, Column], Cell]:
    cells: dict[tuple[Period, Column], Cell] = {}
    books: dict[Book, set[Period]] = {}
    for one in slices:
        column, period = Column(one.slice.provider, one.slice.kind), one.slice.period
        cells.setdefault((period, column), Cell(period, column)).slices.append(one)
        if one.held:
            books.setdefault((one.slice.provider, one.slice.account, one.slice.kind), set()).add(period)
    tried = {(one.slice[:3], one.slice.period) for one in slices}
    for (provider, account, kind), present in books.items():
        for period in shown:
            later = any(other.start > period.start for other in present)
            due = period.is_month and period.start <= newest.start and (period.shifted(-1) in present or later)
            earlier = any(other.start < period.start for other in present)
            if due and earlier and ((provider, account, kind), period) not in tried:
                column = Column(provider, kind)
                cells.setdefault((period, column), Cell(period, column)).lacking.append(account)
    return {key: cell for key, cell in cells.items() if key[0] in set(shown)}


Cells = Mapping[tuple[Period, Column], Cell]


def _cell(cells: Cells, book: Book, period: str) -> Cell | None:
    cell = cells.get((Period.parse(period), Column(book[0], book[2])))
    return cell if cell and book[1] in cell.accounts else None


def _mark(connection: Connection, tables: Tables, cells: Cells, shown: Sequence[Period]) -> None:
    """Write findings, approvals, and what became of the invoices into the cells."""
    for (book, period), counts in open_findings(connection, tables, shown).items():
        if cell := _cell(cells, book, period):
            cell.findings += counts
    changes = last_changes(connection, tables, shown)
    for period, close in approved_closes(connection, tables, shown).items():
        for book in close.books:
            if (cell := _cell(cells, book, period)) and changes.get((book, period), "") <= close.read_at:
                cell.approved.append(book)
    _mark_sent(connection, tables, cells, shown)


def _mark_sent(connection: Connection, tables: Tables, cells: Cells, shown: Sequence[Period]) -> None:
    for book, period in posted(connection, tables, shown):
        if cell := _cell(cells, book, period):
            cell.posted.append(book)
    for (book, period), one in sent(connection, tables, shown).items():
        if cell := _cell(cells, book, period):
            cell.sent.append(one)


def _less(sold: Decimal | None, bought: Decimal | None) -> Decimal | None:
    return None if sold is None or bought is None else exact_difference(sold, bought)


def _place(kind: str) -> tuple[int, str]:
    order = ("purchase", "sales", "consolidated", "usage")
    return order.index(kind) if kind in order else len(order), kind
