"""What the JSON and the XML reader say alike about a body of nested lists, so that a source is written once.

A :class:`Shape` names the lists that hold each other, outermost first. Level 0 is the body itself, level 1 the elements
of the first list, and so on; the elements of the last list are *leaves* and come whole.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import IO, Any, NamedTuple

from airflow_cloudbilling.parse.fields import fold
from airflow_cloudbilling.parse.values import clean

OPEN, MEMBERS, LEAVES, CLOSE, WHOLE = "open", "members", "leaves", "close", "whole"

CHUNK = 256 * 1024  # bytes read at once
LONGEST_PROLOG = 64 * 1024
LARGEST_VALUE = 16 * 1024 * 1024  # characters of one leaf or member; above it a body is hostile or not ours


class Event(NamedTuple):
    """One step through a body.

    :param kind: ``open`` and ``close`` a record; some ``members`` of the open record that are none of the named lists;
        some ``leaves``; or many ``whole`` records of level 1, whose only list holds leaves.
    :param level: of the record; of members, the record that they belong to.
    :param members: by name; an empty name where something else than a record came. Values are JSON's with numbers as
        they were written, or the same made of XML.
    :param leaves: such values.
    :param raws: source texts: by name, or one for each leaf; empty where they are not kept.
    :param size: characters of what came, where the body is too large to be held.
    :param whole: such records.
    :param steps: the same records step by step, for a reader to whom one of them is odd.
    """

    kind: str
    level: int
    members: Mapping[str, Any] = {}
    leaves: Sequence[Any] = ()
    raws: Any = ()
    size: int = 0
    whole: Sequence[Whole] = ()
    steps: Callable[[], Iterator[Event]] = lambda: iter(())


class Whole(NamedTuple):
    """A record that came whole: its members and its leaves, and the source texts of both where they are kept."""

    members: dict[str, Any]
    leaves: list[dict[str, Any]]
    raws: Mapping[str, str] = {}
    leaf_raws: Sequence[str] = ()


Events = Iterator[Event]
_WINDOW = 400  # leaves, or events, that are read at once
_WINDOW_SIZE = 1024 * 1024  # characters


def windows(events: Iterable[Event]) -> Iterator[list[Event]]:
    """Yield events many at a time, so that what they hold can be read column by column; whole records by themselves."""
    window: list[Event] = []
    leaves = size = 0
    for event in events:
        if event.kind is WHOLE:
            yield from filter(None, (window, [event]))
            window, leaves, size = [], 0, 0
            continue
        window.append(event)
        leaves += len(event.leaves)
        size += event.size
        if leaves >= _WINDOW or len(window) >= 4 * _WINDOW or size >= _WINDOW_SIZE:
            yield window
            window, leaves, size = [], 0, 0
    if window:
        yield window


class Shape(NamedTuple):
    """Which lists hold each other.

    :param lists: their names, outermost first; the singular is the XML element of one record.
    :param marks: members by which a bare record of level 1 is known.
    :param root: what the XML root's name must contain, in lower case; empty for any name.
    :param also: further names of the lists with the level of their elements.
    :param null: whether a body that is just ``null`` means that there are no records.
    """

    lists: tuple[str, ...]
    marks: tuple[str, ...]
    root: str
    also: tuple[tuple[str, int], ...] = ()
    null: bool = True

    @property
    def leaf(self) -> int:
        """Return the level of the leaves."""
        return len(self.lists)

    def names(self) -> tuple[tuple[str, int], ...]:
        """Return every name of a list with the level of its elements, in the vendor's spelling."""
        return (*((name, level) for level, name in enumerate(self.lists, 1)), *self.also)

    def levels(self) -> dict[str, int]:
        """Return the folded names of the lists with the level of their elements."""
        return {fold(name): level for name, level in self.names()}

    def beginnings(self) -> set[str]:
        """Return the folded names of members by which a bare record is known: its marks, and the lists within it."""
        return {fold(mark) for mark in self.marks} | {name for name, level in self.levels().items() if level > 1}

    def singular(self) -> dict[str, int]:
        """Return the folded names of one element of each list with its level."""
        return {fold(name).removesuffix("s"): level for name, level in self.names()}


class Malformed(ValueError):
    """A body breaks off or is not what it must be; the message says where, and what stands there."""


def found(excerpt: str | bytes) -> str:
    """Return the end of an error message that quotes what came."""
    return f"came {clean(excerpt, 200)!r}" if excerpt.strip() else "nothing came"


_ENCODINGS = frozenset({"utf-8", "utf-16-le", "utf-16-be", "utf-16", "iso8859-1", "iso8859-15", "cp1252"})
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def first_bytes(body: IO[bytes]) -> bytes:
    """Return enough of the beginning to know format and encoding, also of a file that gives a few bytes at a time."""
    data = body.read(CHUNK)
    while len(data) < LONGEST_PROLOG and (more := body.read(CHUNK)):
        data += more
    return data


def encoding_of(first: bytes, stated: str | None) -> str:
    """Return the codec of a text body: by its byte order mark, its zero bytes, what is stated, else UTF-8.

    :param first: the body's first bytes.
    :param stated: by the content type or the XML declaration; only encodings that are in use are believed.
    """
    for mark, name in _MARKS:
        if first.startswith(mark):
            return name
    if len(first) > 1 and not all(first[:2]):  # both formats begin in ASCII, so a zero byte tells UTF-16 without a mark
        return "utf-16-le" if first[0] else "utf-16-be"
    try:
        name = codecs.lookup(stated or "utf-8").name
    except LookupError:
        return "utf-8"
    return name if name in _ENCODINGS else "utf-8"
