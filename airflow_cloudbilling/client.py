"""The only module that speaks HTTP: drives conversations, asks again by the source's verdict, keeps the bounds.

The exchange of one request is written once, as a coroutine. :meth:`Client.stream` runs it on a private event-loop
thread, so that deadlines cut a dripping server in the synchronous world as well; :meth:`Client.astream` awaits it.
"""

from __future__ import annotations

import asyncio
import http.cookiejar
import itertools
import logging
import random
import ssl
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, suppress
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urljoin

import httpx

from airflow_cloudbilling import __version__
from airflow_cloudbilling.background import BackgroundLoop
from airflow_cloudbilling.drivers import OnReply, adrive, drive
from airflow_cloudbilling.errors import ConfigurationError, RefusedError, UnavailableError
from airflow_cloudbilling.redaction import clean, echoes, guard_http_logs, redact
from airflow_cloudbilling.retry import Judge, Pause
from airflow_cloudbilling.settings import Settings
from airflow_cloudbilling.source import Conversation, Item, Reply, Request, Source
from airflow_cloudbilling.spool import BodyError, CutError, receive
from airflow_cloudbilling.urls import Target, direct_hosts, target

MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
OnExchange = Callable[[str, "int | None", "str | None"], None]

log = logging.getLogger(__name__)


@dataclass
class Counters:
    """What a client has done so far; ``bytes`` after content decoding, ``waited`` in seconds between attempts."""

    requests: int = 0
    retries: int = 0
    bytes: int = 0
    waited: float = 0.0


class Client:
    """One connection pool to one vendor; used as a context manager, in the synchronous or the asynchronous world.

    :param on_exchange: called with (address without secrets, status or None, SHA-256 of the body or None) for every
        attempt, in the thread that uses the client.
    :param defer_after: a wait of more seconds raises ``WaitError`` instead of being slept; None: never.
    :param draw: the random numbers in [0, 1) of the back-off.
    """

    def __init__(
        self,
        source: Source,
        settings: Settings,
        *,
        on_exchange: OnExchange | None = None,
        defer_after: float | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.source = source
        self.settings = settings
        self.counters = Counters()
        self._on_exchange = on_exchange
        self._secrets = tuple(dict.fromkeys((*settings.secrets, *source.secrets(settings))))
        self._echoes = echoes(self._secrets)
        self._judge = Judge(source, settings, self._secrets, defer_after, draw)
        self._exchanges: deque[tuple[str, int | None, str | None]] = deque()
        self._http: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._background: BackgroundLoop | None = None
        self._running: set[asyncio.Task[Reply]] = set()
        self._aborted = False

    # The synchronous world

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def request(self, request: Request) -> Reply:
        """Return the vendor's good answer to one request; the caller closes its body.

        :raises VendorError: when there is none.
        """
        try:
            return self._run(self._exchange(request))
        finally:
            self._report()

    def stream(self, conversation: Conversation, on_reply: OnReply | None = None) -> Iterator[Item]:
        """Drive a conversation in the calling thread and yield what it finds; ``on_reply`` sees the good replies."""
        return drive(conversation, self.request, self._check_aborted, on_reply)

    def close(self) -> None:
        """Close the connections and end the private thread."""
        if self._background is not None:
            self._background.run(self.aclose())
            self._background.close()
            self._background = self._loop = None

    def _run(self, work: Coroutine[Any, Any, Reply]) -> Reply:
        if self._background is None:
            self._background = BackgroundLoop("cloudbilling-http")
        return self._background.run(work)

    # The asynchronous world

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    async def arequest(self, request: Request) -> Reply:
        """Return the vendor's good answer to one request; the caller closes its body.

        :raises VendorError: when there is none.
        """
        try:
            return await self._exchange(request)
        finally:
            self._report()

    def astream(self, conversation: Conversation, on_reply: OnReply | None = None) -> AsyncGenerator[Item, None]:
        """Drive a conversation on the running event loop and yield what it finds, as :meth:`stream` does."""
        return adrive(conversation, self.arequest, self._check_aborted, on_reply)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.aclose()
            self._http = None

    # Both worlds

    def abort(self) -> None:
        """End what is under way with an error, for good; safe from any thread and from a signal handler."""
        self._aborted = True
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # the loop is closed: nothing is under way
                loop.call_soon_threadsafe(self._cancel_running)

    def _cancel_running(self) -> None:
        for task in self._running:
            task.cancel()

    def _check_aborted(self) -> None:
        if self._aborted:
            raise UnavailableError("aborted, because the task is being stopped.", conn_id=self.settings.conn_id)

    def _report(self) -> None:
        while self._exchanges:
            exchange = self._exchanges.popleft()
            if self._on_exchange is not None:
                self._on_exchange(*exchange)

    async def _exchange(self, request: Request) -> Reply:
        """Run the attempts as a task of their own, which :meth:`abort` can cancel without touching the caller's."""
        self._loop = asyncio.get_running_loop()
        self._check_aborted()
        task = asyncio.ensure_future(self._attempts(request))
        self._running.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            self._check_aborted()
            raise
        finally:
            self._running.discard(task)

    async def _attempts(self, request: Request) -> Reply:
        shown = redact(target(request, self.settings).shown, self._secrets)
        for attempt in itertools.count(1):
            try:
                reply = await asyncio.wait_for(self._follow(request), self.settings.total_timeout)
            except asyncio.TimeoutError:
                self._judge.too_long(request, shown)
            except (httpx.TransportError, CutError) as error:
                sent = not isinstance(error, _UNSENT)
                pause = self._judge.failure(request, shown, self._words(error, shown), attempt, sent=sent)
            else:
                judged = self._judged(reply, attempt)
                if judged is None:
                    return reply
                pause = judged
            await self._sleep(pause, attempt)
        raise AssertionError("unreachable")

    def _judged(self, reply: Reply, attempt: int) -> Pause | None:
        with ExitStack() as unused:
            unused.callback(reply.body.close)
            pause = self._judge.reply(reply, attempt)
            if pause is None:
                unused.pop_all()
        return pause

    async def _sleep(self, pause: Pause, attempt: int) -> None:
        conn_id, last = self.settings.conn_id, self.settings.max_attempts
        words = "Connection %r: %s; waiting %.1f s, then attempt %d of %d"
        log.info(words, conn_id, pause.reason, pause.seconds, attempt + 1, last)
        await asyncio.sleep(pause.seconds)
        self.counters.waited += pause.seconds
        self.counters.retries += 1

    def _words(self, error: Exception, shown: str) -> str:
        text = clean(redact(str(error), self._secrets))
        if "CERTIFICATE_VERIFY_FAILED" in text:
            message = f"the certificate of {shown} is not trusted ({text}); give the path of a CA bundle that signs it."
            raise ConfigurationError(message, conn_id=self.settings.conn_id, field="verify") from None
        if isinstance(error, httpx.TimeoutException):
            return f"{type(error).__name__}: nothing came for {self.settings.timeout:g} s"
        return f"{type(error).__name__}: {text}" if text else type(error).__name__

    async def _follow(self, request: Request) -> Reply:
        """Send the request and follow redirects as far as :func:`target` allows."""
        hop = request
        for _ in range(MAX_REDIRECTS + 1):
            where = target(hop, self.settings)
            reply = await self._send(request, hop, where)
            location = reply.headers.get("location")
            if reply.status not in _REDIRECTS or not location:
                return reply
            reply.body.close()
            if request.method != "GET":
                raise self._refused(f"{request.method} {reply.url} was redirected; only GET is followed.", reply.url)
            hop = replace(request, path=urljoin(where.url, location), params={})
        raise self._refused(f"GET {reply.url} was redirected more than {MAX_REDIRECTS} times.", reply.url)

    async def _send(self, request: Request, hop: Request, where: Target) -> Reply:
        shown = redact(where.shown, self._secrets)
        status = digest = None
        self.counters.requests += 1
        try:
            async with self._stream(hop, where) as response:
                status, headers = response.status_code, {k.lower(): v for k, v in response.headers.items()}
                encoding = headers.get("content-encoding", "")
                spooled = await receive(response.aiter_raw(), encoding, self.settings.max_body, self._echoes)
            body, size, digest, echoed = spooled
            if echoed:
                log.warning(
                    "The answer of %s repeats secrets of the connection %s times; *** replaces them.", shown, echoed
                )
            self.counters.bytes += size
            return Reply(request, shown, status, headers, body, size, digest)
        except httpx.InvalidURL as error:
            raise self._refused(f"{shown} is no valid address ({clean(str(error))}).", shown) from None
        except BodyError as error:
            message = f"the answer of {shown} {error}."
            raise error.becomes(message, conn_id=self.settings.conn_id, url=shown, status=status) from None
        finally:
            self._exchanges.append((shown, status, digest))

    def _stream(self, hop: Request, where: Target) -> AbstractAsyncContextManager[httpx.Response]:
        sent = self.source.authorise(hop, self.settings) if where.own else hop
        if self._http is None:
            guard_http_logs(self._secrets)
            self._http = _pool(self.settings)
        url = httpx.URL(where.url).copy_merge_params(dict(sent.params))
        return self._http.stream(sent.method, url, headers=dict(sent.headers), json=sent.json, data=sent.form)

    def _refused(self, message: str, url: str) -> RefusedError:
        return RefusedError(message, conn_id=self.settings.conn_id, url=url)


def _pool(settings: Settings) -> httpx.AsyncClient:
    size = settings.max_connections
    agent = settings.user_agent or f"airflow-provider-cloudbilling/{__version__}"
    try:
        return httpx.AsyncClient(
            verify=_trust(settings),
            proxy=settings.proxy,
            mounts={f"all://{host}": None for host in direct_hosts(settings)},
            limits=httpx.Limits(max_connections=size, max_keepalive_connections=size),
            timeout=settings.timeout,
            headers={"User-Agent": agent, "Accept-Encoding": "gzip"},
            cookies=http.cookiejar.CookieJar(http.cookiejar.DefaultCookiePolicy(allowed_domains=[])),
        )
    except (ValueError, ImportError) as error:
        message = f"the proxy cannot be used ({clean(redact(str(error), settings.secrets))}); look at HTTPS_PROXY too."
        raise ConfigurationError(message, conn_id=settings.conn_id, field="proxy") from None


def _trust(settings: Settings) -> ssl.SSLContext | bool:
    path = settings.verify
    try:
        return ssl.create_default_context(cafile=path) if path else True
    except OSError as error:  # ssl.SSLError is one
        message = f"{path!r} cannot be read as a CA bundle in PEM format ({error})."
        raise ConfigurationError(message, conn_id=settings.conn_id, field="verify") from None
