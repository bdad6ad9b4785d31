"""A controller in a cluster killed at every write that it makes, and the next one goes on with the same rollout."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from controller.net import engine
from controller.net.kube import actions
from tests.controller.net.kube.stage import ROLLOUT, Kill, Stage
from tests.support import virtual

STEPS = [{"setWeight": 10}, {"pause": {"duration": "3s"}}, {"setWeight": 50}, {"pause": {}}]
TRIALS = [("v1", "v2"), ("v2", "v3"), ("v2", "v4"), ("v2", "v5")]
APART = 9  # of the writes in a rollout, so many are between two kills of one run


@pytest.fixture(autouse=True)
def few_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer turns with nothing in them; objects of actions are collected while somebody looks."""
    monkeypatch.setattr(engine, "TICK_S", 1.0)
    monkeypatch.setattr(actions, "KEEP_ACTIONS", 1)


async def rollouts(kills: Iterable[Kill] = (), replicas: int = 2, every_s: float = 0.0) -> Stage:
    """All that `story` tells, with controllers that die."""
    stage = Stage(replicas, kills)
    await stage.prepare(STEPS)
    async with stage.controllers(every_s):
        await story(stage)
        await asyncio.sleep(30)  # whoever is to die at the last writes does, and is back
    return stage


async def story(stage: Stage) -> None:
    """From the first deploy through two promotions, with a new revision in mid-rollout and an abort in between."""
    await stage.until(lambda s: s.get("phase") == "Healthy")
    await trial(stage, "v2")
    await promote(stage, "v2")
    await trial(stage, "v3")
    await trial(stage, "v4")
    await stage.act("Abort", "v4", reason="slow")
    await stage.until(lambda s: s.get("phase") == "Aborted")
    await trial(stage, "v5")
    await promote(stage, "v5")


async def trial(stage: Stage, version: str) -> None:
    """Put a version on trial, up to its last pause."""
    await stage.behind("web-canary", f"{version}-a")
    await stage.until(lambda s: s.get("phase") == "Paused" and s["revision"]["canary"] == version)


async def promote(stage: Stage, version: str) -> None:
    """By an action; the team brings the version to stable's Service when everybody is on it."""
    await stage.act("Promote", version)
    await stage.until(lambda s: s.get("phase") == "Promoting" and is_everywhere(s))
    await stage.behind("web-stable", f"{version}-b", f"{version}-c")
    await stage.until(lambda s: s.get("phase") == "Healthy" and is_everywhere(s))


def is_everywhere(status: Any) -> bool:
    return bool(status["plan"]["current"] == status["plan"]["replicas"])


def expected() -> list[tuple[str, str, int]]:
    """What users of every proxy see, in order: of four trials one is superseded, one aborted, two promoted."""
    seen = [("v1", "", 0)]
    for stable, canary in TRIALS:
        seen += [(stable, canary, weight) for weight in (1000, 5000)]
        seen.append((stable, canary, 10_000 if canary in ("v2", "v5") else 0))
        if canary in ("v2", "v5"):
            seen.append((canary, "", 0))
    return seen


def check(stage: Stage) -> None:
    """What holds of any run, however often somebody has died in it."""
    for name, seen in stage.seen.items():
        assert seen == expected(), name
    statuses = [written["status"] for written in stage.api.written]
    check_writers(statuses)
    check_plans(stage, statuses)
    check_actions(stage, statuses)


def check_writers(statuses: list[Any]) -> None:
    """Terms never fall, and each is of one identity."""
    leaders = [status["leader"] for status in statuses]
    assert [leader["term"] for leader in leaders] == sorted(leader["term"] for leader in leaders)
    assert len({leader["term"] for leader in leaders}) == len({(a["term"], a["identity"]) for a in leaders})


def check_plans(stage: Stage, statuses: list[Any]) -> None:
    """A generation is one plan, published before any proxy has it; a revision has one salt, so nobody moves."""
    published = {(s["plan"]["generation"], s["plan"]["digest"]) for s in statuses if "plan" in s}
    assert len(published) == len(dict(published)), "one number, two plans"
    plans = [plan for proxy in stage.proxies.values() for plan in proxy.history]
    assert {(plan.generation, plan.core_digest) for plan in plans} <= published
    assert len({(plan.arms[-1].revision, plan.salt) for plan in plans}) == len(
        {plan.arms[-1].revision for plan in plans}
    )
    assert {plan.rollout.uid for plan in plans} == {stage.api.objects[ROLLOUT]["metadata"]["uid"]}


def check_actions(stage: Stage, statuses: list[Any]) -> None:
    """Each was done once: it comes into the status once, and is told of no more than once."""
    verbs = [(action["verb"], action["result"]) for action in statuses[-1]["actions"]]
    assert verbs == [("Promote", "Done"), ("Abort", "Done"), ("Promote", "Done")]
    for before, after in itertools.pairwise(status.get("actions", []) for status in statuses):
        assert after[: len(before)] == before
    told = [event["reason"] for path, event in stage.api.objects.items() if "/events/" in path]
    assert told.count("Promote") <= 2
    assert told.count("Aborted") <= 1
    assert len([path for path in stage.api.objects if "/rolloutactions/" in path]) == 1


def test_undisturbed() -> None:
    """The one that all others are held against: nothing is refused, nobody takes over."""
    stage = virtual.run(rollouts())
    check(stage)
    assert {status for _, status, _ in stage.api.refused} <= {404}  # removed already, and not heard of yet
    assert stage.status["leader"]["term"] == 1


def groups(kills: list[Kill]) -> Iterator[list[Kill]]:
    for first in range(APART):
        yield kills[first::APART]


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after", "frozen"])
def test_killed_or_frozen_at_every_write_the_rollout_is_the_same(when: str) -> None:
    """F15, F16: every status, Lease, plan, latch, Event and removal; what is held up goes out when another one decides.

    What a run with many deaths never comes to write has a run of its own.
    """
    undisturbed = virtual.run(rollouts())
    kills = [(write, when) for write in dict.fromkeys(undisturbed.writes)]
    left = []
    for group in groups(kills):
        stage = virtual.run(rollouts(group))
        check(stage)
        left += list(stage.kills)
    for kill in left:
        stage = virtual.run(rollouts([kill]))
        check(stage)
        assert not stage.kills, kill


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_any_time_the_rollout_is_the_same(seed: int) -> None:
    """Between writes too, one after the other, with three replicas: the holder as often as not."""
    check(virtual.run(rollouts(replicas=3, every_s=random.Random(seed).uniform(6.0, 9.0))))
