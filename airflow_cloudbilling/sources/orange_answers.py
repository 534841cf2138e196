"""What Orange's answers mean (errors, lists, values), and what the connection says of keys and secrets."""

from __future__ import annotations

import re
from datetime import date, datetime, timezone
from typing import Any

from airflow_cloudbilling.errors import ConfigurationError, MalformedReplyError, RefusedError
from airflow_cloudbilling.parse import Malformed, clean, fold, shown
from airflow_cloudbilling.parse.records import read_value
from airflow_cloudbilling.redaction import redact
from airflow_cloudbilling.settings import Settings
from airflow_cloudbilling.source import Again, Ok, Refused, Renew, Reply, Verdict
from airflow_cloudbilling.sources.authentication import basic

_KEY_WARNING_DAYS = 30
_EXPIRED, _TOO_MANY = 42, 53
_PASSING = (408, 429, 500, 502, 503, 504)
_WORDS = {  # of the codes that a person can do something about (vendor facts 2b)
    40: "no credentials came with the request",
    41: "the credentials are not valid: compare client ID (login) and client secret (password), and that the"
    " application at developer.orange.com is subscribed to the Cloud Store Customer Space API in the state 'approved'",
    50: "access is denied: compare the X-API-Key (api_key) and what it may see",
    51: "the requester is forbidden: compare the X-API-Key (api_key), which is valid for two years, and the contract",
    52: "the user is forbidden: the account behind the X-API-Key does not see this contract",
    60: "it was not found: compare the contract (X-ECCS-Contract-Id), base_path and host",
}


def option(settings: Settings, name: str) -> str:
    """Return a key of the connection's extra as text, empty where there is none."""
    return str(settings.options.get(name) or "").strip()


def secrets_of(settings: Settings) -> list[str]:
    """Return the client secret, the Basic value made of it, and the API key."""
    given = (settings.password, basic(settings.login, settings.password), option(settings, "api_key"))
    return [each for each in given if each]


def key_notice(settings: Settings) -> str | None:
    """Return words when the API key, "valid during 2 years", ends soon, if the connection says when.

    :raises ConfigurationError: when what it says is no day.
    """
    given = option(settings, "key_expires")
    try:
        ends = date.fromisoformat(given) if given else date.max
    except ValueError:
        message = f"{given!r} is no day such as 2028-06-30."
        raise ConfigurationError(message, conn_id=settings.conn_id, field="key_expires") from None
    left = (ends - datetime.now(tz=timezone.utc).date()).days
    if left > _KEY_WARNING_DAYS:
        return None
    when = f"ends on {ends} (in {left} days)" if left >= 0 else f"ended on {ends}"
    return (
        f"Connection {settings.conn_id!r}: the X-API-Key {when}; ask Orange's API support for a new one, then enter it"
        " as api_key and its end as key_expires."
    )


def judge(reply: Reply, settings: Settings) -> Verdict:
    """Judge a reply by its status and Orange's code, from the body's first bytes alone (vendor facts 2b and 7)."""
    status, request = reply.status, reply.request
    if 200 <= status < 300 and status != 206:  # a part is not an answer
        return Ok()
    said = reply.head()
    code = _code(said)
    if status in (401, 410) and code == _EXPIRED and not request.configured:
        return Renew("Orange's access token has expired")
    if status in _PASSING or (status == 403 and code == _TOO_MANY):
        return Again(f"Orange answered HTTP {status}")
    message = f"Orange refused {request.method} {request.path} with HTTP {status}"
    if request.configured:
        message += ": compare client ID (login), client secret (password) and auth_url"
    elif status == 404 and request.method == "POST":
        message += ": set contract_path_style in extra to the other style (the document has both); it is not tried"
    elif status == 404 and code is None:
        message += ": compare base_path and host"
    elif words := _WORDS.get(code or 0):
        message += f", code {code}: {words}"
    message = redact(f"{message}. It said: {clean(said)}", secrets_of(settings))
    return Refused(RefusedError(message, conn_id=settings.conn_id, url=reply.url, status=status))


def _code(said: bytes) -> int | None:
    """Return Orange's own code (``{"code", "message", "description"}``), also of a body that is cut."""
    found = re.search(rb'"code"\s*:\s*"?([0-9]{1,6})\b', said)
    return int(found[1]) if found else None


def listed(reply: Reply | None, name: str, settings: Settings) -> list[Any]:
    """Return a list's records: a bare array, or what an object has under the resource's name or ``data``.

    :raises MalformedReplyError: for anything else; ``null`` is how Orange answers for a type that it does not know.
    """
    if reply is None or reply.status == 204:
        return []
    value = value_of(reply, settings)
    if isinstance(value, dict):
        value = next((value[key] for key in value if fold(key) in (name, "data")), value)
    if isinstance(value, list):
        stated = reply.headers.get("x-total-count", "")  # as Orange's Billing M2M API has it (vendor facts 2b)
        if stated.isdigit() and int(stated) != len(value) and "limit" not in reply.request.params:
            raise malformed(reply, f"Orange states {stated} {name} and sent {len(value)}", settings)
        return value
    if value is None:
        asked = reply.request.params.get("documentType", "")
        why = f": Orange knows no {name} of the type {asked!r}; compare its spelling" if asked else ""
        raise malformed(reply, f"null came instead of a list{why}", settings)
    raise malformed(reply, f"expected a list of {name}, came {shown(clean(reply.head(400)))}", settings)


def value_of(reply: Reply, settings: Settings) -> Any:
    """Return a JSON body's value, exact.

    :raises MalformedReplyError: when it is none.
    """
    try:
        if reply.head(200).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
            raise Malformed(f"expected JSON, came {shown(clean(reply.head(400)))}")
        return read_value(reply.body)
    except Malformed as error:
        raise malformed(reply, str(error), settings) from None


def malformed(reply: Reply, words: str, settings: Settings) -> MalformedReplyError:
    """Return the error for an answer that cannot be used, without secrets."""
    message = clean(redact(f"{reply.request.method} {reply.request.path}: {words}", secrets_of(settings)), 500)
    return MalformedReplyError(f"{message}.", conn_id=settings.conn_id, url=reply.url, status=reply.status)
