"""What the documents of a team and the installation's keys mean for a rollout under way. Pure.

A document counts by what changed in it since it was last taken over: a revision that was started by hand is not undone
by a document that never knew of it, and what was promoted stays stable while the document still calls it canary.
"""

from __future__ import annotations

from controller.ask import Refused, start
from controller.change import Change, clear, end_trial, revision_of
from controller.events import Documented, Keyed, Missing
from controller.state import Stage, State
from controller.version import Version


def on_documented(change: Change, event: Documented) -> None:
    """Take a document over; it was read and validated."""
    state = change.state
    change.set(is_document_missing=False)
    if event.document != state.document or event.templates != state.templates:
        counted = state.document_generation + 1
        change.set(document=event.document, templates=event.templates, document_generation=counted)
        change.tell("DocumentAccepted", f"generation {counted}{_later(state, event)}")
    if state.stage is not Stage.EMPTY:
        change.set(refusal="")
        _take_stable(change)
        _take_canary(change)


def _later(state: State, event: Documented) -> str:
    """What of a new document has to wait."""
    spec, trial = event.document.spec, state.trial
    parts = []
    if trial and (spec.strategy.canary != trial.strategy or event.templates != trial.templates):
        parts.append("; steps and templates count from the next revision or a retry")
    if state.users and spec.users != state.users:
        parts.append("; users count from the next revision")
    return "".join(parts)


def _take_stable(change: Change) -> None:
    """Addresses follow the document; another revision of stable is taken over as it stands, without steps."""
    state, spec = change.state, change.state.document.spec
    if spec.stable.revision == revision_of(state.stable):
        change.set(stable=spec.stable)
    elif spec.stable.revision != state.declared[0]:
        _replace_stable(change, spec.stable)
    elif spec.canary and spec.canary.revision == revision_of(state.stable):
        change.set(stable=spec.canary)  # promoted: its addresses are still the canary's in the document


def _replace_stable(change: Change, stable: Version) -> None:
    state = change.state
    if state.stage is Stage.FILLING and stable.service and stable.revision == state.revision:
        change.tell("Promoted", f"{stable.revision} is behind {stable.service.name} now, at every endpoint")
        end_trial(change, stable=stable)
        return
    message = (
        f"the document says that {stable.revision} is stable, not {revision_of(state.stable)}: taken over as it is"
    )
    change.tell("StableChanged", message, is_warning=True)
    if state.stage is Stage.SWAPPING or stable.revision == state.revision:
        end_trial(change, stable=stable)
        return
    change.set(stable=stable)
    if state.stage in (Stage.STEPS, Stage.FILLING) and state.trial:
        clear(change, state.trial.version)  # what was measured so far was measured against another version


def _take_canary(change: Change) -> None:
    state, canary = change.state, change.state.document.spec.canary
    is_declared = state.document.revisions[1] == state.declared[1]
    change.set(declared=state.document.revisions)
    if canary and canary.revision == state.revision:
        if state.next:
            change.set(next=canary)
        else:
            change.trial(version=canary)
    elif is_declared:
        return
    elif canary is None or canary.revision == revision_of(state.stable):
        if state.revision and state.stage is not Stage.SWAPPING:
            change.tell("Withdrawn", f"{state.revision} is no longer the document's canary: everyone is on stable")
            end_trial(change)
    else:
        _take_new(change, canary)


def _take_new(change: Change, canary: Version) -> None:
    try:
        start(change, canary)
    except Refused as refusal:
        change.set(refusal=str(refusal))
        change.tell("CanaryRefused", str(refusal), is_warning=True)


def on_missing(change: Change, _: Missing) -> None:
    """The document is gone: what is under way holds, for nobody says any more that it is wanted."""
    if not change.state.is_document_missing:
        change.set(is_document_missing=True)
        change.tell("DocumentMissing", "the rollout's document is gone; the last one counts", is_warning=True)


def on_keyed(change: Change, event: Keyed) -> None:
    """These split secrets there are; without the one in use, users could not be dealt as before."""
    state = change.state
    change.set(offered_key=event.offered)
    if state.stage in (Stage.STEPS, Stage.FILLING) and state.trial and state.split_key not in event.known:
        change.tell("SplitKeyLost", "users cannot be dealt as before: everyone goes back to stable", is_warning=True)
        change.set(split_key="")
        clear(change, state.trial.version)
