"""Store365 (Store-IT): all that is known about its API, from "Store365 API" (vendor-docs/store365.txt)."""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple, NoReturn

from airflow_cloudbilling.errors import ConfigurationError, MalformedReplyError, RefusedError
from airflow_cloudbilling.found import Item, singly
from airflow_cloudbilling.model import Invoice, Notice, Stated
from airflow_cloudbilling.parse import InvoiceReader, Malformed, Names, clean, read, refuse_failure
from airflow_cloudbilling.parse.paging import MOST_PAGES, Paging
from airflow_cloudbilling.parse.selection import Selection
from airflow_cloudbilling.redaction import redact
from airflow_cloudbilling.settings import Field, Settings
from airflow_cloudbilling.source import (
    Again,
    Ask,
    Conversation,
    Credential,
    Endpoint,
    Ok,
    Refused,
    Renew,
    Reply,
    Request,
    Source,
    Verdict,
)
from airflow_cloudbilling.sources.authentication import read_token, token_url
from airflow_cloudbilling.sources.store365_names import NAMES, SHAPE
from airflow_cloudbilling.sources.store365_pages import Listing, changed, counters, every_record, one_record, ordered
from airflow_cloudbilling.urls import path_part

_TOKEN_URL = "https://token.store-it365.eu/auth"  # noqa: S105 - an address ("Authentication URL")
_TOKEN_LIFETIME = 3600.0  # seconds, where expires_in says nothing; a 401 renews in any case
_MEDIA = {"json": "application/json", "xml": "application/xml"}
_READINGS = 3  # of a list that changes while it is read
_PATH = re.compile(r"[\w.~-]+(/[\w.~-]+)*")
_AS_JSON = {"Content-type": _MEDIA["json"]}  # bodies are sent as JSON, and the header means both ways
_LOGIN = (
    "Store365 refused the login (HTTP {status}{said}): compare username (login), password and client_id with what"
    " Store-IT gave you. It is not tried again, lest the account be locked."
)
_TOKEN_REFUSALS = {
    **dict.fromkeys((400, 401, 403), _LOGIN),
    0: "{method} {path} gives no token (HTTP {status}{said}): compare auth_url with the vendor's document.",
}
_REFUSALS = {  # "Error codes"
    400: "Store365 calls {method} {path} wrong (HTTP 400{said}): look at params, page_size and SortOrder.",
    403: "Store365 does not allow {method} {path} to this user (HTTP 403{said}): ask Store-IT for the right.",
    404: "Store365 has no {path} (HTTP 404{said}): compare host, invoices_path or resource with Store-IT's document.",
    415: "Store365 does not take the content-type header of {method} {path} (HTTP 415{said}): it knows application/json"
    " and application/xml; choose the other one in response_format.",
    0: "Store365 refused {method} {path} with HTTP {status}{said}.",
}
_AGAIN = (408, 429, 500, 502, 503, 504)


class Store365(Source):
    """Invoices and any other resource by its path; pages after the first are asked for ahead."""

    conn_type: ClassVar[str] = "store365"
    title: ClassVar[str] = "Store365"
    hook_class: ClassVar[str] = "airflow_cloudbilling.hooks.store365.Store365Hook"
    default_host: ClassVar[str | None] = "https://api.store-it365.eu"
    labels: ClassVar[Mapping[str, str]] = {"host": "Base URL", "login": "Username", "password": "Password"}
    placeholders: ClassVar[Mapping[str, str]] = {"host": "https://api.store-it365.eu", "login": "given by Store-IT"}
    required: ClassVar[tuple[str, ...]] = ("login", "password")
    fields: ClassVar[tuple[Field, ...]] = (
        Field("client_id", "Client ID", "Required; given by Store-IT with username and password."),
        Field("auth_url", "Authentication URL", "Where access tokens come from.", default=_TOKEN_URL),
        Field("response_format", "Response format", "Of invoices.", default="json", enum=("json", "xml")),
        Field("page_size", "Page size", "Records in a page, 1 to 100.", "integer", 100, minimum=1, maximum=100),
        Field("invoices_path", "Path of the invoices", "Below the base URL.", default="invoices"),
    )
    kinds: ClassVar[tuple[str, ...]] = ("purchase",)
    default_kind: ClassVar[str] = "purchase"
    # The document names the token endpoint and /users; of the other groups only what can be done with them.
    endpoints: ClassVar[tuple[Endpoint, ...]] = (
        Endpoint("POST https://token.store-it365.eu/auth", "test_connection()", "every one, when a token is needed"),
        Endpoint("GET /users", 'list_records("users")', 'ListRecordsOperator(resource="users")'),
        Endpoint("GET /invoices", 'invoices("2026-10")', "StageInvoicesOperator"),
        Endpoint("GET /{resource}", 'list_records("customers")', 'ListRecordsOperator(resource="customers")'),
        Endpoint("GET /{resource}/{id}", 'get_record("orders", "7")', 'GetRecordOperator(resource="orders")'),
        Endpoint("POST /{resource}", 'create_record("orders", {…})', 'CreateRecordOperator(resource="orders")'),
        Endpoint("PUT /{resource}/{id}", 'update_record("users", "7", {…})', 'UpdateRecordOperator(resource="users")'),
        Endpoint("DELETE /{resource}/{id}", 'delete_record("users", "7")', 'DeleteRecordOperator(resource="users")'),
    )

    def account(self, settings: Settings) -> str:
        """Return the client ID."""
        client_id = str(_option(settings, "client_id") or "")
        if not client_id.strip():
            message = "is empty; enter the client ID that Store-IT gave you." + settings.instead_of("client_id")
            raise ConfigurationError(message, conn_id=settings.conn_id, field="client_id")
        return client_id

    def credential_request(self, settings: Settings) -> Request:
        """Return the password grant ("Retrieving a token with the password grant type"): a form, no other secret."""
        form = {
            "username": settings.login,
            "password": settings.password,
            "grant_type": "password",
            "client_id": self.account(settings),
        }
        return Request("POST", token_url(settings, _TOKEN_URL), form=form, configured=True)

    def credential(self, reply: Reply, settings: Settings) -> Credential:
        """Read the token; ``expires_in`` is a text, and the printed sample ends in a comma."""
        return read_token(reply, settings, self.secrets(settings), _TOKEN_LIFETIME)

    def authorise(self, request: Request, settings: Settings, credential: str | None = None) -> Request:
        """Add the token, in the document's spelling: ``Authorization: bearer …``."""
        if credential is None or request.configured:
            return request
        return replace(request, headers={**request.headers, "Authorization": f"bearer {credential}"})

    def secrets(self, settings: Settings) -> list[str]:
        """Return the password; it is sent in a form only."""
        return [settings.password]

    def verdict(self, reply: Reply, settings: Settings) -> Verdict:
        """Judge by the status ("Response Codes"); a 401 of the API is a token that is over."""
        status, request = reply.status, reply.request
        if 200 <= status < 300 and status != 206:  # a part is not an answer
            return Ok()
        if status in _AGAIN:  # what creates something is not sent again by itself, that is the client's rule
            return Again(f"Store365 answered HTTP {status}{_said(reply)}")
        if status == 401 and not request.configured:
            return Renew(f"Store365 no longer accepts the token{_said(reply)}")
        words = _TOKEN_REFUSALS if request.configured else _REFUSALS
        told = {"status": status, "said": _said(reply), "method": request.method, "path": request.path}
        message = redact(words.get(status, words[0]).format(**told), self.secrets(settings))
        return Refused(RefusedError(message, conn_id=settings.conn_id, url=reply.url, status=status))

    def probe(self, settings: Settings) -> Request:
        """Return a question for one invoice."""
        return self._listing({}, settings)._replace(size=1).page(1)

    def invoices(self, ask: Ask, settings: Settings) -> Conversation:
        """Ask for every page and keep the invoices of the period: the document has no filter by date.

        A list whose length changes meanwhile is read once more, so that nothing is lost between its pages: what is
        stated at the end counts only if so many different records have come.
        """
        names, listing, selection = _names(ask, settings), self._question(ask, settings), Selection(ask.period)
        one_reader = InvoiceReader(names, keep_raw=ask.keep_raw, sha256=None, period=ask.period)
        computed = total = 0

        def turn(reply: Reply, paging: Paging) -> Generator[Item, None, bool]:
            nonlocal computed, total
            reader = one_reader.another(reply.sha256)
            try:
                events = read(reply.body, reply.headers.get("content-type"), SHAPE, keep_raw=ask.keep_raw)
                yield from selection.items(reader.items(events), lambda: reader.rejected_day)
                refuse_failure(reader)
                more = paging.turn(counters(reader.outside), selection.records, selection.new)
            except Malformed as error:
                self._malformed(reply, error, settings)
            computed, total = computed + reader.computed, total + reader.invoices
            return more

        for reading in range(_READINGS):
            paging = yield from listing.pages(turn)
            if len(paging.totals) < 2:
                break
            yield changed(paging, again=reading + 1 < _READINGS)
            selection.again()
        if paging.totals:
            yield Stated(paging.totals[-1])
        if computed:
            yield Notice(
                f"{computed} of {total} invoices came without all of their totals; these were computed from the lines."
            )

    def ready(self, ask: Ask, settings: Settings) -> Conversation:
        """Look at the first page, then from the last one backwards, and stop where only earlier invoices can come.

        That is known when the list turns out to be in the order of days, as it is by rising ids.
        """
        listing = self._question(ask, settings)
        first = yield from self._glance(listing, 1, ask, settings)
        ascending = False
        for number in range(min(first.pages, MOST_PAGES), 1, -1):
            days = yield from self._glance(listing, number, ask, settings)
            if number == first.pages:
                ascending = bool(first.latest and days.earliest and first.latest <= days.earliest)
            if ascending and days.earliest and days.earliest < ask.period.start.isoformat():
                return

    def _glance(
        self, listing: Listing, number: int, ask: Ask, settings: Settings
    ) -> Generator[Request | Item, Reply | None, _Days]:
        """Yield the invoices of the period on one page, without lines, and return which days it has."""
        reply = yield listing.page(number)
        days: list[str] = []
        if reply is None or reply.status == 204:
            return _Days(0, "", "")
        reader = InvoiceReader(_names(ask, settings), keep_raw=False, sha256=None, period=ask.period)
        try:
            events = read(reply.body, reply.headers.get("content-type"), SHAPE, keep_raw=False)
            for item in singly(reader.items(events)):
                if isinstance(item, Invoice) and item.issue_date:
                    days.append(item.issue_date)
                    if ask.period.holds(item.issue_date):
                        yield item
            refuse_failure(reader)
        except Malformed as error:
            self._malformed(reply, error, settings)
        return _Days(counters(reader.outside).pages or 0, min(days, default=""), max(days, default=""))

    def list_records(self, resource: str, params: Mapping[str, str], settings: Settings) -> Conversation:
        """Yield every :class:`Record` of a resource, paged or not; ``customers``, ``subscriptions`` or any path."""
        listing = self._listing(params, settings, resource)
        return every_record(listing, lambda reply, error: self._malformed(reply, error, settings))

    def get_record(self, resource: str, record_id: str, params: Mapping[str, str], settings: Settings) -> Conversation:
        """Yield one record."""
        return self._one(Request("GET", _path(resource, settings, record_id), params, _AS_JSON), settings)

    def create_record(self, resource: str, data: Any, settings: Settings) -> Conversation:
        """Create a record; the answer is generally the new one ("Success codes")."""
        return self._one(Request("POST", _path(resource, settings), headers=_AS_JSON, json=data), settings)

    def update_record(self, resource: str, record_id: str, data: Any, settings: Settings) -> Conversation:
        """Change a record; the document does not name the method, PUT is HTTP's own for it."""
        return self._one(Request("PUT", _path(resource, settings, record_id), headers=_AS_JSON, json=data), settings)

    def delete_record(self, resource: str, record_id: str, settings: Settings) -> Conversation:
        """Delete a record; the answer is generally empty ("Success codes", 204)."""
        return self._one(Request("DELETE", _path(resource, settings, record_id), headers=_AS_JSON), settings)

    def _one(self, request: Request, settings: Settings) -> Conversation:
        return one_record(request, lambda reply, error: self._malformed(reply, error, settings))

    def _question(self, ask: Ask, settings: Settings) -> Listing:
        if ask.kind not in self.kinds:
            raise ConfigurationError(f"Store365 has no kind {ask.kind!r}; it has {', '.join(self.kinds)}.")
        media = _MEDIA[str(_option(settings, "response_format"))]
        return self._listing(ask.params, settings)._replace(media=media)

    def _listing(self, params: Mapping[str, str], settings: Settings, resource: str | None = None) -> Listing:
        path = _path(resource if resource is not None else str(_option(settings, "invoices_path")), settings)
        return Listing(path, ordered(params), int(_option(settings, "page_size")), _MEDIA["json"])

    def _malformed(self, reply: Reply, error: Malformed, settings: Settings) -> NoReturn:
        asked = f"{reply.request.method} {reply.request.path}"
        message = redact(f"{asked} was not answered as Store365 promises: {error}", self.secrets(settings))
        raise MalformedReplyError(message, conn_id=settings.conn_id, url=reply.url, status=reply.status) from None


class _Days(NamedTuple):
    """What a glance at a page tells: how many pages there are, its earliest and its latest day."""

    pages: int
    earliest: str
    latest: str


_DEFAULTS = {field.name: field.default for field in Store365.fields}


def _names(ask: Ask, settings: Settings) -> Names:
    return NAMES.mapped({**settings.field_map, **ask.field_map}, settings.conn_id)


def _option(settings: Settings, name: str) -> Any:
    return settings.options.get(name) or _DEFAULTS[name]


def _path(resource: str, settings: Settings, record_id: str | None = None) -> str:
    """Return the path below the base URL.

    :raises ConfigurationError: when it leads elsewhere.
    """
    path = resource.strip("/ ")
    if not _PATH.fullmatch(path) or ".." in path:
        field = "invoices_path" if resource == _option(settings, "invoices_path") else "resource"
        message = f"{resource!r} is no path such as 'invoices' or 'customers/7/orders'."
        raise ConfigurationError(message, conn_id=settings.conn_id, field=field)
    return f"/{path}" if record_id is None else f"/{path}/{path_part(record_id)}"


def _said(reply: Reply) -> str:
    """Return what the vendor says in one of its three shapes of error ("Error codes"), in words."""
    try:
        body = json.loads(reply.head())
    except ValueError:
        return ""
    if not isinstance(body, dict):
        return ""
    words = [str(body[name]) for name in ("error", "error_description", "message") if body.get(name)]
    return f": {clean(': '.join(words))}" if words else ""
