"""A list in numbered pages, read to its end in bounded time whatever the vendor says of its length."""

from __future__ import annotations

from typing import NamedTuple

from airflow_cloudbilling.parse.events import Malformed

MOST_PAGES = 10_000  # where the vendor does not say how many there are
_ADDED = 10  # pages that may be added while the list is read, or a tenth of them


class Counters(NamedTuple):
    """What a page says about its list.

    :param page: its own number, from 1.
    :param size: records in a full page.
    :param pages: how many pages there are.
    :param total: how many records there are.
    """

    page: int | None = None
    size: int | None = None
    pages: int | None = None
    total: int | None = None


class Paging:
    """One reading of a list, page after page from the first.

    :param size: records that are asked for in each page.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._first: int | None = None
        self.number = 0  # of the page that was read last
        self.pages: int | None = None
        self.totals: list[int] = []  # each other number of records that the vendor has stated, in order

    def turn(self, said: Counters, records: int, new: int) -> bool:
        """Take in a page that was read; whether there is a next one.

        :param records: in the page.
        :param new: those that no page before it held.
        :raises Malformed: when the vendor repeats pages, ignores their numbers or never ends.
        """
        self.number += 1
        added = self._added(said)
        if said.page is not None and said.page != self.number:
            raise Malformed(f"page {self.number} was asked for, page {said.page} came: the vendor ignores pageNumber")
        if self.number > 1 and records and not new and added < records:
            raise Malformed(
                f"page {self.number} holds nothing that did not come before: the vendor repeats its pages or ignores"
                " pageNumber. Order the list by a field that does not change (SortOrder), or ask the vendor"
            )
        self.pages = self._last(said)
        if not records or (self.number == 1 and self.totals and records >= self.totals[-1]):
            return False
        if self.pages is None:  # a list that is not paged has no counters at all
            return said != Counters() and records >= (said.size or self._size) and self._endless(MOST_PAGES)
        self._first = self.pages if self._first is None else self._first
        return self.number < self.pages and self._endless(self._first + max(_ADDED, self._first // 10))

    def _added(self, said: Counters) -> int:
        """Note the total; return by how many records it has grown since the page before."""
        before = self.totals[-1] if self.totals else said.total
        if said.total is None or before is None:
            return 0
        if not self.totals or said.total != before:
            self.totals.append(said.total)
        return said.total - before

    def _last(self, said: Counters) -> int | None:
        if said.pages is None and said.total is not None:
            return -(-said.total // max(said.size or self._size, 1))
        return said.pages

    def _endless(self, limit: int) -> bool:
        if self.number >= limit:
            first = f"the first page said {self._first}" if self._first else "no page says how many there are"
            raise Malformed(f"after {self.number} pages there is always one more, {first}: the list does not end")
        return True
