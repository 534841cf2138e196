"""The two drivers of a conversation, synchronous and not: the only twins of the package."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator

from airflow_cloudbilling.source import Conversation, Item, Reply, Request

OnReply = Callable[[Reply], None]


def drive(
    conversation: Conversation,
    ask: Callable[[Request], Reply],
    check: Callable[[], None],
    on_reply: OnReply | None = None,
) -> Iterator[Item]:
    """Yield what a conversation finds; a reply's body is closed when the next one replaces it, and at the end.

    :param ask: sends a request and returns the good reply.
    :param check: raises when the caller wants to stop.
    :param on_reply: sees every reply before the conversation does, and leaves its body at the beginning.
    """
    reply = answer = None
    try:
        while (step := _advance(conversation, answer)) is not None:
            answer = None
            if isinstance(step, Request):
                _close(reply)
                reply = answer = ask(step)
                if on_reply is not None:
                    on_reply(reply)
            else:
                check()
                yield step
    finally:
        conversation.close()
        _close(reply)


async def adrive(
    conversation: Conversation,
    ask: Callable[[Request], Awaitable[Reply]],
    check: Callable[[], None],
    on_reply: OnReply | None = None,
) -> AsyncGenerator[Item, None]:
    """Yield what a conversation finds, as :func:`drive` does, on the running event loop; ``on_reply`` may block."""
    reply = answer = None
    try:
        while (step := _advance(conversation, answer)) is not None:
            answer = None
            if isinstance(step, Request):
                _close(reply)
                reply = answer = await ask(step)
                if on_reply is not None:
                    await asyncio.to_thread(on_reply, reply)
            else:
                check()
                yield step
    finally:
        conversation.close()
        _close(reply)


def _advance(conversation: Conversation, reply: Reply | None) -> Request | Item | None:
    """Return the next step, None at the end; StopIteration is caught around ``send`` alone, lest it hide a bug."""
    try:
        return conversation.send(reply)
    except StopIteration:
        return None


def _close(reply: Reply | None) -> None:
    if reply is not None:
        reply.body.close()
