"""The rows of a consumption report of 27 columns: ``;`` between fields, decimal comma, any encoding in use."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import chain, islice, starmap, takewhile
from typing import IO, NamedTuple

import msgspec

from airflow_cloudbilling.errors import RecordError
from airflow_cloudbilling.parse.events import CHUNK
from airflow_cloudbilling.parse.files import buffered
from airflow_cloudbilling.parse.values import Unreadable, amount, currency, shown

# The order is what real callers of Orange's API rely on (vendor facts 2b); the header's texts are not documented.
COLUMNS = (
    "BillingMode", "BeginDate", "EndDate", "ServiceID", "TenantLabel", "Country", "Region", "ServiceCloud", "CodeLabel",
    "ChargeLabel", "IdResource", "Project", "Tags", "Quantity", "BillingUnit", "UnitPrice", "Amount", "VolumeDiscount",
    "DiscountedAmount", "Currency", "SubsChargeType", "SubsBeginDate", "SubsEndDate", "SubsUpfront",
    "SubsUpfrontDiscounted", "SubsFlavor", "SubsDuration",
)  # fmt: skip
_LONGEST_LINE = 1024 * 1024  # characters
_TOGETHER = 100  # rows that are read at once
_ENCODER = msgspec.json.Encoder()
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


class ColumnsError(RecordError):
    """A report has another number of columns than is known."""


class Rows(NamedTuple):
    """Rows that follow each other.

    :param names: of their columns.
    :param numbers: of the rows within the report, from 1.
    """

    names: tuple[str, ...]
    numbers: Sequence[int]
    rows: list[list[str]]

    def texts(self) -> list[str]:
        """Return rows as JSON; as structs they take a third less time than as objects."""
        structs = starmap(_struct(self.names), self.rows)
        return str(_ENCODER.encode_lines(list(structs)), "utf-8").split("\n")[:-1]


@lru_cache(maxsize=16)
def _struct(names: tuple[str, ...]) -> Callable[..., msgspec.Struct]:
    return msgspec.defstruct("Row", names)


def rows_of(body: IO[bytes]) -> Iterator[Rows]:
    """Yield a report's rows, some hundred at a time.

    :param body: is read twice: once for its encoding.
    :raises ColumnsError: when the first row has not 27 columns.
    :raises RecordError: naming the row whose columns are not as many, or the text line that is no CSV.
    """
    file = buffered(body)
    coding = _encoding(file)
    file.seek(0)
    with io.TextIOWrapper(file, coding, errors="replace", newline="") as content:
        yield from _rows(content)


def _rows(content: IO[str]) -> Iterator[Rows]:
    """Yield rows some at a time; blank lines and the header are left out."""
    names: tuple[str, ...] = ()
    for numbers, rows in _parsed(content):
        if set(map(len, rows)) != {len(COLUMNS)}:
            numbers, rows = [number for number, row in zip(numbers, rows, strict=True) if row], list(filter(None, rows))
        if rows and not names:
            names = _names(rows[0])
            begin = 0 if _is_data(rows[0]) else 1
            numbers, rows = numbers[begin:], rows[begin:]
        for number, row in zip(numbers, rows, strict=True):
            if len(row) != len(COLUMNS):
                raise RecordError(
                    f"row {number}: expected {len(COLUMNS)} columns, came {len(row)}: {shown(';'.join(row))}"
                )
        if rows:
            yield Rows(names, numbers, rows)
    if not names:
        raise RecordError(f"expected a report of {len(COLUMNS)} columns, nothing came")


def _parsed(content: IO[str]) -> Iterator[tuple[Sequence[int], list[list[str]]]]:
    """Yield rows some at a time, with their numbers from 1."""
    reader = csv.reader(chain.from_iterable(_bounded(content)), delimiter=";", strict=True)
    first = 1
    try:
        while rows := list(islice(reader, _TOGETHER)):
            yield range(first, first := first + len(rows)), rows
    except csv.Error as error:
        raise RecordError(f"text line {reader.line_num + 1}: it is no CSV with ';' between fields ({error})") from None


def _bounded(content: IO[str]) -> Iterator[list[str]]:
    """Yield text lines some at a time."""
    lines = iter(partial(content.readline, _LONGEST_LINE), "")
    while some := list(islice(lines, _TOGETHER)):
        if max(map(len, some)) >= _LONGEST_LINE:
            yield list(takewhile(lambda line: len(line) < _LONGEST_LINE, some))
            raise csv.Error(f"a line has more than {_LONGEST_LINE} characters")
        yield some


def _names(row: Sequence[str]) -> tuple[str, ...]:
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


def _named(header: Sequence[str]) -> tuple[str, ...]:
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
    return tuple(found)


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
