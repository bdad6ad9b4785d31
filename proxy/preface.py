"""What a load balancer says before its client's bytes: the PROXY protocol, versions 1 and 2, strictly.

Source: haproxy.org/download/3.0/doc/proxy-protocol.txt. One header stands before everything else on a connection, TLS
included; what is behind it belongs to the client.
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

MAX_V1 = 107  # section 2.1: the longest line, CRLF included
MAX_V2 = 4096  # of the whole header: addresses have 216 bytes at most, the rest is for TLVs
_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_V2_HEAD = 16
_LOCAL, _PROXY = 0x20, 0x21  # version 2 with its command
_CRC32C = 0x03  # the one TLV that must be looked at: section 2.2.3
# Length of the addresses by family; section 2.2. Unspecified families have no addresses that count.
_INET, _INET6, _STREAM = 0x1, 0x2, 0x1
_ADDRESSES = {0x0: 0, _INET: 12, _INET6: 36, 0x3: 216}

# "PROXY" SP "TCP4" SP src SP dst SP sport SP dport CRLF. What follows UNKNOWN up to CRLF is to be ignored.
_LINE = re.compile(
    rb"PROXY (?:TCP4 ([0-9.]{7,15}) ([0-9.]{7,15})|TCP6 ([0-9A-Fa-f:.]{2,45}) ([0-9A-Fa-f:.]{2,45}))"
    rb" (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})\r\n"
)
_UNKNOWN = re.compile(rb"PROXY UNKNOWN(?: [^\r\n]*)?\r\n")


class PrefaceError(Exception):
    """The bytes are no such header. The message says what was expected, and nothing of the bytes."""


class Preface(NamedTuple):
    """One header.

    Attributes:
        source: The client's address, canonical; None: the load balancer speaks for itself, or does not know the client.
        size: Its bytes.
    """

    source: str | None
    size: int


def parse(data: bytes) -> Preface | None:
    """Read the header at the beginning of a connection; None: what is here may be the beginning of one.

    Raises:
        PrefaceError: It is none, or a faulty one. Told as soon as it is visible.
    """
    if _SIGNATURE.startswith(data[:12]):
        return _binary(data)
    if b"PROXY ".startswith(data[:6]):
        return _text(data)
    raise PrefaceError("expected a header of the PROXY protocol, version 1 or 2")


def _text(data: bytes) -> Preface | None:
    end = data.find(b"\n", 0, MAX_V1) + 1
    if not end:
        if len(data) >= MAX_V1:
            raise PrefaceError(f"expected a line of at most {MAX_V1} bytes")
        return None
    line = data[:end]
    if _UNKNOWN.fullmatch(line):
        return Preface(None, end)
    match = _LINE.fullmatch(line)
    if match is None:
        raise PrefaceError("expected PROXY TCP4|TCP6 and two addresses and ports, or PROXY UNKNOWN")
    four_from, four_to, six_from, six_to, *ports = match.groups()
    if any(int(port) > 65_535 for port in ports):
        raise PrefaceError("expected ports up to 65535")
    try:
        if four_from is not None:
            ipaddress.IPv4Address(four_to.decode())
            return Preface(_canonical(ipaddress.IPv4Address(four_from.decode())), end)
        ipaddress.IPv6Address(six_to.decode())
        return Preface(_canonical(ipaddress.IPv6Address(six_from.decode())), end)
    except ValueError:
        raise PrefaceError("expected addresses of the family that is named") from None


def _binary(data: bytes) -> Preface | None:
    if len(data) >= 13 and data[12] not in (_LOCAL, _PROXY):
        raise PrefaceError("expected version 2 with the command LOCAL or PROXY")
    if len(data) < _V2_HEAD:
        return None
    size = _V2_HEAD + int.from_bytes(data[14:16], "big")
    if size > MAX_V2:
        raise PrefaceError(f"expected a header of at most {MAX_V2} bytes, got one of {size}")
    family, transport = data[13] >> 4, data[13] & 0xF
    is_local = data[12] == _LOCAL  # then nothing but the length counts
    addresses = 0 if is_local else _ADDRESSES.get(family, -1)
    if addresses < 0 or (transport > 2 and not is_local):
        raise PrefaceError("expected a known family and protocol")
    if size < _V2_HEAD + addresses:
        raise PrefaceError("the header is too short for its addresses")
    if len(data) < size:
        return None
    if addresses:
        _check_tlvs(data[:size], _V2_HEAD + addresses)
    if is_local or family not in (_INET, _INET6) or transport != _STREAM:
        return Preface(None, size)
    length = 4 if family == _INET else 16
    return Preface(_canonical(ipaddress.ip_address(data[_V2_HEAD : _V2_HEAD + length])), size)


def _canonical(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _check_tlvs(header: bytes, at: int) -> None:
    """Type, length of two bytes, value: they must fill the header exactly, and a checksum must hold."""
    while at < len(header):
        value = at + 3
        end = value + int.from_bytes(header[at + 1 : value], "big")
        if end > len(header) or value > len(header):
            raise PrefaceError("a TLV ends behind the header")
        if header[at] == _CRC32C:
            zeroed = header[:value] + bytes(end - value) + header[end:]
            if header[value:end] != crc32c(zeroed).to_bytes(4, "big"):
                raise PrefaceError("the checksum does not hold")
        at = end


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli), RFC 9260 appendix A; bit by bit, for some hundred bytes a connection of few balancers."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
