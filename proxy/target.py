"""Where a request goes: the forms of its target, and Host. RFC 9112 section 3.2, contract items 4 and 5."""

from __future__ import annotations

from ipaddress import AddressValueError, IPv6Address

from proxy.errors import DownstreamError
from proxy.grammar import ABSOLUTE_FORM, HOST, ORIGIN_FORM, PLAIN_HOST
from proxy.head import show

HOST_BYTES = 255  # of a name in the DNS; RFC 1035 section 2.3.4
_MAX_PORT = 65_535
_DEFAULT_PORTS = {b"http": 80, b"https": 443}


def read_target(method: bytes, target: bytes) -> tuple[bytes, bytes, bytes | None, bytes | None]:
    """Bring any form of a target into origin form; RFC 9112 section 3.2, contract items 4 and 5.

    Returns:
        Target, path, query or None, and scheme and authority of an absolute target or None.
    """
    origin = ORIGIN_FORM.fullmatch(target)
    if origin is not None:
        return target, origin[1], origin[2], None
    if target == b"*":
        if method != b"OPTIONS":
            raise DownstreamError(400, "the target * is for OPTIONS only")
        return target, target, None, None
    absolute = ABSOLUTE_FORM.fullmatch(target)
    if absolute is None:
        raise DownstreamError(
            400, f"expected /path or http://host/path without # and without \\ in the path, got {show(target)}"
        )
    authority, path, query = absolute[0][: absolute.end(2)], absolute[3], absolute[4]
    if path is None and query is None and method == b"OPTIONS":
        return b"*", b"*", None, authority  # RFC 9112 section 3.2.4
    path = path or b"/"
    return path if query is None else b"%b?%b" % (path, query), path, query, authority


def read_host(host: bytes | None, http11: bool, absolute: bytes | None) -> bytes:
    """Check Host, and against it the scheme and authority of an absolute target; contract item 4."""
    if host is None and http11:
        raise DownstreamError(400, "expected a Host field, got none")
    if absolute is None:
        if host is not None and not PLAIN_HOST.fullmatch(host):
            _check_host(host, 0)
        return host or b""
    scheme, _, authority = absolute.partition(b"://")
    default_port = _DEFAULT_PORTS[scheme.lower()]
    wanted = _check_host(authority, default_port)
    if host is None:
        return authority
    if _check_host(host, default_port) != wanted:
        raise DownstreamError(400, f"expected the Host of the target, {show(authority)}, got {show(host)}")
    return host


def _check_host(host: bytes, default_port: int) -> tuple[bytes, int]:
    """Name and port in a form that can be compared. RFC 9110 section 4.2.3."""
    match = HOST.fullmatch(host)
    if match is None:
        raise DownstreamError(400, f"expected one host[:port], got {show(host)}")
    name, literal, port = match.groups()
    number = int(port) if port else default_port
    if number > _MAX_PORT or len(name) > HOST_BYTES:
        raise DownstreamError(400, f"expected a port up to {_MAX_PORT} and a name up to {HOST_BYTES}, got {show(host)}")
    if literal is not None:
        try:
            IPv6Address(literal.decode("ascii"))
        except AddressValueError:
            raise DownstreamError(400, f"expected an IPv6 address in {show(host)}") from None
    return name.lower(), number
