"""The chart end to end on a real API server: installed, used, upgraded, rolled back, removed.

One installation for all; each test brings versions of the shop that nobody has seen, and leaves the rollout at rest.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from functools import partial
from itertools import count
from typing import Any

import aiohttp
import pytest

from controller.net.kube.actions import KEEP_ACTIONS
from tests.kube.cluster import Cluster
from tests.kube.installation import CANARY, NAME, RELEASE, STABLE, Installation, prepared
from tests.kube.pods.session import PodRunner

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

USERS = 40
ACTIONS = "rolloutactions"
BAD_PERCENT = 25.0  # far below half of all, at which the proxies' own breaker would be first
VERSIONS = (f"v{number}" for number in count(2))


@pytest.fixture(scope="module")
def shop(definitions: Cluster, pods: PodRunner) -> Iterator[Installation]:
    with prepared(definitions, pods) as installation:
        asyncio.run(installation.install())
        yield installation


async def promoted(shop: Installation, version: str) -> None:
    """What a team does when its version is good: it deploys it where stable is."""
    await shop.until(lambda s: s["phase"] == "Promoting" and s["revision"].get("canary") == version)
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
    assert (status["abort"]["revision"], status["abort"]["reason"]) == (version, "AnalysisFailed")
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
        await shop.until(lambda s: s["weight"]["programmed"] == "20.00" and s["revision"].get("canary") == second)
        await users.more(100)
        assert users.of(second)
        await shop.action("Abort")
        await shop.phase("Aborted")
    users.check()


async def test_an_upgrade_and_a_rollback_in_mid_rollout_are_noticed_by_nobody(shop: Installation) -> None:
    """Every pod is another one afterwards, twice; the rollout stands where it stood, and goes on."""
    version = next(VERSIONS)
    async with shop.users(USERS) as users:
        await users.more(100)
        await shop.release(version)
        await shop.until(lambda s: s["weight"]["programmed"] == "20.00" and s["revision"].get("canary") == version)
        await shop.action("Pause")
        before, pods = await shop.phase("Paused"), set(shop.proxies())
        for change in (partial(shop.upgrade, "image.tag=next"), shop.rollback):
            await change()
            assert not pods & set(shop.proxies())
            pods = set(shop.proxies())
            await users.more(100)
            users.check()
        after = await shop.until(lambda s: s["plan"]["current"] == s["plan"]["replicas"] == len(pods))
        assert after["leader"]["term"] > before["leader"]["term"]
        assert (after["phase"], after["step"]["index"]) == ("Paused", before["step"]["index"])
        await shop.action("Resume")
        await promoted(shop, version)
        await users.more(100)
    users.check()
    assert users.users_of(version) == USERS


async def test_a_status_of_a_newer_version_stops_nobody_from_being_served(shop: Installation) -> None:
    """As in an upgrade of cohort, or after its rollback: an older one decides nothing by what it cannot read whole.

    Proxies keep their plans, and when the status can be read again it goes on from there.
    """
    version = next(VERSIONS)
    async with shop.users(USERS) as users:
        await shop.release(version)
        await shop.until(lambda s: s["weight"]["programmed"] == "20.00" and s["revision"].get("canary") == version)
        await shop.action("Pause")
        known = await shop.phase("Paused")
        await asyncio.to_thread(write_as_newer, shop, known, "unheardOf")
        told = "the status is of another version of cohort, nothing is decided"
        await asyncio.to_thread(shop.cluster.until, lambda: told in shop.told(lines=200))
        await users.more(100)
        users.check()
        assert shop.status["leader"]["identity"] == "newer"
        await asyncio.to_thread(write_as_newer, shop, known)
        after = await shop.until(lambda s: s["leader"]["identity"] != "newer")
        assert (after["phase"], after["step"]["index"]) == ("Paused", known["step"]["index"])
        await shop.action("Abort")
        await shop.phase("Aborted")
        await users.more(200)
    users.check()
    assert users.users_of(version) == 0


def write_as_newer(shop: Installation, known: dict[str, Any], *fields: str) -> None:
    """Write the status as a controller of a newer version does that takes over, with fields that it alone knows."""
    state = json.loads(known["state"])
    state["document"]["spec"] |= dict.fromkeys(fields, "new")
    plan = known["plan"] | {"document": known["plan"]["document"] | dict.fromkeys(fields, "new")}
    leader = {"identity": "newer", "term": shop.status["leader"]["term"] + 1}
    status = {**known, "state": json.dumps(state), "plan": plan, "leader": leader}
    path = f"/apis/cohort.dev/v1alpha1/namespaces/{shop.namespace}/canaryrollouts/{NAME}/status"
    patch = [{"op": "replace", "path": "/status", "value": status}]
    shop.cluster.call("PATCH", path, patch, "application/json-patch+json")


@pytest.mark.verdict
async def test_no_right_is_refused_and_none_is_granted_in_vain(shop: Installation) -> None:
    """What the controllers were answered from the installation on, beside the chart's Role."""
    for _ in range(KEEP_ACTIONS + 2):  # the oldest are removed
        uid = await shop.action("Pause", revision="unknown")
        await shop.until(lambda s, uid=uid: any(action["uid"] == uid for action in s.get("actions", ())))
    await shop.until(lambda _: "delete" in {verb for _, resource, verb in shop.audit()[0] if resource == ACTIONS})
    used, refused = shop.audit()
    assert refused == set()
    assert used == shop.granted()


PLAIN = {"stable": {"service": {"name": STABLE}}, "canary": {"service": {"name": CANARY}}}
LEFT = {("Secret", f"{NAME}-keys"), ("Lease", f"cohort-{NAME}"), ("Pod", f"{NAME}-test")}


def left(installation: Installation) -> set[tuple[str, str]]:
    """Kind and name of whatever cohort has in the namespace; Events end by themselves."""
    kinds = installation.cluster.kubectl("api-resources", "--namespaced", "--verbs=list", "-o", "name").split()
    wanted = ",".join(kind for kind in kinds if not kind.startswith("events") and "metrics.k8s.io" not in kind)
    found = json.loads(installation.space.kubectl("get", wanted, "-o", "json"))["items"]
    return {(one["kind"], one["metadata"]["name"]) for one in found if NAME in one["metadata"]["name"]}


async def test_two_settings_are_enough_for_a_rollout_and_only_what_the_page_says_outlives_it(
    definitions: Cluster, pods: PodRunner
) -> None:
    """With the defaults of the chart; `helm test` sends users through the proxies, who count as none."""
    with prepared(definitions, pods) as plain:
        plain.values = {"rollout": dict(PLAIN)}
        await plain.install()
        await plain.release("v2")
        status = await plain.until(lambda s: s["weight"]["programmed"] == "5.00")
        assert status["revision"]["stable"] != status["revision"]["canary"]
        told = await asyncio.to_thread(plain.cluster.helm, "test", RELEASE, "-n", plain.namespace, "--logs")
        assert "ok: no flip, no request lost" in told
        assert await sources(plain) == {"synthetic"}
        await plain.uninstall()
        await asyncio.to_thread(plain.cluster.until, lambda: left(plain) <= LEFT)
        assert left(plain) == LEFT


async def sources(installation: Installation) -> set[str]:
    """Whose requests the proxies have counted."""
    found: set[str] = set()
    async with aiohttp.ClientSession(connector=installation.pods.connector()) as session:
        for pod in installation.proxies():
            address = installation.space.pod(pod)["status"]["podIP"]
            async with session.get(f"http://{address}:8082/metrics") as answer:
                samples = await answer.text()
            found |= set(re.findall(r'cohort_requests_total\{[^}]*source="([a-z]+)"[^}]*\} [1-9]', samples))
    return found
