"""The API server in memory answers as the real one does, in all that controllers hang on."""

from __future__ import annotations

from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from controller.net.kube.client import JSON_PATCH, MERGE_PATCH, ApiRefused, Client
from controller.net.kube.ledger import Api, take_over
from tests.kube.account import account
from tests.kube.cluster import Cluster
from tests.support.fake_api import FakeApi

pytestmark = pytest.mark.slow

SPEC = {
    "stable": {"service": {"name": "web-stable", "port": "http"}},
    "canary": {"service": {"name": "web-canary", "port": "http"}},
    "strategy": {"canary": {"steps": [{"setWeight": 10}]}},
}
ACTION = {"rollout": "web", "verb": "Abort", "revision": "v2", "requestedBy": "anna"}


async def code(asked: Awaitable[Any]) -> int:
    """The status of an answer."""
    try:
        await asked
    except ApiRefused as error:
        return error.status
    return 200


def status(term: int, identity: str, generation: int) -> dict[str, Any]:
    plan = {"generation": generation, "digest": "d", "replicas": 1, "current": 1}
    return {
        "observedGeneration": 1,
        "phase": "Healthy",
        "leader": {"identity": identity, "term": term},
        "plan": plan,
    }


async def exchanges(api: Api, namespace: str) -> dict[str, Any]:
    """What becomes of everything that a controller writes, right and wrong."""
    cohort = f"/apis/cohort.dev/v1alpha1/namespaces/{namespace}"
    rollouts, web = f"{cohort}/canaryrollouts", f"{cohort}/canaryrollouts/web"
    kind = {"apiVersion": "cohort.dev/v1alpha1", "kind": "CanaryRollout"}
    made = await api.ask("POST", rollouts, {**kind, "metadata": {"name": "web"}, "spec": SPEC})
    uid = made["metadata"]["uid"]

    async def write(value: Any, of: str = uid, **known: Any) -> int:
        body = [
            {"op": "test", "path": "/metadata/uid", "value": of},
            *({"op": "test", "path": f"/status/{name}", "value": text} for name, text in known.items()),
            {"op": "add", "path": "/status", "value": value},
        ]
        return await code(api.ask("PATCH", f"{web}/status", body, kind=JSON_PATCH))

    found: dict[str, Any] = {
        "twice": await code(api.ask("POST", rollouts, {**kind, "metadata": {"name": "web"}, "spec": SPEC})),
        "generation": made["metadata"]["generation"],
    }
    taken = await take_over(api, made, "a")
    found["leader"] = taken["status"]["leader"]
    found["stale"] = await code(take_over(api, made, "b"))
    found["first"] = await write(status(1, "a", 1))
    version = (await api.ask("GET", web))["metadata"]["resourceVersion"]
    found["same"] = await write(status(1, "a", 1))
    found["no change, no version"] = (await api.ask("GET", web))["metadata"]["resourceVersion"] == version
    found["another uid"] = await write(status(1, "a", 2), "00000000-0000-4000-8000-000000000000")
    found["state"] = [
        await write({**status(1, "a", 1), "state": "one"}, state=None),
        await write({**status(1, "a", 1), "state": "two"}, state="one"),
        await write({**status(1, "a", 1), "state": "three"}, state="one"),
    ]
    found["falls"] = await write(status(1, "a", 0))
    found["another of this term"] = await write(status(1, "b", 1))
    found["next term"] = await write(status(2, "b", 1))
    found["overtaken"] = await write(status(1, "a", 2))
    patch = {"spec": {"strategy": {"canary": {"steps": [{"setWeight": 20}]}}}, "status": {"phase": "Paused"}}
    found["patch"] = await code(api.ask("PATCH", web, patch, kind=MERGE_PATCH))
    after = await api.ask("GET", web)
    found["after"] = after["metadata"]["generation"], after["status"]["phase"], after["status"]["leader"]["term"]
    found |= await actions(api, f"{cohort}/rolloutactions")
    found |= await leases(api, f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases")
    found["removed"] = (
        await code(api.ask("DELETE", web)),
        await code(api.ask("GET", web)),
        await write(status(3, "a", 1)),
    )
    return found


async def actions(api: Api, path: str) -> dict[str, Any]:
    body = {"apiVersion": "cohort.dev/v1alpha1", "kind": "RolloutAction", "spec": ACTION}
    made = [await api.ask("POST", path, {**body, "metadata": {"generateName": "a-"}}) for _ in range(2)]
    names = [item["metadata"]["name"] for item in made]
    listed = await api.ask("GET", path)
    return {
        "named": [name.startswith("a-") for name in names],
        "apart": len(set(names)),
        "listed": sorted(item["metadata"]["name"] for item in listed["items"]) == sorted(names),
        "removed action": await code(api.ask("DELETE", f"{path}/{names[0]}")),
        "removed twice": await code(api.ask("DELETE", f"{path}/{names[0]}")),
    }


async def leases(api: Api, path: str) -> dict[str, Any]:
    kind = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
    none = await code(api.ask("GET", f"{path}/l"))
    made = await api.ask("POST", path, {**kind, "metadata": {"name": "l"}, "spec": {"holderIdentity": "a"}})
    renewed = {**made, **kind, "spec": {"holderIdentity": "b"}}
    return {
        "no lease": none,
        "lease twice": await code(api.ask("POST", path, {**kind, "metadata": {"name": "l"}, "spec": {}})),
        "renewed": await code(api.ask("PUT", f"{path}/l", renewed)),
        "lost": await code(api.ask("PUT", f"{path}/l", {**renewed, "spec": {"holderIdentity": "c"}})),
        "holder": (await api.ask("GET", f"{path}/l"))["spec"]["holderIdentity"],
    }


async def test_both_answer_alike(definitions: Cluster, namespace: str, tmp_path: Path) -> None:
    """Fence, plan's number, uid and resourceVersion are enforced; a write that changes nothing makes no version."""
    async with Client(account(definitions, namespace, tmp_path / "account")) as client:
        real = await exchanges(client, namespace)
    assert await exchanges(FakeApi(lambda: 0.0), namespace) == real
    assert (real["overtaken"], real["falls"], real["stale"], real["lost"]) == (422, 422, 409, 409)
    assert real["state"] == [200, 200, 422]
