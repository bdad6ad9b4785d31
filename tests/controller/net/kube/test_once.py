"""Problems that are told once, and work that they do not end."""

from __future__ import annotations

import asyncio
import logging

import pytest

from controller.net.kube.once import Once, lasting


def test_a_problem_is_told_once_in_a_row_and_again_after_it_was_gone(caplog: pytest.LogCaptureFixture) -> None:
    """A log of an outage is read by people."""
    problems = Once()
    for problem in ("a", "a", "b", "", "b", "b"):
        problems.say(problem)
    assert [record.getMessage() for record in caplog.records] == ["a", "b", "b"]


async def test_work_begins_again_after_a_fault_and_after_its_end_until_it_is_cancelled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A fault of ours in a watch must not end the controller beside it."""
    caplog.set_level(logging.ERROR)
    times, third = 0, asyncio.Event()

    async def work() -> None:
        nonlocal times
        times += 1
        if times == 1:
            raise KeyError("metadata")
        if times == 3:
            third.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(lasting("a watch", work, 0.0))
    await asyncio.wait_for(third.wait(), 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [record.getMessage() for record in caplog.records] == ["a watch failed, and begins again"]
