"""What the page is told of the users."""

from __future__ import annotations

from typing import Any

import pytest

from demo.board import MAX_SEATS, WINDOW_S, Board


def user(seat: int, revision: str | None, flip: str | None = None, name: str = "") -> dict[str, Any]:
    return {"seat": seat, "user": name or f"u{seat}", "revision": revision, "flip": flip}


def totals(requests: int, errors: int = 0, lost: int = 0, flips: int = 0) -> dict[str, Any]:
    versions = {"v2": {"requests": requests, "errors": errors}}
    return {"requests": requests, "lost": lost, "flips": flips, "versions": versions}


def test_one_square_is_one_user() -> None:
    """The grid tells for each seat the version seen last; who was not seen yet has none."""
    board = Board()
    board.take({"users": [user(0, "v1"), user(3, "v2")], "totals": totals(2)}, 0)
    view = board.view()
    assert view["revisions"] == ["v1", "v2"]
    assert view["grid"] == [0, -1, -1, 1]
    assert view["people"] == ["u0", "", "", "u3"]
    assert board.users() == {"v1": 1, "v2": 1}


def test_a_lost_request_leaves_the_square_as_it_was() -> None:
    """Only what a user has seen counts; a newcomer in the seat has seen nothing yet."""
    board = Board()
    board.take({"users": [user(0, "v1")], "totals": totals(1)}, 0)
    board.take({"users": [user(0, None)], "totals": totals(1, lost=1)}, 1)
    assert board.view()["grid"] == [0]
    assert board.lost == 1
    board.take({"users": [user(0, None, name="newcomer")], "totals": totals(1)}, 2)
    assert board.view()["grid"] == [-1]


def test_a_flip_stays() -> None:
    """The issue, "The demo": a flip would turn it red; it is told with the user, and whoever sits there next."""
    board = Board()
    board.take({"users": [user(0, "v1", "v2 then v1")], "totals": totals(1, flips=1)}, 0)
    board.take({"users": [user(0, "v1", name="newcomer")], "totals": totals(2, flips=1)}, 1)
    view = board.view()
    assert (view["flipped"], view["flips"]) == ([0], 1)
    assert view["flipDetails"] == ["user u0: v2 then v1"]


def test_errors_are_those_of_the_last_seconds() -> None:
    """A version that turns bad must show it within seconds, however good it was before."""
    board = Board()
    board.take({"users": [], "totals": totals(0)}, 0)
    for second in range(1, 61):
        board.take({"users": [], "totals": totals(100 * second)}, second)
    for second in range(61, 61 + int(WINDOW_S)):
        board.take({"users": [], "totals": totals(100 * second, 10 * (second - 60))}, second)
    assert board.versions()["v2"]["errorPercent"] == 10.0
    assert board.view()["rate"] == 100.0


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"users": [], "totals": {}},
        {"users": [{}], "totals": totals(1)},
        {"users": [user(MAX_SEATS, "v1")], "totals": {}},
        {"users": [user(-1, "v1")], "totals": totals(1)},
        {"users": 3, "totals": {}},
    ],
)
def test_what_is_no_report_is_refused(message: dict[str, Any]) -> None:
    """Nothing else than the load generator's reports."""
    with pytest.raises(ValueError, match=r"not a report|seats are"):
        Board().take(message, 0)


def test_before_the_first_report() -> None:
    """The page opens before the users come."""
    assert Board().view() == {
        "revisions": [], "grid": [], "people": [], "flipped": [], "flipDetails": [], "versions": {}, "requests": 0,
        "rate": 0.0, "lost": 0, "flips": 0,
    }  # fmt: skip
