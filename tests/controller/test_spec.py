"""Documents of a team: what is read, and every fault with its field path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.spec import (
    AnalysisTemplate,
    CanaryRollout,
    ControllerSettings,
    cross_faults,
    find_template,
    parse_document,
    template_metrics,
)
from controller.version import endpoint
from proxy.document import DocumentError, parse, validate
from tests.controller.faulty import METRICS, ROLLOUTS, rollout_value, steps, template

EXAMPLES = Path(__file__).parents[2] / "examples" / "rollout"


def faults_of(value: dict[str, Any]) -> list[str]:
    with pytest.raises(DocumentError) as raised:
        parse_document(json.dumps(value))
    return [str(fault) for fault in raised.value.faults]


def test_the_example_by_name_is_good() -> None:
    document = parse_document((EXAMPLES.parent / "by-name.yaml").read_bytes())
    assert isinstance(document, CanaryRollout)
    assert document.spec.canary is not None
    assert document.spec.canary.dns is not None


def test_the_examples_are_good_and_refer_to_each_other() -> None:
    """What the repository shows must work as it stands."""
    documents = [parse_document(path.read_bytes()) for path in sorted(EXAMPLES.glob("*.yaml"))]
    templates = [d for d in documents if isinstance(d, AnalysisTemplate)]
    rollouts = [d for d in documents if isinstance(d, CanaryRollout)]
    assert [rollout.key for rollout in rollouts] == ["shop/checkout"]
    assert cross_faults(rollouts[0], templates) == []


def test_a_document_survives_being_written_and_read() -> None:
    """parse then serialise is the identity: the state keeps documents as JSON."""
    for path in EXAMPLES.glob("*.yaml"):
        document = parse_document(path.read_bytes())
        again = parse_document(document.model_dump_json(by_alias=True, exclude_unset=True))
        assert again == document


def test_steps_read_as_argo_writes_them() -> None:
    """surface.md, strategy.canary.steps."""
    value = rollout_value(
        **steps(
            {"setHeaderRoute": {"name": "qa", "match": [{"headerName": "X-QA", "headerValue": {"regex": "a.*"}}]}},
            {"setWeight": "0.25"},
            {"pause": {"duration": "10m"}},
            {"analysis": {"templates": [{"templateName": "success-rate"}]}},
            {"pause": {}},
            {"setHeaderRoute": {"name": "qa"}},
        )
    )
    rollout = parse_document(yaml.safe_dump(value))
    assert isinstance(rollout, CanaryRollout)
    read = rollout.spec.strategy.canary.steps
    assert [str(step) for step in read] == [
        "setHeaderRoute qa",
        "setWeight 0.25",
        "pause 10m",
        "analysis success-rate",
        "pause",
        "setHeaderRoute qa",
    ]
    assert read[1].set_weight == 25
    assert read[0].set_header_route is not None
    route = read[0].set_header_route.route
    assert route is not None
    assert (route.matches[0].type, route.matches[0].value) == ("RegularExpression", "a.*")
    assert read[5].set_header_route is not None
    assert read[5].set_header_route.route is None


@pytest.mark.parametrize(("spec", "fault"), ROLLOUTS)
def test_a_fault_is_named_with_its_path(spec: dict[str, Any], fault: str) -> None:
    """House rule: validated whole, every fault with its field path; fields that do not work yet are unknown."""
    found = faults_of(rollout_value(**spec))
    assert any(line.startswith(fault) for line in found), found


def test_every_fault_is_reported_at_once() -> None:
    """A person mends all of it in one go."""
    value = rollout_value(users=[], **steps({"setWeight": 200}, {"pause": {"until": "later"}}))
    assert len(faults_of(value)) == 3


def test_a_rollout_without_canary_or_users_is_complete() -> None:
    """The first deploy has nothing to try; every browser keeps a minted cookie."""
    value = rollout_value()
    del value["spec"]["canary"]
    rollout = parse_document(yaml.safe_dump(value))
    assert isinstance(rollout, CanaryRollout)
    assert rollout.spec.canary is None
    assert [user.label for user in rollout.spec.users] == ["mint"]


@pytest.mark.parametrize("kind", [None, "Plan", ["CanaryRollout"], 3])
def test_another_kind_is_refused(kind: Any) -> None:
    """The folder holds rollouts and templates."""
    assert faults_of({"kind": kind}) == [f"kind: expected one of CanaryRollout, AnalysisTemplate, got {kind!r}"]


@pytest.mark.parametrize(("metric", "fault"), METRICS)
def test_a_template_is_checked(metric: dict[str, Any], fault: str) -> None:
    """Argo's own rules for metrics, and that no metric is good whatever it measures."""
    with pytest.raises(DocumentError) as raised:
        template(**metric)
    assert any(str(found).startswith(fault) for found in raised.value.faults), raised.value


def test_counts_follow_argo() -> None:
    """Without interval one measurement, with interval and no count no end."""
    assert template(interval=None, count=None).spec.metrics[0].effective_count == 1
    assert template(count=None).spec.metrics[0].effective_count is None
    assert template(count=None).spec.metrics[0].is_endless
    assert not template(count=None, consecutiveSuccessLimit=2).spec.metrics[0].is_endless


def test_dry_run_names_metrics_by_expression() -> None:
    """Argo's dryRun: an expression found in the name; one that covers nothing is a fault."""
    value: dict[str, Any] = yaml.safe_load((EXAMPLES / "success-rate.yaml").read_text())
    value["spec"]["dryRun"] = [{"metricName": "success.*"}]
    spec = validate(AnalysisTemplate, value).spec
    assert spec.is_dry("success-rate")
    assert not spec.is_dry("other")
    value["spec"]["dryRun"] = [{"metricName": "latency"}]
    with pytest.raises(DocumentError, match=r"spec.dryRun\[0\].metricName: no metric is called 'latency'"):
        validate(AnalysisTemplate, value)


def analysed(*names: str, background: bool = False) -> CanaryRollout:
    analysis = {"templates": [{"templateName": name} for name in names]}
    spec = steps({"pause": {}}, analysis=analysis) if background else steps({"setWeight": 5}, {"analysis": analysis})
    return validate(CanaryRollout, rollout_value(**spec))


def test_templates_are_found_by_namespace() -> None:
    """A template of the rollout's namespace comes before one without a namespace; another namespace's never."""
    free, own, other = template(), template(namespace="shop", count=3), template(namespace="other")
    assert find_template("success-rate", "shop", [free, own, other]) is own
    assert find_template("success-rate", "shop", [free, other]) is free
    assert find_template("success-rate", "shop", [other]) is None
    assert template_metrics(analysed("success-rate"), [free, own]) == {"success-rate": own.spec}


@pytest.mark.parametrize(
    ("rollout", "templates", "fault"),
    [
        (
            analysed("nope"),
            [],
            "spec.strategy.canary.steps[1].analysis.templates[0].templateName: no AnalysisTemplate nope in namespace",
        ),
        (
            analysed("a", "b"),
            [template("a"), template("b")],
            "spec.strategy.canary.steps[1].analysis.templates[1].templateName: metric rate is in a too",
        ),
        (
            analysed("a"),
            [template("a", count=None)],
            "spec.strategy.canary.steps[1].analysis.templates[0].templateName: metric rate has no count",
        ),
        (
            analysed("a", background=True),
            [],
            "spec.strategy.canary.analysis.templates[0].templateName: no AnalysisTemplate a in namespace shop",
        ),
    ],
    ids=["unknown", "twice", "endless", "background"],
)
def test_faults_between_documents_have_paths(
    rollout: CanaryRollout, templates: list[AnalysisTemplate], fault: str
) -> None:
    """lint: what one document cannot know about another."""
    assert [str(found).startswith(fault) for found in cross_faults(rollout, templates)] == [True]


def test_an_endless_metric_may_run_in_the_background() -> None:
    """It ends with the rollout."""
    assert cross_faults(analysed("a", background=True), [template("a", count=None)]) == []


def test_addresses_are_endpoints() -> None:
    """An address with its port; IPv6 in brackets."""
    assert (endpoint("[::1]:80").address, endpoint("[::1]:80").port) == ("::1", 80)
    assert (endpoint("10.0.0.1:9001").address, endpoint("10.0.0.1:9001").port) == ("10.0.0.1", 9001)


def test_settings_have_defaults() -> None:
    """One proxy on a Unix socket is all that must be said."""
    settings = parse(ControllerSettings, "kind: ControllerSettings\nproxies: [{address: 'unix:admin.sock'}]")
    assert settings.api.host_port == ("127.0.0.1", 8090)
    assert settings.poll_interval == 1.0


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("proxies: []", "proxies: "),
        ("proxies: [{address: 'http://127.0.0.1:8081'}]", "proxies[0].tokenFile: is needed"),
        ("proxies: [{address: '127.0.0.1:8081', tokenFile: t}]", "proxies[0].address: "),
        ("proxies: [{address: 'unix:a'}, {address: 'unix:a'}]", "proxies[1].address: unix:a is listed twice"),
        ("{proxies: [{address: 'unix:a'}], api: {listen: '0.0.0.0:8090'}}", "api.tokenFile: is needed"),
        ("{proxies: [{address: 'unix:a'}], api: {listen: ':8090'}}", "api.tokenFile: is needed"),
        ("{proxies: [{address: 'unix:a'}], api: {listen: 'localhost:8090'}}", "api.listen: expected"),
        ("{proxies: [{address: 'unix:a'}], kube: {}}", "kube.namespace: required"),
    ],
)
def test_settings_are_checked(text: str, fault: str) -> None:
    """C1: beyond loopback only with a token; in a cluster a place is needed."""
    with pytest.raises(DocumentError) as raised:
        parse(ControllerSettings, text)
    assert any(str(found).startswith(fault) for found in raised.value.faults), raised.value
