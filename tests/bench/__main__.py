"""CPU time that a proxy takes for one request, ours beside others, all doing the same per-user split.

Each peer runs on core 0 with one worker; generator and backends share core 1. Rounds are interleaved (A B C, A B C),
so that what changes on the machine changes for all, and ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench import backend, load, results
from tests.bench.peers import PEERS, Cohort, Job, Peer
from tests.bench.process import OTHER_CORE, PROXY_CORE, cpu_ns, running, wait_until
from tests.bench.workload import WORKLOADS, Workload

WARM_UP_S = 1


def main() -> None:
    """Measure, print a table, write the result file."""
    options = _options()
    if not {PROXY_CORE, OTHER_CORE} <= os.sched_getaffinity(0):
        sys.exit("the measurement needs cores 0 and 1: one for the proxy, one for generator and backends")
    for name in options.workloads:
        peers = [PEERS[peer] for peer in options.peers]
        peers += [Cohort("before", options.before)] if options.before else []
        _measure(WORKLOADS[name], peers, options)


def _measure(workload: Workload, peers: list[Peer], options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="cohort-bench-") as folder, contextlib.ExitStack() as stack:
        bench = _Bench(workload, Path(folder), stack)
        commands = {peer.name: bench.start(peer) for peer in peers}
        measurements = [
            bench.measure(peer, number, options.seconds) for number in range(1, options.rounds + 1) for peer in peers
        ]
    facts = {
        "name": workload.name,
        "date": results.now(),
        "commit": results.commit(),
        "machine": results.machine(),
        "versions": {peer.name: peer.version() for peer in peers},
        "commands": commands,
        "workload": asdict(workload),
        "rounds": options.rounds,
        "seconds": options.seconds,
    }
    _print(workload.name, results.summary(measurements), measurements)
    if options.save:
        print(results.save(workload.name, facts, measurements))


class _Bench:
    """Backends and peers that run until the stack is closed."""

    def __init__(self, workload: Workload, folder: Path, stack: contextlib.ExitStack) -> None:
        self.workload, self.folder, self.stack = workload, folder, stack
        self.ports = {arm: _free_port() for arm in workload.answers()}
        self.status_port = _free_port()
        self.running: dict[str, tuple[int, int]] = {}
        home = self._home("backend")
        argv = backend.backend_command(home, self.ports, self.status_port, workload)
        stack.enter_context(running(argv, OTHER_CORE, home / "log"))
        wait_until(lambda: load.answers(workload, self.ports["stable"]), "the backend", home / "log")

    def start(self, peer: Peer) -> str:
        """Start a peer, see that it does the job, and return its command line."""
        home, port = self._home(peer.name), _free_port()
        argv = peer.command(Job(home, port, self.ports, self.workload.canary_percent))
        process = self.stack.enter_context(running(argv, PROXY_CORE, home / "log"))
        wait_until(lambda: load.answers(self.workload, port), peer.name, home / "log")
        share = load.check(self.workload, port)
        print(f"{peer.name}: {peer.version()}, {share:.1%} of the sampled users on the canary")
        self.running[peer.name] = (process.pid, port)
        return " ".join([Path(argv[0]).name, *argv[1:]]).replace(str(self.folder) + "/", "")

    def measure(self, peer: Peer, number: int, seconds: int) -> results.Measurement:
        """One peer in one round, warm."""
        pid, port = self.running[peer.name]
        load.generate(self.workload, port, WARM_UP_S, self.folder)
        answered, used = backend.requests_answered(self.status_port), cpu_ns(pid)
        run = load.generate(self.workload, port, seconds, self.folder)
        used, answered = cpu_ns(pid) - used, backend.requests_answered(self.status_port) - answered
        if answered < run.requests:
            raise load.WrongAnswerError(f"{peer.name}: {run.requests} answers, but the backends gave {answered}")
        load.check(self.workload, port)
        duration_s = run.duration_us / 1e6
        return results.Measurement(
            round=number,
            peer=peer.name,
            cpu_us=round(used / 1e3 / run.requests, 3),
            requests=run.requests,
            requests_per_s=round(run.requests / duration_s, 1),
            core_used=round(used / 1e9 / duration_s, 3),
            p50_us=run.p50_us,
            p99_us=run.p99_us,
        )

    def _home(self, name: str) -> Path:
        home = self.folder / name
        home.mkdir()
        return home


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
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=4, help="of load a round and peer, after one to warm up")
    parser.add_argument("--no-save", dest="save", action="store_false", help="print only")
    return parser.parse_args()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _print(title: str, summary: dict[str, Any], measurements: list[results.Measurement]) -> None:
    table = Table(
        "proxy", "CPU us/request", "spread", "requests/s", "core used", f"{results.SUBJECT} : it", "spread", title=title
    )
    for peer, cost in summary["cpu_us"].items():
        own = [one for one in measurements if one.peer == peer]
        ratio = summary["ratio"].get(peer)
        table.add_row(
            peer,
            f"{cost['median']:.2f}",
            f"{cost['low']:.2f}-{cost['high']:.2f}",
            f"{results.spread([one.requests_per_s for one in own])['median']:.0f}",
            f"{results.spread([one.core_used for one in own])['median']:.0%}",
            f"{ratio['median']:.3f}" if ratio else "",
            f"{ratio['low']:.3f}-{ratio['high']:.3f}" if ratio else "",
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
