"""What happens to an installation while a rollout is under way: the fault list of a cluster, in two rollouts."""

from __future__ import annotations

import asyncio
import contextlib
import time

from tests.kube.faults.stage import Stage, stage
from tests.kube.installation import Installation

KILLS = 20
CUTS = 100
AWAY_S = 60.0
STEADY_S = 3.0  # of one who decides: in the very second of a takeover there is nobody
TRIES = 5  # to freeze a holder just when it writes


async def killed(shop: Installation, version: str, seed: int) -> None:
    """A rollout whose holder is killed 20 times."""
    async with stage(shop, seed) as on:
        await on.begin(version)
        await on.kills(KILLS)
        await on.promote(version)
    assert on.killed == KILLS
    assert shop.status["leader"]["term"] > KILLS


async def aborted(shop: Installation, version: str, seed: int) -> None:
    """An abort at every moment at which something else breaks, and the rollout to its end after all of them.

    The holder is killed, connections are cut, the API server is gone for a minute and forgets, the holder is frozen
    past its Lease, and pods are rolled.
    """
    async with stage(shop, seed) as on:
        await on.begin(version)
        await on.kill()
        async with on.aborted("the holder was killed"):
            pass
        await _cut(on)
        await _away(on)
        await _frozen(on)
        await _rolled(on)
        await on.promote(version)


async def _cut(on: Stage) -> None:
    """Watches go on where they were, with each token."""
    cuts = asyncio.create_task(on.cut(CUTS))
    async with on.aborted("connections are cut"):
        await cuts


async def _away(on: Stage) -> None:
    """Nothing is decided meanwhile, but an abort at one proxy is carried to all, and then on record."""
    await on.steady(STEADY_S)
    plan = on.shop.status["plan"]["generation"]
    at = on.shop.proxies()[0]
    began = time.monotonic()
    async with on.api_server_away():
        await asyncio.sleep(AWAY_S / 2)
        served = {generation for generation, _ in on.witness.served if generation > plan + 1}
        assert not served, served
        held = on.aborted("the API server is away", at)
        await held.__aenter__()
        await asyncio.sleep(max(0.0, began + AWAY_S - time.monotonic()))
    await held.__aexit__(None, None, None)


async def _frozen(on: Stage) -> None:
    """A former holder's write really arrives, and is refused."""
    refused = 0
    for _ in range(TRIES):
        if refused := await on.frozen_while_it_writes():
            break
    assert refused, "no write of a former holder has arrived"
    async with contextlib.AsyncExitStack() as thawed:
        await thawed.enter_async_context(on.frozen())
        async with on.aborted("the holder was frozen past its Lease"):
            await thawed.aclose()


async def _rolled(on: Stage) -> None:
    rolling = asyncio.create_task(on.roll())
    async with on.aborted("pods are rolled"):
        await rolling


ALL = (killed, aborted)
