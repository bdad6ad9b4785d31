"""What one rollout is at: all that must survive a crash, and the little that is learnt anew after one.

Frozen values; `controller.rollout` makes new ones. Times are elapsed seconds, never clock times, so that a controller
that was away resumes where it stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from hashlib import blake2b
from typing import Any

from pydantic import TypeAdapter

from controller.analysis import Run
from controller.spec import Canary, CanaryRollout, Step, TemplateSpec
from controller.version import Version
from proxy.plan import HeaderRoute, UserSource

UNREACHABLE_S = 3.0  # three polls without an answer: one that is late is not yet away
MAX_LATCHES = 64  # what a plan has room for in `lifts`; older ones were lifted long ago
MAX_ACTIONS = 16  # surface.md: the last 16


class Phase(StrEnum):
    """Where a rollout is, as people see it."""

    PENDING = "Pending"
    HEALTHY = "Healthy"
    PROGRESSING = "Progressing"
    PAUSED = "Paused"
    HOLDING = "Holding"
    PROMOTING = "Promoting"
    ABORTED = "Aborted"
    DEGRADED = "Degraded"


class Stage(StrEnum):
    """What is being done; a phase also says whether it waits and for whom.

    EMPTY: nothing is known yet. IDLE: everyone is on stable, nothing on trial. CLEARING: everyone goes back to stable
    before a revision begins. STEPS: the strategy's steps. FILLING: everyone goes to the canary. SWAPPING: the canary
    has become stable, in one plan. ABORTED: everyone is on stable until a retry or a new revision.
    """

    EMPTY = "Empty"
    IDLE = "Idle"
    CLEARING = "Clearing"
    STEPS = "Steps"
    FILLING = "Filling"
    SWAPPING = "Swapping"
    ABORTED = "Aborted"


@dataclass(frozen=True, slots=True)
class Trial:
    """A revision on trial. Its strategy is the document's at the start: a change counts from the next one or a retry.

    Attributes:
        attempt: Number of this start or retry; evidence belongs to one.
        index: Current step, from 0; the number of steps when all are done.
        elapsed_s: Seconds that the current step has been in force at every proxy.
        run: The current step's analysis.
        paused_by: Who paused it by hand; empty: nobody.
    """

    version: Version
    attempt: int
    strategy: Canary
    templates: Mapping[str, TemplateSpec] = field(default_factory=dict)
    index: int = 0
    elapsed_s: float = 0.0
    weight_bp: int = 0
    header_routes: tuple[HeaderRoute, ...] = ()
    run: Run | None = None
    background: Run | None = None
    paused_by: str = ""

    @property
    def step(self) -> Step | None:
        """The current step; None when all are done."""
        steps = self.strategy.steps
        return steps[self.index] if self.index < len(steps) else None


@dataclass(frozen=True, slots=True)
class Abort:
    """An abort that stands.

    Attributes:
        id: The latch's, at every proxy.
        reason: Requested, AnalysisFailed; of one found standing at a proxy Latched, or BreakerTripped: the proxy's own.
        failed: Addresses of the proxies that could not be latched yet.
    """

    id: str
    revision: str
    by: str
    reason: str
    message: str = ""
    failed: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """Why, as a latch keeps it: the reason, and the message after a colon."""
        return f"{self.reason}: {self.message}" if self.message else self.reason


@dataclass(frozen=True, slots=True)
class Action:
    """What somebody asked for and what became of it: Done or Refused."""

    uid: str
    verb: str
    result: str
    by: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Latch:
    """An abort latch as a proxy shows it."""

    id: str
    revision: str | None = None
    by: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ProxyView:
    """What is known of one proxy; not stored.

    Attributes:
        seen: When it last answered, in monotonic seconds; before it ever did, when it was first asked.
        answered: Whether it ever did; ``failed`` whether it ever did not.
        error: Why it did not answer, when last asked; empty: it did.
        refusal: Why it would not take a plan; empty: it took the last one.
        is_current: Whether its plan is the very one of ``generation`` that this controller made.
        served: What its plan calls stable; asked for only while nothing is known.
    """

    address: str
    seen: float
    answered: bool = False
    failed: bool = False
    error: str = ""
    refusal: str = ""
    uid: str = ""
    generation: int = 0
    is_current: bool = False
    latch: Latch | None = None
    served: Version | None = None


@dataclass(frozen=True, slots=True)
class State:
    """One rollout.

    Attributes:
        document: The last good one.
        templates: Of the document; a trial keeps those that it began with.
        document_generation: Counts the documents taken over.
        generation: Of the plan in force.
        stable: What everyone else gets; None: nothing is known yet.
        previous: What was stable before the promotion under way.
        next: What begins once everyone is back on stable.
        users: Who is one user; a change counts from the next revision.
        split_key: Id of the secret that the salt on trial is made with.
        declared: Revisions of stable and canary that the document had when it was last taken over.
        refusal: Why the document's canary does not begin; empty: nothing is wrong with it.
        latches: Ids of the latches that stand; ``lifts``: of those that plans end.
        is_established: Whether every proxy has ever had a plan of ours.
        lost: Addresses that are known not to answer; not stored, like all that follows.
        held: In one word, what is known to hold the rollout.
    """

    uid: str
    document: CanaryRollout
    templates: Mapping[str, TemplateSpec] = field(default_factory=dict)
    document_generation: int = 1
    stage: Stage = Stage.EMPTY
    generation: int = 0
    stable: Version | None = None
    previous: Version | None = None
    next: Version | None = None
    trial: Trial | None = None
    users: tuple[UserSource, ...] = ()
    split_key: str = ""
    declared: tuple[str, str | None] = ("", None)
    refusal: str = ""
    abort: Abort | None = None
    latches: tuple[str, ...] = ()
    lifts: tuple[str, ...] = ()
    attempts: int = 0
    aborts: int = 0
    abort_failures: int = 0
    actions: tuple[Action, ...] = ()
    is_established: bool = False

    views: tuple[ProxyView, ...] = ()
    lost: tuple[str, ...] = ()
    held: str = ""
    anchor: float | None = None
    offered_key: str = ""
    is_document_missing: bool = False

    @property
    def revision(self) -> str | None:
        """The revision on trial, or about to be."""
        version = self.next or (self.trial.version if self.trial else None)
        return version.revision if version else None

    @property
    def is_current(self) -> bool:
        """Whether every proxy serves the plan in force."""
        return all(view.is_current and view.generation == self.generation for view in self.views)

    def view(self, address: str) -> ProxyView | None:
        """What is known of the proxy of this address."""
        return next((view for view in self.views if view.address == address), None)


VOLATILE = ("views", "lost", "held", "anchor", "offered_key", "is_document_missing")
_ADAPTER = TypeAdapter(State)


def new(document: CanaryRollout, templates: Mapping[str, TemplateSpec], uid: str = "") -> State:
    """The state of a rollout of which nothing is known but its document.

    In a cluster its uid is the object's. Elsewhere it follows from the name alone: a state that was lost is rebuilt
    under the same uid, so that proxies see newer generations of what they have, and users keep their buckets.
    """
    digits = blake2b(document.key.encode(), digest_size=16, person=b"cohort rollout").hexdigest()
    derived = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
    return State(uid or derived, document, templates)


def serialise(state: State) -> str:
    """The state as JSON, without what is learnt anew after a restart."""
    exclude: Any = set(VOLATILE)
    return _ADAPTER.dump_json(state, by_alias=True, exclude_unset=True, exclude=exclude).decode()


def parse(text: str) -> State:
    """The state that `serialise` wrote.

    Raises:
        ValueError: It is not one, or of another version of this program.
    """
    return _ADAPTER.validate_json(text)


def unreachable(state: State, now: float) -> tuple[ProxyView, ...]:
    """The proxies that have not answered for `UNREACHABLE_S`."""
    return tuple(view for view in state.views if now - view.seen > UNREACHABLE_S)


def remember(ids: tuple[str, ...], *more: str) -> tuple[str, ...]:
    """The ids with some more at the end, each once, the oldest forgotten beyond `MAX_LATCHES`."""
    return tuple(dict.fromkeys((*(i for i in ids if i not in more), *more)))[-MAX_LATCHES:]


def acted(state: State, action: Action) -> State:
    """The state with one more action on record."""
    return replace(state, actions=(*state.actions, action)[-MAX_ACTIONS:])
