"""Tables as files: CSV and Parquet, written row after row; the same rows give the same bytes."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import islice
from typing import IO, Any, Protocol

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.exact import canonical

_BATCH = 10_000  # rows of one row group
_PART = 500  # rows of a CSV file that are held at once
_FORMULA = tuple("=+-@\t\r\n＝＋－＠")  # a spreadsheet takes a text that begins so for a formula


class Column(Protocol):
    """A column of a file: ``type`` is ``text``, ``amount`` (Decimal), ``moment`` (ISO 8601 text) or ``integer``."""

    @property
    def name(self) -> str: ...

    @property
    def type(self) -> str: ...


def writer(format_: str) -> Callable[[IO[bytes], Sequence[Column], Iterable[Mapping[str, Any]]], int]:
    """Return the function that writes rows in a format and returns their number.

    :param format_: ``csv`` or ``parquet``.
    :raises ConfigurationError: for another one, or when what Parquet needs is not installed.
    """
    if format_ == "csv":
        return write_csv
    if format_ != "parquet":
        raise ConfigurationError(f"{format_!r} is neither 'csv' nor 'parquet'.", field="format")
    try:
        import pyarrow  # noqa: F401 - an optional extra, told before anything is read
    except ModuleNotFoundError as error:
        message = "'parquet' needs the Python package pyarrow; install airflow-provider-cloudbilling[parquet]."
        raise ConfigurationError(message, field="format") from error
    return write_parquet


def write_csv(file: IO[bytes], columns: Sequence[Column], rows: Iterable[Mapping[str, Any]]) -> int:
    """Write UTF-8 with a header line; nothing is an empty field, and no text is a formula to a spreadsheet."""
    count = 0

    def counted() -> Iterator[Mapping[str, Any]]:
        nonlocal count
        for row in rows:
            count += 1
            yield row

    for part in csv_parts(columns, counted()):
        file.write(part)
    return count


def csv_parts(columns: Sequence[Column], rows: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    """Yield what :func:`write_csv` writes, some hundred rows at a time, as they are read."""
    text = io.StringIO(newline="")
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow([column.name for column in columns])
    for number, row in enumerate(rows, 1):
        lines.writerow([_cell(row[column.name], column.type) for column in columns])
        if number % _PART == 0:
            yield text.getvalue().encode()
            text.seek(0)
            text.truncate()
    yield text.getvalue().encode()


def harmless(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _cell(value: Any, type_: str) -> str:
    if value is None:
        return ""
    if isinstance(value, Decimal):
        return canonical(value)
    return harmless(str(value)) if type_ == "text" else str(value)


def write_parquet(file: IO[bytes], columns: Sequence[Column], rows: Iterable[Mapping[str, Any]]) -> int:
    """Write row groups of ten thousand rows: ``decimal128(38, 12)``, timestamps in UTC, text, whole numbers."""
    import pyarrow
    from pyarrow import parquet

    types = {
        "amount": pyarrow.decimal128(38, 12),
        "moment": pyarrow.timestamp("us", tz="UTC"),
        "integer": pyarrow.int64(),
        "text": pyarrow.string(),
    }
    schema = pyarrow.schema([(column.name, types[column.type]) for column in columns])
    count = 0
    with parquet.ParquetWriter(file, schema, compression="zstd", version="2.6") as out:
        for batch in _batches(rows):
            values = [pyarrow.array([_value(r[c.name], c.type) for r in batch], types[c.type]) for c in columns]
            out.write_batch(pyarrow.record_batch(values, schema=schema))
            count += len(batch)
    return count


def _value(value: Any, type_: str) -> Any:
    return datetime.fromisoformat(value.replace("Z", "+00:00")) if type_ == "moment" and value else value


def _batches(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    each = iter(rows)
    while batch := list(islice(each, _BATCH)):
        yield batch
