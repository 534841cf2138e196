"""From the events of nested records to invoice lines and the invoices that close them, by a vendor's table of names."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from airflow_cloudbilling.errors import ConfigurationError, RecordError
from airflow_cloudbilling.model import Invoice, InvoiceLine, Period, Reject
from airflow_cloudbilling.parse.events import CLOSE, LARGEST_VALUE, LEAF, OPEN, Event, Events, Malformed, Shape
from airflow_cloudbilling.parse.fields import Fields, Wanted, flatten, fold
from airflow_cloudbilling.parse.nesting import Nesting, Surrounding, Values
from airflow_cloudbilling.parse.records import json_text
from airflow_cloudbilling.parse.totals import RunningSum, Totals
from airflow_cloudbilling.parse.values import amount, shown, text

LINE_NAMES = InvoiceLine._fields[:-1]  # all but raw
_NET, _TAX = LINE_NAMES.index("net_amount"), LINE_NAMES.index("tax_amount")
_LONGEST_REJECT = 64 * 1024
_ERROR_NAMES = frozenset({"message", "error", "errors", "errormessage", "exceptionmessage", "fault", "detail", "title"})
_NO = ("false", "0", "no")

Table = Mapping[str, "tuple[Callable[[Any], str | None], tuple[str, ...]]"]
Found = Iterator["InvoiceLine | Invoice | Reject"]


class Names(NamedTuple):
    """Where a vendor's records hold the canonical values.

    :param shape: how lists hold each other.
    :param head: canonical name of an invoice → how it is read, and its dotted paths in the invoice's record.
    :param line: the same of a line; paths may lead into a record around it by one of the prefixes in ``around``.
    :param around: level → prefix, such as ``{2: "Customer."}``.
    """

    shape: Shape
    head: Table
    line: Table
    around: Mapping[int, str]

    def mapped(self, field_map: Mapping[str, str], conn_id: str) -> Names:
        """Return the names with a user's ``field_map``, whose paths come first.

        A name that invoices and lines both have means the invoice; ``line.<name>`` always means the line.

        :raises ConfigurationError: for a name that is not known.
        """
        head, line = dict(self.head), dict(self.line)
        for name, path in field_map.items():
            bare = name.removeprefix("line.")
            table, key = (head, name) if name in head else (line, bare)
            if key not in table:
                known = ", ".join([*head, *(n if n not in head else f"line.{n}" for n in line)])
                raise ConfigurationError(
                    f"{name!r} is no canonical name; known are {known}.", conn_id=conn_id, field="field_map"
                )
            read, paths = table[key]
            table[key] = (read, (path, *paths))
        return self._replace(head=head, line=line)


class InvoiceReader:
    """Turns one body's events into items, holding one invoice's header and a few lines at a time.

    :param names: with the user's ``field_map`` in it.
    :param keep_raw: whether items carry what the vendor sent.
    :param sha256: of the body.
    :param period: lines of invoices that are issued outside it are passed over, where their day comes before them.
    """

    def __init__(self, names: Names, *, keep_raw: bool, sha256: str | None, period: Period | None = None) -> None:
        self._names = names
        self._keep_raw = keep_raw
        self._sha256 = sha256
        self._head = Fields([Wanted(name, *how) for name, how in names.head.items()])
        self._id, self._day = (Fields([Wanted(name, *names.head[name])]) for name in ("invoice_id", "issue_date"))
        self._line, self._nesting = _line_fields(names)
        self._money = _undivided_amounts(names)
        self._period = period
        self.outside: dict[str, Any] = {}  # members of the body itself
        self.invoices = 0
        self.computed = 0
        self.rejected_day: str | None = None  # the day of the record that was rejected last, where it can be read
        self._begin()

    def _begin(self) -> None:
        self._members: dict[str, Any] = {}
        self._raws: list[tuple[str, str]] = []
        self._size = 0
        self._sum = RunningSum()
        self._bad: RecordError | None = None
        self._bad_raw = ""
        self._passed_over = False
        self._nesting.clear()

    def another(self, sha256: str | None) -> InvoiceReader:
        """Begin with another body of the same list: where its records' values stand need not be worked out again."""
        self._sha256 = sha256
        self.outside, self.invoices, self.computed = {}, 0, 0
        self._begin()
        return self

    def items(self, events: Events) -> Found:
        """Yield each invoice's lines and then the invoice, or the reject, that closes them."""
        for event in events:
            if event.kind is LEAF:
                line = None if self._bad or self._passed_over else self._read_line(event)
                if line is not None:
                    yield InvoiceLine._make(line)
            elif event.level == 1 and event.kind is OPEN:
                self._begin()
            elif event.level == 1 and event.kind is CLOSE:
                self.invoices += 1
                yield self._end()
            elif event.level == 0:
                self.outside[event.name] = event.value
            elif not self._bad or event.level == 1:  # a reject, too, wants its invoice's header
                yield from self._learn(event)

    def _read_line(self, event: Event) -> Values | None:
        """Return a line that is complete; one that is not waits in the nesting, a bad one spoils its invoice."""
        try:
            if not isinstance(event.value, dict):
                raise RecordError(f"expected an object with the line's fields, came {shown(event.value)}")
            values = self._line_values(event.value)
            self._sum.add(values[_NET], values[_TAX])
            values.append(event.raw or None)
            return values if self._nesting.place(values) else None
        except RecordError as error:
            where = f"line {self._sum.lines + 1}"
            raw = event.raw or json.dumps(event.value, ensure_ascii=False)
            self._spoil(RecordError(f"{where}: {error.reason}"), raw)
            return None

    def _line_values(self, record: Mapping[str, Any]) -> Values:
        """Return a line's canonical values; vendors that leave some to be worked out have their own."""
        return self._line.read(record)

    def _spoil(self, error: RecordError, raw: str = "") -> None:
        if self._bad is None:
            self._bad, self._bad_raw = error, raw
        self._nesting.clear()

    def _learn(self, event: Event) -> Iterator[InvoiceLine]:
        """Take in what an event says about the invoice or its lines; yield the lines that were waiting for it."""
        try:
            if event.kind is OPEN:
                self._nesting.open(event.level)
            elif event.kind is CLOSE:
                yield from map(InvoiceLine._make, self._nesting.close(event.level))
            elif not event.name:
                raise RecordError(
                    f"expected an object of {self._names.shape.lists[event.level - 1]}, came {shown(event.value)}"
                )
            elif event.level > 1:
                yield from map(InvoiceLine._make, self._nesting.learn(event.level, event.name, event.value))
            else:
                self._keep(event)
        except RecordError as error:
            self._spoil(error, event.raw)

    def _keep(self, event: Event) -> None:
        self._size += len(event.raw)
        if self._size > LARGEST_VALUE:
            raise RecordError(f"expected less than {LARGEST_VALUE} characters besides the lines, came more")
        self._members[event.name] = event.value
        self._raws.append((event.name, event.raw))
        if self._period and fold(event.name) == fold(self._day.wanted[0].paths[0]):
            day = _readable(self._day, {event.name: event.value})
            self._passed_over = day is not None and not self._period.holds(day)

    def _end(self) -> Invoice | Reject:
        flat = flatten(self._members)
        try:
            if self._bad:
                raise self._bad
            self._no_objects_for_money()
            return self._invoice(dict(zip(self._names.head, self._head.read(flat), strict=True)))
        except RecordError as error:
            raw = "\n".join(part for part in (self._bad_raw, self._raw()) if part)
            self.rejected_day = _readable(self._day, flat)
            return Reject(error.reason, raw[:_LONGEST_REJECT], _readable(self._id, flat))

    def _no_objects_for_money(self) -> None:
        """Refuse an object where an amount should stand: taking no notice of it would lose the amount in silence."""
        for name, value in self._members.items():
            if type(value) in (dict, list) and value and (canonical := self._money.get(fold(name))):
                raise RecordError(f"field {canonical} ({name}): expected a decimal amount, came {shown(value)}")

    def _invoice(self, values: dict[str, str | None]) -> Invoice:
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
            "raw": self._raw() if self._keep_raw else None,
            "source_sha256": self._sha256,
        }
        return Invoice(**found, sign=-1 if kind == "credit_note" and stated_positive(totals) else 1)  # type: ignore[arg-type]

    def _raw(self) -> str:
        """Return what was sent of the invoice besides its lists."""
        if any(raw.startswith("<") for _, raw in self._raws):
            name = self._names.shape.lists[0].removesuffix("s")
            return f"<{name}>{''.join(raw for _, raw in self._raws)}</{name}>"
        return "{" + ", ".join(f"{json_text(name)}: {raw}" for name, raw in self._raws) + "}"


def refuse_failure(reader: InvoiceReader) -> None:
    """Refuse an envelope that says that it failed, whatever came with it: that is not "no invoices".

    :raises Malformed: with what it says.
    """
    flags = {fold(name): text(value) for name, value in reader.outside.items() if not isinstance(value, (dict, list))}
    failed = (flags.get("success") or "true").lower() in _NO or (flags.get("error") or "false").lower() not in _NO
    said = any(fold(name) in _ERROR_NAMES and value for name, value in reader.outside.items())
    if failed or (said and not reader.invoices):
        raise Malformed(f"it says that it failed: {shown(reader.outside, 200)}")


def _readable(fields: Fields, flat: Mapping[str, Any]) -> str | None:
    try:
        return fields.read(flat)[0]
    except RecordError:
        return None


def stated_positive(totals: Totals) -> bool:
    """Whether a credit note's total is stated the EN 16931 way, as a positive amount."""
    decisive = totals.gross if totals.gross not in (None, "0") else totals.net
    return decisive not in (None, "0") and not str(decisive).startswith("-")


def _undivided_amounts(names: Names) -> dict[str, str]:
    """Return the folded names of members that are amounts themselves, not objects that hold one, with what they are."""
    amounts = [(name, paths) for name, (reads, paths) in names.head.items() if reads is amount]
    return {
        fold(path): name
        for name, paths in amounts
        for path in paths
        if not any(fold(other).startswith(f"{fold(path)}.") for other in paths)
    }


def _line_fields(names: Names) -> tuple[Fields, Nesting]:
    """Split the lines' paths by the level that they lead to."""
    own: list[Wanted] = []
    around: dict[int, list[tuple[Wanted, int, bool]]] = {level: [] for level in range(2, names.shape.leaf)}
    for slot, name in enumerate(LINE_NAMES):
        read, paths = names.line[name]
        level_of = [_level(path, names.around) for path in paths]
        own.append(Wanted(name, read, tuple(path for path, level in zip(paths, level_of, strict=True) if not level)))
        for level in set(level_of) - {0}:
            prefix = len(names.around[level])
            theirs = tuple(path[prefix:] for path, of in zip(paths, level_of, strict=True) if of == level)
            around[level].append((Wanted(name, read, theirs), slot, level_of[0] == level))
    levels = {
        level: Surrounding([wanted for wanted, _, _ in each], [(slot, wins) for _, slot, wins in each])
        for level, each in around.items()
    }
    return Fields(own), Nesting(levels)


def _level(path: str, around: Mapping[int, str]) -> int:
    return next((level for level, prefix in around.items() if path.lower().startswith(prefix.lower())), 0)
