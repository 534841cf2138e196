"""Drives conversations: asks ahead, asks again by the source's verdict, fetches tokens, keeps to the vendor's budget.

The exchange of one request is written once, as a coroutine. :meth:`Client.stream` runs it on a private event-loop
thread, so that deadlines cut a dripping server in the synchronous world as well; :meth:`Client.astream` awaits it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from concurrent.futures import Executor
from contextlib import ExitStack, aclosing, nullcontext, suppress
from dataclasses import replace
from typing import Any, TypeVar

from airflow_cloudbilling.errors import UnavailableError
from airflow_cloudbilling.found import Item
from airflow_cloudbilling.http.background import BackgroundLoop
from airflow_cloudbilling.http.credentials import Credentials
from airflow_cloudbilling.http.deadlines import within
from airflow_cloudbilling.http.drivers import OnReply, Pages, adrive, drive
from airflow_cloudbilling.http.in_flight import Asked, Exchange, InFlight
from airflow_cloudbilling.http.pauses import Pauses
from airflow_cloudbilling.http.shared_token import Store, Token
from airflow_cloudbilling.http.transport import Counters, LostError, Transport
from airflow_cloudbilling.redaction import Secrets, forgetting, redact
from airflow_cloudbilling.retry import Judge, Pause
from airflow_cloudbilling.settings import Settings
from airflow_cloudbilling.source import Conversation, Renew, Reply, Request, Source
from airflow_cloudbilling.urls import target

_T = TypeVar("_T")
OnExchange = Callable[[str, "int | None", "str | None"], None]

log = logging.getLogger(__name__)


class Client:
    """One connection pool to one vendor; used as a context manager, in the synchronous or the asynchronous world.

    :param on_exchange: called with (address without secrets, status or None, SHA-256 of the body or None) for every
        attempt, in the thread that uses the client.
    :param defer_after: a wait of more seconds raises ``WaitError`` instead of being slept; None: never.
    :param store: where access tokens are kept for other tasks; None: this process has its own.
    :param learn: is told every access token before it is used, to mask it; may block.
    :param draw: the random numbers in [0, 1) of the back-off.
    :param on_close: is told, when the client is closed in the synchronous world, what it has done since it was opened.
    """

    def __init__(
        self,
        source: Source,
        settings: Settings,
        *,
        on_exchange: OnExchange | None = None,
        defer_after: float | None = None,
        store: Store | None = None,
        learn: Callable[[str], None] = lambda token: None,
        draw: Callable[[], float] = random.random,
        on_close: Callable[[Counters], None] = lambda done: None,
    ) -> None:
        self.source = source
        self.settings = settings
        self.counters = Counters()
        self._told = Counters()
        self._on_close = on_close
        self._on_exchange = on_exchange
        self._secrets = Secrets((*settings.secrets, *source.secrets(settings)))
        self._transport = Transport(source, settings, self._secrets, self.counters)
        self._judge = Judge(source, settings, self._secrets, defer_after, draw)
        self._pauses = Pauses(settings, self._judge, self._secrets, self.counters, self._check_aborted)
        self._mask = learn
        self._credentials = Credentials(
            source, settings, self._fetch_token, self._learn, self._pauses.rest, store, draw
        )
        self._exchanges: list[Exchange] = []
        self._in_flight = InFlight(self._attempts, 2 * settings.max_connections)
        self._slots = asyncio.Semaphore(settings.max_connections)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._background: BackgroundLoop | None = None
        self._idle: Callable[[], None] = lambda: None
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
            with forgetting():
                return self._run(self._exchange(request))
        finally:
            self._report()

    def renew(self) -> None:
        """Fetch a credential now, whatever the one in use is good for; errors as of :meth:`request`."""
        try:
            with forgetting():
                self._run(self._credentials.renew())
        finally:
            self._report()

    def stream(
        self,
        conversation: Conversation,
        on_reply: OnReply | None = None,
        pages: Pages | None = None,
        idle: Callable[[], None] = lambda: None,
    ) -> Iterator[Item]:
        """Drive a conversation in the calling thread and yield what it finds.

        :param on_reply: sees the good replies before the conversation does.
        :param pages: answers that were received before, and that are kept for a later part of the reading.
        :param idle: is called, in the calling thread, when an answer is not there at once.
        """
        self._idle = idle
        try:
            yield from drive(conversation, self.request, self._check_aborted, on_reply, self._in_flight.announce, pages)
        finally:
            self._idle = lambda: None
            if self._background is not None:
                self._background.run(self._forget())
                self._report()

    def close(self) -> None:
        """Close the connections and end the private thread."""
        if self._background is not None:
            self._background.run(self.aclose())
            self._background.close()
            self._background = self._loop = None
            self._on_close(self.counters.since(self._told))
            self._told = replace(self.counters)

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        if self._background is None:
            self._background = BackgroundLoop("cloudbilling-http")
        return self._background.run(work, self._idle)

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
            with forgetting():
                return await self._exchange(request)
        finally:
            self._report()

    async def astream(
        self, conversation: Conversation, on_reply: OnReply | None = None, reader: Executor | None = None
    ) -> AsyncGenerator[Item, None]:
        """Drive a conversation on the running event loop and yield what it finds, as :meth:`stream` does.

        :param reader: has one thread, in which answers are read; None: on the loop, which that may block.
        """
        try:
            async with aclosing(
                adrive(conversation, self.arequest, self._check_aborted, on_reply, self._in_flight.announce, reader)
            ) as items:
                async for item in items:
                    yield item
        finally:
            await self._forget()
            self._report()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._forget()
        await self._transport.aclose()
        self._slots = asyncio.Semaphore(self.settings.max_connections)  # the next use may be on another event loop

    # Both worlds

    def be_patient(self) -> None:
        """Sleep every wait from now on, whatever ``defer_after`` was."""
        self._judge.defer_after = None

    def abort(self, *, at_once: bool = True) -> None:
        """End what is under way with an error, for good; safe from any thread and from a signal handler.

        :param at_once: whether to end a request that is out too; else waits are ended, and no other is made.
        """
        self._aborted = True
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # the loop is closed: nothing is under way
                loop.call_soon_threadsafe(self._in_flight.cancel if at_once else self._pauses.end)

    def _check_aborted(self) -> None:
        if self._aborted:
            raise UnavailableError("aborted, because the task is being stopped.", conn_id=self.settings.conn_id)

    def _report(self) -> None:
        exchanges, self._exchanges = self._exchanges, []
        for exchange in exchanges:
            if self._on_exchange is not None:
                self._on_exchange(*exchange)

    async def _exchange(self, request: Request) -> Reply:
        """Return the reply to a request; the attempts are a task of their own, which :meth:`abort` can cancel."""
        self._loop = asyncio.get_running_loop()
        self._check_aborted()
        asked, answer = await self._in_flight.take(request)
        try:
            return await answer
        except asyncio.CancelledError:
            self._check_aborted()
            raise
        finally:
            self._exchanges += asked.exchanges

    async def _forget(self) -> None:
        self._exchanges += await self._in_flight.forget()

    async def _fetch_token(self, request: Request) -> Reply:
        asked = Asked(request)
        try:
            return await self._attempts(asked)
        finally:
            self._exchanges += asked.exchanges

    async def _attempts(self, asked: Asked) -> Reply:
        shown = redact(target(asked.request, self.settings).shown, self._secrets)
        for attempt in itertools.count(1):
            answer = await self._attempt(asked, shown, attempt)
            if isinstance(answer, Reply):
                return answer
            if isinstance(answer, Renew):
                log.info("Connection %r: %s; another one is needed", self.settings.conn_id, answer.reason)
            else:
                await self._pauses.between(answer, attempt)
        raise AssertionError("unreachable")

    async def _attempt(self, asked: Asked, shown: str, attempt: int) -> Reply | Pause | Renew:
        request, token = asked.request, None
        # A token is asked for in the turn of the request that needs it; that one sends nothing meanwhile.
        async with nullcontext() if request.configured else self._slots:
            if not request.configured:
                token = None if request.anonymous else await self._credentials.get(asked.since)
                await self._pauses.keep_quiet(request, shown)
            try:
                sending = self._transport.send(asked, token and token.value)
                reply = await within(self.settings.total_timeout, sending, _close)
            except asyncio.TimeoutError:
                self._judge.too_long(request, shown)
            except LostError as error:
                return self._judge.failure(request, shown, str(error), attempt, sent=error.sent)
            return await self._judged(asked, reply, token, attempt)

    def _learn(self, token: str) -> None:
        """Keep an access token out of logs, errors and bodies from now on."""
        self._mask(token)
        self._secrets.add(token)

    async def _judged(self, asked: Asked, reply: Reply, token: Token | None, attempt: int) -> Reply | Pause | Renew:
        with ExitStack() as unused:
            unused.callback(reply.body.close)
            self._pauses.be_quiet(self.source.budget(reply, self.settings), reply.request)
            verdict = self.source.verdict(reply, self.settings)
            refused = token if isinstance(verdict, Renew) else None
            renewable = refused is not None and await self._credentials.another(asked, refused)
            try:
                judged = self._judge.reply(reply, attempt, renewable=renewable, verdict=verdict)
            except UnavailableError as error:
                self._pauses.hold(reply, error.retry_after)
                raise
            if judged is None:
                unused.pop_all()
                return reply
        if isinstance(judged, Pause):
            self._pauses.hold(reply, judged.seconds)
        return judged


def _close(reply: Reply) -> None:
    reply.body.close()
