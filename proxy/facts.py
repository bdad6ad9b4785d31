"""What one request says that a decision may depend on, read once."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxy.http1 import Request

_NONE: frozenset[bytes] = frozenset()
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")


class Facts:
    """One request as routes and user sources see it.

    Args:
        request: As parsed.
        wanted: Lower-case names of the fields that may be asked for, ``cookie`` among them.
        client: The client's address as text, behind trusted peers the forwarded one.
        peer_trusted: Whether the connection's other end is in ``trustedPeers``.

    Attributes:
        headers: The first value of each wanted field; the Cookie lines joined; ``host`` is the request's.
        repeated: Wanted fields that came on more than one line, Cookie aside.
        path: The path that routes match, see `proxy.route.normalise`.

    Cost: one set look-up a field.
    """

    __slots__ = ("_query", "client", "headers", "path", "peer_trusted", "repeated", "request")

    def __init__(self, request: Request, wanted: frozenset[bytes], client: str, peer_trusted: bool) -> None:
        self.request = request
        self.client = client
        self.peer_trusted = peer_trusted
        self.path = request.path
        self.repeated = _NONE
        self._query: dict[bytes, bytes] | None = None
        self.headers = headers = {b"host": request.host}
        for name, _, value in request.fields:
            if name in wanted:
                if name not in headers:
                    headers[name] = value
                elif name == b"cookie":  # RFC 6265 allows one line; HTTP/2 to HTTP/1.1 gateways leave several
                    headers[name] += b"; " + value
                else:
                    self.repeated |= {name}

    @property
    def cookies(self) -> bytes:
        """The Cookie field; empty if there is none."""
        return self.headers.get(b"cookie", b"")

    @property
    def query(self) -> dict[bytes, bytes]:
        """The query's parameters, decoded, the first of equal names."""
        if self._query is None:
            self._query = parse_query(self.request.query)
        return self._query


def parse_query(query: bytes) -> dict[bytes, bytes]:
    """Read a query as HTML forms write it (WHATWG URL, application/x-www-form-urlencoded).

    ``&`` separates, ``+`` is a blank, escapes are decoded in names and values; what is no escape stays as it is.

    Returns:
        The first value of each name. Cost: linear.
    """
    found: dict[bytes, bytes] = {}
    for part in query.split(b"&"):
        name, _, value = part.partition(b"=")
        if part:
            found.setdefault(_decoded(name), _decoded(value))
    return found


def _decoded(text: bytes) -> bytes:
    return _ESCAPE.sub(_byte, text.replace(b"+", b" ")) if b"%" in text or b"+" in text else text


def _byte(match: re.Match[bytes]) -> bytes:
    return bytes((int(match[1], 16),))
