"""Routes: conditions compiled from a plan, and the path as they see it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from proxy.assign import BUCKETS
from proxy.cookie import first_value
from proxy.facts import ESCAPES, unescape
from proxy.identity import Networks
from proxy.plan import FieldMatch, HeaderRoute, Match, PathMatch, Plan, Route, compile_regex

if TYPE_CHECKING:
    from proxy.facts import Facts

# ALPHA / DIGIT / "-" / "." / "_" / "~"; RFC 3986 section 2.3
_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_NORMALISED = {
    digits: bytes((code,)) if code in _UNRESERVED else b"%" + digits.upper() for digits, code in ESCAPES.items()
}
_SLASHES = re.compile(rb"/{2,}")
# A path parameter hides a dot segment from us and not from servlet containers, which cut it off: "/..;/".
_DOT_SEGMENT = re.compile(rb"/\.\.?(?=[/;]|\Z)")
_PORT = re.compile(rb":[0-9]*\Z")  # RFC 3986 section 3.2.3: may be empty
_UNIT = re.compile(rb"%[0-9A-Fa-f]{2}|/+|[^/]")

Condition = Callable[["Facts"], bool]
Check = Callable[[bytes], bool]


def normalise(path: bytes) -> bytes:
    """The path as routes match it: RFC 3986 section 6.2.2 without removing dot segments, which are refused.

    Escapes of unreserved characters are decoded, the others spelt with capitals, repeated slashes merged.
    """
    return _merged(unescape(path, _NORMALISED) if b"%" in path else path)


def _merged(path: bytes) -> bytes:
    return _SLASHES.sub(b"/", path) if b"//" in path else path


def has_dot_segment(path: bytes) -> bool:
    """Whether a normalised path has a segment ``.`` or ``..``, parameters (``..;x``) aside."""
    return b"/." in path and _DOT_SEGMENT.search(path) is not None


def with_separators(path: bytes) -> bytes:
    """A normalised path as services see it that read ``%2F`` and ``%5C`` as separators. The same object if none is."""
    if b"%2F" not in path and b"%5C" not in path:
        return path
    return _merged(path.replace(b"%2F", b"/").replace(b"%5C", b"/"))


def is_below(path: bytes, prefix: bytes) -> bool:
    """Whether a path is ``prefix`` or below it, by whole segments; ``prefix`` has no slash at its end."""
    return path.startswith(prefix) and (len(path) == len(prefix) or path[len(prefix)] == 0x2F)


def strip(path: bytes, prefix: bytes) -> bytes | None:
    """Take a prefix from a path as it came, however the client spelt it.

    Args:
        path: Raw. What follows the prefix stays byte for byte, but begins with exactly one slash: ``//host`` would
            name another host where a service redirects to it.
        prefix: Normalised, without a slash at its end.

    Returns:
        The path without it, ``/`` if nothing is left; None if the path is not below the prefix.
    """
    if not is_below(normalise(path), prefix):
        return None
    done, at = 0, 0
    while done < len(prefix):  # each unit is one byte of the normalised path, or an escape that stays one
        unit = _UNIT.match(path, at)
        assert unit is not None  # a path of any bytes is made of units
        done += len(normalise(unit[0]))
        at = unit.end()
    return b"/" + path[at:].lstrip(b"/")


def _check(match: FieldMatch | PathMatch) -> Check:
    """The comparison of one matcher, over bytes: what a document spells beyond ASCII counts as UTF-8."""
    value = (match.value or "").encode()
    if match.type == "Exact":
        return lambda text: text == value
    if match.type == "Prefix":
        return lambda text: text.startswith(value)
    if match.type == "Suffix":
        return lambda text: text.endswith(value)
    if match.type == "RegularExpression":
        pattern = compile_regex(match.value or "")
        return lambda text: pattern.fullmatch(text) is not None
    return lambda text: True


def _path(match: PathMatch) -> Condition:
    if match.type == "RegularExpression":
        check = _check(match)
        return lambda facts: check(facts.path)
    value = normalise(match.value.encode())
    if match.type == "Exact":
        return lambda facts: facts.path == value
    prefix = value.rstrip(b"/")
    return lambda facts: is_below(facts.path, prefix)


def _header(match: FieldMatch, trusted_only: bool) -> Condition:
    name, check = match.name.lower().encode(), _check(match)

    def condition(facts: Facts) -> bool:
        if trusted_only and not facts.peer_trusted:
            return False
        # Of repeated lines the first counts, as in Gateway API; Cookie is one line by then.
        value = facts.headers.get(name) if name != b"cookie" else facts.cookies or None
        return value is not None and check(value)

    return condition


def _query(match: FieldMatch) -> Condition:
    name, check = match.name.encode(), _check(match)

    def condition(facts: Facts) -> bool:
        value = facts.query.get(name)
        return value is not None and check(value)

    return condition


def _cookie(match: FieldMatch) -> Condition:
    needle, check = match.name.encode() + b"=", _check(match)

    def condition(facts: Facts) -> bool:
        value = first_value(facts.cookies, needle)
        return value is not None and check(value)

    return condition


def _method(name: str) -> Condition:
    method = name.encode()
    return lambda facts: facts.request.method == method


def _hostnames(names: Iterable[str]) -> Condition:
    exact = frozenset(name.encode() for name in names if not name.startswith("*."))
    suffixes = tuple(name[1:].encode() for name in names if name.startswith("*."))

    def condition(facts: Facts) -> bool:
        host = _PORT.sub(b"", facts.headers[b"host"]).removesuffix(b".").lower()
        return host in exact or (host.endswith(suffixes) and not host.startswith(b"."))

    return condition


def _networks(texts: Iterable[str]) -> Condition:
    networks = Networks(texts)
    return lambda facts: networks.has(facts.client)


def _conditions(match: Match, trusted_only: bool) -> tuple[Condition, ...]:
    """What must hold, the cheapest and most selective first."""
    found: list[Condition] = []
    if match.method is not None:
        found.append(_method(match.method))
    if match.path is not None:
        found.append(_path(match.path))
    if match.hostnames:
        found.append(_hostnames(match.hostnames))
    found += [_header(header, trusted_only) for header in match.headers]
    found += [_cookie(cookie) for cookie in match.cookies]
    found += [_query(parameter) for parameter in match.query_params]
    if match.client_networks:
        found.append(_networks(match.client_networks))
    return tuple(found)


class CompiledRoute:
    """One route, ready to be asked.

    Attributes:
        reason: ``route/<name>``, ``split/<name>`` or ``header/<name>``.
        arm: Index of its arm; 0 where it answers or splits.
        canary_bp: For a split the weight of the canary within the route's bounds, else -1.
        answer: Status code, 0 for none.
        strip: Normalised prefix to take from the path; empty for none.
    """

    __slots__ = ("_matches", "always", "answer", "arm", "canary_bp", "reason", "strip")

    def __init__(self, matches: tuple[tuple[Condition, ...], ...], reason: str, arm: int) -> None:
        self._matches = matches
        self.reason = reason
        self.arm = arm
        self.canary_bp = -1
        self.always = False
        self.answer = 0
        self.strip = b""

    def matches(self, facts: Facts) -> bool:
        """Whether all conditions of one of its matches hold."""
        for conditions in self._matches:  # loops, not generators: several times cheaper on the hot path
            for condition in conditions:
                if not condition(facts):
                    break
            else:
                return True
        return False


class RouteTable:
    """The routes of a plan.

    Attributes:
        routes: In the order in which they count: unconditional ones first, each group as listed.
        header_routes: Those that the rollout's steps have set.
        looks_at_paths: Whether any route's choice or target depends on the path.
        headers: Lower-case names of the header fields that routes look at.
        reserved: Those among them that count from trusted peers only.
    """

    def __init__(self, plan: Plan, arm_of: Callable[[str], int]) -> None:
        ordered = sorted(plan.routes, key=lambda route: not route.always)
        self.routes = tuple(_compiled(route, plan, arm_of) for route in ordered)
        self.header_routes = tuple(_compiled_header(route, arm_of("canary")) for route in plan.header_routes)
        self.looks_at_paths = any(
            route.strip_prefix is not None or any(match.path is not None for match in route.matches)
            for route in plan.routes
        )
        by_trust: dict[str, set[bytes]] = {"TrustedPeers": set(), "Anyone": set()}
        for route in plan.routes:
            by_trust[route.trust].update(h.name.lower().encode() for m in route.matches for h in m.headers)
        for header_route in plan.header_routes:
            by_trust["Anyone"].update(h.name.lower().encode() for h in header_route.matches)
        self.reserved = frozenset(by_trust["TrustedPeers"] - by_trust["Anyone"])
        self.headers = frozenset(by_trust["TrustedPeers"] | by_trust["Anyone"])


def first_match(routes: tuple[CompiledRoute, ...], facts: Facts) -> CompiledRoute | None:
    """The route that counts for a request. Cost: 0.2-0.3 us a condition, 2 us where RE2 is asked."""
    for route in routes:
        if route.matches(facts):
            return route
    return None


def _compiled(route: Route, plan: Plan, arm_of: Callable[[str], int]) -> CompiledRoute:
    trusted_only = route.trust == "TrustedPeers"
    matches = tuple(_conditions(match, trusted_only) for match in route.matches)
    name = f"split/{route.name}" if route.split else f"route/{route.name}"
    compiled = CompiledRoute(matches, name, arm_of(route.arm) if route.arm else 0)
    compiled.always = route.always
    compiled.answer = route.answer or 0
    compiled.strip = normalise((route.strip_prefix or "").encode()).rstrip(b"/")
    if route.split is not None:
        compiled.canary_bp = bounded(plan, route.split.at_least, route.split.at_most)
    return compiled


def _compiled_header(route: HeaderRoute, arm: int) -> CompiledRoute:
    conditions = tuple(_header(match, False) for match in route.matches)
    return CompiledRoute((conditions,), f"header/{route.name}", arm)


def bounded(plan: Plan, at_least: int, at_most: int) -> int:
    """The canary's weight in basis points, raised and cut; what a third arm has is never taken from it."""
    if plan.revision is None or len(plan.arms) < 2:
        return 0
    third = plan.arms[2].weight_bp if len(plan.arms) > 2 else 0
    return min(max(plan.arms[1].weight_bp, at_least), at_most, BUCKETS - third)
