"""A rollout under way in a real installation, and each fault that may befall it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import AsyncIterator
from typing import Any

from tests.kube.faults import aborts, writers
from tests.kube.faults.aborts import Held
from tests.kube.faults.trace import ALL_BP
from tests.kube.faults.witness import Visitors, Witness
from tests.kube.installation import NAME, Installation

WEIGHTS = [10, 20, 30, 40, 50, 60, 70, 80]
WEIGHTS_BP = [weight * 100 for weight in WEIGHTS]
PAUSE_S = 2
USERS = 20
THINK_S = (0.2, 0.6)
PATIENCE_S = 180.0
UNDER_AN_ABORT = 60  # answers, which are three of each user


def strategy() -> dict[str, Any]:
    """Every weight, and a pause after it."""
    steps = [step for weight in WEIGHTS for step in ({"setWeight": weight}, {"pause": {"duration": f"{PAUSE_S}s"}})]
    return {"canary": {"steps": steps}}


class Stage:
    """One installation, its users and its witness, for one rollout or several.

    Attributes:
        rng: Of the moments of faults; its seed is printed.
        held: The aborts so far.
        killed: How often the holder was.
    """

    def __init__(self, installation: Installation, users: Visitors, witness: Witness, seed: int) -> None:
        self.shop, self.users, self.witness = installation, users, witness
        self.rng = random.Random(seed)
        self.held: list[Held] = []
        self.killed = 0
        self._begun = time.monotonic()

    def say(self, what: str) -> None:
        """Tell what happens, for whoever reads of a failure, or waits."""
        status = self.shop.status if self._has_server() else {}
        weight = (status.get("weight") or {}).get("programmed", "?")
        term = (status.get("leader") or {}).get("term", "?")
        seconds = time.monotonic() - self._begun
        print(
            f"{seconds:6.1f} s: {what} ({status.get('phase', '?')}, {weight} %, term {term}, {self.users.answers})",
            flush=True,
        )

    def _has_server(self) -> bool:
        return self.shop.cluster.keeper.status("kube-apiserver") is None

    # -- the oracles

    def check(self) -> None:
        """Everything that has to hold, whatever happened."""
        self.users.check()
        found = writers.writes(self.shop.cluster.audit(), self.shop.namespace)
        for write in writers.accepted(found):
            self.witness.trace.add(write.rollout)
        trace = self.witness.trace
        problems = [*writers.problems(found), *trace.problems(), *aborts.problems(self.users.sent, self.held)]
        assert not problems, "\n".join(problems)
        assert not trace.foreign(self.witness.served), trace.foreign(self.witness.served)
        assert len(trace.aborts) == len(self.held), (trace.aborts, self.held)

    # -- a rollout

    async def promote(self, version: str) -> None:
        """Wait until all steps are done, and do what a team does then."""
        await self.shop.phase("Promoting", PATIENCE_S)
        await self.shop.promote_stable(version)
        await self.shop.until(lambda s: s["phase"] == "Healthy" and s["revision"]["stable"] == version, PATIENCE_S)
        assert self.witness.trace.weights(version)[-len(WEIGHTS) - 1 :] == [*WEIGHTS_BP, ALL_BP]

    async def begin(self, version: str) -> None:
        """Deploy a version, and wait until it is on trial."""
        await self.shop.release(version)
        await self._on_trial(version)

    async def _on_trial(self, version: str) -> None:
        def look(status: dict[str, Any]) -> bool:
            programmed = float((status.get("weight") or {}).get("programmed") or 0)
            return status["revision"].get("canary") == version and 0 < programmed < 100

        await self.shop.until(look, PATIENCE_S)
        await self.witness.free()

    # -- the holder

    async def holder(self) -> tuple[str, int]:
        """The pod that decides, by its status, and its controller's process, once both live."""

        def look() -> tuple[str, int] | None:
            pod = self.shop.status["leader"]["identity"].rpartition("_")[0]
            found = self.shop.controller_worker(pod)
            return (pod, found) if found and pod == self.shop.holder() else None

        found: tuple[str, int] = await asyncio.to_thread(self.shop.cluster.until, look)
        return found

    async def steady(self, seconds: float) -> None:
        """Wait until nobody has taken over for so long."""
        while True:
            await self.holder()
            term = self.shop.status["leader"]["term"]
            await asyncio.sleep(seconds)
            if self.shop.status["leader"]["term"] == term:
                return

    async def kill(self, is_container: bool = False) -> str:
        """SIGKILL the holder, or the whole of its container; its pod."""
        pod, pid = await self.holder()
        os.kill(self.shop.controller_pid(pod) if is_container else pid, signal.SIGKILL)
        self.killed += 1
        self.say(f"kill {self.killed}, of {pod}")
        return pod

    async def kills(self, times: int) -> None:
        """So many, each a random while after there is a holder again; now and then its container, too.

        Of containers no more than one for each pod: one that is killed again waits longer and longer for its start.
        """
        ended: set[str] = set()
        for number in range(times):
            await asyncio.sleep(self.rng.uniform(0.0, 3.0))
            term, pod = self.shop.status["leader"]["term"], self.shop.holder()
            is_container = number % 5 == 2 and pod not in ended
            ended |= {await self.kill(is_container)} if is_container else set()
            if not is_container:
                await self.kill()
            await self._taken_over(term)

    async def _taken_over(self, term: int) -> None:
        """Wait for a term after this one."""
        await self.shop.until(lambda status: status["leader"]["term"] > term, PATIENCE_S)

    # -- an abort

    @contextlib.asynccontextmanager
    async def aborted(self, moment: str, at: str = "") -> AsyncIterator[None]:
        """Abort, in one action or at one pod's proxy, and see that it holds; after the block it is lifted.

        Args:
            moment: Of which fault.
            at: A pod; empty: by an action.
        """
        version = self.shop.versions["shop-canary"]
        if at:
            await self.witness.abort(at)
        else:
            await self.shop.action("Abort", revision=version, reason=moment)
        latched = await self.witness.latched()
        self.say(f"{moment}: every proxy has the latch")
        await self.users.more(UNDER_AN_ABORT)
        yield
        await self.shop.phase("Aborted", PATIENCE_S)
        await self.witness.latched()
        await self.users.more(UNDER_AN_ABORT)
        self.held.append(Held(moment, latched, time.monotonic()))
        self.say(f"{moment}: the abort has held, once more")
        await self.shop.action("Retry", revision=version)
        await self._on_trial(version)

    # -- faults

    async def cut(self, times: int) -> None:
        """Reset every connection to the API server so often, with new tokens in between."""
        for number in range(times):
            self.shop.pods.cut()
            if number % 25 == 10:
                self.shop.pods.renew_tokens()
            await asyncio.sleep(self.rng.uniform(0.05, 0.35))

    @contextlib.asynccontextmanager
    async def api_server_away(self, forgets: bool = True) -> AsyncIterator[None]:
        """While the block runs; when it is back it has forgotten everything before."""
        cluster = self.shop.cluster
        await asyncio.to_thread(cluster.stop_api)
        try:
            yield
        finally:
            if forgets:
                await asyncio.to_thread(cluster.compact)
            await asyncio.to_thread(cluster.start_api)

    @contextlib.asynccontextmanager
    async def frozen(self) -> AsyncIterator[None]:
        """With the former holder stopped while the block runs, and another one in its place."""
        _, pid = await self.holder()
        term = self.shop.status["leader"]["term"]
        os.kill(pid, signal.SIGSTOP)
        try:
            await self._taken_over(term)
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    async def frozen_while_it_writes(self) -> int:
        """Stop the holder past its Lease with a write on its way, which arrives when another one has taken over.

        What the stopped one has sent is lost on its way to the API server at first; its kernel goes on sending. So an
        old write arrives, which no look at a clock can prevent.

        Returns:
            How many writes of the former holder the rule of the definition refused.
        """
        pod, pid = await self.holder()
        before, known = self.shop.status["leader"], len(self._fenced())
        address = self.shop.space.pod(pod)["status"]["podIP"]
        try:
            # It finds the action when it goes on, and its way to the API server closed.
            os.kill(pid, signal.SIGSTOP)
            weight = self.rng.randint(1, 9)
            self.witness.trace.asked.add(weight * 100)
            await self.shop.action("SetWeight", weight=weight)
            with self.shop.pods.isolated(address):
                os.kill(pid, signal.SIGCONT)
                await asyncio.sleep(0.5)
                os.kill(pid, signal.SIGSTOP)
                await self._taken_over(before["term"])
            with contextlib.suppress(AssertionError):  # TCP sends again after pauses that double
                await asyncio.to_thread(self.shop.cluster.until, lambda: len(self._fenced()) > known, 15.0)
        finally:
            os.kill(pid, signal.SIGCONT)
        return len(self._fenced()) - known

    def _fenced(self) -> list[writers.Write]:
        return writers.fenced(writers.writes(self.shop.cluster.audit(), self.shop.namespace))

    async def roll(self) -> None:
        """New pods for all replicas, one by one; the old ones have gone."""
        before, patience_s = set(self.shop.proxies()), 2 * PATIENCE_S
        await asyncio.to_thread(self.shop.space.kubectl, "rollout", "restart", f"deployment/{NAME}")

        def is_over() -> bool:
            pods = self.shop.pods.processes(self.shop.namespace).keys()
            return not before & pods and len(self.shop.space.endpoints(NAME)) == len(before)

        await asyncio.to_thread(self.shop.cluster.until, is_over, patience_s)


@contextlib.asynccontextmanager
async def stage(installation: Installation, seed: int) -> AsyncIterator[Stage]:
    """With users and a witness, while the block runs; then all that has to hold is checked."""
    service = f"/api/v1/namespaces/{installation.namespace}/services/{NAME}"
    spec = (await asyncio.to_thread(installation.cluster.call, "GET", service))["spec"]
    address = f"http://{spec['clusterIP']}:{spec['ports'][0]['port']}"
    users = Visitors(installation.pods, address, lambda: installation.status, USERS, THINK_S)
    witness = Witness(installation, WEIGHTS_BP)
    print(f"seed {seed}")
    async with witness.looking(), users.running():
        await users.more(2 * USERS)
        made = Stage(installation, users, witness, seed)
        yield made
    made.check()
