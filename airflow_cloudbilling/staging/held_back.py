"""Rows that need not be sent unless somebody else changes what is staged in the meantime; on this machine's disk."""

from __future__ import annotations

import marshal
import tempfile
from collections.abc import Collection, Iterator

from airflow_cloudbilling.staging.rows import Row


class HeldBack:
    """A file of batches of rows without a name, gone with the process; the first value of a row is its invoice."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 — closed with the load
        self.empty = True

    def add(self, rows: list[Row]) -> None:
        """Keep a batch."""
        marshal.dump(rows, self._file)
        self.empty = False

    def of(self, seqs: Collection[str]) -> Iterator[list[Row]]:
        """Yield, batch by batch, the rows of some invoices."""
        end = self._file.tell()
        self._file.seek(0)
        while self._file.tell() < end:
            rows: list[Row] = marshal.load(self._file)  # noqa: S302 — written by this very process
            yield [row for row in rows if row[0] in seqs]

    def close(self) -> None:
        """Give the disk space back."""
        self._file.close()
