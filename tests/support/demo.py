"""The real demo as people start it, on free ports."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_S = 60.0  # a bare machine compiles every module first
COHORT = [sys.executable, "-c", "from controller.cli import main; raise SystemExit(main())"]


@dataclass
class Demo:
    """A running demo: its process, what it has said in ``output``, and its addresses by name."""

    process: subprocess.Popen[bytes]
    output: Path

    def said(self) -> str:
        return self.output.read_text()

    @property
    def addresses(self) -> dict[str, str]:
        return {
            name.strip(): url for name, url in re.findall(r"^  (\w[\w ]*?) +(http://\S+)$", self.said(), re.MULTILINE)
        }

    def until(self, text: str) -> None:
        """Wait until it has said something."""
        deadline = time.monotonic() + START_S
        while text not in self.said():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.05)

    def stop(self, number: int = signal.SIGINT) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=60)


@contextmanager
def demo(folder: Path, *arguments: str) -> Iterator[Demo]:
    """Start it, and see to it that it ends."""
    output = folder / "demo.out"
    with output.open("wb") as file:
        command = [*COHORT, "demo", "--ports", "auto", *arguments]
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        running = Demo(process, output)
        try:
            yield running
        finally:
            running.stop()
