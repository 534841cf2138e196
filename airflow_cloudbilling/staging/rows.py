"""Many rows as one text, as PostgreSQL's COPY and a multi-row INSERT of MySQL read them.

Escaping value by value takes longer than the database takes to load them. So values are joined by control characters
that no text of ours contains, which is checked by counting, and the whole block is escaped at once.
"""

from __future__ import annotations

from collections.abc import Sequence

Row = tuple[str | None, ...]  # whole numbers too are sent as text

_COLUMN, _ROW, _NULL = "\x1f", "\x1e", "\0"
_REPLACED = dict.fromkeys(map(ord, (_COLUMN, _ROW, _NULL)), "\ufffd")  # as sources do; no database stores a NUL anyway
_COPY = (
    (b"\\", b"\\\\"),
    (b"\t", b"\\t"),
    (b"\n", b"\\n"),
    (b"\r", b"\\r"),
    (b"\x1f", b"\t"),
    (b"\x1e", b"\n"),
    (b"\0", b"\\N"),
)
_VALUES = (b"\x1f", b"','"), (b"\x1e", b"'),('"), (b"'\0'", b"NULL")


def copy_text(rows: Sequence[Row]) -> bytes:
    """Return rows in COPY's text format, in UTF-8.

    :param rows: at least one; all as long as the first.
    """
    return _replaced(_joined(rows), _COPY) + b"\n"


def values_text(rows: Sequence[Row], *, backslashes: bool) -> bytes:
    """Return rows as they follow VALUES in SQL, in UTF-8.

    :param rows: at least one; all as long as the first.
    :param backslashes: whether the server takes a backslash in a text for the begin of an escape.
    """
    block = _joined(rows)
    if backslashes:
        block = block.replace(b"\\", b"\\\\")
    return _replaced(b"('%b')" % block.replace(b"'", b"''"), _VALUES)


def _replaced(block: bytes, pairs: Sequence[tuple[bytes, bytes]]) -> bytes:
    for character, escaped in pairs:
        block = block.replace(character, escaped)
    return block


def _joined(rows: Sequence[Row]) -> bytes:
    block = _ROW.join([_COLUMN.join([_NULL if value is None else value for value in row]) for row in rows]).encode()
    nulls = sum([row.count(None) for row in rows])
    expected = [len(rows) - 1, len(rows) * (len(rows[0]) - 1), nulls]
    if [block.count(control) for control in (b"\x1e", b"\x1f", b"\0")] == expected:
        return block
    return _joined([tuple([value and value.translate(_REPLACED) for value in row]) for row in rows])
