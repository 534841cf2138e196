"""Store365's lists and records: the question for each page, the pages in turn ("Paged results"), any resource."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any, NamedTuple, NoReturn

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.found import Item, Record
from airflow_cloudbilling.model import Notice
from airflow_cloudbilling.parse import Malformed, fold, text
from airflow_cloudbilling.parse.paging import Counters, Paging
from airflow_cloudbilling.parse.records import json_text, listed, read_value, unwrapped
from airflow_cloudbilling.parse.selection import Seen
from airflow_cloudbilling.source import Ahead, Conversation, Reply, Request

Fail = Callable[[Reply, Malformed], NoReturn]
Turn = Callable[[Reply, Paging], Generator[Item, None, bool]]
_ORDER = "id"  # stays where it is when others come; "SortOrder" is the document's spelling, direction it has none


class Listing(NamedTuple):
    """A list of records and how it is asked for.

    :param params: the user's, as they are, with an order that is stable.
    :param size: records in a page.
    :param media: ``Content-type`` of the request, which is what the answer is in, "also without a body".
    """

    path: str
    params: Mapping[str, str]
    size: int
    media: str

    def page(self, number: int) -> Request:
        """Return the question for one page, from 1."""
        params = {**self.params, "pageNumber": str(number), "pageSize": str(self.size)}
        return Request("GET", self.path, params, {"Content-type": self.media})

    def pages(self, turn: Turn) -> Generator[Request | Ahead | Item, Reply | None, Paging]:
        """Ask for page after page, and say after the first which will follow.

        :param turn: reads a page, yields what it holds and returns whether there is a next one.
        """
        paging, more = Paging(self.size), True
        while more:
            if paging.number == 1 and paging.pages:
                yield Ahead(self.page(number) for number in range(2, paging.pages + 1))
            reply = yield self.page(paging.number + 1)
            if reply is None or reply.status == 204:
                break
            more = yield from turn(reply, paging)
        return paging


def changed(paging: Paging, *, again: bool) -> Notice:
    """Return what the log says when the vendor stated several numbers of records while its pages were read.

    :param again: whether the list is read once more.
    """
    totals = " → ".join(map(str, paging.totals[:9]))
    then = "they are read once more" if again else "run this when fewer records change"
    return Notice(
        f"The number of Store365's records changed while its pages were read (totalNumberOfRecords {totals}); {then}."
    )


def every_record(listing: Listing, fail: Fail) -> Conversation:
    """Yield each record of a list once; one that moves to the next page while they are read does not count twice.

    :param fail: raises for an answer that is no list, or for another number of records than the vendor states.
    """
    seen = Seen()
    yielded = 0
    last: Reply | None = None

    def turn(reply: Reply, paging: Paging) -> Generator[Item, None, bool]:
        nonlocal yielded, last
        last = reply
        try:
            body = read_value(reply.body)
            records = _records(body)
            new = [record for record in records if json_text(record) not in seen]  # twice on one page is no shift
            more = paging.turn(counters(body if isinstance(body, dict) else {}), len(records), len(new))
        except Malformed as error:
            fail(reply, error)
        for record in new:
            seen.add(json_text(record))
            yielded += 1
            yield Record(record)
        return more

    paging = yield from listing.pages(turn)
    if last and paging.totals and paging.totals[-1] != yielded:
        stated = " → ".join(map(str, paging.totals[:9]))
        fail(last, Malformed(f"totalNumberOfRecords is {stated}, {yielded} different ones came; ask again"))


def one_record(request: Request, fail: Fail) -> Conversation:
    """Ask and yield the answer as a record; None where the vendor has nothing to say (204)."""
    reply = yield request
    if reply is None or reply.status == 204 or not (request.safe or reply.head(1)):
        yield Record(None)
        return
    try:
        value = read_value(reply.body)
    except Malformed as error:
        fail(reply, error)
    yield Record(value)


def _records(body: Any) -> list[Any]:
    """Return the records of a page: under ``results``, or a group without pages."""
    inner = unwrapped(body, ("results",))
    if inner is body and isinstance(body, dict) and counters(body) != Counters():
        raise Malformed("it has the counters of a list, and no results")
    return listed(inner)


def ordered(params: Mapping[str, str]) -> dict[str, str]:
    """Return the user's parameters, with an order unless they have one; an empty ``SortOrder`` asks for none.

    :raises ConfigurationError: when they would turn pages by themselves.
    """
    for name in params:
        if name.lower() in ("pagenumber", "pagesize"):
            raise ConfigurationError(f"{name} is not yours to set: the connection's page_size does.", field="params")
    own = [name for name in params if name.lower() == "sortorder"]
    kept = {name: value for name, value in params.items() if name not in own or value}
    return kept if own else {"SortOrder": _ORDER, **kept}


def counters(envelope: Mapping[str, Any]) -> Counters:
    """Return what an envelope says of its list; names in either case, numbers also as text."""
    said = {fold(name): text(value) for name, value in envelope.items() if not isinstance(value, (dict, list))}
    return Counters(
        *map(_whole, map(said.get, ("pagenumber", "pagesize", "totalnumberofpages", "totalnumberofrecords")))
    )


def _whole(value: str | None) -> int | None:
    return int(value) if value and value.isdecimal() and len(value) < 19 else None
