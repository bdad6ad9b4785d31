"""Handshakes take their turns: nobody waits long behind them, and they all come to their end in order."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from proxy.net.turnstile import TURN_S, Turnstile


class Turns:
    """A loop whose turns are taken by hand, and a clock that only work moves."""

    def __init__(self) -> None:
        self.time = 0.0
        self.called: list[Callable[[], None]] = []
        self.done: list[int] = []
        self.turnstile = Turnstile(self, lambda: self.time)

    def call_soon(self, callback: Callable[[], None], /) -> None:
        self.called.append(callback)

    def work(self, number: int, seconds: float) -> Callable[[], None]:
        def step() -> None:
            self.time += seconds
            self.done.append(number)

        return step

    def turn(self) -> float:
        """One turn; returns what it took."""
        called, self.called, began = self.called, [], self.time
        for callback in called:
            callback()
        return self.time - began


@given(st.lists(st.floats(0.0001, 0.05), max_size=60), st.integers(1, 20))
def test_no_turn_is_long_and_every_step_is_done_once_in_order(steps: list[float], each: int) -> None:
    """However many come at once, and while others still wait."""
    turns = Turns()
    numbered = list(enumerate(steps))
    longest = max(steps, default=0.0)
    while numbered or turns.called:
        began = turns.time
        for number, seconds in numbered[:each]:
            turns.turnstile.enter(turns.work(number, seconds))
        numbered = numbered[each:]
        assert turns.time - began < TURN_S + longest + 1e-9
        assert turns.turn() < TURN_S + longest + 1e-9
    assert turns.done == list(range(len(steps)))


def test_alone_a_step_is_done_at_once() -> None:
    turns = Turns()
    assert turns.turnstile.enter(turns.work(1, 0.001))
    turns.turn()
    assert turns.called == []
    assert turns.turnstile.enter(turns.work(2, 1.0))
    assert not turns.turnstile.enter(turns.work(3, 0.001))
    assert turns.done == [1, 2]
    turns.turn()
    assert turns.done == [1, 2, 3]
