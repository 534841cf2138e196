"""One e-invoice's XML, a line at a time, however many it has: hardened lxml, the header kept until the end."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from airflow_cloudbilling.errors import RecordError
from airflow_cloudbilling.model import Invoice, InvoiceLine, InvoiceTax
from airflow_cloudbilling.parse.closing import stated_positive
from airflow_cloudbilling.parse.einvoice import cii, ubl
from airflow_cloudbilling.parse.einvoice.terms import CREDIT_NOTES, Said, Syntax, discount, money, unit_price
from airflow_cloudbilling.parse.events import LARGEST_VALUE, Malformed
from airflow_cloudbilling.parse.totals import RunningSum
from airflow_cloudbilling.parse.values import clean, shown
from airflow_cloudbilling.parse.xml_guard import hardened_parser, prolog, utf8
from airflow_cloudbilling.parse.xml_text import declarations, source_text

if TYPE_CHECKING:
    from lxml.etree import _Element as Element

EInvoice = Iterator["list[InvoiceLine] | Invoice"]  # some lines at a time, then the invoice
_SYNTAXES = {ubl.INVOICE_ROOT: ubl.INVOICE, ubl.CREDIT_NOTE_ROOT: ubl.CREDIT_NOTE, cii.ROOT: cii.CII}
# The namespaces of the two syntaxes in any version, and of ZUGFeRD 1.
_CLAIM = re.compile(
    rb"urn:(?:oasis:names:specification:ubl:schema:xsd:(?:Invoice|CreditNote)-"
    rb"|un:unece:uncefact:data:standard:CrossIndustryInvoice:|ferd:CrossIndustryDocument:)"
)
_FILES = "{*}EmbeddedDocumentBinaryObject", "{*}AttachmentBinaryObject"  # BT-125 in UBL and in CII
_NOT_COUNTED = ("GROUP", "INFORMATION")


def claims(data: bytes) -> bool:
    """Return whether a file that begins so says that it is an e-invoice, of whatever version."""
    begin = data[: 64 * 1024].replace(b"\0", b"")  # as UTF-16 has them
    return begin.lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n").startswith(b"<") and _CLAIM.search(begin) is not None


def read_document(body: IO[bytes], *, invoice_id: str, keep_raw: bool, sha256: str | None) -> EInvoice:
    """Yield an e-invoice; parameters and errors are those of ``read_einvoice``."""
    document = _Document(body)
    reader = _Reader(document, keep_raw)
    try:
        for elements in document.lines():
            for element in elements:
                reader.take(element)
            if lines := reader.lines():
                yield lines
        yield reader.invoice(invoice_id, sha256)
    except RecordError as error:
        raise RecordError(error.reason, invoice_id=invoice_id) from None


class _Document:
    """The tree of an e-invoice without the lines that have been read."""

    root: Element
    syntax: Syntax

    def __init__(self, body: IO[bytes]) -> None:
        chunks = utf8(body, None)
        self._first = b"".join(prolog(chunks, ""))
        self._chunks = chain([self._first], chunks)
        lines = {syntax.line for syntax in _SYNTAXES.values()}
        self._parser = hardened_parser((*_SYNTAXES, *lines, *_FILES))
        self._begun = False
        self._holder: Element | None = None  # of the lines
        self._last: Element | None = None  # line that was read; it goes when the next has come
        self._unread = 0  # bytes since then
        self._header = 0  # bytes beside the lines, at most

    def lines(self) -> Iterator[Iterator[Element]]:
        """Yield the lines' elements as the body comes, each of which holds until the next is asked for.

        :raises Malformed: when the XML is cut, is no e-invoice of a known version, or has too much in one piece.
        """
        from lxml import etree

        try:
            for chunk in filter(None, self._chunks):
                self._parser.feed(chunk)
                self._unread += len(chunk)
                yield self._complete()
                if self._unread + self._header > LARGEST_VALUE:
                    raise Malformed(
                        f"the e-invoice has more than {LARGEST_VALUE} bytes beside its lines or in one of them"
                    )
            root = self._parser.close()
        except etree.XMLSyntaxError as error:
            reason, begin = clean(error.msg), shown(self._first[:200].decode("utf-8", "replace"), 200)
            raise Malformed(f"the e-invoice's XML breaks off or is malformed: {reason}; it begins {begin}") from None
        if not self._begun:  # the parser tells of no element in it
            self._begin(root)
        if self._holder is not None and self._last is not None:
            self._holder.remove(self._last)

    def _complete(self) -> Iterator[Element]:
        for kind, element in self._parser.read_events():
            if not self._begun:
                self._begin(element.getroottree().getroot())
            if kind == "end" and element.tag == self.syntax.line:
                self._place(element)
                yield element
            elif kind == "end" and element.tag.endswith("BinaryObject"):
                element.text = None

    def _begin(self, root: Element) -> None:
        if root.tag not in _SYNTAXES:
            raise Malformed(
                "expected an e-invoice by EN 16931 (UBL 2 Invoice or CreditNote, UN/CEFACT CrossIndustryInvoice:100 as"
                f" in Factur-X and ZUGFeRD 2), came the XML root {shown(root.tag, 150)}"
            )
        self._begun, self.root, self.syntax = True, root, _SYNTAXES[str(root.tag)]

    def _place(self, line: Element) -> None:
        """Check where a line stands, and forget the one before it."""
        holder = line.getparent()
        if self._holder is None:
            self._holder = self.root.find(self.syntax.within) if self.syntax.within else self.root
        if holder is None or holder is not self._holder:
            raise Malformed(f"expected invoice lines in one {shown(self.syntax.within or self.root.tag, 150)} alone")
        if line.getprevious() is not self._last:  # parts of the header stand between, and stay
            self._header += self._unread
        if self._last is not None:
            holder.remove(self._last)
        self._last, self._unread = line, 0


class _Line(NamedTuple):
    """What is taken out of a line's element."""

    said: Said
    discount: str | None
    raw: str | None


class _Reader:
    """Turns elements into lines and an invoice."""

    def __init__(self, document: _Document, keep_raw: bool) -> None:
        self._document = document
        self._keep_raw = keep_raw
        self._noise: tuple[tuple[str, str], ...] | None = None
        self._sum = RunningSum()
        self._currencies: dict[str, int] = {}  # with the first line that is in it
        self._taken: list[_Line] = []

    def take(self, element: Element) -> None:
        """Take in a line.

        :raises RecordError: as :meth:`lines`.
        """
        terms, allowances = self._document.syntax.lines, self._document.syntax.allowances
        try:
            self._taken.append(_Line(terms.said(element), discount(element, allowances), self._raw(element)))
        except RecordError as error:
            self.lines()  # which may have another error, that comes first
            raise self._named(error, element.findtext(terms.terms[0].paths[0])) from None

    def lines(self) -> list[InvoiceLine]:
        """Read the lines that were taken in.

        :raises RecordError: when one of them cannot be read; it names the line.
        """
        taken, self._taken = self._taken, []
        return self._read(taken) if taken else []

    def _read(self, taken: list[_Line]) -> list[InvoiceLine]:
        try:
            columns = self._columns(taken)
        except RecordError as error:
            if len(taken) == 1:
                raise self._named(error, taken[0].said[0]) from None
            return [line for one in taken for line in self._read([one])]
        self._sum.add(columns["net_amount"], [])
        return list(map(InvoiceLine._make, zip(*(columns[name] for name in InvoiceLine._fields), strict=True)))

    def _columns(self, taken: list[_Line]) -> dict[str, list[str | None]]:
        """Return the lines' values by name."""
        nothing: list[str | None] = [None] * len(taken)
        terms = self._document.syntax.lines.columns([one.said for one in taken])
        found = dict.fromkeys(InvoiceLine._fields, nothing) | terms
        same_units = [base in (None, unit) for base, unit in zip(found["base_unit"], found["unit"], strict=True)]
        prices = zip(found["unit_price"], found["base_quantity"], same_units, strict=True)
        found["unit_price"] = [unit_price(price, base, same_unit=same) for price, base, same in prices]
        found["discount"], found["raw"] = [one.discount for one in taken], [one.raw for one in taken]
        found["charge_type"] = [status if status in _NOT_COUNTED else None for status in found["status"]]
        for nth, status in enumerate(found["charge_type"]):
            if status:  # its amounts are those of other lines
                found["net_amount"][nth] = found["discount"][nth] = None
        for number, currency in enumerate(found["line_currency"], self._sum.lines + 1):
            if currency is not None:
                self._currencies.setdefault(currency, number)
        return found

    def _named(self, error: RecordError, line_id: str | None) -> RecordError:
        known = f" (BT-126 {shown(line_id)})" if line_id else ""
        return RecordError(f"line {self._sum.lines + 1}{known}: {error.reason}")

    def _raw(self, element: Element) -> str | None:
        if not self._keep_raw:
            return None
        if self._noise is None:
            self._noise = declarations(self._document.root)
        return source_text(element, self._noise)

    def invoice(self, invoice_id: str, sha256: str | None) -> Invoice:
        """Read what stands beside the lines, when they have all been read."""
        root, syntax = self._document.root, self._document.syntax
        found = syntax.head.values(root)
        for name, number in (("invoice_number", "BT-1"), ("currency", "BT-5")):
            if found[name] is None:
                raise Malformed(f"the e-invoice has no {name.replace('invoice_', '')} ({number})")
        currency = self._check_currency(str(found["currency"]))
        found.update({term.name: money(root, term, currency) for term in syntax.money})
        totals = self._sum.complete(found.pop("net_amount"), found.pop("tax_amount"), found.pop("gross_amount"))
        kind = self._document_type(found.pop("type_code"))
        return Invoice(
            invoice_id,
            document_type=kind,
            net_amount=totals.net,
            tax_amount=totals.tax,
            gross_amount=totals.gross,
            totals_origin=totals.origin,
            raw=source_text(root, ()) if self._keep_raw else None,
            source_sha256=sha256,
            sign=-1 if kind == "credit_note" and stated_positive(totals) else 1,
            taxes=self._taxes(currency),
            **found,
        )

    def _check_currency(self, currency: str) -> str:
        for other, number in self._currencies.items():
            if other != currency:
                raise RecordError(
                    f"line {number}: BT-131 (net_amount): expected {currency} (BT-5), came {shown(other)}"
                )
        return currency

    def _document_type(self, code: str | None) -> str:
        if self._document.root.tag == ubl.CREDIT_NOTE_ROOT or code in CREDIT_NOTES:
            return "credit_note"
        if code is None:  # a credit taken for an invoice is the worse mistake
            raise RecordError("BT-3 (document_type): expected a type code such as 380 or 381, nothing came")
        return "invoice"

    def _taxes(self, currency: str) -> tuple[InvoiceTax, ...]:
        syntax = self._document.syntax
        rows: Any = [syntax.taxes.values(row) for row in self._document.root.iterfind(syntax.breakdown)]
        # UBL repeats a breakdown in the currency of BT-111, where it repeats one at all.
        return tuple(InvoiceTax(**row) for row in rows if row.pop("currency") in (None, currency))
