"""Where plans come from without anybody asking."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy import shared
from proxy.document import DocumentError
from proxy.net import feed, planfile
from proxy.net.feed import Feed, Initial
from proxy.net.keeper import Keeper, StageError
from proxy.net.planfile import PlanFile
from proxy.net.statedir import StateDir
from proxy.plan import Plan
from tests.support.plans import plan
from tests.support.supervised import until, write_plan


class Source:
    """A feed, its folder, and a keeper whose workers can fail."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = StateDir(folder / "state")
        self.words = shared.Words(memoryview(bytearray(shared.size(1))))
        self.failures: list[Exception] = []
        self.keeper = Keeper(self.words, self.state, self.stage, lambda: 0.0, lambda: 0.0)
        self.feed = Feed(self.keeper, self.state, PlanFile(folder / "plan.yaml"))

    async def stage(self, sequence: int, document: str) -> None:
        if self.failures:
            raise self.failures.pop()

    async def start(self) -> Plan | None:
        await self.feed.read()
        await self.feed.start()
        return self.keeper.in_force.plan if self.keeper.in_force else None


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Source]:
    monkeypatch.setattr(feed, "POLL_S", 0.01)
    monkeypatch.setattr(feed, "RETRY_S", 0.01)
    monkeypatch.setattr(planfile, "JUST_WRITTEN_S", 0.02)
    found = Source(tmp_path)
    yield found
    found.state.close()


def version(generation: int, **fields: Any) -> Plan:
    return plan(generation=generation, **fields)


async def test_without_anything_the_proxy_waits(source: Source) -> None:
    """F39: starts, not ready."""
    assert await source.start() is None


async def test_the_newer_of_two_is_put_in_force_and_the_older_file_is_told(
    source: Source, caplog: pytest.LogCaptureFixture
) -> None:
    """surface.md, Plan: at a start the newer wins; an older one is refused."""
    source.state.write_plan(version(7))
    write_plan(source.folder, version(6))
    assert await source.start() == version(7)
    assert "older than the plan in force" in caplog.text
    assert source.keeper.rejected["older"] == 1


async def test_another_content_under_the_version_in_force_is_told(source: Source) -> None:
    """Equal with other bytes is refused, at a start too."""
    source.state.write_plan(version(7))
    write_plan(source.folder, version(7, explain="Always"))
    assert await source.start() == version(7)
    assert source.keeper.rejected["conflict"] == 1


async def test_the_last_good_plan_of_another_rollout_does_not_replace_the_file(source: Source) -> None:
    """They have no order; the one written later goes first, and is not followed by the other."""
    source.state.write_plan(version(7))
    os.utime(source.folder / "state" / "plan.json", (1, 1))
    write_plan(source.folder, version(1, rollout={"name": "other", "uid": "other"}))
    assert await source.start() == version(1, rollout={"name": "other", "uid": "other"})


async def test_a_bad_file_without_a_last_good_plan_keeps_the_proxy_from_its_start(source: Source) -> None:
    """F17: exit with the field path."""
    write_plan(source.folder, "generation: 1\n")
    with pytest.raises(DocumentError, match="rollout: required field is missing"):
        await source.feed.read()


async def test_a_bad_file_beside_a_last_good_plan_is_refused_and_counted(source: Source) -> None:
    """The service goes on with what was good."""
    source.state.write_plan(version(7))
    write_plan(source.folder, "generation: 8\n")
    assert await source.start() == version(7)
    assert source.keeper.rejected["invalid"] == 1


async def test_a_plan_that_workers_refuse_gives_way_to_the_other_one(source: Source) -> None:
    """Both are tried."""
    source.state.write_plan(version(6))
    write_plan(source.folder, version(7))
    source.failures.append(StageError("no worker lived"))
    assert await source.start() == version(6)


async def test_the_initial_plan_is_for_a_start_with_no_other(source: Source) -> None:
    """kubernetes.md, one plan: live, last good, or the chart's initial one, in this order."""
    first, other = version(1, rollout={"name": "checkout", "uid": "initial"}), version(7)
    path = source.folder / "initial.yaml"
    path.write_text(first.model_dump_json(by_alias=True))
    source.feed = Feed(source.keeper, source.state, PlanFile(source.folder / "plan.yaml"), Initial(path))
    assert await source.start() == first
    following = asyncio.create_task(source.feed.follow())
    path.write_text(version(2, rollout={"name": "checkout", "uid": "initial"}).model_dump_json(by_alias=True))
    await asyncio.sleep(0.1)
    following.cancel()
    assert source.keeper.in_force is not None
    assert source.keeper.in_force.plan == first
    os.utime(source.folder / "state" / "plan.json", (1, 1))
    source.state.write_plan(other)
    again = Keeper(source.words, source.state, source.stage, lambda: 0.0, lambda: 0.0)
    source.keeper, source.feed = again, Feed(again, source.state, None, Initial(path))
    assert await source.start() == other


@pytest.mark.parametrize("is_live", [True, False], ids=["live", "late"])
async def test_a_live_plan_is_hoped_for_until_one_comes_or_the_time_is_over(source: Source, is_live: bool) -> None:
    """A replica that joins others must not send their users back; alone it serves after a while."""
    now, path = [100.0], source.folder / "initial.yaml"
    path.write_text(version(1, rollout={"name": "checkout", "uid": "initial"}).model_dump_json(by_alias=True))
    source.feed = Feed(source.keeper, source.state, None, Initial(path, 10.0, lambda: now[0]))
    await source.start()
    now[0] = 109.9
    assert source.feed.is_hoping
    if is_live:
        await source.keeper.adopt(version(7), "a test")
    else:
        now[0] = 110.0
    assert not source.feed.is_hoping


async def test_a_bad_initial_plan_keeps_the_proxy_from_its_start_only_without_another(source: Source) -> None:
    """Like a bad plan file."""
    path = source.folder / "initial.yaml"
    path.write_text("generation: 1\n")
    source.feed = Feed(source.keeper, source.state, None, Initial(path))
    with pytest.raises(DocumentError, match="rollout: required field is missing"):
        await source.feed.read()
    source.state.write_plan(version(7))
    assert await source.start() == version(7)


async def test_the_file_is_followed_and_tried_again_when_workers_died(source: Source) -> None:
    """Bad content is refused once; what was not the plan's fault is tried again."""
    write_plan(source.folder, version(1))
    await source.start()
    following = asyncio.create_task(source.feed.follow())

    async def in_force(generation: int) -> None:
        async def look() -> bool:
            return source.keeper.in_force is not None and source.keeper.in_force.plan.generation == generation

        await until(look)

    source.failures = [StageError("no worker lived")] * 2
    write_plan(source.folder, version(2))
    await in_force(2)
    assert source.keeper.rejected["worker"] == 2
    write_plan(source.folder, "rollout: [")

    async def refused() -> bool:
        return source.keeper.rejected["invalid"] == 1

    await until(refused)
    await asyncio.sleep(0.1)
    assert source.keeper.rejected["invalid"] == 1
    write_plan(source.folder, version(3))
    await in_force(3)
    following.cancel()
    with pytest.raises(asyncio.CancelledError):
        await following


async def test_a_file_that_never_rests_does_not_hold_up_the_start(source: Source) -> None:
    """F18: it is read as it is, after a while."""
    write_plan(source.folder, version(1))

    async def write() -> None:
        number = 1
        while True:
            number += 1
            write_plan(source.folder, version(number))
            await asyncio.sleep(0.003)

    writing = asyncio.create_task(write())
    async with asyncio.timeout(30):
        assert await source.start() is not None
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing


async def test_the_first_plan_is_offered_until_workers_have_come_up(source: Source) -> None:
    """On a busy machine workers may take longer than a plan waits for them; nobody else would offer it again."""
    write_plan(source.folder, version(3))
    source.failures = [StageError("no worker lived to acknowledge the plan")] * 3
    in_force = await source.start()
    assert in_force is not None
    assert in_force.generation == 3
