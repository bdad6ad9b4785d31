"""Problems for the log: each is told once, however often it is found in a row."""

from __future__ import annotations

import logging

log = logging.getLogger("cohort.kube")


class Once:
    """What one part of the controller has complained of last."""

    def __init__(self) -> None:
        self._problem = ""

    def say(self, problem: str) -> None:
        """Tell a problem, unless it is the one before; empty: there is none any more."""
        if problem and problem != self._problem:
            log.warning("%s", problem)
        self._problem = problem
