"""Controllers against a real API server, each beside a proxy that is nothing but its admin API; no pod runs."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from controller import planner
from controller.net.engine import Clocks
from controller.net.kube.client import Client
from controller.net.kube.holder import Means
from controller.net.kube.replica import Replica
from controller.net.kube.service import pod
from controller.spec import ControllerSettings, Kube
from proxy.document import validate
from tests.kube.account import account
from tests.kube.cluster import PATIENCE_S, Cluster
from tests.support.fake_admin import FakeAdmin, serving
from tests.support.fake_proxy import FakeProxy

pytestmark = pytest.mark.slow

SPLIT = b"s" * 32
STEPS: list[dict[str, Any]] = [{"setWeight": 10}, {"pause": {}}, {"setWeight": 50}]
KINDS = {
    "Service": "/api/v1/namespaces/{}/services",
    "Pod": "/api/v1/namespaces/{}/pods",
    "EndpointSlice": "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices",
    "CanaryRollout": "/apis/cohort.dev/v1alpha1/namespaces/{}/canaryrollouts",
    "RolloutAction": "/apis/cohort.dev/v1alpha1/namespaces/{}/rolloutactions",
}
VERSIONS = {kind: "/".join(path.split("/")[2:-3]) for kind, path in KINDS.items()}


@dataclass
class Stage:
    """A namespace with a rollout, and replicas of the controller."""

    cluster: Cluster
    namespace: str
    folder: Path
    proxies: dict[str, FakeProxy] = field(default_factory=dict)
    account: Any = None

    def make(self, kind: str, name: str, **more: Any) -> Any:
        body = {"apiVersion": VERSIONS[kind], "kind": kind, "metadata": {"name": name, **more.pop("metadata", {})}}
        return self.cluster.call("POST", KINDS[kind].format(self.namespace), body | more)

    def pod(self, name: str, image: str) -> str:
        return str(self.make("Pod", name, spec={"containers": [{"name": "app", "image": image}]})["metadata"]["uid"])

    def behind(self, service: str, *pods: tuple[str, str, str]) -> None:
        """Put pods (name, uid, address) behind a Service."""
        place = f"{KINDS['EndpointSlice'].format(self.namespace)}"
        name = f"{service}-1"
        targets = [
            {"addresses": [at], "targetRef": {"kind": "Pod", "name": pod, "uid": uid}, "conditions": {"ready": True}}
            for pod, uid, at in pods
        ]
        if self.cluster.exists(f"{place}/{name}"):
            patch = {"endpoints": targets}
            self.cluster.call("PATCH", f"{place}/{name}", patch, "application/merge-patch+json")
            return
        self.make(
            "EndpointSlice",
            name,
            metadata={"labels": {"kubernetes.io/service-name": service}},
            addressType="IPv4",
            ports=[{"name": "http", "port": 8080, "protocol": "TCP"}],
            endpoints=targets,
        )

    def ask(self, verb: str, revision: str, **more: Any) -> str:
        spec = {"rollout": "web", "verb": verb, "revision": revision, "requestedBy": "anna", **more}
        made = self.make("RolloutAction", "", metadata={"name": None, "generateName": "a-"}, spec=spec)
        return str(made["metadata"]["uid"])

    @property
    def rollout(self) -> Any:
        return self.cluster.call("GET", f"{KINDS['CanaryRollout'].format(self.namespace)}/web")

    @property
    def status(self) -> Any:
        return self.rollout.get("status") or {}

    async def until(self, look: Callable[[Any], Any]) -> Any:
        """Wait until the status is as it should be; the status."""
        async with asyncio.timeout(PATIENCE_S):
            while not look(status := await asyncio.to_thread(lambda: self.status)):
                await asyncio.sleep(0.1)
        return status

    @asynccontextmanager
    async def replica(self, name: str) -> AsyncIterator[asyncio.Task[None]]:
        proxy = self.proxies.setdefault(name, FakeProxy())
        self.behind("web-control", (name, name, "10.99.2.1"))
        async with serving(FakeAdmin(proxy), str(self.folder / f"{name}.sock")) as address, Client(self.account) as api:
            settings = validate(ControllerSettings, {"proxies": [{"address": address}], "pollInterval": "100ms"})
            kube = Kube(namespace=self.namespace, rollout="web", lease_duration=3.0)
            here = pod(settings, kube, {"POD_NAME": name, "POD_UID": "1"})
            means = Means({planner.key_id(SPLIT): SPLIT}, Clocks(time.monotonic, time.time), settings.poll_interval)
            made = Replica(kube, api, here, means, random.random)
            task = asyncio.create_task(made.run())
            try:
                yield task
            finally:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task


@pytest.fixture
def stage(definitions: Cluster, namespace: str, tmp_path: Path) -> Stage:
    stage = Stage(definitions, namespace, tmp_path)
    stage.account = account(definitions, namespace, tmp_path / "account")
    for service in ("web-stable", "web-canary", "web-control"):
        port = {"name": "http", "port": 8083 if service == "web-control" else 80}
        stage.make("Service", service, spec={"clusterIP": "None", "ports": [port]})
    stage.behind("web-stable", ("stable-1", stage.pod("stable-1", "shop:1"), "10.99.1.1"))
    spec = {
        "stable": {"service": {"name": "web-stable", "port": "http"}},
        "canary": {"service": {"name": "web-canary", "port": "http"}},
        "users": [{"mint": {}}],
        "strategy": {"canary": {"steps": STEPS}},
    }
    stage.make("CanaryRollout", "web", spec=spec)
    return stage


def accepted(status: Any) -> Any:
    return next((each for each in status.get("conditions", ()) if each["type"] == "Accepted"), {})


async def test_weights_only_from_the_first_deploy_through_a_promotion_an_abort_and_a_new_revision(stage: Stage) -> None:
    async with stage.replica("cohort-0"):
        status = await stage.until(lambda s: s.get("phase") == "Healthy")
        proxy = stage.proxies["cohort-0"]
        assert proxy.plan
        assert [(e.address, e.port) for e in proxy.plan.arms[0].endpoints] == [("10.99.1.1", 8080)]
        assert status["plan"]["digest"] == proxy.plan.core_digest
        assert "salt" not in status["plan"]["document"]

        two = stage.pod("canary-1", "shop:2"), "10.99.1.2"
        stage.behind("web-canary", ("canary-1", *two))
        status = await stage.until(lambda s: s.get("phase") == "Paused")
        assert status["weight"]["programmed"] == "10.00"
        assert proxy.plan.arms[1].endpoints[0].address == "10.99.1.2"

        await stage.until(lambda s: s.get("phase") == "Paused")
        uid = stage.ask("Promote", status["revision"]["canary"])
        status = await stage.until(lambda s: s.get("phase") == "Promoting")
        assert status["weight"]["programmed"] == "100.00"
        assert {"uid": uid, "verb": "Promote", "result": "Done"}.items() <= status["actions"][0].items()

        promoted = stage.pod("stable-2", "shop:2"), "10.99.1.3"
        stage.behind("web-stable", ("stable-1", "old", "10.99.1.1"), ("stable-2", *promoted))
        await asyncio.sleep(1.0)
        assert (await asyncio.to_thread(lambda: stage.status))["phase"] == "Promoting"  # one pod has the old revision
        stage.behind("web-stable", ("stable-2", *promoted))
        status = await stage.until(lambda s: s.get("phase") == "Healthy" and s["plan"]["current"] == 1)
        assert len(proxy.plan.arms) == 1
        assert status["weight"]["programmed"] == "0.00"

        three = stage.pod("canary-3", "shop:3"), "10.99.1.4"
        stage.behind("web-canary", ("canary-3", *three))
        status = await stage.until(lambda s: s.get("phase") == "Paused")
        stage.ask("Abort", status["revision"]["canary"], reason="slow")
        status = await stage.until(lambda s: s.get("phase") == "Aborted")
        assert (status["abort"]["by"], status["abort"]["reason"]) == ("anna", "Requested")
        assert proxy.latch

        four = stage.pod("canary-4", "shop:4"), "10.99.1.5"
        stage.behind("web-canary", ("canary-3", *three), ("canary-4", *four))
        stage.behind("web-canary", ("canary-4", *four))
        status = await stage.until(lambda s: s.get("phase") == "Paused")
        assert "abort" not in status
        assert proxy.plan.arms[1].endpoints[0].address == "10.99.1.5"


async def test_the_next_holder_resumes_where_the_last_one_was_ended(stage: Stage) -> None:
    stage.behind("web-canary", ("canary-1", stage.pod("canary-1", "shop:2"), "10.99.1.2"))
    async with stage.replica("cohort-0"):
        first = await stage.until(lambda s: s.get("phase") == "Paused")
    async with stage.replica("cohort-1"):
        second = await stage.until(lambda s: s.get("leader", {}).get("identity") == "cohort-1_1")
        assert second["leader"]["term"] == first["leader"]["term"] + 1
        status = await stage.until(lambda s: s["plan"]["current"] == 1 and s["phase"] == "Paused")
        assert status["step"]["index"] == first["step"]["index"]
        assert status["plan"]["generation"] == first["plan"]["generation"]
        plan = stage.proxies["cohort-1"].plan
        assert plan
        assert plan.core_digest == status["plan"]["digest"]


async def test_a_pod_behind_both_services_keeps_everyone_on_stable(stage: Stage) -> None:
    async with stage.replica("cohort-0"):
        await stage.until(lambda s: s.get("phase") == "Healthy")
        uid = stage.pod("both", "shop:2")
        stage.behind("web-canary", ("both", uid, "10.99.1.9"))
        await stage.until(lambda s: s.get("phase") == "Paused")
        stage.behind("web-stable", ("both", uid, "10.99.1.9"))
        status = await stage.until(lambda s: accepted(s).get("reason") == "ArmsOverlap")
        assert accepted(status)["status"] == "False"
        status = await stage.until(lambda s: s["weight"]["programmed"] == "0.00")


async def test_an_action_for_another_revision_is_refused_with_the_reason(stage: Stage) -> None:
    async with stage.replica("cohort-0"):
        await stage.until(lambda s: s.get("phase") == "Healthy")
        uid = stage.ask("Promote", "nothing-of-this-name")
        status = await stage.until(lambda s: s.get("actions"))
        assert (status["actions"][0]["uid"], status["actions"][0]["result"]) == (uid, "Refused")
