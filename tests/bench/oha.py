"""The generator of open loops: oha, which counts a request's time from when it should have been sent.

A closed loop stops asking while a proxy stalls, and so leaves out the very times that users notice (coordinated
omission). oha comes from crates.io and is built once, for the latency workload alone.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.bench.client import Door, WrongAnswerError
from tests.bench.process import OTHER_CORE
from tests.bench.workload import USER, user_id

VERSION = "1.16.0"
CARGO = os.pathsep.join((os.environ.get("PATH", os.defpath), str(Path.home() / ".cargo/bin")))


@dataclass(frozen=True, slots=True)
class Latency:
    """One run: requests that were answered, and times in microseconds."""

    answered: int
    p50_us: float
    p99_us: float
    p999_us: float


def folder() -> Path:
    """Where it is kept between runs, outside any checkout."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "cohort/bench", f"oha-{VERSION}")


def program() -> str:
    """The path of oha, which is built if it is not there: three minutes.

    Raises:
        FileNotFoundError: It is not, and there is nothing to build it with.
        RuntimeError: It could not be built; the message ends with cargo's last words.
    """
    path = folder() / "bin/oha"
    if not path.exists():
        cargo = shutil.which("cargo", path=CARGO)
        if cargo is None:
            raise FileNotFoundError(f"cargo is not installed: oha {VERSION} is built with Rust's tools (rustup)")
        print(f"  building oha {VERSION} in {folder()}, about three minutes", flush=True)
        argv = ["nice", cargo, "install", "oha", "--version", VERSION, "--locked", "--root", str(folder())]
        cores = set(range(os.cpu_count() or 1))
        done = subprocess.run(
            argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=1800,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
        if done.returncode:
            raise RuntimeError(f"oha could not be built:\n{done.stdout[-2000:]}")
    return str(path)


def generate(door: Door, seconds: int, rate: int, connections: int) -> Latency:
    """Ask so often, whatever the answers do, as one user.

    Raises:
        WrongAnswerError: Any answer but 200, or none at all.
    """
    workload = door.workload
    argv = ["taskset", "-c", str(OTHER_CORE), program(), "--no-tui", "--worker-threads", "1", "--output-format", "json"]
    argv += ["-z", f"{seconds}s", "-q", str(rate), "--latency-correction", "-c", str(connections)]
    for name, value in workload.fields:
        if name != "Connection":
            argv += ["-H", f"{name}: {value.replace(USER, user_id(1))}"]
    argv += [f"http://127.0.0.1:{door.port}{workload.path}"]
    done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True, timeout=seconds + 60)
    return _read(json.loads(done.stdout))


def _read(said: dict[str, dict[str, float]]) -> Latency:
    codes, errors = said["statusCodeDistribution"], dict(said["errorDistribution"])
    errors.pop("aborted due to deadline", None)  # under way when the time was up
    if errors or set(codes) != {"200"}:
        raise WrongAnswerError(f"expected nothing but 200, got {codes}, {errors}")
    times = said["latencyPercentiles"]
    return Latency(int(codes["200"]), *(times[name] * 1e6 for name in ("p50", "p99", "p99.9")))
