"""When to ask again: a decision that returns seconds or raises; nothing here sleeps."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterable, Mapping
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, NamedTuple, NoReturn, TypedDict

from airflow_cloudbilling.errors import InDoubtError, RefusedError, UnavailableError, WaitError
from airflow_cloudbilling.redaction import excerpt, redact
from airflow_cloudbilling.source import Ok, Refused, Renew, Reply, Request, Source, Verdict

if TYPE_CHECKING:
    from airflow_cloudbilling.settings import Settings

FIRST_BACKOFF = 1.0  # seconds; doubles with each attempt
LONGEST_BACKOFF = 60.0
_YEAR = 365 * 86_400.0
_SECONDS = re.compile(r"\d+(\.\d+)?")


def retry_after(headers: Mapping[str, str], now: Callable[[], float] = time.time) -> float | None:
    """Return the seconds that a reply asks to wait, or None when it does not say so in a readable way.

    A date counts from the reply's own ``Date``, so that a wrong clock on either side does no harm (RFC 9110, 10.2.3).

    :param headers: names in lower case.
    :param now: the clock for a date in a reply without ``Date``.
    """
    text = headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(text):
        return min(float(text), _YEAR)
    until = timestamp(text)
    if until is None:
        return None
    sent = timestamp(headers.get("date", ""))
    return min(max(until - (now() if sent is None else sent), 0.0), _YEAR)


def backoff(attempt: int, draw: Callable[[], float]) -> float:
    """Return the seconds to wait after the given attempt (from 1): full jitter, so that tasks do not march in step.

    :param draw: gives a number in [0, 1).
    """
    return draw() * min(LONGEST_BACKOFF, FIRST_BACKOFF * 2.0 ** min(attempt - 1, 16))


class _Where(TypedDict):
    conn_id: str
    url: str
    status: int | None


class Pause(NamedTuple):
    """Ask again after so many seconds, for the reason that stands in the log."""

    reason: str
    seconds: float


class Judge:
    """Turns replies and failures into a pause or a final error; the table of statuses is the source's.

    Errors are raised ``from None``: what the HTTP library says in its own may quote a vendor that echoes a secret.

    :param secrets: texts that must not show up in a reason or an error; tokens may join them later.
    :param defer_after: a longer pause raises ``WaitError`` instead; None: never.
    :param draw: gives a number in [0, 1) for the back-off.
    """

    def __init__(
        self,
        source: Source,
        settings: Settings,
        secrets: Iterable[str] = (),
        defer_after: float | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._source = source
        self._settings = settings
        self._secrets = secrets
        self.defer_after = defer_after
        self._draw = draw

    def reply(
        self, reply: Reply, attempt: int, *, renewable: bool = False, verdict: Verdict | None = None
    ) -> Pause | Renew | None:
        """Return None when the reply is good, else the pause before the next attempt, or that the credential is over.

        :param attempt: how many attempts were made, from 1.
        :param renewable: whether a new credential can be had that was not tried yet.
        :param verdict: the source's, where it is known already.
        :raises VendorError: when no further attempt is made, with an excerpt of what the vendor said.
        """
        verdict = verdict or self._source.verdict(reply, self._settings)
        if isinstance(verdict, Ok):
            return None
        said = excerpt(reply.head(), self._secrets, dropped=self._source.dropped_fields)
        if isinstance(verdict, Refused):
            told = "" if not said or said in str(verdict.error) else f" The vendor said: {said}"
            verdict.error.args = (redact(f"{verdict.error}{told}", self._secrets),)
            raise verdict.error
        reason = f"{verdict.reason} (HTTP {reply.status} from {reply.request.method} {reply.url}: {said or 'no body'})"
        if isinstance(verdict, Renew):
            if renewable:
                return Renew(redact(reason, self._secrets))
            told = "a new credential cannot be had, or was refused too. Compare what this user or key may see there."
            self._refuse(f"{reason}; {told}", reply.url, reply.status)
        if not reply.request.safe and (reply.status == 408 or reply.status >= 500):  # it may have been carried out
            self._doubt(reply.request, reply.url, reason)
        told_wait = retry_after(reply.headers) if verdict.after is None else verdict.after
        return self._pause(redact(reason, self._secrets), told_wait, attempt, reply.url, reply.status)

    def failure(self, request: Request, url: str, text: str, attempt: int, *, sent: bool) -> Pause:
        """Return the pause after a request that got no complete answer.

        :param text: what happened.
        :param sent: whether it may have reached the vendor; one that may have, and that creates something, is never
            sent again by itself.
        :raises VendorError: when no further attempt is made.
        """
        reason = f"{request.method} {url} failed ({redact(text, self._secrets)})"
        if sent and not request.safe:
            self._doubt(request, url, reason)
        return self._pause(reason, None, attempt, url, None)

    def quiet(self, request: Request, url: str, seconds: float) -> Pause:
        """Return the pause before a request that the vendor does not want yet.

        :raises UnavailableError: when that is longer than ``max_wait``.
        :raises WaitError: when it is longer than ``defer_after``.
        """
        return self._pause(f"the vendor allows no further request yet ({url})", seconds, 0, url, None)

    def too_long(self, request: Request, url: str) -> NoReturn:
        """Raise for a request that was not complete in time; another try would last as long.

        :raises VendorError: always.
        """
        reason = f"{request.method} {url} was not complete after total_timeout ({self._settings.total_timeout:g} s)"
        if not request.safe:
            self._doubt(request, url, reason)
        message = f"{reason}; raise total_timeout in extra if the vendor is that slow."
        raise UnavailableError(message, conn_id=self._settings.conn_id, url=url) from None

    def _pause(self, reason: str, told: float | None, attempt: int, url: str, status: int | None) -> Pause:
        settings = self._settings
        seconds = backoff(attempt, self._draw) if told is None else max(told, 0.0)
        where: _Where = {"conn_id": settings.conn_id, "url": url, "status": status}
        if told is not None and told > settings.max_wait:
            message = f"{reason}; it asks to wait {told:.0f} s, more than max_wait ({settings.max_wait:.0f} s)."
            raise UnavailableError(message, retry_after=told, **where) from None
        if attempt >= settings.max_attempts:
            message = f"{reason}; given up after {attempt} attempt{'s' if attempt > 1 else ''}. Try again later."
            raise UnavailableError(message, retry_after=told, **where) from None
        if self.defer_after is not None and seconds > self.defer_after:
            raise WaitError(
                f"{reason}; the next attempt is due in {seconds:.0f} s.", retry_after=seconds, **where
            ) from None
        return Pause(reason, seconds)

    def _doubt(self, request: Request, url: str, reason: str) -> NoReturn:
        message = (
            f"{reason}. {request.method} {url} may have been carried out or not; "
            "it is not sent again by itself: look at the vendor's side first."
        )
        raise InDoubtError(redact(message, self._secrets), conn_id=self._settings.conn_id, url=url) from None

    def _refuse(self, message: str, url: str, status: int) -> NoReturn:
        raise RefusedError(redact(message, self._secrets), conn_id=self._settings.conn_id, url=url, status=status)


def timestamp(text: str) -> float | None:
    """Return the seconds since 1970 of an HTTP date, or None when the text is none."""
    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
