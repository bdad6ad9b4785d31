"""Whether a small GET still costs no more than recorded, beside two proxies that do not change: for CI.

A machine that does other things makes every figure worse, ratios less so, the best rounds least. So a ratio counts as
worse only if the median of the rounds' ratios says so and the ratio of the cheapest rounds as well, twice.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench import kinds
from tests.bench.bounds import Bound, bounds
from tests.bench.peers import PEERS
from tests.bench.results import SUBJECT
from tests.bench.stage import Entrant, Stage
from tests.bench.workload import WORKLOADS, Variant

ROUNDS = (5, 9)  # of the first attempt, and of the one that decides
SECONDS = 1


@dataclass(frozen=True, slots=True)
class Ratio:
    """Of the subject's cost to another's: the rounds' median, and that of the cheapest rounds."""

    median: float
    least: float

    def is_within(self, bound: Bound) -> bool:
        """Whether one of the two is."""
        return bound.is_met(min(self.median, self.least))


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """From the costs of the same rounds."""
    each = [one / other for one, other in zip(ours, theirs, strict=True)]
    return Ratio(statistics.median(each), min(ours) / min(theirs))


def measure(peers: Sequence[str], rounds: int) -> dict[str, list[float]]:
    """CPU microseconds of a small GET by peer, a round each; rounds are interleaved."""
    costs: dict[str, list[float]] = {name: [] for name in peers}
    with tempfile.TemporaryDirectory(prefix="cohort-guard-") as folder, contextlib.ExitStack() as stack:
        stage = Stage(WORKLOADS["small-get"], Path(folder), stack)
        stage.open()
        running = [stage.start(Entrant(PEERS[name], Variant())) for name in peers]
        for number in range(1, rounds + 1):
            for one in running:
                costs[one.name].append(kinds.load(stage, one, kinds.Round(number, SECONDS, {}))["cpu_us"])
    return costs


def worse(recorded: Sequence[Bound], rounds: int) -> list[str]:
    """What is beyond its bound in one measurement."""
    costs = measure([SUBJECT, *(bound.to for bound in recorded)], rounds)
    found = []
    for bound in recorded:
        got = ratio(costs[SUBJECT], costs[bound.to])
        if not got.is_within(bound):
            found.append(
                f"{bound.of} : {bound.to} is {got.median:.2f}, cheapest rounds {got.least:.2f}, {bound.text()}"
            )
    return found


def check() -> list[str]:
    """What is beyond its bound in two measurements, the second one longer; empty: nothing."""
    recorded = bounds("guard")
    return worse(recorded, ROUNDS[0]) and worse(recorded, ROUNDS[1])
