"""Pages over a wait: what a load received before it gave the worker back is not asked for again afterwards."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from typing import IO, TYPE_CHECKING, cast

from airflow_cloudbilling import disk
from airflow_cloudbilling.http.spool import IN_MEMORY
from airflow_cloudbilling.operators.replay import request_key, told_headers
from airflow_cloudbilling.parse.json_cut import without_fields
from airflow_cloudbilling.source import Reply, Request
from airflow_cloudbilling.staging.spool import PIECE, SpooledPage

if TYPE_CHECKING:
    from airflow_cloudbilling.archive import Archive
    from airflow_cloudbilling.staging.loader import Load


class WaitingPages:
    """The pages of one load, of an entered :class:`~airflow_cloudbilling.staging.loader.Load`.

    Pages that were read lie in one file of the worker, each after a line that says what it answers, until :meth:`keep`
    writes them into the staging database; most loads never wait, and then nothing is written.

    :param dropped_fields: names of JSON members that nobody may store; they are left out where pages are written.
    :param archive: keeps answers from before the wait too, so that documents know where.
    """

    def __init__(self, load: Load, dropped_fields: Collection[str] = (), archive: Archive | None = None) -> None:
        self._load = load
        self._archive = archive
        self._dropped = dropped_fields
        self._before: dict[str, deque[SpooledPage]] = {}
        for page in load.ledger.spooled(load.load_id):
            self._before.setdefault(page.request_key, deque()).append(page)
        self._answered = frozenset(self._before)
        self._told: Reply | None = None
        self._file = cast("IO[bytes]", tempfile.SpooledTemporaryFile(max_size=IN_MEMORY))  # noqa: SIM115 - close() does

    def answer(self, request: Request) -> Reply | None:
        """Return the answer that came before the wait, once."""
        pages = self._before.get(request_key(request))
        if not pages:
            return None
        page = pages.popleft()
        body = cast("IO[bytes]", tempfile.SpooledTemporaryFile(max_size=IN_MEMORY))  # noqa: SIM115 - the driver does
        for piece in page.body:
            body.write(piece)
        body.seek(0)
        headers = json.loads(page.headers)
        self._told = reply = Reply(request, page.url, page.status, headers, body, page.size, page.sha256)
        if self._archive:
            self._load.archived(reply.sha256, self._archive.put(reply))
        return reply

    def fresh(self, requests: Iterable[Request]) -> Iterator[Request]:
        """Return the requests that were not answered before the wait, whether :meth:`answer` was asked for them or not.

        They are read one by one while the conversation goes on, so that what is left to answer would not say it.
        """
        return (request for request in requests if request_key(request) not in self._answered)

    def done(self, reply: Reply) -> None:
        """Take over a page that was read."""
        if reply is self._told:
            return
        page = (request_key(reply.request), reply.url, reply.status, told_headers(reply), reply.sha256, reply.size)
        self._file.write(json.dumps(page).encode() + b"\n")
        reply.body.seek(0)
        shutil.copyfileobj(reply.body, self._file, IN_MEMORY)

    def keep(self) -> None:
        """Write the pages into the staging database: the load is going to wait."""
        self._file.seek(0)
        self._load.ledger.spool(self._load.load_id, self._with_bodies())

    def close(self) -> None:
        """Give the disk space back."""
        disk.discard(self._file)

    def _with_bodies(self) -> Iterator[SpooledPage]:
        while page := self._file.readline():
            key, url, status, headers, sha256, size = json.loads(page)
            body = self._body(size)
            if self._dropped:
                cleaned = without_fields(b"".join(body), self._dropped)
                body, sha256, size = iter([cleaned]), hashlib.sha256(cleaned).hexdigest(), len(cleaned)
            yield SpooledPage(key, url, status, headers, sha256, size, body)

    def _body(self, size: int) -> Iterator[bytes]:
        while size > 0:
            piece = self._file.read(min(size, PIECE))
            size -= len(piece)
            yield piece
