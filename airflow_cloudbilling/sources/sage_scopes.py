"""Scope files of Sage: their records for staging, and how one notices that a file is new; no I/O.

"Scope files (Products, Customers, …) always hold the full data of the scope". Every schema of Sage that is known calls
a record's identifier ``id``; how the file is wrapped, if it is, is not documented (vendor facts 4b).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import IO, Any, NamedTuple

from airflow_cloudbilling.parse import Malformed, fold, shown
from airflow_cloudbilling.parse.record_lists import Records
from airflow_cloudbilling.parse.records import json_text
from airflow_cloudbilling.parse.values import Unreadable, text
from airflow_cloudbilling.settings import Settings
from airflow_cloudbilling.source import Reply
from airflow_cloudbilling.sources.sage_answers import SECRET_NAMES, malformed

RECORD_ID = "id"
NOT_MODIFIED = 304
_LISTS = ("data", "items", "records", "results")
_LONGEST_ID = 255
_VALIDATORS = {"etag": "If-None-Match", "last-modified": "If-Modified-Since"}


class ScopeVersion(NamedTuple):
    """A state of a scope's file.

    :param sha256: hex digest of the content, which decides.
    :param size: bytes.
    :param etag: as Sage sends it; empty when it does not.
    :param last_modified: so too.
    """

    sha256: str
    size: int
    etag: str = ""
    last_modified: str = ""


def conditions(known: ScopeVersion | None) -> dict[str, str]:
    """Return the headers that let Sage answer "not modified"; none where it has named neither ETag nor moment."""
    if known is None:
        return {}
    values = (known.etag, known.last_modified)
    return {header: value for header, value in zip(_VALIDATORS.values(), values, strict=True) if value}


def is_conditional(headers: Mapping[str, str]) -> bool:
    """Whether a request has such headers."""
    return any(header in headers for header in _VALIDATORS.values())


def version_of(reply: Reply, known: ScopeVersion | None, settings: Settings) -> ScopeVersion:
    """Return the state of the file that an answer shows.

    :param known: the one that the request named.
    :raises MalformedReplyError: when it is no JSON; nobody is told of a web page.
    """
    if reply.status == NOT_MODIFIED and known is not None:
        return known
    if reply.head(64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] not in (b"[", b"{"):
        malformed(reply, settings, "a scope's file was expected as JSON")
    found = (reply.headers.get(name, "") for name in _VALIDATORS)
    return ScopeVersion(reply.sha256, reply.size, *(v if v.isascii() and v.isprintable() else "" for v in found))


def records_of(body: IO[bytes], scope: str, record_id: str = RECORD_ID) -> Iterator[tuple[str, str, str]]:
    """Yield each record of a scope's file as (id, JSON text, SHA-256 of the content), exact, as it is read.

    :param body: at its beginning: a list, or an object that holds it under the scope's name or ``data``, ``items``,
        ``records``, ``results``.
    :param record_id: the member that identifies a record, in any case.
    :raises Malformed: when it is neither, is cut, or holds a record that cannot be told apart.
    """
    for number, record in enumerate(Records(body, (*_LISTS, scope), (), SECRET_NAMES), 1):
        yield _row(number, record, record_id)


def _row(number: int, record: Any, record_id: str) -> tuple[str, str, str]:
    try:
        content = json_text(_ordered(record))
        return _key(record, fold(record_id)), json_text(record), sha256(content.encode()).hexdigest()
    except Unreadable as error:
        raise Malformed(f"record {number}: member {record_id!r}: {error}; look at record_id") from None


def _key(record: Any, wanted: str) -> str:
    if not isinstance(record, Mapping):
        raise Unreadable(f"expected an object, came {shown(record)}")
    found = text(next((value for name, value in record.items() if fold(name) == wanted), None))
    if not found:
        raise Unreadable("expected an id, it is missing or empty")
    if len(found) > _LONGEST_ID:
        raise Unreadable(f"expected at most {_LONGEST_ID} characters, came {shown(found)}")
    return found


def _ordered(value: Any) -> Any:
    """Return a value with the members of its objects in one order."""
    if isinstance(value, Mapping):
        return {name: _ordered(value[name]) for name in sorted(value)}
    return [*map(_ordered, value)] if isinstance(value, list) else value
