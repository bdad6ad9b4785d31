"""What a rollout has decided, document by document, held against its steps. Pure.

Never a weight that nobody decided: those of a trial are its steps' in their order, each once, with nothing but pauses
in between; back to nothing leads an abort, the end of a promotion, or another revision.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

ALL_BP = 10_000


class Plan(NamedTuple):
    """A status, as far as it decides who sees what.

    Attributes:
        version: Its resourceVersion.
        generation: Of the plan in it; ``digest`` likewise.
        trial: The revision in the plan's second arm; empty: there is none.
        weight_bp: That arm's.
        phase: Of the rollout.
        abort: Id of the abort that stands, or empty.
    """

    version: int
    generation: int
    digest: str
    trial: str
    weight_bp: int
    phase: str
    abort: str

    def __str__(self) -> str:
        return (
            f"{self.version}: generation {self.generation}, {self.weight_bp} bp of {self.trial or 'none'}, {self.phase}"
        )


def read(rollout: Mapping[str, Any]) -> Plan | None:
    """What a CanaryRollout's status publishes; None: nothing yet."""
    status = rollout.get("status") or {}
    plan = status.get("plan") or {}
    document = plan.get("document")
    if not document:
        return None
    trial: Mapping[str, Any] = document["arms"][1] if len(document["arms"]) > 1 else {}
    return Plan(
        int(rollout["metadata"]["resourceVersion"]),
        int(plan["generation"]),
        str(plan["digest"]),
        str(trial.get("revision") or ""),
        int(trial.get("weightBp") or 0),
        str(status.get("phase") or ""),
        str((status.get("abort") or {}).get("id") or ""),
    )


class Trace:
    """Everything that was published, however it was learnt, in the API server's order.

    Attributes:
        asked: Weights that somebody has asked for, in basis points.

    Args:
        weights: Of the steps, in basis points, in their order.
    """

    def __init__(self, weights: Sequence[int]) -> None:
        self._next = {(before, after) for before, after in itertools.pairwise([0, *weights, ALL_BP])}
        self.asked: set[int] = set()
        self._plans: dict[int, Plan] = {}

    def add(self, rollout: Mapping[str, Any]) -> None:
        """Take in a CanaryRollout as it was at some time; more often than once does not matter."""
        if plan := read(rollout):
            self._plans[plan.version] = plan

    @property
    def plans(self) -> list[Plan]:
        """In order, those left out that decide the same as the one before."""
        ordered = [self._plans[version] for version in sorted(self._plans)]
        return [plan for i, plan in enumerate(ordered) if not i or plan[1:] != ordered[i - 1][1:]]

    @property
    def digests(self) -> dict[int, str]:
        """By generation, of every plan that was ever published."""
        return {plan.generation: plan.digest for plan in self._plans.values()}

    def weights(self, trial: str) -> list[int]:
        """What a revision was given, in order, repeats left out."""
        given = [plan.weight_bp for plan in self.plans if plan.trial == trial]
        return [weight for i, weight in enumerate(given) if not i or weight != given[i - 1]]

    @property
    def aborts(self) -> list[str]:
        """Ids of all aborts, in order."""
        return list(dict.fromkeys(plan.abort for plan in self.plans if plan.abort))

    def problems(self) -> list[str]:
        """What nobody has decided; empty: all of it is as the steps say."""
        told = []
        for before, after in itertools.pairwise(self.plans):
            if after.generation < before.generation:
                told.append(f"the generation falls: {before} then {after}")
            if after.generation == before.generation and after.digest != before.digest:
                told.append(f"one generation, two plans: {before} then {after}")
            if not self._is_decided(before, after):
                told.append(f"nobody decided this: {before} then {after}")
        return told

    def _is_decided(self, before: Plan, after: Plan) -> bool:
        if after.trial != before.trial:
            return after.weight_bp == 0 or (0, after.weight_bp) in self._next
        if after.weight_bp == before.weight_bp:
            return True
        if after.abort:
            return after.weight_bp == 0
        if after.weight_bp in self.asked:
            return True
        return (before.weight_bp, after.weight_bp) in self._next or (before.weight_bp, after.weight_bp) == (ALL_BP, 0)

    def foreign(self, served: Iterable[tuple[int, str]]) -> list[tuple[int, str]]:
        """Of the plans that proxies served, by (generation, digest), those that were never published."""
        known = {(plan.generation, plan.digest) for plan in self._plans.values()}
        return sorted(set(served) - known)
