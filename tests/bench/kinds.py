"""How each kind of workload is measured: what one peer did in one round, as figures by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.bench import client, wrk
from tests.bench.client import WrongAnswerError
from tests.bench.stage import Running, Stage

WARM_UP_S = 1
Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Round:
    """What is asked of a round: its number, from 1, and how long it may load."""

    number: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to measure.

    Attributes:
        measure: One entrant in one round.
        prepare: Once, before the first round; what it returns is kept with the results.
        starts_anew: `measure` starts the peer itself, each time.
        fixed_s: A round's time beside the load, for the estimate.
    """

    measure: Callable[[Stage, Any, Round], Figures]
    prepare: Callable[[Stage, list[Running]], Mapping[str, Any]] | None = None
    starts_anew: bool = False
    fixed_s: float = 0.8


def load(stage: Stage, running: Running, this: Round) -> Figures:
    """As many requests as it takes, from wrk."""
    if this.number == 1:
        wrk.generate(running.door, WARM_UP_S, stage.folder)
    before, used = stage.counts(), running.cpu_ns()
    with client.watched(running.door) as watch:
        run = wrk.generate(running.door, this.seconds, stage.folder)
    used, after = running.cpu_ns() - used, stage.counts()
    client.check(running.door)
    requests = run.requests + watch.asked
    _compare(stage, running, requests, after.requests - before.requests, after.connections - before.connections)
    duration_s = run.duration_us / 1e6
    return {
        "cpu_us": used / 1e3 / requests,
        "requests_per_s": run.requests / duration_s,
        "core_used": used / 1e9 / duration_s,
        "p50_us": run.p50_us,
        "p99_us": run.p99_us,
    }


def _compare(stage: Stage, running: Running, requests: int, answered: int, connected: int) -> None:
    """Whether the backends gave all those answers, over connections that were kept.

    Raises:
        WrongAnswerError: They did not.
    """
    if answered < requests:
        raise WrongAnswerError(f"{running.name}: {requests} answers, but the backends gave {answered}")
    if running.door.splits and connected > requests / 10 + 2 * stage.workload.connections:
        raise WrongAnswerError(f"{running.name}: {connected} connections to the backends for {requests} requests")


KINDS: dict[str, Kind] = {"load": Kind(load)}
