"""``cohort controller``: run the controller in the foreground."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING

import click

from controller.cli import lint
from controller.cli.exits import REFUSED, WrongUse

if TYPE_CHECKING:
    from controller.spec import ControllerSettings, Kube


RESPAWN = "--respawn"


@click.command()
@click.option("--config", "--settings", required=True, metavar="FILE", help="A ControllerSettings document.")
@click.option("--kube", is_flag=True, help="In a cluster: beside one proxy, for one CanaryRollout.")
@click.option("--namespace", metavar="NAME", help="With --kube: of the rollout.  [default: kube.namespace in FILE]")
@click.option("--rollout", metavar="NAME", help="With --kube: its name.  [default: kube.rollout in FILE]")
@click.option("--check", is_flag=True, help="Check FILE and the rollouts that it names, and end.")
@click.option(RESPAWN, is_flag=True, help="With --kube: as a child process, started again when it was killed.")
def command(config: str, kube: bool, namespace: str | None, rollout: str | None, check: bool, respawn: bool) -> None:
    """Run the controller: it reads the rollouts' folder, feeds the proxies and steps the rollouts until SIGTERM.

    Paths in FILE are relative to its own folder. With --check nothing is started: exits with 0 if the settings and all
    documents in the rollouts' folder are valid, else tells every fault and exits with 1.

    \b
    Examples:
      cohort controller --config controller.yaml --check
      cohort controller --config controller.yaml
      cohort controller --kube --namespace shop --rollout checkout --settings controller.yaml
    """
    if not kube and (namespace or rollout or respawn):
        raise WrongUse("--namespace, --rollout and --respawn go with --kube.")
    if respawn and not check:
        words = [sys.executable, *(word for word in sys.orig_argv[1:] if word != RESPAWN)]
        sys.exit(importlib.import_module("controller.net.kube.parent").keep(words))
    settings = _settings(config)
    place = _place(settings, namespace, rollout) if kube else None
    folder = os.path.dirname(os.path.abspath(config))
    if check and place:
        return
    if check:
        _check(os.path.join(folder, settings.rollouts))
        return
    os.chdir(folder)
    if place:
        importlib.import_module("controller.net.kube.service").run(settings, place)
        return
    importlib.import_module("controller.net.service").run(settings)


def _place(settings: ControllerSettings, namespace: str | None, rollout: str | None) -> Kube:
    """Where to work: what the command line says comes before the settings."""
    from controller.spec import Kube
    from proxy.document import DocumentError, validate

    said = settings.kube.model_dump(mode="json", by_alias=True, exclude_unset=True) if settings.kube else {}
    said |= {name: value for name, value in (("namespace", namespace), ("rollout", rollout)) if value}
    try:
        return validate(Kube, said)
    except DocumentError as error:
        raise WrongUse(f"--kube: {error}.") from None


def _settings(path: str) -> ControllerSettings:
    from controller.lint import FAULT, Finding
    from controller.spec import ControllerSettings
    from proxy.document import DocumentError, parse

    try:
        return parse(ControllerSettings, lint.read(path))
    except DocumentError as error:
        found = [Finding(path, FAULT, fault.path, fault.message) for fault in error.faults]
        lint.show(lint.Report(1, found), "table")
        click.get_current_context().exit(REFUSED)


def _check(folder: str) -> None:
    if not os.path.isdir(folder):
        raise WrongUse(f"expected a folder of rollouts at {folder}, got none: correct rollouts in the settings.")
    report = lint.check([folder])
    lint.show(report, "table")
    if report.faults:
        click.get_current_context().exit(REFUSED)
