"""A queue of any length in little memory: beyond some records it goes on in a temporary file."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterator
from typing import IO, Generic, TypeVar

from airflow_cloudbilling import disk

Item = TypeVar("Item")


class Spill(Generic[Item]):
    """First in, first out; only own tuples go in, so the file's pickles are as trustworthy as the process.

    :param keep: records held in memory, and in one pickle.
    """

    def __init__(self, keep: int = 1000) -> None:
        self._keep = keep
        self._recent: list[Item] = []
        self._size = 0
        self._file: IO[bytes] | None = None
        self._batches = 0

    def append(self, item: Item, size: int = 1) -> None:
        """Add one item at the end.

        :param size: how many records it is.
        """
        self._recent.append(item)
        self._size += size
        if self._size >= self._keep:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="cloudbilling-")  # noqa: SIM115 - closed by clear()
            pickle.dump(self._recent, self._file, pickle.HIGHEST_PROTOCOL)
            self._batches += 1
            self._recent, self._size = [], 0

    def drain(self) -> Iterator[Item]:
        """Yield and forget everything, in order; nothing may be added meanwhile."""
        if self._file and self._batches:
            self._file.seek(0)
            for _ in range(self._batches):
                yield from pickle.load(self._file)  # noqa: S301 - written by this object, into an unnamed file
        recent = self._recent
        self.clear()
        yield from recent

    def clear(self) -> None:
        """Forget everything and give the disk space back."""
        self._recent, self._size, self._batches = [], 0, 0
        if self._file:
            disk.discard(self._file)
            self._file = None
