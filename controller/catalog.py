"""What a folder of documents declares: each rollout with its templates, or what is wrong with it. Pure.

A file that cannot be read leaves the last good document of that file in force; the rollouts concerned say so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from controller.spec import (
    API_VERSION,
    AnalysisTemplate,
    CanaryRollout,
    TemplateSpec,
    analyses,
    cross_faults,
    template_metrics,
    validate_document,
)
from proxy.document import DocumentError, Fault, load

_OTHERS = ("Plan", "ProxySettings", "ControllerSettings")  # kinds of ours that are no business of a rollouts' folder


@dataclass(frozen=True, slots=True)
class File:
    """One file of the folder.

    Attributes:
        document: The last good one; None: there was none yet, or the file is of no concern here.
        problem: Why the present content is not it; empty: it is.
        key: ``namespace/name`` of the rollout in the present content, if that much can be read; else empty.
    """

    path: str
    document: CanaryRollout | AnalysisTemplate | None = None
    problem: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class Declared:
    """One rollout as the folder has it.

    Attributes:
        document: None: it never was good.
        problem: What is wrong now; the document of before counts, if there is one.
    """

    document: CanaryRollout | None = None
    templates: Mapping[str, TemplateSpec] = field(default_factory=dict)
    problem: str = ""


def read(path: str, content: bytes, before: File | None) -> File:
    """What one file holds.

    Args:
        path: For messages.
        content: As it is on disk.
        before: What it held until now, if it was there.
    """
    kept = before.document if before else None
    key = ""
    try:
        value = load(content)
        if not isinstance(value, dict):
            raise DocumentError([Fault("", f"expected a mapping, got {type(value).__name__}")])
        if not _concerns_us(value):
            return File(path)
        key = _key(value)
        document = validate_document(value)
    except DocumentError as error:
        return File(path, kept, f"{path}: {error}", key or (before.key if before else ""))
    return File(path, document, key=document.key if isinstance(document, CanaryRollout) else "")


def unreadable(path: str, reason: str, before: File | None) -> File:
    """A file that is there and cannot be read."""
    return File(path, before.document if before else None, f"{path}: {reason}", before.key if before else "")


def _concerns_us(value: dict[str, Any]) -> bool:
    """Documents of other groups may lie in the same folder, and so may settings of ours."""
    return value.get("apiVersion", API_VERSION) == API_VERSION and value.get("kind") not in _OTHERS


def _key(value: dict[str, Any]) -> str:
    """The rollout that a faulty document is about, as far as it says."""
    metadata = value.get("metadata")
    if value.get("kind") != "CanaryRollout" or not isinstance(metadata, dict):
        return ""
    namespace, name = metadata.get("namespace", "default"), metadata.get("name")
    return f"{namespace}/{name}" if isinstance(namespace, str) and isinstance(name, str) else ""


def declared(files: Iterable[File], in_cluster: bool = False) -> dict[str, Declared]:
    """Every rollout of the folder by its key; only in a cluster there are services."""
    known = sorted(files, key=lambda file: file.path)
    templates = [file.document for file in known if isinstance(file.document, AnalysisTemplate)]
    found: dict[str, Declared] = {}
    for file in known:
        if isinstance(file.document, CanaryRollout):
            key = file.document.key
            twice = [f.path for f in known if isinstance(f.document, CanaryRollout) and f.document.key == key]
            found[key] = _declared(file, twice, templates, known, in_cluster)
    for file in known:
        if file.problem and file.key and file.key not in found:
            found[file.key] = Declared(problem=file.problem)
    return found


def _elsewhere(rollout: CanaryRollout) -> list[Fault]:
    """What only a controller in the cluster can find."""
    return [
        Fault(f"spec.{arm}.service", "is found by a controller in the cluster only: give addresses or dns here")
        for arm, version in (("stable", rollout.spec.stable), ("canary", rollout.spec.canary))
        if version and version.service
    ]


def _repeated(templates: list[AnalysisTemplate]) -> set[str]:
    """Names of templates that are there twice in one namespace: which counts would depend on the order of files."""
    seen = [(template.metadata.namespace, template.metadata.name) for template in templates]
    return {name for namespace, name in seen if seen.count((namespace, name)) > 1}


def _declared(
    file: File, paths: list[str], templates: list[AnalysisTemplate], known: list[File], in_cluster: bool
) -> Declared:
    document = file.document
    assert isinstance(document, CanaryRollout)  # the caller has looked
    if len(paths) > 1:
        return Declared(problem=f"{document.key} is declared by {' and '.join(paths)}: remove one")
    faults = ([] if in_cluster else _elsewhere(document)) + cross_faults(document, templates)
    if faults:
        return Declared(problem=f"{file.path}: {'; '.join(map(str, faults))}")
    named = {name for analysis in analyses(document.spec.strategy.canary).values() for name in analysis.names}
    if twice := sorted(named & _repeated(templates)):
        return Declared(problem=f"AnalysisTemplate {', '.join(twice)} is declared by two files: remove one")
    problems = [file.problem] if file.problem else []
    problems += [
        f.problem
        for f in known
        if f.problem and isinstance(f.document, AnalysisTemplate) and f.document.metadata.name in named
    ]
    return Declared(document, template_metrics(document, templates), "; ".join(problems))
