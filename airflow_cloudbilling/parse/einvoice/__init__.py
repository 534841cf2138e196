"""EN 16931 e-invoices: UBL, UN/CEFACT CII, and either inside a PDF (Factur-X, ZUGFeRD); no I/O but the body's file.

A source asks :func:`worth_trying`, then :func:`read_einvoice`, and yields what comes. An error after some lines leaves
these without their invoice, so the source closes them with a ``Reject``, or with an invoice without amounts.
"""

from __future__ import annotations

import io
from typing import IO

from airflow_cloudbilling.parse.einvoice.document import EInvoice, claims, read_document
from airflow_cloudbilling.parse.einvoice.pdf import attached, is_pdf
from airflow_cloudbilling.parse.events import first_bytes

__all__ = ["EInvoice", "read_einvoice", "worth_trying"]

_TYPES = ("xml", "pdf", "octet-stream", "download")


def worth_trying(content_type: str | None, head: bytes = b"") -> bool:
    """Return whether a file may hold an e-invoice, so that :func:`read_einvoice` is worth its time.

    :param content_type: as stated; it decides only where nothing of the file is known, or nothing is stated.
    :param head: the file's first bytes, 64 KiB where it has so many.
    """
    if head:
        return is_pdf(head) or claims(head)
    kind = (content_type or "").partition(";")[0].strip().lower()
    return not kind or kind.endswith(_TYPES)


def read_einvoice(body: IO[bytes], *, invoice_id: str, keep_raw: bool, sha256: str | None) -> EInvoice | None:
    """Read a file's e-invoice: its lines, some at a time, then the invoice, or nothing if the file holds none.

    Amounts stay as stated; a credit note's total that is stated as positive, as EN 16931 has it, gives ``sign=-1``.

    :param body: at its beginning, seekable; it is read while the result is iterated, and is not closed.
    :param invoice_id: the vendor's id of the invoice; the invoice's own number (BT-1) becomes ``invoice_number``.
    :param keep_raw: whether lines and the invoice carry their XML; embedded files (BT-125) are left out of it.
    :param sha256: of the body.
    :return: ``None`` if the file is neither an e-invoice nor a PDF with one attached; of a PDF's attachments the
        best known names count first, then any other that is an e-invoice.
    :raises Malformed: at once or while iterating, when a PDF cannot be looked into, or an e-invoice is cut, lacks its
        number or currency, has a document type, or is of a version that is not EN 16931; the message says so in words.
    :raises RecordError: while iterating, when a value cannot be read; it names the term (BT-131) and the line.
    """
    head = first_bytes(body)
    body.seek(0)
    if is_pdf(head):
        xml = attached(body, claims)
        if xml is None:
            return None
        body = io.BytesIO(xml)
    elif not claims(head):
        return None
    return read_document(body, invoice_id=invoice_id, keep_raw=keep_raw, sha256=sha256)
