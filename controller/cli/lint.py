"""``cohort lint``: the faults of documents before anything reads them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from controller.cli import output as out
from controller.cli.documents import KINDS, model
from controller.cli.exits import REFUSED, WrongUse

if TYPE_CHECKING:
    from controller.lint import Finding, Given
    from proxy.document import Document

SUFFIXES = (".yaml", ".yml", ".json")
GROUP = "cohort.dev/"
_COLOURS = {"fault": "red", "warning": "yellow"}


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="FILE|FOLDER...")
@click.option("--strict", is_flag=True, help="Exit with 1 on warnings too.")
@click.option(
    "-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True, help="Form."
)
def command(paths: tuple[str, ...], strict: bool, output: str) -> None:
    """Check documents: CanaryRollout, AnalysisTemplate, Plan, ProxySettings and ControllerSettings.

    Every fault is told with its field path, and what one document says of another is checked among all that are given:
    a template that a rollout names must be one of them (a mere warning if neither a template nor a FOLDER is given).
    A FOLDER stands for its .yaml, .yml and .json files, at any depth; documents of other groups in it are passed over.
    A FILE named - is the standard input.

    Warnings tell of header routes that nobody may set (which depends on trustedPeers of the ProxySettings, so give
    them too), of routes by path, method or query that lead one user to two versions, and of copies of requests that
    change something, and of a breaker that one user can trip.

    Exits with 1 if there is a fault, with 0 on warnings alone.

    \b
    Examples:
      cohort lint rollouts/ proxy.yaml
      cohort lint checkout.yaml -o json
    """
    report = check(paths)
    show(report, output)
    if report.faults or (strict and report.found):
        click.get_current_context().exit(REFUSED)


@dataclass(frozen=True, slots=True)
class Report:
    """How many documents were checked, and what was found, in the order of the files."""

    count: int
    found: Sequence[Finding]

    @property
    def faults(self) -> int:
        """How many of the findings are faults."""
        return sum(finding.severity == "fault" for finding in self.found)


def check(paths: Sequence[str]) -> Report:
    """Check files and folders, each document by itself and all of them against each other.

    Raises:
        WrongUse: A path cannot be read.
    """
    from controller.lint import FAULT, Finding, Given, findings
    from proxy.document import DocumentError

    count = 0
    found: list[Finding] = []
    given: list[Given] = []
    files = _files(paths)
    for path, in_folder in files.items():
        try:
            document = _document(read(path), in_folder)
        except DocumentError as error:
            count += 1
            found += [Finding(path, FAULT, fault.path, fault.message) for fault in error.faults]
            continue
        if document is not None:
            count += 1
            given.append(Given(path, document))
    found += findings(given, any(os.path.isdir(path) for path in paths), _trusted(given))
    order = {path: place for place, path in enumerate(files)}
    return Report(count, sorted(found, key=lambda finding: order[finding.file]))


def _document(text: bytes, in_folder: bool) -> Document | None:
    """One document; None if it is of another group and only happened to lie there.

    Raises:
        DocumentError: It is not valid.
    """
    from proxy.document import DocumentError, Fault, load, validate

    value = load(text)
    if not isinstance(value, dict):
        raise DocumentError([Fault("", f"expected a mapping with apiVersion and kind, got {type(value).__name__}")])
    group = value.get("apiVersion")
    if in_folder and isinstance(group, str) and not group.startswith(GROUP):
        return None
    kind = value.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise DocumentError([Fault("kind", f"expected one of {', '.join(KINDS)}, got {kind!r}")])
    return validate(model(kind), value)


def _trusted(given: Sequence[Given]) -> bool | None:
    """Whether the settings among the documents name trusted peers; None without settings."""
    lists = [peers for item in given if (peers := getattr(item.document, "trusted_peers", None)) is not None]
    return any(lists) if lists else None


def _files(paths: Sequence[str]) -> dict[str, bool]:
    """The files that paths stand for, each once, and whether it was only found in a folder."""
    found: dict[str, tuple[str, bool]] = {}
    for path in paths:
        if os.path.isdir(path):
            for file in _below(path):
                found.setdefault(os.path.realpath(file), (file, True))
        else:
            found[os.path.realpath(path)] = (path, False)
    return dict(found.values())


def _below(path: str) -> Iterator[str]:
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.endswith(SUFFIXES) and not name.startswith("."):
                yield os.path.join(folder, name)


def read(path: str) -> bytes:
    """A file's content, at most one byte more than a document may have.

    Raises:
        WrongUse: It cannot be read.
    """
    from proxy.document import MAX_DOCUMENT_BYTES

    if path == "-":
        return sys.stdin.buffer.read(MAX_DOCUMENT_BYTES + 1)
    try:
        with open(path, "rb") as file:
            return file.read(MAX_DOCUMENT_BYTES + 1)
    except OSError as error:
        raise WrongUse(f"cannot read {path}: {error.strerror}. Name a file or a folder of documents.") from None


def show(report: Report, output: str) -> None:
    """Print a report: the findings on standard output, for people one a line and the count on standard error."""
    warnings = len(report.found) - report.faults
    if output != "table":
        findings = [
            {"file": f.file, "severity": f.severity, "path": f.path, "message": f.message} for f in report.found
        ]
        numbers = {"documents": report.count, "faults": report.faults, "warnings": warnings}
        out.emit({**numbers, "findings": findings}, output)
        return
    for finding in report.found:
        where = f"{out.plain(finding.path)}: " if finding.path else ""
        severity = click.style(finding.severity, fg=_COLOURS[finding.severity], bold=True)
        click.echo(f"{out.plain(finding.file)}: {severity}: {where}{out.plain(finding.message)}")
    numbers_text = f"{_number(report.faults, 'fault')}, {_number(warnings, 'warning')}"
    click.echo(f"{_number(report.count, 'document')}: {numbers_text}", err=True)


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
