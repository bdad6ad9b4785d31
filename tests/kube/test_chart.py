"""The chart on a real API server: what it renders, what that refuses, an installation's life."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from controller.spec import ControllerSettings
from proxy.config import ProxySettings
from proxy.document import parse
from proxy.plan import Plan
from tests.chart.schema import CHART
from tests.kube.cluster import Cluster
from tests.kube.pods.space import Space
from tests.kube.rights import account, refused

SERVICES = ("rollout.stable.service.name=checkout-stable", "rollout.canary.service.name=checkout-canary")
ROUTES = '[{"name": "staff", "matches": [{"clientNetworks": ["192.0.2.0/24"]}], "arm": "canary"}]'
TEMPLATE = (
    '[{"name": "fast", "metrics": [{"name": "p99", "successCondition": "result[0] < 0.5", '
    '"provider": {"cohort": {"metric": "p99"}}}]}]'
)
SETS = {
    "what-is-needed": (),
    "plain-sidecar": ("controller.nativeSidecar=false",),
    "one-replica": ("proxy.replicas=1",),
    "autoscaling": ("proxy.autoscaling.enabled=true",),
    "cluster-role": ("rbac.clusterRole=true", "serviceAccount.name=other"),
    "nothing-made": (
        "rbac.create=false",
        "rbac.aggregate=false",
        "rbac.admissionPolicy=false",
        "serviceAccount.create=false",
        "keys.existingSecret=mine",
        "rollout.create=false",
        "proxy.podDisruptionBudget.enabled=false",
    ),
    "tls": ("proxy.tlsSecrets={shop,other.shop}", "proxy.proxyProtocol=true", "proxy.trustedPeers={10.0.0.0/8}"),
    "exposed": (
        "proxy.service.type=LoadBalancer",
        "proxy.service.loadBalancerClass=example.com/lb",
        "proxy.service.externalTrafficPolicy=Local",
        "proxy.service.annotations.a=b",
    ),
    "placed": (
        "proxy.nodeSelector.disk=ssd",
        "proxy.priorityClassName=system-cluster-critical",
        "proxy.tolerations[0].operator=Exists",
        "proxy.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey=zone",
    ),
    "labelled": (
        "commonLabels.team=shop",
        "proxy.podLabels.tier=edge",
        "proxy.podAnnotations.note=one",
        "nameOverride=entry",
        "fullnameOverride=shop-entry",
        "image.registry=registry.example",
        "image.tag=1.2.3",
        "image.pullSecrets={pull}",
    ),
    "policy": (
        "networkPolicy.enabled=true",
        "networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.name=monitoring",
        "networkPolicy.trafficFrom[0].podSelector.matchLabels.app=front",
        "networkPolicy.controlFrom[0].podSelector.matchLabels.app=ops",
    ),
    "seen-and-loaded": (
        "monitoring.dashboards.enabled=true",
        "loadtest.enabled=true",
        "loadtest.workers=2",
        "loadtest.web=true",
        "loadtest.spawnRate=2",
        "networkPolicy.enabled=true",
    ),
    "extended": (
        "proxy.extraArgs={--help}",
        "controller.extraArgs={--help}",
        "proxy.extraEnv[0].name=A",
        "proxy.extraEnv[0].value=b",
        "proxy.limits.bodyBytes=1000",
        "proxy.timeouts.responseHead=30s",
        "proxy.extraVolumes[0].name=more",
        "proxy.extraVolumeMounts[0].name=more",
        "proxy.extraVolumeMounts[0].mountPath=/more",
    ),
    "named-port": ("rollout.stable.service.port=http", "proxy.initialPlanPort=8000"),
}


def render(cluster: Cluster, namespace: str, *sets: str, release: str = "shop", json_sets: tuple[str, ...] = ()) -> Any:
    """The chart's objects."""
    options = [part for one in (*SERVICES, *sets) for part in ("--set", one)]
    options += [part for one in json_sets for part in ("--set-json", one)]
    command = ("template", release, str(CHART), "-n", namespace, "--kube-version", "1.36.4", "--include-crds=false")
    return [one for one in yaml.safe_load_all(cluster.helm(*command, *options)) if one]


def one(objects: Any, kind: str, suffix: str = "") -> Any:
    """The object of a kind whose name ends so."""
    (found,) = [item for item in objects if item["kind"] == kind and item["metadata"]["name"].endswith(suffix)]
    return found


def try_out(cluster: Cluster, namespace: str, objects: Any) -> None:
    """What the API server says of objects without keeping them, unknown fields refused."""
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    options = ("--server-side", "--dry-run=server", "--validate=strict", "-n", namespace, "-f", "-")
    warned = cluster.run("kubectl", "apply", *options, input=text)
    assert warned.returncode == 0, warned.stderr
    assert "violate" not in warned.stderr


def test_lint_finds_nothing(cluster: Cluster) -> None:
    told = cluster.helm("lint", "--strict", str(CHART), *(part for one in SERVICES for part in ("--set", one)))
    assert "0 chart(s) failed" in told


@pytest.mark.parametrize("sets", SETS.values(), ids=SETS.keys())
def test_the_api_server_takes_what_is_rendered(
    cluster: Cluster, definitions: Cluster, restricted: str, sets: tuple[str, ...]
) -> None:
    """Every object by strict validation; a Pod of every template in a namespace that enforces `restricted`."""
    objects = render(cluster, restricted, *sets)
    try_out(cluster, restricted, objects)
    for item in objects:
        template = item["spec"]["template"] if item["kind"] in ("Deployment", "Job") else None
        if template:
            spec = template["spec"] | {"restartPolicy": "Never"} if item["kind"] == "Job" else template["spec"]
            spec = {name: value for name, value in spec.items() if name != "priorityClassName"}
            metadata = {"name": "one", "labels": template["metadata"]["labels"]}
            account = spec["serviceAccountName"]
            if not cluster.exists(f"/api/v1/namespaces/{restricted}/serviceaccounts/{account}"):
                cluster.apply(
                    {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}}, namespace=restricted
                )
            try_out(cluster, restricted, [{"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}])


def test_routes_and_templates_from_values_are_taken(cluster: Cluster, definitions: Cluster, namespace: str) -> None:
    """A rollout as a team writes it, as values."""
    values = (f"rollout.routes={ROUTES}", f"rollout.analysisTemplates={TEMPLATE}", 'rollout.users=[{"mint": {}}]')
    objects = render(cluster, namespace, json_sets=values)
    assert one(objects, "CanaryRollout")["spec"]["routes"][0]["name"] == "staff"
    assert one(objects, "AnalysisTemplate", "fast")
    try_out(cluster, namespace, objects)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("proxy.limits.nonsense=1", "'nonsense' not allowed"),
        ("nonsense=1", "'nonsense' not allowed"),
        ("proxy.replicas=many", "/proxy/replicas"),
        ("controller.leaseDuration=15", "/controller/leaseDuration"),
        ("controller.leaseDuration=1s", "/controller/leaseDuration"),
        ("proxy.trustedPeers={10.0.0.0/99}", "/proxy/trustedPeers/0"),
        ("loadtest.think=long", "/loadtest/think"),
        ("rollout.stable.service.name=", "rollout.stable.service.name is needed"),
        ("rollout.explain=Sometimes", "/rollout/explain"),
        ("commonLabels.app\\.kubernetes\\.io/name=x", "invalid propertyName"),
        ("image.digest=latest", "/image/digest"),
        ("rollout.routes[0].matches[0].clientNetwork=x", "'clientNetwork' not allowed"),
    ],
)
def test_values_that_mean_nothing_are_refused(cluster: Cluster, setting: str, message: str) -> None:
    """By name, before anything is sent: a mistyped clientNetworks would leave a rule for everybody."""
    with pytest.raises(AssertionError, match=re.escape(message)):
        render(cluster, "shop", setting)


@pytest.mark.parametrize(("setting", "word"), [("", "image"), ("rollout.revisionFrom.podLabel=v", "revision")])
def test_the_notes_say_what_begins_a_rollout(cluster: Cluster, setting: str, word: str) -> None:
    """By what the pods are told apart."""
    sets = ("rollout.stable.service.name=s", "rollout.canary.service.name=c", setting)
    told = cluster.helm(
        "install", "shop", str(CHART), "--dry-run=client", *(f"--set={one}" for one in sets if one)
    )  # fmt: skip
    assert f"c have another {word} than those behind s" in told


@pytest.mark.parametrize("sets", SETS.values(), ids=SETS.keys())
def test_a_proxy_takes_its_settings_and_its_initial_plan(cluster: Cluster, sets: tuple[str, ...]) -> None:
    """What stands in the ConfigMaps is read by the very models."""
    objects = render(cluster, "shop", *sets)
    settings = parse(ProxySettings, one(objects, "ConfigMap", "-config")["data"]["proxy.yaml"])
    controller = parse(ControllerSettings, one(objects, "ConfigMap", "-config")["data"]["controller.yaml"])
    assert controller.kube is not None
    assert one(objects, "Service", controller.kube.control_service)["spec"]["publishNotReadyAddresses"]
    (deployment,) = [item for item in objects if item["metadata"]["labels"]["app.kubernetes.io/component"] == "proxy"
                     and item["kind"] == "Deployment"]  # fmt: skip
    grace = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace > settings.timeouts.lame_duck + settings.timeouts.drain
    plan = parse(Plan, one(objects, "ConfigMap", "-plan")["data"]["plan.yaml"])
    assert plan.arms[0].dns is not None
    assert plan.arms[0].dns.host == "checkout-stable.shop.svc.cluster.local"
    assert plan.arms[0].weight_bp == 10_000


def test_a_selector_never_changes(cluster: Cluster) -> None:
    """It is immutable; and one that changed would let the Service forget its pods."""

    def selectors(*sets: str) -> list[Any]:
        objects = render(cluster, "shop", *sets)
        found = [one(objects, "Service", "shop-cohort")["spec"]["selector"]]
        return [*found, *(item["spec"]["selector"]["matchLabels"] for item in objects if item["kind"] == "Deployment")]

    assert {tuple(sorted(item)) for item in selectors("loadtest.enabled=true")} == {
        ("app.kubernetes.io/component", "app.kubernetes.io/instance", "app.kubernetes.io/name")
    }
    assert selectors() == selectors("commonLabels.a=b", "proxy.podLabels.c=d", "image.tag=v2", "proxy.replicas=7")


def test_pods_roll_for_settings_and_not_for_the_rollout(cluster: Cluster) -> None:
    """Plans are live; settings are read at a start."""

    def template(*sets: str) -> Any:
        return one(render(cluster, "shop", *sets), "Deployment")["spec"]["template"]

    assert template() == template("rollout.explain=Never", "rollout.onArmDown=Error")
    assert template() != template("proxy.limits.bodyBytes=1000")


def test_notes_tell_the_next_command(cluster: Cluster, definitions: Cluster, namespace: str) -> None:
    options = [part for one in SERVICES for part in ("--set", one)]
    told = cluster.helm("install", "shop", str(CHART), "-n", namespace, "--dry-run=client", *options)
    assert f"kubectl -n {namespace} rollout status deployment/shop-cohort" in told
    assert f"helm -n {namespace} test shop" in told
    assert "apply --server-side" in told


def helm(space: Space, *arguments: str, sets: tuple[str, ...] = ()) -> str:
    """Helm in the space's namespace; one proxy, and no rollout but what the values say."""
    options = [part for one in (*SERVICES, "proxy.replicas=1", *sets) for part in ("--set", one)]
    return space.cluster.helm(*arguments, "-n", space.name, *options)


def test_keys_are_made_once_and_outlive_an_installation(cluster: Cluster, definitions: Cluster, space: Space) -> None:
    """By a Job with its own rights, in a `restricted` namespace: no upgrade and no rollback deals users anew."""
    path = f"/api/v1/namespaces/{space.name}/secrets/shop-cohort-keys"
    assert "STATUS: deployed" in helm(space, "install", "shop", str(CHART))
    made = cluster.call("GET", path)["data"]
    assert {"cookie", "identity", "split", "preview", "synthetic", "control", "tls.crt", "tls.key"} == set(made)
    selector = cluster.call("GET", f"/apis/apps/v1/namespaces/{space.name}/deployments/shop-cohort")["spec"]["selector"]
    helm(space, "upgrade", "shop", str(CHART), sets=("proxy.limits.bodyBytes=1000", "commonLabels.team=shop"))
    deployment = cluster.call("GET", f"/apis/apps/v1/namespaces/{space.name}/deployments/shop-cohort")
    assert deployment["spec"]["selector"] == selector
    cluster.helm("rollback", "shop", "1", "-n", space.name)
    config = cluster.call("GET", f"/api/v1/namespaces/{space.name}/configmaps/shop-cohort-config")
    assert "bodyBytes" not in config["data"]["proxy.yaml"]
    assert cluster.call("GET", path)["data"] == made
    cluster.helm("uninstall", "shop", "-n", space.name)
    assert cluster.call("GET", path)["data"] == made
    assert refused(cluster.audit(), account(space.name, "shop-cohort-keys")) == set()


def test_people_may_ask_for_what_they_were_given(cluster: Cluster, definitions: Cluster, namespace: str) -> None:
    """Rights by verb: one who may abort may not promote, and nobody asks in another's name."""
    policy = [item for item in render(cluster, namespace) if item["kind"].startswith("ValidatingAdmissionPolicy")]
    rules = [
        {"apiGroups": ["cohort.dev"], "resources": ["rolloutactions", "canaryrollouts/abort"], "verbs": ["create"]}
    ]
    group = "rbac.authorization.k8s.io"
    role = {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": {"name": "aborter"}, "rules": rules}
    binding = {
        "apiVersion": f"{group}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "aborter"},
        "roleRef": {"apiGroup": group, "kind": "Role", "name": "aborter"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": namespace}],
    }
    cluster.apply(role, binding, *policy, namespace=namespace)
    user, kubeconfig = account(namespace, "default"), cluster.kubeconfig_of(namespace, "default")

    def ask(verb: str, name: str, by: str) -> str:
        spec = {"rollout": "checkout", "verb": verb, "revision": "v2", "requestedBy": by}
        action = {"apiVersion": "cohort.dev/v1alpha1", "kind": "RolloutAction", "metadata": {"name": name}}
        done = cluster.run(
            "kubectl", "create", "--dry-run=server", "-n", namespace, "-f", "-",
            input=json.dumps(action | {"spec": spec}), kubeconfig=kubeconfig,
        )  # fmt: skip
        return done.stderr

    refusal = "may not Promote checkout: that needs the verb create on canaryrollouts/promote"
    cluster.until(lambda: refusal in ask("Promote", "one", user))  # a policy counts within a second or two
    assert ask("Abort", "two", user) == ""
    assert f"requestedBy: expected {user}, got anna" in ask("Abort", "three", "anna")
    cluster.kubectl("delete", *(f"{item['kind']}/{item['metadata']['name']}" for item in policy))
