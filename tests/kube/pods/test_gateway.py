from __future__ import annotations

import dns.message
import dns.rcode
import pytest

from tests.kube.pods.gateway import respond
from tests.kube.pods.services import Record

ZONE = [
    Record("shop.team.svc.cluster.local", "A", "10.99.0.2"),
    Record("shop.team.svc.cluster.local", "A", "10.99.0.3"),
    Record("_web._tcp.shop.team.svc.cluster.local", "SRV", "0 0 80 shop.team.svc.cluster.local"),
    Record("other.team.svc.cluster.local", "CNAME", "shop.test"),
]


def ask(name: str, kind: str = "A") -> dns.message.Message:
    query = dns.message.make_query(name, kind)
    reply = dns.message.from_wire(respond(query.to_wire(), lambda: ZONE))
    assert reply.id == query.id
    return reply


@pytest.mark.parametrize(
    ("name", "kind", "values"),
    [
        ("shop.team.svc.cluster.local", "A", ["10.99.0.2", "10.99.0.3"]),
        ("SHOP.team.svc.cluster.local", "A", ["10.99.0.2", "10.99.0.3"]),
        ("shop.team.svc.cluster.local", "AAAA", []),
        ("_web._tcp.shop.team.svc.cluster.local", "SRV", ["0 0 80 shop.team.svc.cluster.local."]),
        ("other.team.svc.cluster.local", "A", ["shop.test."]),
        ("team.svc.cluster.local", "A", []),
    ],
    ids=["addresses", "any-case", "no-ipv6", "port", "other-name", "only-names-below"],
)
def test_what_is_known_is_answered(name: str, kind: str, values: list[str]) -> None:
    reply = ask(name, kind)
    assert reply.rcode() == dns.rcode.NOERROR
    assert sorted(item.to_text() for records in reply.answer for item in records) == values  # dnspython mixes them


@pytest.mark.parametrize("name", ["cart.team.svc.cluster.local", "shop.test", "shop"])
def test_what_is_not_known_does_not_exist(name: str) -> None:
    """Of other zones nothing is known: the resolver's search list goes on to the name that is meant."""
    assert ask(name).rcode() == dns.rcode.NXDOMAIN


@pytest.mark.parametrize("data", [b"", b"\0" * 11, b"\xff" * 40, dns.message.Message().to_wire()])
def test_what_is_no_query_is_not_answered(data: bytes) -> None:
    assert respond(data, lambda: ZONE) == b""
