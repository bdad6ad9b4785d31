from __future__ import annotations

import asyncio
import itertools

from controller.net.kube.pace import LOOK_S, Pace


async def turns(ranks: list[int]) -> list[tuple[float, int]]:
    """Who got a turn when, of those that ask for one at the same time."""
    now, given = 0.0, []

    async def sleep(seconds: float) -> None:
        nonlocal now
        until = now + seconds
        await asyncio.sleep(0)
        now = max(now, until)

    pace = Pace(lambda: now, sleep)

    async def ask(rank: int) -> None:
        await pace.turn(rank)
        given.append((now, rank))

    await asyncio.gather(*(ask(rank) for rank in ranks))
    return given


async def test_turns_are_a_second_apart_and_go_by_rank() -> None:
    given = await turns([2, 0, 1, 0])
    assert [rank for _, rank in given] == [2, 0, 0, 1]  # nobody waited when the first one came
    times = [at for at, _ in given]
    assert all(later - sooner >= 1.0 for sooner, later in itertools.pairwise(times))
    assert times[-1] <= 3.0 + 4 * LOOK_S


async def test_one_that_gives_up_is_not_waited_for() -> None:
    pace = Pace(asyncio.get_running_loop().time, every_s=0.01)
    await pace.turn(1)
    task = asyncio.create_task(pace.turn(0))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    async with asyncio.timeout(5):
        await pace.turn(1)
