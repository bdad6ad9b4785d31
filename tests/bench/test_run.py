from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.bench import __main__ as run
from tests.bench import kinds, results
from tests.bench.client import WrongAnswerError
from tests.bench.peers import PEERS
from tests.bench.stage import Running, Stage
from tests.bench.workload import WORKLOADS
from tests.support.require import require

TINY = replace(WORKLOADS["small-get"], rounds=2, seconds=0)


def wrong_from_relay(stage: Stage, running: Running, this: kinds.Round) -> kinds.Figures:
    """A measurement that finds wrong bytes in the second round of one peer."""
    if running.name == "relay" and this.number == 2:
        raise WrongAnswerError("expected a backend's bytes")
    return {"cpu_us": 10.0, "requests_per_s": 1.0, "core_used": 0.5}


def test_one_wrong_peer_does_not_lose_the_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is left out with its reason, what it measured does not count, and the command fails at its end."""
    require("nginx")
    monkeypatch.setitem(kinds.KINDS, "load", kinds.Kind(wrong_from_relay))
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    failed = run._measure(TINY, [PEERS["nginx"], PEERS["relay"]], "c0ffee", save=True)
    assert list(failed) == ["small-get, relay"]
    document = results.saved("small-get")
    assert document["commit"] == "c0ffee"
    assert {row["entrant"] for row in document["measurements"]} == {"nginx"}
    assert document["left_out"]["relay"].startswith("failed: WrongAnswerError")


def test_a_run_goes_on_where_it_was_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """--resume measures what has no result of this commit; a workload that cannot be measured loses no other."""
    measured: list[str] = []

    def measure(workload: Any, *more: Any) -> dict[str, str]:
        measured.append(workload.name)
        if workload.name == "tls":
            raise RuntimeError("the backend did not answer")
        return {}

    monkeypatch.setattr(run, "_measure", measure)
    monkeypatch.setattr(run, "raise_descriptors", lambda: 0)
    monkeypatch.setattr(results, "commit", lambda: "c0ffee")
    monkeypatch.setattr(results, "saved", lambda name: {"commit": "c0ffee"} if name == "chunked" else {})
    monkeypatch.setattr("sys.argv", ["bench", "--resume", "--no-save", "--workloads", "chunked", "tls", "post-4k"])
    with contextlib.ExitStack() as stack:
        stack.callback(run.os.sched_setaffinity, 0, run.os.sched_getaffinity(0))
        assert run.main() == 1
    assert measured == ["tls", "post-4k"]


def test_everything_asked_of_a_peer_is_answered_or_left_out() -> None:
    """Each workload has its subject, and everybody who is not in it has a reason."""
    for workload in WORKLOADS.values():
        entrants, left_out = run._entrants(workload, list(PEERS.values()))
        names = {entrant.peer.name for entrant in entrants}
        assert "cohort" in names
        assert workload.only or names | left_out.keys() >= PEERS.keys()
        assert all(left_out.values())
