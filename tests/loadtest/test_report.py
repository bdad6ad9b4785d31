"""What is told of each seat, and that it cannot grow."""

from __future__ import annotations

import json

from loadtest.flip import Answer, Flip
from loadtest.person import Sight
from loadtest.report import BATCH, Reporter

STABLE = Answer(3, "v1", "stable", "split", "shop/checkout")
FLIP = Flip(None, STABLE, "because")


def sight(seat: int, flip: Flip | None = None) -> Sight:
    return Sight(f"user-{seat}", seat, 200, STABLE, flip)


def test_the_last_sight_of_a_seat_counts_and_a_flip_stays() -> None:
    """A page that is told twice a second must not miss the one red square."""
    told: list[bytes] = []
    reporter = Reporter(told.append, lambda: {"requests": 3})
    for flip in (None, FLIP, None):
        reporter.put(sight(0, flip))
    reporter.put(sight(1))
    reporter.flush()
    reporter.flush()
    [message] = told
    assert json.loads(message)["totals"] == {"requests": 3}
    rows = json.loads(message)["users"]
    assert [row["seat"] for row in rows] == [0, 1]
    assert [row["flip"] for row in rows] == [str(FLIP), None]
    assert rows[0] | {"flip": None} == {
        "seat": 0, "user": "user-0", "arm": "stable", "revision": "v1", "reason": "split", "generation": 3,
        "status": 200, "lost": "", "flip": None,
    }  # fmt: skip


def test_many_seats_go_in_several_messages() -> None:
    """A message stays below common limits on bodies."""
    told: list[bytes] = []
    reporter = Reporter(told.append, lambda: {"requests": 3})
    for seat in range(BATCH + 1):
        reporter.put(sight(seat))
    reporter.flush()
    assert [len(json.loads(message)["users"]) for message in told] == [BATCH, 1]


def test_nobody_hears() -> None:
    """A sink that is gone is counted and costs nothing."""

    def send(message: bytes) -> None:
        raise OSError

    reporter = Reporter(send, dict)
    reporter.put(sight(0))
    reporter.flush()
    reporter.flush()
    assert reporter.dropped == 1
