"""The lines of a load on the way to its temporary table: hashed, joined to blocks, held back where nothing changed.

This is the path that every row takes, so a line is joined and encoded once, and the same bytes are hashed and sent.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from hashlib import sha256
from itertools import accumulate, pairwise

from airflow_cloudbilling.model import InvoiceLine
from airflow_cloudbilling.staging.held_back import Group, HeldBack
from airflow_cloudbilling.staging.rows import (
    COLUMN,
    NO_VALUE,
    NULL,
    ROW,
    is_clean,
    joined,
    joined_columns,
    row_of,
    texts,
)
from airflow_cloudbilling.staging.temporary import BATCH_BYTES, BATCH_ROWS

_WAITING = 200  # lines of one invoice that wait to be joined
_RAW = InvoiceLine._fields.index("raw")  # what the vendor sent verbatim comes last, and does not count
LINE_ROW = (*InvoiceLine._fields[:_RAW], "line_number", "raw", "seq")
_MODULUS = 1 << 256

NEGATED = ("quantity", "discount", "net_amount", "tax_amount")  # unit prices stay: BR-27 wants them not negative
_AMOUNTS = [LINE_ROW.index(name) for name in NEGATED]


class Lines:
    """The lines that are not sent yet, and those that need not be sent.

    :param send: takes a block to the temporary table.
    :param unchanged: tells which invoices, of those since it was asked last, are staged as they came; or ``None``.
    """

    def __init__(self, send: Callable[[bytes], None], unchanged: Callable[[], Collection[int]] | None) -> None:
        self._send = send
        self._unchanged = unchanged
        self._waiting: list[InvoiceLine] = []
        self._groups: list[Group] = []
        self._rows = self._bytes = 0  # of the groups
        self._joined = self._sum = 0  # lines of the present invoice, and the sum of their hashes
        self.held_back = HeldBack()
        self.seq = 1  # the present invoice

    def add(self, lines: list[InvoiceLine]) -> None:
        """Take in some lines of the present invoice."""
        self._waiting += lines
        if len(self._waiting) >= _WAITING:
            self._join()
            self._send_full()

    def add_whole(self, counts: Sequence[int], lines: Sequence[Sequence[str | None]]) -> list[bytes]:
        """Take in the lines of whole invoices, of which the last is the present one now; return the sums of the hashes.

        :param counts: how many lines each invoice has.
        :param lines: column by column.
        """
        numbers = [number for count in counts for number in range(1, count + 1)]
        seqs = [seq for seq, count in enumerate(counts, self.seq) for _ in range(count)]
        rows, hashes = _rows(lines, numbers, seqs)
        block = ROW.join(rows)
        ends = list(pairwise(accumulate(counts, initial=0)))
        if self._unchanged:
            self._groups += [(seq, ROW.join(rows[a:b])) for seq, (a, b) in enumerate(ends, self.seq) if a < b]
        elif rows:
            self._groups.append((self.seq, block))
        self._rows += len(rows)
        self._bytes += len(block)
        self.seq += len(counts) - 1
        return [b"%064x" % (sum(hashes[a:b]) % _MODULUS) for a, b in ends]

    def content(self) -> tuple[int, bytes]:
        """Return how many lines the present invoice has, and the sum of their hashes: their order does not matter."""
        if self._waiting:
            self._join()
        return self._joined, b"%064x" % (self._sum % _MODULUS)

    def next(self) -> None:
        """Begin the next invoice; lines that no invoice claimed are left behind and never merged."""
        self.seq += 1
        self._waiting.clear()
        self._joined = self._sum = 0
        self._send_full()

    def flush(self) -> None:
        """Send what is still here, or hold it back."""
        groups, self._groups, self._rows, self._bytes = self._groups, [], 0, 0
        if groups and self._unchanged:
            same = self._unchanged()
            if held := [group for group in groups if group[0] in same]:
                self.held_back.add(held)
                groups = [group for group in groups if group[0] not in same]
        if groups:
            self._send(ROW.join([block for _, block in groups]))

    def _send_full(self) -> None:
        if self._rows >= BATCH_ROWS or self._bytes >= BATCH_BYTES:
            self.flush()

    def _join(self) -> None:
        """Hash the lines that wait, and join them to one group."""
        lines, first = self._waiting, self._joined + 1
        numbers = range(first, first + len(lines))
        rows, hashes = _rows(list(zip(*lines, strict=True)), numbers, [self.seq] * len(lines))
        block = ROW.join(rows)
        self._sum += sum(hashes)
        self._groups.append((self.seq, block))
        self._rows += len(rows)
        self._bytes += len(block)
        self._joined += len(rows)
        lines.clear()


def _rows(
    lines: Sequence[Sequence[str | None]], numbers: Sequence[int], seqs: Sequence[int]
) -> tuple[list[bytes], list[int]]:
    """Return lines, which stand column by column, as rows of a block, and the hash of each."""
    contents = joined_columns(lines[:_RAW])
    hashes = [int.from_bytes(sha256(content).digest(), "big") for content in contents]
    raws = [NULL if raw is None else raw.encode() for raw in lines[_RAW]]
    ends = [b"%d\x1f%b\x1f%d" % end for end in zip(numbers, raws, seqs, strict=True)]
    rows = list(map(COLUMN.join, zip(contents, ends, strict=True)))
    if rows and not is_clean(ROW.join(rows), len(rows), len(LINE_ROW)):
        rows = list(map(row_of, zip(*lines[:_RAW], map(str, numbers), lines[_RAW], map(str, seqs), strict=True)))
    return rows, hashes


def negated(amount: str | None) -> str | None:
    """Return ``-amount`` as canonical text."""
    if amount is None or amount == "0":
        return amount
    return amount[1:] if amount[0] == "-" else f"-{amount}"


def turned(block: bytes) -> bytes:
    """Return rows of lines with the amounts negated that a credit note stated as positive has negated."""
    rows = texts(block)
    for row in rows:
        for position in _AMOUNTS:
            if row[position] != NO_VALUE:
                row[position] = str(negated(row[position]))
    return ROW.join(map(joined, rows))
