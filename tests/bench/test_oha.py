from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench import oha
from tests.bench.client import WrongAnswerError

TIMES = {"p50": 0.0005, "p99": 0.002, "p99.9": 0.003}


def test_times_are_read_as_oha_writes_them() -> None:
    """Seconds become microseconds; requests under way when the time was up are no errors."""
    said = {
        "statusCodeDistribution": {"200": 10},
        "errorDistribution": {"aborted due to deadline": 3},
        "latencyPercentiles": TIMES,
    }
    assert oha._read(said) == oha.Latency(10, 500, 2000, 3000)


@pytest.mark.parametrize(
    ("codes", "errors"),
    [({"200": 10, "503": 1}, {}), ({"200": 10}, {"connection reset": 1}), ({}, {})],
    ids=["status", "error", "nothing"],
)
def test_anything_else_fails_the_run(codes: dict[str, float], errors: dict[str, float]) -> None:
    """A proxy that refuses is fast."""
    with pytest.raises(WrongAnswerError):
        oha._read({"statusCodeDistribution": codes, "errorDistribution": errors, "latencyPercentiles": TIMES})


def test_without_cargo_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only the latency workload needs it; whoever runs that must know what to install."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(oha, "CARGO", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="Rust's tools"):
        oha.program()
