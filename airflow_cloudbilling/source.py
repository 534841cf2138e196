"""What a vendor is, without I/O: requests, replies, verdicts, and the base class of every source.

A *conversation* is a generator that does no I/O. It yields a :class:`Request` and is sent the :class:`Reply`; whatever
else it yields is what it found (:mod:`airflow_cloudbilling.found`). The client drives it, synchronously or not.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, ClassVar, NamedTuple

from airflow_cloudbilling.content import Content
from airflow_cloudbilling.errors import ConfigurationError, VendorError
from airflow_cloudbilling.found import Item
from airflow_cloudbilling.model import Period, Portion

if TYPE_CHECKING:
    from airflow_cloudbilling.settings import Field, Settings


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request as the vendor's document describes it, without credentials.

    :param path: path below the connection's base URL, or an absolute URL that the vendor named.
    :param api: which of the vendor's credentials goes with it (2tCloud: one key per API).
    :param configured: the path is an absolute URL that the connection itself names (a token endpoint): it is asked
        although it is another host's, with what the request itself holds and no other credential.
    :param content: a file as the body, in place of ``json`` and ``form``.
    :param anonymous: it goes without a credential and without the vendor's headers, wherever it goes.
    """

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    form: Mapping[str, str] | None = None
    api: str = "default"
    configured: bool = False
    content: Content | None = None
    anonymous: bool = False

    @property
    def safe(self) -> bool:
        """Whether sending it twice can do no harm; a token that nobody uses does none."""
        return self.method in ("GET", "HEAD") or self.configured


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete HTTP answer; the body is spooled, at its beginning, and closed by the client when it is replaced.

    :param url: the address without secrets.
    :param headers: names in lower case.
    :param size: bytes of the body after content decoding.
    :param sha256: hex digest of those bytes.
    """

    request: Request
    url: str
    status: int
    headers: Mapping[str, str]
    body: IO[bytes]
    size: int
    sha256: str

    def head(self, size: int = 4096) -> bytes:
        """Return the first bytes of the body and leave it at its beginning."""
        self.body.seek(0)
        start = self.body.read(size)
        self.body.seek(0)
        return start


@dataclass(frozen=True, slots=True)
class Ok:
    """Use the reply."""


@dataclass(frozen=True, slots=True)
class Again:
    """Ask again: after ``after`` seconds where the vendor says so (0 is a valid answer), else after a back-off."""

    reason: str
    after: float | None = None


@dataclass(frozen=True, slots=True)
class Renew:
    """The credential has expired: renew it and ask once more."""

    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """No retry mends it."""

    error: VendorError


Verdict = Ok | Again | Renew | Refused


class Credential(NamedTuple):
    """What a vendor gave in exchange for the connection's own secrets.

    :param value: an access token.
    :param lifetime: seconds for which it is valid from now on.
    """

    value: str
    lifetime: float


class Ahead(NamedTuple):
    """Requests that the conversation will make next, in this order: a driver may send several of them early.

    A conversation stays a sequence: it yields each of them later and is sent its reply, as if nothing had been said.

    :param requests: may be a generator; it is read no faster than requests are sent.
    """

    requests: Iterable[Request]


class Endpoint(NamedTuple):
    """One endpoint that the vendor's document names, and how users reach it.

    :param document: method and path as the document prints them.
    :param hook: the call of the hook's method, such as ``list_records("customers")``.
    :param operator: the operator with the arguments that matter, such as ``ListRecordsOperator(resource="customers")``.
    """

    document: str
    hook: str
    operator: str


Conversation = Generator[Request | Ahead | Item, Reply | None, None]


@dataclass(frozen=True, slots=True)
class Ask:
    """Which invoices are wanted.

    :param kind: ``purchase``, ``sales``, ``consolidated`` or ``usage``; one that the vendor has.
    :param period: the slice's half-open period.
    :param account: the slice's account; tells contracts of one connection apart.
    :param document_types: which documents are wanted, in the vendor's words; empty: those of the kind.
    :param window_shift_days: moves the window that is asked for, not the period.
    :param params: further query parameters, as the user gave them.
    :param field_map: canonical name → dotted path in the vendor's record; wins over the built-in aliases.
    :param keep_raw: whether records keep what the vendor sent in ``raw``.
    """

    kind: str
    period: Period
    window_shift_days: int = 0
    params: Mapping[str, str] = field(default_factory=dict)
    field_map: Mapping[str, str] = field(default_factory=dict)
    keep_raw: bool = True
    account: str = ""
    document_types: tuple[str, ...] = ()


class Source:
    """All that is known about one vendor; subclasses live one to a file in ``sources/`` and hold no state.

    The class attributes describe the connection form (see :mod:`airflow_cloudbilling.provider_info`), the methods the
    vendor's protocol. Each method names the vendor's document at the line that depends on it.
    """

    conn_type: ClassVar[str]
    title: ClassVar[str]
    hook_class: ClassVar[str]
    default_host: ClassVar[str | None]
    labels: ClassVar[Mapping[str, str]]  # of host, login and password; a field without a label is hidden
    placeholders: ClassVar[Mapping[str, str]] = {}
    required: ClassVar[tuple[str, ...]]  # among host, login, password
    fields: ClassVar[tuple[Field, ...]]  # keys of the connection's extra, besides the common ones
    kinds: ClassVar[tuple[str, ...]]
    default_kind: ClassVar[str]
    dropped_fields: ClassVar[tuple[str, ...]] = ()  # never logged, stored, returned or archived
    rotates: ClassVar[bool] = False  # whether the password is an API key that is good until the vendor refuses it
    endpoints: ClassVar[tuple[Endpoint, ...]] = ()  # every one that the vendor's document names

    def account(self, settings: Settings) -> str:
        """Return the account that slices are kept under, unless the connection's ``account`` overrides it."""
        raise NotImplementedError

    def slices(self, ask: Ask, settings: Settings) -> Conversation:
        """Return the conversation that yields the :class:`Portion` of each slice that the ask is about.

        One for most vendors, without a request; ``ask.account`` is not yet known here.
        """
        yield Portion(settings.account or self.account(settings), ask.kind)

    def authorise(self, request: Request, settings: Settings, credential: str | None = None) -> Request:
        """Return the request with the credentials of its API.

        :param credential: the value of the :class:`Credential`, where the vendor wants one.
        """
        raise NotImplementedError

    def credential_request(self, settings: Settings) -> Request | None:
        """Return the request that is answered with an access token; None for vendors without."""
        return None

    def credential(self, reply: Reply, settings: Settings) -> Credential:
        """Read the good answer to :meth:`credential_request`.

        :raises MalformedReplyError: when it holds no token.
        """
        raise NotImplementedError

    def budget(self, reply: Reply, settings: Settings) -> float | None:
        """Return the seconds in which the vendor wants no further request, by the headers of any reply; None: go on."""
        return None

    def secrets(self, settings: Settings) -> list[str]:
        """Return every secret text of the connection, with the derived forms that may show up in a log."""
        raise NotImplementedError

    def verdict(self, reply: Reply, settings: Settings) -> Verdict:
        """Judge a reply by the vendor's table of statuses."""
        raise NotImplementedError

    def probe(self, settings: Settings) -> Request:
        """Return the harmless request behind the connection form's Test button."""
        raise NotImplementedError

    def invoices(self, ask: Ask, settings: Settings) -> Conversation:
        """Return the conversation that yields the period's lines and invoices."""
        raise NotImplementedError

    def ready(self, ask: Ask, settings: Settings) -> Conversation:
        """Return a conversation that yields an invoice, or a :class:`Document`, when the period has any.

        The caller stops at the first; vendors that can say so with a lighter question have their own.
        """
        return self.invoices(ask, settings)

    def list_records(self, resource: str, params: Mapping[str, str], settings: Settings) -> Conversation:
        """Return the conversation that yields every :class:`~airflow_cloudbilling.found.Record` of a resource."""
        raise self._lacks("list", resource, settings)

    def get_record(self, resource: str, record_id: str, params: Mapping[str, str], settings: Settings) -> Conversation:
        """Return the conversation that yields one :class:`Record`."""
        raise self._lacks("get", resource, settings)

    def create_record(self, resource: str, data: Any, settings: Settings) -> Conversation:
        """Return the conversation that creates a record and yields what the vendor answers as a :class:`Record`."""
        raise self._lacks("create", resource, settings)

    def update_record(self, resource: str, record_id: str, data: Any, settings: Settings) -> Conversation:
        """Return the conversation that changes a record and yields what the vendor answers as a :class:`Record`."""
        raise self._lacks("update", resource, settings)

    def delete_record(self, resource: str, record_id: str, settings: Settings) -> Conversation:
        """Return the conversation that deletes a record and yields what the vendor answers as a :class:`Record`."""
        raise self._lacks("delete", resource, settings)

    def file_request(self, resource: str, record_id: str, params: Mapping[str, str], settings: Settings) -> Request:
        """Return the request that is answered with a file."""
        raise self._lacks("download", resource, settings)

    def _lacks(self, action: str, resource: str, settings: Settings) -> ConfigurationError:
        """Return the error of a resource that is not there: what it looks like, or what the same verb is there for."""
        there = [e for e in self.endpoints if e.operator.lower().startswith(action)]
        names = [name for e in there for name in re.findall(r'resource="([^"]+)"', e.operator)]
        near = difflib.get_close_matches(resource, names, 1)
        operators = dict.fromkeys(e.operator for e in there or self.endpoints if e.operator.endswith(")"))
        hint = f"did you mean {near[0]!r}?" if near else f"there is {', '.join(operators) or 'nothing of the kind'}."
        return ConfigurationError(
            f"{self.title} has no resource {resource!r} to {action}; {hint}", conn_id=settings.conn_id, field="resource"
        )
