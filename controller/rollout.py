"""The rollout as a state machine: ``step(state, event, now) -> (state, commands)``. Pure; nothing here does I/O.

`TRANSITIONS` is the literal table of what may happen in which phase and where it may lead. Whatever a proxy, a document
or the clock says is an event in every phase; what people ask for is refused where the table has no entry. A plan gets a
new generation exactly when its content changes, and nothing advances before every proxy has acknowledged it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from controller.ask import Refused, on_asked
from controller.change import Change
from controller.declare import on_documented, on_keyed, on_missing
from controller.events import (
    Asked,
    Command,
    Documented,
    Event,
    Keyed,
    LatchFailed,
    Measured,
    Missing,
    Observed,
    Tell,
    Tick,
    Unanswered,
    Verb,
)
from controller.observe import on_latch_failed, on_observed, on_unanswered
from controller.phase import hold, phase
from controller.progress import advance, on_measured, on_tick
from controller.state import Action, Phase, Stage, State, acted

Kind = Verb | type[Event]

P = Phase

TRANSITIONS: Mapping[Phase, Mapping[Kind, tuple[Phase, ...]]] = {
    P.PENDING: {
        Documented: (P.PENDING,),
        Missing: (P.PENDING,),
        Keyed: (P.PENDING,),
        Observed: (P.PENDING, P.HEALTHY, P.PROGRESSING, P.PAUSED, P.HOLDING, P.ABORTED),
        Unanswered: (P.PENDING, P.ABORTED),
        LatchFailed: (P.PENDING,),
        Tick: (P.PENDING,),
        Measured: (P.PENDING,),
        Verb.START: (P.PENDING,),
        Verb.ABORT: (P.ABORTED,),
    },
    P.HEALTHY: {
        Documented: (P.HEALTHY, P.PROGRESSING, P.PAUSED, P.HOLDING),
        Missing: (P.HEALTHY,),
        Keyed: (P.HEALTHY,),
        Observed: (P.HEALTHY,),
        Unanswered: (P.HEALTHY,),
        LatchFailed: (P.HEALTHY,),
        Tick: (P.HEALTHY,),
        Measured: (P.HEALTHY,),
        Verb.START: (P.PROGRESSING, P.PAUSED, P.HOLDING),
    },
    P.PROGRESSING: {
        Documented: (P.HEALTHY, P.PROGRESSING, P.PAUSED),
        Missing: (P.HOLDING,),
        Keyed: (P.PROGRESSING,),
        Observed: (P.PROGRESSING, P.PAUSED, P.HOLDING, P.PROMOTING, P.ABORTED),
        Unanswered: (P.PROGRESSING, P.HOLDING),
        LatchFailed: (P.PROGRESSING,),
        Tick: (P.PROGRESSING, P.PAUSED, P.HOLDING, P.PROMOTING),
        Measured: (P.PROGRESSING, P.PAUSED, P.HOLDING, P.PROMOTING, P.ABORTED),
        Verb.START: (P.PROGRESSING, P.PAUSED),
        Verb.PROMOTE: (P.PROGRESSING, P.PAUSED, P.HOLDING, P.PROMOTING),
        Verb.PROMOTE_FULL: (P.PROMOTING,),
        Verb.PAUSE: (P.PAUSED,),
        Verb.RESUME: (P.PROGRESSING,),
        Verb.ABORT: (P.ABORTED,),
        Verb.SET_WEIGHT: (P.PAUSED,),
    },
    P.PAUSED: {
        Documented: (P.HEALTHY, P.PROGRESSING, P.PAUSED, P.HOLDING),
        Missing: (P.PAUSED,),
        Keyed: (P.PROGRESSING, P.PAUSED, P.HOLDING),
        Observed: (P.PAUSED, P.ABORTED),
        Unanswered: (P.PAUSED,),
        LatchFailed: (P.PAUSED,),
        Tick: (P.PAUSED,),
        Measured: (P.PAUSED, P.ABORTED),
        Verb.START: (P.PROGRESSING, P.PAUSED, P.HOLDING),
        Verb.PROMOTE: (P.PROGRESSING, P.PAUSED, P.HOLDING, P.PROMOTING),
        Verb.PROMOTE_FULL: (P.PROMOTING,),
        Verb.PAUSE: (P.PAUSED,),
        Verb.RESUME: (P.PROGRESSING, P.PAUSED, P.HOLDING, P.PROMOTING),
        Verb.ABORT: (P.ABORTED,),
        Verb.SET_WEIGHT: (P.PAUSED,),
    },
    P.HOLDING: {
        Documented: (P.HEALTHY, P.PROGRESSING, P.PAUSED, P.HOLDING, P.PROMOTING),
        Missing: (P.HOLDING,),
        Keyed: (P.PROGRESSING, P.HOLDING),
        Observed: (P.PROGRESSING, P.PAUSED, P.HOLDING, P.PROMOTING, P.ABORTED),
        Unanswered: (P.HOLDING,),
        LatchFailed: (P.HOLDING,),
        Tick: (P.HOLDING,),
        Measured: (P.PROGRESSING, P.PAUSED, P.HOLDING, P.PROMOTING, P.ABORTED),
        Verb.START: (P.PROGRESSING, P.PAUSED, P.HOLDING),
        Verb.PROMOTE: (P.PROGRESSING, P.PAUSED, P.HOLDING, P.PROMOTING),
        Verb.PROMOTE_FULL: (P.PROMOTING,),
        Verb.PAUSE: (P.PAUSED,),
        Verb.RESUME: (P.HOLDING,),
        Verb.ABORT: (P.ABORTED,),
        Verb.SET_WEIGHT: (P.PAUSED,),
    },
    P.PROMOTING: {
        Documented: (P.HEALTHY, P.PROGRESSING, P.HOLDING, P.PROMOTING),
        Missing: (P.PROMOTING,),
        Keyed: (P.PROGRESSING, P.HOLDING, P.PROMOTING),
        Observed: (P.HEALTHY, P.PROGRESSING, P.PAUSED, P.PROMOTING, P.ABORTED),
        Unanswered: (P.PROMOTING,),
        LatchFailed: (P.PROMOTING,),
        Tick: (P.PROMOTING,),
        Measured: (P.PROMOTING, P.ABORTED),
        Verb.START: (P.PROGRESSING, P.HOLDING, P.PROMOTING),
        Verb.PROMOTE: (P.PROMOTING,),
        Verb.PROMOTE_FULL: (P.PROMOTING,),
        Verb.ABORT: (P.ABORTED,),
    },
    P.ABORTED: {
        Documented: (P.PENDING, P.HEALTHY, P.PROGRESSING, P.PAUSED, P.HOLDING, P.ABORTED),
        Missing: (P.ABORTED,),
        Keyed: (P.ABORTED,),
        Observed: (P.ABORTED,),
        Unanswered: (P.ABORTED,),
        LatchFailed: (P.DEGRADED,),
        Tick: (P.ABORTED,),
        Measured: (P.ABORTED,),
        Verb.START: (P.PENDING, P.PROGRESSING, P.PAUSED, P.HOLDING),
        Verb.ABORT: (P.ABORTED,),
        Verb.RETRY: (P.PENDING, P.PROGRESSING, P.PAUSED, P.HOLDING),
    },
    P.DEGRADED: {
        Documented: (P.PENDING, P.HEALTHY, P.PROGRESSING, P.PAUSED, P.HOLDING, P.DEGRADED),
        Missing: (P.DEGRADED,),
        Keyed: (P.DEGRADED,),
        Observed: (P.ABORTED, P.DEGRADED),
        Unanswered: (P.DEGRADED,),
        LatchFailed: (P.DEGRADED,),
        Tick: (P.DEGRADED,),
        Measured: (P.DEGRADED,),
        Verb.START: (P.PENDING, P.PROGRESSING, P.PAUSED, P.HOLDING),
        Verb.ABORT: (P.DEGRADED,),
        Verb.RETRY: (P.PENDING, P.PROGRESSING, P.PAUSED, P.HOLDING),
    },
}

_REFUSALS = {
    P.PENDING: "the first plan has not reached every proxy yet",
    P.HEALTHY: "no revision is on trial: everyone is on stable",
    P.PROGRESSING: "it is under way and not aborted",
    P.PAUSED: "it is paused and not aborted",
    P.HOLDING: "it is under way and not aborted",
    P.PROMOTING: "the canary is becoming stable: only an abort or a new revision stops that",
    P.ABORTED: "it is aborted: retry, or start another revision",
    P.DEGRADED: "it is aborted: retry, or start another revision",
}


def kind(event: Event) -> Kind:
    """What an event is in `TRANSITIONS`: a verb, or the event's type."""
    return event.verb if isinstance(event, Asked) else type(event)


def step(state: State, event: Event, now: float) -> tuple[State, tuple[Command, ...]]:
    """What an event makes of a rollout.

    Args:
        state: As the last step returned it, or as it was stored.
        event: What happened.
        now: Monotonic seconds; only differences count.

    Returns:
        The new state, to be stored before any command is executed (but `SetLatch`, which comes first), and commands.

    Raises:
        Refused: What somebody asked for is refused; nothing has changed.
    """
    change = Change(state, now)
    if kind(event) not in TRANSITIONS[phase(state, now)]:
        raise Refused(_REFUSALS[phase(state, now)])
    _HANDLERS[type(event)](change, event)
    advance(change)
    _tell_hold(change)
    return change.finish()


def refused(state: State, asked: Asked, reason: str) -> tuple[State, tuple[Command, ...]]:
    """The state with a refusal on record."""
    told = Tell("ActionRefused", f"{asked.verb} by {asked.by}: {reason}", is_warning=True)
    return acted(state, Action(asked.uid, asked.verb, "Refused", asked.by, reason)), (told,)


def _tell_hold(change: Change) -> None:
    """Tell, once, that something holds the rollout, and when it no longer does."""
    state = change.state
    found = hold(state, change.now) if state.stage not in (Stage.EMPTY, Stage.IDLE, Stage.ABORTED) else None
    reason = found.reason if found else ""
    if reason == state.held:
        return
    if found:
        change.tell("Holding", f"{reason}: {found.message}", is_warning=True)
    else:
        change.tell("HoldEnded", f"{state.held} is over")
    change.set(held=reason)


_HANDLERS: Mapping[type[Event], Callable[[Change, Any], None]] = {
    Asked: on_asked,
    Documented: on_documented,
    Missing: on_missing,
    Keyed: on_keyed,
    Observed: on_observed,
    Unanswered: on_unanswered,
    LatchFailed: on_latch_failed,
    Tick: on_tick,
    Measured: on_measured,
}
