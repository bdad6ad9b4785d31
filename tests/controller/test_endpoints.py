from __future__ import annotations

from typing import Any

import pytest

from controller.endpoints import Unusable, endpoints, of_revision, overlap, places, revision, revisions
from controller.version import RevisionFrom, ServiceRef

HTTP = ServiceRef(name="web", port="http")


def service(**spec: Any) -> dict[str, Any]:
    return {"web": {"spec": {"ports": [{"name": "http", "port": 80, "targetPort": "web"}], **spec}}}


def entry(uid: str, address: str, **conditions: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"addresses": [address], "targetRef": {"kind": "Pod", "uid": uid, "name": f"pod-{uid}"}}
    return {**found, "conditions": conditions} if conditions else found


def piece(*entries: dict[str, Any], kind: str = "IPv4", port: int | None = 8080, name: str = "http") -> dict[str, Any]:
    return {
        "metadata": {"labels": {"kubernetes.io/service-name": "web"}},
        "addressType": kind,
        "ports": [{"name": name, "port": port, "protocol": "TCP"}],
        "endpoints": list(entries),
    }


def found(*pieces: dict[str, Any], ref: ServiceRef = HTTP, **spec: Any) -> list[str]:
    slices = {str(i): each for i, each in enumerate(pieces)}
    return [f"{e.address}:{e.port}" for e in endpoints(places(ref, service(**spec), slices))]


def test_all_slices_of_a_service_count_and_a_pod_in_two_of_them_counts_once() -> None:
    first, second = piece(entry("a", "10.0.0.1")), piece(entry("b", "10.0.0.2"), entry("a", "10.0.0.1"))
    assert found(first, second) == ["10.0.0.1:8080", "10.0.0.2:8080"]


def test_an_address_that_cannot_be_read_for_certain_is_left_out() -> None:
    """The API server takes leading zeros, with a warning."""
    assert found(piece(entry("a", "10.0.0.01"), entry("b", "10.0.0.2"))) == ["10.0.0.2:8080"]


def test_slices_of_other_services_do_not_count() -> None:
    other = piece(entry("a", "10.0.0.1"))
    other["metadata"] = {"labels": {"kubernetes.io/service-name": "other"}}
    assert found(other) == []


@pytest.mark.parametrize(
    ("conditions", "is_used"),
    [
        pytest.param({}, True, id="absent means ready"),
        pytest.param({"ready": True}, True, id="ready"),
        pytest.param({"ready": False}, False, id="not ready"),
        pytest.param({"ready": False, "serving": True, "terminating": True}, True, id="ends and still serves"),
        pytest.param({"ready": False, "serving": False, "terminating": True}, False, id="ends and serves no more"),
        pytest.param({"ready": False, "serving": True, "terminating": False}, False, id="not ready by its own word"),
    ],
)
def test_conditions_of_the_only_endpoint(conditions: dict[str, bool], is_used: bool) -> None:
    assert bool(found(piece(entry("a", "10.0.0.1", **conditions)))) == is_used


def test_pods_that_end_are_a_last_resort() -> None:
    ending = entry("a", "10.0.0.1", ready=False, serving=True, terminating=True)
    assert found(piece(ending, entry("b", "10.0.0.2"))) == ["10.0.0.2:8080"]


def test_the_first_ip_family_of_the_service_counts() -> None:
    pieces = piece(entry("a", "10.0.0.1")), piece(entry("a", "fd00::1"), kind="IPv6")
    assert found(*pieces, ipFamilies=["IPv6", "IPv4"]) == ["fd00::1:8080"]
    assert found(*pieces, ipFamilies=["IPv4", "IPv6"]) == ["10.0.0.1:8080"]
    assert found(*pieces) == ["10.0.0.1:8080"]  # a Service that does not say: of the first slice


@pytest.mark.parametrize("port", ["http", 80])
def test_a_port_by_name_or_number_is_resolved_through_the_service(port: Any) -> None:
    other = piece(entry("c", "10.0.0.3"), name="metrics", port=9090)
    ref = ServiceRef(name="web", port=port)
    assert found(piece(entry("a", "10.0.0.1")), other, ref=ref) == ["10.0.0.1:8080"]


def test_a_headless_service_is_as_good() -> None:
    assert found(piece(entry("a", "10.0.0.1")), clusterIP="None") == ["10.0.0.1:8080"]


def test_slices_by_name_and_ports_without_number_are_left_out() -> None:
    assert found(piece(entry("a", "example.org"), kind="FQDN"), piece(entry("b", "10.0.0.2"), port=None)) == []


@pytest.mark.parametrize(
    ("ref", "spec", "said"),
    [
        (HTTP, {"type": "ExternalName", "externalName": "example.org"}, "ExternalName"),
        (ServiceRef(name="web", port="grpc"), {}, "no TCP port grpc: it has http"),
        (ServiceRef(name="none", port="http"), {}, "there is no Service none"),
    ],
)
def test_what_cannot_be_a_version_is_refused_with_the_reason(ref: ServiceRef, spec: Any, said: str) -> None:
    with pytest.raises(Unusable, match=said):
        found(ref=ref, **spec)


def pod(*images: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"labels": labels}, "spec": {"containers": [{"image": image} for image in images]}}


def test_the_revision_is_of_the_images_in_any_order_or_of_a_label() -> None:
    assert revision(pod("app:1", "log:1"), None) == revision(pod("log:1", "app:1"), None)
    assert revision(pod("app:1"), None) != revision(pod("app:2"), None)
    assert revision(pod("app:1", version="v2"), RevisionFrom(pod_label="version")) == "v2"
    assert revision(pod("app:1"), RevisionFrom(pod_label="version")) == ""


def test_revisions_behind_a_service_are_of_the_pods_that_serve() -> None:
    slices = {"1": piece(entry("a", "10.0.0.1"), entry("b", "10.0.0.2"), entry("c", "10.0.0.3", ready=False))}
    pods = {"pod-a": pod(v="v1"), "pod-b": pod(v="v2"), "pod-c": pod(v="v3")}
    behind = places(HTTP, service(), slices)
    assert revisions(behind, pods, RevisionFrom(pod_label="v")) == ("v1", "v2")
    assert revisions(behind, {"pod-a": pods["pod-a"]}, RevisionFrom(pod_label="v")) == ("", "v1")


@pytest.mark.parametrize("label", ["version", None], ids=["label", "images"])
def test_of_two_revisions_behind_a_service_one_can_be_had(label: str | None) -> None:
    behind = places(
        HTTP, service(), {"a": piece(entry("a", "10.0.0.1"), entry("b", "10.0.0.2"), entry("c", "10.0.0.3"))}
    )
    pods = {
        f"pod-{name}": {"metadata": {"labels": {"version": name}}, "spec": {"containers": [{"image": name}]}}
        for name in "ab"
    }
    wanted = revision(pods["pod-b"], RevisionFrom(pod_label=label) if label else None)
    assert [place.pod for place in of_revision(behind, wanted, pods, label)] == ["pod-b"]


def test_a_pod_behind_both_services_is_found() -> None:
    slices = {"1": piece(entry("a", "10.0.0.1"), entry("b", "10.0.0.2"))}
    behind = places(HTTP, service(), slices)
    assert overlap(behind, behind[:1]) == ("a",)
    assert overlap(behind[:1], behind[1:]) == ()
