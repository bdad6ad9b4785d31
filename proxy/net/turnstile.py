"""Shares the loop between handshakes, which cost a millisecond or more each, and everybody else."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

# Of each turn of the loop. A thousand clients that come at once, each with a handshake of some milliseconds (RSA),
# would else hold everybody up for seconds, and the supervisor would take the worker for one that hangs.
TURN_S = 0.02

Step = Callable[[], None]


class Loop(Protocol):
    """What is needed of an event loop."""

    def call_soon(self, callback: Step, /) -> object: ...  # noqa: D102


class Turnstile:
    """Of one loop. Steps that find no time in this turn are done in the next ones, in their order.

    Args:
        now: Monotonic seconds.
    """

    def __init__(self, loop: Loop, now: Callable[[], float]) -> None:
        self._loop = loop
        self._now = now
        self._waiting: deque[Step] = deque()
        self._left_s = TURN_S
        self._is_called = False

    def enter(self, step: Step) -> bool:
        """Do something now, or have it wait; returns whether it is done."""
        if not self._is_called:
            self._is_called = True
            self._loop.call_soon(self._turn)  # after all that this turn brings
        if self._waiting or self._left_s <= 0:
            self._waiting.append(step)
            return False
        self._do(step)
        return True

    def _do(self, step: Step) -> None:
        began = self._now()
        step()
        self._left_s -= self._now() - began

    def _turn(self) -> None:
        self._left_s = TURN_S
        while self._waiting and self._left_s > 0:
            self._do(self._waiting.popleft())
        self._is_called = bool(self._waiting)
        if self._is_called:
            self._loop.call_soon(self._turn)
