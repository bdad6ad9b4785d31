"""A plan made ready for requests: compiled once when it is staged, read by every request that begins under it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from proxy.decide import Splitter
from proxy.forward import RequestRules, ResponseRules, decision_lines
from proxy.identity import TrustedPeers
from proxy.keys import Keys
from proxy.net.pool import Endpoint
from proxy.plan import Arm, Plan


class ArmView:
    """One arm of one plan: its endpoints, and what is said of a decision for it.

    Attributes:
        stable: It is the first arm.
        baggage: The member that tells the arm.
    """

    __slots__ = ("_lines", "_say", "baggage", "endpoints", "name", "stable")

    def __init__(self, plan: Plan, arm: Arm, endpoints: list[Endpoint]) -> None:
        self.name = arm.name
        self.endpoints = endpoints
        self.stable = arm is plan.arms[0]
        self.baggage = f"cohort.arm={arm.name}".encode()
        rollout = f"{plan.rollout.namespace}/{plan.rollout.name}"
        self._say = partial(decision_lines, arm.name, rollout, arm.revision, generation=plan.generation)
        self._lines: dict[str, bytes] = {}

    def lines(self, reason: str) -> bytes:
        """The decision as header lines; reasons are configured names, so the dictionary stays small."""
        lines = self._lines.get(reason)
        if lines is None:
            lines = self._lines[reason] = self._say(reason)
        return lines


class View:
    """One staged plan.

    Attributes:
        arms: As the plan lists them, stable first.
        rules: For requests from untrusted and from trusted peers.
    """

    def __init__(self, plan: Plan, keys: Keys, trusted: TrustedPeers, rng: Callable[[int], bytes],
                 endpoint: Callable[[str, int, str], Endpoint]) -> None:  # fmt: skip
        self.plan = plan
        self.splitter = Splitter(plan, keys, trusted, rng)
        self.arms = [
            ArmView(plan, arm, [endpoint(e.address, e.port, arm.name) for e in arm.endpoints]) for arm in plan.arms
        ]
        self.rules = (RequestRules(False, self.splitter.reserved), RequestRules(True, frozenset()))
        self.response_rules = ResponseRules((plan.cookie_name, f"cohort_{plan.rollout.name}_preview"))

    def retire(self) -> None:
        """No request begins under this plan any more."""
        for arm in self.arms:
            for endpoint in arm.endpoints:
                endpoint.retire()
