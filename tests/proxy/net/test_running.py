"""What the kernel says of processes that run, sleep, are stopped, are gone."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from proxy.heart import Usage
from proxy.net.running import usage

SPIN = "print(1, flush=True)\nwhile True: pass"
SLEEP = "import sys; print(1, flush=True); sys.stdin.read()"
NAMED = f"open('/proc/self/comm', 'w').write('R) S (R'); {SLEEP}"
THREAD = "import threading\nthreading.Thread(target=exec, args=('while True: pass',), daemon=True).start()\n" + SLEEP


@contextlib.contextmanager
def child(program: str) -> Iterator[int]:
    """A process of ours; its id."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        try:
            process.stdout.readline()
            yield process.pid
        finally:
            process.kill()


def until(pid: int, holds: Callable[[Usage], bool]) -> Usage:
    """What is said of it, once it is as it should be."""
    deadline = time.monotonic() + 30
    while True:
        found = usage(pid)
        assert found is not None
        if holds(found) or time.monotonic() > deadline:
            return found
        time.sleep(0.01)


@pytest.mark.parametrize("program", [SPIN, THREAD], ids=["itself", "a-thread"])
def test_a_process_that_computes_is_runnable_and_uses_time(program: str) -> None:
    with child(program) as pid:
        before = until(pid, lambda found: found.is_runnable)
        assert before.is_runnable
        assert until(pid, lambda found: found.cpu_s > before.cpu_s + 0.1).cpu_s > before.cpu_s + 0.1


@pytest.mark.parametrize("program", [SLEEP, NAMED], ids=["asleep", "with-a-strange-name"])
def test_a_process_that_waits_for_somebody_is_not(program: str) -> None:
    with child(program) as pid:
        assert not until(pid, lambda found: not found.is_runnable).is_runnable


def test_a_stopped_process_is_not() -> None:
    with child(SPIN) as pid:
        os.kill(pid, signal.SIGSTOP)
        assert not until(pid, lambda found: not found.is_runnable).is_runnable


def test_a_process_that_gets_no_processor_is_runnable() -> None:
    """Beside one that is always before it, on one processor."""
    processor = {min(os.sched_getaffinity(0))}
    with child(SPIN) as hog, child(SPIN) as pid:
        os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
        for each in (hog, pid):
            os.sched_setaffinity(each, processor)
        for _ in range(20):
            found = usage(pid)
            assert found is not None
            assert found.is_runnable
            time.sleep(0.01)


def test_of_a_process_that_is_gone_nothing_is_said() -> None:
    with child(SLEEP) as pid:
        pass
    assert usage(pid) is None
