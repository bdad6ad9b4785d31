"""The generator of closed loops: wrk, one thread."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.bench.client import TIMEOUT_S, Door, WrongAnswerError
from tests.bench.process import OTHER_CORE
from tests.support.require import find

SCRIPT = Path(__file__).with_name("users.lua")


@dataclass(frozen=True, slots=True)
class Load:
    """One run of the generator: times in microseconds; faults are connects, reads, writes, status codes, time-outs."""

    requests: int
    bytes: int
    duration_us: int
    p50_us: int
    p99_us: int
    faults: int


def generate(door: Door, seconds: int, folder: Path, is_strict: bool = True) -> Load:
    """Send as much as the peer takes.

    Args:
        is_strict: A fault is an error; else it is counted.

    Raises:
        WrongAnswerError: Any fault, no answer at all, or fewer bytes than so many answers have.
    """
    workload = door.workload
    template = folder / "request"
    template.write_bytes(workload.request())
    url = f"http{'s' if door.tls else ''}://127.0.0.1:{door.port}"
    argv = ["taskset", "-c", str(OTHER_CORE), find("wrk"), "-t1", f"-c{workload.connections}", f"-d{seconds}s"]
    argv += [f"--timeout={TIMEOUT_S:.0f}s", "-s", str(SCRIPT), url, "--", str(template), str(workload.users)]
    done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True, timeout=seconds + 60)
    load = Load(**json.loads(done.stdout.strip().splitlines()[-1]))
    if (is_strict and load.faults) or not load.requests:
        raise WrongAnswerError(f"{load.faults} faults in {load.requests} requests:\n{done.stdout}")
    if load.bytes < load.requests * workload.answer_bytes:
        raise WrongAnswerError(f"{load.requests} answers of {workload.answer_bytes} bytes, but {load.bytes} in all")
    return load
