"""What an X.509 certificate says of itself: the names it holds for, and how long. RFC 5280, and RFC 9525 for names.

Python's ``ssl`` tells this of a peer's certificate only. The files read here are the operator's own, and OpenSSL has
loaded them before: this reads, it verifies nothing.
"""

from __future__ import annotations

import binascii
import ipaddress
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----\s+([A-Za-z0-9+/=\s]+?)-----END CERTIFICATE-----")
_SEQUENCE, _OID, _OCTETS, _UTC_TIME, _EXTENSIONS, _VERSION = 0x30, 0x06, 0x04, 0x17, 0xA3, 0xA0
_DNS_NAME, _IP_ADDRESS = 0x82, 0x87  # of GeneralName, RFC 5280 section 4.2.1.6
_SUBJECT_ALT_NAME = bytes.fromhex("551d11")  # 2.5.29.17


@dataclass(frozen=True, slots=True)
class Certificate:
    """The names in subjectAltName, in lower case, and the time of validity in Unix seconds. A common name is none.

    Attributes:
        names: DNS names; ``*.`` stands for one label.
        addresses: IP addresses in canonical form.
    """

    names: frozenset[str]
    addresses: frozenset[str]
    not_before_s: float
    not_after_s: float

    def covers(self, host: str) -> bool:
        """Whether it holds for a host, as `host_name` returns it."""
        if host in self.names or host in self.addresses:
            return True
        label, dot, parent = host.partition(".")
        return bool(label and dot) and f"*.{parent}" in self.names


def choose(certificates: Sequence[Certificate], name: str) -> int:
    """The index of the certificate for the name that a client asks for: the exact name, a wildcard, or the first."""
    wildcard = f"*.{name.partition('.')[2]}"
    for wanted in (name, wildcard):
        for index, certificate in enumerate(certificates):
            if wanted in certificate.names:
                return index
    return 0


def host_name(host: str) -> str:
    """The name in a Host field or in a client's SNI: lower case, without port and final dot, an address canonical."""
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host.lower().removesuffix(".")


class Guard:
    """Tells requests that belong elsewhere, on one connection whose client named a host in its handshake.

    Args:
        asked: The name that the client asked for.
        served: The certificate that it got.
    """

    __slots__ = ("_admitted", "_asked", "_served")

    def __init__(self, asked: str, served: Certificate) -> None:
        self._asked = host_name(asked)
        self._served = served
        self._admitted = b""

    def admits(self, host: bytes) -> bool:
        """Whether a request for this Host may come here; cost: one comparison for the Host of the request before."""
        if host == self._admitted:
            return True
        name = host_name(host.decode("latin-1"))
        if name != self._asked and not self._served.covers(name):
            return False
        self._admitted = host
        return True


def read_certificate(pem: bytes) -> Certificate:
    """Read the first certificate of a PEM file, which is the server's own.

    Raises:
        ValueError: There is none, or it is no X.509.
    """
    found = _PEM.search(pem)
    if found is None:
        raise ValueError("expected a PEM file with -----BEGIN CERTIFICATE-----")
    try:
        return _read(binascii.a2b_base64(found[1]))
    except (IndexError, StopIteration, binascii.Error, UnicodeDecodeError):
        raise ValueError("the first certificate is not X.509 in DER") from None


def _read(der: bytes) -> Certificate:
    _, body = next(_items(next(_items(der))[1]))
    fields = [item for item in _items(body) if item[0] != _VERSION]  # serial, algorithm, issuer, validity, ...
    before, after = (_time(*item) for item in _items(fields[3][1]))
    names, addresses = set(), set()
    for tag, value in _alternative_names(fields):
        if tag == _DNS_NAME:
            names.add(value.decode("ascii").lower().removesuffix("."))
        elif tag == _IP_ADDRESS:
            addresses.add(str(ipaddress.ip_address(value)))
    return Certificate(frozenset(names), frozenset(addresses), before, after)


def _alternative_names(fields: list[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    extensions = next((content for tag, content in fields if tag == _EXTENSIONS), b"")
    for _, listed in _items(extensions):
        for _, extension in _items(listed):
            parts = list(_items(extension))
            if parts[0] == (_OID, _SUBJECT_ALT_NAME):
                yield from _items(next(_items(parts[-1][1]))[1])


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each DER element; X.690 section 8.1. All tags of a certificate have one byte.

    Raises:
        IndexError: An element ends behind the data.
    """
    at = 0
    while at < len(data):
        tag, length = data[at], data[at + 1]
        at += 2
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(data[at : at + size], "big")
            at += size
        if at + length > len(data):
            raise IndexError
        yield tag, data[at : at + length]
        at += length


def _time(tag: int, content: bytes) -> float:
    """RFC 5280 section 4.1.2.5: always in seconds and UTC; two digits of a year below 50 are of this century."""
    text = content.decode("ascii")
    if tag == _UTC_TIME:
        text = ("20" if text < "50" else "19") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
