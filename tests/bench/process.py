"""Programs pinned to a core, the CPU time that they have used and the memory that they hold."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PROXY_CORE = 0
OTHER_CORE = 1  # generator and backends
PROC = Path("/proc")
ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def running(argv: list[str], cores: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program on some cores, "0" or "0,1", until the block ends; its output goes to a file."""
    with log.open("wb") as output:
        process = subprocess.Popen(["taskset", "-c", cores, *argv], stdout=output, stderr=output, cwd=ROOT)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            for pid in tree(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    subprocess.run(["kill", "-9", str(pid)], check=False, stderr=subprocess.DEVNULL)
            process.wait()


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    for parent in found:
        for path in PROC.glob(f"{parent}/task/*/children"):
            with contextlib.suppress(OSError):
                found += [int(child) for child in path.read_text().split()]
    return found


def cpu_ns(pid: int) -> int:
    """CPU time of every thread of a process and of its descendants, in nanoseconds.

    From ``/proc/PID/task/TID/schedstat``, whose first number is the time on a CPU; a thread that has ended is gone
    from the sum, which no peer's does under load.
    """
    paths = [path for member in tree(pid) for path in PROC.glob(f"{member}/task/*/schedstat")]
    total = 0
    for path in paths:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            total += int(path.read_text().split()[0])
    return total


def busy_ns(core: int) -> int:
    """Time that a core has not been idle since the machine started, in nanoseconds, to a hundredth of a second."""
    fields = next(line.split() for line in (PROC / "stat").read_text().splitlines() if line.startswith(f"cpu{core} "))
    user, nice, system, _, _, *rest = map(int, fields[1:9])
    return (user + nice + system + sum(rest)) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def memory_kib(pid: int) -> int:
    """Memory of a process and its descendants: pages of their own, and their share of those that they have in common.

    ``Pss`` of ``/proc/PID/smaps_rollup``; what the kernel holds for sockets is in nobody's.
    """
    total = 0
    for member in tree(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            lines = (PROC / str(member) / "smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def raise_descriptors() -> int:
    """Let this process and those that it starts open as many files and sockets as they may; how many that is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def wait_until(check: Callable[[], bool], what: str, log: Path, timeout_s: float = 30) -> None:
    """Poll until ``check()`` is true.

    Raises:
        RuntimeError: Not within the time; the message ends with the program's last words.
    """
    deadline = time.monotonic() + timeout_s
    while not check():
        if time.monotonic() > deadline:
            tail = log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{what} did not answer within {timeout_s:g} s; its output ends with\n{tail}")
        time.sleep(0.05)
