"""JSON that is small enough to be held as records, in the same events as the stream: decoded at once, by msgspec.

Whatever msgspec does not take (another encoding, control characters in texts, NaN) is left to the stream, which takes
it or says where it breaks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from airflow_cloudbilling.parse.events import (
    CLOSE,
    LEAVES,
    MEMBERS,
    OPEN,
    WHOLE,
    Event,
    Events,
    Shape,
    Whole,
    encoding_of,
)
from airflow_cloudbilling.parse.fields import fold

LARGEST = 1024 * 1024  # bytes; some fifteen times as much in memory when decoded
_NAMES_KEPT = 4096
_LEAVES = 400  # in one event: what is made of the smallest leaves takes a hundred times their place
_TOGETHER = 1000  # leaves of whole records in one event
_VALUES = msgspec.json.Decoder(float_hook=str)  # no float: numbers with a fraction stay as they were written
_RAW_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_RAW_ELEMENTS = msgspec.json.Decoder(list[msgspec.Raw])


def decoded(data: bytes, charset: str | None) -> Any:
    """Return the value of a whole body; None where it is for the stream to read.

    :param charset: as the content type states it.
    """
    if encoding_of(data, charset) != "utf-8":
        return None
    try:
        return _VALUES.decode(data)
    except (msgspec.DecodeError, RecursionError, ValueError):
        return None


def elements(text: str, *, keep_raw: bool) -> tuple[list[Any], list[str]] | None:
    """Return the values of elements with commas between them, and their source texts; None where they are not whole."""
    try:
        data = b"[%b]" % text.encode()
        return _VALUES.decode(data), list(map(_text, _RAW_ELEMENTS.decode(data))) if keep_raw else []
    except (msgspec.DecodeError, RecursionError, ValueError):
        return None


class Walk:
    """One walk over a decoded body.

    :param shape: which lists hold each other.
    :param keep_raw: whether records carry their source text.
    """

    def __init__(self, shape: Shape, *, keep_raw: bool) -> None:
        self._leaf = shape.leaf
        self._keep_raw = keep_raw
        self._named = shape.levels()
        self._marks = shape.beginnings()
        self._levels: dict[str, int] = {}  # by the names as they are written
        self._splits: dict[tuple[str, ...], tuple[list[str], list[str]]] = {}  # by the names in a record of level 1

    def holds_records(self, body: Any) -> bool:
        """Whether a body is a list, or an object that has one of the lists or is a record itself."""
        if isinstance(body, dict):
            return any(map(self._begins, body))
        return isinstance(body, list)

    def is_complete(self, body: Any, data: bytes) -> bool:
        """Whether each list has been decoded: of two of one name in one record only the last is."""
        found: Counter[str] = Counter()
        self._count_lists(body, 0, found)
        return all(data.count(msgspec.json.encode(name)) == number for name, number in found.items())

    def _count_lists(self, value: Any, level: int, found: Counter[str]) -> None:
        """Count the names of the lists in one record or some."""
        alike: dict[tuple[str, ...], list[Any]] = {}
        for record in value if isinstance(value, list) else [value]:
            if isinstance(record, dict):
                alike.setdefault(tuple(record), []).append(record)
        for shape, records in alike.items():
            for name in self._split(shape, level)[1]:
                found[name] += len(records)
                if (deeper := self._level(name)) < self._leaf:
                    for record in records:
                        self._count_lists(record[name], deeper, found)

    def events(self, body: Any, data: bytes) -> Events:
        """Yield the steps through a body.

        :param data: its bytes.
        """
        raw = data if self._keep_raw else None
        if isinstance(body, list):
            yield from self._list(body, raw, 1)
            return
        members = list(body)
        first = next((number for number, name in enumerate(members) if self._begins(name)), len(members))
        bare = first < len(members) and self._named.get(fold(members[first])) != 1
        raws = _members(raw)
        for name in members[:first] if bare else members:
            yield from self._member(name, body[name], raws.get(name), 0)
        if bare:
            rest = members[first:]
            yield from self._record({name: body[name] for name in rest}, raws, 1)

    def _begins(self, name: str) -> bool:
        """Whether the outermost list, or a bare record, begins with a member."""
        return self._named.get(fold(name)) == 1 or fold(name) in self._marks

    def _level(self, name: str) -> int:
        """Return the level of the records that a member's list holds; 0 for a member that is none of the lists."""
        if (level := self._levels.get(name)) is None:
            level = self._named.get(fold(name), 0)
            if len(self._levels) < _NAMES_KEPT:
                self._levels[name] = level
        return level

    def _split(self, shape: tuple[str, ...], level: int) -> tuple[list[str], list[str]]:
        """Return the names of what a record of a level says of itself, and those of its lists."""
        lists = [name for name in shape if self._level(name) > level]
        return [name for name in shape if name not in lists], lists

    def _member(self, name: str, value: Any, raw: Any, level: int) -> Events:
        deeper = self._level(name)
        if deeper > level:
            yield from self._list(value, raw, deeper)
        else:
            yield Event(MEMBERS, level, {name: value}, raws={} if raw is None else {name: _text(raw)})

    def _list(self, value: Any, raw: Any, level: int) -> Events:
        """Read a list of records; nothing, an empty text or one record may stand for it."""
        if value is None or value == "":
            return
        elements = value if isinstance(value, list) else [value]
        raws = _elements(raw) if isinstance(value, list) else [raw]
        if level == self._leaf:
            for some in (slice(start, start + _LEAVES) for start in range(0, len(elements), _LEAVES)):
                texts = () if raw is None else list(map(_text, raws[some]))
                yield Event(LEAVES, level, leaves=elements[some], raws=texts)
        elif level == 1 and self._leaf == 2:
            yield from self._together(elements, raws or [None] * len(elements))
        else:
            yield from self._each(elements, raws or [None] * len(elements), level)

    def _each(self, elements: Sequence[Any], raws: Sequence[Any], level: int) -> Events:
        """Read records step by step."""
        for element, raw in zip(elements, raws, strict=True):
            if isinstance(element, dict):
                yield from self._record(element, _members(raw), level)
            else:
                raws_of = {} if raw is None else {"": _text(raw)}
                yield from (Event(OPEN, level), Event(MEMBERS, level, {"": element}, raws=raws_of), Event(CLOSE, level))

    def _together(self, elements: Sequence[Any], raws: Sequence[Any]) -> Events:
        """Read records whose only list holds leaves many at a time; one that is otherwise comes step by step."""
        begin = leaves = 0
        whole: list[Whole] = []
        for end, (element, raw) in enumerate(zip(elements, raws, strict=True), 1):
            if one := self._whole(element, raw):
                whole.append(one)
                leaves += len(one.leaves)
            if leaves >= _TOGETHER or end == len(elements) or not one:
                steps = partial(self._each, elements[begin : begin + len(whole)], raws[begin : begin + len(whole)], 1)
                yield from [Event(WHOLE, 1, whole=whole, steps=steps)] if whole else ()
                yield from () if one else self._each([element], [raw], 1)
                whole, begin, leaves = [], end, 0

    def _whole(self, element: Any, raw: Any) -> Whole | None:
        """Return a record and its leaves, unless it is no such record."""
        if type(element) is not dict or "" in element:
            return None
        if (split := self._splits.get(shape := tuple(element))) is None:
            split = self._splits[shape] = self._split(shape, 1)
        own, lists = split
        leaves = element[lists[0]] if lists else []
        if len(lists) > 1 or type(leaves) is not list or len(leaves) > _TOGETHER or set(map(type, leaves)) - {dict}:
            return None
        members = {name: element[name] for name in own}
        if raw is None:
            return Whole(members, leaves)
        texts = _members(raw)
        leaf_texts = list(map(_text, _elements(texts[lists[0]]))) if lists else []
        return Whole(members, leaves, {name: _text(texts[name]) for name in own}, leaf_texts)

    def _record(self, record: Mapping[str, Any], raws: Mapping[str, Any], level: int) -> Events:
        """Read a record: what it says of itself, then its lists."""
        own, lists = self._split(tuple(record), level)
        members = {name: record[name] for name in own}
        yield Event(OPEN, level)
        yield Event(MEMBERS, level, members, raws={name: _text(raws[name]) for name in members if name in raws})
        for name in lists:
            yield from self._list(record[name], raws.get(name), self._level(name))
        yield Event(CLOSE, level)


def _members(raw: Any) -> Mapping[str, Any]:
    return {} if raw is None else _RAW_MEMBERS.decode(raw)


def _elements(raw: Any) -> Sequence[Any]:
    return () if raw is None else _RAW_ELEMENTS.decode(raw)


def _text(raw: Any) -> str:
    return str(raw, "utf-8")
