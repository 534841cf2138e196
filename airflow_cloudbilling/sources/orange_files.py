"""What a downloaded document of Orange holds: an e-invoice, a consumption report, or no readable amounts."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from datetime import timedelta
from itertools import islice
from typing import IO

from airflow_cloudbilling.errors import RecordError
from airflow_cloudbilling.found import Item
from airflow_cloudbilling.model import Document, Finding, Invoice, Notice, Reject
from airflow_cloudbilling.parse import Malformed, Unreadable, clean, files, shown, usage, usage_rows
from airflow_cloudbilling.parse.einvoice import EInvoice, read_einvoice, worth_trying
from airflow_cloudbilling.parse.names import Table
from airflow_cloudbilling.source import Ask, Reply
from airflow_cloudbilling.sources.orange_documents import AMOUNTS, Listed

_NO_EINVOICE = "no e-invoice (UBL, CII, Factur-X)"


class Files:
    """Reads the files of one slice, each as a stream.

    :param line: how the rows of consumption reports are read, with the user's ``field_map`` in it.
    :param largest: bytes that a ZIP may unpack to.
    """

    def __init__(self, ask: Ask, line: Table, largest: int) -> None:
        self._ask = ask
        self._line = line
        self._largest = largest

    def items(self, listed: Listed, reply: Reply) -> Iterator[Item]:
        """Yield the document, then what its file holds: lines, and the invoice or the reject that closes them.

        :raises Malformed: when no file came.
        """
        kind = files.sniff(reply.body)
        _check_file(reply, kind)
        given = listed.filename or files.disposition_name(reply.headers.get("content-disposition"))
        name = files.safe_name(given, f"{listed.document_id}{kind.suffix}")
        yield Document(
            listed.document_id,
            listed.document_id,
            listed.document_type,
            name,
            kind.content_type,
            reply.size,
            reply.sha256,
        )
        try:
            yield from (self._report if self._ask.kind == "usage" else self._invoice)(listed, reply, kind, name)
        except RecordError as error:
            if isinstance(error, usage_rows.ColumnsError):
                yield Notice(f"Document {shown(listed.document_id)} ({name}): {error.reason}; it is rejected.")
            yield Reject(error.reason, listed.raw, listed.document_id)
        except (Unreadable, *files.DAMAGED) as error:
            yield Reject(f"the file {name} cannot be read: {clean(str(error))}", listed.raw, listed.document_id)

    def _report(self, listed: Listed, reply: Reply, kind: files.FileType, name: str) -> Iterator[Item]:
        """Yield the rows of a consumption report, or of every one that a ZIP holds, and the invoice of their sums."""
        reader = usage.UsageReader(self._line, keep_raw=self._ask.keep_raw)
        reports = 0
        for head, body in self._parts(reply, kind):
            if files.type_of(head) in (files.CSV, files.TEXT):
                reports += 1
                yield from reader.lines(body)
        if not reports:
            yield from self._without_amounts(listed, reply, kind, name, "no consumption report (CSV)")
            return
        totals = reader.totals()
        yield self._closing(listed, reply, name)._replace(
            currency=reader.currency,
            net_amount=totals.net,
            tax_amount=totals.tax,
            gross_amount=totals.gross,
            totals_origin=totals.origin,
        )

    def _invoice(self, listed: Listed, reply: Reply, kind: files.FileType, name: str) -> Iterator[Item]:
        """Yield an e-invoice's lines and the invoice; rows of a consumption report are no invoice (contract 3)."""
        part, why = self._readable_part(listed, reply) if kind is files.ZIP else (0, _NO_EINVOICE)
        if part is not None:
            with closing(self._parts(reply, kind)) as parts:
                _, body = next(islice(parts, part, None))
                try:
                    found = self._einvoice(listed, reply, body)
                except Malformed as error:  # a PDF that cannot be looked into has no readable amounts, like any other
                    found, why = None, f"what cannot be looked into: {error}"
                if found is not None:
                    yield from _mapped(found, listed)
                    return
        yield from self._without_amounts(listed, reply, kind, name, why)

    def _einvoice(self, listed: Listed, reply: Reply, body: IO[bytes]) -> EInvoice | None:
        return read_einvoice(body, invoice_id=listed.document_id, keep_raw=self._ask.keep_raw, sha256=reply.sha256)

    def _readable_part(self, listed: Listed, reply: Reply) -> tuple[int | None, str]:
        """Return which file in a ZIP is its e-invoice, or None and why there is none.

        The same invoice may be there as XML and as PDF; two different ones cannot both be this document.

        :raises RecordError: when there are several.
        """
        numbers: dict[str | None, int] = {}
        why = _NO_EINVOICE
        for part, (head, body) in enumerate(self._parts(reply, files.ZIP)):
            if not worth_trying(None, head):
                continue
            try:
                items = self._einvoice(listed, reply, body)
                for item in items or ():
                    if isinstance(item, Invoice):
                        numbers.setdefault(item.invoice_number, part)
            except (Malformed, RecordError) as error:
                why = f"a file in the ZIP cannot be read: {error}"
        if len(numbers) > 1:
            raise RecordError(f"expected one invoice in the ZIP, came {', '.join(map(shown, numbers))}")
        return next(iter(numbers.values()), None), why

    def _parts(self, reply: Reply, kind: files.FileType) -> Generator[tuple[bytes, IO[bytes]], None, None]:
        """Yield the file, or each file in a ZIP: its first bytes, and the whole from its beginning."""
        if kind is files.ZIP:
            for member in files.members(reply.body, self._largest):
                with member.open() as packed:
                    head = packed.read(files.HEAD)
                    packed.seek(0)
                    with files.unpacked(packed) if files.type_of(head) is files.PDF else packed as body:
                        yield head, body
            return
        with files.buffered(reply.body) as body:
            yield body.peek(files.HEAD), body

    def _without_amounts(
        self, listed: Listed, reply: Reply, kind: files.FileType, name: str, why: str
    ) -> Iterator[Invoice | Finding]:
        invoice = self._closing(listed, reply, name)
        stated = any(getattr(invoice, each) is not None for each in AMOUNTS)
        yield invoice._replace(totals_origin="stated" if stated else "none")
        if not stated:
            yield Finding(
                listed.document_id,
                "unreadable-amounts",
                "warning",
                "a file with amounts that can be read",
                kind.content_type,
                f"The amounts of document {listed.document_id} are unknown: {name} holds {why}; it is staged without.",
            )

    def _closing(self, listed: Listed, reply: Reply, name: str) -> Invoice:
        """Return the invoice by what the list says, its amounts still unknown."""
        start = listed.month.start
        known = {
            "invoice_number": name,
            "issue_date": start.isoformat(),  # of the period, where the file says no better (vendor facts 7)
            "period_start": start.isoformat(),
            "period_end": (listed.month.end - timedelta(days=1)).isoformat(),
            "raw": listed.raw if self._ask.keep_raw else None,
            "source_sha256": reply.sha256,
        }
        return _with(Invoice(listed.document_id), {**known, **listed.mapped})


def _mapped(found: EInvoice, listed: Listed) -> EInvoice:
    """Yield an e-invoice's items with what the user's ``field_map`` found in the list; it wins.

    :raises RecordError: when the XML is cut or forbidden in the middle.
    """
    try:
        for item in found:
            yield item if isinstance(item, list) else _with(item, listed.mapped)
    except Malformed as error:
        raise RecordError(f"the e-invoice cannot be read: {error}") from None


def _with(invoice: Invoice, values: Mapping[str, str | None]) -> Invoice:
    return Invoice(**{**invoice._asdict(), **values})


def _check_file(reply: Reply, kind: files.FileType) -> None:
    """Refuse what is an answer in words rather than a file.

    :raises Malformed: with what came.
    """
    if not reply.size or not reply.head(1):
        raise Malformed("an empty body came where a file was expected")
    said = reply.head()
    failed = kind is files.JSON and re.search(rb'"(code|message|error)"\s*:', said)
    if kind is files.HTML or failed:
        raise Malformed(f"expected a file, came {shown(clean(said))}")
