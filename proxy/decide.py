"""Who gets which version of one request: the order of precedence, compiled from a plan."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Final

from proxy import baggage
from proxy.assign import arm_index, bucket, mirror_salt
from proxy.cookie import UserCookie
from proxy.errors import DownstreamError
from proxy.facts import Facts
from proxy.identity import REMEMBERED_USERS, Identity, TrustedPeers
from proxy.keys import Keys
from proxy.plan import Plan
from proxy.preview import LocalAnswer, Preview
from proxy.route import (
    CompiledRoute,
    RouteTable,
    first_match,
    has_dot_segment,
    is_below,
    normalise,
    strip,
    with_separators,
)
from proxy.synthetic import HEADER, Tag

if TYPE_CHECKING:
    from proxy.http1 import Request

RESERVED: Final = b"/.cohort/"
EXPLAIN: Final = b"x-cohort-explain"
SYNTHETIC = HEADER.lower().encode()
# What an outer cohort says.
ARM: Final = b"x-cohort-arm"
REASON: Final = b"x-cohort-reason"
BAGGAGE: Final = b"baggage"

# Fields that every client sends for reasons of its own: a route or a source that looks at one does not take it away
# from the service, whoever sent it.
_COMMON = frozenset(
    (
        b"accept", b"accept-encoding", b"accept-language", b"authorization", b"cache-control", b"content-encoding",
        b"content-language", b"content-type", b"cookie", b"date", b"dnt", b"from", b"host", b"if-match",
        b"if-modified-since", b"if-none-match", b"if-range", b"if-unmodified-since", b"origin", b"pragma", b"priority",
        b"range", b"referer", b"save-data", b"sec-fetch-dest", b"sec-fetch-mode", b"sec-fetch-site", b"sec-fetch-user",
        b"sec-gpc", b"upgrade-insecure-requests", b"user-agent", b"x-requested-with",
    )
)  # fmt: skip


class Decision:
    """What happens with one request.

    Attributes:
        arm: Index in the plan's arms.
        reason: ``abort``, ``route/<name>``, ``outer``, ``preview``, ``header/<name>``, ``split/<name>``, ``split`` or
            ``unkeyed``.
        source: ``mirror`` for an outer cohort's copy; ``synthetic`` for the load generator's request; ``user`` where a
            user's share decided, or an abort did for one with a key; else ``forced``.
        key: The user key, 16 bytes; None for a request without.
        set_cookies: Complete ``Set-Cookie`` lines for the answer.
        rekeyed: The user was known by another key until now, and may have moved.
        answer: Status code that a route answers with; 0 for none.
        target: To send on: the request's own, or what a route's stripPrefix leaves of it.
        strip_prefix: What was taken from the target; empty for nothing.
        explain: The answer tells the decision.
        is_mirrored: A copy goes to the mirror's arm.
        local: The answer, if the request was for ``/.cohort/``.
    """

    __slots__ = (
        "answer", "arm", "explain", "is_mirrored", "key", "local", "reason", "rekeyed", "set_cookies", "source",
        "strip_prefix", "target",
    )  # fmt: skip

    def __init__(self, target: bytes, key: bytes | None, set_cookies: tuple[bytes, ...], rekeyed: bool) -> None:
        self.target = target
        self.key = key
        self.set_cookies = set_cookies
        self.rekeyed = rekeyed
        self.arm = 0
        self.reason = "unkeyed"
        self.source = "forced"
        self.answer = 0
        self.strip_prefix = b""
        self.explain = False
        self.is_mirrored = False
        self.local: LocalAnswer | None = None

    def __repr__(self) -> str:
        return f"<Decision arm={self.arm} {self.reason} {self.source}>"


class Splitter:
    """A plan, ready to decide about requests.

    Args:
        plan: Valid; without a revision on trial every arm means stable.
        keys: The installation's secrets; cookie, identity, preview and synthetic are used.
        trusted: Whose header may name a user or satisfy a route.
        rng: Returns that many random bytes.

    Attributes:
        mirror: Index of the arm that gets copies; 0, which never does, without mirroring.
        reserved: Lower-case names of the fields that count from trusted peers only; from others they are not passed on.
    """

    def __init__(self, plan: Plan, keys: Keys, trusted: TrustedPeers, rng: Callable[[int], bytes]) -> None:
        self._names = [arm.name for arm in plan.arms]
        self._known = frozenset((*self._names, "stable", "canary"))
        self._on_trial = plan.revision is not None
        self._salt = bytes.fromhex(plan.salt)
        self._canary_bp = plan.arms[1].weight_bp if len(plan.arms) > 1 else 0
        self._third_bp = plan.arms[2].weight_bp if len(plan.arms) > 2 else 0
        self._always_explain = plan.explain == "Always"
        self._may_explain = plan.explain != "Never"
        cookie = UserCookie(plan.cookie_name, keys.cookie, int(plan.mint.max_age)) if plan.mint else None
        self._identity = Identity(plan.users, cookie, keys.identity.current, rng)
        self._routes = RouteTable(plan, self._arm_of)
        self._preview = Preview(plan, keys.preview, normalise(plan.preview.path.encode()))
        self._tag = Tag(keys.synthetic, f"{plan.rollout.namespace}/{plan.rollout.name}")
        self.mirror = self._arm_of(plan.mirror.arm) if plan.mirror else 0
        self._mirror_bp = plan.mirror.percent if plan.mirror else 0
        self._mirror_methods = (
            frozenset(method.encode() for method in plan.mirror.methods) if plan.mirror else frozenset()
        )
        self._mirror_bucket = lru_cache(REMEMBERED_USERS)(partial(bucket, salt=mirror_salt(self._salt)))
        self._wanted = self._routes.headers | self._identity.headers | {EXPLAIN, SYNTHETIC, ARM, REASON, BAGGAGE}
        # Users come again: their buckets under this salt, 2 MB at the most.
        self._bucket = lru_cache(REMEMBERED_USERS)(partial(bucket, salt=self._salt))
        self.reserved = frozenset(
            name.replace(b"_", b"-") for name in (self._routes.reserved | self._identity.reserved) - _COMMON
        )

    def _arm_of(self, name: str) -> int:
        """The index of an arm by its name; ``canary`` is the second, and stable where there is none."""
        if not self._on_trial or name == "stable":
            return 0
        if name in self._names:
            return self._names.index(name)
        return 1 if name == "canary" and len(self._names) > 1 else 0

    def decide(
        self, request: Request, client: str, peer_trusted: bool, secure: bool, latched: bool, now: float
    ) -> Decision:
        """Decide about one request.

        Args:
            request: As parsed.
            client: The client's address, as `identity.client_address` tells it.
            peer_trusted: Whether the connection's other end is in ``trustedPeers``.
            secure: Whether the client's side is TLS.
            latched: Whether an abort stands.
            now: Unix seconds.

        Raises:
            DownstreamError: 400 for a target that services read in several ways, if a route looks at paths.

        Cost: 3-4 us with one source and no routes.
        """
        facts = Facts(request, self._wanted, client, peer_trusted)
        facts.path = normalise(request.path)
        route = self._route(facts) if self._routes.routes else None
        key, cookies, rekeyed = self._identity.resolve(facts, secure, now)
        decision = Decision(request.target, key, cookies, rekeyed)
        if facts.path.startswith(RESERVED):
            self._answer_locally(decision, facts, secure, latched, now)
            return decision
        self._choose(decision, facts, route, latched, now)
        if SYNTHETIC in facts.headers and self._is_synthetic(facts, now):
            decision.source, decision.rekeyed = "synthetic", False
        if peer_trusted and (outer := _outer(facts)) is not None and outer[1]:
            decision.source = "mirror"
        if route is not None:
            decision.answer = route.answer
            if route.strip and (path := strip(request.path, route.strip)) is not None:
                decision.target = path + request.target[len(request.path) :]
                decision.strip_prefix = route.strip
        if self.mirror and decision.source == "user":
            decision.is_mirrored = self._is_mirrored(decision, request, latched)
        decision.explain = self._always_explain or (self._may_explain and facts.headers.get(EXPLAIN) == b"1")
        return decision

    def _choose(self, decision: Decision, facts: Facts, route: CompiledRoute | None, latched: bool, now: float) -> None:
        """The order of precedence: the first that applies picks the arm and is the reason."""
        key = decision.key
        if latched:
            decision.reason = "abort"
            decision.source = "forced" if key is None else "user"
        elif route is not None and route.always:
            decision.arm, decision.reason = route.arm, route.reason
        elif facts.peer_trusted and (outer := self._outer_arm(facts)) is not None:
            decision.arm, decision.reason = outer, "outer"
        elif self._preview.is_on and (pinned := self._preview.pinned(facts.cookies, now)) is not None:
            decision.arm, decision.reason = self._arm_of(pinned), "preview"
        elif self._routes.header_routes and (header := first_match(self._routes.header_routes, facts)) is not None:
            decision.arm, decision.reason = header.arm, header.reason
        elif route is not None and route.canary_bp < 0:
            decision.arm, decision.reason = route.arm, route.reason
        elif key is not None:
            canary_bp = self._canary_bp if route is None else route.canary_bp
            decision.arm = arm_index(self._bucket(key), canary_bp, self._third_bp)
            decision.reason = "split" if route is None else route.reason
            decision.source = "user"

    def _is_synthetic(self, facts: Facts, now: float) -> bool:
        """Whether the load generator sent this; who sends two tags, of which one may be an attacker's, says nothing."""
        return SYNTHETIC not in facts.repeated and self._tag.is_genuine(facts.headers[SYNTHETIC], now)

    def _outer_arm(self, facts: Facts) -> int | None:
        """The arm that a trusted cohort in front has chosen; None if it has not, or if this plan has no such arm."""
        outer = _outer(facts)
        return self._arm_of(outer[0]) if outer is not None and outer[0] in self._known else None

    def _is_mirrored(self, decision: Decision, request: Request, latched: bool) -> bool:
        """Whether a request that its user's own share sent elsewhere is copied; what a route keeps away stays away."""
        return (
            not latched
            and decision.arm != self.mirror
            and not decision.answer
            and request.method in self._mirror_methods
            and decision.key is not None
            and self._mirror_bucket(decision.key) < self._mirror_bp
        )

    def _route(self, facts: Facts) -> CompiledRoute | None:
        """The route that counts, unless services that read the target in another way would get another one."""
        route = first_match(self._routes.routes, facts)
        if not self._routes.looks_at_paths:
            return route
        path = facts.path
        if has_dot_segment(path):
            raise DownstreamError(400, "expected a path without . and .. segments, because routes look at paths")
        other = with_separators(path)
        if other is path:
            return route
        facts.path = other
        differs = has_dot_segment(other) or first_match(self._routes.routes, facts) is not route
        facts.path = path
        if route is not None and route.strip:
            differs = differs or is_below(path, route.strip) != is_below(other, route.strip)
        if differs or path.startswith(RESERVED) != other.startswith(RESERVED):
            raise DownstreamError(400, "expected a path that means the same with %2F and %5C read as separators")
        return route

    def _answer_locally(self, decision: Decision, facts: Facts, secure: bool, latched: bool, now: float) -> None:
        """Answer what is below the reserved path; the page tells what this browser has at the service's root."""
        asked, facts.path = facts.path, b"/"
        self._choose(decision, facts, first_match(self._routes.routes, facts), latched, now)
        facts.path = asked
        decision.local = self._preview.answer(facts, self._names[decision.arm], decision.reason, secure, now)


def _outer(facts: Facts) -> tuple[str, bool] | None:
    """What the cohort in front says: the arm's name, and whether the request is a copy; the header before baggage.

    Of two lines one may be an attacker's, before or after that cohort's: then it says nothing.
    """
    members = facts.headers.get(BAGGAGE)
    if members is not None and BAGGAGE in facts.repeated:
        members = b",".join(value for field, _, value in facts.request.fields if field == BAGGAGE)
    told = None if members is None else baggage.read(members)
    name = facts.headers.get(ARM)
    if name is None:
        return told
    is_copy = facts.headers.get(REASON) == b"mirror" or (told is not None and told[1])
    return None if ARM in facts.repeated else (name.decode("latin-1"), is_copy)
