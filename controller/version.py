"""One version of a service as a document names it: its revision, where it listens, and how it is spoken to."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from proxy.document import Document, Fault, refuse
from proxy.plan import ArmTls, Dns, Endpoint, HealthCheck, Name, Revision

MAX_ADDRESSES = 256  # by hand nobody lists more; where pods come and go, dns and service find them
# A Kubernetes label's key: a DNS subdomain and a slash, or neither, then a name.
LABEL = (
    r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?"
    r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
)

_ADDRESS = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):([0-9]{1,5})")


def endpoint(address: str) -> Endpoint:
    """The endpoint of ``127.0.0.1:9001`` or ``[::1]:9001``.

    Raises:
        ValueError: Anything else; a name too, because nothing is resolved on the request path.
    """
    match = _ADDRESS.fullmatch(address)
    try:
        if match and 1 <= int(match[3]) <= 65535:
            return Endpoint(address=str(ipaddress.ip_address(match[1] or match[2])), port=int(match[3]))
    except ValueError:
        pass
    raise ValueError(f"expected an IP address with a port, such as 127.0.0.1:9001 or [::1]:9001, got {address!r}")


def _address(text: str) -> str:
    endpoint(text)
    return text


Address = Annotated[str, Field(max_length=64, json_schema_extra={"format": "ip-port"}), AfterValidator(_address)]
Addresses = Annotated[tuple[Address, ...], Field(min_length=1, max_length=MAX_ADDRESSES)]
PortNumber = Annotated[int, Field(ge=1, le=65535)]
PortName = Annotated[
    str, Field(min_length=1, max_length=15, pattern=r"^([a-z0-9]+-)*[0-9]*[a-z][a-z0-9]*(-[a-z0-9]+)*$")
]


class ServiceRef(Document):
    """A Service of the rollout's own namespace, whose pods are this version.

    Attributes:
        name: Of the Service.
        port: Its name or number, as the Service has it.
    """

    name: Name
    port: PortNumber | PortName


class RevisionFrom(Document):
    """Where the revision behind a Service is read from; absent: the images of its pods.

    Attributes:
        pod_label: A label whose value differs between two versions, such as app.kubernetes.io/version.
    """

    pod_label: Annotated[str, Field(min_length=1, max_length=317, pattern=LABEL)]


class Version(Document):
    """One version of the service: its revision, where it listens, and how it is spoken to.

    Exactly one of addresses, dns and service says where it listens.

    Attributes:
        addresses: IP addresses with their port, such as 127.0.0.1:9001 or [::1]:9001.
        dns: A name, and the port at every address that it has.
        service: A Service in the cluster; its revision is read from its pods.
        revision: What this version is called in headers and metrics; needed beside addresses and dns.
        health_check: Asks each endpoint whether it is well; absent: only users' requests tell.
        tls: The endpoints speak TLS; absent: they do not.
    """

    addresses: Annotated[tuple[Address, ...], Field(max_length=MAX_ADDRESSES)] = ()
    dns: Dns | None = None
    service: ServiceRef | None = None
    revision: Revision = ""  # empty until the controller in the cluster has looked at the pods
    health_check: HealthCheck | None = None
    tls: ArmTls | None = None

    @model_validator(mode="after")
    def _check(self) -> Version:
        if bool(self.addresses) + (self.dns is not None) + (self.service is not None) != 1:
            raise ValueError("exactly one of addresses, dns and service is needed")
        if not self.revision and self.service is None:
            refuse([Fault("revision", "required field is missing")])
        seen = set()
        for i, address in enumerate(self.addresses):
            if endpoint(address) in seen:
                refuse([Fault(f"addresses[{i}]", f"{address} is listed twice")])
            seen.add(endpoint(address))
        return self

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The addresses as a plan has them."""
        return tuple(endpoint(address) for address in self.addresses)

    def shared(self, other: Version) -> list[Fault]:
        """Where another version listens too, each place by its field: one place cannot be two versions at once."""
        faults = [
            Fault(f"addresses[{i}]", address)
            for i, (address, place) in enumerate(zip(self.addresses, self.endpoints, strict=True))
            if place in other.endpoints
        ]
        if self.dns and other.dns and self.dns.place == other.dns.place:
            faults.append(Fault("dns", f"{self.dns.host}:{self.dns.port}"))
        if self.service and other.service and self.service.name == other.service.name:
            faults.append(Fault("service.name", self.service.name))
        return faults
