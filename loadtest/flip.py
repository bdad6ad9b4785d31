"""The flip oracle: whether the answers that users got can all come from plans that treat one user as one user.

A user's arm is a bucket compared with a weight (``proxy.assign``), so the users of an arm are nested: whoever has the
canary at a weight has it at every higher one. The salt is secret and weights may be unknown, yet answers alone decide
nearly everything: a user in the canary under plan i and not under plan j shows that i's weight is above j's, and from
then on any user who shows the contrary has flipped. Weights learnt from plans are further comparisons of that kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

STABLE = "stable"
CANARY = "canary"
ABORT = "abort"
UNKEYED = "unkeyed"
SPLIT = "split"
SPREAD_S = 2.0  # from the first replica that an abort reaches to the last one, four times what is asked of it


@dataclass(frozen=True, slots=True)
class Answer:
    """What one answer says of itself in its ``X-Cohort-*`` fields.

    Attributes:
        revision: The revision of ``arm``.
        served: The version that the service itself named, where it names one.
    """

    generation: int
    revision: str
    arm: str
    reason: str
    rollout: str = ""
    served: str | None = None

    def __str__(self) -> str:
        text = f"{self.arm} {self.revision} ({self.reason}, generation {self.generation})"
        return text if self.served is None else f"{text} served by {self.served}"


@dataclass(frozen=True, slots=True)
class PlanFacts:
    """What is known of one plan from elsewhere.

    Attributes:
        trial: The revision on trial, None: no trial.
        weights_bp: Share of each arm but stable, in basis points.
    """

    generation: int
    trial: str | None
    weights_bp: Mapping[str, int]
    rollout: str = ""


@dataclass(frozen=True, slots=True)
class Flip:
    """An answer that no plan can have given this user.

    Attributes:
        before: The user's earlier answer that contradicts it; None where the answer contradicts its own plan.
    """

    before: Answer | None
    after: Answer
    why: str

    def __str__(self) -> str:
        return f"{self.before} then {self.after}: {self.why}" if self.before else f"{self.after}: {self.why}"


@dataclass(slots=True)
class Track:
    """What one user has seen, as sets of gates (bit i: gate i).

    Attributes:
        inside: By arm, the gates that let this user in.
        newest: The newest generation seen.
        live: The newest generation that answered with anything but an abort.
        aborted: The newest generation that was aborted and has told this user so.
    """

    seen: int = 0
    inside: dict[str, int] = field(default_factory=dict)
    rollout: str = ""
    newest: int = 0
    live: int = 0
    aborted: int = 0

    def forget(self) -> None:
        """The next answer is the first that counts."""
        self.seen, self.inside = 0, {}


@dataclass(slots=True)
class _Arm:
    """What is known of one arm's weights: ``at_most[i]`` are the gates whose weight is not below that of gate i."""

    at_most: dict[int, int] = field(default_factory=dict)
    at_least: dict[int, int] = field(default_factory=dict)

    def order(self, low: int, high: int) -> None:
        self.at_most[low] = self.at_most.get(low, 0) | 1 << high
        self.at_least[high] = self.at_least.get(high, 0) | 1 << low


Gate = tuple[str, int, str]  # rollout, generation, reason: what one weight applies to


class Ledger:
    """All that the answers to all users have shown so far, and the judgement of each new one.

    Attributes:
        behind: Answers of an older generation than the same user had seen, or of before an abort that had reached
            another replica, as several replicas give for a moment.

    Args:
        spread_s: For how long replicas may differ about an abort.
    """

    def __init__(self, spread_s: float = 0.0) -> None:
        self.behind = 0
        self._spread_s = spread_s
        self._since: dict[tuple[str, int], float] = {}  # when plans were seen to be aborted first
        self._gates: dict[Gate, int] = {}
        self._keys: list[Gate] = []
        self._arms: dict[str, _Arm] = {}
        self._trials: dict[tuple[str, int], str | None] = {}
        self._families: dict[tuple[str, str | None], int] = {}
        self._weights: dict[int, Mapping[str, int]] = {}
        self._revisions: dict[tuple[str, int, str], str] = {}
        self._forced: dict[Gate, str] = {}
        self._aborted: set[tuple[str, int]] = set()  # plans that were aborted while they were in force
        self._users: list[dict[str, int]] = []

    def learn(self, facts: PlanFacts) -> None:
        """Take in what a plan says; the order of calls and answers does not matter."""
        self._set_trial(facts.rollout, facts.generation, facts.trial)
        gate = self._gate((facts.rollout, facts.generation, SPLIT))
        if gate in self._weights:
            return
        self._weights[gate] = facts.weights_bp
        for arm, weight in facts.weights_bp.items():
            known = self._arms.setdefault(arm, _Arm())
            for other, weights in self._weights.items():
                if arm in weights and weight <= weights[arm]:
                    known.order(gate, other)
                if arm in weights and weights[arm] <= weight:
                    known.order(other, gate)

    def see(self, user: Track, answer: Answer, rekeyed: bool = False, now: float = 0.0) -> Flip | None:
        """Judge the next answer of one user, whose requests follow one another.

        Args:
            user: The user's own track, changed here.
            answer: What the answer said.
            rekeyed: A source of higher rank named the user for the first time (a login): one move is allowed.
            now: Seconds, when it came.

        Returns:
            The flip, after which the user starts afresh, so that one move counts once. Cost: microseconds.
        """
        if answer.rollout != user.rollout:
            user.rollout, user.newest, user.live, user.aborted = answer.rollout, 0, 0, 0
        if rekeyed:
            user.forget()
        if answer.generation < user.newest:
            self.behind += 1
        user.newest = max(user.newest, answer.generation)
        return self._own_plan(answer) or self._after_abort(user, answer, now) or self._by_reason(user, answer)

    def shares(self) -> list[tuple[Gate, Mapping[str, int], Mapping[str, int]]]:
        """For each gate that decided anything: users by arm (each counted once) and the weights, where known."""
        rows = zip(self._keys, self._users, strict=True)
        return [(key, users, self._weights.get(i, {})) for i, (key, users) in enumerate(rows) if users]

    def trial(self, rollout: str, generation: int) -> str | None:
        """The revision on trial under a generation, as far as known."""
        return self._trials.get((rollout, generation))

    def _own_plan(self, answer: Answer) -> Flip | None:
        """One plan has one revision an arm, and the service that answers is of that revision."""
        if answer.served is not None and answer.served != answer.revision:
            return Flip(None, answer, f"the service says it is {answer.served}")
        key = (answer.rollout, answer.generation, answer.arm)
        known = self._revisions.setdefault(key, answer.revision)
        if known != answer.revision:
            return Flip(None, answer, f"generation {answer.generation} has {known} as {answer.arm}")
        if answer.arm == CANARY:
            self._set_trial(answer.rollout, answer.generation, answer.revision)
        return None

    def _after_abort(self, user: Track, answer: Answer, now: float) -> Flip | None:
        """A plan that was aborted gives nobody the canary any more.

        Who saw another answer of it before was there when it happened. Else an abort may be an earlier one, which this
        very plan lifts: a proxy takes a plan first and clears the latch then, so its first answers may still be aborts.
        """
        plan = (answer.rollout, answer.generation)
        if answer.reason == ABORT:
            if user.live >= answer.generation:
                self._aborted.add(plan)
                self._since.setdefault(plan, now)
            if plan in self._aborted:
                user.aborted = max(user.aborted, answer.generation)
            return None if answer.arm == STABLE else Flip(None, answer, "an abort leads to stable")
        user.live = max(user.live, answer.generation)
        if answer.arm == STABLE or answer.generation > user.aborted:
            return None
        if now - self._since.get((answer.rollout, user.aborted), now) < self._spread_s:
            self.behind += 1
            return None
        before = Answer(
            user.aborted, self._revision(answer.rollout, user.aborted, STABLE), STABLE, ABORT, answer.rollout
        )
        user.aborted = 0
        return Flip(before, answer, "after an abort nobody leaves stable until a newer plan lifts it")

    def _by_reason(self, user: Track, answer: Answer) -> Flip | None:
        reason = answer.reason
        if reason == UNKEYED and user.seen:
            reason = SPLIT  # whoever had a key has it still
        if reason == SPLIT or reason.startswith("split/"):
            return self._by_split(user, answer, (answer.rollout, answer.generation, reason))
        if reason == UNKEYED and answer.arm != STABLE:
            return Flip(None, answer, "a request without a key goes to stable")
        if reason.startswith(("route/", "header/")):
            arm = self._forced.setdefault((answer.rollout, answer.generation, reason), answer.arm)
            if arm != answer.arm:
                return Flip(None, answer, f"{reason} leads to {arm} in generation {answer.generation}")
        return None

    def _by_split(self, user: Track, answer: Answer, key: Gate) -> Flip | None:
        gate = self._gate(key)
        if answer.arm != STABLE:
            self._arms.setdefault(answer.arm, _Arm())
        flip = self._impossible(gate, answer) or self._conflict(user, gate, answer)
        if flip:
            user.forget()
        if not user.seen >> gate & 1:
            self._record(user, gate, answer.arm)
        return flip

    def _impossible(self, gate: int, answer: Answer) -> Flip | None:
        """Nobody is in an arm of weight 0, everybody in one of weight 10,000."""
        weights = self._weights.get(gate, {})
        if weights.get(answer.arm) == 0:
            return Flip(None, answer, f"{answer.arm} has weight 0 in generation {answer.generation}")
        for arm, weight in weights.items():
            if weight == 10_000 and arm != answer.arm:
                return Flip(None, answer, f"{arm} has all users in generation {answer.generation}")
        return None

    def _conflict(self, user: Track, gate: int, answer: Answer) -> Flip | None:
        related = self._related(gate)
        for arm, known in self._arms.items():
            inside = user.inside.get(arm, 0)
            if arm == answer.arm:
                clash = user.seen & ~inside & (known.at_most.get(gate, 0) | 1 << gate) & related
            else:
                clash = inside & (known.at_least.get(gate, 0) | 1 << gate) & related
            if clash:
                return self._flip(user, clash.bit_length() - 1, arm, answer)
        return None

    def _flip(self, user: Track, gate: int, arm: str, after: Answer) -> Flip:
        rollout, generation, reason = self._keys[gate]
        held = next((name for name, gates in user.inside.items() if gates >> gate & 1), STABLE)
        before = Answer(generation, self._revision(rollout, generation, held), held, reason, rollout)
        if generation == after.generation:
            return Flip(before, after, "one plan, one user, two versions")
        entered = arm == after.arm
        bound = "at most" if entered else "at least"
        why = f"{arm} has {bound} as many users in generation {after.generation} as in {generation}"
        return Flip(before, after, f"{why}, so nobody {'enters' if entered else 'leaves'} it")

    def _revision(self, rollout: str, generation: int, arm: str) -> str:
        return self._revisions.get((rollout, generation, arm), "?")

    def _record(self, user: Track, gate: int, arm: str) -> None:
        """The user's first answer at this gate: count it and keep what it shows of the weights."""
        for name, known in self._arms.items():
            inside = user.inside.get(name, 0)
            if name == arm:
                new = user.seen & ~inside & ~known.at_least.get(gate, 0)
            else:
                new = inside & ~known.at_most.get(gate, 0)
            while new:
                other = new.bit_length() - 1
                new ^= 1 << other
                known.order(*((other, gate) if name == arm else (gate, other)))
        user.seen |= 1 << gate
        if arm != STABLE:
            user.inside[arm] = user.inside.get(arm, 0) | 1 << gate
        self._users[gate][arm] = self._users[gate].get(arm, 0) + 1

    def _gate(self, key: Gate) -> int:
        gate = self._gates.get(key)
        if gate is None:
            gate = self._gates[key] = len(self._keys)
            self._keys.append(key)
            self._users.append({})
            plan = key[:2]
            if plan in self._trials:
                self._join(gate, (plan[0], self._trials[plan]))
        return gate

    def _set_trial(self, rollout: str, generation: int, trial: str | None) -> None:
        plan = (rollout, generation)
        if plan in self._trials:
            return
        self._trials[plan] = trial
        for key, gate in self._gates.items():
            if key[:2] == plan:
                self._join(gate, (rollout, trial))

    def _join(self, gate: int, family: tuple[str, str | None]) -> None:
        self._families[family] = self._families.get(family, 0) | 1 << gate

    def _related(self, gate: int) -> int:
        """Gates under which this user has the same bucket: those of the same revision on trial."""
        rollout, generation, _ = self._keys[gate]
        plan = (rollout, generation)
        return 1 << gate | (self._families.get((rollout, self._trials[plan]), 0) if plan in self._trials else 0)
