"""Leaves of XML that are nothing but elements with texts, read out of the source itself: the most of a large body.

They are well-formed by themselves, so lxml need not see them: it takes several times as long, with a tree of every one.
What else a leaf may hold (attributes, prefixes, inner elements, comments, CDATA, character references) is lxml's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple
from xml.sax.saxutils import unescape  # texts alone: nothing is parsed there

_TEXT = "[^<>\\x00-\\x08\\x0b-\\x1f\ufffe\uffff]"  # what XML allows but \r, which XML reads as \n
_NAME = "[A-Za-z_][A-Za-z0-9_.-]*"
_SPACE = r"[ \t\r\n]*"
_PLAIN = re.compile(rf"{_SPACE}<({_NAME})>(?:{_SPACE}<({_NAME})(?: ?/>|>{_TEXT}*</\2>))+{_SPACE}</\1>")
_TAG = re.compile(rf"<({_NAME}) ?/?>")
_QUOTES = {"&quot;": '"', "&apos;": "'"}
_FOREIGN = re.compile("&(?!(?:amp|lt|gt|quot|apos);)")
_SHAPES_KEPT = 32
_LARGEST_SHAPE = 200  # elements; a pattern of so many is compiled in some 0.05 s


class _Shape(NamedTuple):
    """Leaves whose elements have the same names in the same order."""

    names: tuple[str, ...]
    pattern: re.Pattern[str]


class PlainLeaves:
    """Reads plain leaves by patterns, one for each of their shapes.

    :param is_leaf: whether an element of some name is a leaf.
    """

    def __init__(self, is_leaf: Callable[[str], bool]) -> None:
        self._is_leaf = is_leaf
        self._shapes: list[_Shape] = []

    def read(self, data: bytes) -> tuple[list[dict[str, Any]], list[str], int]:
        """Return the leaves that some text begins with, their source texts, and the bytes that are left."""
        try:
            text = data.decode()
        except UnicodeDecodeError:  # lxml says where
            return [], [], len(data)
        leaves: list[dict[str, Any]] = []
        raws: list[str] = []
        foreign = _FOREIGN.search(text)
        at, end = 0, foreign.start() if foreign else len(text)
        while shape := self._shape_of(text, at, end):
            found = list(iter(shape.pattern.scanner(text, at, end).match, None))  # type: ignore[attr-defined] # is in re.Scanner
            leaves += [dict(zip(shape.names, one.groups(), strict=True)) for one in found]
            raws += [one[0].strip() for one in found]
            at = found[-1].end()
        if "&" in text[:at]:
            leaves = [{name: value and unescape(value, _QUOTES) for name, value in leaf.items()} for leaf in leaves]
        return leaves, raws, len(text[at:].encode())

    def _shape_of(self, text: str, at: int, end: int) -> _Shape | None:
        """Return the shape of the leaf that comes next, unless it is not plain or is of one shape too many."""
        for shape in self._shapes:
            if shape.pattern.match(text, at, end):
                return shape
        leaf = _PLAIN.match(text, at, end) if len(self._shapes) < _SHAPES_KEPT else None
        if not leaf or not self._is_leaf(leaf[1]):
            return None
        tag, *names = _TAG.findall(leaf[0])
        if len(names) > _LARGEST_SHAPE:
            return None
        parts = "".join(rf"{_SPACE}<{each}(?:>({_TEXT}+)?</{each}>| ?/>)" for each in map(re.escape, names))
        self._shapes.append(_Shape(tuple(names), re.compile(f"{_SPACE}<{tag}>{parts}{_SPACE}</{tag}>")))
        return self._shapes[-1]
