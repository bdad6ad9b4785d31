"""A verdict that outlives those who work it out: holders die in the middle of an analysis, and the next one goes on."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from controller.net import engine
from tests.controller.net.kube.stage import Stage
from tests.support import virtual

PROXIES, EACH_S = 2, 10  # requests a second that each proxy sends to the canary


@pytest.fixture(autouse=True)
def few_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "TICK_S", 0.5)


def template(**metric: Any) -> dict[str, Any]:
    value = {
        "name": "rate",
        "interval": "5s",
        "count": 8,
        "successCondition": "result[0] >= 0.9",
        "provider": {"cohort": {"metric": "successRate", "window": "30s", "minimumRequests": 50, "minimumUsers": 0}},
    }
    return {"name": "rate", "spec": {"metrics": [{**value, **metric}]}}


class Judged(Stage):
    """One version on trial, judged in its second step.

    Attributes:
        failing: How many of `EACH_S` requests fail.
    """

    def __init__(self) -> None:
        super().__init__(PROXIES)
        self.failing = 0

    @asynccontextmanager
    async def judged(self, **metric: Any) -> AsyncIterator[None]:
        analysis = {"analysis": {"templates": [{"templateName": "rate"}]}}
        await self.prepare([{"setWeight": 50}, analysis, {"pause": {}}], template(**metric))
        async with self.controllers():
            await self.until(lambda s: s.get("phase") == "Healthy")
            traffic = asyncio.create_task(self.serve())
            await self.behind("web-canary", "v2-a")
            await self.until(lambda s: (s.get("step") or {}).get("index") == 1)
            try:
                yield
            finally:
                traffic.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await traffic

    async def serve(self) -> None:
        while True:
            await asyncio.sleep(0.1)
            for proxy in self.proxies.values():
                proxy.serve("canary", EACH_S // 10, self.failing)

    def measured(self, status: Any) -> Any:
        """The metric's run as a status keeps it."""
        trial = json.loads(status.get("state") or "{}").get("trial") or {}
        return ((trial.get("run") or {}).get("metrics") or [{}])[0]

    def runs(self) -> list[Any]:
        """The same after every write of the status, while there was one."""
        found = [self.measured(written["status"]) for written in self.api.written]
        return [run for run in found if run]

    def kill_holder(self) -> None:
        self.processes[self.status["leader"]["identity"].partition("_")[0]].kill()


async def bad(stage: Judged) -> None:
    """More than three failures are too many, and no holder lives to see the second one."""
    async with stage.judged(failureLimit=3):
        stage.failing = 1
        for failures in (1, 2, 3):
            await stage.until(lambda s, n=failures: stage.measured(s).get("failed", 0) >= n)  # type: ignore[misc]
            stage.kill_holder()
        await stage.until(lambda s: s.get("phase") == "Aborted", limit_s=60)


def test_a_bad_version_is_rolled_back_however_often_the_holder_dies() -> None:
    """No takeover gives it a fresh set of failures."""

    async def go() -> Judged:
        stage = Judged()
        await bad(stage)
        return stage

    stage = virtual.run(go())
    assert stage.status["leader"]["term"] == 4
    assert stage.status["abort"]["reason"] == "AnalysisFailed"
    assert "failed (4) > failureLimit (3)" in stage.status["conditions"][-1]["message"]
    assert all(proxy.latch for proxy in stage.proxies.values())


def test_no_success_of_a_good_version_counts_twice() -> None:
    """Killed right after each of its measurements: there are as many as without, and none sooner than it is due."""

    async def go() -> Judged:
        stage = Judged()
        async with stage.judged():
            for count in range(1, 8):
                await stage.until(lambda s, n=count: stage.measured(s).get("count", 0) >= n)  # type: ignore[misc]
                stage.kill_holder()
            await stage.until(lambda s: s.get("phase") == "Paused")
        return stage

    stage = virtual.run(go())
    counts = [run.get("count", 0) for run in stage.runs()]
    assert all(after - before in (0, 1) for before, after in itertools.pairwise(counts))
    due = {run["count"]: run["due_s"] for run in stage.runs() if run.get("count")}
    assert max(due) == 7  # with the eighth the step is over
    assert all(due[n + 1] - due[n] >= 5 for n in range(1, 7))
    assert stage.status["leader"]["term"] == 8


@pytest.mark.parametrize("metric", ["requests", "errorRate"])
def test_the_window_is_the_same_whoever_looks(metric: str) -> None:
    """Every request of the last half minute counts once, also those that came while nobody looked."""

    async def go() -> Judged:
        stage = Judged()
        provider = {"cohort": {"metric": metric, "window": "30s", "minimumRequests": 450, "minimumUsers": 0}}
        async with stage.judged(successCondition="result[0] >= 0", provider=provider):
            stage.failing = 1
            await asyncio.sleep(5)
            stage.failing = 0
            for _ in range(3):
                stage.kill_holder()
                await asyncio.sleep(9)
            await stage.until(lambda s: stage.measured(s).get("count"))
        return stage

    run = virtual.run(go()).runs()[-1]
    served = PROXIES * EACH_S * 30
    if metric == "requests":
        assert 0.75 * served <= run["value"] <= 1.1 * served
    else:
        assert 0.05 <= run["value"] <= 0.25  # five seconds of it, at most, are in the window
