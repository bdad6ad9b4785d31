"""From a CanaryRollout and what runs behind its Services to the document that the state machine reads. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from controller import endpoints
from controller.catalog import Declared, File, declared
from controller.endpoints import Object, Objects, Place, Unusable
from controller.spec import API_VERSION, CanaryRollout, validate_document
from controller.state import Stage, State
from controller.version import Version
from proxy.document import DocumentError

# Bytes as JSON. A plan is to fit into `published.MAX_BYTES`, with endpoints beside its routes; a state, with the
# document and the templates as they are and as the trial began with them, into `resource.MAX_STATE`.
MAX_SPEC, MAX_TEMPLATES = 98_304, 131_072


@dataclass(frozen=True, slots=True)
class Resolved:
    """A rollout as the cluster has it now.

    Attributes:
        found: The document with the revisions filled in, its templates, and what is wrong.
        reason: In one word what is wrong; empty: nothing.
    """

    found: Declared
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Behind:
    """What is known of the Services' pods."""

    services: Objects
    slices: Objects
    pods: Objects


def read(rollout: Object, templates: Objects) -> Declared:
    """The document of a custom resource, with its templates, before anything is known of pods."""
    files = [_file(rollout, "CanaryRollout")]
    files += [_file(template, "AnalysisTemplate") for _, template in sorted(templates.items())]
    metadata = rollout["metadata"]
    found = declared(files, in_cluster=True).get(f"{metadata['namespace']}/{metadata['name']}")
    if found is None or found.document is None:
        return found or Declared(problem=files[0].problem)
    problem = _too_large(rollout["spec"], {name: templates[name] for name in found.templates})
    return Declared(problem=f"{files[0].path}: {problem}") if problem else found


def _too_large(spec: Object, templates: Objects) -> str:
    """Why a status has no room for the plan and the state of a rollout; empty: it has."""
    largest = max(spec, key=lambda name: _size(spec[name]))
    if _size(spec) > MAX_SPEC:
        return f"spec.{largest}: all of spec has {_size(spec)} bytes, and its status has room for {MAX_SPEC}"
    specs = sum(_size(template.get("spec")) for template in templates.values())
    if specs > MAX_TEMPLATES:
        return f"its templates have {specs} bytes, and its status has room for {MAX_TEMPLATES}"
    return ""


def _size(value: Any) -> int:
    return len(json.dumps(value))


def _file(item: Object, kind: str) -> File:
    metadata = item["metadata"]
    name = {"name": metadata["name"], "namespace": metadata.get("namespace", "default")}
    path = f"{kind} {name['name']}"
    key = f"{name['namespace']}/{name['name']}" if kind == "CanaryRollout" else ""
    value = {"apiVersion": API_VERSION, "kind": kind, "metadata": name, "spec": item.get("spec")}
    try:
        return File(path, validate_document(value), key=key)
    except DocumentError as error:
        return File(path, problem=f"{path}: {error}", key=key)


def resolve(found: Declared, behind: Behind, state: State | None) -> Resolved:
    """Fill in the revisions.

    Args:
        found: As `read` made it.
        behind: What runs.
        state: Of the rollout under way; None: there is none yet.

    Returns:
        Without a document where there is nothing yet that could be served as stable.
    """
    if found.document is None:
        return Resolved(found, "Invalid")
    spec = found.document.spec
    try:
        stable_places, canary_places = _places(spec.stable, behind), _places(spec.canary, behind)
    except Unusable as error:
        return _withdrawn(found, state, "ServiceUnusable", str(error))
    stable = _stable(found.document, stable_places, behind, state)
    if stable is None:
        names = spec.stable.service.name if spec.stable.service else ""
        said = f"the pods behind {names} do not tell one revision yet"
        return Resolved(Declared(None, found.templates, found.problem or said), "RevisionUnknown")
    if both := endpoints.overlap(stable_places, canary_places):
        said = f"{len(both)} pods are behind both Services: give their selectors a label that differs"
        return _withdrawn(found, state, "ArmsOverlap", said, stable)
    canary = _canary(found.document, canary_places, behind, state)
    return Resolved(_filled(found, stable, canary), "Invalid" if found.problem else "")


def _places(version: Version | None, behind: Behind) -> tuple[Place, ...]:
    if version is None or version.service is None:
        return ()
    return endpoints.places(version.service, behind.services, behind.slices)


def _withdrawn(found: Declared, state: State | None, reason: str, said: str, stable: Version | None = None) -> Resolved:
    """Nobody is on the canary while this stands; stable stays what it was."""
    assert found.document is not None  # as the caller has checked
    stable = stable or (_known(state, "stable") if state else None)
    problem = "; ".join(filter(None, (said, found.problem)))
    if stable is None or state is None:
        return Resolved(Declared(None, found.templates, problem), reason)
    canary = _known(state, "canary") if state.stage is Stage.ABORTED else None
    filled = _filled(found, stable, canary)
    return Resolved(Declared(filled.document, filled.templates, problem), reason)


def _known(state: State, arm: str) -> Version | None:
    """The version that the document said when it was last taken over."""
    version: Version | None = getattr(state.document.spec, arm)
    return version


def _revision(document: CanaryRollout, found: tuple[Place, ...], behind: Behind) -> tuple[str, ...]:
    return endpoints.revisions(found, behind.pods, document.spec.revision_from)


def _stable(document: CanaryRollout, found: tuple[Place, ...], behind: Behind, state: State | None) -> Version | None:
    """Stable with its revision: while its pods have two, or none is there, the one that was known before."""
    version = document.spec.stable
    if version.service is None:
        return version
    revisions = _revision(document, found, behind)
    known = _known(state, "stable") if state else None
    revision = revisions[0] if len(revisions) == 1 and revisions[0] else known.revision if known else ""
    return version.model_copy(update={"revision": revision}) if revision else None


def _canary(document: CanaryRollout, found: tuple[Place, ...], behind: Behind, state: State | None) -> Version | None:
    """The canary with its revision.

    Two revisions behind its Service: none, so everyone is on stable, until there is one; but an abort stands. None, or
    pods that nothing is known of yet: the one that was known before.
    """
    version = document.spec.canary
    if version is None or version.service is None:
        return version
    revisions = _revision(document, found, behind)
    known = _known(state, "canary") if state else None
    if len(revisions) == 1 and revisions[0]:
        return version.model_copy(update={"revision": revisions[0]})
    is_mixed = len(revisions) > 1 and all(revisions)
    if known is None or (is_mixed and state is not None and state.stage is not Stage.ABORTED):
        return None
    return version.model_copy(update={"revision": known.revision})


def _filled(found: Declared, stable: Version, canary: Version | None) -> Declared:
    assert found.document is not None  # as the caller has checked
    document = found.document
    spec = document.spec.model_copy(update={"stable": stable, "canary": canary})
    return Declared(document.model_copy(update={"spec": spec}), found.templates, found.problem)


def action_of(item: Object, rollout: Object) -> Mapping[str, Any] | None:
    """The spec of an action on this rollout.

    Returns:
        None: it is another's, not readable, withdrawn by its deletion, or was asked of one that had the name before.
    """
    metadata, spec = item["metadata"], item.get("spec")
    if not isinstance(spec, dict) or spec.get("rollout") != rollout["metadata"]["name"]:
        return None
    is_of_before = str(metadata.get("creationTimestamp") or "~") < str(rollout["metadata"].get("creationTimestamp"))
    return None if is_of_before or metadata.get("deletionTimestamp") else spec
