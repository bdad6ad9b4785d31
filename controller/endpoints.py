"""From the cluster's objects to where a version listens, and which revision it is. Pure: plain documents in.

All slices of a Service count, each pod once, of one IP family; hints for zones are ignored, for the proxies of a
service balance over all of it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from controller.version import RevisionFrom, ServiceRef
from proxy.plan import Endpoint

SERVICE_LABEL = "kubernetes.io/service-name"
MAX_ENDPOINTS = 5000  # what an arm of a plan has room for

Object = Mapping[str, Any]
Objects = Mapping[str, Object]


class Unusable(ValueError):
    """A Service that cannot be a version; the message says why."""


@dataclass(frozen=True, slots=True)
class Place:
    """One pod, or one address without a pod, behind a Service.

    Attributes:
        uid: The pod's; of an address without one, the address.
        pod: Its name; empty: there is none.
        is_ready: Whether it takes new requests; otherwise it only still serves while it ends.
    """

    uid: str
    pod: str
    endpoint: Endpoint
    is_ready: bool


def places(ref: ServiceRef, services: Objects, slices: Objects) -> tuple[Place, ...]:
    """Every pod that serves behind a Service's port, ordered by address; those that end come as a last resort only.

    Raises:
        Unusable: There is no such Service, it has no such port, or it is a name elsewhere.
    """
    service = services.get(ref.name)
    if service is None:
        raise Unusable(f"there is no Service {ref.name}")
    port_name = _port_name(ref, service)
    found = [place for each in _slices(ref.name, slices) for place in _places(each, port_name)]
    family = _family(service) or next((_version(place) for place in found), 4)
    of_family = [place for place in found if _version(place) == family]
    ready = [place for place in of_family if place.is_ready]
    return _once(ready or of_family)


def _port_name(ref: ServiceRef, service: Object) -> str:
    """The name that slices have of the port; empty where a Service has a single one without a name."""
    spec = service.get("spec") or {}
    if spec.get("type") == "ExternalName":
        raise Unusable(f"Service {ref.name} is of type ExternalName: use dns {{host, port}} for a name elsewhere")
    ports = [port for port in spec.get("ports") or () if port.get("protocol", "TCP") == "TCP"]
    for port in ports:
        if ref.port in (port.get("name"), port.get("port")):
            return str(port.get("name") or "")
    known = ", ".join(str(port.get("name") or port.get("port")) for port in ports) or "none"
    raise Unusable(f"Service {ref.name} has no TCP port {ref.port}: it has {known}")


def _slices(name: str, slices: Objects) -> list[Object]:
    return [
        each
        for _, each in sorted(slices.items())
        if ((each.get("metadata") or {}).get("labels") or {}).get(SERVICE_LABEL) == name
        and each.get("addressType") in ("IPv4", "IPv6")
    ]


def _family(service: Object) -> int:
    """4 or 6: the first family of the Service; 0: it does not say."""
    families = (service.get("spec") or {}).get("ipFamilies") or ()
    return {"IPv4": 4, "IPv6": 6}.get(families[0], 0) if families else 0


def _version(place: Place) -> int:
    return ipaddress.ip_address(place.endpoint.address).version


def _places(each: Object, port_name: str) -> list[Place]:
    ports = [
        port.get("port")
        for port in each.get("ports") or ()
        if (port.get("name") or "") == port_name and port.get("protocol", "TCP") == "TCP"
    ]
    found = []
    for entry in each.get("endpoints") or ():
        addresses = [address for address in (entry.get("addresses") or ())[:1] if _is_address(address)]
        conditions = entry.get("conditions") or {}
        is_ready = conditions.get("ready") is not False
        # Absent conditions mean unknown, which the API asks to read as true; serving follows ready then.
        is_serving = conditions.get("serving", is_ready) is not False
        if not addresses or not (is_ready or (is_serving and conditions.get("terminating"))):
            continue
        target = entry.get("targetRef") or {}
        is_pod = target.get("kind") == "Pod"
        for port in ports:
            if port is not None:  # "any port" names none
                uid = str(target.get("uid") or addresses[0]) if is_pod else str(addresses[0])
                name = str(target.get("name") or "") if is_pod else ""
                found.append(Place(uid, name, Endpoint(address=addresses[0], port=port), is_ready))
    return found


def _is_address(text: Any) -> bool:
    """Whether it is one for certain: the API server lets leading zeros pass, which some read as octal."""
    try:
        return bool(ipaddress.ip_address(text))
    except ValueError:
        return False


def _once(found: Iterable[Place]) -> tuple[Place, ...]:
    """Each pod and each address once: a pod may be in two slices while they are being changed."""
    by_uid: dict[str, Place] = {}
    seen: set[Endpoint] = set()
    for place in found:
        if place.uid not in by_uid and place.endpoint not in seen:
            by_uid[place.uid] = place
            seen.add(place.endpoint)
    ordered = sorted(by_uid.values(), key=lambda place: (place.endpoint.address, place.endpoint.port))
    return tuple(ordered[:MAX_ENDPOINTS])


def endpoints(found: Iterable[Place]) -> tuple[Endpoint, ...]:
    """Where these listen."""
    return tuple(place.endpoint for place in found)


def of_revision(found: Iterable[Place], wanted: str, pods: Objects, label: str | None) -> tuple[Place, ...]:
    """Those of one revision.

    Args:
        found: Behind a Service.
        wanted: The revision.
        pods: By name.
        label: Where it is read from; None: the images.
    """
    source = RevisionFrom(pod_label=label) if label else None
    return tuple(place for place in found if revision(pods.get(place.pod) or {}, source) == wanted)


def revisions(found: Iterable[Place], pods: Objects, source: RevisionFrom | None) -> tuple[str, ...]:
    """The revisions behind a Service, each once and in order; empty is that of what is no pod, or says none."""
    return tuple(sorted({revision(pods.get(place.pod) or {}, source) for place in found}))


def revision(pod: Object, source: RevisionFrom | None) -> str:
    """The revision of one pod: a label's value, or a name for its containers' images; empty: it has no such label."""
    if source:
        labels = (pod.get("metadata") or {}).get("labels") or {}
        return str(labels.get(source.pod_label) or "")
    spec = pod.get("spec") or {}
    images = sorted(str(container.get("image")) for container in spec.get("containers") or ())
    return blake2b("\n".join(images).encode(), digest_size=5).hexdigest() if images else ""


def overlap(stable: Iterable[Place], canary: Iterable[Place]) -> tuple[str, ...]:
    """Pods that are behind both Services: nobody could say which version their users have."""
    both = {place.uid for place in stable} & {place.uid for place in canary}
    return tuple(sorted(both))
