from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.change import changes
from tests.bench.client import WrongAnswerError, check
from tests.bench.idle import waiting
from tests.bench.peers import PEERS
from tests.bench.stage import Entrant, Stage
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


def test_a_measured_change_is_seen_by_its_prober(tmp_path: Path) -> None:
    """The share goes up, down and to nothing; each time the prober sees the last answer of before."""
    require("nginx")
    with contextlib.ExitStack() as stack:
        stage = Stage(WORKLOADS["change"], tmp_path, stack)
        stage.open()
        running = stage.start(Entrant(PEERS["cohort"], stage.workload.variants[0]))
        times = changes(running.door, running.peer, running.job, running.pid)
        assert 0 <= times["change_ms"] <= times["slowest_ms"]
        assert times["abort_ms"] >= 0
        check(running.door)


def test_waiting_connections_are_held_to_the_end(tmp_path: Path) -> None:
    """A proxy that closes idle connections would look as if they cost nothing."""
    require("nginx")
    with contextlib.ExitStack() as stack:
        stage = Stage(WORKLOADS["idle-1000"], tmp_path, stack)
        stage.open()
        with waiting(stage.direct, 20) as sockets:
            assert len(sockets) == 20
        with pytest.raises(WrongAnswerError, match="closed"), waiting(stage.direct, 20) as sockets:
            sockets[7].shutdown(socket.SHUT_RDWR)


def test_echoes_are_compared(tmp_path: Path) -> None:
    """The client of the WebSocket workload with its service, nothing between them."""
    with contextlib.ExitStack() as stack:
        stage = Stage(WORKLOADS["websocket"], tmp_path, stack)
        stage.open()
        argv = [sys.executable, "-m", "tests.bench.programs.echo_client", str(stage.ports["stable"]), "4", "0.5"]
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60)
        said = json.loads(done.stdout)
        assert said["faults"] == []
        assert stage.counts().requests > said["messages"] > 0


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
