"""CloudOnex Business Suite: all that is known about its API v2 (vendor-docs/cloudonex-business-suite.txt)."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

from airflow_cloudbilling.errors import ConfigurationError, RefusedError
from airflow_cloudbilling.found import Item, Record, singly
from airflow_cloudbilling.model import Invoice, Invoices, Notice, Period, Stated
from airflow_cloudbilling.parse import Malformed, shown
from airflow_cloudbilling.parse.records import read_value
from airflow_cloudbilling.parse.selection import all_within, opened, within
from airflow_cloudbilling.settings import Field, Settings
from airflow_cloudbilling.source import Ask, Conversation, Endpoint, Reply, Request, Source, Verdict
from airflow_cloudbilling.sources import cloudonex_answers as answers
from airflow_cloudbilling.sources import rate_limit
from airflow_cloudbilling.sources.cloudonex_names import NAMES
from airflow_cloudbilling.sources.cloudonex_pages import DROPPED, RESOURCES, Page, Turns, single
from airflow_cloudbilling.sources.cloudonex_records import Reader, has_items
from airflow_cloudbilling.sources.cloudonex_requests import (
    FIELDS,
    default_currency,
    one,
    option,
    request_of,
    with_body,
)

_LIMIT = "100"  # records in a page; the vendor's own default is 20 (vendor facts 3b)
_LISTED = {"sales": "invoices", "purchase": "purchases"}
_OURS = ("date_from", "date_to", "page", "api_key", "ng")
_VERBS = (
    ("GET /{}", 'list_records("{}")', 'ListRecordsOperator(resource="{}")'),
    ("GET /{}/{{id}}", 'get_record("{}", record_id)', 'GetRecordOperator(resource="{}")'),
    ("POST /{}", 'create_record("{}", data)', 'CreateRecordOperator(resource="{}")'),
    ("PUT /{}/{{id}}", 'update_record("{}", record_id, data)', 'UpdateRecordOperator(resource="{}")'),
    ("DELETE /{}/{{id}}", 'delete_record("{}", record_id)', 'DeleteRecordOperator(resource="{}")'),
)


class CloudOnex(Source):
    """The ten resources of the API; invoices are what is sold, purchases what is bought."""

    conn_type: ClassVar[str] = "cloudonex"
    title: ClassVar[str] = "CloudOnex"
    hook_class: ClassVar[str] = "airflow_cloudbilling.hooks.cloudonex.CloudOnexHook"
    default_host: ClassVar[str | None] = None
    labels: ClassVar[Mapping[str, str]] = {"host": "Base URL", "password": "API key"}
    placeholders: ClassVar[Mapping[str, str]] = {"host": "https://your-domain.com"}
    required: ClassVar[tuple[str, ...]] = ("host", "password")
    fields: ClassVar[tuple[Field, ...]] = FIELDS
    kinds: ClassVar[tuple[str, ...]] = tuple(_LISTED)
    default_kind: ClassVar[str] = "sales"
    dropped_fields: ClassVar[tuple[str, ...]] = DROPPED
    endpoints: ClassVar[tuple[Endpoint, ...]] = tuple(
        Endpoint(*(part.format(name) for part in verb)) for name in RESOURCES for verb in _VERBS
    )

    def account(self, settings: Settings) -> str:
        """Return the host's name: every customer has a domain of its own."""
        return urlsplit(settings.base_url).hostname or settings.base_url

    def secrets(self, settings: Settings) -> list[str]:
        """Return the API key."""
        return [settings.password]

    def authorise(self, request: Request, settings: Settings, credential: str | None = None) -> Request:
        """Add the key: as Bearer token, or to the query ("Alternative Query String Method")."""
        if option("auth_mode", settings) == "bearer":
            return replace(request, headers={**request.headers, "Authorization": f"Bearer {settings.password}"})
        if "api_key" in dict(parse_qsl(urlsplit(request.path).query)):
            return request  # a redirect that repeats the address
        return replace(request, params={"api_key": settings.password, **request.params})

    def budget(self, reply: Reply, settings: Settings) -> float | None:
        """Return how long to keep quiet when ``X-RateLimit-Remaining`` is 0 ("Rate Limiting")."""
        return rate_limit.budget(reply.headers, answers.HOUR)

    def verdict(self, reply: Reply, settings: Settings) -> Verdict:
        """Judge by the table of statuses, and by the envelope where the status is good."""
        return answers.verdict(reply, settings)

    def probe(self, settings: Settings) -> Request:
        """Return a question for one invoice.

        :raises ConfigurationError: for a field that would fail the import.
        """
        default_currency(settings)
        return request_of("GET", "invoices", settings, {"page": "1", "limit": "1"})

    def invoices(self, ask: Ask, settings: Settings) -> Conversation:
        """Ask for the period page by page; an invoice that is listed without its lines is asked for by itself.

        One page after another, since requests are counted. Versions that ignore the filters send more: see ``Outside``.
        """
        yield from self._read(ask, settings, lines=True)

    def _read(self, ask: Ask, settings: Settings, *, lines: bool) -> Conversation:
        reading = _Reading(ask, settings)
        turns = Turns(reading.question(settings))
        going = True
        while going:
            reply = yield turns.next()
            if reply is None or reply.status == 204:
                break
            bare: list[Mapping[str, Any]] = []
            try:
                page = Page(reply, reading.resource, tolerant=True)
                for records in page:
                    if turns.take(records):
                        yield from reading.found(records, reply, bare if lines else None)
                going = turns.goes_on(page)
            except Malformed as error:
                answers.malformed(reply, error, settings)
            for record in bare:
                yield from self._with_lines(record, reading, settings)
        if turns.total is not None:
            yield Stated(turns.total)
        yield from reading.notices()

    def _with_lines(self, listed: Mapping[str, Any], reading: _Reading, settings: Settings) -> Conversation:
        """Ask for one invoice; what it says wins over what the list said."""
        reply = yield one("GET", reading.resource, str(listed["id"]), settings)
        if reply is None:
            return
        try:
            record = single(reply)
            if not isinstance(record, dict) or str(record.get("id", listed["id"])) != str(listed["id"]):
                raise Malformed(f"expected the record with the id {shown(listed['id'])}, another or none came")
        except Malformed as error:
            answers.malformed(reply, error, settings)
        yield from reading.found([{**listed, **record}], reply)

    def ready(self, ask: Ask, settings: Settings) -> Conversation:
        """Ask for one invoice of the period; a version that answers with another one is asked for all."""
        reading = _Reading(ask, settings)
        question = reading.question(settings)
        reply = yield replace(question, params={**question.params, "page": "1", "limit": "1"})
        if reply is None or reply.status == 204:
            return
        others = 0
        try:
            for records in Page(reply, reading.resource, tolerant=True):
                found = [item for item in singly(reading.found(records, reply)) if isinstance(item, Invoice)]
                yield from found
                others += len(records) - len(found)
        except Malformed as error:
            answers.malformed(reply, error, settings)
        if others:
            yield from self._read(ask, settings, lines=False)

    def list_records(self, resource: str, params: Mapping[str, str], settings: Settings) -> Conversation:
        """Yield every record of a resource, or those of one page when ``params`` names it."""
        name = self._resource("list", resource, settings)
        turns = Turns(request_of("GET", name, settings, {"limit": _LIMIT, **params}))
        going = True
        while going:
            question = turns.next()
            reply = yield replace(question, params={**question.params, **params})
            if reply is None or reply.status == 204:
                return
            try:
                page = Page(reply, name)
                for records in page:
                    yield from map(Record, records if turns.take(records) else ())
                going = "page" not in params and turns.goes_on(page)
            except Malformed as error:
                answers.malformed(reply, error, settings)

    def get_record(self, resource: str, record_id: str, params: Mapping[str, str], settings: Settings) -> Conversation:
        """Yield one record."""
        name = self._resource("get", resource, settings)
        yield from _answer(one("GET", name, record_id, settings, params), settings)

    def create_record(self, resource: str, data: Any, settings: Settings) -> Conversation:
        """Send a new record and yield the answer."""
        name = self._resource("create", resource, settings)
        endpoint = name.removesuffix("s") if option("resource_style", settings) == "singular" else name
        yield from _answer(with_body(request_of("POST", endpoint, settings), data, settings), settings)

    def update_record(self, resource: str, record_id: str, data: Any, settings: Settings) -> Conversation:
        """Send what changes of a record and yield the answer."""
        name = self._resource("update", resource, settings)
        yield from _answer(with_body(one("PUT", name, record_id, settings), data, settings), settings)

    def delete_record(self, resource: str, record_id: str, settings: Settings) -> Conversation:
        """Delete a record and yield the answer."""
        name = self._resource("delete", resource, settings)
        yield from _answer(one("DELETE", name, record_id, settings), settings)

    def _resource(self, action: str, name: str, settings: Settings) -> str:
        plain = name.strip("/ ").lower()
        if plain not in RESOURCES:
            raise self._lacks(action, name, settings)
        return plain


class _Reading:
    """One reading of a period's invoices.

    :raises ConfigurationError: when it cannot be asked for.
    """

    def __init__(self, ask: Ask, settings: Settings) -> None:
        if ask.kind not in _LISTED:
            raise ConfigurationError(f"CloudOnex has no kind {ask.kind!r}; it has {', '.join(_LISTED)}.")
        if own := [name for name in ask.params if name.lower() in _OURS]:
            raise ConfigurationError(
                f"{', '.join(own)}: not yours to set; use period and window_shift_days.", field="params"
            )
        mapped = {**settings.field_map, **ask.field_map}
        names = NAMES[ask.kind].mapped(mapped, settings.conn_id)
        self.resource = _LISTED[ask.kind]
        self._params = ask.params
        shift = timedelta(days=ask.window_shift_days)
        self._window = Period(ask.period.start + shift, ask.period.end + shift)
        currency = default_currency(settings)
        self._reader = Reader(names, mapped, currency, keep_raw=ask.keep_raw, period=self._window)
        self._computed = 0

    def question(self, settings: Settings) -> Request:
        """Return the question without its page; ``date_to`` is taken as inclusive."""
        last = self._window.end - timedelta(days=1)
        days = {"date_from": self._window.start.isoformat(), "date_to": last.isoformat()}
        return request_of("GET", self.resource, settings, {**days, "limit": _LIMIT, **self._params})

    def found(
        self, records: Sequence[Any], reply: Reply, bare: list[Mapping[str, Any]] | None = None
    ) -> Iterator[Item]:
        """Yield what records hold; older versions ignore filters, so the period is filtered here again.

        :param bare: takes invoices of the period that say nothing of their lines, instead of yielding them.
        """
        reader, of, lines = self._reader, iter(records), list[Item]()
        reader.another(reply.sha256)
        full = bare is None or all(map(has_items, records))
        for item in opened(reader.items(reader.events(records)), lambda some: full and all_within(self._window, some)):
            if isinstance(item, Invoices):  # all that the records hold
                self._computed += reader.computed
                yield item
                return
            if isinstance(item, list):
                lines.append(item)
                continue
            record = next(of)
            found = within(self._window, item, item.issue_date if isinstance(item, Invoice) else reader.rejected_day)
            if isinstance(found, Invoice) and bare is not None and not has_items(record):
                bare.append({**record, "id": found.invoice_id})
                continue
            if isinstance(found, Invoice):
                yield from lines
                self._computed += found.totals_origin == "computed"
            yield found
            lines.clear()

    def notices(self) -> Iterator[Notice]:
        """Yield what a reader of the log should know."""
        if self._computed:
            yield Notice(f"{self._computed} invoices came without all of their totals; these were computed.")


def _answer(request: Request, settings: Settings) -> Generator[Request | Item, Reply | None, None]:
    """Send a request about one record and yield what is answered."""
    reply = yield request
    if reply is None:
        return
    try:
        value = single(reply) if reply.head(1) else None
        if value is None and reply.head(1) and not request.safe:
            value = read_value(reply.body, DROPPED)  # the envelope's message is all there is
    except Malformed as error:
        answers.malformed(reply, error, settings)
    if value is None and request.safe:
        message = f"CloudOnex has no {answers.shown_path(request)}: an empty answer came."
        raise RefusedError(message, conn_id=settings.conn_id, url=reply.url, status=reply.status)
    yield Record(value)
