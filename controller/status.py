"""A rollout's status as people and programs see it: the shape that the cluster's custom resource will have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from controller.analysis import Verdict as Finding
from controller.evidence import Share
from controller.phase import hold, phase, verdict
from controller.state import Action, Phase, Stage, State, unreachable
from proxy.document import Document, duration_text, percent_text


class PlanStatus(Document):
    """The plan in force and who serves it.

    Attributes:
        digest: Of the whole plan; two proxies with equal digests decide alike.
        replicas: Proxies; ``current`` serve this very plan, ``pending`` are the others' addresses.
    """

    generation: int
    digest: str
    replicas: int
    current: int
    pending: tuple[str, ...] = ()


class RevisionStatus(Document):
    """Revisions of stable and of what is on trial."""

    stable: str | None = None
    canary: str | None = None


class StepStatus(Document):
    """The current step: its index from 0 (which is how many are done), of how many, and for how long it is in force."""

    index: int
    total: int
    elapsed: str


class WeightStatus(Document):
    """The canary's share in per cent: programmed, and measured by distinct users with the range that chance allows."""

    programmed: str
    measured: str | None = None
    low: str | None = None
    high: str | None = None


class AbortStatus(Document):
    """The abort that stands."""

    id: str
    revision: str
    by: str
    reason: str


class NeedStatus(Document):
    """What is missing for a measurement; minutes at the present rate, absent if nothing comes."""

    requests: int
    users: int
    minutes: int | None = None


class VerdictStatus(Document):
    """What the evidence says."""

    decision: Literal["Advance", "Rollback", "Hold", "DataFault"]
    reason: str
    message: str = ""
    need: NeedStatus | None = None


class ActionStatus(Document):
    """What somebody asked for."""

    uid: str
    verb: str
    result: Literal["Done", "Refused"]
    by: str = ""
    message: str = ""


class ConditionStatus(Document):
    """One condition, as Kubernetes has them."""

    type: Literal["Accepted", "Programmed", "Progressing", "Ready", "Degraded"]
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""
    observed_generation: int
    last_transition_time: str


class Status(Document):
    """All of it.

    Attributes:
        resource_version: Differs whenever more does than the elapsed time, the measured share, and the numbers in
            messages and needs.
    """

    observed_generation: int
    phase: Phase
    plan: PlanStatus | None = None
    revision: RevisionStatus = RevisionStatus()
    step: StepStatus | None = None
    weight: WeightStatus | None = None
    abort: AbortStatus | None = None
    verdict: VerdictStatus | None = None
    actions: tuple[ActionStatus, ...] = ()
    conditions: tuple[ConditionStatus, ...] = ()
    resource_version: int = Field(default=0, ge=0)


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition before it is known since when."""

    type: Literal["Accepted", "Programmed", "Progressing", "Ready", "Degraded"]
    is_true: bool
    reason: str
    message: str = ""


def status(
    state: State,
    now: float,
    *,
    digest: str,
    share: Share | None,
    conditions: tuple[ConditionStatus, ...],
    resource_version: int,
) -> Status:
    """The status of a rollout.

    Args:
        state: The rollout.
        now: Monotonic seconds.
        digest: Of its plan; empty while there is none.
        share: The canary's measured share, if anybody came.
        conditions: As `stamp` made them.
        resource_version: As the engine counts.
    """
    trial = state.trial if state.stage is not Stage.SWAPPING else None
    found = verdict(state, now)
    return Status(
        observed_generation=state.document_generation,
        phase=phase(state, now),
        plan=_plan(state, digest) if state.stable else None,
        revision=RevisionStatus(stable=state.stable.revision if state.stable else None, canary=state.revision),
        step=StepStatus(
            index=trial.index, total=len(trial.strategy.steps), elapsed=duration_text(float(int(trial.elapsed_s)))
        )
        if trial and not state.next
        else None,
        weight=_weight(trial.weight_bp if trial else 0, share if trial else None) if state.stable else None,
        abort=AbortStatus(
            id=state.abort.id, revision=state.abort.revision, by=state.abort.by, reason=state.abort.reason
        )
        if state.abort
        else None,
        verdict=_verdict(found) if found else None,
        actions=tuple(_action(action) for action in state.actions),
        conditions=conditions,
        resource_version=resource_version,
    )


def _plan(state: State, digest: str) -> PlanStatus:
    pending = tuple(v.address for v in state.views if not (v.is_current and v.generation == state.generation))
    replicas = len(state.views)
    return PlanStatus(
        generation=state.generation,
        digest=digest,
        replicas=replicas,
        current=replicas - len(pending),
        pending=pending,
    )


def _weight(weight_bp: int, share: Share | None) -> WeightStatus:
    programmed = percent_text(weight_bp)
    if share is None:
        return WeightStatus(programmed=programmed)
    measured, low, high = (percent_text(round(part * 10_000)) for part in (share.measured, share.low, share.high))
    return WeightStatus(programmed=programmed, measured=measured, low=low, high=high)


def _verdict(found: Finding) -> VerdictStatus:
    lacking = found.need
    need = lacking and NeedStatus(requests=lacking.requests, users=lacking.users, minutes=lacking.minutes)
    return VerdictStatus(decision=found.decision.value, reason=found.reason, message=found.message, need=need or None)


def _action(action: Action) -> ActionStatus:
    return ActionStatus(
        uid=action.uid,
        verb=action.verb,
        result="Done" if action.result == "Done" else "Refused",
        by=action.by,
        message=action.message,
    )


def conditions(state: State, now: float, problem: str) -> tuple[Condition, ...]:
    """What holds of a rollout.

    Args:
        state: The rollout.
        now: Monotonic seconds.
        problem: What is wrong with its documents as they are now; empty: nothing.
    """
    where = phase(state, now)
    held = hold(state, now)
    return (
        _accepted(state, problem),
        _programmed(state, now),
        _progressing(where, held),
        Condition("Ready", where is Phase.HEALTHY and state.is_current, where.value),
        _degraded(state, where),
    )


def _accepted(state: State, problem: str) -> Condition:
    if problem:
        return Condition("Accepted", False, "Invalid", f"{problem}; the last good document counts")
    if state.is_document_missing:
        return Condition("Accepted", False, "DocumentMissing", "the document is gone; the last good one counts")
    if state.refusal:
        return Condition("Accepted", False, "CanaryRefused", state.refusal)
    return Condition("Accepted", True, "Valid")


def _programmed(state: State, now: float) -> Condition:
    if lost := unreachable(state, now):
        names = "; ".join(f"{view.address}: {view.error or 'no answer'}" for view in lost)
        return Condition("Programmed", False, "ProxyUnreachable", names)
    if not any(view.answered for view in state.views):
        return Condition("Programmed", False, "Pending", "no proxy has answered yet")
    waiting = [view for view in state.views if not (view.is_current and view.generation == state.generation)]
    if waiting:
        whys = [view.refusal or view.error for view in waiting]
        names = "; ".join(v.address + (f": {why}" if why else "") for v, why in zip(waiting, whys, strict=True))
        return Condition("Programmed", False, "Pending", f"plan {state.generation} has not reached {names}")
    return Condition("Programmed", True, "Acknowledged", f"every proxy serves plan {state.generation}")


def _progressing(where: Phase, held: Finding | None) -> Condition:
    if where is Phase.HOLDING and held:
        return Condition("Progressing", False, held.reason, held.message)
    is_moving = where in (Phase.PENDING, Phase.PROGRESSING, Phase.PROMOTING)
    return Condition("Progressing", is_moving, where.value, held.message if held and is_moving else "")


def _degraded(state: State, where: Phase) -> Condition:
    if where is Phase.DEGRADED and state.abort:
        return Condition("Degraded", True, "AbortIncomplete", f"not latched yet: {', '.join(state.abort.failed)}")
    if where is Phase.ABORTED and state.abort:
        return Condition("Degraded", True, state.abort.reason, state.abort.message)
    return Condition("Degraded", False, where.value)


def stamp(
    before: Sequence[ConditionStatus], after: Sequence[Condition], generation: int, at: str
) -> tuple[ConditionStatus, ...]:
    """Conditions with the time since when they hold: a new one where the status changed, else the one before.

    Args:
        before: As they were.
        after: As they are.
        generation: Of the document that they are about.
        at: Now, UTC as RFC 3339 writes it.
    """
    known = {condition.type: condition for condition in before}
    stamped = []
    for condition in after:
        text: Literal["True", "False"] = "True" if condition.is_true else "False"
        old = known.get(condition.type)
        stamped.append(
            ConditionStatus(
                type=condition.type,
                status=text,
                reason=condition.reason,
                message=condition.message,
                observed_generation=generation,
                last_transition_time=old.last_transition_time if old and old.status == text else at,
            )
        )
    return tuple(stamped)
