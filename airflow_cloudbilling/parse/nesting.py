"""Lines between records that say things about them before *or after*: each line leaves as soon as all of it is known.

2tCloud's JSON names a subscription after its price lines. Lines wait no longer than for that, and many wait on disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from airflow_cloudbilling.parse.fields import Fields, Wanted, fold
from airflow_cloudbilling.parse.spill import Spill

Columns = list["Sequence[str | None]"]  # of some lines: what is alike stands together


class Surrounding:
    """One level of records around the lines, and what lines take from it.

    :param wanted: the values to take.
    :param slots: for each of them the place in a line's values, and whether it wins over what stands there.
    """

    def __init__(self, wanted: Sequence[Wanted], slots: Sequence[tuple[int, bool]]) -> None:
        self._fields = Fields(wanted)
        self._slots = tuple(slots)
        self._first = frozenset(fold(each.paths[0].partition(".")[0]) for each in wanted)
        self._record: dict[str, Any] = {}
        self._gifts: list[tuple[int, bool, str]] = []
        self.waits_for: set[str] = set()
        self.held: Spill[Columns] = Spill()

    def open(self) -> None:
        """Begin a record of this level."""
        self._record, self._gifts, self.waits_for = {}, [], set(self._first)

    def learn(self, name: str, value: Any) -> None:
        """Take in a member of the open record."""
        self._record[name] = value
        if value not in (None, ""):
            self.waits_for.discard(fold(name))
        if not self.waits_for:
            self.settle()

    def settle(self) -> None:
        """Wait for nothing more; what is known now is all that lines get.

        :raises RecordError: when one of the values cannot be read.
        """
        self.waits_for = set()
        values = self._fields.read(self._record)
        gifts = zip(self._slots, values, strict=True)
        self._gifts = [(slot, wins, value) for (slot, wins), value in gifts if value is not None]

    def close(self) -> None:
        """Forget the record."""
        self._record, self._gifts, self.waits_for = {}, [], set()

    def give(self, lines: Columns) -> None:
        """Put what this record says into its lines."""
        for slot, wins, value in self._gifts:
            lines[slot] = [value if wins or known is None else known for known in lines[slot]]


class Nesting:
    """The levels around the lines.

    :param levels: level → surrounding, outermost first.
    """

    def __init__(self, levels: dict[int, Surrounding]) -> None:
        self._levels = levels
        self._outwards = [levels[level] for level in sorted(levels, reverse=True)]

    def open(self, level: int) -> None:
        """Begin a record."""
        self._levels[level].open()

    def learn(self, level: int, name: str, value: Any) -> Iterator[Columns]:
        """Take in a member of a record and yield the lines that are complete with it, some at a time."""
        surrounding = self._levels[level]
        waited = bool(surrounding.waits_for)
        surrounding.learn(name, value)
        if waited and not surrounding.waits_for:
            yield from self._release(surrounding)

    def close(self, level: int) -> Iterator[Columns]:
        """End a record and yield the lines that waited for what it never said, some at a time."""
        surrounding = self._levels[level]
        if surrounding.waits_for:
            surrounding.settle()
            yield from self._release(surrounding)
        surrounding.close()

    def place(self, lines: Columns, start: int = 0) -> bool:
        """Complete some lines of one innermost record; false when they wait now.

        :param start: how many of the innermost levels they have passed already.
        """
        for surrounding in self._outwards[start:]:
            if surrounding.waits_for:
                surrounding.held.append(lines, len(lines[0]))
                return False
            surrounding.give(lines)
        return True

    def clear(self) -> None:
        """Forget every record and every waiting line."""
        for surrounding in self._outwards:
            surrounding.close()
            surrounding.held.clear()

    def _release(self, surrounding: Surrounding) -> Iterator[Columns]:
        start = self._outwards.index(surrounding)
        for lines in surrounding.held.drain():
            if self.place(lines, start):
                yield lines
