"""Who sent a request: the client's address behind trusted peers, and the key of the user."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Final

from proxy.assign import KEY_BYTES, client_value, user_key
from proxy.cookie import UserCookie, decode, first_value
from proxy.plan import UserSource

if TYPE_CHECKING:
    from proxy.facts import Facts
    from proxy.http1 import Request

MAX_VALUE_BYTES: Final = 256  # a longer value counts as absent
MAX_TOKEN_BYTES = 8192  # of a JWT; servers refuse longer header lines anyway
MAX_ADDRESSES = 4096  # parsed ones that are remembered
REMEMBERED_USERS = 16_384  # whose hashes are not computed again

_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")  # NaN and Infinity, which Python reads


# BASE64URL(header) "." BASE64URL(payload) "." BASE64URL(signature); RFC 7515 section 3.1. The scheme: RFC 6750
_JWT = re.compile(rb"(?i:bearer +)?[A-Za-z0-9_-]+\.([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]*")
_JSON = json.JSONDecoder(parse_constant=_refuse_constant)

Find = Callable[["Facts"], bytes | None]


@lru_cache(MAX_ADDRESSES)
def parse_address(text: str) -> tuple[int, int, str] | None:
    """An address as version, number and canonical text; None if it is none.

    IPv4-mapped IPv6 counts as IPv4, a zone (``%eth0``) is dropped.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    number = int(address)
    mapped = address.version == 6 and number >> 32 == 0xFFFF
    plain = ipaddress.IPv4Address(number & 0xFFFFFFFF) if mapped else type(address)(number)
    return plain.version, int(plain), str(plain)


class Networks:
    """A list of networks, compiled."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = []
        for text in networks:
            network = ipaddress.ip_network(text)
            if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
                network = ipaddress.IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))
            self._networks.append((network.version, int(network.network_address), int(network.netmask)))

    def has(self, address: str) -> bool:
        """Whether an address lies in one of them; what is no address does not."""
        parsed = parse_address(address)
        if parsed is None:
            return False
        version, number, _ = parsed
        return any(v == version and number & mask == network for v, network, mask in self._networks)


class TrustedPeers:
    """The networks whose identity, forwarding and route headers are believed."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = Networks(networks)

    def trusts(self, address: str) -> bool:
        """Whether the peer at an address is believed; one without an address (a Unix socket) is not."""
        return self._networks.has(address)


def client_address(request: Request, peer: str, trusted: TrustedPeers) -> str:
    """The address of the client: the rightmost entry of X-Forwarded-For that no trusted peer has.

    Args:
        request: Its lines of X-Forwarded-For are one list.
        peer: The address of the connection's other end.
        trusted: Only a peer in these networks has its header read.

    Returns:
        An address as text; ``peer`` unless it is trusted. At an entry that is no address the last good one counts,
        because whoever wrote it does not speak for what stands to its left.
    """
    if not trusted.trusts(peer):
        return peer
    lines = [value for name, _, value in request.fields if name == b"x-forwarded-for"]
    client = peer
    for entry in reversed(b",".join(lines).split(b",")):
        parsed = parse_address(_without_port(entry.strip(b" \t").decode("latin-1")))
        if parsed is None:
            break
        client = parsed[2]
        if not trusted.trusts(client):
            break
    return client


def _without_port(entry: str) -> str:
    """Some load balancers write ``192.0.2.1:4711`` and ``[2001:db8::1]:4711``."""
    if entry.startswith("["):
        address, _, port = entry[1:].partition("]")
        return address if not port or (port[0] == ":" and port[1:].isdecimal()) else ""
    address, colon, port = entry.partition(":")
    return address if colon and port.isdecimal() else entry


def _from_header(name: bytes, anyone: bool) -> Find:
    def find(facts: Facts) -> bytes | None:
        # Of two lines one may be an attacker's, before or after ours: then the header says nothing.
        if (anyone or facts.peer_trusted) and name not in facts.repeated:
            return facts.headers.get(name)
        return None

    return find


def _from_cookie(name: str) -> Find:
    needle = name.encode() + b"="
    return lambda facts: first_value(facts.cookies, needle)


def _from_jwt(header: bytes, claim: str) -> Find:
    def find(facts: Facts) -> bytes | None:
        text = facts.headers.get(header)
        return jwt_claim(text, claim) if text and header not in facts.repeated else None

    return find


def jwt_claim(text: bytes, claim: str) -> bytes | None:
    """The value of a claim of a JWT, not verified (RFC 7519, in the compact form of RFC 7515).

    Args:
        text: The token, ``Bearer`` before it or not; at most `MAX_TOKEN_BYTES`.
        claim: Its name at the payload's top level.

    Returns:
        The claim's text in UTF-8, an integer as its digits; None for anything else and at any fault.
    """
    match = _JWT.fullmatch(text) if len(text) <= MAX_TOKEN_BYTES else None
    if match is None or (payload := decode(match[1])) is None:
        return None
    try:
        claims = _JSON.decode(payload.decode())
        value = claims.get(claim) if isinstance(claims, dict) else None
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        return value.encode() if isinstance(value, str) else None
    except (ValueError, RecursionError):  # not UTF-8, not JSON, a lone surrogate, too many digits, too deep
        return None


def _from_client(ipv6_prefix: int) -> Find:
    remembered = lru_cache(MAX_ADDRESSES)(client_value)
    return lambda facts: remembered(facts.client, ipv6_prefix)


def _finder(source: UserSource) -> Find:
    if source.header:
        return _from_header(source.header.name.lower().encode(), source.header.trust == "Anyone")
    if source.jwt:
        return _from_jwt(source.jwt.header.lower().encode(), source.jwt.claim)
    if source.cookie:
        return _from_cookie(source.cookie.name)
    assert source.client_address is not None  # the model has exactly one of them
    return _from_client(source.client_address.ipv6_prefix)


class Identity:
    """One user, one key: the sources of a plan in their order, and the cookie that stands in for them.

    Args:
        users: The plan's sources; `mint`, if listed, is the last.
        cookie: The minted cookie; None if mint is not listed.
        secret: The current identity secret.
        rng: Returns that many random bytes.

    Attributes:
        headers: Lower-case names of the fields that the sources look at.
        reserved: Those among them that count from trusted peers only.
    """

    def __init__(
        self, users: tuple[UserSource, ...], cookie: UserCookie | None, secret: bytes, rng: Callable[[int], bytes]
    ) -> None:
        self._sources = [(source.label, _finder(source)) for source in users if not source.mint]
        headers = [source.header for source in users if source.header]
        tokens = [source.jwt for source in users if source.jwt]
        self.headers = frozenset(source.header.lower().encode() for source in tokens) | {
            header.name.lower().encode() for header in headers
        }
        self.reserved = frozenset(header.name.lower().encode() for header in headers if header.trust == "TrustedPeers")
        self._cookie = cookie
        self._rng = rng
        # Users come again: 5 MB at the most, less for values shorter than the longest.
        self._key = lru_cache(REMEMBERED_USERS)(partial(user_key, identity_secret=secret))

    def resolve(self, facts: Facts, secure: bool, now: float) -> tuple[bytes | None, tuple[bytes, ...], bool]:
        """The key of the user who sent a request.

        Args:
            facts: Of the request.
            secure: Whether the client's side is TLS.
            now: Unix seconds.

        Returns:
            The key of 16 bytes, or None for a request without any and without a way to keep one; the ``Set-Cookie``
            lines that the answer must have; and whether a source above the cookie's moved this user to another key.
        """
        cookie = self._cookie
        if cookie is None:
            found = self._present(facts, len(self._sources))
            return (found[0] if found else None), (), False
        saved = cookie.read(facts.cookies, now)
        if saved is None:
            found = self._present(facts, len(self._sources))
            if found is None:
                if not _keeps_cookies(facts.request):
                    return None, (), False
                found = self._rng(KEY_BYTES), len(self._sources)
            return found[0], (cookie.line(*found, now, secure),), False
        key, rank, due = saved
        found = self._present(facts, rank + 1) if self._sources else None
        if found is None:
            return key, (cookie.line(key, rank, now, secure),) if due else (), False
        if due or found[1] != rank or found[0] != key:
            return found[0], (cookie.line(*found, now, secure),), found[0] != key
        return key, (), False

    def _present(self, facts: Facts, most: int) -> tuple[bytes, int] | None:
        """The key and rank of the first present one among the first ``most`` sources."""
        for rank, (label, find) in enumerate(self._sources[:most]):
            value = find(facts)
            if value and len(value) <= MAX_VALUE_BYTES:
                return self._key(label, value), rank
        return None


def _keeps_cookies(request: Request) -> bool:
    """Whether the cookie of an answer can come back: not from a CORS preflight, nor from a cross-origin fetch that
    carries no cookie (WHATWG Fetch; W3C Fetch Metadata)."""
    if request.method == b"OPTIONS" and request.first(b"origin") and request.first(b"access-control-request-method"):
        return False
    if request.first(b"sec-fetch-mode") != b"cors" or request.cookie is not None:
        return True
    return request.first(b"sec-fetch-site") in (b"same-origin", b"none", None)
