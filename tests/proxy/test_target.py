"""Where a request goes: the forms of a target, and Host."""

from __future__ import annotations

import pytest

from proxy.errors import DownstreamError
from proxy.target import read_host, read_target


@pytest.mark.parametrize(
    ("method", "sent", "target", "path", "query", "origin"),
    [
        (b"GET", b"/", b"/", b"/", None, None),
        (b"GET", b"/a?", b"/a?", b"/a", b"", None),
        (b"GET", b"/a?b?c", b"/a?b?c", b"/a", b"b?c", None),
        (b"GET", b"//evil.test/p", b"//evil.test/p", b"//evil.test/p", None, None),
        (b"GET", b"/a%2Fb/../%2e?%", b"/a%2Fb/../%2e?%", b"/a%2Fb/../%2e", b"%", None),
        (b"GET", b'/{"a"}|^`<>[];', b'/{"a"}|^`<>[];', b'/{"a"}|^`<>[];', None, None),
        (b"GET", b"/?a\\b", b"/?a\\b", b"/", b"a\\b", None),
        (b"GET", b"/http://h/", b"/http://h/", b"/http://h/", None, None),
        (b"OPTIONS", b"*", b"*", b"*", None, None),
        (b"GET", b"http://h", b"/", b"/", None, b"http://h"),
        (b"GET", b"http://h?x", b"/?x", b"/", b"x", b"http://h"),
        (b"GET", b"HTTPS://h:1/a//b?c", b"/a//b?c", b"/a//b", b"c", b"HTTPS://h:1"),
        (b"OPTIONS", b"http://h", b"*", b"*", None, b"http://h"),
        (b"OPTIONS", b"http://h/", b"/", b"/", None, b"http://h"),
        (b"OPTIONS", b"http://h?", b"/?", b"/", b"", b"http://h"),
    ],
)
def test_a_target_becomes_origin_form(
    method: bytes, sent: bytes, target: bytes, path: bytes, query: bytes | None, origin: bytes | None
) -> None:
    """RFC 9112 section 3.2, contract items 4 and 5: byte for byte, only the authority of an absolute target is cut."""
    assert read_target(method, sent) == (target, path, query, origin)


@pytest.mark.parametrize(
    "target",
    [b"*", b"a", b"?a", b"t:80", b"/a#b", b"/?a#b", b"/a\\b", b"/\xc3\xa9", b"/?\xff", b"/a b", b"/a\x7f", b"/\x00",
     b"ftp://h/", b"http:/h/", b"http:h", b"http//h/", b"http://h#a", b"http://h/a#b", b"http://h\\@e/", b"http://h/\\",
     b"javascript:1"],
)  # fmt: skip
def test_any_other_target_is_refused(target: bytes) -> None:
    """Contract item 5: no fragment, control, raw non-ASCII, no backslash in the path, only http(s)."""
    with pytest.raises(DownstreamError) as caught:
        read_target(b"GET", target)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "host",
    [b"t", b"T.example.", b"a_b-c", b"t:80", b"t:", b"t:65535", b"127.0.0.1:8080", b"[::1]", b"[2001:DB8::1]:80",
     b"[::ffff:192.0.2.1]:443", b"caf%C3%A9", b"!$&'()*+;=", b"h" * 255 + b":80", b"h" * 255],
)  # fmt: skip
def test_a_host_is_passed_on_as_sent(host: bytes) -> None:
    """RFC 9110 section 7.2: uri-host [ ":" port ]."""
    assert read_host(host, True, None) == host


@pytest.mark.parametrize(
    "host",
    [b"", b":80", b"t:80a", b"t:-1", b"t:65536", b"t:123456", b"t:80:80", b"a@b", b"a:b@c", b"a b", b"a\tb", b"a,b",
     b",t", b"a/", b"a?b", b"a#b", b"a\\b", b"\xfc", b"\xd9\xa5", b"a%4", b"a%zz", b"[::1", b"::1", b"[]", b"[::1]a",
     b"[1::2::3]", b"[12345::]", b"[fe80::1%eth0]", b"[v1.a]", b"[127.0.0.1]", b"[::1]:80a", b"h" * 256, b'"t"', b"<t>",
     b"t:8_0", b"t:+80", b"t:\xb2", b"http://t"],
)  # fmt: skip
def test_any_other_host_is_refused(host: bytes) -> None:
    """Contract item 4: one name and perhaps a port, nothing that two readers may read as two names."""
    with pytest.raises(DownstreamError) as caught:
        read_host(host, True, None)
    assert caught.value.status == 400


def test_only_http_1_0_may_come_without_a_host() -> None:
    """Contract item 4: then the proxy's configured name stands in."""
    assert read_host(None, False, None) == b""
    assert read_host(None, False, b"http://h:1") == b"h:1"
    for absolute in (None, b"http://h"):
        with pytest.raises(DownstreamError, match="expected a Host field"):
            read_host(None, True, absolute)


@pytest.mark.parametrize(
    ("absolute", "host"),
    [(b"http://t", b"t"), (b"http://t", b"T:80"), (b"http://T:", b"t"), (b"HTTP://t:080", b"t"),
     (b"https://t:443", b"t"), (b"https://t", b"t:443"), (b"http://[::1]", b"[::1]:80"), (b"http://t:81", b"t:81")],
)  # fmt: skip
def test_host_equals_the_authority_of_an_absolute_target(absolute: bytes, host: bytes) -> None:
    """Contract item 4: case-insensitively and with the scheme's default port dropped; Host is passed on as sent."""
    assert read_host(host, True, absolute) == host


@pytest.mark.parametrize(
    ("absolute", "host"),
    [(b"http://evil", b"t"), (b"http://t:81", b"t"), (b"https://t", b"t:80"), (b"http://t:443", b"t"),
     (b"http://", b"t"), (b"http://u@t", b"t"), (b"http://t", b""), (b"http://t:80a", b"t"), (b"http://t.", b"t"),
     (b"http://169.254.169.254", b"t")],
)  # fmt: skip
def test_another_host_than_the_targets_is_refused(absolute: bytes, host: bytes) -> None:
    """Contract item 4, RFC 9112 section 3.2.2: routing must not depend on which of the two is read."""
    with pytest.raises(DownstreamError) as caught:
        read_host(host, True, absolute)
    assert caught.value.status == 400
