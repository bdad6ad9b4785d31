"""What a rollout does by itself: it goes on as far as nothing has to be waited for, and it judges. Pure."""

from __future__ import annotations

from dataclasses import replace

from controller import analysis
from controller.analysis import Decision, Outcome
from controller.change import Change, abort, begin, enter, revision_of
from controller.events import Measure, Measured, Record, Tick
from controller.observe import meet_latch
from controller.phase import hold, is_done
from controller.state import Stage, State, Trial, unreachable

MAX_TICK_S = 5.0  # a controller that was stopped for longer has watched nothing meanwhile: that time does not count


def advance(change: Change) -> None:
    """Go on as far as nothing has to be waited for."""
    while True:
        before = _place(change.state)
        _advance_once(change)
        if _place(change.state) == before:
            return


def _place(state: State) -> tuple[Stage, int]:
    return state.stage, state.trial.index if state.trial else -1


def _advance_once(change: Change) -> None:
    state = change.state
    if state.stage is Stage.EMPTY:
        _adopt_when_known(change)
        return
    if not state.is_current or unreachable(state, change.now):
        return
    if not state.is_established:
        change.set(is_established=True)
        change.tell("Programmed", f"every proxy serves {revision_of(state.stable)}")
    if hold(state, change.now):
        return
    match state.stage:
        case Stage.CLEARING:
            assert state.next is not None  # whoever clears says what for
            begin(change, state.next)
        case Stage.STEPS:
            _next_step(change)
        case Stage.FILLING:
            _swap(change)
        case Stage.SWAPPING:
            _finish(change)


def _next_step(change: Change) -> None:
    trial = change.state.trial
    assert trial is not None  # there is one in STEPS
    if not trial.paused_by and is_done(change.state, trial):
        enter(change, trial.index + 1)


def _swap(change: Change) -> None:
    """Everyone is on the canary: in one plan it becomes stable, and nothing is on trial."""
    state = change.state
    assert state.trial is not None  # there is one in FILLING
    if state.trial.version.service and state.document.spec.stable.service:
        return  # the team's own Deployment brings the promoted revision to stable's Service: controller.declare
    change.set(stage=Stage.SWAPPING, previous=state.stable, stable=state.trial.version)


def _finish(change: Change) -> None:
    change.set(stage=Stage.CLEARING if change.state.next else Stage.IDLE, trial=None, previous=None)
    change.tell("Promoted", f"{revision_of(change.state.stable)} is stable now")


def _adopt_when_known(change: Change) -> None:
    """Take the document's stable over once every proxy was asked and at least one has answered.

    Where the proxies of a lost state already serve the document's canary as stable, it was promoted, and stays.
    """
    state, spec = change.state, change.state.document.spec
    views = state.views
    if not any(view.answered for view in views) or not all(view.answered or view.failed for view in views):
        return
    newest = max((v for v in views if v.uid == state.uid), key=lambda view: view.generation, default=None)
    stable, why = spec.stable, "without steps: there is nothing to compare it with"
    if newest and newest.served and spec.canary and newest.served.revision == spec.canary.revision:
        stable, why = spec.canary, "as the proxies serve it: it was promoted, and the state was lost since"
    elif newest:
        why = f"as the document says: the state was lost, and the proxies serve generation {newest.generation}"
    trying = spec.canary if spec.canary and spec.canary.revision != stable.revision else None
    change.set(
        stable=stable,
        users=spec.users,
        next=trying,
        stage=Stage.CLEARING if trying else Stage.IDLE,
        split_key=state.offered_key,
        declared=state.document.revisions,
    )
    change.outrank(newest.generation if newest else 0)
    change.tell("Adopted", f"{stable.revision} is stable, {why}", is_warning=newest is not None)
    for view in views:
        meet_latch(change, view, None)


def on_tick(change: Change, _: Tick) -> None:
    """Time has passed: the clocks run, proxies are missed, and measurements fall due."""
    state = change.state
    passed = min(max(change.now - state.anchor, 0.0), MAX_TICK_S) if state.anchor is not None else 0.0
    change.set(anchor=change.now)
    _watch(change)
    if state.stage in (Stage.STEPS, Stage.FILLING) and state.trial:
        trial = _elapsed(change, state.trial, passed)
        change.set(trial=trial)
        _ask(change, trial)


def _watch(change: Change) -> None:
    """Tell of proxies that were lost or are back."""
    away = {view.address: view.error for view in unreachable(change.state, change.now)}
    for address, error in away.items():
        if address not in change.state.lost:
            change.tell("ProxyUnreachable", f"{address}: {error or 'no answer'}", is_warning=True)
    for address in change.state.lost:
        if address not in away:
            change.tell("ProxyBack", f"{address} answers again")
    change.set(lost=tuple(away))


def _elapsed(change: Change, trial: Trial, passed: float) -> Trial:
    """The step's clock runs while every proxy has the plan; judging never stops, not even while it is paused.

    An analysis begins when the plan has reached every proxy, and in the background not before there are users to judge.
    """
    is_in_force = change.state.is_current and not unreachable(change.state, change.now)
    if is_in_force and not trial.paused_by:
        trial = replace(trial, elapsed_s=trial.elapsed_s + passed)
    if trial.run and (is_in_force or trial.run.elapsed_s):
        trial = replace(trial, run=analysis.elapse(trial.run, passed))
    if trial.background and trial.weight_bp and (is_in_force or trial.background.elapsed_s):
        trial = replace(trial, background=analysis.elapse(trial.background, passed))
    return trial


def _ask(change: Change, trial: Trial) -> None:
    """Have measured what is due."""
    for run, index in ((trial.run, trial.index), (trial.background, None)):
        if run and run.elapsed_s and (trial.weight_bp or index is not None):
            for metric in analysis.due(run):
                change.commands.append(Measure(trial.attempt, index, metric.name, metric.provider.cohort))


def on_measured(change: Change, event: Measured) -> None:
    """A reading came: it counts unless its step or attempt is over, and a bad one rolls back."""
    trial = change.state.trial
    if trial is None or event.attempt != trial.attempt or change.state.stage not in (Stage.STEPS, Stage.FILLING):
        return
    is_background = event.index is None
    run = trial.background if is_background else trial.run
    if run is None or event.index not in (None, trial.index):
        return
    run = analysis.take(run, event.metric, event.reading)
    change.trial(**{"background" if is_background else "run": run})
    for metric in run.metrics:
        if metric.name == event.metric and metric.outcome and metric.outcome is not Outcome.NO_DATA:
            change.commands.append(
                Record(trial.version.revision, event.index, metric.name, metric.value, metric.outcome, metric.message)
            )
    said = analysis.verdict(run, is_background)
    if said.decision is Decision.ROLLBACK:
        abort(change, "analysis", said.reason, said.message)
