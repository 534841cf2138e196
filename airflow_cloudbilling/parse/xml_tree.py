"""Elements of XML that are wholly in the tree, as the events that they stand for, under whatever names lists have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_cloudbilling.parse.events import CLOSE, LEAVES, MEMBERS, OPEN, Event, Events, Shape
from airflow_cloudbilling.parse.fields import fold
from airflow_cloudbilling.parse.xml_text import declarations, local, source_text, value_of

if TYPE_CHECKING:
    from lxml.etree import _Element as Element

_LEAF_SIZE = 2048  # characters; more or less


class Tree:
    """Reads elements by the names of a shape."""

    def __init__(self, shape: Shape, keep_raw: bool) -> None:
        self.leaf = shape.leaf
        self.lists = shape.levels()
        self.singular = shape.singular()
        self.keep_raw = keep_raw
        self._noise: tuple[tuple[str, str], ...] = ()

    def begin(self, root: Element) -> None:
        """Take note of what lxml repeats of the root on every element."""
        self._noise = declarations(root)

    def level(self, child: Element, level: int) -> int:
        """Return the level of the records that a child of a record of ``level`` is or holds; 0 for a member."""
        name = fold(child.tag)
        deeper = self.lists.get(name) or self.singular.get(name, 0)
        return deeper if deeper > level else 0

    def is_leaf(self, name: str) -> bool:
        """Whether an element of this name is a leaf."""
        return self.singular.get(fold(name)) == self.leaf

    def part(self, child: Element, level: int) -> Events:
        """Read one child of a record."""
        deeper = self.level(child, level)
        if not deeper:
            yield self._member(child, level, local(child))
        elif fold(child.tag) in self.lists:
            yield from self.records(child, deeper)
        else:
            yield from self.item(child, deeper)

    def records(self, parent: Element, level: int) -> Events:
        """Read a list: its children are its records, under whatever name; unless it is one record itself."""
        children = list(parent)
        if not children and not (parent.text or "").strip():
            return
        named = any(self.singular.get(fold(child.tag)) == level for child in children)
        if children and (named or all(len(child) and not self.level(child, level) for child in children)):
            for child in children:
                yield from self.item(child, level)
        else:
            yield from self.item(parent, level)

    def item(self, element: Element, level: int) -> Events:
        """Read one record."""
        if level == self.leaf:
            yield self.leaves([value_of(element)], [self.source(element)] if self.keep_raw else [])
            return
        yield Event(OPEN, level)
        if not len(element) and (element.text or "").strip():
            yield self._member(element, level, "")
        for child in element:
            yield from self.part(child, level)
        yield Event(CLOSE, level)

    def leaves(self, leaves: list[Any], raws: list[str]) -> Event:
        """Return the event of some leaves."""
        return Event(LEAVES, self.leaf, leaves=leaves, raws=raws, size=sum(map(len, raws)) or _LEAF_SIZE * len(leaves))

    def source(self, element: Element) -> str:
        """Return an element as XML."""
        return source_text(element, self._noise)

    def _member(self, element: Element, level: int, name: str) -> Event:
        raw = self.source(element)
        return Event(MEMBERS, level, {name: value_of(element)}, raws={name: raw}, size=len(raw))


def is_list_of(children: list[Any], root: Element) -> bool:
    """Whether a root of another name is a list by its own (``ArrayOfBill`` or ``BillList`` of ``Bill`` records)."""
    names = {fold(child.tag) for child in children}
    return len(names) == 1 and names.pop() in fold(root.tag) and all(len(child) for child in children)
