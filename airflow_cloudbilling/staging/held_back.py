"""Rows that need not be sent unless somebody else changes what is staged in the meantime; on this machine's disk."""

from __future__ import annotations

import marshal
import tempfile
from collections.abc import Collection, Iterator

from airflow_cloudbilling import disk

Group = tuple[int, bytes]  # the ordinal of an invoice, and rows of some of its lines as a block


class HeldBack:
    """A file of batches of rows without a name, gone with the process."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 — closed with the load
        self.empty = True

    def add(self, groups: list[Group]) -> None:
        """Keep a batch."""
        marshal.dump(groups, self._file)
        self.empty = False

    def of(self, seqs: Collection[int]) -> Iterator[list[Group]]:
        """Yield, batch by batch, the rows of some invoices."""
        end = self._file.tell()
        self._file.seek(0)
        while self._file.tell() < end:
            groups: list[Group] = marshal.load(self._file)  # noqa: S302 — written by this very process
            yield [group for group in groups if group[0] in seqs]

    def close(self) -> None:
        """Give the disk space back."""
        disk.discard(self._file)
