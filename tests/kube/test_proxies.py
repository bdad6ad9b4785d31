"""Proxies as pods, without a controller: their plan is a file, their services are found by name."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import aiohttp
import pytest

from proxy.keys import NAMES, SECRET_BYTES, serialise
from tests.kube.pods.session import manifest
from tests.kube.pods.space import PORT, Space, server, service

REPLICAS = 3
USERS = 40
SETTINGS = {
    "kind": "ProxySettings",
    "listeners": [{"address": f":{PORT}"}],
    "trustedPeers": ["10.99.0.0/24"],
    "planFile": "/etc/cohort/config/plan.yaml",
    "stateDir": "/var/lib/cohort",
    "keysDir": "/etc/cohort/keys",
    "admin": {"listen": "unix:/run/cohort/admin.sock"},
    "metrics": {"listen": ":8082"},
    "timeouts": {"lameDuck": "8s", "drain": "20s"},
}
PROBE = {"port": "metrics", "path": "/ready"}
MOUNTS = {
    "state": "/var/lib/cohort",
    "run": "/run/cohort",
    "config": "/etc/cohort/config",
    "keys": "/etc/cohort/keys",
}


def plan(namespace: str) -> dict[str, Any]:
    """Half of the users on each of two services, who are told apart by a header."""
    return {
        "kind": "Plan",
        "rollout": {"namespace": namespace, "name": "shop", "uid": "one"},
        "generation": 1,
        "revision": "two",
        "salt": "0123456789abcdef" * 4,
        "arms": [
            {"name": arm, "revision": arm, "weightBp": 5000, "dns": {"host": f"{arm}.{namespace}.svc", "port": PORT}}
            for arm in ("stable", "canary")
        ],
        "users": [{"header": {"name": "X-User-Id"}}],
    }


def proxies(namespace: str) -> list[dict[str, Any]]:
    """Settings, keys, Deployment and Service of the proxies."""
    files = {"proxy.yaml": json.dumps(SETTINGS), "plan.yaml": json.dumps(plan(namespace))}
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "config"}, "data": files}
    secrets = {name: serialise(bytes(SECRET_BYTES)).decode() for name in NAMES}  # the same for all, or they deal apart
    keys = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": secrets}
    container = {
        "args": ["--config=/etc/cohort/config/proxy.yaml"],
        "ports": [{"name": "http", "containerPort": PORT}, {"name": "metrics", "containerPort": 8082}],
        "readinessProbe": {"httpGet": PROBE, "periodSeconds": 1, "timeoutSeconds": 5},
        "volumeMounts": [{"name": name, "mountPath": path} for name, path in MOUNTS.items()],
    }
    volumes: list[dict[str, Any]] = [
        {"name": "state", "emptyDir": {}},
        {"name": "run", "emptyDir": {}},
        {"name": "config", "configMap": {"name": "config"}},
        {"name": "keys", "secret": {"secretName": "keys"}},
    ]
    pod = {"terminationGracePeriodSeconds": 60, "volumes": volumes}
    deployment = manifest("proxy", ["cohort", "proxy"], image="cohort", replicas=REPLICAS, container=container, pod=pod)
    deployment["spec"]["strategy"] = {"rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}
    return [config, keys, deployment, service("proxy")]


class Load:
    """Users who ask one proxy after the other, as the endpoints of their Service are at the moment.

    Attributes:
        seen: Versions that each user has seen.
        answers: How many there were, each of them a 200.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self.seen: dict[int, set[str]] = {user: set() for user in range(USERS)}
        self.answers = 0

    async def run(self) -> None:
        """Until cancelled, or until a request fails."""
        async with aiohttp.ClientSession(connector=self._space.pods.connector(force_close=True)) as session:
            user = 0
            while True:
                for address in await asyncio.to_thread(self._space.endpoints, "proxy"):
                    user = (user + 1) % USERS
                    async with session.get(f"http://{address}:{PORT}/", headers={"X-User-Id": str(user)}) as answer:
                        assert answer.status == 200, (address, await answer.text())
                        self.seen[user].add(await answer.text())
                        self.answers += 1
                await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def loaded(space: Space) -> Any:
    """A load while the block runs."""
    load = Load(space)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(load.run())
        yield load
        task.cancel()


@pytest.mark.slow
async def test_proxies_are_rolled_one_by_one_and_nobody_notices(space: Space) -> None:
    """No request fails, no user sees another version than before: every replica deals alike, and leaves in order."""
    for arm, version in (("stable", "one"), ("canary", "two")):
        space.apply(server(version, replicas=1, name=arm), service(arm, clusterIP="None"))
    space.apply(*proxies(space.name))
    await asyncio.to_thread(rolled, space)
    async with loaded(space) as load:
        await asyncio.to_thread(space.kubectl, "rollout", "restart", "deployment/proxy")
        await asyncio.to_thread(rolled, space)
        before = load.answers
        await asyncio.to_thread(space.cluster.until, lambda: load.answers > before + 2 * USERS)
    assert all(len(versions) == 1 for versions in load.seen.values())
    assert {version for versions in load.seen.values() for version in versions} == {"one", "two"}


def rolled(space: Space) -> None:
    for name in ("stable", "canary", "proxy"):
        space.kubectl("rollout", "status", f"deployment/{name}", "--timeout=120s")
