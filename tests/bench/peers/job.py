"""What every peer has to do, and how one is asked to."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

VENV = Path(sys.executable).parent


@dataclass(frozen=True, slots=True)
class Job:
    """What a peer has to do.

    Attributes:
        folder: Empty and the peer's own.
        port: Of loopback, where the peer listens.
        backends: Port by arm.
        canary_percent: Share of users, by the cookie ``uid``, for the second backend.
        workers: Processes or threads that take requests.
        tls: Certificate and key, PEM, of a listener that speaks TLS 1.3 and nothing older; None: plain.
        upgrades: WebSocket connections are passed on.
        has_log: Each request is a line of an access log.
        is_changed: The share is changed while the peer runs.
        is_compiled: Ours with the modules that were compiled, where they are.
        connections: Of clients that may be open at once.
    """

    folder: Path
    port: int
    backends: Mapping[str, int]
    canary_percent: int
    workers: int = 1
    tls: tuple[Path, Path] | None = None
    upgrades: bool = False
    has_log: bool = False
    is_changed: bool = False
    is_compiled: bool = True
    connections: int = 1024


class Peer(Protocol):
    """One proxy."""

    name: str

    def version(self) -> str:
        """As the program says it."""

    def lacks(self, need: str) -> str:
        """Why it cannot do one of ``split tls log change workers idle port``; empty if it can."""

    def command(self, job: Job) -> list[str]:
        """Write the configuration and return the command line that serves it in the foreground."""

    def change(self, job: Job, pid: int, canary_percent: int) -> None:
        """Have a running peer give another share, by its own means; it need not be in force when this returns."""


def first_line(argv: list[str]) -> str:
    """Of what a program prints."""
    done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.stdout.strip().splitlines()[0].strip()


def replace(path: Path, text: str) -> None:
    """A file whose readers see the old text or the new one."""
    draft = path.with_suffix(".draft")
    draft.write_text(text)
    draft.rename(path)
