"""What a request costs that passes a proxy: ours beside others, all doing the same per-user split.

Each peer runs on core 0 with one worker; generator and backends share core 1. Rounds are interleaved (A B C, A B C),
so that what changes on the machine changes for all, and ratios are taken within a round. Each workload's results are
written when it ends; --resume goes on with those that were not measured at this commit.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

from tests.bench import kinds, results
from tests.bench.peers import PEERS, Cohort, Direct, Peer
from tests.bench.process import OTHER_CORE, PROXY_CORE, busy_ns, raise_descriptors
from tests.bench.stage import Entrant, Running, Stage
from tests.bench.tables import print_bounds, print_results
from tests.bench.workload import WORKLOADS, Variant, Workload

START_S = 1.5  # of a peer, with the check of what it does


def main() -> int:
    """Measure, print tables, write the result files.

    Returns:
        1 if anything could not be measured.
    """
    options = _options()
    if not {PROXY_CORE, OTHER_CORE} <= os.sched_getaffinity(0):
        sys.exit("the measurement needs cores 0 and 1: one for the proxy, one for generator and backends")
    os.sched_setaffinity(0, {OTHER_CORE})  # what this process does must not disturb the proxy
    raise_descriptors()
    commit = results.commit()
    peers = [PEERS[name] for name in options.peers]
    peers += [Cohort("before", options.before)] if options.before else []
    todo = [_shortened(WORKLOADS[name], options) for name in options.workloads]
    if options.resume:
        todo = [workload for workload in todo if results.saved(workload.name).get("commit") != commit]
    failed: dict[str, str] = {}
    for index, workload in enumerate(todo):
        left_s = sum(_estimate_s(one, peers) for one in todo[index:])
        print(f"[{index + 1}/{len(todo)}] {workload.name}; about {left_s / 60:.0f} min left", flush=True)
        try:
            failed |= _measure(workload, peers, commit, options.save)
        except Exception as error:  # one workload must not lose the others
            failed[workload.name] = f"{type(error).__name__}: {error}"
    print_bounds()
    for name, reason in failed.items():
        print(f"FAILED {name}: {reason}", file=sys.stderr)
    return 1 if failed else 0


def _shortened(workload: Workload, options: argparse.Namespace) -> Workload:
    rounds = options.rounds or (1 if options.short else workload.rounds)
    return replace(workload, rounds=rounds, seconds=options.seconds or (1 if options.short else workload.seconds))


def _entrants(workload: Workload, peers: list[Peer]) -> tuple[list[Entrant], dict[str, str]]:
    """Who is measured, and who is not for which reason."""
    found = [Entrant(Direct(), Variant())] if kinds.KINDS[workload.kind].has_direct else []
    left_out: dict[str, str] = {}
    for peer in peers:
        if workload.only and peer.name not in workload.only:
            continue
        if reasons := [reason for need in workload.needs if (reason := peer.lacks(need))]:
            left_out[peer.name] = reasons[0]
        else:
            found += [Entrant(peer, variant) for variant in workload.variants]
    return found, left_out


def _estimate_s(workload: Workload, peers: list[Peer]) -> float:
    kind = kinds.KINDS[workload.kind]
    entrants, _ = _entrants(workload, peers)
    starts = workload.rounds if kind.starts_anew else 1
    return len(entrants) * (starts * START_S + workload.rounds * (workload.seconds + kind.fixed_s))


def _measure(workload: Workload, peers: list[Peer], commit: str, save: bool) -> dict[str, str]:
    """One workload.

    Returns:
        What failed: an entrant's error ends its part, and the others go on.
    """
    kind = kinds.KINDS[workload.kind]
    entrants, left_out = _entrants(workload, peers)
    measurements: list[results.Measurement] = []
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="cohort-bench-") as folder, contextlib.ExitStack() as stack:
        stage = Stage(workload, Path(folder), stack)
        stage.open()
        ready: dict[str, Running | Entrant] = {}
        for entrant in entrants:
            with _noted(failed, entrant.name):
                ready[entrant.name] = entrant if kind.starts_anew else stage.start(entrant)
        running = [one for one in ready.values() if isinstance(one, Running)]
        prepared = dict(kind.prepare(stage, running)) if kind.prepare else {}
        began, used = busy_ns(PROXY_CORE), sum(one.cpu_ns() for one in running)
        began_at = time.monotonic_ns()
        for number in range(1, workload.rounds + 1):
            for name, one in ready.items():
                if name not in failed:
                    with _noted(failed, name):
                        figures = kind.measure(stage, one, kinds.Round(number, workload.seconds, prepared))
                        measurements.append(results.Measurement(number, name, figures))
            print(f"  round {number} of {workload.rounds}, {time.strftime('%H:%M:%S')}", flush=True)
        ours = sum(one.cpu_ns() for one in running) - used
        others = (busy_ns(PROXY_CORE) - began - ours) / (time.monotonic_ns() - began_at)
    facts = {
        "name": workload.name,
        "date": results.now(),
        "commit": commit,
        "machine": results.machine(),
        "versions": {peer.name: peer.version() for peer in {one.peer.name: one.peer for one in entrants}.values()},
        "commands": {one.name: one.command for one in running},
        "workload": asdict(workload),
        "left_out": left_out | {name: f"failed: {reason}" for name, reason in failed.items()},
        "prepared": prepared,
        "others": None if kind.starts_anew else round(max(others, 0.0), 3),
    }
    measurements = [one for one in measurements if one.entrant not in failed]
    if measurements:
        print_results(workload, results.summary(measurements), facts["left_out"])
        if save:
            print(results.save(facts, measurements), flush=True)
    return {f"{workload.name}, {name}": reason for name, reason in failed.items()}


@contextlib.contextmanager
def _noted(failed: dict[str, str], name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # told at the end, in the result and by the exit code
        failed[name] = f"{type(error).__name__}: {error}"
        print(f"  {name}: {failed[name]}", file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "--workloads",
        nargs="+",
        choices=WORKLOADS,
        default=list(WORKLOADS),
        metavar="WORKLOAD",
        help=", ".join(WORKLOADS),
    )
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS), metavar="PEER", help=", ".join(PEERS))
    parser.add_argument(
        "--before",
        type=lambda path: Path(path).resolve(),
        metavar="CHECKOUT",
        help="another checkout of cohort, set up, to measure beside this one",
    )
    parser.add_argument("--rounds", type=int, help="each workload has a number of its own")
    parser.add_argument("--seconds", type=int, help="of load a round and peer")
    parser.add_argument("--short", action="store_true", help="one round of one second: shows that it runs")
    parser.add_argument("--resume", action="store_true", help="only what has no result of this commit")
    parser.add_argument("--no-save", dest="save", action="store_false", help="print only")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
