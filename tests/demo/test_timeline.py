"""The timeline's rows, and which ends count as right."""

from __future__ import annotations

from typing import Any

import pytest

from demo.timeline import HEADER, PROMOTED, ROLLED_BACK, ending, faults, line, moment, share

PROGRESSING: dict[str, Any] = {
    "phase": "Progressing",
    "revision": {"stable": "v1", "canary": "v2"},
    "step": {"index": 3, "total": 8, "elapsed": "4s"},
    "weight": {"programmed": "25.00", "measured": "24.50"},
    "verdict": {"decision": "Hold", "reason": "NotEnoughData", "message": "", "need": {"requests": 80, "users": 0}},
}
FINE = {"faults": []}


def test_a_row_has_all_that_the_issue_asks_for() -> None:
    """Time, phase, weight programmed and measured, users, errors, verdict and reason."""
    versions = {"v1": {"users": 151, "errorPercent": 0.1}, "v2": {"users": 49, "errorPercent": None}}
    row = line(75.2, moment({"status": PROGRESSING}), versions)
    assert row == (
        "  1:15  Progressing   3/8    25.00     24.50  v1:151 v2:49     v1:0.10% v2:-      "
        "Hold NotEnoughData: needs 80 more requests"
    )
    assert HEADER.index("phase") == row.index("Progressing")
    assert HEADER.index("users") == row.index("v1:151")
    assert HEADER.index("errors") == row.index("v1:0.10%")


def test_until_the_proxies_have_counted_the_users_own_share_is_told() -> None:
    """The proxies' count begins with the next ten seconds after a weight has changed."""
    status = PROGRESSING | {"weight": {"programmed": "25.00"}}
    row = line(1, moment({"status": status}), {"v1": {"users": 150}, "v2": {"users": 50}})
    assert row.split()[4] == "~25.00"


def test_an_empty_document_is_an_empty_row() -> None:
    """The controller has not answered yet."""
    assert ending(moment({}), "v2") is None
    assert line(0, moment({}), {}).split() == ["0:00"]


@pytest.mark.parametrize(
    ("change", "ended"),
    [
        pytest.param({}, None, id="under way"),
        pytest.param({"phase": "Healthy"}, None, id="before it began"),
        pytest.param({"phase": "Healthy", "revision": {"stable": "v2", "canary": None}}, PROMOTED, id="promoted"),
        pytest.param({"phase": "Promoting", "revision": {"stable": "v2", "canary": "v2"}}, None, id="not yet promoted"),
        pytest.param({"phase": "Aborted", "abort": {"reason": "AnalysisFailed"}}, ROLLED_BACK, id="rolled back"),
        pytest.param({"phase": "Aborted", "abort": {"reason": "Requested"}}, "Aborted (Requested)", id="by hand"),
        pytest.param(
            {"phase": "Degraded", "abort": {"reason": "AnalysisFailed"}}, "Degraded (AnalysisFailed)", id="half"
        ),
    ],
)
def test_ends(change: dict[str, Any], ended: str | None) -> None:
    """A rollback counts when the evidence brought it about, and wholly."""
    assert ending(moment({"status": PROGRESSING | change}), "v2") == ended


def test_the_share_of_users_under_one_plan() -> None:
    """Whether the share of users is as programmed, in sigmas; after a promotion there is only one arm."""
    row = {"generation": 4, "reason": "split", "users": 200, "arms": {"stable": 150, "canary": 50}}
    assert share(row) == "generation 4 (split): 200 users"
    told = row | {"weights": {"canary": "25.00"}, "sigma": {"canary": 0.0}}
    assert share(told) == (
        "generation 4 (split): 200 users, 25.00 % of them on canary for 25.00 % programmed (+0.0 sigma)"
    )


@pytest.mark.parametrize(
    ("ended", "expected", "summary", "found"),
    [
        (PROMOTED, PROMOTED, FINE, []),
        (ROLLED_BACK, ROLLED_BACK, FINE, []),
        (PROMOTED, ROLLED_BACK, FINE, ["expected the version to be rolled-back, it was promoted"]),
        (ROLLED_BACK, PROMOTED, FINE, ["expected the version to be promoted, it was rolled-back"]),
        (
            "Aborted (Requested)",
            ROLLED_BACK,
            FINE,
            ["expected the version to be rolled-back, it was Aborted (Requested)"],
        ),
        (PROMOTED, PROMOTED, {"faults": ["1 flips of 1 users"]}, ["1 flips of 1 users"]),
        (PROMOTED, PROMOTED, {"faults": ["1 requests lost"]}, ["1 requests lost"]),
    ],
)
def test_a_run_can_end_wrong(ended: str, expected: str, summary: dict[str, Any], found: list[str]) -> None:
    """The issue: exit 0 only for the right end with no flip and no request lost."""
    assert faults(ended, expected, summary) == found
