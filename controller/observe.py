"""What proxies say of themselves: which plan they have, and whether somebody latched them. Pure."""

from __future__ import annotations

from dataclasses import replace

from controller.change import Change, abort, asked_latch_id, own_latch_id, stand
from controller.events import LatchFailed, Observed, Unanswered
from controller.state import Latch, ProxyView, Stage, State, remember

BREAKER = "breaker"  # who it is that sets a latch when a proxy aborts by itself


def on_observed(change: Change, event: Observed) -> None:
    """A proxy answered."""
    view, before = event.view, change.state.view(event.view.address)
    if before is None:
        return  # of settings that are gone
    if not view.is_current:
        view = replace(view, refusal=before.refusal)  # until it takes one
    _replace(change, view)
    if change.state.stage is Stage.EMPTY:
        return
    _outrank(change, view)
    meet_latch(change, view, before)
    _keep_latched(change, view)


def _replace(change: Change, view: ProxyView) -> None:
    change.set(views=tuple(view if v.address == view.address else v for v in change.state.views))


def _outrank(change: Change, view: ProxyView) -> None:
    """A proxy that has a later plan than ours, or another one of this number, gets one that is later still.

    So it is after the state was lost, and after somebody gave a proxy a plan by hand.
    """
    state = change.state
    if view.uid != state.uid or view.generation < state.generation:
        return
    if view.generation == state.generation and view.is_current:
        return
    change.outrank(view.generation)
    message = f"{view.address} has generation {view.generation} of another hand: going on with {view.generation + 1}"
    change.tell("GenerationAhead", message, is_warning=True)


def meet_latch(change: Change, view: ProxyView, before: ProxyView | None) -> None:
    """Take over a latch that somebody else set: whoever aborts at a proxy has aborted the rollout.

    Args:
        change: The rollout.
        view: The proxy now, ``before`` as it was.
    """
    state, latch = change.state, view.latch
    if latch is None or latch.id in state.latches:
        return
    if latch.id in state.lifts and not _is_reused(state, view, before):
        if state.stage is Stage.ABORTED:  # it stands for this abort now, so no plan may end it
            stand(change, latch.id)
        return
    if state.stage is Stage.IDLE:
        stand(change, latch.id)
        message = f"{view.address} is latched by {latch.by}; nothing is on trial, the next revision lifts it"
        change.tell("LatchFound", message, is_warning=True)
    elif _is_of_before(state, latch, view, before):
        stand(change, latch.id)
        message = f"{view.address} was latched by {latch.by} for {latch.revision}: lifted when {state.revision} begins"
        change.tell("LatchFound", message, is_warning=True)
    elif state.stage is not Stage.ABORTED and _is_on_record(state, latch):
        change.set(lifts=remember(state.lifts, latch.id))
        change.tell("LatchFound", f"{view.address} is latched for an action of {latch.by} that is over: lifted")
    elif latch.revision in (None, state.revision, state.trial.version.revision if state.trial else None):
        reason = "BreakerTripped" if latch.by == BREAKER else "Latched"
        message = f"found at {view.address}{': ' + latch.reason if latch.reason else ''}"
        is_asked = latch.reason.partition(": ")[0] == "Requested"  # of an action that a replica saw before this one
        if is_asked or latch.id == own_latch_id(state):  # or ours: a crash came between the latch and the state
            reason, _, message = latch.reason.partition(": ")
        abort(change, latch.by or "somebody", reason or "Latched", message, latch.id)
    else:
        change.set(lifts=remember(state.lifts, latch.id))
        message = f"{view.address} was latched by {latch.by} for {latch.revision}: lifted for {state.revision}"
        change.tell("LatchFound", message, is_warning=True)


def _is_of_before(state: State, latch: Latch, view: ProxyView, before: ProxyView | None) -> bool:
    """Whether a latch found while everyone goes back to stable ended the revision of before, not the one that is next.

    Proxies tell the old revision until the next one begins. Whoever latched one that was seen with that plan, and
    without a latch, wants everything stopped.
    """
    if state.stage is not Stage.CLEARING or state.next is None or latch.revision in (None, state.next.revision):
        return False
    if before is None or not before.answered or before.latch is not None:
        return True
    return not (before.is_current and before.generation == view.generation == state.generation)


def _is_on_record(state: State, latch: Latch) -> bool:
    """Whether a replica set it for an action that is over by now: it says nothing of what came after that."""
    return any(asked_latch_id(action.uid) == latch.id for action in state.actions)


def _is_reused(state: State, view: ProxyView, before: ProxyView | None) -> bool:
    """Whether a latch stands at a proxy although the very plan that lifts it was there before: it was set again."""
    return (
        before is not None
        and before.latch == view.latch
        and before.generation == view.generation == state.generation
        and before.is_current
        and view.is_current
    )


def _keep_latched(change: Change, view: ProxyView) -> None:
    """While an abort stands, a proxy without a latch gets it, however it lost it."""
    standing = change.state.abort
    if change.state.stage is not Stage.ABORTED or standing is None:
        return
    if view.latch is None:
        change.latch(standing)
    elif view.address in standing.failed:
        failed = tuple(address for address in standing.failed if address != view.address)
        change.set(abort=replace(standing, failed=failed))
        change.tell("Latched", f"{view.address} is latched now")


def on_unanswered(change: Change, event: Unanswered) -> None:
    """A proxy did not answer, or would not take the plan."""
    view = change.state.view(event.address)
    if view is None:
        return
    if not event.refused:
        _replace(change, replace(view, failed=True, error=event.error))
        return
    if view.refusal != event.error:
        change.tell("PlanRefused", f"{event.address}: {event.error}", is_warning=True)
    _replace(change, replace(view, refusal=event.error))


def on_latch_failed(change: Change, event: LatchFailed) -> None:
    """A proxy could not be latched; it is tried again until it is."""
    standing = change.state.abort
    change.set(abort_failures=change.state.abort_failures + 1)
    if change.state.stage is not Stage.ABORTED or standing is None or event.address in standing.failed:
        return
    change.set(abort=replace(standing, failed=(*standing.failed, event.address)))
    change.tell("AbortFailed", f"{event.address} could not be latched, trying again: {event.error}", is_warning=True)
