from __future__ import annotations

from typing import Any

import pytest

from tests.kube.pods.services import Record, answer, endpoints, records, rules

KEY = ("team", "shop")


def one(address: str, ready: bool | None = True, serving: bool = True) -> dict[str, Any]:
    """An endpoint; ``ready`` may be absent, which means true."""
    conditions = {"serving": serving} | ({} if ready is None else {"ready": ready})
    return {"addresses": [address], "conditions": conditions}


def slice_of(*given: dict[str, Any], port: int = 8080, kind: str = "IPv4") -> dict[str, Any]:
    metadata = {"namespace": "team", "name": "shop-1", "labels": {"kubernetes.io/service-name": "shop"}}
    return {"metadata": metadata, "addressType": kind, "ports": [{"name": "web", "port": port}], "endpoints": given}


def service(**spec: Any) -> dict[Any, Any]:
    return {KEY: {"spec": {"clusterIP": "10.96.1.1", "ports": [{"name": "web", "port": 80}]} | spec}}


@pytest.mark.parametrize(
    ("given", "addresses"),
    [
        ([one("10.99.0.2"), one("10.99.0.3", ready=None)], ["10.99.0.2", "10.99.0.3"]),
        ([one("10.99.0.2"), one("10.99.0.3", ready=False)], ["10.99.0.2"]),
        ([one("10.99.0.3", ready=False), one("10.99.0.4", ready=False, serving=False)], ["10.99.0.3"]),
    ],
    ids=["ready", "not-ready", "terminating-as-last-resort"],
)
def test_traffic_goes_to_ready_endpoints_first(given: list[Any], addresses: list[str]) -> None:
    assert [each.address for each in endpoints([slice_of(*given), slice_of(kind="IPv6")], KEY)] == addresses


def test_each_endpoint_has_the_same_chance() -> None:
    """A third, then half of what is left, then the rest; the port is the endpoint's."""
    text = rules(service(), [slice_of(one("10.99.0.2"), one("10.99.0.3"), one("10.99.0.4"))])
    lines = [line for line in text.splitlines() if "10.96.1.1" in line]
    assert [line.partition("--probability ")[2][:6] for line in lines] == ["0.3333", "0.5000", ""]
    assert [line.rpartition(" ")[2] for line in lines] == ["10.99.0.2:8080", "10.99.0.3:8080", "10.99.0.4:8080"]


def test_a_service_without_endpoints_is_refused_and_one_without_address_has_no_rule() -> None:
    assert "10.96.1.1/32 -p tcp --dport 80 -j REJECT" in rules(service(), [])
    assert "-A SERVICES" not in rules(service(clusterIP="None"), [slice_of(one("10.99.0.2"))])


def test_names_are_those_of_the_specification() -> None:
    """Addresses, ports as SRV, headless Services by their endpoints, other names by CNAME."""
    known = [*records(service(), [])]
    assert answer("Shop.team.svc.cluster.local.", "A", known) == [
        Record("shop.team.svc.cluster.local", "A", "10.96.1.1")
    ]
    ports = answer("_web._tcp.shop.team.svc.cluster.local.", "SRV", known) or ()
    assert [record.value for record in ports] == ["0 0 80 shop.team.svc.cluster.local"]
    assert answer("shop.team.svc.cluster.local.", "AAAA", known) == []
    assert answer("cart.team.svc.cluster.local.", "A", known) is None
    headless = [*records(service(clusterIP="None"), [slice_of(one("10.99.0.2"), one("10.99.0.3"))])]
    found = answer("shop.team.svc.cluster.local.", "A", headless) or ()
    assert [record.value for record in found] == ["10.99.0.2", "10.99.0.3"]
    assert answer("10-99-0-2.shop.team.svc.cluster.local.", "A", headless)
    assert answer("shop.team.svc.cluster.local.", "A", records(service(clusterIP="None"), [])) == []
    other = [*records(service(type="ExternalName", externalName="shop.test."), [])]
    assert answer("shop.team.svc.cluster.local.", "A", other) == [
        Record("shop.team.svc.cluster.local", "CNAME", "shop.test")
    ]
