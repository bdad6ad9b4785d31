"""cohort installed by its chart: proxies and controllers as pods, a shop in two versions behind them, and its users.

Everything that waits is awaited, so that users go on meanwhile. The shop is the demo's own application; a version is
an image's tag, and the label that its pods have.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.chart.schema import CHART
from tests.kube import rights
from tests.kube.cluster import PATIENCE_S, Cluster
from tests.kube.customers import Customers
from tests.kube.pods.images import Image
from tests.kube.pods.session import PodRunner, manifest
from tests.kube.pods.space import PORTS, READY, RESTRICTED, Space, service

RELEASE = "shop"
NAME = f"{RELEASE}-cohort"  # of what the chart makes
STABLE, CANARY = "shop-stable", "shop-canary"
VERSION_LABEL = "app.kubernetes.io/version"
SHOP = Image(("python", "-m", "demo.app"), ("--host=0.0.0.0",))
ROLLS = 5  # minutes for what takes ten seconds where nothing else runs
LEAVE_S = 4  # until lists of endpoints have lost a pod of the shop that is to end
COLLECTION = "/apis/cohort.dev/v1alpha1/namespaces/{}/"
STEPS: list[dict[str, Any]] = [
    {"setWeight": 20},
    {"pause": {"duration": "3s"}},
    {"setWeight": 60},
    {"pause": {"duration": "3s"}},
]
ANALYSIS = {
    "name": "success",
    "metrics": [
        {
            "name": "success-rate",
            "interval": "1s",
            "failureLimit": 1,
            "successCondition": "result[0] >= 0.95",
            "provider": {
                "cohort": {"metric": "successRate", "window": "10s", "minimumRequests": 20, "minimumUsers": 1}
            },
        }
    ],
}


def values(**rollout: Any) -> dict[str, Any]:
    """The chart's values of an installation whose rollouts take seconds.

    Args:
        rollout: Fields of the block of that name.
    """
    strategy = {"canary": {"steps": STEPS, "analysis": {"templates": [{"templateName": ANALYSIS["name"]}]}}}
    block = {
        "stable": {"service": {"name": STABLE, "port": 80}},
        "canary": {"service": {"name": CANARY, "port": 80}},
        "revisionFrom": {"podLabel": VERSION_LABEL},
        "strategy": strategy,
        "analysisTemplates": [ANALYSIS],
    }
    proxy = {"replicas": 3, "lameDuckSeconds": LEAVE_S, "drainSeconds": 10, "initialPlanWait": "1m"}
    return {"proxy": proxy, "controller": {"leaseDuration": "3s"}, "rollout": block | rollout}


def shop(name: str, version: str, error_percent: float, replicas: int) -> dict[str, Any]:
    """The Deployment of one version of the shop."""
    told = {"DEMO_PORT": "8080", "DEMO_VERSION": version, "DEMO_ERROR_PERCENT": str(error_percent)}
    container = {
        "ports": PORTS,
        "env": [{"name": key, "value": value} for key, value in told.items()],
        "readinessProbe": READY | {"httpGet": {"path": "/healthz", "port": "http"}},
        "lifecycle": {"preStop": {"sleep": {"seconds": LEAVE_S}}},
    }
    document = manifest(name, [], image=f"shop:{version}", replicas=replicas, container=container)
    document["spec"]["template"]["metadata"] = {"labels": {"app": name, VERSION_LABEL: version}}
    return document


class Installation:
    """One installation of the chart in a namespace that enforces `restricted`.

    Attributes:
        space: The namespace.
        values: What Helm is given at the next `install` or `upgrade`.
        versions: By Deployment, the version that it was given last.
    """

    def __init__(self, space: Space, replicas: int = 2) -> None:
        self.space, self.cluster, self.pods, self.namespace = space, space.cluster, space.pods, space.name
        self.values = values()
        self.versions: dict[str, str] = {}
        self._replicas = replicas
        self.pods.images(shop=SHOP)

    # -- the chart

    async def install(self, *sets: str, **rollout: Any) -> None:
        """Install it, and wait until every proxy is ready and the rollout is healthy.

        Args:
            sets: As Helm's ``--set``.
            rollout: Fields of the block of values of that name, for this and each later upgrade.
        """
        self.values["rollout"] |= rollout
        for name in (STABLE, CANARY):
            self.space.apply(service(name))
            await self._deploy(name, "v1", 0.0)
        await self._helm("install", RELEASE, str(CHART), *_sets(sets))
        await self.rolled()
        await self.until(lambda status: status.get("phase") == "Healthy")

    async def upgrade(self, *sets: str) -> None:
        """Upgrade with these settings beside `values`, and wait until every pod is of the new kind."""
        await self._helm("upgrade", RELEASE, str(CHART), *_sets(sets))
        await self.rolled()

    async def rollback(self, revision: int = 0) -> None:
        """Go back to an earlier release, the last one if none is named, and wait likewise."""
        await asyncio.to_thread(self.cluster.helm, "rollback", RELEASE, str(revision), "-n", self.namespace)
        await self.rolled()

    async def uninstall(self) -> None:
        """Remove the release; its pods end afterwards."""
        await asyncio.to_thread(self.cluster.helm, "uninstall", RELEASE, "-n", self.namespace)

    async def _helm(self, *arguments: str) -> str:
        text, options = json.dumps(self.values), ("-n", self.namespace, "-f", "-")
        return await asyncio.to_thread(self.cluster.helm, *arguments, *options, input=text)

    async def rolled(self, deployment: str = NAME) -> None:
        """Wait until a Deployment has none but ready pods of its newest kind."""
        options = ("-n", self.namespace, "rollout", "status", f"deployment/{deployment}", "--timeout=60s")
        for _ in range(ROLLS):
            done = await asyncio.to_thread(self.cluster.run, "kubectl", *options)
            if done.returncode == 0:
                return
        raise AssertionError(f"{done.stderr}\n{self.told()}")

    # -- the shop

    async def release(self, version: str, error_percent: float = 0.0) -> None:
        """Deploy a version where the canary is."""
        await self._deploy(CANARY, version, error_percent)

    async def promote_stable(self, version: str) -> None:
        """Deploy a version where stable is, as a team does while its rollout is `Promoting`."""
        await self._deploy(STABLE, version, 0.0)

    async def _deploy(self, name: str, version: str, error_percent: float) -> None:
        self.versions[name] = version
        await asyncio.to_thread(self.space.apply, shop(name, version, error_percent, self._replicas))

    # -- the rollout

    @property
    def rollout(self) -> dict[str, Any]:
        """The CanaryRollout."""
        found: dict[str, Any] = self.cluster.call("GET", f"{self._path('canaryrollouts')}/{NAME}")
        return found

    @property
    def status(self) -> dict[str, Any]:
        """Its status; empty before the first."""
        return self.rollout.get("status") or {}

    async def until(self, look: Callable[[dict[str, Any]], Any], patience_s: float = PATIENCE_S) -> dict[str, Any]:
        """Wait until the status is as it should be; the status."""
        seen: dict[str, Any] = {}

        def once() -> bool:
            seen.update(status=self.status)
            return bool(look(seen["status"]))

        try:
            await asyncio.to_thread(self.cluster.until, once, patience_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{_brief(seen.get('status') or {})}\n{self.told()}") from error
        found: dict[str, Any] = seen["status"]
        return found

    async def phase(self, name: str, patience_s: float = PATIENCE_S) -> dict[str, Any]:
        """Wait until the rollout is in a phase; the status."""
        return await self.until(lambda status: status.get("phase") == name, patience_s)

    async def action(self, verb: str, **spec: Any) -> str:
        """Ask for an action, as the admin, on the revision on trial if none is named; the object's uid."""
        revision = spec.pop("revision", "") or (self.status.get("revision") or {}).get("canary", "")
        asked = {"rollout": NAME, "verb": verb, "revision": revision, "requestedBy": "admin", **spec}
        body = {
            "apiVersion": "cohort.dev/v1alpha1",
            "kind": "RolloutAction",
            "metadata": {"generateName": f"{verb.lower()}-"},
            "spec": asked,
        }
        made = await asyncio.to_thread(self.cluster.call, "POST", self._path("rolloutactions"), body)
        return str(made["metadata"]["uid"])

    def _path(self, plural: str) -> str:
        return COLLECTION.format(self.namespace) + plural

    # -- users

    @contextlib.asynccontextmanager
    async def users(self, count: int = 40, **options: Any) -> AsyncIterator[Customers]:
        """Users who come by the Service while the block runs; see `Customers`."""
        service = self.cluster.call("GET", f"/api/v1/namespaces/{self.namespace}/services/{NAME}")
        address = f"http://{service['spec']['clusterIP']}:{service['spec']['ports'][0]['port']}"
        customers = Customers(self.pods, address, lambda: self.status, count, **options)
        async with customers.running():
            yield customers

    # -- its pods

    def proxies(self) -> list[str]:
        """Names of the pods that are not about to end."""
        query = f"?labelSelector=app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component=proxy"
        pods = self.cluster.call("GET", f"/api/v1/namespaces/{self.namespace}/pods{query}")["items"]
        return [pod["metadata"]["name"] for pod in pods if not pod["metadata"].get("deletionTimestamp")]

    def holder(self) -> str:
        """The pod whose controller holds the Lease; empty: nobody does."""
        path = f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases/cohort-{NAME}"
        return str(self.cluster.call("GET", path)["spec"].get("holderIdentity") or "").rpartition("_")[0]

    def controller_pid(self, pod: str) -> int:
        """Process 1 of a pod's controller, as this machine counts: it starts `controller_worker` again."""
        return self.pods.processes(self.namespace)[pod]["controller"]

    def controller_worker(self, pod: str) -> int:
        """The process that does a controller's work; 0: there is none now."""
        return worker(self.pods.processes(self.namespace).get(pod, {}).get("controller", 0))

    def proxy_pid(self, pod: str) -> int:
        """The same for its proxy."""
        return self.pods.processes(self.namespace)[pod]["proxy"]

    def told(self, lines: int = 15) -> str:
        """The last lines of every controller and proxy, for messages of failures."""
        found = []
        for pod in self.proxies():
            for container in ("controller", "proxy"):
                done = self.cluster.run(
                    "kubectl", "-n", self.namespace, "logs", pod, "-c", container, f"--tail={lines}"
                )
                said = "\n".join(
                    line for line in (done.stdout or done.stderr).splitlines() if '"status":200' not in line
                )
                found.append(f"--- {pod} {container}\n{said}")
        return "\n".join(found)

    # -- rights

    def audit(self) -> tuple[set[rights.Right], set[rights.Right]]:
        """What the chart's ServiceAccount has asked for: used, and refused by a 403."""
        user, events = rights.account(self.namespace, NAME), self.cluster.audit()
        return rights.used(events, user), rights.refused(events, user)

    def granted(self) -> set[rights.Right]:
        """What the chart's Role grants it."""
        path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{self.namespace}/roles/{NAME}"
        return rights.granted(self.cluster.call("GET", path)["rules"])


def worker(first: int) -> int:
    """The child of a controller's process 1, which does its work; 0: there is none now."""
    with contextlib.suppress(OSError):
        return next((int(one) for one in Path(f"/proc/{first}/task/{first}/children").read_text().split()), 0)
    return 0


@contextlib.contextmanager
def prepared(cluster: Cluster, pods: PodRunner) -> Iterator[Installation]:
    """A namespace for an installation, for a fixture of any scope; fails if the pod runner itself had a fault."""
    name = cluster.make_namespace(**RESTRICTED)
    yield Installation(Space(cluster, pods, name))
    cluster.mend()
    cluster.call("DELETE", f"/api/v1/namespaces/{name}")
    assert "Traceback" not in pods.log, pods.log


def _sets(sets: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part for one in sets for part in ("--set", one))


def _brief(status: Mapping[str, Any]) -> str:
    """A status without what only machines read."""
    plan = {key: value for key, value in (status.get("plan") or {}).items() if key != "document"}
    return json.dumps({**{key: value for key, value in status.items() if key != "state"}, "plan": plan}, indent=1)
