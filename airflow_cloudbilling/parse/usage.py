"""Consumption reports of 27 columns as a stream of lines: ``;`` between fields, decimal comma, any number of rows."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache, partial
from itertools import islice
from typing import IO

import msgspec

from airflow_cloudbilling.errors import RecordError
from airflow_cloudbilling.exact import canonical, exact_sum
from airflow_cloudbilling.model import InvoiceLine
from airflow_cloudbilling.parse.events import CHUNK
from airflow_cloudbilling.parse.fields import Fields, Values, Wanted
from airflow_cloudbilling.parse.files import buffered
from airflow_cloudbilling.parse.names import LINE_NAMES, Table
from airflow_cloudbilling.parse.totals import RunningSum, Totals
from airflow_cloudbilling.parse.values import Unreadable, amount, currency, day, shown, text

# The order is what real callers of Orange's API rely on (vendor facts 2b); the header's texts are not documented.
COLUMNS = (
    "BillingMode", "BeginDate", "EndDate", "ServiceID", "TenantLabel", "Country", "Region", "ServiceCloud", "CodeLabel",
    "ChargeLabel", "IdResource", "Project", "Tags", "Quantity", "BillingUnit", "UnitPrice", "Amount", "VolumeDiscount",
    "DiscountedAmount", "Currency", "SubsChargeType", "SubsBeginDate", "SubsEndDate", "SubsUpfront",
    "SubsUpfrontDiscounted", "SubsFlavor", "SubsDuration",
)  # fmt: skip
_LONGEST_LINE = 1024 * 1024  # characters
_TOGETHER = 100  # rows that are read at once
_GROUPED = re.compile(
    r"([+-]?)([1-9][0-9]{0,2}(?:([. \u00a0\u202f])[0-9]{3})(?:\3[0-9]{3})*|[0-9]+)(?:,([0-9]*))?(e[+-]?[0-9]+)?",
    re.IGNORECASE,
)


@lru_cache(maxsize=4096)
def comma_amount(value: str) -> str | None:
    """Read a decimal number whose decimal mark is the comma; a point is one too where it cannot mean thousands.

    :return: canonical decimal text, or None for nothing.
    :raises Unreadable: for anything else, and for ``1.234``, which may be thousands or decimals.
    """
    written = value.strip()
    if not (match := _GROUPED.fullmatch(written)):
        return amount(written)
    sign, whole, separator, decimals, exponent = match.groups()
    if separator == "." and decimals is None:
        raise Unreadable(f"expected a decimal amount, came {shown(written)}, which may mean thousands or decimals")
    digits = whole.replace(separator, "") if separator else whole
    return amount(f"{sign}{digits}.{decimals or ''}{exponent or ''}")


LINE: Table = {
    **dict.fromkeys(LINE_NAMES, (text, ())),
    "item_code": (text, ("CodeLabel",)),
    "description": (text, ("ChargeLabel",)),
    "quantity": (comma_amount, ("Quantity",)),
    "unit": (text, ("BillingUnit",)),
    "unit_price": (comma_amount, ("UnitPrice",)),
    "discount": (comma_amount, ()),  # VolumeDiscount is a rate; the amount is what both amounts differ by
    "net_amount": (comma_amount, ("DiscountedAmount", "Amount")),
    "tax_rate": (comma_amount, ()),
    "tax_amount": (comma_amount, ()),
    "period_start": (day, ("BeginDate",)),
    "period_end": (day, ("EndDate",)),
    "subscription_id": (text, ("ServiceID",)),
    "subscription_name": (text, ("ServiceCloud",)),
    "customer_name": (text, ("TenantLabel",)),
    "charge_type": (text, ("BillingMode",)),
}
_FURTHER = (
    Wanted("currency", currency, ("Currency",)),
    Wanted("amount", comma_amount, ("Amount",)),
    Wanted("discounted", comma_amount, ("DiscountedAmount",)),
)
_LINES = len(LINE_NAMES)
_encode = msgspec.json.Encoder().encode
_DISCOUNT = LINE_NAMES.index("discount")


class ColumnsError(RecordError):
    """A report has another number of columns than is known."""


class UsageReader:
    """Reads the reports of one document, row by row, and adds them up.

    :param line: how a line's values are read, :data:`LINE` with the user's ``field_map`` in it.
    :param keep_raw: whether lines carry their row.
    """

    def __init__(self, line: Table = LINE, *, keep_raw: bool = True) -> None:
        self._fields = Fields([*(Wanted(name, *line[name]) for name in LINE_NAMES), *_FURTHER])
        self._keep_raw = keep_raw
        self._sum = RunningSum()
        self.currency: str | None = None

    def lines(self, body: IO[bytes]) -> Iterator[list[InvoiceLine]]:
        """Yield a line for each row of a report, some hundred at a time.

        :param body: is read twice: once for its encoding.
        :raises ColumnsError: when the first row has not 27 columns.
        :raises RecordError: naming the row and the column that cannot be read.
        """
        file = buffered(body)
        coding = _encoding(file)
        file.seek(0)
        with io.TextIOWrapper(file, coding, errors="replace", newline="") as content:
            rows = _rows(content)
            while some := list(islice(rows, _TOGETHER)):
                yield self._lines([number for number, _ in some], [row for _, row in some])

    def _lines(self, numbers: list[int], rows: list[Mapping[str, str]]) -> list[InvoiceLine]:
        lines: list[InvoiceLine] = []
        try:
            for row, values in zip(rows, self._fields.read_all(rows), strict=True):
                lines.append(self._line(row, values))
        except RecordError as error:
            raise RecordError(f"row {numbers[len(lines)]}: {error.reason}") from None
        self._sum.add([line.net_amount for line in lines], [line.tax_amount for line in lines])
        return lines

    def totals(self) -> Totals:
        """Return the sums of all rows so far.

        :raises RecordError: when rows lack an amount or their currency.
        """
        totals = self._sum.complete(None, None, None)
        if totals.net is not None and self.currency is None:
            raise RecordError("field currency (Currency): expected a value in some row, nothing came")
        return totals

    def _line(self, row: Mapping[str, str], found: Values | RecordError) -> InvoiceLine:
        if isinstance(found, RecordError):
            raise found
        values = list(found)
        code, full, discounted = values[_LINES:]
        if code != self.currency:
            self._turn(code)
        if values[_DISCOUNT] is None and full is not None and discounted is not None:
            values[_DISCOUNT] = _difference(full, discounted)
        return InvoiceLine._make([*values[:_LINES], _encode(row).decode() if self._keep_raw else None])

    def _turn(self, code: str | None) -> None:
        """Take the report's currency from its first row that has one; amounts of two do not add up."""
        if code is not None and self.currency is not None:
            raise RecordError(f"field currency (Currency): expected {self.currency} as in the rows before, came {code}")
        self.currency = self.currency or code


def _difference(full: str, discounted: str) -> str:
    return "0" if full == discounted else canonical(exact_sum(Decimal(full), Decimal(discounted).copy_negate()))


def _rows(content: IO[str]) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Yield each row's number from 1 and its fields by name; blank lines and the header are left out."""
    names: Sequence[str] = ()
    for number, row in enumerate(_parsed(content), 1):
        if not row:
            continue
        if not names:
            names = _names(row)
            if not _is_data(row):
                continue
        if len(row) != len(names):
            raise RecordError(f"row {number}: expected {len(names)} columns, came {len(row)}: {shown(';'.join(row))}")
        yield number, dict(zip(names, row, strict=True))
    if not names:
        raise RecordError(f"expected a report of {len(COLUMNS)} columns, nothing came")


def _parsed(content: IO[str]) -> Iterator[list[str]]:
    reader = csv.reader(_bounded(content), delimiter=";", strict=True)
    try:
        yield from reader
    except csv.Error as error:
        raise RecordError(f"text line {reader.line_num + 1}: it is no CSV with ';' between fields ({error})") from None


def _bounded(content: IO[str]) -> Iterator[str]:
    for line in iter(partial(content.readline, _LONGEST_LINE), ""):
        if len(line) >= _LONGEST_LINE:
            raise csv.Error(f"a line has more than {_LONGEST_LINE} characters")
        yield line


def _names(row: Sequence[str]) -> Sequence[str]:
    """Return the names of the columns, by a report's first row.

    :raises ColumnsError: when there are not 27 of them.
    """
    if len(row) != len(COLUMNS):
        raise ColumnsError(
            f"expected a consumption report of {len(COLUMNS)} columns with ';' between them, came {len(row)}:"
            f" {shown(';'.join(row))}"
        )
    return COLUMNS if _is_data(row) else _named(row)


def _is_data(row: Sequence[str]) -> bool:
    """Whether a first row is a row of amounts already, so that the report has no header."""
    fields = dict(zip(COLUMNS, row, strict=True))
    try:
        return bool(currency(fields["Currency"])) and bool(comma_amount(fields["Quantity"]))
    except Unreadable:
        return False


def _named(header: Sequence[str]) -> Sequence[str]:
    """Return the name of each column: by the header where its text is known, else by position.

    :raises RecordError: when a column that is left has no position left either.
    """
    known = {_fold(name): name for name in COLUMNS}
    named = [known.get(_fold(cell)) for cell in header]
    missing = [name for name in COLUMNS if name not in named]
    for name in missing:
        place = COLUMNS.index(name)
        if named[place] is not None:
            raise RecordError(
                f"row 1: column {name} is not in the header, and its place, column {place + 1}, is"
                f" {shown(header[place])}"
            )
        named[place] = name
    found = [name for name in named if name is not None]
    if len(set(found)) != len(header):
        raise RecordError(f"row 1: expected each column once, came {shown(';'.join(header))}")
    return found


def _fold(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).lower()


def _encoding(file: IO[bytes]) -> str:
    """Return the encoding: what a byte order mark says, else UTF-8 when all of it is that, else Windows' Latin 1."""
    data = file.read(CHUNK)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        while data:
            decoder.decode(data)
            data = file.read(CHUNK)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8-sig"
