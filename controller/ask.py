"""What people ask of a rollout: each verb is done, or refused with the reason. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from controller import analysis
from controller.change import Change, abort, clear, enter, revision_of
from controller.events import Asked, Verb
from controller.phase import is_paused
from controller.state import Action, Stage, State, Trial, acted, unreachable
from controller.version import Version


class Refused(Exception):
    """What somebody asked for makes no sense now; the message says why and what does."""


def on_asked(change: Change, asked: Asked) -> None:
    """Do what somebody asks for.

    Raises:
        Refused: It makes no sense now.
    """
    state = change.state
    meant = (state.revision, state.trial.version.revision if state.trial else None)
    if asked.verb is not Verb.START and asked.revision is not None and asked.revision not in meant:
        raise Refused(f"{asked.revision} is meant, but {state.revision or 'nothing'} is on trial")
    message = _VERBS[asked.verb](change, asked)
    change.set(actions=acted(change.state, Action(asked.uid, asked.verb, "Done", asked.by, message)).actions)
    change.tell(asked.verb, f"by {asked.by}: {message}")


def _start(change: Change, asked: Asked) -> str:
    assert asked.version is not None  # whoever makes a Start gives it
    return start(change, asked.version)


def start(change: Change, version: Version) -> str:
    """Put a revision on trial as soon as everyone is back on stable.

    Returns:
        What is going to happen, for people.

    Raises:
        Refused: It is stable already, aborted, or listens where stable does.
    """
    state = change.state
    if state.stable is None:
        raise Refused("no proxy has answered yet")
    if version.revision == state.stable.revision:
        raise Refused(f"{version.revision} is stable already")
    if version.revision == state.revision:
        return _start_again(change, version)
    if shared := version.shared(state.stable):
        places = ", ".join(fault.message for fault in shared)
        raise Refused(f"{places} is where stable {state.stable.revision} listens: give one of them another address")
    if state.revision and state.stage is not Stage.SWAPPING:
        change.tell("Superseded", f"{version.revision} takes the place of {state.revision}", is_warning=True)
    clear(change, version)
    return f"{version.revision} begins as soon as everyone is on {revision_of(change.state.stable)}"


def _start_again(change: Change, version: Version) -> str:
    """The revision on trial once more: only its addresses may be others."""
    state = change.state
    if state.stage is Stage.ABORTED:
        raise Refused(f"{version.revision} is aborted: retry it, or start another revision")
    if state.next:
        change.set(next=version)
    else:
        change.trial(version=version)
    return f"{version.revision} is on trial already"


def _promote(change: Change, asked: Asked) -> str:
    if change.state.stage in (Stage.FILLING, Stage.SWAPPING):
        return "the canary is becoming stable already"
    trial = _followed(change)
    beside = trial.strategy.analysis
    if trial.background and beside and analysis.verdict(trial.background, is_background=True).reason == "Inconclusive":
        change.trial(background=analysis.start(trial.templates[name] for name in beside.names))
    change.trial(paused_by="")
    enter(change, trial.index + 1)
    following = change.state.trial.step if change.state.trial else None
    return f"goes on with {following}" if following else f"everyone goes to {trial.version.revision}"


def _promote_full(change: Change, asked: Asked) -> str:
    if change.state.stage in (Stage.FILLING, Stage.SWAPPING):
        return "the canary is becoming stable already"
    trial = _followed(change)
    change.trial(paused_by="")
    enter(change, len(trial.strategy.steps))
    return f"everyone goes to {trial.version.revision}"


def _followed(change: Change) -> Trial:
    """The trial whose steps are under way, if every proxy can follow."""
    if lost := unreachable(change.state, change.now):
        names = ", ".join(view.address for view in lost)
        raise Refused(f"nothing advances while a proxy does not answer: {names}; an abort always goes")
    return _stepping(change.state)


def _stepping(state: State) -> Trial:
    """The trial whose steps are under way."""
    if state.stage is not Stage.STEPS or state.trial is None:
        raise Refused(f"everyone is going back to stable before {state.revision} begins")
    return state.trial


def _pause(change: Change, asked: Asked) -> str:
    trial = _stepping(change.state)
    if trial.paused_by:
        return f"is paused already, by {trial.paused_by}"
    change.trial(paused_by=asked.by)
    return "stays where it is; what fails is rolled back all the same"


def _resume(change: Change, asked: Asked) -> str:
    trial = change.state.trial
    if change.state.stage is not Stage.STEPS or trial is None or not is_paused(trial):
        return "is not paused"
    if not trial.paused_by:
        return _promote(change, asked)  # at a pause of the steps
    change.trial(paused_by="")
    return f"goes on with {trial.step}"


def _abort(change: Change, asked: Asked) -> str:
    standing = change.state.abort
    if change.state.stage is Stage.ABORTED and standing:
        change.latch(standing)
        return f"is aborted already, by {standing.by}"
    if change.state.revision is None:
        raise Refused("no revision is on trial: everyone is on stable")
    abort(change, asked.by, "Requested", asked.reason)
    return "everyone goes back to stable"


def _retry(change: Change, asked: Asked) -> str:
    state = change.state
    version = state.next or (state.trial.version if state.trial else None)
    assert version is not None  # an abort keeps what it aborted
    clear(change, version)
    return f"{version.revision} begins again at the first step"


def _set_weight(change: Change, asked: Asked) -> str:
    trial = _stepping(change.state)
    if asked.weight_bp > trial.weight_bp:
        _followed(change)
    change.trial(weight_bp=asked.weight_bp, paused_by=asked.by)
    return f"{asked.weight_bp / 100:g} % of users go to {trial.version.revision}, and it is paused there"


_VERBS: Mapping[Verb, Callable[[Change, Asked], str]] = {
    Verb.START: _start,
    Verb.PROMOTE: _promote,
    Verb.PROMOTE_FULL: _promote_full,
    Verb.PAUSE: _pause,
    Verb.RESUME: _resume,
    Verb.ABORT: _abort,
    Verb.RETRY: _retry,
    Verb.SET_WEIGHT: _set_weight,
}
