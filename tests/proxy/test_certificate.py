"""Names of certificates: which is for whom, and which requests belong elsewhere."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from proxy.certificate import Certificate, Guard, choose, host_name, read_certificate
from tests.support.certificates import Authority

AUTHORITY = Authority()


def names(*found: str) -> Certificate:
    return Certificate(frozenset(found), frozenset(), 0.0, 0.0)


def test_names_addresses_and_times_are_read() -> None:
    """RFC 5280 section 4.2.1.6."""
    pair = AUTHORITY.issue(
        "Shop.example", "*.shop.example", "192.0.2.1", "2001:db8::1", not_after=datetime(2049, 12, 31, tzinfo=UTC)
    )
    read = read_certificate(b"a comment\n" + pair.certificate)
    assert read.names == {"shop.example", "*.shop.example"}
    assert read.addresses == {"192.0.2.1", "2001:db8::1"}
    by_others = x509.load_pem_x509_certificate(pair.certificate)
    assert read.not_before_s == by_others.not_valid_before_utc.timestamp()
    assert read.not_after_s == by_others.not_valid_after_utc.timestamp()


def test_an_authority_has_no_names() -> None:
    """Its common name is none; a time after 2049 is written in another way."""
    read = read_certificate(AUTHORITY.pem)
    assert (read.names, read.addresses) == (frozenset(), frozenset())
    assert read.not_after_s == x509.load_pem_x509_certificate(AUTHORITY.pem).not_valid_after_utc.timestamp()


@pytest.mark.parametrize("content", [b"", b"x", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_what_is_no_certificate_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"(?i)certificate"):
        read_certificate(content)


@given(st.integers(0, 400), st.binary(max_size=4))
def test_a_broken_certificate_is_refused_or_read(at: int, change: bytes) -> None:
    """Whatever is in the file: a value or a ValueError."""
    der = ssl.PEM_cert_to_DER_cert(AUTHORITY.pem.decode())
    broken = ssl.DER_cert_to_PEM_cert(der[:at] + change + der[at + len(change) + 1 :])
    try:
        read_certificate(broken.encode())
    except ValueError:
        pass


@pytest.mark.parametrize(
    ("host", "is_covered"),
    [
        ("a.test", True), ("b.test", False), ("x.b.test", True), ("y.x.b.test", False), ("test", False), ("", False),
        ("192.0.2.1", True), ("192.0.2.2", False), (".b.test", False),
    ],
)  # fmt: skip
def test_a_wildcard_is_one_label(host: str, is_covered: bool) -> None:
    """RFC 9525 section 6.3."""
    certificate = Certificate(frozenset(("a.test", "*.b.test")), frozenset(("192.0.2.1",)), 0.0, 0.0)
    assert certificate.covers(host) == is_covered


@pytest.mark.parametrize(
    ("name", "index"), [("a.test", 2), ("x.test", 1), ("first.test", 0), ("y.x.test", 0), ("other", 0), ("", 0)]
)
def test_the_exact_name_comes_before_a_wildcard_and_that_before_the_first(name: str, index: int) -> None:
    assert choose([names("first.test"), names("*.test"), names("a.test"), names("a.test")], name) == index


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("Shop.Example:8443", "shop.example"), ("shop.example.", "shop.example"), ("[2001:DB8::1]:443", "2001:db8::1"),
        ("192.0.2.1:80", "192.0.2.1"), ("2001:db8::1", "2001:db8::1"),
    ],
)  # fmt: skip
def test_a_host_is_compared_without_port_case_and_final_dot(host: str, name: str) -> None:
    assert host_name(host) == name


@pytest.mark.parametrize(
    ("host", "is_admitted"),
    [(b"a.test", True), (b"A.test:8443", True), (b"b.test", True), (b"c.test", False), (b"192.0.2.1", False)],
)
def test_a_request_belongs_here_if_its_host_was_asked_for_or_is_in_the_certificate(
    host: bytes, is_admitted: bool
) -> None:
    """RFC 9110 section 15.5.20."""
    guard = Guard("a.test", names("b.test"))
    assert [guard.admits(host), guard.admits(host)] == [is_admitted] * 2
