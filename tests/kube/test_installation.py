"""The chart end to end on a real API server: installed, used, upgraded, rolled back, removed.

One installation for all; each test brings versions of the shop that nobody has seen, and leaves the rollout at rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import count

import pytest

from tests.kube.cluster import Cluster
from tests.kube.installation import Installation, prepared
from tests.kube.pods.session import PodRunner

pytestmark = pytest.mark.slow

USERS = 40
BAD_PERCENT = 40.0
VERSIONS = (f"v{number}" for number in count(2))


@pytest.fixture(scope="module")
def shop(definitions: Cluster, pods: PodRunner) -> Iterator[Installation]:
    with prepared(definitions, pods) as installation:
        asyncio.run(installation.install())
        yield installation


async def promoted(shop: Installation, version: str) -> None:
    """What a team does when its version is good: it deploys it where stable is."""
    await shop.phase("Promoting")
    await shop.promote_stable(version)
    await shop.until(lambda s: s["phase"] == "Healthy" and s["revision"]["stable"] == version)


async def test_a_good_version_is_promoted_and_nobody_notices(shop: Installation) -> None:
    """Each step by evidence, no request lost, no flip, and at the end everyone on the new version by one plan at 0."""
    version = next(VERSIONS)
    async with shop.users(USERS) as users:
        await users.more(100)
        await shop.release(version)
        await promoted(shop, version)
        await users.more(100)
    users.check()
    assert shop.status["weight"]["programmed"] == "0.00"
    assert users.users_of(version) == USERS


async def test_a_bad_version_rolls_itself_back(shop: Installation) -> None:
    """By what the proxies have counted, without anybody's help, before most users have seen it."""
    version = next(VERSIONS)
    async with shop.users(USERS) as users:
        await users.more(100)
        await shop.release(version, BAD_PERCENT)
        status = await shop.phase("Aborted")
        await users.more(200)
    users.check()
    assert status["abort"]["revision"] == version
    assert status["abort"]["by"] != "admin", status["abort"]
    assert users.users_of(version) == 0
    assert 0 < users.errors < 100


async def test_another_version_in_mid_rollout_starts_afresh(shop: Installation) -> None:
    """Everyone is on stable while both are behind the canary's Service, and the next one begins at its first step."""
    first, second = next(VERSIONS), next(VERSIONS)
    async with shop.users(USERS) as users:
        await users.more(100)
        await shop.release(first)
        await shop.until(lambda s: s["weight"]["programmed"] == "20.00" and s["revision"].get("canary") == first)
        await users.more(100)
        await shop.release(second)
        await promoted(shop, second)
        await users.more(100)
    users.check()
    assert users.users_of(second) == USERS
