"""Records of XML as lxml tells of them: streamed where they stand under their expected names, else read from the tree.

lxml may be given less than the whole body: leaves that somebody else has read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_cloudbilling.parse.events import CLOSE, LARGEST_VALUE, OPEN, Event, Events, Malformed, Shape, found
from airflow_cloudbilling.parse.fields import fold
from airflow_cloudbilling.parse.xml_guard import hardened_parser
from airflow_cloudbilling.parse.xml_text import local, source_text, value_of, ways
from airflow_cloudbilling.parse.xml_tree import Tree, is_list_of

if TYPE_CHECKING:
    from lxml.etree import _Element as Element


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


class Records:
    """Reads a body that comes piece by piece.

    :param keep_raw: whether leaves carry their source text.
    """

    def __init__(self, shape: Shape, keep_raw: bool) -> None:
        self.shape = shape
        self.leaf = shape.leaf
        self.tree = Tree(shape, keep_raw)
        names = [way for name, _ in shape.names() for each in (name, name.removesuffix("s")) for way in ways(each)]
        self.parser = hardened_parser(tuple(f"{{*}}{name}" for name in names))
        self.stack: list[_Frame] = []
        self.leaves: list[Any] = []  # of one list, read and not yet told
        self.raws: list[str] = []
        self.unread = 0
        self.seen = False  # whether a list of records, or one, has come

    def between_leaves(self) -> str | None:
        """Return the name of a list of leaves if none of those that began in it is still open."""
        frame = self.stack[-1] if self.stack else None
        if frame is None or not frame.leaves or (len(frame.element) and frame.element[-1] is not frame.last):
            return None
        return local(frame.element)

    def add(self, leaves: list[Any], raws: list[str]) -> Event:
        """Take in leaves that come next in the list that is open."""
        self.stack[-1].items += len(leaves)
        self.unread = 0
        return self.tree.leaves(leaves, raws if self.tree.keep_raw else [])

    def feed(self, piece: bytes) -> Events:
        """Give lxml a piece and yield what that completes."""
        if not piece:
            return
        self.parser.feed(piece)
        self.unread += len(piece)
        for kind, element in self.parser.read_events():
            if not self.stack:
                yield from self._begin(element.getroottree().getroot())
            frame = self.stack[-1]
            if frame.leaves and element.getparent() is frame.element and self.tree.is_leaf(element.tag):
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

    def finish(self) -> Events:
        """Yield what is left when the body has ended."""
        root = self.parser.close()
        if not self.stack:
            yield from self._begin(root)
        frame = self.stack[0]
        rest = [child for child in root if child is not frame.last]
        invoices = frame.level or self.seen or any(self.tree.level(child, 0) for child in rest)
        if not invoices and is_list_of(rest, root):
            yield from self.tree.records(root, 1)
            return
        if not invoices and (rest or (root.text or "").strip()):
            raise Malformed(f"the XML holds no list of invoices, {found(source_text(root, ()))}")
        yield from self._close(frame)

    def _begin(self, root: Element) -> Events:
        name = fold(root.tag)
        self.tree.begin(root)
        if self.tree.lists.get(name) == 1:
            self.stack.append(_Frame(root, 1, record=False))
        elif self.tree.singular.get(name) == 1:
            self.stack.append(_Frame(root, 1, record=True))
            yield Event(OPEN, 1)
        else:
            self.stack.append(_Frame(root, 0, record=True))

    def _hold(self, element: Element) -> None:
        """Read a leaf; those of one list that a piece completes go on together."""
        self.leaves.append(value_of(element))
        if self.tree.keep_raw:
            self.raws.append(self.tree.source(element))

    def _held(self) -> Events:
        if self.leaves:
            leaves, raws, self.leaves, self.raws = self.leaves, self.raws, [], []
            yield self.tree.leaves(leaves, raws)

    def _start(self, element: Element) -> Events:
        frame = self.stack[-1]
        if element.getparent() is not frame.element:
            return
        single = self.tree.singular.get(fold(element.tag), 0)
        if not frame.record and single == frame.level:
            frame.items += 1
        elif not (deeper := self.tree.level(element, frame.level)):
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
        elif element.getparent() is frame.element and self.tree.is_leaf(element.tag):
            if frame.record and frame.level == self.leaf:
                return
            yield from self._settle(frame, element)
            self._hold(element)
            yield from self._held()
            frame.last = element

    def _settle(self, frame: _Frame, current: Element) -> Events:
        """Read and remove what stands before ``current``, an element that has begun."""
        self.unread = 0
        parent, last = frame.element, frame.last
        while (child := parent[0]) is not current:
            if child is not last:
                yield from self._held()
                yield from self.tree.part(child, frame.level) if frame.record else self.tree.item(child, frame.level)
            parent.remove(child)
        frame.last = None

    def _close(self, frame: _Frame) -> Events:
        """Read what is left of a record or a list that has ended."""
        self.unread = 0
        rest = [child for child in frame.element if child is not frame.last]
        if frame.record:
            for child in rest:
                yield from self.tree.part(child, frame.level)
            if frame.level:
                yield Event(CLOSE, frame.level)
        elif frame.items:
            for child in rest:
                yield from self.tree.item(child, frame.level)
        else:
            yield from self.tree.records(frame.element, frame.level)
