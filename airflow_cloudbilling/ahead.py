"""Requests under way: the ones that are waited for, and the ones that are sent early because they will follow."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from airflow_cloudbilling.source import Reply, Request

Exchange = tuple[str, "int | None", "str | None"]  # address without secrets, status, SHA-256 of the body


@dataclass(eq=False)
class Asked:
    """A request with its attempts; their exchanges are told when the answer is taken, so that the log is in order."""

    request: Request
    exchanges: list[Exchange] = field(default_factory=list)


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
        self._coming: Iterator[Request] = iter(())
        self._early: list[_UnderWay] = []
        self._running: set[asyncio.Task[Reply]] = set()

    def announce(self, requests: Iterable[Request]) -> None:
        """Take note of requests that will be made in this order; they are sent once the first of them is made."""
        self._coming = itertools.chain(self._coming, requests)

    async def take(self, request: Request) -> tuple[Asked, Awaitable[Reply]]:
        """Return the request, sent early or now, and its answer to wait for; send more of what will follow."""
        found = next((early for early in self._early if early.asked.request == request), None)
        if found:
            self._early.remove(found)
        else:
            self._leave_out(request)
            found = self._begin(request)
        while len(self._early) < self._most and (following := next(self._coming, None)) is not None:
            self._early.append(self._begin(following))
        return found.asked, found.task

    async def forget(self) -> list[Exchange]:
        """Drop what was sent early and is not wanted any more; return what became of it."""
        self._coming = iter(())
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

    def _leave_out(self, request: Request) -> None:
        """Drop the request from the head of what is to come: it is made now."""
        following = next(self._coming, None)
        if following is not None and following != request:
            self._coming = itertools.chain((following,), self._coming)

    def _begin(self, request: Request) -> _UnderWay:
        asked = Asked(request)
        task = asyncio.ensure_future(self._send(asked))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return _UnderWay(asked, task)
