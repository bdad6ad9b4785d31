"""How each kind of workload is measured: what one entrant did in one round, as figures by name."""

from __future__ import annotations

import contextlib
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from tests.bench import client, idle, oha, wrk
from tests.bench.change import changes
from tests.bench.client import WrongAnswerError
from tests.bench.process import OTHER_CORE, ROOT, memory_kib
from tests.bench.results import SUBJECT
from tests.bench.stage import Entrant, Running, Stage

WARM_UP_S = 1
SETTLE_S = 1.0  # until timers that free memory have run
HIGHEST_RATE = (
    6_000  # of the open loop: beyond it the generator, which shares a core with the services, is what is measured
)
KEPT_FREE = 600  # descriptors for all that is no client's or service's connection
Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Round:
    """What is asked of a round.

    Attributes:
        number: From 1.
        seconds: How long it may load.
        prepared: What `Kind.prepare` returned.
    """

    number: int
    seconds: int
    prepared: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to measure.

    Attributes:
        measure: One entrant in one round.
        prepare: Once, before the first round; what it returns is kept with the results.
        starts_anew: `measure` starts the peer itself, each time.
        has_direct: The service itself is measured beside the proxies.
        fixed_s: A round's time beside the load, for the estimate.
    """

    measure: Callable[[Stage, Any, Round], Figures]
    prepare: Callable[[Stage, list[Running]], Mapping[str, Any]] | None = None
    starts_anew: bool = False
    has_direct: bool = False
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


def half_load(stage: Stage, running: list[Running]) -> Figures:
    """Half of what the subject takes, as requests a second, for all; it is measured right before."""
    oha.program()  # is built before anything is measured
    first = next((one for one in running if one.name == SUBJECT), running[0])
    most = wrk.generate(first.door, 2 * WARM_UP_S, stage.folder)
    half = most.requests / (most.duration_us / 1e6) / 2
    return {"rate": min(HIGHEST_RATE, int(half / 100) * 100)}


def latency(stage: Stage, running: Running, this: Round) -> Figures:
    """So many requests a second as were prepared, from oha."""
    rate, connections = this.prepared["rate"], stage.workload.connections
    if this.number == 1:
        oha.generate(running.door, WARM_UP_S, rate, connections)
    used = running.cpu_ns()
    with client.watched(running.door) as watch:
        run = oha.generate(running.door, this.seconds, rate, connections)
    used = running.cpu_ns() - used
    return {
        "p99_us": run.p99_us,
        "p50_us": run.p50_us,
        "p999_us": run.p999_us,
        "reached": run.answered / this.seconds / rate,
        "cpu_us": used / 1e3 / (run.answered + watch.asked),
    }


def room(stage: Stage, running: list[Running]) -> Figures:
    """How many connections fit below the limit of open files: ours keeps room for a service's beside each client's."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return {"connections": min(stage.workload.connections, (most - KEPT_FREE) // 2 // 100 * 100)}


def memory(stage: Stage, entrant: Entrant, this: Round) -> Figures:
    """What waiting connections add to a peer that has just started and warmed up."""
    with contextlib.ExitStack() as stack:
        running = stage.start(entrant, stack)
        door = replace(running.door, workload=replace(stage.workload, connections=1))
        wrk.generate(door, WARM_UP_S, stage.folder)  # what is remembered of users and header lines is no connection's
        time.sleep(SETTLE_S)
        before, number = memory_kib(running.pid), this.prepared["connections"]
        with idle.waiting(door, number):
            time.sleep(SETTLE_S)
            after = memory_kib(running.pid)
    return {"kib": (after - before) / number, "before_mib": before / 1024, "after_mib": after / 1024}


def echo(stage: Stage, running: Running, this: Round) -> Figures:
    """Messages there and back over WebSocket connections."""
    argv = ["taskset", "-c", str(OTHER_CORE), sys.executable, "-m", "tests.bench.programs.echo_client"]
    argv += [str(running.door.port), str(stage.workload.connections), str(this.seconds)]
    before, used = stage.counts(), running.cpu_ns()
    done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True, timeout=this.seconds + 60, cwd=ROOT)
    used, after = running.cpu_ns() - used, stage.counts()
    said = json.loads(done.stdout)
    if said["faults"] or not said["messages"]:
        raise WrongAnswerError(f"{running.name}: {said['messages']} messages, {said['faults'][:3]}")
    echoed = after.requests - before.requests
    if echoed < said["messages"]:
        raise WrongAnswerError(f"{running.name}: {said['messages']} echoes, but the services gave {echoed}")
    return {
        "cpu_us": used / 1e3 / echoed,
        "messages_per_s": said["messages"] / said["duration_s"],
        "p99_us": said["p99_us"],
    }


def change(stage: Stage, running: Running, this: Round) -> Figures:
    """Other shares and an abort while wrk loads; CPU time is not counted, because some peers change their processes."""
    if this.number == 1:
        wrk.generate(running.door, WARM_UP_S, stage.folder)
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(wrk.generate, running.door, this.seconds, stage.folder, is_strict=False)
        time.sleep(0.3)  # until the load is there
        times = changes(running.door, running.peer, running.job, running.pid)
        run = loading.result()
    client.check(running.door)
    return {
        **times,
        "faults": run.faults,
        "requests_per_s": run.requests / (run.duration_us / 1e6),
        "p99_us": run.p99_us,
    }


KINDS: dict[str, Kind] = {
    "load": Kind(load),
    "latency": Kind(latency, half_load, has_direct=True),
    "memory": Kind(memory, room, starts_anew=True, fixed_s=6),
    "echo": Kind(echo),
    "change": Kind(change, fixed_s=2),
}
