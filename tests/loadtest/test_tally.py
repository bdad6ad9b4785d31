"""The summary's arithmetic."""

from __future__ import annotations

import pytest

from loadtest.flip import Answer, Flip
from loadtest.tally import KEPT, Tally, Version, progress, share, summary, text, totals

STABLE = Answer(1, "v1", "stable", "split")
CANARY = Answer(1, "v2", "canary", "split")


def filled() -> Tally:
    """Three users of v1 and one of v2, who answered with an error once."""
    tally = Tally(arrived=4, active=4)
    for _ in range(3):
        tally.answered(STABLE, None, 200, 0.010)
    tally.answered(CANARY, None, 500, 0.020)
    tally.answered(CANARY, "v2", 200, 0.020)
    return tally


def test_users_and_requests_by_version() -> None:
    """Shares are of users first, and of requests beside them; a user counts where it was last."""
    tally = filled()
    stable, canary = summary(tally, 2.0, 0, [])["versions"]
    assert (stable["users"], stable["usersPercent"], stable["requestsPercent"]) == (3, 75.0, 60.0)
    assert (canary["users"], canary["errors"], canary["errorPercent"]) == (1, 1, 50.0)
    assert canary["codes"] == {"200": 1, "500": 1}
    assert totals(tally) == {
        "active": 4, "requests": 5, "lost": 0, "flips": 0,
        "versions": {
            "v1": {"arm": "stable", "users": 3, "requests": 3, "errors": 0},
            "v2": {"arm": "canary", "users": 1, "requests": 2, "errors": 1},
        },
    }  # fmt: skip
    assert progress(tally, 1, 2.0).startswith(
        "4 users | 2 req/s | stable v1 75.0 % of users, 60.0 % of requests, 0 errors"
    )


def test_a_user_who_moves_is_counted_where_it_is() -> None:
    """Otherwise the shares of a rollout would add up to more than everybody."""
    tally = filled()
    assert tally.answered(CANARY, "v1", 200, 0.010) == "v2"
    assert {revision: version.users for revision, version in tally.versions.items()} == {"v1": 2, "v2": 2}


@pytest.mark.parametrize("ms", [0.5, 3, 40, 900])
def test_latencies_within_two_per_cent(ms: float) -> None:
    """Log buckets: quantiles of any size with one relative error."""
    tally = Tally()
    for _ in range(100):
        tally.answered(STABLE, None, 200, ms / 1000)
    assert tally.versions["v1"].quantile_ms(0.5) == pytest.approx(ms, rel=0.02)
    assert Version().quantile_ms(0.5) == 0.0


def test_faults() -> None:
    """Exit 0 needs requests, no flip, none lost."""
    assert Tally().faults() == ["no request was made"]
    assert filled().faults() == []
    tally = filled()
    tally.lose("closed", "user 1")
    tally.flip("7", Flip(STABLE, CANARY, "why"), True)
    tally.flip("7", Flip(CANARY, STABLE, "why"), False)
    assert tally.faults() == ["2 flips of 1 users", "1 requests lost (1 closed)"]


def test_details_are_bounded() -> None:
    """A run that fails all day long does not fill the memory with its failures."""
    tally = Tally()
    for n in range(KEPT + 50):
        tally.lose("closed", f"{n}")
        tally.flip(f"{n}", Flip(None, STABLE, "why"), True)
    assert (len(tally.lost_details), len(tally.flip_details)) == (KEPT, KEPT)
    assert (tally.flips, tally.lost.total()) == (KEPT + 50, KEPT + 50)


def test_the_share_of_a_step_is_told_in_sigmas() -> None:
    """The share of users lies within 3 sigma of the weight: a figure to look at."""
    row = share(("shop/checkout", 4, "split"), {"stable": 730, "canary": 270}, {"canary": 2500}, "v2")
    assert row["weights"] == {"canary": "25.00"}
    assert row["sigma"] == {"canary": 1.46}
    assert share(("", 1, "split"), {"canary": 5}, {"canary": 10_000}, "v2")["sigma"] == {"canary": 0.0}
    assert "sigma" not in share(("", 1, "split"), {"canary": 5}, {}, None)


def test_the_summary_as_text() -> None:
    """What a person reads names versions, shares, the flip with both answers, the lost request and the outcome."""
    tally = filled()
    rows = [share(("shop/checkout", 4, "split"), {"stable": 730, "canary": 270}, {"canary": 2500}, "v2")]
    good = text(summary(tally, 2.0, 0, rows))
    assert good.splitlines()[0] == "4 users, 5 requests in 2.0 s (2.5/s)"
    assert "generation 4 (split): 1000 users, canary 270 (27.0 %), +1.5 sigma from 25.00 %" in good
    assert good.splitlines()[-1] == "ok: no flip, no request lost"
    tally.flip("7", Flip(STABLE, CANARY, "why"), True)
    tally.lose("closed", "user 1: GET /: closed")
    bad = text(summary(tally, 2.0, 3, rows))
    assert "FLIP user 7: stable v1 (split, generation 1) -> canary v2 (split, generation 1): why" in bad
    assert "LOST user 1: GET /: closed" in bad
    assert "3 answers of an older plan" in bad
    assert bad.splitlines()[-1] == "FAILED: 1 flips of 1 users; 1 requests lost (1 closed)"
