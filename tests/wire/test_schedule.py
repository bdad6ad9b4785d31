"""Which case runs where: what becomes of a case that the harness itself has lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.wire import schedule
from tests.wire.case import Case, load
from tests.wire.run import STUCK, Result
from tests.wire.stand import Stand


async def test_a_case_that_is_stuck_runs_again_in_a_loop_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """And those behind it with it; each is reported once."""
    genuine, stuck = schedule.run_case, []

    async def run_case(stand: Stand, case: Case) -> Result:
        if not stuck:
            stuck.append(case.id)
            result = Result(case)
            result.faults.append(STUCK)
            return result
        return await genuine(stand, case)

    monkeypatch.setattr(schedule, "run_case", run_case)
    file = load(Path(__file__).with_name("cases.yaml"))
    report = await schedule.run_all(file, ["CL-02", "CL-03"])
    assert report.failed == {}
    assert report.passed == {"CL-02", "CL-03"}
    assert len(stuck) == 1
