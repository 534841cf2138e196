"""Reading what vendors send: tolerant values, look-up by alias, JSON and XML as streams; no I/O but the body's file."""

from __future__ import annotations

from typing import IO

from airflow_cloudbilling.parse.events import (
    CLOSE,
    LEAVES,
    MEMBERS,
    OPEN,
    WHOLE,
    Event,
    Events,
    Malformed,
    Shape,
    Whole,
    first_bytes,
)
from airflow_cloudbilling.parse.fields import Fields, Wanted, flatten, fold
from airflow_cloudbilling.parse.invoices import InvoiceReader, refuse_failure
from airflow_cloudbilling.parse.json_stream import read_json
from airflow_cloudbilling.parse.names import Names
from airflow_cloudbilling.parse.nesting import Nesting, Surrounding
from airflow_cloudbilling.parse.spill import Spill
from airflow_cloudbilling.parse.totals import RunningSum, Totals
from airflow_cloudbilling.parse.values import (
    Unreadable,
    amount,
    clean,
    country,
    currency,
    day,
    document_type,
    identifier,
    shown,
    text,
)
from airflow_cloudbilling.parse.xml_stream import read_xml

__all__ = [
    "CLOSE",
    "LEAVES",
    "MEMBERS",
    "OPEN",
    "WHOLE",
    "Event",
    "Events",
    "Fields",
    "InvoiceReader",
    "Malformed",
    "Names",
    "Nesting",
    "RunningSum",
    "Shape",
    "Spill",
    "Surrounding",
    "Totals",
    "Unreadable",
    "Wanted",
    "Whole",
    "amount",
    "clean",
    "country",
    "currency",
    "day",
    "document_type",
    "flatten",
    "fold",
    "identifier",
    "read",
    "read_json",
    "read_xml",
    "refuse_failure",
    "shown",
    "text",
]


def read(body: IO[bytes], content_type: str | None, shape: Shape, *, keep_raw: bool = True) -> Events:
    """Read a body of records as events, JSON or XML.

    :param body: at its beginning.
    :param content_type: the reply's header. What the body begins with decides where the two disagree: ``<`` begins no
        JSON, and nothing else begins XML.
    :param keep_raw: whether leaves carry their source text.
    :raises Malformed: when the body is empty, cut, or neither of the two.
    """
    head = first_bytes(body)
    body.seek(0)
    kind, _, parameters = (content_type or "").lower().partition(";")
    charset = parameters.partition("charset=")[2].partition(";")[0].strip(" \"'") or None
    begin = head.lstrip(b"\xef\xbb\xbf\xff\xfe\x00 \t\r\n")[:1]
    if not begin:
        raise Malformed("an empty body came where invoices were expected")
    if begin == b"<" or (kind.endswith("xml") and begin not in b"{[n"):
        return read_xml(body, shape, charset, keep_raw=keep_raw)
    return read_json(body, shape, charset, keep_raw=keep_raw)
