"""The chart end to end on a real API server: installed, used, upgraded, rolled back, removed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kube.cluster import Cluster
from tests.kube.installation import Installation, prepared
from tests.kube.pods.session import PodRunner

pytestmark = pytest.mark.slow


@pytest.fixture
def shop(definitions: Cluster, pods: PodRunner) -> Iterator[Installation]:
    with prepared(definitions, pods) as installation:
        yield installation


async def test_a_good_version_is_promoted_and_nobody_notices(shop: Installation) -> None:
    """From `helm install` to everyone on the new version: each step by evidence, no request lost, no flip."""
    await shop.install()
    async with shop.users() as users:
        await users.more(100)
        await shop.release("v2")
        await shop.phase("Promoting")
        await users.more(100)
        await shop.promote_stable("v2")
        status = await shop.phase("Healthy")
        await users.more(100)
    users.check()
    assert status["weight"]["programmed"] == "0.00"
    assert users.users_of("v2") == 40
    assert shop.audit()[1] == set()
