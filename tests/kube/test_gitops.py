"""GitOps on a real API server: nobody else writes what Git owns, and who waits reads the status right."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.events import Verb
from controller.state import Phase
from tests.chart.schema import CHART
from tests.controller.test_status import show
from tests.controller.world import World, document
from tests.docs.gitops import health, manifest
from tests.kube.cluster import Cluster, KubeError
from tests.kube.git import Git, tracked
from tests.kube.installation import CANARY, NAME, RELEASE, STABLE, Installation, prepared, shop
from tests.kube.pods.session import PodRunner
from tests.kube.pods.space import service
from tests.kube.test_chart import SETS, render

FIRST, SECOND = "kubectl", "argocd-controller"  # who applies Git: the team's hand at first, a tool every two seconds
EVERY_S = 2.0
STEPS: list[dict[str, Any]] = [{"setWeight": 20}, {"pause": {}}, {"setWeight": 60}, {"pause": {"duration": "3s"}}]
HEALTH = {  # docs/gitops.md; a phase is seen with the conditions of the moment
    "Pending": {"Progressing"},
    "Healthy": {"Healthy", "Progressing"},
    "Progressing": {"Progressing"},
    "Paused": {"Suspended"},
    "Holding": {"Suspended"},
    "Promoting": {"Progressing"},
    "Aborted": {"Degraded"},
    "Degraded": {"Degraded"},
}
ADDRESSES = {
    "stable": {"addresses": ["192.0.2.1:80"], "revision": "v1"},
    "canary": {"addresses": ["192.0.2.2:80"], "revision": "v2"},
    "users": [{"mint": {}}],
    "strategy": {"canary": {"steps": [{"setWeight": 5}, {"pause": {}}]}},
}
TRIAL = document({"setWeight": 5}, {"pause": {}})
ROLLOUT = {
    "apiVersion": "cohort.dev/v1alpha1",
    "kind": "CanaryRollout",
    "metadata": {"name": "checkout"},
    "spec": ADDRESSES,
}


def is_within(given: Any, stored: Any) -> bool:
    """Whether a merge of what is given changes nothing: objects field by field, lists as a whole."""
    if isinstance(given, dict) and isinstance(stored, dict):
        return all(key in stored and is_within(value, stored[key]) for key, value in given.items())
    return bool(given == stored)


def rollout_path(namespace: str, name: str = "checkout") -> str:
    return f"/apis/cohort.dev/v1alpha1/namespaces/{namespace}/canaryrollouts/{name}"


def write(cluster: Cluster, namespace: str, status: dict[str, Any], query: str = "") -> None:
    """A status as the controller writes it: whole."""
    status = {key: value for key, value in status.items() if key != "resourceVersion"}
    body = [{"op": "replace", "path": "/status", "value": status}]
    cluster.call("PATCH", f"{rollout_path(namespace)}/status{query}", body, "application/json-patch+json")


# The whole of a rollout


@pytest.fixture
def installed(definitions: Cluster, pods: PodRunner) -> Iterator[Installation]:
    with prepared(definitions, pods) as installation:
        yield installation


class Watched:
    """An installation whose Git a second manager applies again and again, compared at every step.

    Attributes:
        applied: How often all of it was applied.
        seen: Each phase with the step and the weight, in order.
        faults: What differed, conflicted or was judged wrongly.
    """

    def __init__(self, shop: Installation) -> None:
        self.shop = shop
        self.git = Git(shop.cluster, shop.namespace)
        self.applied = 0
        self.seen: list[tuple[str, int, str]] = []
        self.faults: list[str] = []
        self._turn = asyncio.Lock()  # a commit is applied by its first manager before the second one sees it

    async def commit(self, *objects: dict[str, Any]) -> None:
        """A commit, applied at once by the first manager."""
        async with self._turn:
            self.git.commit(*objects)
            await asyncio.to_thread(self.git.apply, FIRST, "--force-conflicts")
            await asyncio.to_thread(self.git.apply, SECOND)

    async def deploy(self, name: str, version: str) -> None:
        await self.commit(deployment(name, version))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Both go on while the block runs."""
        over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work(over)) for work in (self._apply, self._compare)]
            try:
                yield
            finally:
                over.set()
                await asyncio.wait(tasks)

    async def _apply(self, over: asyncio.Event) -> None:
        while not over.is_set():
            async with self._turn:
                try:
                    await asyncio.to_thread(self.git.apply, SECOND)
                    self.applied += 1
                except AssertionError as error:
                    self.faults.append(str(error))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), EVERY_S)

    async def _compare(self, over: asyncio.Event) -> None:
        while not over.is_set():
            rollout = await asyncio.to_thread(lambda: self.shop.rollout)
            status = rollout["status"]
            step, weight = status.get("step") or {}, status.get("weight") or {}
            now = (status["phase"], step.get("index", -1), weight.get("programmed", ""))
            if not self.seen or self.seen[-1] != now:
                self.seen.append(now)
                if health(rollout)[0] not in HEALTH[now[0]]:
                    self.faults.append(f"{now}: {health(rollout)}")
                async with self._turn:
                    found = await asyncio.to_thread(self.git.differences, SECOND)
                self.faults += [f"{now}: {each}" for each in found]
            await asyncio.sleep(0.1)

    async def kubectl_finds_nothing(self) -> None:
        """`kubectl diff`, too; it compares the status as well, which may be written while it looks: once more then."""
        options = ("--server-side", f"--field-manager={SECOND}")
        for _ in range(5):
            async with self._turn:
                if not (found := await asyncio.to_thread(self.git.diff, *options)):
                    return
        self.faults.append(found)


def deployment(name: str, version: str) -> dict[str, Any]:
    """One version of the shop, without the empty command, of which a server keeps nothing."""
    made = shop(name, version, 0.0, 1)
    for container in made["spec"]["template"]["spec"]["containers"]:
        container.pop("command", None)
    return made


def in_git(shop: Installation) -> list[dict[str, Any]]:
    """All that the chart renders but what Helm and Argo CD run as hooks, and the definitions."""
    command = ("template", RELEASE, str(CHART), "-n", shop.namespace, "--no-hooks", "--include-crds", "-f", "-")
    text = shop.cluster.helm(*command, "--kube-version", "1.36.4", input=json.dumps(shop.values))
    return [one for one in yaml.safe_load_all(text) if one]


@pytest.mark.slow
@pytest.mark.timeout(900)  # of a machine that does much else
async def test_a_second_manager_applies_git_through_a_whole_rollout_and_nothing_differs(
    installed: Installation,
) -> None:
    """The issue: every two seconds, without a conflict; Helm was the first manager, and the difference stays empty."""
    installed.values["proxy"]["replicas"] = 2
    await installed.install(strategy={"canary": {"steps": STEPS}})
    watched = Watched(installed)
    await watched.commit(*in_git(installed), *(service(name) for name in (STABLE, CANARY)))
    await watched.commit(*(deployment(name, "v1") for name in (STABLE, CANARY)))
    kinds = {kind for kind, _ in watched.git.objects}
    assert {"CanaryRollout", "AnalysisTemplate", "CustomResourceDefinition", "Deployment", "Role"} <= kinds
    async with installed.users(6) as users, watched.running():
        await users.more(20)
        await watched.deploy(CANARY, "v2")
        before = watched.git.versions()
        await installed.phase("Paused")
        await watched.kubectl_finds_nothing()
        await asyncio.to_thread(upgrade_and_wait, installed)
        await installed.action("Promote")
        await installed.phase("Promoting")
        await watched.kubectl_finds_nothing()
        assert watched.git.versions() == before
        await watched.deploy(STABLE, "v2")
        before = watched.git.versions()
        await asyncio.to_thread(wait_for_stable, installed, "v2")
        await installed.phase("Healthy")
        assert watched.git.versions() == before

        await watched.deploy(CANARY, "v3")
        await installed.until(lambda s: s["phase"] == "Paused" and s["revision"].get("canary") == "v3")
        await watched.deploy(CANARY, "v2")  # a revert in mid-rollout: nothing is on trial any more
        status = await installed.phase("Healthy")
        assert status["weight"]["programmed"] == "0.00"
        assert "canary" not in status["revision"]

        await watched.deploy(CANARY, "v4")
        before = watched.git.versions()
        await installed.phase("Paused")
        await installed.action("Abort", reason="slow")
        await installed.phase("Aborted")
        await watched.kubectl_finds_nothing()
        assert watched.git.versions() == before
        await watched.deploy(CANARY, "v2")
        await installed.phase("Healthy")
        await users.more(20)
    users.check()
    assert watched.faults == []
    assert watched.applied >= 5
    phases = [phase for phase, _, _ in watched.seen]
    assert {"Healthy", "Paused", "Promoting", "Aborted"} <= set(phases)
    assert {"0.00", "20.00", "100.00"} <= {weight for _, _, weight in watched.seen}
    # Deployments have their revision from their controller; all else has been written by who applied Git.
    assert watched.git.managers() <= {FIRST, SECOND, "helm", "kube-controller-manager", "kube-apiserver"}
    used, refused = installed.audit()
    writes = {right for right in used if right[2] not in ("get", "list", "watch")}
    assert {right[1] for right in writes} <= {"canaryrollouts/status", "rolloutactions", "leases", "events"}
    assert refused == set()
    assert tracked(_made_meanwhile(installed)) == []
    watched.git.remove()


def upgrade_and_wait(shop: Installation) -> None:
    """As a pipeline upgrades cohort itself: it is not held up, nor taken back, by a trial that waits for a person."""
    options = ("--wait", "--rollback-on-failure", "--timeout=110s", "-n", shop.namespace, "-f", "-")
    told = shop.cluster.helm("upgrade", RELEASE, str(CHART), *options, input=json.dumps(shop.values))
    assert "STATUS: deployed" in told


def wait_for_stable(shop: Installation, revision: str) -> None:
    """As a pipeline waits for the end of a release, by the name that its pods have."""
    shop.space.kubectl(
        "wait", f"canaryrollout/{NAME}", f"--for=jsonpath={{.status.revision.stable}}={revision}", "--timeout=110s"
    )


def _made_meanwhile(shop: Installation) -> list[dict[str, Any]]:
    """What cohort and people have made: actions, the Lease, Events, the Secret with the keys."""
    places = {
        "/apis/cohort.dev/v1alpha1/namespaces/{}/rolloutactions": "",
        "/apis/coordination.k8s.io/v1/namespaces/{}/leases": "",
        "/api/v1/namespaces/{}/events": "cohort.dev/controller",
        "/api/v1/namespaces/{}/secrets": f"{NAME}-keys",
    }
    made = []
    for place, who in places.items():
        items = shop.cluster.call("GET", place.format(shop.namespace))["items"]
        mine = [one for one in items if who in ("", one.get("reportingComponent"), one["metadata"]["name"])]
        assert mine, place
        made += mine
    return made


# What the server adds


def test_defaults_and_an_autoscaler_are_no_difference(definitions: Cluster, namespace: str) -> None:
    """A server-side difference is empty with every default written in, and with replicas that another one owns."""
    git = Git(definitions, namespace)
    match = {"path": {"value": "/staff"}, "headers": [{"name": "X-Staff", "value": "yes"}]}
    routes = json.dumps([{"name": "staff", "matches": [match], "arm": "canary"}])
    everything = ("what-is-needed", "autoscaling", "tls", "exposed", "placed", "policy", "seen-and-loaded", "extended")
    sets = [one for name in everything for one in SETS[name] if "priorityClass" not in one]
    objects = render(definitions, namespace, *sets, json_sets=(f"rollout.routes={routes}",), release="x")
    git.commit(*(one for one in objects if "helm.sh/hook" not in one["metadata"].get("annotations", {})))
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}}
    definitions.apply(quota | {"spec": {"hard": {"pods": "0"}}}, namespace=namespace)  # it is about objects alone
    git.apply(FIRST)
    git.apply(SECOND)
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments/x-cohort"
    scale = [{"op": "replace", "path": "/spec/replicas", "value": 7}]
    definitions.call("PATCH", f"{path}/scale", scale, "application/json-patch+json")
    stored = definitions.call("GET", rollout_path(namespace, "x-cohort"))["spec"]
    assert stored["breaker"]["window"] == "10s"
    assert git.differences(SECOND) == []
    for item in git.objects.values():
        if item["apiVersion"].startswith("cohort.dev"):  # nor do those find any who compare by themselves
            assert is_within(item["spec"], git.live(item)["spec"])
    git.apply(SECOND)
    assert definitions.call("GET", path)["spec"]["replicas"] == 7
    options = ("--server-side", f"--field-manager={SECOND}")
    assert git.diff(*options) == ""
    definitions.call("PATCH", path, {"spec": {"minReadySeconds": 1}}, "application/merge-patch+json")
    definitions.call("PATCH", path, {"metadata": {"labels": {"helm.sh/chart": "x"}}}, "application/merge-patch+json")
    (found,) = git.differences(SECOND)  # whoever adds a field takes nothing away; whoever changes one is found
    assert found.startswith("Deployment x-cohort")
    assert "conflict" in found
    git.remove()


# Who waits


def test_helm_and_kubectl_wait_for_ready_and_not_for_the_end_of_a_trial(
    definitions: Cluster, namespace: str, tmp_path: Path
) -> None:
    """kstatus as Helm 4 has it: not seen is in progress, a trial and an abort are current, a bad document is not."""
    (tmp_path / "templates").mkdir()
    (tmp_path / "Chart.yaml").write_text("{apiVersion: v2, name: one, version: 0.1.0}")
    (tmp_path / "templates/rollout.yaml").write_text(json.dumps(ROLLOUT))
    world = World(TRIAL).until(Phase.PAUSED)
    paused = show(world)
    world.ask(Verb.ABORT)
    aborted = show(world.until(Phase.ABORTED).run(2))
    bad = show(world, problem="spec.canary: names no Service")
    install = ("upgrade", "--install", "one", str(tmp_path), "-n", namespace, "--wait", "--timeout")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(definitions.helm, *install, "90s")
        definitions.until(lambda: definitions.exists(rollout_path(namespace)))
        with pytest.raises(TimeoutError):
            waiting.result(1.0)
        write(definitions, namespace, paused)
        assert "STATUS: deployed" in waiting.result(60.0)
    write(definitions, namespace, aborted)
    definitions.helm(*install, "90s")
    ready = ("wait", "canaryrollout/checkout", "-n", namespace, "--for=condition=Ready")
    definitions.kubectl(*ready, "--timeout=60s")
    definitions.kubectl(*ready[:-1], "--for=jsonpath={.status.phase}=Aborted", "--timeout=60s")
    write(definitions, namespace, bad)
    late = definitions.run("helm", *install, "1s")
    assert late.returncode != 0
    assert "CanaryRollout" in late.stderr
    assert "InProgress" in late.stderr
    assert definitions.run("kubectl", *ready, "--timeout=1s").returncode != 0


@pytest.fixture
def flux(definitions: Cluster, namespace: str) -> Iterator[Any]:
    """What Flux would say of a status by the page's expressions: the API server's own CEL runs them."""
    definitions.apply(ROLLOUT, namespace=namespace)
    (found,) = manifest("Kustomization")["spec"]["healthCheckExprs"]
    bound = {
        name: re.sub(r"\bstatus\.(?=phase|conditions)", "object.status.", found[name]) for name in ("failed", "current")
    }
    name = f"health-{namespace}"
    base = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolic"
    status = {"apiGroups": ["cohort.dev"], "apiVersions": ["*"], "resources": ["canaryrollouts/status"]}
    rules = [status | {"operations": ["UPDATE"]}]
    checks = [{"expression": f"!({text})", "message": f"it is {name}"} for name, text in bound.items()]
    policy = {"matchConstraints": {"resourceRules": rules}, "validations": checks, "failurePolicy": "Fail"}
    where = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    binding = {"policyName": name, "validationActions": ["Deny"], "matchResources": where}
    definitions.call("POST", f"{base}ies", {"metadata": {"name": name}, "spec": policy})
    definitions.call("POST", f"{base}ybindings", {"metadata": {"name": name}, "spec": binding})

    def said(status: dict[str, Any]) -> str:
        try:
            write(definitions, namespace, status, "?dryRun=All")
        except KubeError as error:
            return re.findall(r"denied request: it is (\w+)", str(error))[0]
        return "in progress"

    aborted = World(TRIAL).until(Phase.PAUSED)
    aborted.ask(Verb.ABORT)
    definitions.until(lambda: said(show(aborted.until(Phase.ABORTED))) == "failed")  # a policy counts after a moment
    yield said
    definitions.call("DELETE", f"{base}ybindings/{name}")
    definitions.call("DELETE", f"{base}ies/{name}")


def test_expressions_for_flux_say_what_the_page_says(flux: Any) -> None:
    """In the order of Flux: failed, else current, else in progress."""
    world = World(TRIAL)
    assert flux(show(world)) == "in progress"
    assert flux(show(world.until(Phase.PAUSED))) == "current"
    assert flux(show(world, problem="spec.canary: names no Service")) == "failed"
    world.proxies["unix:1"].refuses_latch = True
    world.ask(Verb.ABORT)
    assert flux(show(world)) == "failed"
    assert flux(show(World(document({"setWeight": 50})).until(Phase.HEALTHY))) == "current"
