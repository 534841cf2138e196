"""The files attached to a PDF, which is where Factur-X and ZUGFeRD keep the invoice's XML (PDF/A-3); bounded memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.parse.events import Malformed
from airflow_cloudbilling.parse.values import clean

if TYPE_CHECKING:
    from pypdf import PdfReader

HEADER_WITHIN = 1024  # bytes; ISO 32000-1, Annex H 3.4.1
# Factur-X 1.0 and ZUGFeRD 2, "Embedding": the names in use, the latest first; ZUGFeRD 1 had its own capitals.
_KNOWN = ("factur-x.xml", "xrechnung.xml", "zugferd-invoice.xml")
_LARGEST_PDF = 256 * 1024 * 1024  # bytes; a damaged PDF is read whole to mend it
_MOST_ATTACHMENTS = 32  # looked into, each by itself; pypdf stops a stream that grows beyond 75 MB


def is_pdf(head: bytes) -> bool:
    """Return whether a file that begins so is a PDF."""
    return b"%PDF-" in head[:HEADER_WITHIN]


def attachments(body: IO[bytes]) -> Iterator[bytes]:
    """Yield the contents of a PDF's attachments, those first whose names are an e-invoice's.

    :param body: seekable.
    :raises Malformed: when the PDF is encrypted, damaged or too large, or an attachment expands beyond all measure.
    :raises ConfigurationError: when pypdf is not installed.
    """
    try:
        from pypdf import PdfReader  # 0.3 s to import, so only where a PDF came
    except ImportError:
        raise ConfigurationError(
            "e-invoices inside PDF files need pypdf: install airflow-provider-cloudbilling[einvoice]."
        ) from None
    size = body.seek(0, os.SEEK_END)
    if size > _LARGEST_PDF:
        raise Malformed(f"a PDF of {size} bytes is not looked into for an e-invoice; {_LARGEST_PDF} are allowed")
    body.seek(0)
    try:
        reader = PdfReader(body)
        if reader.is_encrypted and not reader.decrypt(""):
            raise Malformed("the PDF is encrypted, which PDF/A-3 forbids; an e-invoice inside cannot be read")
        for stream in _streams(reader):
            yield _decoded(stream)
    except (Malformed, MemoryError):
        raise
    except Exception as error:  # pypdf meets damage with whatever exception happens
        raise Malformed(f"the PDF cannot be read: {type(error).__name__}: {clean(str(error), 200)}") from None


def _streams(reader: PdfReader) -> list[Any]:
    """Return the streams of embedded files, the likeliest first: of the name tree, and those associated (PDF/A-3)."""
    named = [(file.alternative_name or file.name, file.pdf_object) for file in reader.attachment_list]
    associated = reader.root_object.get("/AF")
    for entry in associated.get_object() if associated is not None else ():
        specification = entry.get_object()
        named.append((specification.get("/UF") or specification.get("/F") or "", specification))
    named.sort(key=lambda file: _likelihood(str(file[0])))
    return [stream for _, specification in named[:_MOST_ATTACHMENTS] if (stream := _stream(specification)) is not None]


def _likelihood(name: str) -> int:
    name = name.lower()
    return _KNOWN.index(name) if name in _KNOWN else len(_KNOWN) + (not name.endswith(".xml"))


def _stream(specification: Any) -> Any:
    files = specification.get("/EF")
    files = files.get_object() if files is not None else {}
    stream = files.get("/UF", files.get("/F"))
    return stream.get_object() if stream is not None else None


def _decoded(stream: Any) -> bytes:
    from pypdf.errors import LimitReachedError
    from pypdf.filters import decode_stream_data  # unlike get_data() it leaves nothing in the reader's cache

    try:
        return bytes(decode_stream_data(stream))
    except LimitReachedError as error:
        raise Malformed(f"an attachment of the PDF is refused: {clean(str(error), 200)}") from None
