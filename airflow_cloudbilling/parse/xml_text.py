"""Elements of XML as JSON would have them, and as text."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lxml.etree import _Element as Element


def local(element: Element) -> str:
    """Return an element's name without its namespace."""
    return str(element.tag).rpartition("}")[2]


def ways(name: str) -> tuple[str, str, str]:
    """Return the writings of a name that are in use; others are found in the tree."""
    return name, name[0].lower() + name[1:], name.lower()


def value_of(element: Element) -> Any:
    """Return an element as JSON would have it: a record of its children, else its text, else nothing."""
    if not len(element):
        return element.text
    record = {}
    for child in element:
        value = child.text
        if (value is None or value < "!") and len(child):  # white space sorts before "!"
            value = value_of(child)
        record[child.tag] = value
    return record


def declarations(root: Element) -> tuple[tuple[str, str], ...]:
    """Return the namespace declarations that lxml repeats on every element, with the prefix that needs them."""
    return tuple(
        (f' xmlns:{prefix}="{uri}"', f"{prefix}:") if prefix else (f' xmlns="{uri}"', "\0")
        for prefix, uri in root.nsmap.items()
    )


def source_text(element: Element, noise: tuple[tuple[str, str], ...]) -> str:
    """Return an element as XML, without the root's declarations that it does not need."""
    text = _tostring()(element, encoding="unicode", with_tail=False)
    for declaration, prefix in noise:
        if prefix not in text:
            text = text.replace(declaration, "", 1)
    return text


@lru_cache(maxsize=1)
def _tostring() -> Callable[..., str]:
    from lxml import etree

    return etree.tostring
