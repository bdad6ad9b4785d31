"""The PROXY protocol: which bytes are a header, and whose address is in it."""

from __future__ import annotations

import ipaddress
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.preface import MAX_V1, MAX_V2, Preface, PrefaceError, crc32c, parse

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V4 = ipaddress.ip_address("192.0.2.1").packed + ipaddress.ip_address("198.51.100.1").packed + b"\x30\x39\x01\xbb"
V6 = ipaddress.ip_address("2001:db8::1").packed + ipaddress.ip_address("2001:db8::2").packed + b"\x30\x39\x01\xbb"


def v2(command: int, family: int, content: bytes) -> bytes:
    return SIGNATURE + bytes((command, family)) + len(content).to_bytes(2, "big") + content


def tlv(kind: int, value: bytes) -> bytes:
    return bytes((kind,)) + len(value).to_bytes(2, "big") + value


def with_checksum(content: bytes) -> bytes:
    header = v2(0x21, 0x11, content + tlv(3, bytes(4)))
    return header[:-4] + crc32c(header).to_bytes(4, "big")


GOOD = [
    (b"PROXY TCP4 192.0.2.1 198.51.100.1 12345 443\r\n", "192.0.2.1"),
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255"),
    (b"PROXY TCP4 192.0.2.1 198.51.100.1 0 0\r\n", "192.0.2.1"),
    (b"PROXY TCP6 2001:DB8::1 2001:db8::2 12345 443\r\n", "2001:db8::1"),
    (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", "192.0.2.1"),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", None),
    (v2(0x21, 0x11, V4), "192.0.2.1"),
    (v2(0x21, 0x21, V6), "2001:db8::1"),
    (v2(0x21, 0x21, ipaddress.ip_address("::ffff:192.0.2.1").packed + V6[16:]), "192.0.2.1"),
    (v2(0x21, 0x11, V4 + tlv(0x04, b"") + tlv(0xEA, b"vpce-1")), "192.0.2.1"),
    (with_checksum(V4 + tlv(0x01, b"h2")), "192.0.2.1"),
    (v2(0x20, 0x00, b""), None),
    (v2(0x20, 0xFF, b"whatever"), None),
    (v2(0x20, 0x11, V4), None),
    (v2(0x21, 0x00, b"ignored"), None),
    (v2(0x21, 0x12, V4), None),
    (v2(0x21, 0x31, bytes(216)), None),
]
BAD = [
    b"GET / HTTP/1.1\r\n",
    b"\x16\x03\x01",
    b"proxy TCP4 ",
    b"PROXY  TCP4 192.0.2.1 198.51.100.1 1 2\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.1 1 2\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.1 1 2 \r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.1 1\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.1 01 2\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.1 -1 2\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.1 1 65536\r\n",
    b"PROXY TCP4 192.0.02.1 198.51.100.1 1 2\r\n",
    b"PROXY TCP4 192.0.2.256 198.51.100.1 1 2\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100 1 2\r\n",
    b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
    b"PROXY TCP6 192.0.2.1 198.51.100.1 1 2\r\n",
    b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
    b"PROXY TCP6 1::2::3 ::1 1 2\r\n",
    b"PROXY TCP5 192.0.2.1 198.51.100.1 1 2\r\n",
    b"PROXY UDP4 192.0.2.1 198.51.100.1 1 2\r\n",
    b"PROXY UNKNOWNx\r\n",
    b"PROXY UNKNOWN a\rb\r\n",
    b"PROXY UNKNOWN " + b"x" * (MAX_V1 - 15) + b"\r\n",
    b"PROXY UNKNOWN " + b"x" * MAX_V1,
    SIGNATURE + b"\x11",
    SIGNATURE + b"\x22",
    SIGNATURE + b"\x31",
    v2(0x21, 0x41, V4),
    v2(0x21, 0x13, V4),
    v2(0x21, 0x11, V4[:-1]),
    v2(0x21, 0x21, V4),
    v2(0x21, 0x31, V6),
    v2(0x21, 0x11, V4 + b"\x04"),
    v2(0x21, 0x11, V4 + b"\x04\x00"),
    v2(0x21, 0x11, V4 + b"\x04\x00\x02x"),
    v2(0x21, 0x11, V4 + tlv(3, bytes(4))),
    v2(0x21, 0x11, V4 + tlv(3, b"")),
    v2(0x21, 0x11, bytes(MAX_V2))[:16],
]


@pytest.mark.parametrize(("header", "source"), GOOD)
@pytest.mark.parametrize("rest", [b"", b"GET / HTTP/1.1\r\n", b"PROXY UNKNOWN\r\n"])
def test_a_header_tells_the_client_and_where_its_bytes_begin(header: bytes, source: str | None, rest: bytes) -> None:
    """Sections 2.1 and 2.2; whatever the balancer does not say is None."""
    assert parse(header + rest) == Preface(source, len(header))


@pytest.mark.parametrize(("header", "_"), GOOD)
def test_every_part_of_a_header_is_waited_for(header: bytes, _: object) -> None:
    """However it is cut; nothing is taken early."""
    assert [parse(header[:size]) for size in range(len(header))] == [None] * len(header)


@pytest.mark.parametrize("header", BAD)
def test_what_is_no_header_is_refused(header: bytes) -> None:
    """And the message repeats nothing of it."""
    with pytest.raises(PrefaceError) as caught:
        parse(header)
    assert "192.0" not in str(caught.value)


def test_the_longest_line_is_taken() -> None:
    longest = b"PROXY UNKNOWN " + b"x" * (MAX_V1 - 16) + b"\r\n"
    assert len(longest) == MAX_V1
    assert parse(longest) == Preface(None, MAX_V1)


def test_the_checksum_is_that_of_iscsi() -> None:
    """RFC 3720 appendix B.4."""
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA


@given(st.binary(max_size=300))
def test_any_bytes_are_a_header_a_part_of_one_or_refused(data: bytes) -> None:
    _judge(data)


@given(st.sampled_from([header for header, _ in GOOD]), st.integers(0, 2**32))
def test_a_changed_header_is_a_header_a_part_of_one_or_refused(header: bytes, seed: int) -> None:
    """One to three bytes are changed, cut out or put in."""
    rng, changed = random.Random(seed), bytearray(header)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(changed) + 1)
        changed[at : at + rng.randint(0, 2)] = rng.randbytes(rng.randint(0, 2))
    _judge(bytes(changed))


def _judge(data: bytes) -> None:
    """No exception but ours, the size within the data, and the same verdict however the bytes arrive."""
    try:
        found = parse(data)
    except PrefaceError:
        return
    if found is None:
        assert len(data) < MAX_V2
        return
    assert 8 <= found.size <= len(data)
    assert found.source is None or str(ipaddress.ip_address(found.source)) == found.source
    assert parse(data[: found.size]) == found
    assert all(parse(data[:size]) is None for size in range(found.size))
