"""A time limit loses neither a cancellation nor an answer, whatever comes in the same moment."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from airflow_cloudbilling.http.deadlines import within


async def slow(seconds: float, answer: str = "done") -> str:
    await asyncio.sleep(seconds)
    return answer


async def stubborn(answer: str) -> str:
    """Answer although it is cancelled, as a request does whose answer is there already."""
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        return answer
    return ""


def test_what_is_done_in_time_is_returned_and_its_error_raised() -> None:
    async def fails() -> None:
        raise KeyError("no")

    assert asyncio.run(within(5, slow(0.01))) == "done"
    with pytest.raises(KeyError):
        asyncio.run(within(5, fails()))


def test_what_takes_longer_is_cancelled_and_its_late_answer_dropped() -> None:
    dropped: list[str] = []
    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(within(0.05, slow(60), dropped.append))
    assert dropped == []
    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(within(0.05, stubborn("late"), dropped.append))
    assert dropped == ["late"]


def test_a_cancellation_that_meets_the_answer_ends_the_caller() -> None:
    dropped: list[str] = []

    async def run() -> list[Any]:
        answer = asyncio.get_running_loop().create_future()

        async def work() -> str:
            return str(await answer)

        caller = asyncio.ensure_future(within(60, work(), dropped.append))
        await asyncio.sleep(0.01)
        answer.set_result("here")
        await asyncio.sleep(0)  # the work is done now, and the caller not told yet
        caller.cancel()
        return await asyncio.gather(caller, return_exceptions=True)

    assert [type(one) for one in asyncio.run(run())] == [asyncio.CancelledError]
    assert dropped == ["here"]
