"""What a vendor is, without I/O: requests, replies, verdicts, and the base class of every source.

A *conversation* is a generator that does no I/O. It yields a :class:`Request` and is sent the :class:`Reply`; whatever
else it yields (lines, invoices, rejects …) is what it found. The client drives it, synchronously or not.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, ClassVar

from airflow_cloudbilling.errors import VendorError
from airflow_cloudbilling.model import Invoice, InvoiceLine, Notice, Outside, Period, Reject, Stated

if TYPE_CHECKING:
    from airflow_cloudbilling.settings import Field, Settings


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request as the vendor's document describes it, without credentials.

    :param path: path below the connection's base URL, or an absolute URL that the vendor named.
    :param api: which of the vendor's credentials goes with it (2tCloud: one key per API).
    """

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    form: Mapping[str, str] | None = None
    api: str = "default"

    @property
    def safe(self) -> bool:
        """Whether sending it twice can do no harm."""
        return self.method in ("GET", "HEAD")


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
Item = InvoiceLine | Invoice | Reject | Outside | Stated | Notice
Conversation = Generator[Request | Item, Reply | None, None]


@dataclass(frozen=True, slots=True)
class Ask:
    """Which invoices are wanted.

    :param kind: ``purchase``, ``sales`` or ``consolidated``; one that the vendor has.
    :param period: the slice's half-open period.
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
    dropped_fields: ClassVar[tuple[str, ...]] = ()  # never logged, stored or archived

    def account(self, settings: Settings) -> str:
        """Return the account that slices are kept under, unless the connection's ``account`` overrides it."""
        raise NotImplementedError

    def authorise(self, request: Request, settings: Settings) -> Request:
        """Return the request with the credentials of its API."""
        raise NotImplementedError

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


Clock = Callable[[], float]
