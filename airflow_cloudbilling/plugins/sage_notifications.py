"""The address that Sage calls with a new API key, or when there is new data: the only one that asks no login.

It is there when ``[cloudbilling] sage_notification_tokens`` names a token for a connection, and the token is all that a
caller must know. What comes is a reason to look, no more: a key is kept apart until a task has tried it, and new data
starts the DAGs that wait for the connection's scopes, which fetch what Sage has by calls of our own.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import re
import time
from collections import deque
from collections.abc import Callable, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import Any, TypeVar

from airflow.configuration import conf
from fastapi import Request
from fastapi.responses import JSONResponse, Response
from starlette.requests import ClientDisconnect

from airflow_cloudbilling.errors import CloudBillingError, ConfigurationError, MalformedReplyError
from airflow_cloudbilling.hooks.credential_store import open_store
from airflow_cloudbilling.hooks.sage_initial_key import announce
from airflow_cloudbilling.plugins.scope_events import tell
from airflow_cloudbilling.sources.sage_notifications import LONGEST, Hint, hint_of

NAME = "notifications"
OPTION = "sage_notification_tokens"
WINDOW = timedelta(seconds=60)  # in which a scope's DAGs are started once
_MOST, _SPAN = 30, 60.0  # notifications of a connection in so many seconds, in each process of the API server
_PATIENCE = 10.0  # seconds for a notification to come in whole
_AGAIN = 0.01  # seconds
_THREADS = 2  # which write to databases; the API server's own are not taken
_TOKEN = re.compile(r"[A-Za-z0-9_-]{32,256}")
_FOUND = "cloudbilling.notification_token"  # the key of a request's scope under which its token stands
_T = TypeVar("_T")

log = logging.getLogger(__name__)


class Unlogged:
    """Takes the token out of a request's address before anything can log it; server and Airflow log at the end.

    :param app: the application behind it.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Pass a request on."""
        head, found, token = str(scope.get("path", "")).partition(f"/{NAME}/")
        if found:
            path = f"{head}{found}hidden"
            scope.update({"path": path, "raw_path": path.encode(), "query_string": b"", _FOUND: token})
        await self.app(scope, receive, send)


class Notifications:
    """Takes Sage's calls.

    :param tokens: connection id → the last part of its address; connections may share one.
    :param window: in which a scope's DAGs are started once.
    """

    def __init__(self, tokens: Mapping[str, str], window: timedelta = WINDOW) -> None:
        self._tokens = tokens
        self._window = window
        self._calls: dict[str, deque[float]] = {conn_id: deque(maxlen=_MOST) for conn_id in tokens}
        self._untold: dict[tuple[str, str], datetime] = {}  # connection and scope → when Sage said so last
        self._telling: set[asyncio.Task[None]] = set()  # an event loop alone would not keep them
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="cloudbilling-notifications")

    async def take(self, request: Request) -> Response:
        """Answer 202 when what Sage says is kept, 404 to a wrong token, and else when or whether to come again."""
        conn_ids = self._addressed(request.scope.get(_FOUND, ""))
        if not conn_ids:
            return JSONResponse({"detail": "Not Found"}, 404)  # as of any address that is not there
        if wait := max(map(self._too_many, conn_ids)):
            return _later(429, wait)
        try:
            body = await asyncio.wait_for(_body(request), _PATIENCE)
            if body is None:
                return Response(status_code=413)
            hint = hint_of(body)
        except (asyncio.TimeoutError, ClientDisconnect):
            return Response(status_code=408)
        except MalformedReplyError as error:
            log.warning("Connection %s: %s", " and ".join(map(repr, conn_ids)), error)
            return Response(status_code=400)
        return await self._taken(conn_ids, hint)

    async def _taken(self, conn_ids: list[str], hint: Hint) -> Response:
        for conn_id in conn_ids:
            try:
                if hint.api_key:
                    await self._in_thread(_announce, conn_id, hint.api_key)
                await self._tell(conn_id, hint.scope)
            except Exception as error:  # what databases raise may quote what was to be written
                log.error("Connection %r: a notification of Sage cannot be kept (%s).", conn_id, _words(error))
                return _later(503, _SPAN)
            log.info("Connection %r: Sage notified us of %r.", conn_id, hint)
        return Response(status_code=202)

    def _addressed(self, token: str) -> list[str]:
        """Return the connections of a token; how long that takes says nothing about them."""
        given = token.encode()
        same = [(conn_id, hmac.compare_digest(given, own.encode())) for conn_id, own in self._tokens.items()]
        return [conn_id for conn_id, equal in same if equal]

    def _too_many(self, conn_id: str) -> float:
        """Return 0 and count a call, or the seconds until the next one is taken."""
        calls, now = self._calls[conn_id], time.monotonic()
        if len(calls) == _MOST and now - calls[0] < _SPAN:
            return _SPAN - (now - calls[0])
        calls.append(now)
        return 0.0

    async def _tell(self, conn_id: str, scope: str) -> None:
        """Start the DAGs that wait for a scope, at once or when the window is over."""
        key = (conn_id, scope)
        waiting = key in self._untold
        self._untold[key] = _now()
        if not waiting and (wait := await self._try(key)):
            task = asyncio.create_task(self._tell_later(key, wait))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    async def _try(self, key: tuple[str, str]) -> float:
        """Tell what is untold; return the seconds until the rest of it can be told, 0 when there is none."""
        since = self._untold[key]
        try:
            wait = await self._in_thread(tell, *key, since, self._window, _now())
        except BaseException:
            del self._untold[key]
            raise
        if self._untold[key] > since:  # another call came meanwhile
            return wait or _AGAIN
        if not wait:
            del self._untold[key]
        return wait

    async def _tell_later(self, key: tuple[str, str], wait: float) -> None:
        try:
            while wait:
                await asyncio.sleep(wait)
                wait = await self._try(key)
        except Exception as error:  # so too; the DAG's own schedule has to do
            log.error("Connection %r: new data at Sage cannot be told (%s).", key[0], _words(error))

    async def _in_thread(self, function: Callable[..., _T], *args: Any) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)


def configured() -> Notifications | None:
    """Return what takes Sage's calls where that is configured, else None; what is wrong goes to the log."""
    try:
        tokens = read_tokens(conf.get("cloudbilling", OPTION, fallback=""))
    except ConfigurationError as error:
        log.error("%s Sage's notifications are not taken.", error)
        return None
    return Notifications(tokens) if tokens else None


def read_tokens(text: str) -> dict[str, str]:
    """Return connection id → token.

    :param text: a JSON object; empty: none.
    :raises ConfigurationError: naming what is wrong with it, without a token.
    """
    where = f"[cloudbilling] {OPTION}"
    try:
        tokens = json.loads(text or "{}")
    except (ValueError, RecursionError):
        tokens = None
    if not isinstance(tokens, dict):
        raise ConfigurationError(f'{where} is no JSON object, such as {{"sage_connected_cloud_default": "…"}}.')
    for conn_id, token in tokens.items():
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            make = "make one with python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"
            raise ConfigurationError(
                f"{where}: the token of connection {conn_id!r} must be 32 to 256 letters, digits, '-' or '_'; {make}."
            )
    return tokens


async def _body(request: Request) -> bytes | None:
    """Return the body; None when it is too large, of which no more is read."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > LONGEST:
            return None
    return bytes(body)


def _announce(conn_id: str, api_key: str) -> None:
    store = open_store(writable=True, keys=True, in_server=True)
    assert store is not None
    announce(store, conn_id, api_key)


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, CloudBillingError) else type(error).__name__


def _later(status: int, seconds: float) -> Response:
    return Response(status_code=status, headers={"Retry-After": str(int(seconds) + 1)})


def _now() -> datetime:
    return datetime.now(timezone.utc)
