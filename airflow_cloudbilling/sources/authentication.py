"""What several vendors ask of a login: a Basic header; OAuth 2's token endpoint, and the answer that holds a token."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterable
from typing import Any

from airflow_cloudbilling.errors import ConfigurationError, MalformedReplyError
from airflow_cloudbilling.parse import clean
from airflow_cloudbilling.redaction import redact
from airflow_cloudbilling.settings import Settings
from airflow_cloudbilling.source import Credential, Reply
from airflow_cloudbilling.urls import base_url

_LARGEST_TOKEN_REPLY = 256 * 1024
_TRAILING_COMMA = re.compile(r",(\s*[}\]])")


def basic(login: str, secret: str) -> str:
    """Return the value of a Basic header, without the word ``Basic``."""
    return base64.b64encode(f"{login}:{secret}".encode()).decode()


def token_url(settings: Settings, default: str) -> str:
    """Return the address of the token endpoint: the connection's ``auth_url``, or the default.

    :param default: an absolute URL.
    :raises ConfigurationError: when it is no URL, or http off this machine while ``allow_insecure_http`` is false.
    """
    given = str(settings.options.get("auth_url") or default)
    try:
        return base_url(given, None, None, bool(settings.option("allow_insecure_http")))
    except ValueError as error:
        raise ConfigurationError(str(error), conn_id=settings.conn_id, field="auth_url") from None


def read_token(reply: Reply, settings: Settings, secrets: Iterable[str], fallback: float) -> Credential:
    """Return the token of a good answer.

    :param secrets: texts that must not show up in an error.
    :param fallback: seconds that a token lives when ``expires_in``, which may be a text, does not say it.
    :raises MalformedReplyError: when the answer holds no token; it quotes none of it but the names.
    """
    answer = _object(reply.head(_LARGEST_TOKEN_REPLY))
    token = answer.get("access_token") if answer else None
    if isinstance(token, str) and token.isascii() and token.isprintable() and token.strip():
        return Credential(token.strip(), _seconds(answer.get("expires_in")) or fallback)
    named = ", ".join(map(str, answer)) or "nothing that is a JSON object"
    message = f"the token endpoint answered without an access_token; expected a JSON object with one, came {named}"
    message = clean(redact(message, secrets))
    raise MalformedReplyError(
        f"{message}. Compare auth_url with the vendor's document.",
        conn_id=settings.conn_id,
        url=reply.url,
        status=reply.status,
    )


def _object(body: bytes) -> dict[str, Any]:
    """Read a JSON object; a comma after the last member, which one vendor's document prints, is let through."""
    text = body.decode("utf-8-sig", "replace")
    for attempt in (text, _TRAILING_COMMA.sub(r"\1", text)):
        try:
            value = json.loads(attempt)
        except (ValueError, RecursionError):
            continue
        return value if isinstance(value, dict) else {}
    return {}


def _seconds(value: Any) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        return 0
    return seconds if math.isfinite(seconds) and seconds > 0 else 0
