"""What Python does without us: a plain aiohttp proxy, and a relay of bytes as the floor."""

from __future__ import annotations

import sys

from tests.bench.peers.job import Job, first_line


class AiohttpProxy:
    """A server and a client of aiohttp in one process, on uvloop."""

    name = "aiohttp"

    def version(self) -> str:
        """Of the library."""
        return "aiohttp/" + _installed("aiohttp")

    def lacks(self, need: str) -> str:
        """It has nothing but the split."""
        reasons = {
            "change": "has no way to change the share but a restart",
            "workers": "is one process",
            "log": "has no access log of its own",
        }
        return reasons.get(need, "")

    def command(self, job: Job) -> list[str]:
        """Everything on the command line."""
        argv = [sys.executable, "-m", "tests.bench.programs.aiohttp_proxy", str(job.port), str(job.canary_percent)]
        return [*argv, *(f"{port}" for port in job.backends.values()), *(map(str, job.tls) if job.tls else ())]

    def change(self, job: Job, pid: int, canary_percent: int) -> None:
        """Not asked for."""
        raise NotImplementedError(self.lacks("change"))


class Relay:
    """uvloop alone: bytes from one socket to another, nothing read, everything to the first backend."""

    name = "relay"

    def version(self) -> str:
        """Of the library."""
        return "uvloop/" + _installed("uvloop")

    def lacks(self, need: str) -> str:
        """All that needs a look at the bytes, but the split: the floor does without."""
        reasons = {
            "tls": "passes on bytes, and ends no TLS",
            "split": "looks at no request",
            "change": "has nothing to change",
            "workers": "is one process",
            "log": "sees no requests",
            "idle": "holds a connection to the service for each client's",
        }
        return reasons.get(need, "")

    def command(self, job: Job) -> list[str]:
        """Everything on the command line."""
        port = str(job.backends["stable"])
        return [sys.executable, "-m", "tests.bench.programs.relay", str(job.port), port]

    def change(self, job: Job, pid: int, canary_percent: int) -> None:
        """Not asked for."""
        raise NotImplementedError(self.lacks("change"))


class Direct:
    """No proxy: the generator asks the first backend itself."""

    name = "no proxy"

    def version(self) -> str:
        """None."""
        return ""

    def lacks(self, need: str) -> str:
        """Everything."""
        return "is no proxy"

    def command(self, job: Job) -> list[str]:
        """A process that does nothing."""
        return ["sleep", "infinity"]

    def change(self, job: Job, pid: int, canary_percent: int) -> None:
        """Not asked for."""
        raise NotImplementedError(self.lacks("change"))


def _installed(name: str) -> str:
    return first_line([sys.executable, "-c", f"import importlib.metadata as m; print(m.version('{name}'))"])
