"""The records of a JSON body, wherever in its envelopes they stand: of a small body at once, of a large one in turn."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from typing import IO, Any

import msgspec

from airflow_cloudbilling.parse.events import CHUNK, Malformed, found
from airflow_cloudbilling.parse.fields import fold
from airflow_cloudbilling.parse.json_exact import decoded, decoder, next_value
from airflow_cloudbilling.parse.json_stream import Buffer
from airflow_cloudbilling.parse.json_whole import LARGEST
from airflow_cloudbilling.parse.records import EMPTY

_SOME = 100  # records of a large body that are read at once

Some = Generator[Sequence[Any], None, bool]  # of the records; returns whether it was a list of them


class Records:
    """The records of a JSON body, in memory that does not grow with their number.

    They stand in a bare list, in a list under one of the names (at any depth of such names), or the body is one record.

    :param body: at its beginning.
    :param lists: names of members that hold the list, or an object that holds it: ``data``, ``invoices`` …
    :param marks: names of members by which an object is known as a record rather than an envelope.
    :param dropped: names of members that are left out wherever they stand.
    :param constants: what becomes of NaN, Infinity and numbers out of bounds; by default they are refused.
    """

    def __init__(
        self,
        body: IO[bytes],
        lists: Collection[str],
        marks: Collection[str],
        dropped: Collection[str] = (),
        constants: Callable[[str], Any] | None = None,
    ) -> None:
        self._body = body
        self._constants = constants
        self._lists = {fold(name) for name in lists}
        self._marks = {fold(name) for name in marks}
        self._dropped = {name.casefold() for name in dropped}
        self.around: dict[str, Any] = {}  # members of the envelopes, whole when the last record has come

    def __iter__(self) -> Iterator[Any]:
        """Yield the records in their order.

        :raises Malformed: when the body is empty, cut, or holds neither a list nor a record.
        """
        for some in self.some():
            yield from some

    def some(self) -> Iterator[Sequence[Any]]:
        """Yield the records many at a time: all of a small body, which is decoded at once.

        :raises Malformed: as when they are iterated.
        """
        start = self._body.tell()
        data = self._body.read(LARGEST)
        value = None if self._body.read(1) else decoded(data, self._dropped)
        if isinstance(value, (list, dict)) and self._is_complete(value, data):
            yield from self._records(_Whole(value), str(data[:800], "utf-8", "replace")[:200])
            return
        self._body.seek(start)
        buffer = Buffer(self._body, None, decoder(self._constants))
        yield from self._records(_Stream(buffer, self._dropped), buffer.text[:200])
        if buffer.peek():
            raise buffer.error("expected the end")

    def _is_complete(self, value: Any, data: bytes) -> bool:
        """Whether each list has been decoded: of two of one name in one envelope only the last is."""
        named = [name for name in value if fold(name) in self._lists] if isinstance(value, dict) else []
        once = all(data.count(msgspec.json.encode(name)) == 1 for name in named)
        return once and all(self._is_complete(value[name], data) for name in named)

    def _records(self, at: _Whole | _Stream, start: str) -> Iterator[Sequence[Any]]:
        if (kind := at.kind()) not in (list, dict):
            raise Malformed(f"expected a JSON object or list, {found(start)}")
        if not (yield from at.elements() if kind is list else self._members(at, outermost=True)):
            raise Malformed(f"the JSON holds no list of records, {found(start)}")

    def _members(self, at: _Whole | _Stream, *, outermost: bool = False) -> Some:
        """Read an object: an envelope, a list with gaps, or a record; return whether it is one of these."""
        members: dict[str, Any] = {}
        held = None
        for name in at.names():
            kind = at.kind()
            if fold(name) in self._lists and kind in (list, dict) and held is None and not self._marked(members):
                held = yield from at.elements() if kind is list else self._members(at)
            elif name.casefold() in self._dropped:
                at.value()
            else:
                members[name] = at.value()
        if held is None and self._marked(members):
            yield [members]
            return True
        if held is None and members and all(name.isdigit() for name in members):
            yield list(members.values())
            return True
        self.around = {**members, **self.around}
        said_empty = any(fold(name) in self._lists and value in EMPTY for name, value in members.items())
        return held if held is not None else said_empty or not (members or outermost)

    def _marked(self, members: Mapping[str, Any]) -> bool:
        return any(fold(name) in self._marks for name in members)


class _Whole:
    """A place in a decoded body."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def kind(self) -> type:
        """Return the type of what comes next."""
        return type(self._value)

    def value(self) -> Any:
        """Return what comes next."""
        return self._value

    def elements(self) -> Some:
        """Yield the elements of the list that comes next."""
        yield self._value
        return True

    def names(self) -> Iterator[str]:
        """Yield the names of the object that comes next, each before its value."""
        for name, value in self._value.items():
            self._value = value
            yield name


class _Stream:
    """A place in a body of any size: the same as :class:`_Whole`, one value after the other.

    :param dropped: names of members that are left out of values.
    """

    def __init__(self, buffer: Buffer, dropped: Collection[str]) -> None:
        self._buffer = buffer
        self._dropped = dropped

    def kind(self) -> type | None:
        """Return the type of what comes next, if it is a list or an object."""
        return {"[": list, "{": dict}.get(self._buffer.peek())

    def value(self) -> Any:
        """Decode and consume what comes next."""
        return next_value(self._buffer, self._dropped)

    def elements(self) -> Some:
        """Yield the elements of the list that comes next, some at a time."""
        buffer, some = self._buffer, []
        buffer.take("[")
        if buffer.peek() == "]":
            buffer.take("]")
            return True
        start, more = buffer.position, True
        while more:
            some.append(self.value())
            more = buffer.take(",]") == ","
            if not more or len(some) >= _SOME or buffer.position - start >= CHUNK:
                yield some
                start, some = buffer.position, []
        return True

    def names(self) -> Iterator[str]:
        """Yield the names of the object that comes next, each before its value."""
        self._buffer.take("{")
        return self._buffer.names()
