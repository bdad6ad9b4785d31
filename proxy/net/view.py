"""A plan made ready for requests: compiled once when it is staged, read by every request that begins under it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from proxy.baggage import COPY, KEY
from proxy.decide import Splitter
from proxy.forward import RequestRules, ResponseRules, decision_lines
from proxy.identity import TrustedPeers
from proxy.keys import Keys
from proxy.net.pool import LAST_RESORT_S, Endpoint, Room, admitted, least_loaded, usable
from proxy.plan import Arm, Plan
from proxy.standing import PROBATION


class ArmView:
    """One arm of one plan: its endpoints, and what is said of a decision for it.

    Attributes:
        baggage, copy_baggage: The member that tells the arm, of a user's request and of a copy.
        dns: Name and port that its endpoints come from; None: the plan lists them.
        is_mirror: It gets copies only.
        is_mixed: Not all usable endpoints take an equal share: some are new, or on probation.
        of_plan: As the plan has it.
        room: What this arm may use at once, under whatever plan.
        stable: It is the first arm.
        usable: The endpoints that requests may use.
    """

    __slots__ = (
        "_lines",
        "_say",
        "_slow_start_s",
        "baggage",
        "copy_baggage",
        "dns",
        "endpoints",
        "is_mirror",
        "is_mixed",
        "name",
        "of_plan",
        "room",
        "stable",
        "usable",
    )

    def __init__(self, plan: Plan, arm: Arm, endpoints: list[Endpoint], room: Room, is_mirror: bool = False) -> None:
        self.name = arm.name
        self.is_mirror = is_mirror
        self.of_plan = arm
        self.dns = (arm.dns.host, arm.dns.port) if arm.dns else None
        self.endpoints = endpoints
        self.room = room
        self.stable = arm is plan.arms[0]
        self.usable = endpoints
        self.is_mixed = False
        self._slow_start_s = 0.0
        self.baggage = b"%b=%b" % (KEY, arm.name.encode())
        self.copy_baggage = b"%b;%b" % (self.baggage, COPY)
        rollout = f"{plan.rollout.namespace}/{plan.rollout.name}"
        self._say = partial(decision_lines, arm.name, rollout, arm.revision, generation=plan.generation)
        self._lines: dict[str, bytes] = {}

    def lines(self, reason: str) -> bytes:
        """The decision as header lines; reasons are configured names, so the dictionary stays small."""
        lines = self._lines.get(reason)
        if lines is None:
            lines = self._lines[reason] = self._say(reason)
        return lines

    def move(self, endpoints: list[Endpoint]) -> None:
        """Its name has other addresses now; a `refresh` must follow.

        Args:
            endpoints: Enlisted, those that stay once more.
        """
        left, self.endpoints = self.endpoints, endpoints
        for endpoint in left:
            endpoint.retire()

    def refresh(self, now: float, panic_percent: int, slow_start_s: float) -> None:
        """Find out anew which endpoints are usable: one's standing has changed, or a newcomer is no longer one."""
        found = self.usable = usable(self.endpoints, panic_percent, now + LAST_RESORT_S)
        self._slow_start_s = slow_start_s
        self.is_mixed = len(found) > 1 and any(
            e.standing.state == PROBATION or now - e.since < slow_start_s for e in found
        )

    def choose(self, avoid: Endpoint | None, now: float) -> Endpoint | None:
        """The endpoint for one request, None if the arm is down.

        Args:
            avoid: The one that just failed; used only if there is no other.
            now: Loop time.
        """
        if self.is_mixed:
            return least_loaded(admitted([e for e in self.usable if e is not avoid], now, self._slow_start_s), None)
        return least_loaded(self.usable, avoid)


class View:
    """One staged plan.

    Attributes:
        arms: As the plan lists them, stable first.
        falls_back: Users of an arm that is down get stable.
        mirror: The arm that gets copies once more, with connections and room of its own; None without mirroring.
        pools: The arms and the mirror.
        rules: For requests from untrusted and from trusted peers.
    """

    def __init__(self, plan: Plan, keys: Keys, trusted: TrustedPeers, rng: Callable[[int], bytes],
                 endpoints: Callable[[Arm, bool], list[Endpoint]],
                 room: Callable[[str, bool], Room], via: bytes = b"") -> None:  # fmt: skip
        self.plan = plan
        self.splitter = Splitter(plan, keys, trusted, rng)
        self.arms = [ArmView(plan, arm, endpoints(arm, False), room(arm.name, False)) for arm in plan.arms]
        self.mirror: ArmView | None = None
        if self.splitter.mirror:
            arm = plan.arms[self.splitter.mirror]
            self.mirror = ArmView(plan, arm, endpoints(arm, True), room(arm.name, True), is_mirror=True)
        self.pools = [*self.arms, self.mirror] if self.mirror else self.arms
        self.falls_back = plan.on_arm_down == "Stable"
        self.rules = (
            RequestRules(False, self.splitter.reserved, via),
            RequestRules(True, self.splitter.reserved, via),
        )
        self.response_rules = ResponseRules((plan.cookie_name, f"cohort_{plan.rollout.name}_preview"), via)

    def retire(self) -> None:
        """No request begins under this plan any more."""
        for arm in self.pools:
            for endpoint in arm.endpoints:
                endpoint.retire()
