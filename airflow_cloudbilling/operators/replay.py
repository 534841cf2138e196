"""The two ends of a replay: noting good answers while a vendor is asked, and giving them to a conversation again."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import IO, TYPE_CHECKING, cast

from airflow_cloudbilling import disk
from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.http.spool import IN_MEMORY
from airflow_cloudbilling.source import Reply, Request
from airflow_cloudbilling.urls import target

if TYPE_CHECKING:
    from airflow_cloudbilling.archive import Archive
    from airflow_cloudbilling.settings import Settings
    from airflow_cloudbilling.staging.ledger import Exchange
    from airflow_cloudbilling.staging.loader import Load

HEADERS = ("content-type", "content-disposition", "x-total-count", "x-result-count")  # what sources read


def keeper(load: Load, archive: Archive | None, dropped_fields: Collection[str]) -> Callable[[Reply], None]:
    """Return a function that archives a good reply, before anybody reads it, and notes it in the request log."""

    def keep(reply: Reply) -> None:
        if archive:
            load.archived(reply.sha256, archive.put(reply, dropped_fields))
        load.answered(reply.request.method, told_headers(reply), request_key(reply.request))

    return keep


def told_headers(reply: Reply) -> str:
    """Return those of a reply's headers that sources read, as JSON."""
    return json.dumps({name: reply.headers[name] for name in HEADERS if name in reply.headers})


def request_key(request: Request) -> str:
    """Return SHA-256 of what a source asks, as hex: the same question has the same key wherever the vendor's host is.

    Credentials are no part of it, nor are headers: the format that was asked for shows in the answer.
    """
    asked = [request.method, request.path, dict(request.params), request.json, dict(request.form or {})]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


class Replay:
    """Answers a conversation's requests with what the vendor answered to the same ones in a load.

    :param answers: of the load, in the order in which they came.
    """

    def __init__(self, archive: Archive, settings: Settings, load_id: str, answers: Iterable[Exchange]) -> None:
        self._archive = archive
        self._settings = settings
        self._load_id = load_id
        self._left: dict[str | None, deque[Exchange]] = {}
        for answer in answers:
            self._left.setdefault(answer.request_key, deque()).append(answer)

    def answer(self, request: Request) -> Reply:
        """Return the recorded reply; its body is checked before anybody reads it.

        :raises ConfigurationError: when the load recorded no answer to this request, or no more.
        :raises ArchiveError: when the archive does not have the body, or has it damaged.
        """
        left = self._left.get(request_key(request))
        if not self._left:
            raise ConfigurationError(
                f"load {self._load_id} recorded no answer that is still kept: retention (ApplyRetentionOperator with"
                " archive=) has erased them, or there never was a good one. Import the period anew."
            )
        if not left:
            raise ConfigurationError(
                f"load {self._load_id} recorded no answer to {request.method} {target(request, self._settings).shown},"
                " so it cannot be read again in this way. Give the task the params and window_shift_days, and the"
                " connection the settings, with which that load ran; or import the period anew."
            )
        exchange = left.popleft()
        sha256 = exchange.sha256 or ""
        body, size = self._body(sha256)
        headers = json.loads(exchange.headers or "{}")
        return Reply(request, exchange.url, exchange.status or 200, headers, body, size, sha256)

    def _body(self, sha256: str) -> tuple[IO[bytes], int]:
        """Return a copy of a body, which is then known to be whole, at its beginning, and its size."""
        body = cast("IO[bytes]", tempfile.SpooledTemporaryFile(max_size=IN_MEMORY))  # noqa: SIM115 - the driver closes it
        try:
            with self._archive.open(sha256) as kept:
                shutil.copyfileobj(kept, body, IN_MEMORY)
        except BaseException:
            disk.discard(body)
            raise
        size = body.tell()
        body.seek(0)
        return body, size
