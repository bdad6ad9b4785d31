"""Where a worker's time goes under the small GET: stacks taken by py-spy, in C and Python alike, sorted into phases.

What a phase costs is its share of the stacks times the CPU time of a request, which is measured before, because taking
stacks stops the worker each time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxy.net import compiled
from tests.bench import results, wrk
from tests.bench.peers import PEERS
from tests.bench.peers.job import VENV
from tests.bench.process import tree
from tests.bench.render import PROFILE
from tests.bench.stage import Entrant, Running, Stage
from tests.bench.workload import WORKLOADS, Variant

FOLDER = Path(__file__).parents[2] / "profile"
WORKLOAD = "small-get"
RATE = 200  # stacks a second; each stops the worker for a millisecond
WARM_UP_S = 1
MARGIN_S = 3  # of load around the taking of stacks


@dataclass(frozen=True, slots=True)
class Phase:
    """One part of a request's way.

    Attributes:
        modules: Of this package, by their last names: a stack belongs to the innermost one that is in a phase.
        calls: Of the system; they come before modules.
    """

    name: str
    about: str
    modules: frozenset[str] = frozenset()
    calls: frozenset[str] = frozenset()


PHASES = (
    Phase("send", "The kernel takes what is written and hands it to the other side.",
          calls=frozenset(("write", "writev", "send", "sendmsg", "__send", "__libc_write"))),
    Phase("receive", "The kernel hands over what has come.",
          calls=frozenset(("read", "recv", "recvmsg", "__recv", "__libc_read"))),
    Phase("poll", "The kernel says which connections have something, many at once.",
          calls=frozenset(("epoll_pwait", "epoll_wait", "epoll_ctl", "io_uring_enter", "syscall"))),
    Phase("read heads", "Where a head ends, what it says, for request and answer; known lines are looked up.",
          frozenset(("head", "http1", "memo", "grammar", "target", "websocket"))),
    Phase("decide", "The user's key, the bucket, routes: which version.",
          frozenset(("decide", "identity", "facts", "route", "assign", "cookie", "preview", "baggage"))),
    Phase("write heads", "Both heads as they go on.", frozenset(("forward",))),
    Phase("account", "Counters, histograms, distinct users, the log.",
          frozenset(("counters", "region", "sketch", "server", "accesslog"))),
    Phase("exchange", "Connections, their pool, and the state of the exchange.",
          frozenset(("downstream", "upstream", "relay", "exchange", "pool", "view", "body", "standing"))),
)  # fmt: skip
LOOP = Phase("event loop", "uvloop and libuv: from the kernel's news to our methods, and back.")
_OURS = re.compile(r"CPy(?:Def|Py)_(\w+?)___|\(proxy/(?:net/)?(\w+)\.py")
_IDLE = re.compile(r"^Thread\.|;Thread\.")  # other threads wait for something to write


def phase_of(stack: str) -> Phase:
    """Which phase a stack belongs to: frames from the outermost to the innermost, with ``;`` between."""
    frames = stack.split(";")
    call = frames[-1].split(" ")[0]
    for phase in PHASES:
        if call in phase.calls:
            return phase
    for frame in reversed(frames):
        found = _OURS.match(frame) or _OURS.search(frame)
        name = (found[1] or found[2]) if found else ""
        for phase in PHASES:
            if name in phase.modules:
                return phase
    return LOOP


def shares(lines: Iterable[str]) -> dict[str, float]:
    """Each phase's share, by its name, of stacks as py-spy's ``raw`` has them: the stack, a blank, how often."""
    counts: Counter[str] = Counter()
    for line in lines:
        stack, _, count = line.rstrip().rpartition(" ")
        if not _IDLE.search(stack):
            counts[phase_of(stack).name] += int(count)
    return {phase.name: counts[phase.name] / counts.total() for phase in (*PHASES, LOOP)}


def main() -> None:
    """Take the profile, print and keep it."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.profile", description=__doc__)
    parser.add_argument("--seconds", type=int, default=10, help="of stacks, twice: for the phases and for the graph")
    parser.add_argument("--no-save", action="store_true", help="print only; the graph is written in any case")
    options = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="cohort-profile-") as folder, contextlib.ExitStack() as stack:
        stage = Stage(WORKLOADS[WORKLOAD], Path(folder), stack)
        stage.open()
        running = stage.start(Entrant(PEERS["cohort"], Variant()))
        cpu_us = _cpu_us(running, options.seconds, Path(folder))
        _record(running, options.seconds, Path(folder), FOLDER / "stacks.txt", "raw")
        _record(running, options.seconds, Path(folder), FOLDER / "flame.svg", "flamegraph")
    found = shares((FOLDER / "stacks.txt").read_text().splitlines())
    document = _document(found, cpu_us, options.seconds)
    for phase in document["phases"]:
        print(f"{phase['us']:5.1f} us  {found[phase['name']]:4.0%}  {phase['name']}: {phase['about']}")
    print(f"{cpu_us:5.1f} us in all; every stack: {FOLDER / 'flame.svg'}")
    if not options.no_save:
        PROFILE.write_text(json.dumps(document, indent=2) + "\n")


def _cpu_us(running: Running, seconds: int, folder: Path) -> float:
    """CPU microseconds a request, with nobody looking."""
    wrk.generate(running.door, WARM_UP_S, folder)
    before = running.cpu_ns()
    load = wrk.generate(running.door, seconds, folder)
    return (running.cpu_ns() - before) / 1000 / load.requests


def _record(running: Running, seconds: int, folder: Path, output: Path, form: str) -> None:
    """Take stacks of the worker under load."""
    worker = tree(running.pid)[-1]
    argv = [str(VENV / "py-spy"), "record", "--native", "--rate", str(RATE), "--duration", str(seconds)]
    command = [*argv, "--format", form, "--output", str(output), "--pid", str(worker)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as spy:
        wrk.generate(running.door, seconds + MARGIN_S, folder)
        _, said = spy.communicate(timeout=60)
    if spy.returncode:
        raise SystemExit(f"py-spy could not look at the worker, which needs root or ptrace_scope 0:\n{said}")


def _document(found: dict[str, float], cpu_us: float, seconds: int) -> dict[str, Any]:
    machine = results.machine()
    built = "compiled" if compiled.folder().is_dir() else "not compiled"
    return {
        "date": results.now(),
        "commit": results.commit(),
        "about": f"The small GET, {cpu_us:.1f} us of CPU time a request, {built}; stacks of {seconds} s under full "
        f"load by py-spy, {RATE} a second. {machine['cpu']}, {machine['cores']} cores, Python {machine['python']}. "
        "`make profile` takes it anew and writes a flame graph.",
        "phases": [
            {"name": phase.name, "us": round(found[phase.name] * cpu_us, 2), "about": phase.about}
            for phase in (*PHASES, LOOP)
        ],
    }


if __name__ == "__main__":
    main()
