"""The e-invoice attached to a PDF, which is where Factur-X and ZUGFeRD keep it (PDF/A-3); in bounded memory."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any

from airflow_cloudbilling.parse.events import Malformed, found
from airflow_cloudbilling.parse.values import clean, shown

if TYPE_CHECKING:
    from pypdf import PdfReader

HEADER_WITHIN = 1024  # bytes; ISO 32000-1, Annex H 3.4.1
# Factur-X 1.0 and ZUGFeRD 2, "Embedding": the names in use, the latest first; ZUGFeRD 1 had its own capitals.
_KNOWN = ("factur-x.xml", "xrechnung.xml", "zugferd-invoice.xml")
_LARGEST_PDF = 256 * 1024 * 1024  # bytes; a damaged PDF is read whole to mend it
_LARGEST_ATTACHMENT = 64 * 1024 * 1024  # bytes
_MOST_ATTACHMENTS = 32  # looked into, one after the other


def is_pdf(head: bytes) -> bool:
    """Return whether a file that begins so is a PDF."""
    return b"%PDF-" in head[:HEADER_WITHIN]


def attached(body: IO[bytes], wanted: Callable[[bytes], bool]) -> bytes | None:
    """Return the first attachment of a PDF that is wanted; those go first whose names are an e-invoice's.

    :param body: seekable.
    :param wanted: judges by the attachment's content.
    :raises Malformed: when the PDF is encrypted, damaged or too large, an attachment expands beyond all measure, or
        none is wanted though one has an e-invoice's name.
    """
    import pypdf  # 0.3 s to import, so only where a PDF came

    size = body.seek(0, os.SEEK_END)
    if size > _LARGEST_PDF:
        raise Malformed(f"a PDF of {size} bytes is not looked into for an e-invoice; {_LARGEST_PDF} are allowed")
    body.seek(0)
    try:
        reader = pypdf.PdfReader(body)
        if reader.is_encrypted and not reader.decrypt(""):
            raise Malformed("the PDF is encrypted, which PDF/A-3 forbids; an e-invoice inside cannot be read")
        return _first(_files(reader), wanted)
    except (Malformed, MemoryError):
        raise
    except Exception as error:  # pypdf meets damage with whatever exception happens
        raise Malformed(f"the PDF cannot be read: {type(error).__name__}: {clean(str(error), 200)}") from None


def _first(files: list[tuple[str, Any]], wanted: Callable[[bytes], bool]) -> bytes | None:
    troubles = []
    for name, stream in files:
        data, trouble = _content(stream)
        if not trouble and wanted(data):
            return data
        if not trouble and name.lower() in _KNOWN:
            trouble = f"holds no e-invoice, {found(data[:100])}"
        if trouble and name.lower().endswith(".xml"):  # what else is attached may be as it likes
            troubles.append(f"the PDF's attachment {shown(name)} {trouble}")
    if troubles:
        raise Malformed(troubles[0])
    return None


def _files(reader: PdfReader) -> list[tuple[str, Any]]:
    """Return names and streams of embedded files: of the name tree, and those associated with the PDF (PDF/A-3)."""
    named = [(file.alternative_name or file.name, file.pdf_object) for file in reader.attachment_list]
    associated = reader.root_object.get("/AF")
    for entry in associated.get_object() if associated is not None else ():
        specification = entry.get_object()
        named.append((specification.get("/UF") or specification.get("/F") or "", specification))
    files = [(str(name), stream) for name, specification in named if (stream := _stream(specification)) is not None]
    return sorted(files, key=lambda file: _likelihood(file[0]))[:_MOST_ATTACHMENTS]


def _likelihood(name: str) -> int:
    name = name.lower()
    return _KNOWN.index(name) if name in _KNOWN else len(_KNOWN) + (not name.endswith(".xml"))


def _stream(specification: Any) -> Any:
    files = specification.get("/EF")
    files = files.get_object() if files is not None else {}
    stream = files.get("/UF", files.get("/F"))
    return stream.get_object() if stream is not None else None


def _content(stream: Any) -> tuple[bytes, str]:
    """Return what a stream holds, or else what is wrong with it.

    It is inflated here, for pypdf takes a damaged stream for what is left of it.
    """
    if "/Filter" not in stream:
        return bytes(stream.get_data()), ""
    if stream["/Filter"] != "/FlateDecode" or "/DecodeParms" in stream:
        return _decoded(stream)
    inflate = zlib.decompressobj()
    try:
        data = inflate.decompress(stream._data, _LARGEST_ATTACHMENT)
    except zlib.error as error:
        return b"", f"is damaged: {error}"
    if inflate.eof:
        return data, ""
    grows = len(data) == _LARGEST_ATTACHMENT
    return b"", f"expands to more than {_LARGEST_ATTACHMENT} bytes" if grows else "is damaged: it breaks off"


def _decoded(stream: Any) -> tuple[bytes, str]:
    from pypdf.errors import PyPdfError
    from pypdf.filters import decode_stream_data  # unlike get_data() it leaves nothing in the reader's cache

    try:
        return bytes(decode_stream_data(stream)), ""
    except (PyPdfError, NotImplementedError, ValueError) as error:
        return b"", f"cannot be decoded: {clean(str(error), 200)}"
