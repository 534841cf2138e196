"""Rows as blocks of bytes, as PostgreSQL's COPY, a multi-row INSERT of MySQL and SQLite's driver are given them.

Escaping value by value takes longer than the database takes to load them. So values are joined by control characters
that no text of ours contains, once, and that text is hashed and sent; a whole block is checked and escaped at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Row = tuple[str | None, ...]  # whole numbers too are sent as text

COLUMN, ROW, NULL = b"\x1f", b"\x1e", b"\x1d"
_COLUMN, _ROW, NO_VALUE = COLUMN.decode(), ROW.decode(), NULL.decode()
_REPLACED = dict.fromkeys(map(ord, (_COLUMN, _ROW, NO_VALUE, "\0")), "\ufffd")  # as sources do
_COPY = (b"\\", b"\\\\"), (b"\n", b"\\n"), (b"\r", b"\\r"), (ROW, b"\n")
# the separator stands for the quote until it is known which values are none at all
_QUOTED = (b"'", b"''"), (COLUMN, b"%b,%b" % (COLUMN, COLUMN)), (ROW, b"%b),(%b" % (COLUMN, COLUMN))
_VALUES = (COLUMN + NULL + COLUMN, b"NULL"), (COLUMN, b"'")
COPY_OPTIONS = f"DELIMITER E'\\x{COLUMN.hex()}', NULL E'\\x{NULL.hex()}'"  # of the blocks that copy_text returns


def joined(values: Iterable[str | None]) -> bytes:
    """Return values as one text in UTF-8, told apart by a separator that no text of ours contains."""
    return _COLUMN.join([NO_VALUE if value is None else value for value in values]).encode()


def joined_columns(columns: Sequence[Sequence[str | None]]) -> list[bytes]:
    """Return what :func:`joined` returns of each row of some columns, twice as fast."""
    whole = [
        column if None not in column else [NO_VALUE if value is None else value for value in column]
        for column in columns
    ]
    return [row.encode() for row in map(_COLUMN.join, zip(*whole, strict=True))]


def row_of(values: Row) -> bytes:
    """Return a row of a block; characters that separate values, and NUL, are replaced in it."""
    row = joined(values)
    return row if is_clean(row, 1, len(values)) else joined([v and v.translate(_REPLACED) for v in values])


def is_clean(block: bytes, rows: int, columns: int) -> bool:
    """Whether a block has no more separators than its rows and columns need; no database stores a NUL."""
    counts = block.count(COLUMN), block.count(ROW)
    return counts == (rows * (columns - 1), rows - 1) and b"\0" not in block


def copy_text(block: bytes) -> bytes:
    """Return a block in COPY's text format with :data:`COPY_OPTIONS`."""
    return _replaced(block, _COPY) + b"\n"


def values_text(block: bytes, *, backslashes: bool) -> bytes:
    """Return a block as it follows VALUES in SQL.

    :param backslashes: whether the server takes a backslash in a text for the begin of an escape.
    """
    if backslashes:
        block = block.replace(b"\\", b"\\\\")
    return _replaced(b"(%b%b%b)" % (COLUMN, _replaced(block, _QUOTED), COLUMN), _VALUES)


def texts(block: bytes) -> list[list[str]]:
    """Return a block as rows of texts, in which :data:`NO_VALUE` stands for none."""
    return [row.split(_COLUMN) for row in block.decode().split(_ROW)]


def _replaced(block: bytes, pairs: Sequence[tuple[bytes, bytes]]) -> bytes:
    for character, escaped in pairs:
        block = block.replace(character, escaped)
    return block
