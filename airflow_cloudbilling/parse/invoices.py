"""From the events of nested records to invoice lines and the invoices that close them, by a vendor's table of names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain, repeat
from typing import Any

from airflow_cloudbilling.errors import RecordError
from airflow_cloudbilling.model import Invoice, InvoiceLine, Invoices, Period, Reject
from airflow_cloudbilling.parse.closing import Closing
from airflow_cloudbilling.parse.events import (
    CLOSE,
    LEAVES,
    MEMBERS,
    OPEN,
    WHOLE,
    Event,
    Events,
    Malformed,
    Whole,
    windows,
)
from airflow_cloudbilling.parse.fields import Values, fold
from airflow_cloudbilling.parse.header import Header, numbers_as_texts
from airflow_cloudbilling.parse.names import LINE_NAMES, Names, line_fields
from airflow_cloudbilling.parse.nesting import Columns
from airflow_cloudbilling.parse.totals import RunningSum
from airflow_cloudbilling.parse.values import shown, text

_NET, _TAX = LINE_NAMES.index("net_amount"), LINE_NAMES.index("tax_amount")
_ERROR_NAMES = frozenset({"message", "error", "errors", "errormessage", "exceptionmessage", "fault", "detail", "title"})
_NO = ("false", "0", "no")

Found = Iterator["list[InvoiceLine] | Invoice | Invoices | Reject"]


class InvoiceReader(Closing):
    """Turns one body's events into items, holding some invoices' headers and some hundred lines at a time.

    :param names: with the user's ``field_map`` in it.
    :param keep_raw: whether items carry what the vendor sent.
    :param sha256: of the body.
    :param period: lines of invoices that are issued outside it are passed over where they are few.
    """

    def __init__(self, names: Names, *, keep_raw: bool, sha256: str | None, period: Period | None = None) -> None:
        super().__init__(names, keep_raw=keep_raw, sha256=sha256)
        self._line, self._nesting = line_fields(names)
        self._day_slot = list(names.head).index("issue_date")
        self._period = period
        self._steps = {OPEN: self._open, MEMBERS: self._learn, LEAVES: self._take_leaves, CLOSE: self._close}
        self.outside: dict[str, Any] = {}  # members of the body itself
        self.invoices = 0
        self._begin()

    def _begin(self) -> None:
        self._header = Header()
        self._begin_lines()

    def _begin_lines(self) -> None:
        self._sum = RunningSum()
        self._bad, self._bad_raw = None, ""
        self._nesting.clear()

    def another(self, sha256: str | None) -> InvoiceReader:
        """Begin with another body of the same list: where its records' values stand need not be worked out again."""
        self._sha256 = sha256
        self.outside, self.invoices, self.computed = {}, 0, 0
        self._begin()
        return self

    def items(self, events: Events) -> Found:
        """Yield whole invoices, or lines, some at a time, and then the invoice, or the reject, that closes them."""
        for window in windows(events):
            if window[0].kind is WHOLE:
                together = self._together(window[0].whole)
                yield from [together] if together else self.items(window[0].steps())
            else:
                yield from self._stepwise(window)

    def _stepwise(self, window: list[Event]) -> Found:
        headers = self._headers(window)
        heads = self._head.read_all([header.flat for header in headers])
        ended = list(zip(headers, heads, strict=True))
        passed = {id(event) for header, head in ended if self._passed(head) for event in header.leaves}
        leaves = [leaf for event in window if id(event) not in passed for leaf in event.leaves]
        self._lines, self._unread = self._read_lines(leaves)
        self._taken = 0  # of those lines
        self._heads = iter(ended)
        for event in window:
            if id(event) not in passed:
                yield from self._steps[event.kind](event)

    def _passed(self, head: Values | RecordError) -> bool:
        """Whether an invoice is issued outside the period, so that nobody asks for its lines."""
        day = None if isinstance(head, RecordError) else head[self._day_slot]
        return bool(self._period and day and not self._period.holds(day))

    def _together(self, records: Sequence[Whole]) -> Invoices | None:
        """Return the invoices of whole records; None where one must be rejected, which is done step by step."""
        headers = [Header(record.members, record.raws) for record in records]
        heads = self._head.read_all([header.flat for header in headers])
        wanted = [Whole({}, []) if self._passed(head) else one for one, head in zip(records, heads, strict=True)]
        try:
            lines = self._line_columns(list(chain.from_iterable([one.leaves for one in wanted])))
        except RecordError:
            return None
        given = chain.from_iterable([one.leaf_raws for one in wanted])
        raws = list(given if self._keep_raw else repeat(None, len(lines[0])))
        counts = [len(one.leaves) for one in wanted]
        found = self._closed(headers, heads, counts, lines)
        return None if found is None else Invoices(found, counts, [*lines, raws])

    def _closed(
        self, headers: list[Header], heads: Sequence[Values | RecordError], counts: list[int], lines: Columns
    ) -> list[Invoice] | None:
        """Return an invoice for each header, None as soon as one is for rejecting."""
        computed, found, start = self.computed, list[Invoice](), 0
        for header, head, count in zip(headers, heads, counts, strict=True):
            self._begin_lines()
            self._sum.add(*(lines[slot][start : start + count] for slot in (_NET, _TAX)))
            item = self._end(header, head)
            if isinstance(item, Reject):
                self.computed = computed
                return None
            found.append(item)
            start += count
        self.invoices += len(found)
        return found

    def _line_columns(self, leaves: list[Any]) -> Columns:
        """Return the canonical values of lines column by column.

        :raises RecordError: when one of them cannot be read.
        """
        return self._line.columns(leaves)

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

    def _read_lines(self, leaves: list[Any]) -> tuple[Columns, dict[int, RecordError]]:
        """Return the canonical values of lines column by column; and which lines have none, by position, and why."""
        with suppress(RecordError):
            if set(map(type, leaves)) <= {dict}:
                return self._line_columns(leaves), {}
        rows = list(map(self._read_line, leaves))
        unread = {position: row for position, row in enumerate(rows) if isinstance(row, RecordError)}
        nothing = (None,) * len(LINE_NAMES)
        return [*zip(*[nothing if isinstance(row, RecordError) else row for row in rows], strict=True)], unread

    def _read_line(self, leaf: Any) -> Values | RecordError:
        try:
            if isinstance(leaf, dict):
                return tuple([value for (value,) in self._line_columns([leaf])])
        except RecordError as error:
            return error
        return _no_object("the line's fields", leaf)

    def _open(self, event: Event) -> Found:
        if event.level == 1:
            self._begin_lines()
        elif not self._bad:
            self._nesting.open(event.level)
        return iter(())

    def _take_leaves(self, event: Event) -> Found:
        """Yield the lines that are complete; one that is not waits in the nesting, a bad one spoils its invoice."""
        begin, self._taken = self._taken, self._taken + len(event.leaves)
        if self._bad or not event.leaves:
            return
        if bad := [position for position in self._unread if begin <= position < self._taken]:
            nth = bad[0] - begin
            error = RecordError(f"line {self._sum.lines + nth + 1}: {self._unread[bad[0]].reason}")
            self._spoil(error, event.raws[nth] if event.raws else self._written(event.leaves[nth]))
            return
        lines: Columns = [column[begin : self._taken] for column in self._lines]
        lines.append(event.raws or [None] * len(event.leaves))
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
