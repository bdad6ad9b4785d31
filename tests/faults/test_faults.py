"""Each fault of the table, injected for seconds; `make faults` takes minutes for each."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.table import FAULTS

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
JOBS = 3  # most of a run is waiting
PATIENCE_S = 240.0


class Results:
    """What the faults' own command says of each, as it comes: several run at once, in a process of their own."""

    def __init__(self, names: list[str]) -> None:
        command = [sys.executable, "-m", "tests.faults", "--short", "--json", "--jobs", str(JOBS), *names]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        self._found: dict[str, Any] = {}
        self._news = threading.Condition()
        self._is_over = False
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._news:
                found = json.loads(line)
                self._found[found["id"]] = found
                self._news.notify_all()
        with self._news:
            self._is_over = True
            self._news.notify_all()

    def of(self, name: str) -> Any:
        with self._news:
            self._news.wait_for(lambda: name in self._found or self._is_over, PATIENCE_S)
            return self._found.get(name)

    def close(self) -> None:
        if self._process.poll() is None and not self._is_over:
            self._process.terminate()
        self._process.wait(30)
        self._reader.join(30)
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest) -> Iterator[Results]:
    """Of those faults that this session has tests of."""
    items = (item for item in request.session.items if item.path == Path(__file__))
    running = Results([item.callspec.params["name"] for item in items if hasattr(item, "callspec")])
    yield running
    running.close()


@pytest.mark.parametrize("name", FAULTS)
def test_what_a_fault_may_cost_at_most(name: str, results: Results) -> None:
    """Every figure is within its bound."""
    found = results.of(name)
    assert found is not None, "the command ended, or hangs, without a result"
    assert found["holds"], "\n".join([found["line"], *found["notes"]])
