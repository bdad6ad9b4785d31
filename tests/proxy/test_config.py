"""Settings: what is accepted, and every fault of what is not."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.config import ProxySettings, server_port
from proxy.document import DocumentError, validate


def faults(**fields: Any) -> list[str]:
    """What is wrong with settings of these fields."""
    with pytest.raises(DocumentError) as caught:
        validate(ProxySettings, fields)
    return [str(fault) for fault in caught.value.faults]


@pytest.mark.parametrize(
    ("server", "place"),
    [
        ("127.0.0.1", ("127.0.0.1", 53)),
        ("127.0.0.1:5353", ("127.0.0.1", 5353)),
        ("[::1]", ("::1", 53)),
        ("[2001:db8::1]:5353", ("2001:db8::1", 5353)),
    ],
)
def test_a_name_server_is_an_address_with_or_without_a_port(server: str, place: tuple[str, int]) -> None:
    settings = validate(ProxySettings, {"resolver": {"servers": [server]}})
    assert server_port(settings.resolver.servers[0]) == place


@pytest.mark.parametrize(
    "server",
    [
        "",
        "dns.example",
        "dns.example:53",
        "1.2.3",
        "1.2.3.4:0",
        "1.2.3.4:65536",
        "1.2.3.4:",
        "::1",
        "[::1]x53",
        "[::1",
        ":53",
    ],
)
def test_what_is_no_address_is_no_name_server(server: str) -> None:
    expected = f"resolver.servers[0]: expected IPV4, IPV4:PORT, [IPV6] or [IPV6]:PORT, got {server!r}"
    assert faults(resolver={"servers": [server]}) == [expected]


def test_bounds_of_a_ttl_are_in_order() -> None:
    assert faults(resolver={"minTtl": "10s", "maxTtl": "5s"}) == ["resolver: minTtl is above maxTtl"]
    assert len(faults(resolver={"minTtl": "0s"})) == 1


@pytest.mark.parametrize("name", ["edge", "edge:8080", "a!b~c", "shop.example"])
def test_our_name_in_via_is_a_token_with_or_without_a_port(name: str) -> None:
    """RFC 9110 section 7.6.3: received-by."""
    assert validate(ProxySettings, {"via": name}).via == name


@pytest.mark.parametrize(
    "name", ["", "a b", "1.1 edge", "edge:", ":80", "a,b", "edge:123456", "é", "a\r\nX: y", "a" * 256]
)
def test_what_is_no_name_is_refused_in_via(name: str) -> None:
    assert [fault.split(":")[0] for fault in faults(via=name)] == ["via"]
