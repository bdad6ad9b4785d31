"""Locust's master and workers as the chart runs them: users through the proxies, counted apart, told by the master."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from tests.kube.cluster import PATIENCE_S, Cluster
from tests.kube.installation import NAME, Installation, prepared
from tests.kube.pods.session import PodRunner

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

MASTER, WORKERS = f"{NAME}-loadtest-master", f"{NAME}-loadtest"
METRICS_PORT, PAGE_PORT = 8082, 8089
COUNTED = re.compile(r'^cohort_requests_total\{[^}]*source="(\w+)"[^}]*\} (\d+)', re.MULTILINE)
SETS = (
    "proxy.replicas=2",
    "loadtest.enabled=true",
    "loadtest.users=12",
    "loadtest.workers=2",
    "loadtest.web=true",
    "loadtest.think=100ms..300ms",
)


@pytest.fixture
def shop(definitions: Cluster, pods: PodRunner) -> Iterator[Installation]:
    with prepared(definitions, pods) as installation:
        yield installation


def pods_of(shop: Installation, component: str) -> list[dict[str, Any]]:
    """Pods of one component that are not about to end."""
    path = f"/api/v1/namespaces/{shop.namespace}/pods?labelSelector=app.kubernetes.io/component={component}"
    found = shop.cluster.call("GET", path)["items"]
    return [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]


async def told(shop: Installation, pattern: str, but: str = "") -> str:
    """Wait until the last line of a master, of another pod than ``but``, has the pattern; that line."""
    last = [""]

    def look() -> bool:
        names = [pod["metadata"]["name"] for pod in pods_of(shop, "loadtest-master")]
        if names in ([], [but]):
            return False
        done = shop.cluster.run("kubectl", "-n", shop.namespace, "logs", names[0], "--tail=1")
        last[0] = done.stdout.strip()
        return re.search(pattern, last[0]) is not None

    try:
        await asyncio.to_thread(shop.cluster.until, look, 2 * PATIENCE_S)
    except AssertionError as error:
        raise AssertionError(f"the master says {last[0]!r}, not {pattern}") from error
    return last[0]


async def get(shop: Installation, url: str) -> str:
    """A page, from within the pods' network."""
    async with aiohttp.ClientSession(connector=shop.pods.connector()) as session, session.get(url) as answer:
        assert answer.status == 200, url
        return await answer.text()


async def counted(shop: Installation) -> dict[str, int]:
    """Requests of all proxies by source."""
    total: dict[str, int] = {}
    for pod in pods_of(shop, "proxy"):
        page = await get(shop, f"http://{pod['status']['podIP']}:{METRICS_PORT}/metrics")
        for source, number in COUNTED.findall(page):
            total[source] = total.get(source, 0) + int(number)
    return {source: number for source, number in total.items() if number}


async def test_users_of_two_workers_pass_the_proxies_and_are_nobodys_evidence(shop: Installation) -> None:
    """Both in a namespace that enforces `restricted`; scaled by values; a new master has its users again."""
    await shop.install(*SETS)
    for deployment in (MASTER, WORKERS):
        await shop.rolled(deployment)
    line = await told(shop, r"2 workers \| 12 users \|.* stable v1 100.0 % of users.* lost 0 \| flips 0")
    asked = int(re.search(r"(\d+) req/s", line)[1])  # type: ignore[index]  # the line has it
    assert asked > 0
    sources = await counted(shop)
    assert sources.keys() == {"synthetic"}
    assert sources["synthetic"] > 12
    service = shop.cluster.call("GET", f"/api/v1/namespaces/{shop.namespace}/services/{WORKERS}")
    page = f"http://{service['spec']['clusterIP']}:{PAGE_PORT}"
    assert '"user_count":12' in (await get(shop, f"{page}/stats/requests")).replace(" ", "")
    (master,) = pods_of(shop, "loadtest-master")
    assert "volumes" not in master["spec"]  # it needs no key

    await shop.upgrade(*SETS, "loadtest.workers=1")
    await told(shop, r" 1 workers \| 12 users \|.* lost 0 \| flips 0")
    name = master["metadata"]["name"]
    await asyncio.to_thread(shop.space.kubectl, "delete", "pod", name, "--wait=false")
    await told(shop, r" 1 workers \| 12 users \|.* lost 0 \| flips 0", but=name)
