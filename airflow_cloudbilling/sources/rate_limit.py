"""What the ``X-RateLimit-…`` headers of a reply say about the next request; no I/O, nothing here sleeps."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping

from airflow_cloudbilling.retry import retry_after, timestamp

DAY = 86_400.0
_NUMBER = re.compile(r"-?[0-9]{1,20}(\.[0-9]+)?")
_SMALLEST_EPOCH = 100_000_000.0  # 1973; a smaller number is a span of seconds
_SMALLEST_MILLISECONDS = 100_000_000_000.0  # the year 5138 in seconds, 1973 in milliseconds


def reset_after(headers: Mapping[str, str], longest: float = DAY, now: Callable[[], float] = time.time) -> float | None:
    """Return the seconds until ``X-RateLimit-Reset``, or None when that says nothing readable.

    A moment counts from the reply's own ``Date``, so that a wrong clock on either side does no harm.

    :param headers: names in lower case; the value is an epoch (seconds or milliseconds), a span of seconds or a date.
    :param longest: seconds at most; vendors send absurd values, and asking early is harmless.
    :param now: the clock for a moment in a reply without ``Date``.
    """
    text = headers.get("x-ratelimit-reset", "").strip()
    moment = float(text) if _NUMBER.fullmatch(text) else timestamp(text)
    if moment is None:
        return None
    if moment < _SMALLEST_EPOCH:
        return min(max(moment, 0.0), longest)
    seconds = moment / 1000 if moment >= _SMALLEST_MILLISECONDS else moment
    sent = timestamp(headers.get("date", ""))
    return min(max(seconds - (now() if sent is None else sent), 0.0), longest)


def budget(headers: Mapping[str, str], longest: float = DAY, now: Callable[[], float] = time.time) -> float | None:
    """Return the seconds in which no request may be sent because ``X-RateLimit-Remaining`` is 0; None: go on.

    ``Retry-After`` wins over ``X-RateLimit-Reset``; parameters as of :func:`reset_after`.
    """
    left = headers.get("x-ratelimit-remaining", "").strip()
    if not _NUMBER.fullmatch(left) or float(left) > 0:
        return None
    told = retry_after(headers, now)
    return reset_after(headers, longest, now) if told is None else min(told, longest)
