"""A rollout's status as people and programs see it: the shape that the cluster's custom resource will have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from controller.analysis import Verdict as Finding
from controller.evidence import Share
from controller.phase import hold, phase, verdict
from controller.state import Action, Phase, Stage, State, unreachable
from proxy.document import Document, duration_text, percent_text

MAX_PENDING = 64  # addresses that a status names


def _clip(size: int) -> BeforeValidator:
    """Cut text to its bound: a status that is too long to be stored would be no status at all."""
    return BeforeValidator(lambda value: value[:size] if isinstance(value, str) else value)


Word = Annotated[str, Field(max_length=256), _clip(256)]
Text = Annotated[str, Field(max_length=4096), _clip(4096)]
Number = Annotated[int, Field(ge=0, le=2**53)]
Share100 = Annotated[str, Field(max_length=6)]


class PlanStatus(Document):
    """The plan in force and who serves it.

    Attributes:
        generation: Counts the plans of this rollout; never falls.
        digest: Of the whole plan; two proxies with equal digests decide alike.
        replicas: How many proxies there are.
        current: How many serve this very plan.
        pending: The others, the first 64 of them.
    """

    generation: Number
    digest: Word
    replicas: Number
    current: Number
    pending: Annotated[tuple[Word, ...], Field(max_length=MAX_PENDING)] = ()


class RevisionStatus(Document):
    """Revisions of stable and of what is on trial.

    Attributes:
        stable: What everyone else gets.
        canary: On trial, or about to be; absent: none.
    """

    stable: Word | None = None
    canary: Word | None = None


class StepStatus(Document):
    """The current step.

    Attributes:
        index: From 0, which is how many are done.
        total: How many steps there are.
        elapsed: For how long every proxy has had it.
    """

    index: Number
    total: Number
    elapsed: Word


class WeightStatus(Document):
    """The canary's share of users, in per cent.

    Attributes:
        programmed: As the plan says.
        measured: By distinct users.
        low: Lower end of the range that chance allows for what was measured.
        high: Its upper end.
    """

    programmed: Share100
    measured: Share100 | None = None
    low: Share100 | None = None
    high: Share100 | None = None


class AbortStatus(Document):
    """The abort that stands.

    Attributes:
        id: Of the latch at every proxy.
        revision: What was aborted.
        by: Whoever did it.
        reason: Requested, AnalysisFailed, Latched or BreakerTripped.
    """

    id: Word
    revision: Word
    by: Text
    reason: Word


class NeedStatus(Document):
    """What is missing for a measurement.

    Attributes:
        requests: So many more.
        users: So many more of them.
        minutes: At the present rate; absent: nothing comes.
    """

    requests: Number
    users: Number
    minutes: Number | None = None


class VerdictStatus(Document):
    """What the evidence says.

    Attributes:
        decision: Advance, Rollback, Hold (not enough data, or it waits) or DataFault (no signal).
        reason: In one word.
        message: In a sentence.
        need: What is missing for a measurement; absent: nothing is.
    """

    decision: Literal["Advance", "Rollback", "Hold", "DataFault"]
    reason: Word
    message: Text = ""
    need: NeedStatus | None = None


class ActionStatus(Document):
    """What somebody asked for.

    Attributes:
        uid: Of the request.
        verb: What was asked for.
        result: Whether it was done.
        by: Who asked.
        message: What became of it, in a sentence.
    """

    uid: Word
    verb: Word
    result: Literal["Done", "Refused"]
    by: Text = ""
    message: Text = ""


class ConditionStatus(Document):
    """One condition, as Kubernetes has them.

    Attributes:
        type: What is said.
        status: Whether it holds.
        reason: Why, in one word.
        message: Why, in a sentence.
        observed_generation: Of the document that it is said about.
        last_transition_time: Since when the status is this one.
    """

    type: Literal["Accepted", "Programmed", "Progressing", "Ready", "Degraded"]
    status: Literal["True", "False", "Unknown"]
    reason: Word
    message: Text = ""
    observed_generation: Number
    last_transition_time: Annotated[str, Field(max_length=64)]


class Observation(Document):
    """What a rollout is at.

    Attributes:
        observed_generation: Of the document that all this is about.
        phase: Where it is, in one word.
        plan: The plan in force and who serves it.
        revision: Revisions of stable and of what is on trial.
        step: The current step; absent: none is under way.
        weight: The canary's share of users.
        abort: The abort that stands; absent: none.
        verdict: What the evidence says; absent: nothing is being judged.
        actions: The last 16 that people asked for.
        conditions: Accepted, Programmed, Progressing, Ready and Degraded.
    """

    observed_generation: Number
    phase: Phase
    plan: PlanStatus | None = None
    revision: RevisionStatus = RevisionStatus()
    step: StepStatus | None = None
    weight: WeightStatus | None = None
    abort: AbortStatus | None = None
    verdict: VerdictStatus | None = None
    actions: Annotated[tuple[ActionStatus, ...], Field(max_length=16)] = ()
    conditions: Annotated[tuple[ConditionStatus, ...], Field(max_length=8)] = ()


class Status(Observation):
    """All of it, as the controller's own API shows it.

    Attributes:
        resource_version: Differs whenever more does than the elapsed time, the measured share, and the numbers in
            messages and needs.
    """

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
        pending=pending[:MAX_PENDING],
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


def conditions(state: State, now: float, problem: str, reason: str = "Invalid") -> tuple[Condition, ...]:
    """What holds of a rollout.

    Args:
        state: The rollout.
        now: Monotonic seconds.
        problem: What is wrong with its documents as they are now; empty: nothing.
        reason: The same in one word.
    """
    where = phase(state, now)
    accepted, programmed = _accepted(state, problem, reason), _programmed(state, now)
    return (
        accepted,
        programmed,
        _progressing(where, hold(state, now)),
        _ready(where, accepted, programmed),
        _degraded(state, where),
    )


def _accepted(state: State, problem: str, reason: str) -> Condition:
    if problem:
        return Condition("Accepted", False, reason, f"{problem}; the last good document counts")
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


def _ready(where: Phase, accepted: Condition, programmed: Condition) -> Condition:
    """Whether every proxy serves what the document asks for, be a revision on trial or not.

    Tools that deploy wait for it with a limit (``helm --wait`` and Flux read it as kstatus says): a trial takes as long
    as it takes and must not fail them.
    """
    for missing in (accepted, programmed):
        if not missing.is_true:
            return Condition("Ready", False, missing.reason, missing.message)
    return Condition("Ready", where not in (Phase.PENDING, Phase.DEGRADED), where.value)


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
