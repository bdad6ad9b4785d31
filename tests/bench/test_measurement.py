from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.workload import WORKLOADS
from tests.support.require import require

ROOT = Path(__file__).parents[2]


def test_a_short_measurement_runs_to_its_end() -> None:
    """`make bench` must not rot: nginx alone, for a moment, with every check of the answers."""
    require("wrk")
    require("nginx")
    if os.cpu_count() == 1:
        pytest.skip("the measurement needs two cores")
    argv = [sys.executable, "-m", "tests.bench", "--peers", "nginx", "--rounds", "1", "--seconds", "1"]
    argv += ["--workloads", "small-get-new-lines", "--no-save"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "nginx" in done.stdout


def test_the_request_has_nine_fields_and_its_user() -> None:
    """The issue's workload: a small GET with nine browser headers, split by cookie."""
    workload = WORKLOADS["small-get"]
    head = workload.request("anna")
    assert head.count(b"\r\n") == 1 + 9 + 1
    assert b"uid=anna;" in head
    assert WORKLOADS["small-get-new-lines"].request("anna").count(b"anna") == 2
    assert {len(body) for body in workload.answers().values()} == {workload.answer_bytes}
    assert dataclasses.replace(workload, users=1).users == 1
