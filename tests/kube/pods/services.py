"""Services: their addresses as rules for iptables, their names as DNS records. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

ZONE = "cluster.local"
CHAIN = "SERVICES"
Key = tuple[str, str]  # namespace, name


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address behind a Service, with its ports by name."""

    address: str
    ports: Mapping[str, int]
    hostname: str


@dataclass(frozen=True, slots=True)
class Record:
    """One DNS record; SRV values are ``0 0 <port> <name>``."""

    name: str
    kind: str
    value: str


def endpoints(slices: Iterable[Mapping[str, Any]], key: Key) -> list[Endpoint]:
    """What a Service's traffic may go to: the ready ones, else those that serve while they terminate (KEP-1669)."""
    ready: dict[str, Endpoint] = {}
    last: dict[str, Endpoint] = {}
    for item in slices:
        metadata = item["metadata"]
        if (metadata["namespace"], metadata.get("labels", {}).get("kubernetes.io/service-name")) != key:
            continue
        if item["addressType"] != "IPv4":
            continue
        ports = {port.get("name") or "": port["port"] for port in item.get("ports") or ()}
        for one in item.get("endpoints") or ():
            conditions = one.get("conditions", {})
            found = Endpoint(one["addresses"][0], ports, one.get("hostname", ""))
            if conditions.get("ready", True):
                ready[found.address] = found
            elif conditions.get("serving", False):
                last[found.address] = found
    return [one for _, one in sorted((ready or last).items())]


def rules(services: Mapping[Key, Mapping[str, Any]], slices: Iterable[Mapping[str, Any]]) -> str:
    """For ``iptables-restore --noflush``: chains that send each Service's port to one of its endpoints at random."""
    slices = list(slices)
    nat, refused = [], []
    for key, service in sorted(services.items()):
        address = service["spec"].get("clusterIP", "None")
        if address in ("", "None"):
            continue
        behind = endpoints(slices, key)
        for port in service["spec"].get("ports", ()):
            if port.get("protocol", "TCP") != "TCP":
                continue
            match = f"-d {address}/32 -p tcp --dport {port['port']}"
            targets = [
                f"{one.address}:{one.ports[name]}" for one in behind if (name := port.get("name", "")) in one.ports
            ]
            nat += [f"-A {CHAIN} {match} {rule}" for rule in _spread(targets)]
            if not targets:
                refused.append(f"-A {CHAIN} {match} -j REJECT --reject-with tcp-reset")
    return "\n".join(
        ["*nat", f":{CHAIN} - [0:0]", *nat, "COMMIT", "*filter", f":{CHAIN} - [0:0]", *refused, "COMMIT", ""]
    )


def _spread(targets: list[str]) -> Iterator[str]:
    """Each rule takes its share of what those before it have left."""
    for index, target in enumerate(targets):
        left = len(targets) - index
        chance = f"-m statistic --mode random --probability {1 / left:.10f} " if left > 1 else ""
        yield f"{chance}-j DNAT --to-destination {target}"


def records(services: Mapping[Key, Mapping[str, Any]], slices: Iterable[Mapping[str, Any]]) -> Iterator[Record]:
    """Every record of the zone."""
    slices = list(slices)
    for (namespace, name), service in services.items():
        host = f"{name}.{namespace}.svc.{ZONE}"
        spec = service["spec"]
        if spec.get("type") == "ExternalName":
            yield Record(host, "CNAME", spec["externalName"].rstrip("."))
        elif spec.get("clusterIP") == "None":
            yield from _headless(host, endpoints(slices, (namespace, name)))
        else:
            yield Record(host, "A", spec["clusterIP"])
            for port in spec.get("ports", ()):
                yield from _service(host, port.get("name", ""), port.get("protocol", "TCP"), port["port"], host)


def _headless(host: str, behind: Iterable[Endpoint]) -> Iterator[Record]:
    yield Record(host, "", "")  # the name is there without endpoints too
    for one in behind:
        yield Record(host, "A", one.address)
        own = f"{one.hostname or one.address.replace('.', '-')}.{host}"
        yield Record(own, "A", one.address)
        for name, port in one.ports.items():
            yield from _service(host, name, "TCP", port, own)


def _service(host: str, name: str, protocol: str, port: int, target: str) -> Iterator[Record]:
    if name:
        yield Record(f"_{name}._{protocol.lower()}.{host}", "SRV", f"0 0 {port} {target}")


def answer(name: str, kind: str, known: Iterable[Record]) -> list[Record] | None:
    """The records of one name and kind; empty if it has others only, None if there is no such name in the zone."""
    name = name.rstrip(".").lower()
    named = [record for record in known if record.name == name]
    if not named:
        return None
    return [record for record in named if record.kind in (kind, "CNAME")]
