"""No secret leaves by a log or an error: plain, base64, hex, URL-quoted, JSON- and HTML-escaped forms are removed."""

from __future__ import annotations

import base64
import html
import json
import logging
import re
import threading
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from urllib.parse import quote, quote_plus

EXCERPT = 300
_ECHO = 8  # characters of the shortest form that is looked for in bodies
_QUERY = re.compile(r"(https?:(?:\\?/){2}[^\s?'\"]+)\?[^\s'\"]*", re.IGNORECASE)  # JSON may write / as \/
_PARAMETERS = re.compile(r"\?[^\s'\"]*=[^\s'\"]*")  # of relative addresses too, as in a header of a redirect
_ESCAPED = re.compile("%[0-9A-F]{2}")
_REMEMBERED = 200  # secrets that the HTTP library's log is cleaned of: a triggerer sees a new token every hour
_LOGGERS = ("httpx", "httpcore.connection", "httpcore.http11", "httpcore.http2", "httpcore.proxy", "httpcore.socks")


def redact(text: str, secrets: Iterable[str]) -> str:
    """Return the text with ``***`` in place of every secret, in whatever form it stands there."""
    for form in _forms(tuple(secrets)):
        text = text.replace(form, "***")
    return text


def excerpt(body: bytes, secrets: Iterable[str], limit: int = EXCERPT, dropped: Iterable[str] = ()) -> str:
    """Return the beginning of a body on one line, without secrets and control characters, for an error.

    :param body: the first bytes as received; a few kilobytes suffice.
    :param limit: characters at most.
    :param dropped: names of JSON members whose values are not shown.
    """
    text = without_queries(redact(body.decode("utf-8", "replace").replace("\0", ""), secrets))
    text = clean(without_members(text, dropped))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def without_members(text: str, names: Iterable[str]) -> str:
    """Return text with ``***`` for the value of each JSON member of these names; the text may be cut anywhere."""
    either = "|".join(map(re.escape, names))
    if not either:
        return text
    return re.sub(rf'("(?:{either})"\s*:\s*)("(?:[^"\\]|\\.)*"?|[^\s,}}\]]+)', r'\1"***"', text, flags=re.IGNORECASE)


def without_queries(text: str) -> str:
    """Return text with ``…`` for the query of each address in it, which may be a signature."""
    return _QUERY.sub(r"\1?…", text)


def clean(text: str) -> str:
    """Return the text on one line with control characters escaped, so that nobody forges lines of a log."""
    spaced = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in spaced)


def echoes(secrets: Iterable[str]) -> tuple[bytes, ...]:
    """Return the forms in which a body may echo secrets; short ones are left out, they may be ordinary words."""
    return tuple(form.encode() for form in _forms(tuple(secrets)) if len(form) >= _ECHO)


@contextmanager
def forgetting() -> Iterator[None]:
    """Let an error pass with frames that hold nothing any more: some tools show what every variable was."""
    try:
        yield
    except Exception as error:
        behind: BaseException | None = error
        while behind is not None:
            traceback.clear_frames(behind.__traceback__)
            behind = behind.__cause__ or behind.__context__
        raise


class Secrets:
    """The secrets of one client; access tokens join them when they are fetched."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts: tuple[str, ...] = ()
        self._credentials: tuple[str, ...] = ()
        self.echoes: tuple[bytes, ...] = ()
        self.add(*texts)

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def add(self, *texts: str) -> None:
        """Keep further texts out of logs, errors and bodies from now on."""
        self._credentials = tuple(dict.fromkeys((*self._credentials, *texts)))
        self.echoes = echoes(self._credentials)
        self.hide(*texts)

    def hide(self, *texts: str) -> None:
        """Keep further texts out of logs and errors, but not of bodies: they tell where a signed address leads."""
        self._texts = tuple(dict.fromkeys((*self._texts, *texts)))
        guard_http_logs(self._texts)


@lru_cache(maxsize=64)
def _forms(secrets: tuple[str, ...]) -> list[str]:
    found = {form for secret in secrets if secret for form in _forms_of(secret)}
    return sorted(found - {""}, key=len, reverse=True)


@lru_cache(maxsize=256)
def _forms_of(secret: str) -> tuple[str, ...]:
    return tuple(_each_form(secret))


def _each_form(secret: str) -> Iterator[str]:
    for quoted in (quote(secret), quote(secret, safe=""), quote_plus(secret)):
        yield from (quoted, _ESCAPED.sub(lambda found: found[0].lower(), quoted))
    yield from (secret, secret[::-1], html.escape(secret), repr(secret)[1:-1])
    for escaped in (json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]):
        yield from (escaped, escaped.replace("/", "\\/"))  # as PHP writes it
    data = secret.encode()
    if len(data) < 4:
        return
    yield from (data.hex(), data.hex().upper())
    yield base64.b64encode(data).decode()
    for shift in range(3):  # where the secret begins within a group of three bytes changes its base64 form
        whole = (shift + len(data)) // 3 * 4
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(b"\0" * shift + data).decode()[0 if shift == 0 else 4 : whole]


class _Redactor(logging.Filter):
    """Cleans what httpx logs by itself: secrets of every client of this process, and the query of every address."""

    def __init__(self) -> None:
        super().__init__()
        self.secrets: tuple[str, ...] = ()

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg = _PARAMETERS.sub("?…", redact(record.getMessage(), self.secrets))
        record.args = ()
        return True


_redactor = _Redactor()
_guarding = threading.Lock()


def guard_http_logs(secrets: Iterable[str]) -> None:
    """Keep the secrets out of the HTTP library's own log from now on."""
    with _guarding:
        _redactor.secrets = tuple(dict.fromkeys((*secrets, *_redactor.secrets)))[:_REMEMBERED]
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_redactor)  # adding it twice does nothing
