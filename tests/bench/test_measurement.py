from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.workload import WORKLOADS, user_id
from tests.support.require import require

ROOT = Path(__file__).parents[2]


def test_a_short_measurement_runs_to_its_end() -> None:
    """`make bench` must not rot: nginx and the relay, for a moment, with every check of the answers."""
    require("wrk")
    require("nginx")
    if os.cpu_count() == 1:
        pytest.skip("the measurement needs two cores")
    argv = [sys.executable, "-m", "tests.bench", "--peers", "nginx", "relay", "--short", "--no-save"]
    argv += ["--workloads", "small-get-new-lines", "tls"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "left out: relay passes on bytes" in done.stdout


def test_the_request_has_nine_fields_and_its_user() -> None:
    """The issue's workload: a small GET with nine browser headers, split by cookie."""
    workload = WORKLOADS["small-get"]
    head = workload.request("anna")
    assert head.count(b"\r\n") == 1 + 9 + 1
    assert b"uid=anna;" in head
    assert WORKLOADS["small-get-new-lines"].request("anna").count(b"anna") == 2
    assert {len(body) for body in workload.answers().values()} == {workload.answer_bytes}


def test_requests_are_as_big_as_the_page_says() -> None:
    """40 header fields with 4 KiB of cookies; a body of 4 KiB; one connection a request."""
    head = WORKLOADS["big-headers"].head("anna")
    assert head.count(b"\r\n") == 1 + 40 + 1
    assert 4096 <= len(head.partition(b"Cookie: ")[2]) <= 4300
    assert WORKLOADS["post-4k"].request("anna").partition(b"\r\n\r\n")[2] == b"b" * 4096
    assert b"Connection: close\r\n" in WORKLOADS["new-connection"].request("anna")


def test_ids_begin_with_evenly_spread_digits() -> None:
    """Caddy's split reads the first two digits; whoever hashes gets the same shares anyway."""
    first = [int(user_id(number)[:2], 16) for number in range(10_000)]
    assert abs(sum(digit < 64 for digit in first) / len(first) - 0.25) < 0.01
