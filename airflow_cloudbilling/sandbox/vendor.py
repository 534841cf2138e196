"""What every vendor of the sandbox has in common: it claims paths, answers requests and keeps books."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timezone
from typing import Any, ClassVar

from airflow_cloudbilling.model import Period
from airflow_cloudbilling.sandbox.books import Books
from airflow_cloudbilling.sandbox.data import Reseller

FILES = "/_files"  # what paths of the second host begin with


@dataclass(frozen=True)
class Incoming:
    """A request as it came in.

    :param query: the parameters, of repeated ones the last.
    :param headers: names in lower case.
    :param source: the client's IP address.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    source: str

    @property
    def basic(self) -> tuple[str, str] | None:
        """The login and the secret of a Basic header, if that is what came."""
        scheme, _, given = self.headers.get("authorization", "").partition(" ")
        try:
            login, _, secret = base64.b64decode(given, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        return (login, secret) if scheme.lower() == "basic" else None


@dataclass(frozen=True)
class Answer:
    """What is sent back; a body that is an iterable of texts is streamed, never held whole."""

    status: int
    body: Iterable[bytes] = ()
    content_type: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def text(cls, status: int, words: str, **headers: str) -> Answer:
        """Return an answer in plain words; ``_`` in a header's name stands for ``-``."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return cls(status, (words.encode() + b"\n",), "text/plain; charset=utf-8", named)

    @classmethod
    def json(
        cls, value: Any, status: int = 200, headers: Mapping[str, str] | None = None, *, ascii_only: bool = True
    ) -> Answer:
        """Return an answer in JSON; where it is not ``ascii_only``, other characters stand as they are, in UTF-8."""
        return cls(status, (json.dumps(value, ensure_ascii=ascii_only).encode(),), "application/json", headers or {})


@dataclass(frozen=True)
class Options:
    """How the sandbox is set up; see :class:`airflow_cloudbilling.sandbox.server.Sandbox`."""

    seed: int = 1
    months: int = 6
    invoices: int = 12
    last_month: date | None = None
    huge_invoice_mb: int = 0
    strict_versions: bool = True
    empty_shape: str = "list"
    registered_ip: str = "127.0.0.1"
    contracts: int = 2  # Orange: the invoices are dealt out to so many
    token_seconds: int = 3600  # lifetime of access tokens
    file_kb: int = 0  # Orange: pads each file to about so many kilobytes
    unreadable_files: int = 0  # Orange: further invoices in each month and contract without readable amounts
    distinct_invoices: int = 0  # Store365: the others of a month are copies of so many, cheap to serve; 0: none is
    rate_limit: int = 1000  # CloudOnex: requests in each window
    rate_window: float = 3600.0  # seconds
    rate_retry_after: bool = False  # CloudOnex: whether a 429 has Retry-After beside X-RateLimit-Reset
    cloudonex_style: str = "enveloped"  # enveloped, meta, bare, rows
    cloudonex_filters: bool = True  # older versions send every invoice, whatever days are asked for
    sage_statuses: str = "validating,processing,accepted"  # what tracking says of an upload, poll by poll
    sage_key_uses: int = 0  # requests after which an API key has expired; 0: it does not

    @property
    def last_day(self) -> date:
        """Return a day of the last month: as chosen, else of the last full month."""
        today = datetime.now(tz=timezone.utc).date()
        return self.last_month or Period.month(today.year, today.month - 1).start


class Vendor:
    """Base of the vendors; each lives in one file that is all the sandbox knows of it.

    :param options: how the sandbox is set up.
    """

    name: ClassVar[str]  # the connection type
    paths: ClassVar[re.Pattern[str]]  # which paths are this vendor's; no two vendors share one
    prefixes: ClassVar[Mapping[str, str]]  # kind → what the ids of its invoices begin with
    files_url: str = ""  # of the second host, for files with signed addresses

    def __init__(self, options: Options) -> None:
        self.options = options
        self.books = Books(
            Reseller(
                options.seed,
                options.months,
                options.invoices,
                options.last_day,
                self.prefixes,
                options.huge_invoice_mb,
            )
        )

    def connections(self, url: str) -> dict[str, dict[str, Any]]:
        """Return connection id → the Airflow connection, able to become JSON, that reaches this vendor at ``url``."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """Return what has happened to the vendor, able to become JSON."""
        return {}

    def steer(self, **changes: Any) -> dict[str, Any]:
        """Change how the vendor goes on, and return its state.

        :raises ValueError: when it knows no such change.
        """
        if changes:
            raise ValueError(f"{self.name} knows no change {', '.join(changes)}")
        return self.state()

    def answer(self, request: Incoming) -> Answer:
        """Answer a request to one of this vendor's paths; may be called by many threads at once."""
        raise NotImplementedError
