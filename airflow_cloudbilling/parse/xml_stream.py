"""XML of any size as a stream of records, in the same events as JSON: hardened lxml, a tree of one chunk at a time.

A document type declaration is refused before lxml sees it, so there are no entities to expand and nothing to fetch.
Plain leaves, which are the most of a large body, are read out of the source and never get to lxml.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable
from itertools import chain
from typing import IO

from airflow_cloudbilling.parse.events import Event, Events, Malformed, Shape, found
from airflow_cloudbilling.parse.values import clean
from airflow_cloudbilling.parse.xml_guard import prolog, utf8
from airflow_cloudbilling.parse.xml_leaves import PlainLeaves
from airflow_cloudbilling.parse.xml_records import Records
from airflow_cloudbilling.parse.xml_text import ways

_WINDOW = 64 * 1024  # bytes of leaves that are read at once
_MISSES = 8  # leaves that are not plain, one after the other, until none is expected to be
_POSITION = re.compile(r",? line \d+(?:, column \d+)?")  # within what lxml is given, which is not all


def read_xml(body: IO[bytes], shape: Shape, charset: str | None = None, *, keep_raw: bool = True) -> Events:
    """Read an XML body as events, in memory that grows neither with the body nor with a list.

    :param body: at its beginning.
    :param charset: as the content type states it; a byte order mark wins, then this, then the XML declaration.
    :param keep_raw: whether leaves carry their source text.
    :raises Malformed: when the body is cut, is no XML, has a document type, or another root than the shape's.
    """
    from lxml import etree

    chunks = utf8(body, charset)
    before, first = prolog(chunks, shape.root)
    source = _Source(shape, keep_raw)
    try:
        yield from source.read(before, chain([first], chunks))
    except etree.XMLSyntaxError as error:
        reason, begin = _POSITION.sub("", clean(error.msg)), found((before + first)[:200])
        raise Malformed(
            f"the XML breaks off or is malformed after byte {source.position}: {reason}; it begins: {begin}"
        ) from None


class _Source:
    """The text of a body, part of which is plain leaves, and part is lxml's."""

    def __init__(self, shape: Shape, keep_raw: bool) -> None:
        self._records = Records(shape, keep_raw)
        self._plain = PlainLeaves(self._records.tree.is_leaf)
        self._gates: re.Pattern[bytes] | None = _gates(shape)  # None: nothing is plain any more
        self._list: str | None = None  # of leaves, one of which may begin where lxml has read to
        self._misses = 0
        self.position = 0  # bytes that are read

    def read(self, before: bytes, chunks: Iterable[bytes]) -> Events:
        """Read the whole body.

        :param before: what stands before the root.
        """
        yield from self._feed(before)
        text = b""
        for chunk in chunks:
            text = yield from self._split(text + chunk)
        yield from self._feed(text)
        yield from self._records.finish()

    def _split(self, text: bytes) -> Generator[Event, None, bytes]:
        """Read plain leaves where there may be some, and give lxml all the rest; return what is not whole yet."""
        at = 0
        while True:
            if self._list:
                at = yield from self._leaves(text, at, self._list)
            gate = self._gates.search(text, at) if self._gates else None
            if gate is None:
                break
            yield from self._feed(text[at : gate.end()])
            self._list = self._records.between_leaves() if self._gates else None
            at = gate.end()
        end = at if self._list and len(text) - at <= _WINDOW else _last_tag(text, at)
        yield from self._feed(text[at:end])
        return text[end:]

    def _feed(self, piece: bytes) -> Events:
        if piece:
            yield from self._records.feed(piece)
            self.position += len(piece)
            self._list = None
            if (b"<!" in piece or b"<?" in piece) and self._records.between_leaves():
                self._gates = None  # what looks like a leaf from now on may stand in a comment

    def _leaves(self, text: bytes, at: int, name: str) -> Generator[Event, None, int]:
        """Read the plain leaves that come next; return where they end.

        :param name: of their list.
        """
        while at < (end := _end_of_leaves(text, at, name)):
            leaves, raws, rest = self._plain.read(text[at:end])
            if not leaves:
                self._miss(text, at, end)
                break
            self.position += end - rest - at
            at = end - rest
            self._misses = 0
            yield self._records.add(leaves, raws)
        return at

    def _miss(self, text: bytes, at: int, end: int) -> None:
        """Take note of a whole leaf that is not plain."""
        if self._gates and self._gates.search(text, at, end):
            self._misses += 1
            if self._misses > _MISSES:
                self._gates = self._list = None


def _gates(shape: Shape) -> re.Pattern[bytes]:
    """Return the tags after which a leaf may begin: the start of a list of leaves, and the end of a leaf."""
    lists = [way for name, level in shape.names() if level == shape.leaf for way in ways(name)]
    starts, ends = "|".join(map(re.escape, lists)), "|".join(re.escape(way.removesuffix("s")) for way in lists)
    return re.compile(rf"<(?:{starts})(?:\s[^<>]*)?>|</(?:{ends})\s*>".encode())


def _end_of_leaves(text: bytes, at: int, name: str) -> int:
    """Return the end of a window of leaves: that of their list, or of a tag."""
    end = text.find(f"</{name}".encode(), at, at + _WINDOW)
    return end if end >= 0 else text.rfind(b">", at, at + _WINDOW) + 1


def _last_tag(text: bytes, at: int) -> int:
    """Return where the last tag begins, if it is not whole yet and may be soon; else the end of the text."""
    start = text.rfind(b"<", at)
    whole = start < 0 or len(text) - start > _WINDOW or text.find(b">", start) >= 0
    return len(text) if whole else start
