"""``cohort controller``: run the controller in the foreground."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

import click

from controller.cli import lint
from controller.cli.exits import REFUSED, WrongUse

if TYPE_CHECKING:
    from controller.spec import ControllerSettings


@click.command()
@click.option("--config", required=True, metavar="FILE", help="A ControllerSettings document.")
@click.option("--check", is_flag=True, help="Check FILE and the rollouts that it names, and end.")
def command(config: str, check: bool) -> None:
    """Run the controller: it reads the rollouts' folder, feeds the proxies and steps the rollouts until SIGTERM.

    Paths in FILE are relative to its own folder. With --check nothing is started: exits with 0 if the settings and all
    documents in the rollouts' folder are valid, else tells every fault and exits with 1.

    \b
    Examples:
      cohort controller --config controller.yaml --check
      cohort controller --config controller.yaml
    """
    settings = _settings(config)
    folder = os.path.dirname(os.path.abspath(config))
    if check:
        _check(os.path.join(folder, settings.rollouts))
        return
    os.chdir(folder)
    importlib.import_module("controller.net.service").run(settings)


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
