"""What an XML body must pass before lxml sees it (encoding, no document type, expected root), and the parser."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import IO, Any

from airflow_cloudbilling.parse.events import CHUNK, LONGEST_PROLOG, Malformed, encoding_of, first_bytes, found

_PROLOG = re.compile(rb"\s*(?:<\?.*?\?>\s*|<!--.*?-->\s*)*", re.DOTALL)
_ROOT = re.compile(rb"<(?:[\w.-]+:)?([\w.-]+)[\s/>]")
_DECLARED = re.compile(rb"""<\?xml[^>]*?encoding\s*=\s*["']([A-Za-z0-9._-]+)""")


def hardened_parser(tags: tuple[str, ...]) -> Any:
    """Return a parser that expands nothing, fetches nothing and keeps libxml2's own limits."""
    from lxml import etree  # only where XML is read: the import costs time

    return etree.XMLPullParser(
        events=("start", "end"),
        tag=tags,
        encoding="utf-8",
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )


def utf8(body: IO[bytes], charset: str | None) -> Iterator[bytes]:
    """Yield the body as UTF-8, so that what is checked here is what lxml reads, whatever encoding it declares."""
    data = first_bytes(body)
    declared = _DECLARED.match(data)
    coding = encoding_of(data, charset or (declared[1].decode() if declared else None))
    if coding == "utf-8":
        while data:
            yield data
            data = body.read(CHUNK)
        return
    decoder = codecs.getincrementaldecoder(coding)()
    try:
        while data:
            yield decoder.decode(data).encode()
            data = body.read(CHUNK)
        yield decoder.decode(b"", final=True).encode()
    except UnicodeError as error:
        raise Malformed(f"the XML is not {coding} text: {error}") from None


def prolog(chunks: Iterator[bytes], expected: str) -> tuple[bytes, bytes]:
    """Read up to the root's start tag; return what stands before it, and what was read from there on.

    :raises Malformed: for a document type, and for a root that is not the vendor's.
    """
    head = b""
    for chunk in chunks:
        head += chunk
        end = _end_of_prolog(head)
        rest = head[end:]
        if rest[:2] == b"<!" and rest[2:4] != b"--"[: len(rest) - 2]:
            raise Malformed(f"an XML document type or an HTML page is refused, {found(rest[:200])}")
        if root := _ROOT.match(rest):
            if expected not in root[1].decode().lower():
                raise Malformed(f"expected an XML root like InvoiceResponse, {found(rest[:200])}")
            return head[:end], rest
        if len(head) > LONGEST_PROLOG:
            break
    raise Malformed(f"the XML has no root element, {found(head[:200])}")


def _end_of_prolog(head: bytes) -> int:
    match = _PROLOG.match(head, 0, LONGEST_PROLOG)
    return match.end() if match else 0
