"""How a command fails: one exception for each exit code, whose text says what was expected, what came, what to do."""

from __future__ import annotations

import click

REFUSED = 1
WRONG_USE = 2
NOT_REACHABLE = 3
TIMED_OUT = 4


class Refused(click.ClickException):
    """The controller said no, or the rollout has ended badly."""

    exit_code = REFUSED


class WrongUse(click.ClickException):
    """The command line, or a file that it names, cannot be meant so."""

    exit_code = WRONG_USE


class NotReachable(click.ClickException):
    """No controller answers there, or what answers is none."""

    exit_code = NOT_REACHABLE


class TimedOut(click.ClickException):
    """What was waited for has not come in time."""

    exit_code = TIMED_OUT
