"""Requests under way: the ones that are waited for, and the ones that are sent early because they will follow."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from airflow_cloudbilling.source import Reply, Request

Exchange = tuple[str, "int | None", "str | None"]  # address without secrets, status, SHA-256 of the body


@dataclass(eq=False)
class Asked:
    """A request with its attempts; their exchanges are told when the answer is taken, so that the log is in order.

    :param refused: how many credentials of this request the vendor has refused.
    :param renewed: whether one of them was fetched for it.
    :param since: when it was asked for, on the monotonic clock.
    """

    request: Request
    exchanges: list[Exchange] = field(default_factory=list)
    refused: int = 0
    renewed: bool = False
    since: float = field(default_factory=time.monotonic)


@dataclass(eq=False)
class _UnderWay:
    asked: Asked
    task: asyncio.Task[Reply]


class InFlight:
    """Keeps the vendor's connections busy with what a conversation has announced.

    :param send: makes all attempts of one request.
    :param most: how many are sent and not taken yet at most; their bodies wait on disk.
    """

    def __init__(self, send: Callable[[Asked], Coroutine[Any, Any, Reply]], most: int) -> None:
        self._send = send
        self._most = most
        self._coming: deque[Iterator[Request]] = deque()
        self._next: Request | None = None  # read of what is coming, and not begun yet
        self._early: list[_UnderWay] = []
        self._running: set[asyncio.Task[Reply]] = set()

    def announce(self, requests: Iterable[Request]) -> None:
        """Take note of requests that will be made in this order; they are sent once the first of them is made."""
        self._coming.append(iter(requests))

    async def take(self, request: Request) -> tuple[Asked, Awaitable[Reply]]:
        """Return the request, sent early or now, and its answer to wait for; send more of what will follow.

        What creates or changes something is never sent early: the conversation may end before its turn.
        """
        found = next((early for early in self._early if early.asked.request == request), None)
        if found is None:
            if self._following() == request:
                self._next = None
            found = self._begin(request)
        while len(self._early) <= self._most and (following := self._following()) is not None and following.safe:
            self._next = None
            self._begin(following)
        self._early.remove(found)
        return found.asked, found.task

    async def forget(self) -> list[Exchange]:
        """Drop what was sent early and is not wanted any more; return what became of it."""
        self._coming.clear()
        self._next = None
        early, self._early = self._early, []
        for one in early:
            one.task.cancel()
        for answer in await asyncio.gather(*(one.task for one in early), return_exceptions=True):
            if isinstance(answer, Reply):
                answer.body.close()
        return [exchange for one in early for exchange in one.asked.exchanges]

    def cancel(self) -> None:
        """End everything that is under way."""
        for task in self._running:
            task.cancel()

    def _following(self) -> Request | None:
        """Return the next of what is coming, without beginning it."""
        while self._next is None and self._coming:
            self._next = next(self._coming[0], None)
            if self._next is None:
                self._coming.popleft()
        return self._next

    def _begin(self, request: Request) -> _UnderWay:
        asked = Asked(request)
        task = asyncio.ensure_future(self._send(asked))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        self._early.append(_UnderWay(asked, task))
        return self._early[-1]
