"""What CloudOnex's answers mean: the verdict by status and envelope, and the errors that say so in words."""

from __future__ import annotations

from typing import NoReturn

from airflow_cloudbilling.errors import InDoubtError, MalformedReplyError, RefusedError
from airflow_cloudbilling.parse import Malformed, clean
from airflow_cloudbilling.redaction import excerpt, redact, without_members
from airflow_cloudbilling.retry import retry_after
from airflow_cloudbilling.settings import Settings
from airflow_cloudbilling.source import Again, Ok, Refused, Reply, Request, Verdict
from airflow_cloudbilling.sources import rate_limit
from airflow_cloudbilling.sources.cloudonex_pages import DROPPED, checked

HOUR = 3600.0  # "1000 requests per hour per API key": no limit lasts longer
_UNKNOWN = "unknown resource"  # "Unknown resources requested!", which comes with HTTP 200 (vendor facts 3b)
_NO_KEY = (
    "CloudOnex refused the API key with HTTP {status}: compare it with Settings → API Access in the product, and see"
    " that it may use {path}. Where a server drops the Authorization header, set auth_mode to 'query'."
)
_NOT_THERE = (
    "CloudOnex has no {path} ({said}): compare the host, and whether this version of the product has the resource. For"
    " single records versions differ in resource_style (plural: invoices/1, singular: invoice/1)."
)


def verdict(reply: Reply, settings: Settings) -> Verdict:
    """Judge by the table of statuses ("Common HTTP Status Codes"), and by the envelope where the status is good."""
    status, path = reply.status, shown_path(reply.request)
    if 200 <= status < 300 and status != 206:  # a part is not an answer
        return _of_good_status(reply, settings)
    if status == 429:
        wait = None if retry_after(reply.headers) is not None else rate_limit.reset_after(reply.headers, HOUR)
        return Again("CloudOnex's rate limit is reached", wait)
    if status == 408 or status >= 500:
        return Again(f"CloudOnex answered HTTP {status}")
    if status in (401, 403):
        return _refused(_NO_KEY.format(status=status, path=path), reply, settings)
    if status == 404:
        return _refused(_NOT_THERE.format(path=path, said="HTTP 404"), reply, settings)
    return _refused(f"CloudOnex refused {reply.request.method} {path} with HTTP {status}.", reply, settings)


def malformed(reply: Reply, error: Malformed, settings: Settings) -> NoReturn:
    """Raise for an answer that cannot be read.

    :raises MalformedReplyError: always, with the beginning of what came.
    """
    raise _unreadable(reply, error, settings) from None


def shown_path(request: Request) -> str:
    """Return the endpoint that a request is about, wherever it stands."""
    return clean(request.params.get("ng") or request.path.lstrip("/"))


def _of_good_status(reply: Reply, settings: Settings) -> Verdict:
    asked = f"{reply.request.method} {shown_path(reply.request)}"
    silent = not reply.request.safe and not reply.head(1)
    if silent and (reply.request.method != "POST" or reply.status != 200):
        return Ok()  # done, and nothing to say about it; but a PHP script that dies answers 200 with nothing, too
    try:
        failed = None if reply.status == 204 else checked(reply)
    except Malformed as error:
        if reply.request.safe:
            return Refused(_unreadable(reply, error, settings))
        message = (
            f"{asked} may have been carried out or not, its answer does not say: {_words(error)}. Look there first."
        )
        return Refused(InDoubtError(redact(message, [settings.password]), conn_id=settings.conn_id, url=reply.url))
    if failed is None:
        return Ok()
    if _UNKNOWN in failed.casefold():
        return _refused(_NOT_THERE.format(path=shown_path(reply.request), said=failed), reply, settings)
    return _refused(f"{asked} was answered with HTTP {reply.status}, and {failed}.", reply, settings)


def _refused(message: str, reply: Reply, settings: Settings) -> Refused:
    message = redact(message, [settings.password])
    return Refused(RefusedError(message, conn_id=settings.conn_id, url=reply.url, status=reply.status))


def _unreadable(reply: Reply, error: Malformed, settings: Settings) -> MalformedReplyError:
    asked = f"{reply.request.method} {shown_path(reply.request)}"
    said = excerpt(reply.head(), [settings.password], dropped=DROPPED)
    message = redact(f"{asked} was not answered as expected: {_words(error)}", [settings.password])
    message += f". The answer begins: {said}" if said else "."
    return MalformedReplyError(message, conn_id=settings.conn_id, url=reply.url, status=reply.status)


def _words(error: Malformed) -> str:
    """Return what is wrong without the quotation, which may begin in the middle of a member that is not shown."""
    return without_members(str(error).partition(", came ")[0], DROPPED)
