"""Errors of the controller by consequence: whether to try again, or to have somebody change something first."""

from __future__ import annotations


class ControllerError(Exception):
    """What went wrong; the message says what was expected and what came."""


class Temporary(ControllerError):
    """It may work the next time: tried again."""


class Permanent(ControllerError):
    """It fails the same way until something is changed."""


class PlanRefused(Permanent):
    """A proxy finds fault with the plan."""


class Outranked(Temporary):
    """A proxy has another plan than was thought; it must be looked at again first."""
