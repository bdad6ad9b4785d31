"""A rollout through every fault of a cluster, on a real API server with real proxies and controllers as pods.

One installation for all. Users come all the time; what must hold is checked at the end of each test, by oracles that
`test_writers`, `test_trace` and `test_aborts` show to be able to fail.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.kube.cluster import Cluster
from tests.kube.faults import scenes
from tests.kube.faults.stage import strategy
from tests.kube.installation import Installation, prepared
from tests.kube.pods.session import PodRunner

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SEED = 6


@pytest.fixture(scope="module")
def shop(definitions: Cluster, pods: PodRunner) -> Iterator[Installation]:
    with prepared(definitions, pods) as installation:
        asyncio.run(installation.install(strategy=strategy()))
        yield installation


async def test_a_rollout_whose_holder_is_killed_20_times_goes_as_decided(shop: Installation) -> None:
    await scenes.killed(shop, "v2", SEED)


async def test_an_abort_holds_whatever_breaks_at_that_moment(shop: Installation) -> None:
    await scenes.aborted(shop, "v3", SEED)
