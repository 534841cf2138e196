"""A time limit for a coroutine that loses neither a cancellation nor an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


async def within(seconds: float, work: Coroutine[Any, Any, _T], drop: Callable[[_T], None] = lambda answer: None) -> _T:
    """Return the result of the coroutine, which is cancelled when it takes longer.

    ``asyncio.wait_for`` does that too, but before Python 3.12 it goes on when it is cancelled in the moment in which
    the result is there: a task that was to end would not.

    :param drop: is given a result that nobody takes, to close what it holds.
    :raises TimeoutError: asyncio's, when it takes longer.
    """
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        await _end(task, drop)
        raise
    if done:
        return task.result()
    await _end(task, drop)
    raise asyncio.TimeoutError


async def _end(task: asyncio.Task[_T], drop: Callable[[_T], None]) -> None:
    task.cancel()
    while not task.done():
        await asyncio.wait({task})
    if not task.cancelled() and task.exception() is None:
        drop(task.result())
