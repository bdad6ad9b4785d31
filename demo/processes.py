"""Child processes that end with their parent, whatever becomes of it, and whose output goes to a file each."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
from asyncio.subprocess import Process
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PR_SET_PDEATHSIG = 1  # prctl(2)
TAIL_BYTES = 2_000
_libc = ctypes.CDLL(None)


class ChildError(Exception):
    """A child did not do what it was started for; the message has the end of what it said."""


@dataclass(frozen=True, slots=True)
class Child:
    """One running program.

    Attributes:
        output: Where its standard output goes, if it is not read; its errors go to ``log``.
    """

    name: str
    process: Process
    log: Path
    output: Path

    def said(self) -> str:
        """The end of what it said, output after errors."""
        texts = [path.read_text(errors="replace")[-TAIL_BYTES:] for path in (self.log, self.output) if path.exists()]
        return "\n".join(text.strip() for text in texts if text.strip())

    def failure(self, what: str) -> ChildError:
        """The error that says what went wrong with it."""
        return ChildError(f"{self.name} {what}; it said:\n{self.said() or '(nothing)'}")

    async def stop(self, number: int = signal.SIGTERM, grace_s: float = 8.0) -> int:
        """Ask it to end, then make it, and wait until it has.

        Returns:
            Its exit code; negative: killed by that signal.
        """
        if self.process.returncode is None:
            self.process.send_signal(number)
            try:
                async with asyncio.timeout(grace_s):
                    await self.process.wait()
            except TimeoutError:
                self.process.kill()
        return await self.process.wait()


async def start(
    name: str, argv: Sequence[str], folder: Path, env: Mapping[str, str] | None = None, read_output: bool = False
) -> Child:
    """Start a program in a session of its own, so that Ctrl-C reaches the parent alone, who ends children in order.

    Args:
        name: Also of its files.
        argv: Program and arguments.
        folder: For its files; its working directory is the folder above.
        env: Added to this process's environment.
        read_output: Whether the caller reads its standard output; otherwise it goes to a file.
    """
    log, output = folder / f"{name}.log", folder / f"{name}.out"
    with log.open("wb") as errors, output.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *argv,
            cwd=folder.parent,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE if read_output else out,
            stderr=errors,
            start_new_session=True,
            preexec_fn=_die_with_parent(os.getpid()),  # one system call, no lock, no import
        )
    return Child(name, process, log, output)


def _die_with_parent(parent: int) -> Callable[[], None]:
    def prepare() -> None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

    return prepare
