"""What Sage says when it calls a ``notificationUrl``: a new API key, or that there is new data; no I/O.

The document names the call ("an 'API Key' being provided via the 'notificationUrl'", "Connected Cloud will notify your
application of the existence of the new data") and loses its payload, so that every shape is taken that can be meant.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from airflow_cloudbilling.errors import MalformedReplyError
from airflow_cloudbilling.parse import fold

LONGEST = 16 * 1024  # bytes of a notification
_KEYS = ("apikey", "initialapikey")  # the two payloads differ by it (vendor facts 8)
_SCOPES = ("scope", "scopename")
_KEY_SIZES = range(8, 1025)  # characters
_LONGEST_SCOPE = 255


class Hint(NamedTuple):
    """What a notification says; it may be anybody's, so that it is only a reason to look.

    :param api_key: an initial API key, after a consent; empty: there is new data.
    :param scope: of the new data, where it is named.
    """

    api_key: str = ""
    scope: str = ""

    def __repr__(self) -> str:
        return f"Hint({'an API key' if self.api_key else f'scope={self.scope!r}'})"


def hint_of(body: bytes) -> Hint:
    """Return what a notification says: JSON or a form; whatever holds neither key nor scope says "new data".

    :param body: at most :data:`LONGEST` bytes.
    :raises MalformedReplyError: when it holds a key that none can be; the message does not show it.
    """
    scope = ""
    for name, value in _members(_read(body)):
        if name in _KEYS:
            return Hint(api_key=_key(value))
        if name in _SCOPES and isinstance(value, str) and value.isprintable():
            scope = value[:_LONGEST_SCOPE]
    return Hint(scope=scope)


def _read(body: bytes) -> Any:
    text = body.decode("utf-8-sig", "replace").strip()
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return dict(parse_qsl(text)) if "=" in text[:64] and text[:1] not in ("{", "[", "<") else None


def _members(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the members of an object, and those of objects in it, as in ``{"data": {…}}``."""
    if not isinstance(value, Mapping):
        return
    for name, member in value.items():
        yield fold(name), member
        if isinstance(member, Mapping):
            yield from ((fold(inner), each) for inner, each in member.items())


def _key(value: Any) -> str:
    key = value.strip() if isinstance(value, str) else ""
    if len(key) not in _KEY_SIZES or not key.isascii() or not key.isprintable() or " " in key:
        sizes = f"{_KEY_SIZES.start} to {_KEY_SIZES.stop - 1}"
        raise MalformedReplyError(f"a notification of Sage holds an API key that is none: expected {sizes} characters.")
    return key
