"""Each fault of the table, injected for seconds; `make faults` takes minutes for each."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.__main__ import inject, line
from tests.faults.run import Scale
from tests.faults.table import FAULTS

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("name", FAULTS)
async def test_what_a_fault_may_cost_at_most(name: str, tmp_path: Path) -> None:
    """Every figure is within its bound."""
    run = await inject(name, Scale(is_short=True), tmp_path)
    assert run.check.holds, "\n".join([line(name, run), *run.check.notes])
