"""What one request says, read once."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.facts import MAX_PARAMETERS, Facts, parse_query
from tests.support.plans import request

WANTED = frozenset((b"cookie", b"x-user"))


def facts(*lines: str, target: str = "/") -> Facts:
    return Facts(request(target, *lines), WANTED, "192.0.2.1", False)


def test_only_what_is_wanted_is_kept_and_the_first_line_counts() -> None:
    """Gateway API: of equal names the first entry counts; RFC 9110 section 5.1: names have no case."""
    read = facts("X-USER: a", "Accept: x", "x-user: b")
    assert read.headers == {b"host": b"shop.example", b"x-user": b"a"}
    assert read.repeated == {b"x-user"}


def test_cookie_lines_are_one_list() -> None:
    """RFC 9113 section 8.2.3: gateways from HTTP/2 may leave several lines."""
    read = facts("Cookie: a=1", "Cookie: b=2; c=3")
    assert read.cookies == b"a=1; b=2; c=3"
    assert not read.repeated
    assert facts().cookies == b""


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (b"", {}),
        (b"a=1&b=2", {b"a": b"1", b"b": b"2"}),
        (b"a=1&a=2", {b"a": b"1"}),
        (b"a&b=&=c&&", {b"a": b"", b"b": b"", b"": b"c"}),
        (b"a=b=c", {b"a": b"b=c"}),
        (b"a=1;b=2", {b"a": b"1;b=2"}),
        (b"a+b=c+d", {b"a b": b"c d"}),
        (b"%61=%2B%26%3d", {b"a": b"+&="}),
        (b"a=%", {b"a": b"%"}),
        (b"a=%zz%4", {b"a": b"%zz%4"}),
        (b"a=%2541", {b"a": b"%41"}),
        (b"a=%C3%A9", {b"a": "é".encode()}),
    ],
    ids=["none", "two", "first", "odd", "sign", "semicolon", "plus", "escapes", "bare", "faulty", "once", "utf-8"],
)
def test_a_query_reads_as_forms_write_it(query: bytes, found: dict[bytes, bytes]) -> None:
    """WHATWG URL, application/x-www-form-urlencoded; of repeated names the first counts, as in Gateway API."""
    assert parse_query(query) == found


@given(st.lists(st.tuples(st.text(), st.text()), max_size=8))
def test_a_query_reads_as_the_standard_library_reads_it(pairs: list[tuple[str, str]]) -> None:
    """An oracle for all that is well-formed."""
    query = urlencode(pairs)
    first = dict(reversed(parse_qsl(query, keep_blank_values=True)))
    assert parse_query(query.encode()) == {name.encode(): value.encode() for name, value in first.items()}


def test_a_flood_of_parameters_costs_a_bounded_time() -> None:
    """A target of 64 KiB may hold 30,000."""
    query = b"&".join(b"p%d=%d" % (n, n) for n in range(10 * MAX_PARAMETERS))
    found = parse_query(query)
    assert len(found) == MAX_PARAMETERS
    assert found[b"p999"] == b"999"


def test_the_query_is_read_when_asked() -> None:
    """And once."""
    read = facts(target="/?a=1")
    assert read.query == {b"a": b"1"}
    assert read.query is read.query
