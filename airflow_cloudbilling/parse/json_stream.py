"""JSON of any size as a stream of records: the C decoder reads one leaf or member at a time out of a small buffer."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from json import JSONDecodeError, JSONDecoder
from typing import IO, Any

from airflow_cloudbilling.parse.events import (
    CHUNK,
    CLOSE,
    LARGEST_VALUE,
    LEAVES,
    MEMBERS,
    OPEN,
    Event,
    Events,
    Malformed,
    Shape,
    encoding_of,
    first_bytes,
    found,
)
from airflow_cloudbilling.parse.fields import fold
from airflow_cloudbilling.parse.json_whole import LARGEST, Walk, decoded, elements

# Numbers stay as they were written: no float, no limit on digits. Raw control characters in texts are let through.
_DECODER = JSONDecoder(parse_float=str, parse_int=str, parse_constant=str, strict=False)
_SPACE = re.compile(r"[ \t\r\n]*")
_CLOSED = frozenset('}]"')
_LEAVES = 50  # in one event
_LOOK_AHEAD = 8  # characters after a number or word that tell that it is whole


def read_json(body: IO[bytes], shape: Shape, charset: str | None = None, *, keep_raw: bool = True) -> Events:
    """Read a JSON body as events, in memory that grows neither with the body nor with a list.

    A list may also be ``null``, an empty text or a single record; the body may be the outermost list or one record.

    :param body: at its beginning.
    :param charset: as the content type states it; a byte order mark wins, UTF-8 is the default.
    :param keep_raw: whether leaves carry their source text.
    :raises Malformed: when the body is cut, is no JSON, or holds no such list.
    """
    start = body.tell()
    data = body.read(LARGEST)
    walk = Walk(shape, keep_raw=keep_raw)
    value = None if body.read(1) else decoded(data, charset)
    if walk.holds_records(value) and walk.is_complete(value, data):
        return walk.events(value, data)
    body.seek(start)
    return _Reader(Buffer(body, charset), shape, keep_raw).read()


class Buffer:
    """A window on the decoded text: ``text[at:]`` is what comes next.

    :param values: decodes one value; the default keeps numbers as they were written.
    """

    def __init__(self, body: IO[bytes], charset: str | None, values: JSONDecoder = _DECODER) -> None:
        first = first_bytes(body)
        self._body = body
        self._values = values
        self._decoder = codecs.getincrementaldecoder(encoding_of(first, charset))()
        self._before = 0
        self._ended = not first
        self.text, self.at = "", 0
        self._decode(first)

    def _decode(self, data: bytes) -> None:
        try:
            new = self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            near = self._before + len(self.text) + error.start
            raise Malformed(f"the JSON is not {error.encoding} text near character {near}: {error.reason}") from None
        if "\0" in new:  # no database stores it, and no JSON holds it unescaped
            raise Malformed(f"the JSON holds a zero byte after character {self.position}")
        self.text += new

    @property
    def position(self) -> int:
        """Characters of the body before ``at``."""
        return self._before + self.at

    def more(self) -> bool:
        """Read on, at least doubling what is in the window; false at the body's end."""
        if self._ended:
            return False
        self._before += self.at
        self.text, self.at = self.text[self.at :], 0
        data = self._body.read(max(CHUNK, len(self.text)))
        self._ended = not data
        self._decode(data)
        return True

    def peek(self) -> str:
        """Skip white space; return the next character, or nothing at the end."""
        if self.at < len(self.text) and self.text[self.at] > " ":
            return self.text[self.at]
        while True:
            space = _SPACE.match(self.text, self.at)
            self.at = space.end() if space else self.at
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def take(self, expected: str) -> str:
        """Consume the next character, which must be one of ``expected``."""
        char = self.peek()
        if not char or char not in expected:
            raise self.error(f"expected {' or '.join(repr(each) for each in expected)}")
        self.at += 1
        return char

    def value(self) -> tuple[Any, int]:
        """Decode the value that comes next; return it with its end in ``text``, and leave ``at`` before it."""
        self.peek()
        while True:
            try:
                value, end = self._values.raw_decode(self.text, self.at)
                if self.text[end - 1] in _CLOSED or len(self.text) - end >= _LOOK_AHEAD or not self.more():
                    return value, end
                continue
            except JSONDecodeError as error:
                cause, where = error.msg, error.pos
            except RecursionError:
                raise self.error("nested too deeply") from None
            if len(self.text) - self.at > LARGEST_VALUE or not self.more():
                self.at = max(self.at, where - 40)
                raise self.error(cause)

    def names(self) -> Iterator[str]:
        """Yield the names of an open object's members, each with the buffer at its value, until the object ends."""
        if self.peek() == "}":
            self.at += 1
            return
        while True:
            if self.peek() != '"':
                raise self.error("expected a name in quotes")
            name, self.at = self.value()
            self.take(":")
            yield name
            if self.take(",}") == "}":
                return

    def error(self, reason: str) -> Malformed:
        what = found(self.text[self.at : self.at + 200]) if self.at < len(self.text) else "the body ends there"
        return Malformed(f"the JSON breaks off or is malformed at character {self.position}: {reason}, {what}")


class _Reader:
    def __init__(self, buffer: Buffer, shape: Shape, keep_raw: bool) -> None:
        self.buffer = buffer
        self.leaf = shape.leaf
        self.null = shape.null
        self.levels = shape.levels()
        self.marks = shape.beginnings()
        self.keep_raw = keep_raw

    def read(self) -> Events:
        start = self.buffer.text[:200]
        kind = self.buffer.peek()
        if kind == "{":
            yield from self._body(start)
        elif kind == "[" or (kind == "n" and self.null):
            yield from self._elements(1)
        else:
            raise Malformed(f"expected a JSON object or list of invoices, {found(start)}")
        if self.buffer.peek():
            raise self.buffer.error("expected the end")

    def _body(self, start: str) -> Events:
        """Read the outermost object: an envelope with the first list in it, or one record by itself."""
        self.buffer.take("{")
        seen, bare = False, False
        for name in self.buffer.names():
            if not seen and not bare and fold(name) in self.marks:
                bare = True
                yield Event(OPEN, 1)
            seen = seen or self.levels.get(fold(name)) == 1
            yield from self._member(name, 1 if bare else 0)
        if bare:
            yield Event(CLOSE, 1)
        elif not seen:
            raise Malformed(f"the JSON holds no list of invoices, {found(start)}")

    def _member(self, name: str, level: int) -> Events:
        deeper = self.levels.get(fold(name), 0)
        if deeper > level:
            yield from self._elements(deeper)
            return
        yield self._members(level, name)

    def _members(self, level: int, name: str) -> Event:
        value, raw = self._whole()
        return Event(MEMBERS, level, {name: value}, raws={name: raw} if self.keep_raw else {}, size=len(raw))

    def _whole(self) -> tuple[Any, str]:
        """Consume the value that comes next; return it with its source text."""
        value, end = self.buffer.value()
        raw, self.buffer.at = self.buffer.text[self.buffer.at : end], end
        return value, raw

    def _elements(self, level: int) -> Events:
        """Read a list of records; ``null``, an empty text or one record may stand for it."""
        if self.buffer.peek() in 'n"':
            value, end = self.buffer.value()
            if not value:
                self.buffer.at = end
                return
        if self.buffer.peek() != "[":
            yield from self._element(level)
            return
        self.buffer.at += 1
        if self.buffer.peek() == "]":
            self.buffer.at += 1
        elif level == self.leaf:
            yield from self._leaves()
        else:
            yield from self._element(level)
            while self.buffer.take(",]") == ",":
                yield from self._element(level)

    def _leaves(self) -> Events:
        """Read the elements of a list of leaves: some one by one, and of a long list those of each window at once."""
        yield self._some()
        while self.buffer.take(",]") == ",":
            yield self._many() or self._some()

    def _some(self) -> Event:
        leaves: list[Any] = []
        raws: list[str] = []
        size = 0
        while True:
            value, raw = self._whole()
            leaves.append(value)
            raws.append(raw)
            size += len(raw)
            if len(leaves) >= _LEAVES or size >= CHUNK or self.buffer.peek() != ",":
                return Event(LEAVES, self.leaf, leaves=leaves, raws=raws if self.keep_raw else (), size=size)
            self.buffer.take(",")

    def _many(self) -> Event | None:
        """Read the leaves that are whole in the window; None where it holds more than this list's."""
        buffer = self.buffer
        if len(buffer.text) - buffer.at < CHUNK:
            buffer.more()
        end = buffer.text.rfind("},", buffer.at) + 1
        found = elements(buffer.text[buffer.at : end], keep_raw=self.keep_raw) if end else None
        if not found:
            return None
        size, buffer.at = end - buffer.at, end
        return Event(LEAVES, self.leaf, leaves=found[0], raws=found[1], size=size)

    def _element(self, level: int) -> Events:
        if level == self.leaf:
            value, raw = self._whole()
            yield Event(LEAVES, level, leaves=[value], raws=[raw] if self.keep_raw else (), size=len(raw))
            return
        yield Event(OPEN, level)
        if self.buffer.peek() != "{":
            yield self._members(level, "")
        else:
            self.buffer.at += 1
            for name in self.buffer.names():
                yield from self._member(name, level)
        yield Event(CLOSE, level)
