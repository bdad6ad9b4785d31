"""A process that owns what a session starts: none of it outlives the session, whatever ends the session.

``python -m tests.kube.keeper`` reads commands as lines of JSON, answers each with one line, and when its standard input
ends it kills what still runs. Programs started by tests in mid-session are its children, not the tests', so they are no
leak of the test that restarted them.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

PATIENCE_S = 30.0
PREFIX = "cohort-kube-"  # of the folders of sessions
LOCK = "lock"
PR_SET_PDEATHSIG = 1  # prctl(2)
_LIBC = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """For ``preexec_fn``: the kernel kills this process when its parent's thread ends, even by SIGKILL."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Keeper:
    """The side of the session.

    Attributes:
        folder: Where each program's output goes, as ``<name>.log``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._turn = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.kube.keeper", str(folder)],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        """The process id of the keeper itself."""
        return self._process.pid

    def start(self, name: str, *argv: str, **environment: str) -> None:
        """Start a program under a name that no running one has."""
        log = str(self.folder / f"{name}.log")
        self._ask({"do": "start", "name": name, "argv": argv, "log": log, "environment": environment})

    def send(self, name: str, number: int) -> None:
        """Send a signal to a program that may have ended."""
        self._ask({"do": "signal", "name": name, "number": int(number)})

    def stop(self, name: str, number: int = signal.SIGTERM) -> int:
        """End a program by a signal, and by SIGKILL if that takes longer than ``PATIENCE_S``; its exit status."""
        return int(self._ask({"do": "stop", "name": name, "number": int(number)}))

    def status(self, name: str) -> int | None:
        """The exit status, or None while it runs."""
        status: int | None = self._ask({"do": "status", "name": name})
        return status

    def status_of_all(self) -> dict[str, int | None]:
        """That of every program that was started."""
        statuses: dict[str, int | None] = self._ask({"do": "all"})
        return statuses

    def log(self, name: str) -> str:
        """All that a program has written."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def close(self) -> None:
        """End everything."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(PATIENCE_S)
        self._process.stdout.close()

    def _ask(self, command: dict[str, Any]) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        with self._turn:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())


def sweep(folders: Path) -> None:
    """Remove the folders below one whose keeper is gone: those of sessions that were killed."""
    for path in folders.glob(f"{PREFIX}*/{LOCK}"):
        with contextlib.suppress(FileNotFoundError, BlockingIOError, PermissionError), path.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path.parent, ignore_errors=True)


def _hold(folder: Path) -> TextIO:
    """Hold the folder's lock, which gets its name when it is held."""
    draft = folder / f"{LOCK}.draft"
    lock = draft.open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    draft.rename(folder / LOCK)
    return lock


def _start(running: dict[str, subprocess.Popen[bytes]], name: str, argv: list[str], **rest: Any) -> None:
    with Path(rest["log"]).open("ab") as log:
        running[name] = subprocess.Popen(
            argv,
            env=os.environ | rest["environment"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=die_with_parent,
            start_new_session=True,  # Ctrl-C is the session's: it decides what ends, and in which order
        )


def _signal(running: dict[str, subprocess.Popen[bytes]], name: str, number: int) -> None:
    running[name].send_signal(number)


def _stop(running: dict[str, subprocess.Popen[bytes]], name: str, number: int) -> int:
    running[name].send_signal(number)
    try:
        return running[name].wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        running[name].kill()
        return running[name].wait()


def _status(running: dict[str, subprocess.Popen[bytes]], name: str) -> int | None:
    return running[name].poll()


def _all(running: dict[str, subprocess.Popen[bytes]]) -> dict[str, int | None]:
    return {name: process.poll() for name, process in running.items()}


COMMANDS: dict[str, Callable[..., Any]] = {
    "start": _start,
    "signal": _signal,
    "stop": _stop,
    "status": _status,
    "all": _all,
}


def main() -> None:
    """Serve one session; what was started last ends first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    lock = _hold(Path(sys.argv[1]))
    running: dict[str, subprocess.Popen[bytes]] = {}
    for line in sys.stdin:
        command = json.loads(line)
        print(json.dumps(COMMANDS[command.pop("do")](running, **command)), flush=True)
    for process in reversed(running.values()):
        process.kill()
        process.wait()
    lock.close()


if __name__ == "__main__":
    main()
