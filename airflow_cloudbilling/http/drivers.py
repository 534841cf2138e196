"""The two drivers of a conversation, synchronous and not: the only twins of the package."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Executor
from typing import Protocol

from airflow_cloudbilling.found import Item
from airflow_cloudbilling.source import Ahead, Conversation, Reply, Request

OnReply = Callable[[Reply], None]


class Pages(Protocol):
    """What an earlier part of the same reading was answered, and where this part's answers are kept."""

    def answer(self, request: Request) -> Reply | None:
        """Return the answer that was received before, once."""

    def fresh(self, requests: Iterable[Request]) -> Iterable[Request]:
        """Return the requests that were not answered before."""

    def done(self, reply: Reply) -> None:
        """Take over an answer that the conversation has read, with its body; another request follows."""


def drive(
    conversation: Conversation,
    ask: Callable[[Request], Reply],
    check: Callable[[], None],
    on_reply: OnReply | None = None,
    ahead: Callable[[Iterable[Request]], None] | None = None,
    pages: Pages | None = None,
) -> Iterator[Item]:
    """Yield what a conversation finds; a reply's body is closed when the next one replaces it, and at the end.

    :param ask: sends a request and returns the good reply.
    :param check: raises when the caller wants to stop.
    :param on_reply: sees every reply before the conversation does, and leaves its body at the beginning.
    :param ahead: is told which requests will follow.
    :param pages: answers what was answered before, without ``ask`` and ``on_reply``.
    """
    reply = answer = None
    try:
        while (step := _advance(conversation, answer)) is not None:
            answer = None
            if isinstance(step, Request):
                _release(reply, pages)
                reply = answer = pages.answer(step) if pages else None
                if answer is None:
                    reply = answer = ask(step)
                    if on_reply is not None:
                        on_reply(reply)
            elif isinstance(step, Ahead):
                if ahead is not None:
                    ahead(pages.fresh(step.requests) if pages else step.requests)
            else:
                check()
                yield step
    finally:
        conversation.close()
        _release(reply)


async def adrive(
    conversation: Conversation,
    ask: Callable[[Request], Awaitable[Reply]],
    check: Callable[[], None],
    on_reply: OnReply | None = None,
    ahead: Callable[[Iterable[Request]], None] | None = None,
    reader: Executor | None = None,
) -> AsyncGenerator[Item, None]:
    """Yield what a conversation finds, as :func:`drive` does, on the running event loop; ``on_reply`` may block.

    :param reader: has one thread, in which answers are read; None: on the loop, which that may block.
    """
    reply = answer = None
    try:
        while (step := await _aadvance(conversation, answer, reader)) is not None:
            answer = None
            if isinstance(step, Request):
                _release(reply)
                reply = answer = await ask(step)
                if on_reply is not None:
                    await asyncio.to_thread(on_reply, reply)
            elif isinstance(step, Ahead):
                if ahead is not None:
                    ahead(step.requests)
            else:
                check()
                yield step
    finally:
        if reader is None:
            conversation.close()
        else:
            reader.submit(conversation.close)  # what it still reads ends with the body
        _release(reply)


async def _aadvance(
    conversation: Conversation, reply: Reply | None, reader: Executor | None
) -> Request | Ahead | Item | None:
    """Return the next step, from one thread throughout: lxml crashes when a parser goes from thread to thread."""
    if reader is None:
        return _advance(conversation, reply)
    return await asyncio.get_running_loop().run_in_executor(reader, _advance, conversation, reply)


def _advance(conversation: Conversation, reply: Reply | None) -> Request | Ahead | Item | None:
    """Return the next step, None at the end; StopIteration is caught around ``send`` alone, lest it hide a bug."""
    try:
        return conversation.send(reply)
    except StopIteration:
        return None


def _release(reply: Reply | None, pages: Pages | None = None) -> None:
    if reply is None:
        return
    if pages is not None:
        pages.done(reply)
    reply.body.close()
