"""A rollout through the death of those who decide, on a real API server with real proxies and controllers as pods.

Users come all the time; what must hold is checked at the end, by oracles that `test_writers`, `test_trace` and
`test_aborts` show to be able to fail. The other scenes take minutes: ``python -m tests.kube.faults``.
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
