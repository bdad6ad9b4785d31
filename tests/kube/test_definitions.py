"""An API server refuses what `cohort lint` refuses, and takes what it takes: the same models stand behind both."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.spec import parse_document
from proxy.document import DocumentError
from tests.controller import faulty
from tests.kube.cluster import Cluster, KubeError

Json = dict[str, Any]
ROOT = Path(__file__).parents[2]
PLURALS = {
    "CanaryRollout": "canaryrollouts",
    "AnalysisTemplate": "analysistemplates",
    "RolloutAction": "rolloutactions",
}
ODD: tuple[Any, ...] = ("", "x", "/", "é", "0", "99h", -1, 0, 10**7, 1.5, True, [], {}, ["x", "x"])

HUGE = "a{1000}" * 146  # 146,000 instructions

# Every field that there is, so that each can be spoilt.
VERSION = {"healthCheck": {"path": "/a?b", "interval": "2s", "timeout": "1s", "unhealthy": 2, "healthy": 1}}
FULL = faulty.rollout_value(
    stable={"dns": {"host": "a.example", "port": 80}, "revision": "v1", "tls": {"serverName": "b.example"}} | VERSION,
    canary={"service": {"name": "b", "port": "http"}},
    revisionFrom={"podLabel": "app.kubernetes.io/version"},
    users=[
        {"header": {"name": "X-User", "trust": "Anyone"}},
        {"jwt": {"claim": "sub", "header": "X-Token"}},
        {"cookie": {"name": "uid"}},
        {"clientAddress": {"ipv6Prefix": 56}},
        {"mint": {"maxAge": "720h", "name": "who"}},
    ],
    routes=[
        {
            "name": "staff",
            "matches": [
                {
                    "path": {"type": "RegularExpression", "value": "/a.*"},
                    "headers": [{"name": "X-Staff", "type": "Prefix", "value": "y"}],
                    "queryParams": [{"name": "q", "type": "Present"}],
                    "cookies": [{"name": "c", "type": "Suffix", "value": "z"}],
                    "method": "GET",
                    "hostnames": ["*.shop.example"],
                    "clientNetworks": ["192.0.2.0/24", "2001:db8::/32"],
                }
            ],
            "arm": "canary",
            "always": True,
            "trust": "Anyone",
            "stripPrefix": "/a",
        },
        {"name": "some", "matches": [{"path": {"value": "/b"}}], "split": {"atLeast": 5, "atMost": "50.5"}},
        {"name": "none", "matches": [{"path": {"type": "Exact", "value": "/c"}}], "answer": 404},
    ],
    preview={"path": "/.cohort/try", "access": "Token"},
    mirror={"arm": "canary", "percent": "0.5", "methods": ["GET"]},
    explain="Always",
    onArmDown="Error",
    breaker={"errorPercent": "12.5", "requests": 50, "window": "30s", "minimumUsers": 4},
    **faulty.steps(
        {"setHeaderRoute": {"name": "qa", "match": [{"headerName": "X-Q", "headerValue": {"regex": "y+"}}]}},
        {"setWeight": "0.25"},
        {"pause": {"duration": "1m30s"}},
        {"analysis": {"templates": [{"templateName": "success-rate"}]}},
        {"pause": {}},
        {"setHeaderRoute": {"name": "qa"}},
        analysis={"templates": [{"templateName": "latency"}], "startingStep": 1},
    ),
)
ADDRESSES = faulty.rollout_value(
    stable={"addresses": ["127.0.0.1:9001", "[::1]:9001"], "revision": "v1"},
    canary={"addresses": ["127.0.0.1:9002"], "revision": "v2", "tls": {}},
)
TEMPLATE = faulty.template_value(
    initialDelay="5s",
    failureCondition="!(result[0] >= 0.5 || (result < -1e-3 && 2 != result))",
    failureLimit=1,
    inconclusiveLimit=2,
    consecutiveErrorLimit=3,
    consecutiveSuccessLimit=4,
    provider={
        "cohort": {"metric": "p99", "arm": "stable", "window": "5m", "minimumRequests": 10, "minimumUsers": 2},
    },
)
TEMPLATE["spec"]["dryRun"] = [{"metricName": "ra.e"}]
WHOLE = {"full": FULL, "addresses": ADDRESSES, "template": TEMPLATE}


def create(cluster: Cluster, value: Json, namespace: str = "default", keep: bool = False) -> Json:
    """Create an object with strict validation, or have it only checked; the object as the server has it."""
    value = copy.deepcopy(value) | {"apiVersion": "cohort.dev/v1alpha1"}
    value["metadata"]["namespace"] = namespace
    path = f"/apis/cohort.dev/v1alpha1/namespaces/{namespace}/{PLURALS[value['kind']]}?fieldValidation=Strict"
    made: Json = cluster.call("POST", path + ("" if keep else "&dryRun=All"), value)
    return made


def refusal(cluster: Cluster, value: Json) -> str | None:
    """Why the server does not take an object; None: it does."""
    try:
        create(cluster, value)
    except KubeError as error:
        if error.status not in (400, 422):
            raise
        return str(json.loads(str(error).partition(": ")[2])["message"])
    return None


def is_linted(value: Json) -> bool:
    """Whether lint has nothing against a document."""
    try:
        parse_document(json.dumps(value))
    except DocumentError:
        return False
    return True


def field(fault: str) -> str:
    """The field of the spec that a fault is in: a rule over a list blames the list."""
    found = re.match(r"spec\.\w+", fault)
    return found[0] if found else fault


@pytest.mark.parametrize(("spec", "fault"), faulty.ROLLOUTS)
def test_a_rollout_that_lint_refuses_is_refused(definitions: Cluster, spec: Json, fault: str) -> None:
    """The issue: whatever `cohort lint` refuses the API server refuses too, and says where."""
    said = refusal(definitions, faulty.rollout_value(**spec))
    assert said is not None
    assert field(fault) in said


@pytest.mark.parametrize(("metric", "fault"), faulty.METRICS)
def test_a_template_that_lint_refuses_is_refused(definitions: Cluster, metric: Json, fault: str) -> None:
    """Likewise, conditions included: a grammar with parentheses, checked by a rule."""
    said = refusal(definitions, faulty.template_value(**metric))
    assert said is not None
    assert field(fault) in said


@pytest.mark.parametrize("name", WHOLE)
def test_whatever_is_spoilt_in_a_document_both_refuse(definitions: Cluster, name: str) -> None:
    """Each field in turn without, twice, or with an odd value: what lint refuses the server never takes."""
    assert refusal(definitions, WHOLE[name]) is None
    count = 0
    taken = []
    for path, value in spoilt(WHOLE[name]):
        if not is_linted(value):
            count += 1
            if refusal(definitions, value) is None:
                taken.append(path)
    assert taken == []
    assert count > 200


def spoilt(value: Json) -> Iterator[tuple[str, Json]]:
    """A document with one thing changed, and what that is, for each thing and change."""
    for path in places(value["spec"]):
        for change in (*ODD, "without", "twice"):
            made = copy.deepcopy(value)
            parent: Any = made["spec"]
            for key in path[:-1]:
                parent = parent[key]
            if change == "twice":
                if not isinstance(parent, list):
                    continue
                parent.append(parent[path[-1]])
            elif change == "without":
                del parent[path[-1]]
            else:
                parent[path[-1]] = change
            yield f"{path}: {change!r}", made


def places(value: Any) -> Iterator[tuple[str | int, ...]]:
    """The path of every key and item."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield (key,)
        for path in places(part):
            yield (key, *path)


@pytest.mark.parametrize("name", WHOLE)
def test_defaults_of_the_server_mean_what_the_file_means(definitions: Cluster, namespace: str, name: str) -> None:
    """The server writes defaults into what it stores: read back, it is the very document."""
    made = create(definitions, WHOLE[name], namespace, keep=True)
    value = WHOLE[name] | {"metadata": WHOLE[name]["metadata"] | {"namespace": namespace}}
    back = {key: made[key] for key in ("apiVersion", "kind", "spec")} | {"metadata": value["metadata"]}
    assert parse_document(json.dumps(back)) == parse_document(json.dumps(value))


def test_a_client_that_is_not_strict_loses_what_it_mistyped(definitions: Cluster, namespace: str) -> None:
    """kubernetes.md, schema: such a route is for everyone, which is why kubectl's default is another."""
    value = faulty.rollout_value(**faulty.match(path={"value": "/"}, clientNetwork=["192.0.2.0/24"]))
    assert not is_linted(value)
    assert "unknown field" in str(refusal(definitions, value))
    value |= {"apiVersion": "cohort.dev/v1alpha1", "metadata": {"name": "checkout", "namespace": namespace}}
    path = f"/apis/cohort.dev/v1alpha1/namespaces/{namespace}/canaryrollouts?fieldValidation=Ignore"
    made = definitions.call("POST", path, value)["spec"]["routes"][0]["matches"]
    assert made == [{"path": {"value": "/"}}]


@pytest.mark.parametrize(
    "spec",
    [
        faulty.match(clientNetworks=["192.0.2.0/255.255.255.0"]),
        faulty.match(clientNetworks=["::ffff:192.0.2.1"]),
        faulty.match(clientNetworks=["fe80::1%eth0"]),
        {"stable": {"addresses": ["[0::1]:80"], "revision": "v1"}},
    ],
    ids=["mask", "within", "zone", "spelling"],
)
def test_addresses_have_one_spelling_for_the_server(definitions: Cluster, spec: Json) -> None:
    """What it refuses beyond lint: another spelling of what can be said."""
    value = faulty.rollout_value(**spec)
    assert is_linted(value)
    assert refusal(definitions, value) is not None


@pytest.mark.parametrize("expression", [HUGE, r"\x{100}"], ids=["memory", "byte"])
def test_an_expression_that_no_proxy_can_hold_is_known_to_lint_alone(definitions: Cluster, expression: str) -> None:
    """What the server cannot know: its own expressions have no bound of memory, and are not about bytes."""
    value = faulty.rollout_value(**faulty.match(path={"type": "RegularExpression", "value": expression}))
    assert not is_linted(value)
    assert refusal(definitions, value) is None


def test_the_shortest_rollout_gets_its_defaults(definitions: Cluster, namespace: str) -> None:
    """What `kubectl get -o yaml` shows is what counts."""
    spec = {
        "stable": {"service": {"name": "a", "port": 80}},
        "strategy": {"canary": {"steps": [{"setWeight": 5}]}},
    }
    value = {"kind": "CanaryRollout", "metadata": {"name": "checkout"}, "spec": spec}
    made = create(definitions, value, namespace, keep=True)["spec"]
    assert made["users"] == [{"mint": {"maxAge": "2160h"}}]
    assert made["preview"] == {"path": "/.cohort/preview", "access": "Disabled"}
    assert (made["explain"], made["onArmDown"]) == ("OnRequest", "Stable")


def test_a_document_at_its_bounds_is_checked_within_the_budget(definitions: Cluster) -> None:
    """An API server gives up on rules that cost too much for one object: the largest document is not that one."""
    expression = {"name": "X-A", "type": "RegularExpression", "value": "a{1,9}(b|c)*"}
    full = {"headers": [expression] * 8, "clientNetworks": ["192.0.2.0/24"] * 64}
    routes = [{"name": f"r{i}", "matches": [full] * 4, "arm": "canary"} for i in range(64)]
    addresses = [[f"10.{arm}.{i // 250}.{i % 250}:80" for i in range(256)] for arm in (0, 1)]
    analysis = {"templates": [{"templateName": f"t{i}"} for i in range(8)]}
    value = faulty.rollout_value(
        stable={"addresses": addresses[0], "revision": "v1"},
        canary={"addresses": addresses[1], "revision": "v2"},
        routes=routes,
        **faulty.steps(*[{"analysis": analysis}] * 66, *[faulty.QA] * 16, *[{"setWeight": "0.01"}] * 18),
    )
    assert is_linted(value)
    assert refusal(definitions, value) is None
    metric = faulty.template_value(successCondition="(" * 31 + "result > 1" + ")" * 31)["spec"]["metrics"][0]
    template = faulty.template_value()
    template["spec"] = {
        "metrics": [metric | {"name": f"metric-{i}"} for i in range(32)],
        "dryRun": [{"metricName": "a?" * 50 + f"-{i}$"} for i in range(32)],
    }
    assert is_linted(template)
    assert refusal(definitions, template) is None


@pytest.mark.parametrize("path", sorted((ROOT / "examples").rglob("*.yaml")), ids=lambda path: path.name)
def test_every_example_is_taken_with_strict_validation(definitions: Cluster, path: Path) -> None:
    """Those that are for a cluster's readers too: the issue's item 9."""
    for value in yaml.safe_load_all(path.read_text()):
        if value.get("kind") in PLURALS:  # the values of a chart have none
            assert refusal(definitions, value) is None


def test_the_examples_are_applied_as_their_page_says(definitions: Cluster, namespace: str) -> None:
    """examples/kubernetes: server-side, strict; a second time nothing changes."""
    apply = ("apply", "--server-side", "--validate=strict", "-n", namespace, "-f", str(ROOT / "examples/kubernetes"))
    definitions.kubectl(*apply)
    path = f"/apis/cohort.dev/v1alpha1/namespaces/{namespace}/canaryrollouts"
    before = {
        item["metadata"]["name"]: item["metadata"]["generation"] for item in definitions.call("GET", path)["items"]
    }
    assert len(before) == 6
    definitions.kubectl(*apply)
    after = {
        item["metadata"]["name"]: item["metadata"]["generation"] for item in definitions.call("GET", path)["items"]
    }
    assert after == before


ACTION = {
    "kind": "RolloutAction",
    "metadata": {"generateName": "promote-"},
    "spec": {"rollout": "checkout", "verb": "Promote", "revision": "v2", "requestedBy": "kubernetes-admin"},
}


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"verb": "Start"}, "spec.verb"),
        ({"verb": "SetWeight"}, "spec.weight"),
        ({"weight": 5}, "spec.weight"),
        ({"verb": "SetWeight", "weight": 101}, "spec.weight"),
        ({"reason": "so"}, "spec.reason"),
        ({"requestedBy": ""}, "spec.requestedBy"),
        ({"revision": None}, "spec.revision"),
        ({"rollout": "x" * 53}, "spec.rollout"),
    ],
)
def test_an_action_is_checked(definitions: Cluster, fields: Json, part: str) -> None:
    """kubernetes.md: actions of people."""
    spec = {key: value for key, value in (ACTION["spec"] | fields).items() if value is not None}  # type: ignore[operator]
    said = refusal(definitions, ACTION | {"spec": spec})
    assert said is not None
    assert part in said


def test_an_action_cannot_be_changed(definitions: Cluster, namespace: str) -> None:
    """What somebody asked for stays what he asked for."""
    name = create(definitions, ACTION, namespace, keep=True)["metadata"]["name"]
    path = f"/apis/cohort.dev/v1alpha1/namespaces/{namespace}/rolloutactions/{name}"
    with pytest.raises(KubeError, match="an action cannot be changed"):
        definitions.call("PATCH", path, {"spec": {"verb": "Abort"}}, "application/merge-patch+json")


@pytest.fixture
def status(definitions: Cluster, namespace: str) -> Any:
    """Writes the status of a rollout: by merge patch, as a controller does."""
    create(definitions, ADDRESSES, namespace, keep=True)
    path = f"/apis/cohort.dev/v1alpha1/namespaces/{namespace}/canaryrollouts/checkout/status"

    def write(**fields: Any) -> Json:
        made: Json = definitions.call("PATCH", path, {"status": fields}, "application/merge-patch+json")["status"]
        return made

    write(observedGeneration=1, phase="Pending")
    return write


def test_a_status_is_written_by_the_holder_alone(status: Any) -> None:
    """kubernetes.md, fence: whoever was overtaken is refused, by the object itself."""
    status(leader={"identity": "a", "term": 1})
    status(leader={"identity": "a", "term": 1}, phase="Healthy")
    with pytest.raises(KubeError, match="another controller has taken over"):
        status(leader={"identity": "b", "term": 1})
    status(leader={"identity": "b", "term": 2})
    for stale in ({"identity": "a", "term": 1}, {"identity": "a", "term": 2}, None):
        with pytest.raises(KubeError, match="another controller has taken over"):
            status(leader=stale, phase="Aborted")


def test_the_generation_of_a_plan_never_falls(status: Any) -> None:
    """A holder that thaws cannot bring an old plan back."""
    plan = {"generation": 7, "digest": "d", "replicas": 1, "current": 1, "pending": []}
    status(plan=plan | {"document": {"arms": [{"name": "stable", "weightBp": 10_000}]}})
    assert status(plan=plan | {"current": 0})["plan"]["document"]["arms"][0]["weightBp"] == 10_000
    for lower in ({"generation": 6}, None):
        with pytest.raises(KubeError, match="the generation of a plan never falls"):
            status(plan=lower)
    status(plan={"generation": 8})


def test_a_rollout_that_no_controller_has_seen_says_so(definitions: Cluster, namespace: str) -> None:
    """Without a status kstatus, and so Helm and Flux, would take it for one that is in order."""
    create(definitions, ADDRESSES, namespace, keep=True)
    path = f"/apis/cohort.dev/v1alpha1/namespaces/{namespace}/canaryrollouts/checkout"
    found = definitions.call("GET", path)["status"]
    assert {"observedGeneration": 0, "phase": "Pending"}.items() <= found.items()
    assert "conditions" not in found


def test_a_status_stays(status: Any, definitions: Cluster, namespace: str) -> None:
    """Without it the fence would be open again."""
    status(leader={"identity": "a", "term": 1})
    path = f"/apis/cohort.dev/v1alpha1/namespaces/{namespace}/canaryrollouts/checkout/status"
    with pytest.raises(KubeError, match="another controller has taken over"):
        definitions.call("PATCH", path, {"status": None}, "application/merge-patch+json")


def test_columns_show_where_a_rollout_is(status: Any, definitions: Cluster, namespace: str) -> None:
    """The issue: printer columns, by the short name."""
    status(
        phase="Progressing",
        step={"index": 2, "total": 5, "elapsed": "4m"},
        weight={"programmed": "25.00", "measured": "24.93", "low": "24.71", "high": "25.16"},
        verdict={"decision": "Hold", "reason": "NotEnoughData"},
    )
    shown = definitions.kubectl("get", "cro", "-n", namespace).splitlines()
    assert shown[0].split() == ["NAME", "PHASE", "STEP", "WEIGHT", "MEASURED", "VERDICT", "AGE"]
    assert shown[1].split()[:6] == ["checkout", "Progressing", "2", "25.00", "24.93", "Hold"]
    assert "checkout" in definitions.kubectl("get", "cohort", "-n", namespace)


def test_kubectl_explains_every_field(definitions: Cluster) -> None:
    """Descriptions come with the definition."""
    said = definitions.kubectl("explain", "canaryrollouts.spec.routes.split")
    assert "The common weight is raised to this" in said
