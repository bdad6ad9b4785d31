"""What one request says that a decision may depend on, read once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxy.http1 import Request

MAX_PARAMETERS = 1000  # PHP's default too; a target may hold 8,000

_NONE: frozenset[bytes] = frozenset()
_DIGITS = "0123456789abcdefABCDEF"
ESCAPES = {(a + b).encode(): int(a + b, 16) for a in _DIGITS for b in _DIGITS}
BYTES = {digits: bytes((code,)) for digits, code in ESCAPES.items()}


class Facts:
    """One request as routes and user sources see it.

    Args:
        request: As parsed.
        wanted: Lower-case names of the fields that may be asked for; the same object for all requests of a plan.
        client: The client's address as text, behind trusted peers the forwarded one.
        peer_trusted: Whether the connection's other end is in ``trustedPeers``.

    Attributes:
        headers: The first value of each wanted field; ``host`` is the request's. Never changed: requests share it.
        repeated: Wanted fields that came on more than one line.
        cookies: The Cookie field, which is never in ``headers``; empty if there is none.
        path: The path that routes match, see `proxy.route.normalise`.

    Cost: one set look-up a field, none for fields seen before.
    """

    __slots__ = ("_query", "client", "cookies", "headers", "path", "peer_trusted", "repeated", "request")

    def __init__(self, request: Request, wanted: frozenset[bytes], client: str, peer_trusted: bool) -> None:
        self.request = request
        self.client = client
        self.peer_trusted = peer_trusted
        self.path = request.path
        self.cookies = request.cookie or b""
        self._query: dict[bytes, bytes] | None = None
        block = request.block
        if block is None:
            self.headers, self.repeated = _read(request, wanted)
        else:
            if block.wanted is not wanted:
                block.wanted, block.facts = wanted, _read(request, wanted)
            self.headers, self.repeated = block.facts

    @property
    def query(self) -> dict[bytes, bytes]:
        """The query's parameters, decoded, the first of equal names."""
        if self._query is None:
            self._query = parse_query(self.request.query)
        return self._query


def _read(request: Request, wanted: frozenset[bytes]) -> tuple[dict[bytes, bytes], frozenset[bytes]]:
    headers, repeated = {b"host": request.host}, _NONE
    for name, _, value in request.fields:
        if name in wanted:
            if name in headers:
                repeated |= {name}
            else:
                headers[name] = value
    return headers, repeated


def parse_query(query: bytes) -> dict[bytes, bytes]:
    """Read a query as HTML forms write it (WHATWG URL, application/x-www-form-urlencoded).

    ``&`` separates, ``+`` is a blank, escapes are decoded in names and values; what is no escape stays as it is.

    Returns:
        The first value of each name, among the first `MAX_PARAMETERS`. Cost: linear, at most 1 ms.
    """
    found: dict[bytes, bytes] = {}
    is_plain = b"%" not in query and b"+" not in query
    for part in query.split(b"&", MAX_PARAMETERS)[:MAX_PARAMETERS]:
        if part:
            name, _, value = part.partition(b"=")
            if is_plain:
                found.setdefault(name, value)
            else:
                found.setdefault(_decoded(name), _decoded(value))
    return found


def _decoded(text: bytes) -> bytes:
    if b"+" in text:
        text = text.replace(b"+", b" ")
    return unescape(text, BYTES) if b"%" in text else text


def unescape(text: bytes, meaning: Mapping[bytes, bytes]) -> bytes:
    """Replace escapes (``%`` and two hexadecimal digits) in one pass.

    Args:
        text: What is no escape stays as it is.
        meaning: What stands for each, by its two digits.

    Cost: linear, 0.1 us an escape: a client may send thousands.
    """
    first, *parts = text.split(b"%")
    out = [first]
    for part in parts:
        plain = meaning.get(part[:2])
        out.append(b"%" + part if plain is None else plain + part[2:])
    return b"".join(out)
