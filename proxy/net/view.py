"""A plan made ready for requests: compiled once when it is staged, read by every request that begins under it."""

from __future__ import annotations

from collections.abc import Callable

from proxy.decide import Splitter
from proxy.forward import RequestRules, ResponseRules, decision_lines
from proxy.identity import TrustedPeers
from proxy.keys import Keys
from proxy.net.pool import Endpoint
from proxy.plan import Arm, Plan


class ArmView:
    """One arm: its name, its endpoints and its baggage member."""

    __slots__ = ("baggage", "endpoints", "name", "revision", "stable")

    def __init__(self, arm: Arm, endpoints: list[Endpoint], stable: bool) -> None:
        self.name = arm.name
        self.revision = arm.revision
        self.endpoints = endpoints
        self.stable = stable
        self.baggage = f"cohort.arm={arm.name}".encode()


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
            ArmView(arm, [endpoint(e.address, e.port, arm.name) for e in arm.endpoints], i == 0)
            for i, arm in enumerate(plan.arms)
        ]
        self.rules = (RequestRules(False, self.splitter.reserved), RequestRules(True, frozenset()))
        self.response_rules = ResponseRules((plan.cookie_name, f"cohort_{plan.rollout.name}_preview"))
        self._rollout = f"{plan.rollout.namespace}/{plan.rollout.name}"
        self._lines: dict[tuple[str, str], bytes] = {}

    def lines(self, arm: ArmView, reason: str) -> bytes:
        """The decision's header lines; reasons are configured names, so the dictionary stays small."""
        lines = self._lines.get((arm.name, reason))
        if lines is None:
            lines = decision_lines(arm.name, self._rollout, arm.revision, reason, self.plan.generation)
            self._lines[(arm.name, reason)] = lines
        return lines

    def retire(self) -> None:
        """No request begins under this plan any more."""
        for arm in self.arms:
            for endpoint in arm.endpoints:
                endpoint.retire()
