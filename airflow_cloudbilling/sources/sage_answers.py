"""What Sage's answers mean: verdicts, tracking ids, states, passcodes and keys."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, NoReturn
from urllib.parse import unquote, urlsplit

from airflow_cloudbilling.errors import MalformedReplyError, RefusedError
from airflow_cloudbilling.parse import Malformed, clean, fold
from airflow_cloudbilling.parse.records import read_value
from airflow_cloudbilling.redaction import excerpt
from airflow_cloudbilling.settings import Settings
from airflow_cloudbilling.source import Again, Ok, Refused, Renew, Reply, Verdict
from airflow_cloudbilling.sources.sage_paths import template_of
from airflow_cloudbilling.urls import same_origin, without_query

SECRET_NAMES = ("apikey", "api_key", "initialApikey", "initial_api_key", "secret", "passcode")
_SECRET = re.compile("apikey|accesskey|privatekey|secret|passcode|passw|passphrase|token|authorization|credential")
_PASSING = (408, 429, 500, 502, 503, 504)
_LARGEST = 1024 * 1024  # bytes of an answer that is one object
_WORDS = {
    401: "look at the connection's password, the initial API key, and at key_header and key_prefix",
    403: "look at what the API key was consented for, and at key_header and key_prefix",
    404: "compare host and paths in the connection with Sage's document, and the scope or the tracking id",
    405: "compare paths in the connection with Sage's document",
    413: "the file is too big for Sage",
}


class Uploaded(NamedTuple):
    """What Sage answered to an upload.

    :param tracking_id: its own id of the upload.
    :param upload_url: where the file goes, of a presigned upload; it holds a signature, so it is not shown.
    """

    tracking_id: str
    upload_url: str = ""

    def __repr__(self) -> str:
        return f"Uploaded(tracking_id={self.tracking_id!r})"


@dataclass(frozen=True, slots=True)
class Tracking:
    """What Sage says of an upload.

    :param status: in Sage's own words; see :func:`folded_status`.
    :param progress: as Sage writes it (``40``, ``40%``, ``3/10``); for people.
    :param result_url: the address of the result file, perhaps with a signature: never logged and never kept.
    """

    status: str
    progress: str | None = None
    result_url: str | None = field(default=None, repr=False)

    @property
    def result_uri(self) -> str | None:
        """The address of the result file without its signature, for logs and tables."""
        return without_query(self.result_url) if self.result_url else None


class Passcode(NamedTuple):
    """A passcode, which a person enters in the Sage product.

    :param expires: when it ends, where that could be read.
    :param expires_as_sent: what Sage wrote.
    """

    passcode: str
    expires: datetime | None
    expires_as_sent: str | None

    def __repr__(self) -> str:
        return f"Passcode(expires={self.expires}, expires_as_sent={self.expires_as_sent!r})"


def judge(reply: Reply, settings: Settings, good: Iterable[int] = ()) -> Verdict:
    """Judge a reply by its status.

    :param good: statuses that are good answers to this request, besides the 200s.
    """
    status, request = reply.status, reply.request
    if (200 <= status < 300 and status != 206) or status in good:  # a part is not an answer
        return Ok()
    if status in _PASSING:
        return Again(f"Sage answered HTTP {status}")
    anonymous = request.anonymous or request.configured or not same_origin(reply.url, settings)
    if status == 401 and not anonymous:
        without = "" if settings.options.get("secret") else ", and without the field secret it cannot be rotated"
        return Renew(f"Sage no longer accepts the API key{without}")
    if request.configured and status in (400, 401, 403):
        words = "compare password (the initial API key, which is kept for ever) and secret with what came at onboarding"
    else:
        words = _WORDS.get(status, "look at what it says")
    message = f"{request.method} {reply.url} was refused with HTTP {status}: {words}."
    return Refused(RefusedError(message, conn_id=settings.conn_id, url=reply.url, status=status))


def folded_status(status: str) -> str:
    """Return a status as statuses are compared: without case, ``_``, ``-`` and space."""
    return re.sub(r"[\s_-]+", "", status).casefold()


def object_of(reply: Reply, settings: Settings, what: str) -> dict[str, Any]:
    """Return the members of an answer that is a JSON object, under their folded names.

    :param what: was asked for, in words.
    :raises MalformedReplyError: when it is none.
    :raises RefusedError: when it says, with a good status, that it did not do it.
    """
    members = {fold(name): each for name, each in plain_object(reply, settings, what).items()}
    if members.get("success") is False or members.get("error") is True:
        message = f"{reply.request.method} {reply.url} was answered with HTTP {reply.status} and a failure: "
        said = excerpt(reply.head(), (), dropped=SECRET_NAMES)
        raise RefusedError(message + said, conn_id=settings.conn_id, url=reply.url, status=reply.status)
    return members


def plain_object(reply: Reply, settings: Settings, what: str) -> dict[str, Any]:
    """Return an answer that is a JSON object as it is.

    :param what: was asked for, in words.
    :raises MalformedReplyError: when it is none.
    """
    is_object = reply.head(64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{" and reply.size <= _LARGEST
    try:
        value = read_value(reply.body) if is_object else None
    except Malformed:
        value = None
    return dict(value) if value is not None else malformed(reply, settings, f"{what} was expected as a JSON object")


def uploaded_of(reply: Reply, settings: Settings) -> Uploaded:
    """Return what an upload's first answer says; a body may be missing where ``Location`` says it all.

    :raises MalformedReplyError: when no tracking id can be found.
    """
    location = reply.headers.get("location", "")
    members = {} if location and not reply.head(1) else object_of(reply, settings, "a tracking id")
    found = (_text(members.get(name)) for name in ("trackingid", "id", "fileid"))
    in_urls = (_last_part(url, settings) for url in (_text(members.get("trackingurl")), location))
    tracking_id = next((each for each in (*found, *in_urls) if each and each.isprintable()), "")
    if not tracking_id:
        malformed(reply, settings, "the answer holds no tracking id (trackingId, id, fileId, trackingUrl, Location)")
    urls = (_text(members.get(name)) for name in ("uploadurl", "signedurl", "url"))
    return Uploaded(tracking_id, next((url for url in urls if url), ""))


def tracking_of(reply: Reply, settings: Settings) -> Tracking:
    """Return what Sage says of an upload ("Tracking Progress").

    :raises MalformedReplyError: when it says no status.
    """
    members = object_of(reply, settings, "an upload's status")
    status = _text(members.get("status"))
    if not status:
        malformed(reply, settings, "the answer holds no status")
    progress, url = members.get("progress"), _text(members.get("downloadresulturl"))
    return Tracking(clean(status), None if progress is None else clean(str(progress)), url or None)


def without_secrets(value: Any) -> Any:
    """Return an answer without the members whose names tell of a secret; Sage's own names are not documented."""
    if isinstance(value, Mapping):
        return {
            n: without_secrets(each) for n, each in value.items() if not _SECRET.search(re.sub(r"\W|_", "", n).lower())
        }
    return [without_secrets(each) for each in value] if isinstance(value, list) else value


def passcode_of(reply: Reply, settings: Settings) -> Passcode:
    """Return the passcode ("Generating a Passcode")."""
    members = object_of(reply, settings, "a passcode")
    passcode, expires = _text(members.get("passcode")), members.get("expires")
    if not passcode:
        malformed(reply, settings, "the answer holds no passcode")
    return Passcode(passcode, moment(expires), None if expires is None else clean(str(expires)))


def key_of(reply: Reply, settings: Settings) -> str:
    """Return the new API key ("API Key Rotation"), under whichever spelling.

    :raises MalformedReplyError: when there is none that could be sent in a header.
    """
    key = _text(object_of(reply, settings, "an API key").get("apikey"))
    if not key or not key.isascii() or not key.isprintable():
        malformed(reply, settings, "the answer holds no API key (apikey, apiKey, api_key)")
    return key


def moment(value: Any) -> datetime | None:
    """Return when something ends: an ISO moment or span, an epoch in seconds or milliseconds, or seconds from now."""
    import pendulum  # discovery of the provider imports this module and shall not pay for it

    text = str(value if value is not None else "").strip()
    now = pendulum.now("UTC")
    try:
        if re.fullmatch(r"\d{1,15}(\.\d+)?", text):
            seconds = float(text) / (1000 if float(text) >= 1e11 else 1)
            return now.add(seconds=seconds) if seconds < 1e8 else pendulum.from_timestamp(seconds)
        found = pendulum.parse(text, tz="UTC", strict=False) if text else None
    except (ValueError, OverflowError):
        return None
    if isinstance(found, pendulum.Duration):
        return now + found
    return found.in_timezone("UTC") if isinstance(found, pendulum.DateTime) else None


def malformed(reply: Reply, settings: Settings, words: str) -> NoReturn:
    """Raise for an answer that cannot be used, with the beginning of what came; of one that gives a secret its size."""
    body = reply.request.json
    gives_secret = isinstance(body, Mapping) and "secret" in body  # a key or a passcode, under whatever name it came
    said = f"{reply.size} bytes" if gives_secret else excerpt(reply.head(), (), dropped=SECRET_NAMES)
    message = f"{reply.request.method} {reply.url}: {words}; came {said or 'nothing'}"
    raise MalformedReplyError(message, conn_id=settings.conn_id, url=reply.url, status=reply.status)


def _text(value: Any) -> str:
    return str(value).strip() if isinstance(value, (str, int)) and not isinstance(value, bool) else ""


def _last_part(url: str, settings: Settings) -> str:
    """Return the tracking id that an address holds: where the tracking path has it, else its last part."""
    path = urlsplit(url).path.rstrip("/")
    before, _, after = template_of("tracking", settings).partition("{tracking_id}")
    if found := re.search(f"{re.escape(before)}([^/]+){re.escape(after)}$", path):
        return unquote(found[1])
    return unquote(path.rpartition("/")[2])
