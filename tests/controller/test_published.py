from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from controller import planner, state
from controller.cluster import Behind, read, resolve
from controller.published import Incomplete, complete, publish
from controller.state import Stage, State
from controller.version import ServiceRef
from proxy.plan import Endpoint, Plan

SECRET = b"s" * 32
SECRETS = {planner.key_id(SECRET): SECRET}


def rollout() -> dict[str, Any]:
    services = {arm: {"service": {"name": f"web-{arm}", "port": "http"}} for arm in ("stable", "canary")}
    spec = {**services, "users": [{"mint": {}}], "strategy": {"canary": {"steps": [{"setWeight": 5}]}}}
    return {"metadata": {"name": "web", "namespace": "shop"}, "spec": spec}


def behind(**pods: list[str]) -> Behind:
    """Pods behind Services by their images; ``both`` is behind each."""
    services = {f"web-{arm}": {"spec": {"ports": [{"name": "http", "port": 80}]}} for arm in ("stable", "canary")}
    slices = {}
    known = {}
    for arm, images in pods.items():
        names = [f"{arm}-{i}" if image != "both" else "both" for i, image in enumerate(images)]
        known |= {name: {"spec": {"containers": [{"image": image}]}} for name, image in zip(names, images, strict=True)}
        entries = [
            {"addresses": [f"10.0.{len(arm)}.{i}"], "targetRef": {"kind": "Pod", "uid": name, "name": name}}
            for i, name in enumerate(names)
        ]
        labels = {"labels": {"kubernetes.io/service-name": f"web-{arm}"}}
        ports = [{"name": "http", "port": 8080}]
        slices[arm] = {"metadata": labels, "addressType": "IPv4", "ports": ports, "endpoints": entries}
    return Behind(services, slices, known)


def resolved(known: State | None = None, **pods: list[str]) -> tuple[Any, str]:
    found = resolve(read(rollout(), {}), behind(**pods), known)
    return found.found.document, found.reason


def begun(stage: Stage = Stage.STEPS, **pods: list[str]) -> State:
    document, _ = resolved(**pods)
    return replace(
        state.new(document, {}, "u-1"),
        stage=stage,
        stable=document.spec.stable,
        users=document.spec.users,
        generation=3,
    )


def test_revisions_are_of_the_pods_behind_the_services() -> None:
    document, reason = resolved(stable=["a:1"], canary=["a:2", "a:2"])
    assert document.spec.stable.revision != document.spec.canary.revision
    assert reason == ""


def test_without_a_stable_pod_there_is_nothing_to_begin_with() -> None:
    assert resolved(canary=["a:2"]) == (None, "RevisionUnknown")


def test_two_revisions_behind_the_canary_are_none_until_there_is_one_but_an_abort_stands() -> None:
    pods = {"stable": ["a:1"], "canary": ["a:2"]}
    mixed = {"stable": ["a:1"], "canary": ["a:2", "a:3"]}
    assert resolved(begun(**pods), **mixed)[0].spec.canary is None
    assert resolved(begun(Stage.ABORTED, **pods), **mixed)[0].spec.canary == begun(**pods).document.spec.canary


def test_stable_keeps_its_revision_until_all_its_pods_have_another() -> None:
    known = begun(stable=["a:1"], canary=["a:2"])
    half = resolved(known, stable=["a:1", "a:2"], canary=["a:2"])[0]
    whole = resolved(known, stable=["a:2", "a:2"], canary=["a:2"])[0]
    assert half.spec.stable == known.document.spec.stable
    assert whole.spec.stable.revision == known.document.spec.canary.revision  # type: ignore[union-attr]


def test_a_pod_behind_both_leaves_nobody_on_the_canary() -> None:
    document, reason = resolved(begun(stable=["a:1"], canary=["a:2"]), stable=["both"], canary=["both"])
    assert reason == "ArmsOverlap"
    assert document.spec.canary is None


def published() -> tuple[Plan, dict[str, Any]]:
    known = begun(stable=["a:1"])
    plan = planner.plan(known, SECRETS)
    assert plan
    return plan, publish(known, plan, tuple(SECRETS))


def places(_: ServiceRef, revision: str | None) -> tuple[Endpoint, ...]:
    return (Endpoint(address="10.0.0.1", port=8080),)


def test_what_is_published_has_neither_salt_nor_endpoints_and_completes_to_the_same_plan() -> None:
    plan, document = published()
    assert plan.salt not in json.dumps(document)
    made = complete(document, SECRETS, places, 7)
    assert (made.salt, made.core_digest, made.endpoints_version) == (plan.salt, plan.core_digest, 7)
    assert made.arms[0].endpoints == places(ServiceRef(name="web", port=1), None)


def test_behind_stable_all_pods_count_and_behind_the_canary_those_of_its_revision() -> None:
    """What is deployed over a canary in mid-rollout is on nobody's plan yet."""
    document, asked = published()[1], []
    arm = document["arms"][0]
    arms = [arm | {"weightBp": 9000}, arm | {"name": "canary", "revision": "two", "weightBp": 1000}]

    def look(ref: ServiceRef, revision: str | None) -> tuple[Endpoint, ...]:
        asked.append(revision)
        return places(ref, revision)

    complete({**document, "revision": "two", "arms": arms}, SECRETS, look, 0)
    assert asked == [None, "two"]


@pytest.mark.parametrize(
    ("document", "secrets", "said"),
    [
        ({}, {}, "split secret"),
        ({"unheardOf": 1}, SECRETS, "another version"),
        ({"arms": None}, SECRETS, "another version"),
    ],
)
def test_what_cannot_be_completed_says_why(document: Any, secrets: Any, said: str) -> None:
    with pytest.raises(Incomplete, match=said):
        complete({**published()[1], **document}, secrets, places, 0)
