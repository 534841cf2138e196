"""An XML body as the value that the same vendor's JSON would be: lower-camelled names, lists as lists, else text."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import IO, TYPE_CHECKING, Any

from airflow_cloudbilling.parse.events import Malformed, found
from airflow_cloudbilling.parse.fields import fold
from airflow_cloudbilling.parse.values import clean
from airflow_cloudbilling.parse.xml_guard import hardened_parser, prolog, utf8

if TYPE_CHECKING:
    from lxml.etree import _Element as Element

_FIRST_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]")  # "ID", "VAT" of "VATNumber", "I" of "InvoiceId"
_DEEPEST = 100  # levels of elements


def read_xml_value(
    body: IO[bytes], dropped: Collection[str] = (), charset: str | None = None, *, camel: bool = True
) -> Any:
    """Return what the root element holds.

    :param body: at its beginning.
    :param dropped: names of elements that are left out wherever they stand.
    :param camel: whether names become JSON's usual ones; False: they stay as they are.
    :raises Malformed: when the body is cut, is no XML, is nested too deeply or has a document type.
    """
    from lxml import etree

    chunks = utf8(body, charset)
    first = b"".join(prolog(chunks, ""))
    parser = hardened_parser(("cloudbilling-none",))  # no events: the tree is read when it is whole
    try:
        parser.feed(first)
        for chunk in chunks:
            parser.feed(chunk)
        root = parser.close()
    except etree.XMLSyntaxError as error:
        reason, begin = clean(error.msg), found(first[:200])
        raise Malformed(f"the XML breaks off or is malformed: {reason}; it begins: {begin}") from None
    return _Tree(frozenset(name.casefold() for name in dropped), camelled if camel else str).value(root, _DEEPEST)


def camelled(name: str) -> str:
    """Return a name as JSON has it: ``InvoiceId`` as ``invoiceId``, ``VATNumber`` as ``vatNumber``."""
    return _FIRST_WORD.sub(lambda word: word[0].lower(), name, count=1) if name[:1].isupper() else name


class _Tree:
    """Turns elements into values.

    :param dropped: names of elements that are left out, in lower case.
    :param named: what an element's name becomes.
    """

    def __init__(self, dropped: Collection[str], named: Callable[[str], str]) -> None:
        self._dropped = dropped
        self._named = named

    def value(self, element: Element, depth: int) -> Any:
        if not depth:
            raise Malformed(f"the XML is nested more than {_DEEPEST} levels deep")
        name = _local(element)
        children = [(_local(child), child) for child in element]
        if not children:
            return (element.text or "").strip() or None
        kept = [(its, self.value(child, depth - 1)) for its, child in children if its.casefold() not in self._dropped]
        names = {its for its, _ in kept}
        if len(names) == 1 and (len(kept) > 1 or fold(name) in (fold(kept[0][0]) + "s", "arrayof" + fold(kept[0][0]))):
            return [value for _, value in kept]
        return self._record(kept)

    def _record(self, members: list[tuple[str, Any]]) -> dict[str, Any]:
        """Return an object; elements of one name among others become a list."""
        record: dict[str, Any] = {}
        several: set[str] = set()
        for name, value in members:
            key = self._named(name)
            if key not in record:
                record[key] = value
            elif key in several:
                record[key].append(value)
            else:
                record[key] = [record[key], value]
                several.add(key)
        return record


def _local(element: Element) -> str:
    return str(element.tag).rpartition("}")[2]
