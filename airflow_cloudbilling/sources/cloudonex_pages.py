"""CloudOnex's answers: what an envelope says, lists page by page with and without ``meta``, and where they must end."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

from airflow_cloudbilling.parse import Malformed, clean, fold, text
from airflow_cloudbilling.parse.json_exact import outlined
from airflow_cloudbilling.parse.paging import MOST_PAGES, Counters
from airflow_cloudbilling.parse.record_lists import Records
from airflow_cloudbilling.parse.records import json_text, read_value, unwrapped
from airflow_cloudbilling.parse.selection import digest
from airflow_cloudbilling.source import Reply, Request
from airflow_cloudbilling.sources.cloudonex_records import merged

DROPPED = ("password", "token", "autologin", "vtoken", "ptoken")  # of customers and invoices (vendor facts 3b)
RESOURCES = (  # "Core Endpoints", "Additional Endpoints"
    "customers", "invoices", "transactions", "quotes", "products", "orders", "leads", "suppliers", "purchases",
    "tickets",
)  # fmt: skip
_LISTS = ("data", "records", "results", "rows")  # besides the resource's own name
_MARKS = ("id", "invoice", "purchase")
_NO = ("false", "0", "no")
_COUNTERS = (("current_page", "page"), ("per_page", "limit"), ("total_pages", "last_page"), ("total_records", "total"))
_MORE = 10  # pages beyond those that the first one stated


class Page:
    """One answer with a list: its records, and when they have been read, what stands around them.

    :param reply: its body is read from the beginning.
    :param resource: whose list it is.
    :param tolerant: whether NaN and numbers out of bounds come as text, so that they spoil their record only.
    """

    def __init__(self, reply: Reply, resource: str, *, tolerant: bool = False) -> None:
        reply.body.seek(0)
        self.count = 0
        self._records = Records(reply.body, (*_LISTS, resource), _MARKS, DROPPED, str if tolerant else None)

    def __iter__(self) -> Iterator[Sequence[Any]]:
        """Yield the records, many at a time.

        :raises Malformed: when it is no list, or the envelope says that the request failed.
        """
        try:
            for some in self._records.some():
                self.count += len(some)
                yield list(map(merged, some))
        except Malformed as error:
            raise Malformed(failure(self._records.around) or str(error)) from None
        if said := failure(self._records.around):
            raise Malformed(said)

    @property
    def counters(self) -> Counters:
        """Return what the answer says of its place in the list; nothing where it has no ``meta``."""
        around = self._records.around
        metas = [
            value for name, value in around.items() if fold(name) in ("meta", "pagination") and isinstance(value, dict)
        ]
        said = {fold(name): value for name, value in (metas[0] if metas else around).items()}
        return Counters(*(_whole(said, names) for names in _COUNTERS))


class Turns:
    """One reading of a list, page after page; every way in which pages can go wrong ends in words.

    :param request: the question without its page.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._page_of: dict[int, int] = {}  # where each record came first
        self._previous, self._current = _Digest(), _Digest()
        self._before = 0  # records of the present page that came on another
        self._pages: int | None = None
        self._read = 0
        self.total: int | None = None
        self.number = 0

    def next(self) -> Request:
        """Return the question for the next page."""
        self.number += 1
        self._before = 0
        self._previous, self._current = self._current, _Digest()
        return replace(self._request, params={**self._request.params, "page": str(self.number)})

    def take(self, records: Sequence[Any]) -> bool:
        """Take in some records of the page that is being read; whether they are to be used, since they are new."""
        keys = list(map(key_of, records))
        self._current.update(keys)
        self._before += sum(self._page_of.setdefault(digest(key), self.number) < self.number for key in keys)
        self._read += len(keys)
        return not self._before

    def _repeats(self, page: Page) -> bool:
        """Whether a page is one that came before, so that the list is at its end.

        A build without paging sends the whole list for each page, others the last page for each beyond.

        :raises Malformed: when only some of its records came before, or the vendor said that there are more.
        """
        again = self._before == page.count > 0
        if again and (page.counters.pages or page.counters.total is not None):
            raise Malformed(
                f"page {self.number} holds nothing that did not come before, although the vendor states"
                f" {self.total if self.total is not None else 'more'} records: it repeats its pages or ignores page"
            )
        if self._before and (not again or self._current != self._previous):
            raise Malformed(
                f"page {self.number} holds {self._before} of {page.count} records that came before: the list has"
                " shifted while it was read, so that others may be missing; run it again"
            )
        return again

    def goes_on(self, page: Page) -> bool:
        """Take in what a page said when it has been read; whether there is a next one.

        :raises Malformed: when it is another page than was asked for, the count changes, or there is no end to it.
        """
        if self._repeats(page):
            return False
        said = page.counters
        if said.page is not None and said.page != self.number:
            raise Malformed(f"page {self.number} was asked for, page {said.page} came: the vendor ignores page")
        if None not in (said.total, self.total) and said.total != self.total:
            raise Malformed(
                f"the vendor stated {self.total} records before and {said.total} on page {self.number}: the list has"
                " changed while it was read; run it again"
            )
        self.total = said.total if said.total is not None else self.total
        self._pages = said.pages if self._pages is None else self._pages
        if not page.count:
            return False
        if self.number >= (MOST_PAGES if self._pages is None else self._pages + _MORE):
            raise Malformed(f"after {self.number} pages there is always one more: the list does not end")
        if said.pages is not None:
            return self.number < said.pages
        return said.total is None or self._read < said.total


class _Digest:
    """What a page's records are and in which order, in a few bytes."""

    def __init__(self) -> None:
        self._hash = sha256()

    def update(self, keys: Sequence[str]) -> None:
        """Take in the next records' keys."""
        self._hash.update("".join(f"{len(key)}:{key}" for key in keys).encode(errors="surrogatepass"))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Digest) and self._hash.digest() == other._hash.digest()

    __hash__ = None  # type: ignore[assignment] # what changes is no key


def key_of(record: Any) -> str:
    """Return what tells a record from others of its list."""
    own = record.get("id") if isinstance(record, dict) else None
    return json_text(record) if own is None or isinstance(own, (dict, list)) else str(own)


def single(reply: Reply) -> Any:
    """Return the one record of an answer, whatever is around it; None when it holds none.

    :raises Malformed: when it is no JSON, or says that the request failed.
    """
    reply.body.seek(0)
    value = read_value(reply.body, DROPPED)
    if isinstance(value, dict):
        if said := failure(value):
            raise Malformed(said)
        names = {fold(name) for name in value}
        if "data" in names and ("success" in names or "id" not in names):
            inner = unwrapped(value, ("data",))
            value = inner if inner not in (None, "", [], {}) else None
    if isinstance(value, list) and len(value) <= 1:
        value = value[0] if value else None
    return merged(value)


def failure(members: Mapping[str, Any]) -> str | None:
    """Return in words what an envelope says when it says that the request failed, whatever the HTTP status is.

    The document has ``success: false`` with ``errors`` and ``message``, the product ``error: true`` with a message or a
    list of them.
    """
    said = {fold(name): value for name, value in members.items()}
    success, error = said.get("success"), said.get("error")
    failed = success is not None and str(success).casefold() in _NO
    failed = failed or (error not in (None, "", [], {}) and str(error).casefold() not in _NO)
    failed = failed or (success is None and bool(said.get("errors")))
    if not failed:
        return None
    parts = [*_words(said.get("message")), *_words(said.get("errors"))]
    parts += [] if str(error).casefold() in ("true", "1", "yes") else _words(error)
    return f"it says that it failed: {clean('; '.join(parts) or json_text(members), 300)}"


def checked(reply: Reply, largest: int = 256 * 1024) -> str | None:
    """Return why a good status is no good answer: the envelope's own words, or None.

    :param largest: bytes of a body that is looked into; failures are small.
    :raises Malformed: when it is not JSON at all, such as a login page or the text of a PHP error.
    """
    head = reply.head(largest)
    begin = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    if not begin:
        raise Malformed("an empty body came where JSON was expected")
    if begin not in b"{[":
        raise Malformed(f"expected JSON, came {clean(head[:1000], 200)!r}")
    if len(head) >= largest or begin == b"[":
        return None
    told = outlined(head, _tells) if reply.request.safe else None
    if told is not None and failure(told) is None:
        return None  # the rest is looked into when it is read
    value = read_value(io.BytesIO(head), DROPPED, constants=str if reply.request.safe else None)
    return failure(value) if isinstance(value, dict) else None


def _tells(name: str) -> bool:
    return fold(name) in ("success", "error", "errors")


def _words(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from (f"{name}: {words}" for words in _words(each))
    elif isinstance(value, list):
        for each in value:
            yield from _words(each)
    elif said := text(value):
        yield said


def _whole(said: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    for name in names:
        value = said.get(fold(name))
        if isinstance(value, int | str) and not isinstance(value, bool) and str(value).strip().isdecimal():
            return int(str(value)[:18])
    return None
