"""The parsers as who draws bytes meets them: what they may let out, whatever comes in, and what to begin with.

A parser returns canonical records, or raises an error that it documents, in words; all else is a bug. atheris
(``make fuzz``), hypothesis (``test_fuzz.py``) and what either has found (``data/fuzz``) go through the same doors.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, NamedTuple

from conversations import DATA, Case, cases
from pypdf import PdfWriter

from airflow_cloudbilling.errors import CloudBillingError, RecordError
from airflow_cloudbilling.model import Invoice, InvoiceLine
from airflow_cloudbilling.parse import Malformed, Unreadable
from airflow_cloudbilling.parse.einvoice import read_einvoice
from airflow_cloudbilling.parse.files import DAMAGED, HEAD, members, safe_name, sniff
from airflow_cloudbilling.parse.json_cut import without_fields
from airflow_cloudbilling.parse.records import json_text, read_value, source_text
from airflow_cloudbilling.parse.usage import UsageReader

AMOUNT = re.compile(r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{0,11}[1-9])?")
AMOUNTS = re.compile(r".*(_amount|_total)|quantity|unit_price|discount|tax_rate")
DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
SECRET = ("token", "password")  # members that nobody may store
ODD = [b"<", b">", b"&#0;", b"]]>", b"<!--", b"\xff\xfe", b'"', b"\\u0000", b"\\ud800", b"{", b"[", b"]", b"}", b","]
ODD += [b"null", b"1e400", b"-", b"NaN", b"\0", b"\r\n", b'<?xml encoding="UTF-7"?>', b"<![CDATA[", b";;;", b"="]
ODD += [b"9" * 40]
E_INVOICES = sorted((DATA / "einvoice").glob("*.xml"))
REPORTS = sorted((DATA / "orange_cloudstore").glob("usage-*/reply-*.csv"))
# The first byte of what is drawn chooses one: what was found stays what it was only if others are added at the end.
JSON = ("twotcloud/sample-json", "store365/sample-json", "store365/nested-json", "cloudonex/pages-with-meta",
        "cloudonex/row-with-items", "cloudonex/invoice-and-items-in-list", "orange_cloudstore/einvoices")  # fmt: skip
XML = ("twotcloud/sample-xml", "store365/sample-xml", "store365/nested-xml")
SLOW = 128  # of the first byte: the body's file gives a few bytes at a time, which must change nothing


class Target(NamedTuple):
    """A parser to be fuzzed.

    :param read: takes any bytes, and raises where the parser breaks a promise.
    :param seeds: bytes that it understands.
    """

    read: Callable[[bytes], None]
    seeds: Callable[[], Iterator[bytes]]


def texts(value: Any) -> Iterator[str]:
    """Yield every text in an item; there is nothing else in it but whole numbers."""
    if isinstance(value, tuple):
        for each in value:
            yield from texts(each)
    elif value is not None and not isinstance(value, int):
        assert isinstance(value, str), f"{value!r} is neither text nor nothing"
        yield value


def check(found: list[Any]) -> None:
    """See that what would be staged is text that every database takes, and that amounts and days are canonical."""
    for item in found:
        for text in texts(item):
            text.encode()  # no half of a surrogate pair
            assert "\0" not in text
        if isinstance(item, (Invoice, InvoiceLine)):
            for name, value in item._asdict().items():
                assert value is None or not AMOUNTS.fullmatch(name) or AMOUNT.fullmatch(value), (name, value)
                assert value is None or not name.endswith("_date") or DAY.fullmatch(value), (name, value)


def in_words(error: Exception) -> None:
    """See that an error is one short line."""
    assert str(error).isprintable(), str(error)
    assert len(str(error)) < 1000, str(error)


def outcome(case: Case, body: bytes, *, dribble: bool = False) -> Any:
    """Return what a conversation finds whose first answer is another one, or the kind of error that ends it."""
    try:
        found = case.play(body, dribble)[1]
    except FileNotFoundError as error:  # another page is asked for, which nobody has recorded
        return type(error)
    except CloudBillingError as error:
        in_words(error)
        return type(error)
    check(found)
    return found


def _answers(*names: str) -> Target:
    """Return the target of all that reads an answer with invoices."""
    chosen = [Case(DATA / name) for name in names]

    def read(data: bytes) -> None:
        number, body = (data[0] % SLOW, data[1:]) if data else (len(chosen), b"")
        if number < len(chosen):
            found = outcome(chosen[number], body)
            assert data[0] < SLOW or outcome(chosen[number], body, dribble=True) == found

    def seeds() -> Iterator[bytes]:
        xml = names[0].endswith("xml")
        for case in cases():
            body = case.body()
            for number, own in enumerate(chosen):
                if own.folder.parent == case.folder.parent and (body[:1] == b"<") is xml:
                    yield from (bytes([slow + number]) + body for slow in (0, SLOW))

    return Target(read, seeds)


def read_report(data: bytes) -> None:
    """Read a consumption report (CSV)."""
    reader = UsageReader()
    try:
        for lines in reader.lines(io.BytesIO(data)):
            check(lines)
        reader.totals()
    except RecordError as error:
        in_words(error)


def read_invoice(data: bytes) -> None:
    """Read an e-invoice (XML), also one in a PDF."""
    try:
        found = read_einvoice(io.BytesIO(data), invoice_id="X", keep_raw=True, sha256=None)
        check([*chain.from_iterable(each if isinstance(each, list) else [each] for each in found or ())])
    except (Malformed, RecordError) as error:
        in_words(error)


def read_record(data: bytes) -> None:
    """Read a body as one value, write it again, and cut out what nobody may store."""
    try:
        value = read_value(io.BytesIO(data))
        for written in (source_text(value), json_text(value)):
            assert read_value(io.BytesIO(written.encode())) == value, written
    except Malformed as error:
        in_words(error)
    try:
        cut = without_fields(data, SECRET)
    except ValueError:
        return
    assert not cut.strip() or not {*SECRET} & {name.casefold() for name in _names(json.loads(cut, strict=False))}


def _names(value: Any) -> Iterator[str]:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    yield from value if isinstance(value, dict) else ()
    for each in inside:
        yield from _names(each)


def read_file(data: bytes) -> None:
    """Look into a file of unknown type: a ZIP's members, a PDF's e-invoice."""
    sniff(io.BytesIO(data))
    if b"%PDF-" in data:
        return read_invoice(data)
    try:
        for member in members(io.BytesIO(data), 1 << 20):
            safe_name(member.name, "file")
            with member.open() as opened:
                opened.read(HEAD)
                opened.seek(0)  # as who has seen what it is
                opened.read()
    except Unreadable as error:
        in_words(error)
    except DAMAGED:
        pass  # of a member; who reads one says so in its own words


def _files() -> Iterator[bytes]:
    """Yield a ZIP and a PDF for each e-invoice, small as they are, and what vendors sent."""
    for path in E_INVOICES:
        content, packed, pdf = path.read_bytes()[:4000], io.BytesIO(), PdfWriter()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(zipfile.ZipInfo(path.name), content)
        yield packed.getvalue()
        pdf.add_blank_page(9, 9)
        pdf.add_attachment("factur-x.xml", content)
        packed = io.BytesIO()
        pdf.write(packed)
        yield packed.getvalue()
    for kind in ("zip", "pdf", "xlsx"):
        yield from (path.read_bytes() for path in sorted((DATA / "orange_cloudstore").rglob(f"*.{kind}")))


TARGETS = {
    "json": _answers(*JSON),
    "xml": _answers(*XML),
    "csv": Target(read_report, lambda: (path.read_bytes() for path in REPORTS)),
    "einvoice": Target(read_invoice, lambda: (path.read_bytes() for path in E_INVOICES)),
    "record": Target(read_record, lambda: (case.body() for case in cases())),
    "file": Target(read_file, _files),
}
