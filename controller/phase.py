"""Where a rollout is, as people see it, and what it waits for. Pure."""

from __future__ import annotations

from controller import analysis
from controller.analysis import Decision, Verdict
from controller.state import Phase, Stage, State, Trial, unreachable
from proxy.assign import BUCKETS


def phase(state: State, now: float) -> Phase:
    """Where a rollout is at a time, in monotonic seconds."""
    match state.stage:
        case Stage.ABORTED:
            return Phase.DEGRADED if state.abort and state.abort.failed else Phase.ABORTED
        case Stage.EMPTY:
            return Phase.PENDING
        case Stage.IDLE:
            return Phase.HEALTHY if state.is_established else Phase.PENDING
        case Stage.FILLING | Stage.SWAPPING:
            return Phase.PROMOTING
        case Stage.CLEARING if not state.is_established:
            return Phase.PENDING
    if state.stage is Stage.STEPS and state.trial and is_paused(state.trial):
        return Phase.PAUSED
    return Phase.HOLDING if hold(state, now) else Phase.PROGRESSING


def is_paused(trial: Trial) -> bool:
    """Whether it waits for a person: paused by hand, or at a pause without duration."""
    pause = trial.step.pause if trial.step else None
    return bool(trial.paused_by) or (pause is not None and pause.duration is None)


def hold(state: State, now: float) -> Verdict | None:
    """Why a rollout does not go on by itself although it should; None: nothing is in its way."""
    if state.is_document_missing:
        return Verdict(Decision.HOLD, "DocumentMissing", "the rollout's document is gone: put it back, or abort")
    if lost := unreachable(state, now):
        names = "; ".join(f"{view.address}: {view.error or 'no answer'}" for view in lost)
        return Verdict(Decision.HOLD, "ProxyUnreachable", f"nothing advances until every proxy answers: {names}")
    if refusing := [f"{view.address}: {view.refusal}" for view in state.views if view.refusal]:
        return Verdict(Decision.HOLD, "PlanRefused", "; ".join(refusing))
    if state.stage is Stage.STEPS and state.trial:
        return gate(state, state.trial) or _standstill(state.trial)
    return None


def _standstill(trial: Trial) -> Verdict | None:
    """What the analyses themselves stop at: no signal, too little of it, or a result that only a person can judge."""
    for run, is_background in ((trial.run, False), (trial.background, True)):
        said = analysis.verdict(run, is_background) if run else None
        if said is None or said.decision is Decision.ADVANCE:
            continue
        if said.decision is Decision.DATA_FAULT or said.reason == "Inconclusive":
            return said
        if not is_background and said.reason != "Measuring":
            return said
    return None


def gate(state: State, trial: Trial) -> Verdict | None:
    """What the analysis in the background has against the next step, where that gives the canary more users.

    No data never promotes: the users who are on the canary by now must have been measured. At weight 0 there are none.
    """
    if not trial.background or not trial.weight_bp or not is_done(state, trial) or not _gives_more(trial):
        return None
    said = analysis.verdict(trial.background, is_background=True)
    return None if said.decision is Decision.ADVANCE else said


def _gives_more(trial: Trial) -> bool:
    """Whether what follows the current step raises the weight; promotion does."""
    if trial.index + 1 >= len(trial.strategy.steps):
        return True
    following = trial.strategy.steps[trial.index + 1].set_weight
    return following is not None and trial.weight_bp < following <= BUCKETS


def is_done(state: State, trial: Trial) -> bool:
    """Whether the current step waits for nothing: every proxy has it, its time is over, its analysis is good."""
    step = trial.step
    if step is None or not state.is_current:
        return False
    if step.pause is not None:
        return step.pause.duration is not None and trial.elapsed_s >= step.pause.duration
    if step.analysis is not None:
        return trial.run is not None and analysis.verdict(trial.run).decision is Decision.ADVANCE
    return True


def verdict(state: State, now: float) -> Verdict | None:
    """What the evidence says, or what holds the rollout; None: nothing is being judged."""
    if state.abort and state.abort.reason == "AnalysisFailed":
        return Verdict(Decision.ROLLBACK, state.abort.reason, state.abort.message)
    trial = state.trial
    if state.stage not in (Stage.CLEARING, Stage.STEPS, Stage.FILLING, Stage.SWAPPING):
        return None
    if held := hold(state, now):
        return held
    if trial and trial.run:
        return analysis.verdict(trial.run)
    return analysis.verdict(trial.background, is_background=True) if trial and trial.background else None
