"""What the tables hold after an import, compared row by row and sum by sum with what the vendor knows to be true."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from bench_task import CLOUDBILLING, DLT
from peers.dlt_rest_api import SCHEMA
from peers.tables import INVOICE, LINE, Plain
from sqlalchemy import Column, Engine, Integer, MetaData, Table, inspect, text

from airflow_cloudbilling.staging.columns import AMOUNT, DAY, TEXT, code

TYPES = {"amount": AMOUNT, "day": DAY, "text": TEXT, "code": code(255), "number": Integer()}
TOTALS = 3  # net, tax, gross
AMOUNTS = 4  # quantity, unit price, discount, net
Sums = dict[str, list[Decimal]]


class Where(NamedTuple):
    """Where a contender's rows are.

    :param invoices: SELECT of ``own`` (the id), ``currency`` and the totals ``a1`` to ``a3``.
    :param lines: SELECT of ``own``, line id, description, customer's name and the amounts ``a1`` to ``a4``.
    :param staged: whether credit notes are negative and absent totals computed, as in this package's tables.
    :param as_text: whether amounts are texts, which the database cannot add up.
    """

    invoices: str
    lines: str
    staged: bool
    as_text: bool


def where(contender: str, vendor: str, engine: Engine) -> Where:
    """Return where a contender's rows are."""
    as_text = engine.dialect.name == "sqlite"
    if contender.startswith(CLOUDBILLING):
        return Where(_heads("cloudbilling_invoice"), _lines("cloudbilling_invoice_line"), True, as_text)
    if contender.startswith(DLT):
        return _of_dlt(vendor, engine)
    return Where(_heads(INVOICE.name), _lines(LINE.name), False, as_text)


def _heads(table: str) -> str:
    return f"SELECT invoice_id AS own, currency, net_amount AS a1, tax_amount AS a2, gross_amount AS a3 FROM {table}"


def _lines(table: str) -> str:
    amounts = "quantity AS a1, unit_price AS a2, discount AS a3, net_amount AS a4"
    return f"SELECT invoice_id AS own, line_id, description, customer_name, {amounts} FROM {table}"


DLT_COLUMNS = {  # vendor → table of lines, totals, customer's name, amounts
    "store365": ("invoices__lines", ("total_excl_vat", "vat_amount", "total_incl_vat"), "end_customer_name",
                 ("quantity", "unit_price", "discount", "total_excl_vat")),
    "cloudonex": ("invoices__items", ("subtotal", "tax", "amount"), "NULL",
                  ("qty", "amount", "discount_amount", "total")),
}  # fmt: skip


KINDS = ("", "__v_double", "__v_bigint")  # of one column, where its values vary


def _of_dlt(vendor: str, engine: Engine) -> Where:
    """Return where dlt's rows are: lines below their invoices; a column whose type varied is several columns."""
    table, totals, customer, amounts = DLT_COLUMNS[vendor]
    schema = SCHEMA if engine.dialect.name == "postgresql" else None

    def chosen(alias: str, table: str, names: Sequence[str]) -> str:
        there = {column["name"] for column in inspect(engine).get_columns(table, schema)}
        parts = ([f"{alias}.{name}{kind}" for kind in KINDS if f"{name}{kind}" in there] for name in names)
        return ", ".join(f"COALESCE({', '.join(found)}, NULL) AS a{n}" for n, found in enumerate(parts, 1))

    place = f"{schema}." if schema else ""
    heads = f"SELECT i.id AS own, i.currency, {chosen('i', 'invoices', totals)} FROM {place}invoices AS i"
    lines = (
        f"SELECT i.id AS own, l.id AS line_id, l.description, {customer}, {chosen('l', table, amounts)} "
        f"FROM {place}{table} AS l JOIN {place}invoices AS i ON i._dlt_id = l._dlt_parent_id"
    )
    return Where(heads, lines, False, False)


class Checked(NamedTuple):
    """What was found.

    :param correct: rows that are there and right in every column looked at.
    :param rows: that should be there.
    :param duplicates: rows beyond the first of each invoice and line.
    :param exact: whether every sum by currency, as the database adds it up, is the vendor's to the last digit.
    """

    correct: int
    rows: int
    duplicates: int
    exact: bool


def create_plain(engine: Engine) -> None:
    """Create the tables of the peers, with their keys."""
    made = MetaData()
    for plain in (INVOICE, LINE):
        Table(plain.name, made, *_columns(plain), mysql_charset="utf8mb4", mysql_engine="InnoDB")
    made.create_all(engine)


def _columns(plain: Plain) -> Iterator[Column[Any]]:
    for name, kind in plain.key.items():
        yield Column(name, TYPES[kind], primary_key=True, autoincrement=False)
    for name, kind in plain.others.items():
        yield Column(name, TYPES[kind])


class Truth:
    """What the vendor knows: invoices repeat after the last original.

    :param file: as the vendor wrote it.
    :param staged: see :class:`Where`.
    """

    def __init__(self, file: Path, *, staged: bool) -> None:
        said = json.loads(file.read_text())
        self.invoices, self.lines = said["invoices"], said["lines"]
        self._originals = [self._original(one, staged) for one in said["originals"]]

    def invoice(self, invoice_id: str) -> tuple[Any, ...]:
        """Return the currency and the totals of an invoice, by the number that its id ends in."""
        return self._originals[int(invoice_id[-5:]) % len(self._originals)][0]

    def line(self, invoice_id: str, line_id: str) -> tuple[Any, ...] | None:
        """Return the texts and the amounts of a line."""
        return self._originals[int(invoice_id[-5:]) % len(self._originals)][1].get(line_id)

    def sums(self) -> tuple[Sums, Sums]:
        """Return the sums of invoices and of lines by currency."""
        of_invoices, of_lines = _sums(TOTALS), _sums(AMOUNTS)
        for index, (head, lines) in enumerate(self._originals):
            copies = len(range(index, self.invoices, len(self._originals)))
            _add(of_invoices[head[0]], head[1:], copies)
            for line in lines.values():
                _add(of_lines[head[0]], line[2:], copies)
        return dict(of_invoices), dict(of_lines)

    @staticmethod
    def _original(one: dict[str, Any], staged: bool) -> tuple[tuple[Any, ...], dict[str, tuple[Any, ...]]]:
        sign = 1 if staged else one["sign"]
        totals = [sign * Decimal(amount) for amount in one["totals"]] if staged or one["stated"] else [None] * TOTALS
        lines = {}
        for line_id, described, name, quantity, price, discount, net in one["lines"]:
            signed = [sign * Decimal(amount) for amount in (quantity, discount, net)]
            lines[line_id] = (described, name, signed[0], Decimal(price), *signed[1:])
        return (one["currency"], *totals), lines


def check(engine: Engine, where: Where, truth: Truth) -> Checked:
    """Compare every row, and the sums that the database itself gives."""
    correct, found, keys = 0, 0, set()
    with engine.connect().execution_options(yield_per=10_000) as connection:
        for own, *values in connection.execute(text(where.invoices)):
            found, _ = found + 1, keys.add(own)
            correct += _same(values, truth.invoice(str(own)))
        for own, line, *values in connection.execute(text(where.lines)):
            found, _ = found + 1, keys.add((own, line))
            expected = truth.line(str(own), str(line))
            correct += expected is not None and _same(values, expected)
    rows = truth.invoices * (1 + truth.lines)
    return Checked(correct, rows, found - len(keys), added_up(engine, where) == truth.sums())


def added_up(engine: Engine, where: Where) -> tuple[Sums, Sums]:
    """Return the sums by currency: the database's own, or of texts, which it cannot add, ours."""
    lines = f"({where.lines}) AS l JOIN ({where.invoices}) AS i ON i.own = l.own"
    with engine.connect() as connection:
        parts = []
        if engine.dialect.name in ("mysql", "mariadb"):  # ids have no index of their own: else it takes minutes
            connection.exec_driver_sql("SET SESSION join_cache_level = 8")
        for source, alias, amounts in ((f"({where.invoices}) AS i", "i", TOTALS), (lines, "l", AMOUNTS)):
            names = [f"{alias}.a{n}" for n in range(1, amounts + 1)]
            chosen = ", ".join(names if where.as_text else [f"SUM({name})" for name in names])
            grouped = "" if where.as_text else " GROUP BY i.currency"
            parts.append(
                _summed(connection.execute(text(f"SELECT i.currency, {chosen} FROM {source}{grouped}")), amounts)
            )
        return parts[0], parts[1]


def _same(values: Sequence[Any], expected: Sequence[Any]) -> bool:
    """Tell whether values are as expected; an amount is compared as a number, a name that is not known not at all."""
    return all(
        value == wanted
        if isinstance(wanted, str)
        else wanted is None or (value is not None and Decimal(str(value)) == wanted)
        for value, wanted in zip(values, expected, strict=True)
    )


def _summed(rows: Iterable[Sequence[Any]], amounts: int) -> Sums:
    sums = _sums(amounts)
    for currency, *values in rows:
        _add(sums[currency], [None if value is None else Decimal(str(value)) for value in values], 1)
    return dict(sums)


def _sums(amounts: int) -> defaultdict[str, list[Decimal]]:
    return defaultdict(lambda: [Decimal(0)] * amounts)


def _add(sums: list[Decimal], amounts: Sequence[Decimal | None], times: int) -> None:
    for n, amount in enumerate(amounts):
        sums[n] += times * (amount or 0)
