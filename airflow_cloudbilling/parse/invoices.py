"""From the events of nested records to invoice lines and the invoices that close them, by a vendor's table of names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from airflow_cloudbilling.errors import RecordError
from airflow_cloudbilling.model import Invoice, InvoiceLine, Period, Reject
from airflow_cloudbilling.parse.events import (
    CLOSE,
    LEAVES,
    MEMBERS,
    OPEN,
    Event,
    Events,
    Malformed,
    windows,
)
from airflow_cloudbilling.parse.fields import Fields, Values, Wanted, fold
from airflow_cloudbilling.parse.header import Header, numbers_as_texts, said
from airflow_cloudbilling.parse.names import LINE_NAMES, Names, line_fields, undivided_amounts
from airflow_cloudbilling.parse.nesting import Columns
from airflow_cloudbilling.parse.totals import RunningSum, Totals
from airflow_cloudbilling.parse.values import shown, text

_NET, _TAX = LINE_NAMES.index("net_amount"), LINE_NAMES.index("tax_amount")
_LONGEST_REJECT = 64 * 1024
_ERROR_NAMES = frozenset({"message", "error", "errors", "errormessage", "exceptionmessage", "fault", "detail", "title"})
_NO = ("false", "0", "no")

Found = Iterator["list[InvoiceLine] | Invoice | Reject"]


class InvoiceReader:
    """Turns one body's events into items, holding some invoices' headers and some hundred lines at a time.

    :param names: with the user's ``field_map`` in it.
    :param keep_raw: whether items carry what the vendor sent.
    :param sha256: of the body.
    :param period: lines of invoices that are issued outside it are passed over where they are few.
    """

    _written: Callable[[Any], str] = staticmethod(said)  # makes a text of a value whose source text was not kept

    def __init__(self, names: Names, *, keep_raw: bool, sha256: str | None, period: Period | None = None) -> None:
        self._names = names
        self._keep_raw = keep_raw
        self._sha256 = sha256
        self._head = Fields([Wanted(name, *how) for name, how in names.head.items()])
        self._id, self._day = (Fields([Wanted(name, *names.head[name])]) for name in ("invoice_id", "issue_date"))
        self._line, self._nesting = line_fields(names)
        self._money = undivided_amounts(names)
        self._element = names.shape.lists[0].removesuffix("s")
        self._day_slot = list(names.head).index("issue_date")
        self._period = period
        self._steps = {OPEN: self._open, MEMBERS: self._learn, LEAVES: self._take_leaves, CLOSE: self._close}
        self.outside: dict[str, Any] = {}  # members of the body itself
        self.invoices = 0
        self.computed = 0
        self.rejected_day: str | None = None  # the day of the record that was rejected last, where it can be read
        self._begin()

    def _begin(self) -> None:
        self._header = Header()
        self._begin_lines()

    def _begin_lines(self) -> None:
        self._sum = RunningSum()
        self._bad: RecordError | None = None
        self._bad_raw = ""
        self._nesting.clear()

    def another(self, sha256: str | None) -> InvoiceReader:
        """Begin with another body of the same list: where its records' values stand need not be worked out again."""
        self._sha256 = sha256
        self.outside, self.invoices, self.computed = {}, 0, 0
        self._begin()
        return self

    def items(self, events: Events) -> Found:
        """Yield each invoice's lines, some at a time, and then the invoice, or the reject, that closes them."""
        for window in windows(events):
            headers = self._headers(window)
            heads = self._head.read_all([header.flat for header in headers])
            ended = list(zip(headers, heads, strict=True))
            passed = {id(event) for header, head in ended for event in self._passed(header, head)}
            leaves = [leaf for event in window if id(event) not in passed for leaf in event.leaves]
            self._values = iter(self._read_lines(leaves))
            self._heads = iter(ended)
            for event in window:
                if id(event) not in passed:
                    yield from self._steps[event.kind](event)

    def _passed(self, header: Header, head: Values | RecordError) -> Sequence[Event]:
        """Return the leaves of an invoice that is issued outside the period."""
        day = None if isinstance(head, RecordError) else head[self._day_slot]
        return header.leaves if self._period and day and not self._period.holds(day) else ()

    def _headers(self, window: list[Event]) -> list[Header]:
        """Return what came of each invoice besides its lines, of those that end in the window."""
        ended = []
        self._header.leaves.clear()
        for event in window:
            if event.kind is LEAVES:
                self._header.leaves.append(event)
            elif event.level == 1 and event.kind is OPEN:
                self._header = Header()
            elif event.level == 1 and event.kind is MEMBERS:
                self._header.learn(event)
            elif event.level == 1 and event.kind is CLOSE:
                ended.append(self._header)
        return ended

    def _read_lines(self, leaves: list[Any]) -> Sequence[Values | RecordError]:
        """Return the canonical values of each line, or why it has none."""
        if set(map(type, leaves)) <= {dict}:
            return self._line.read_all(leaves)
        return [
            self._line.read_all([leaf])[0] if isinstance(leaf, dict) else _no_object("the line's fields", leaf)
            for leaf in leaves
        ]

    def _open(self, event: Event) -> Found:
        if event.level == 1:
            self._begin_lines()
        elif not self._bad:
            self._nesting.open(event.level)
        return iter(())

    def _take_leaves(self, event: Event) -> Found:
        """Yield the lines that are complete; one that is not waits in the nesting, a bad one spoils its invoice."""
        found: list[Any] = list(islice(self._values, len(event.leaves)))
        if self._bad or not found:
            return
        bad = next((nth for nth, values in enumerate(found) if isinstance(values, RecordError)), None)
        if bad is not None:
            error = RecordError(f"line {self._sum.lines + bad + 1}: {found[bad].reason}")
            self._spoil(error, event.raws[bad] if event.raws else self._written(event.leaves[bad]))
            return
        lines: Columns = [*zip(*found, strict=True), event.raws or [None] * len(found)]
        self._sum.add(lines[_NET], lines[_TAX])
        if not self._names.around or self._nesting.place(lines):
            yield _lines(lines)

    def _spoil(self, error: RecordError, raw: str = "") -> None:
        if self._bad is None:
            self._bad, self._bad_raw = error, raw
        self._nesting.clear()

    def _learn(self, event: Event) -> Found:
        """Take in what members say about the lines; yield the lines that were waiting for it."""
        if event.level == 0:
            self.outside.update(numbers_as_texts(event.members))
        elif not self._bad:
            name, value = "", None
            try:
                for name, value in event.members.items() if event.level > 1 or "" in event.members else ():
                    yield from self._learn_one(event.level, name, value)
            except RecordError as error:
                self._spoil(error, event.raws.get(name) or self._written(value))

    def _learn_one(self, level: int, name: str, value: Any) -> Found:
        if not name:
            raise RecordError(f"expected an object of {self._names.shape.lists[level - 1]}, came {shown(value)}")
        if level > 1:
            yield from map(_lines, self._nesting.learn(level, name, value))

    def _close(self, event: Event) -> Found:
        if event.level == 1:
            self.invoices += 1
            yield self._end(*next(self._heads))
        elif not self._bad:
            try:
                yield from map(_lines, self._nesting.close(event.level))
            except RecordError as error:
                self._spoil(error)

    def _end(self, header: Header, values: Values | RecordError) -> Invoice | Reject:
        try:
            if self._bad or header.bad:
                raise self._bad or header.bad  # type: ignore[misc] # one of them is there
            self._no_objects_for_money(header.members)
            if isinstance(values, RecordError):
                raise values
            return self._invoice(dict(zip(self._names.head, values, strict=True)), header)
        except RecordError as error:
            raw = "\n".join(part for part in (self._bad_raw, header.source_text(self._element, self._written)) if part)
            self.rejected_day = _readable(self._day, header.flat)
            return Reject(error.reason, raw[:_LONGEST_REJECT], _readable(self._id, header.flat))

    def _no_objects_for_money(self, members: Mapping[str, Any]) -> None:
        """Refuse an object where an amount should stand: taking no notice of it would lose the amount in silence."""
        for name, value in members.items():
            if type(value) in (dict, list) and value and (canonical := self._money.get(fold(name))):
                raise RecordError(f"field {canonical} ({name}): expected a decimal amount, came {shown(value)}")

    def _invoice(self, values: dict[str, str | None], header: Header) -> Invoice:
        for name in ("invoice_id", "currency"):
            if values[name] is None:
                raise RecordError(f"field {name} ({self._names.head[name][1][0]}): expected a value, nothing came")
        totals = self._sum.complete(values["net_amount"], values["tax_amount"], values["gross_amount"])
        self.computed += totals.origin == "computed"
        kind = values["document_type"] or "invoice"
        found = values | {
            "document_type": kind,
            "net_amount": totals.net,
            "tax_amount": totals.tax,
            "gross_amount": totals.gross,
            "totals_origin": totals.origin,
            "raw": header.source_text(self._element, self._written) if self._keep_raw else None,
            "source_sha256": self._sha256,
        }
        return Invoice(**found, sign=-1 if kind == "credit_note" and stated_positive(totals) else 1)  # type: ignore[arg-type]


def refuse_failure(reader: InvoiceReader) -> None:
    """Refuse an envelope that says that it failed, whatever came with it: that is not "no invoices".

    :raises Malformed: with what it says.
    """
    flags = {fold(name): text(value) for name, value in reader.outside.items() if not isinstance(value, (dict, list))}
    failed = (flags.get("success") or "true").lower() in _NO or (flags.get("error") or "false").lower() not in _NO
    complains = any(fold(name) in _ERROR_NAMES and value for name, value in reader.outside.items())
    if failed or (complains and not reader.invoices):
        raise Malformed(f"it says that it failed: {shown(reader.outside, 200)}")


def _no_object(what: str, value: Any) -> RecordError:
    return RecordError(f"expected an object with {what}, came {shown(value)}")


def _lines(columns: Columns) -> list[InvoiceLine]:
    return list(map(InvoiceLine._make, zip(*columns, strict=True)))


def _readable(fields: Fields, flat: Mapping[str, Any]) -> str | None:
    try:
        return fields.read(flat)[0]
    except RecordError:
        return None


def stated_positive(totals: Totals) -> bool:
    """Whether a credit note's total is stated the EN 16931 way, as a positive amount."""
    decisive = totals.gross if totals.gross not in (None, "0") else totals.net
    return decisive not in (None, "0") and not str(decisive).startswith("-")
