"""XML of any size as a stream of records, in the same events as JSON: hardened lxml, a tree of one chunk at a time.

A document type declaration is refused before lxml sees it, so there are no entities to expand and nothing to fetch.
The children of a record under their expected names are streamed; whatever stands elsewhere or under another name is
read from the tree when its parent ends (up to a cap), by the same rules.
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any

from airflow_cloudbilling.parse.events import (
    CLOSE,
    LARGEST_VALUE,
    LEAVES,
    MEMBERS,
    OPEN,
    Event,
    Events,
    Malformed,
    Shape,
    found,
)
from airflow_cloudbilling.parse.fields import fold
from airflow_cloudbilling.parse.xml_guard import hardened_parser, prolog, utf8
from airflow_cloudbilling.parse.xml_text import declarations, local, source_text, value_of

if TYPE_CHECKING:
    from lxml.etree import _Element as Element


_LEAF_SIZE = 2048  # characters; more or less


def read_xml(body: IO[bytes], shape: Shape, charset: str | None = None, *, keep_raw: bool = True) -> Events:
    """Read an XML body as events, in memory that grows neither with the body nor with a list.

    :param body: at its beginning.
    :param charset: as the content type states it; a byte order mark wins, then this, then the XML declaration.
    :param keep_raw: whether leaves carry their source text.
    :raises Malformed: when the body is cut, is no XML, has a document type, or another root than the shape's.
    """
    from lxml import etree

    chunks = utf8(body, charset)
    first = prolog(chunks, shape.root)
    reader = _Reader(shape, keep_raw)
    parser = hardened_parser(reader.tags())
    try:
        yield from reader.feed(parser, first)
        for chunk in chunks:
            yield from reader.feed(parser, chunk)
        root = parser.close()
    except etree.XMLSyntaxError as error:
        raise Malformed(f"the XML breaks off or is malformed: {error.msg}; it begins: {found(first[:200])}") from None
    yield from reader.finish(root)


class _Frame:
    """An element that is open: a record, or a list of records."""

    __slots__ = ("element", "items", "last", "leaves", "level", "record")

    def __init__(self, element: Element, level: int, *, record: bool, leaves: bool = False) -> None:
        self.element = element
        self.level = level  # of the record; of a list, its records' level
        self.record = record
        self.leaves = leaves  # a list of leaves
        self.items = 0
        self.last: Element | None = None  # handled, and removed when the next sibling begins


class _Reader:
    def __init__(self, shape: Shape, keep_raw: bool) -> None:
        self.shape = shape
        self.leaf = shape.leaf
        self.lists = shape.levels()
        self.singular = shape.singular()
        self.keep_raw = keep_raw
        self.stack: list[_Frame] = []
        self.leaves: list[Any] = []  # of one list, read and not yet told
        self.raws: list[str] = []
        self.unread = 0
        self.seen = False  # whether a list of records, or one, has come
        self.noise: tuple[tuple[str, str], ...] = ()

    def tags(self) -> tuple[str, ...]:
        """Return the element names to be told of, in the writings in use; others are found in the tree."""
        lists = [name for name, _ in self.shape.names()]
        names = [*lists, *(name.removesuffix("s") for name in lists)]
        return tuple(f"{{*}}{way}" for name in names for way in (name, name[0].lower() + name[1:], name.lower()))

    def feed(self, parser: Any, chunk: bytes) -> Events:
        """Give lxml one chunk and yield what it completes."""
        if not chunk:
            return
        parser.feed(chunk)
        self.unread += len(chunk)
        for kind, element in parser.read_events():
            if not self.stack:
                yield from self._begin(element.getroottree().getroot())
            frame = self.stack[-1]
            if frame.leaves and element.getparent() is frame.element and self._is_leaf(element):
                if kind == "end":
                    yield from self._settle(frame, element)
                    self._hold(element)
                    frame.last = element
                    frame.items += 1
            else:
                yield from self._held()
                yield from self._start(element) if kind == "start" else self._end(element)
        yield from self._held()
        if self.unread > LARGEST_VALUE:
            raise Malformed(f"the XML has {self.unread} bytes without an element of {', '.join(self.shape.lists)}")

    def finish(self, root: Element) -> Events:
        """Yield what is left when the body has ended."""
        if not self.stack:
            yield from self._begin(root)
        frame = self.stack[0]
        rest = [child for child in root if child is not frame.last]
        invoices = frame.level or self.seen or any(self._level(child, 0) for child in rest)
        if not invoices and _is_list_of(rest, root):
            yield from self._records(root, 1)
            return
        if not invoices and (rest or (root.text or "").strip()):
            raise Malformed(f"the XML holds no list of invoices, {found(source_text(root, ()))}")
        yield from self._close(frame)

    def _begin(self, root: Element) -> Events:
        name = fold(root.tag)
        self.noise = declarations(root)
        if self.lists.get(name) == 1:
            self.stack.append(_Frame(root, 1, record=False))
        elif self.singular.get(name) == 1:
            self.stack.append(_Frame(root, 1, record=True))
            yield Event(OPEN, 1)
        else:
            self.stack.append(_Frame(root, 0, record=True))

    def _is_leaf(self, element: Element) -> bool:
        return self.singular.get(fold(element.tag)) == self.leaf

    def _hold(self, element: Element) -> None:
        """Read a leaf; those of one list that a chunk completes go on together."""
        self.leaves.append(value_of(element))
        if self.keep_raw:
            self.raws.append(source_text(element, self.noise))

    def _held(self) -> Events:
        if self.leaves:
            leaves, raws, self.leaves, self.raws = self.leaves, self.raws, [], []
            yield Event(
                LEAVES, self.leaf, leaves=leaves, raws=raws, size=sum(map(len, raws)) or _LEAF_SIZE * len(leaves)
            )

    def _level(self, child: Element, level: int) -> int:
        """Return the level of the records that a child of a record of ``level`` is or holds; 0 for a member."""
        name = fold(child.tag)
        deeper = self.lists.get(name) or self.singular.get(name, 0)
        return deeper if deeper > level else 0

    def _start(self, element: Element) -> Events:
        frame = self.stack[-1]
        if element.getparent() is not frame.element:
            return
        single = self.singular.get(fold(element.tag), 0)
        if not frame.record and single == frame.level:
            frame.items += 1
        elif not (deeper := self._level(element, frame.level)):
            return
        elif not frame.record:  # a record where its list was expected
            if frame.items:
                return
            frame.record = True
            yield Event(OPEN, frame.level)
        level = single or deeper
        if single != self.leaf:
            yield from self._settle(frame, element)
            leaves = not single and level == self.leaf
            self.stack.append(_Frame(element, level, record=bool(single), leaves=leaves))
            self.seen = True
            if single:
                yield Event(OPEN, level)

    def _end(self, element: Element) -> Events:
        frame = self.stack[-1]
        if element is frame.element:
            if len(self.stack) > 1:
                yield from self._close(self.stack.pop())
                self.stack[-1].last = element
                del element[:]
        elif element.getparent() is frame.element and self._is_leaf(element):
            if frame.record and frame.level == self.leaf:
                return
            yield from self._settle(frame, element)
            yield self._leaf(element)
            frame.last = element

    def _settle(self, frame: _Frame, current: Element) -> Events:
        """Read and remove what stands before ``current``, an element that has begun."""
        self.unread = 0
        parent, last = frame.element, frame.last
        while (child := parent[0]) is not current:
            if child is not last:
                yield from self._held()
                yield from self._part(child, frame.level) if frame.record else self._item(child, frame.level)
            parent.remove(child)
        frame.last = None

    def _close(self, frame: _Frame) -> Events:
        """Read what is left of a record or a list that has ended."""
        self.unread = 0
        rest = [child for child in frame.element if child is not frame.last]
        if frame.record:
            for child in rest:
                yield from self._part(child, frame.level)
            if frame.level:
                yield Event(CLOSE, frame.level)
        elif frame.items:
            for child in rest:
                yield from self._item(child, frame.level)
        else:
            yield from self._records(frame.element, frame.level)

    # From here on: the same, of elements that are wholly in the tree.

    def _part(self, child: Element, level: int) -> Events:
        """Read one child of a record."""
        deeper = self._level(child, level)
        if not deeper:
            yield self._member(child, level, local(child))
        elif fold(child.tag) in self.lists:
            yield from self._records(child, deeper)
        else:
            yield from self._item(child, deeper)

    def _records(self, parent: Element, level: int) -> Events:
        """Read a list: its children are its records, under whatever name; unless it is one record itself."""
        children = list(parent)
        if not children and not (parent.text or "").strip():
            return
        named = any(self.singular.get(fold(child.tag)) == level for child in children)
        if children and (named or all(len(child) and not self._level(child, level) for child in children)):
            for child in children:
                yield from self._item(child, level)
        else:
            yield from self._item(parent, level)

    def _item(self, element: Element, level: int) -> Events:
        """Read one record."""
        if level == self.leaf:
            yield self._leaf(element)
            return
        yield Event(OPEN, level)
        if not len(element) and (element.text or "").strip():
            yield self._member(element, level, "")
        for child in element:
            yield from self._part(child, level)
        yield Event(CLOSE, level)

    def _leaf(self, element: Element) -> Event:
        raws = [source_text(element, self.noise)] if self.keep_raw else ()
        return Event(LEAVES, self.leaf, leaves=[value_of(element)], raws=raws, size=_LEAF_SIZE)

    def _member(self, element: Element, level: int, name: str) -> Event:
        raw = source_text(element, self.noise)
        return Event(MEMBERS, level, {name: value_of(element)}, raws={name: raw}, size=len(raw))


def _is_list_of(children: list[Element], root: Element) -> bool:
    """Whether a root of another name is a list by its own (``ArrayOfBill`` or ``BillList`` of ``Bill`` records)."""
    names = {fold(child.tag) for child in children}
    return len(names) == 1 and names.pop() in fold(root.tag) and all(len(child) for child in children)
