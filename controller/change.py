"""The moves of a rollout: what begins, ends or aborts a trial. Pure: each makes a new state and says what is to do."""

from __future__ import annotations

from dataclasses import replace
from hashlib import blake2b
from typing import Any

from controller import analysis
from controller.events import Command, Publish, SetLatch, Tell
from controller.planner import content
from controller.state import Abort, Stage, State, Trial, remember
from controller.version import Version
from proxy.assign import BUCKETS


class Change:
    """A state in the making, and the commands so far.

    Attributes:
        now: Monotonic seconds.
    """

    def __init__(self, state: State, now: float) -> None:
        self.state = state
        self.now = now
        self.commands: list[Command] = []
        self._content = content(state)
        self._generation = state.generation
        self._least = state.generation

    def set(self, **changes: Any) -> None:
        """Change fields; where the plan then says something else than before, it has the next generation."""
        self.state = replace(self.state, **changes)
        is_new = content(self.state) != self._content
        self.state = replace(self.state, generation=max(self._least, self._generation + is_new))

    def trial(self, **changes: Any) -> None:
        """Change fields of the trial."""
        assert self.state.trial is not None  # called only where there is one
        self.set(trial=replace(self.state.trial, **changes))

    def outrank(self, generation: int) -> None:
        """Give the plan a later number than this one."""
        self._least = max(self._least, generation + 1)
        self.set()

    def finish(self) -> tuple[State, tuple[Command, ...]]:
        """The new state and the commands; a plan with another number is published."""
        published = [Publish(self.state.generation)] if self.state.generation != self._generation else []
        return self.state, (*self.commands, *published)

    def latch(self, abort: Abort) -> None:
        """Have every proxy latched, before anything else."""
        others = [c for c in self.commands if not isinstance(c, SetLatch)]
        self.commands = [SetLatch(abort.id, abort.revision, abort.by, abort.text), *others]

    def tell(self, reason: str, message: str, is_warning: bool = False) -> None:
        """Tell people."""
        self.commands.append(Tell(reason, message, is_warning))


def revision_of(version: Version | None) -> str:
    """A version's revision for a sentence."""
    return version.revision if version else "nothing"


def begin(change: Change, version: Version) -> None:
    """Everyone is on stable: put the revision on trial, at its first step, with a salt of its own."""
    state = change.state
    spec = state.document.spec
    is_retry = state.trial is not None and state.trial.version.revision == version.revision
    attempt = state.attempts + 1
    change.set(
        stage=Stage.STEPS,
        trial=Trial(version, attempt, spec.strategy.canary, state.templates),
        next=None,
        attempts=attempt,
        users=state.users if is_retry else spec.users,
        split_key=(is_retry and state.split_key) or state.offered_key,
        lifts=remember(state.lifts, *state.latches),
        latches=(),
        abort=None,
    )
    again = "again " if is_retry else ""
    change.tell("RolloutStarted", f"{version.revision} is on trial {again}against {revision_of(state.stable)}")
    enter(change, 0)


def enter(change: Change, index: int) -> None:
    """Make a step the current one; after the last, send everyone to the canary."""
    change.trial(index=index, elapsed_s=0.0, run=None)
    trial = change.state.trial
    assert trial is not None  # changed just now
    step = trial.step
    if step is None:
        change.set(stage=Stage.FILLING)
        change.trial(weight_bp=BUCKETS)
        change.tell("Promoting", f"all steps are done: everyone goes to {trial.version.revision}")
        return
    beside = trial.strategy.analysis
    if beside and index >= beside.starting_step and trial.background is None:
        change.trial(background=analysis.start(trial.templates[name] for name in beside.names))
    if step.set_weight is not None:
        change.trial(weight_bp=step.set_weight)
    elif step.set_header_route is not None:
        route = step.set_header_route.route
        others = tuple(r for r in trial.header_routes if r.name != step.set_header_route.name)
        change.trial(header_routes=(*others, route) if route else others)
    elif step.analysis is not None:
        change.trial(run=analysis.start(trial.templates[name] for name in step.analysis.names))
    change.tell("StepStarted", f"step {index + 1} of {len(trial.strategy.steps)}: {step}")


def clear(change: Change, version: Version) -> None:
    """Send everyone back to stable; the revision begins when every proxy has acknowledged that."""
    state = change.state
    if state.stage is Stage.SWAPPING:
        change.set(next=version)  # what is being promoted becomes stable first
        return
    change.set(stage=Stage.CLEARING, next=version, abort=None, trial=state.trial and _emptied(state.trial))


def _emptied(trial: Trial) -> Trial:
    """The trial without users and without judges."""
    return replace(trial, weight_bp=0, header_routes=(), run=None, background=None, paused_by="")


def end_trial(change: Change, **more: Any) -> None:
    """Nothing is on trial any more; with it goes its abort, for there is nobody whom that could send back."""
    state = change.state
    change.set(
        stage=Stage.IDLE,
        trial=None,
        next=None,
        previous=None,
        abort=None,
        lifts=remember(state.lifts, *state.latches),
        latches=(),
        **more,
    )


def abort(change: Change, by: str, reason: str, message: str, latch_id: str = "") -> None:
    """Everyone back to stable, by latch and by plan, until a retry or a new revision.

    Args:
        change: The rollout; nothing happens where nothing is on trial, or the abort stands already.
        by: Who, for the record; ``reason`` in one word and ``message`` likewise.
        latch_id: Of a latch that stands at a proxy already; empty: one is made.
    """
    state = change.state
    revision = state.revision
    if revision is None or state.stage is Stage.ABORTED:
        if latch_id:
            stand(change, latch_id)
        return
    latch_id = latch_id or own_latch_id(state)
    standing = Abort(latch_id, revision, by, reason, message)
    change.set(
        stage=Stage.ABORTED,
        abort=standing,
        aborts=state.aborts + 1,
        trial=state.trial and _emptied(state.trial),
        stable=state.previous or state.stable,
        previous=None,
    )
    stand(change, latch_id)
    change.latch(standing)
    word = "RolledBack" if reason == "AnalysisFailed" else "Aborted"
    change.tell(word, f"{revision} by {by}{': ' + message if message else ''}", is_warning=True)


def stand(change: Change, latch_id: str) -> None:
    """Note a latch that stands: no plan may end it before a retry or a new revision."""
    state = change.state
    lifts = tuple(known for known in state.lifts if known != latch_id)
    change.set(latches=remember(state.latches, latch_id), lifts=lifts)


def own_latch_id(state: State) -> str:
    """The id of an abort of our own; the same for the same state, so that one cut short by a crash is known again."""
    text = f"{state.uid}\0{state.generation}\0{state.attempts}\0{state.aborts}"
    return blake2b(text.encode(), digest_size=8, person=b"cohort latch").hexdigest()


def asked_latch_id(uid: str) -> str:
    """The id of a latch that a replica sets for an action before anybody has decided on it."""
    return uid.replace("-", "")
