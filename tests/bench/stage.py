"""Backends and peers that run for one workload."""

from __future__ import annotations

import contextlib
import socket
import ssl
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.bench import backend, client
from tests.bench.peers.job import Job, Peer
from tests.bench.process import OTHER_CORE, PROXY_CORE, cpu_ns, running, wait_until
from tests.bench.workload import Variant, Workload
from tests.support.certificates import Authority, write_pair


@dataclass(frozen=True, slots=True)
class Entrant:
    """One way of one peer, as the tables name it."""

    peer: Peer
    variant: Variant

    @property
    def name(self) -> str:
        return f"{self.peer.name}{self.variant.label}"


@dataclass(frozen=True, slots=True)
class Running:
    """An entrant that answers."""

    name: str
    peer: Peer
    job: Job
    pid: int
    command: str
    door: client.Door

    def cpu_ns(self) -> int:
        """CPU time that it has used so far."""
        return cpu_ns(self.pid)


@dataclass
class Stage:
    """The backends, started by `open`; `start` adds peers, and all of them end with ``stack``."""

    workload: Workload
    folder: Path
    stack: contextlib.ExitStack
    ports: dict[str, int] = field(default_factory=dict)
    status_port: int = 0
    tls: tuple[Path, Path] | None = None
    client_tls: ssl.SSLContext | None = None
    started: int = 0

    def open(self) -> None:
        """Start the backends and wait until they answer."""
        self.ports = {arm: free_port() for arm in self.workload.answers()}
        self.status_port = free_port()
        home = self.home("backend")
        argv = backend.backend_command(home, self.ports, self.status_port, self.workload)
        self.stack.enter_context(running(argv, str(OTHER_CORE), home / "log"))
        wait_until(lambda: client.is_up(self.direct), "the backend", home / "log")
        if self.workload.has_tls:
            authority = Authority()
            pair = authority.issue("shop.example", "localhost", "127.0.0.1")
            self.tls = write_pair(self.folder, "shop", pair)
            self.client_tls = authority.client()

    @property
    def direct(self) -> client.Door:
        """The backend of the stable version itself."""
        return client.Door(self.ports["stable"], self.workload, splits=False)

    def home(self, name: str) -> Path:
        """An empty folder."""
        home = self.folder / name
        home.mkdir()
        return home

    def counts(self) -> backend.Counts:
        """What the backends have counted."""
        return backend.counts(self.status_port)

    def start(self, entrant: Entrant, stack: contextlib.ExitStack | None = None) -> Running:
        """Start a peer and see that it does the job.

        Args:
            stack: Ends it; the stage's own if not given.
        """
        home = self.home(f"{entrant.name.replace(', ', '-').replace(' ', '-')}-{self.started}")
        self.started += 1
        peer, workload = entrant.peer, self.workload
        port = self.ports["stable"] if peer.lacks("port") else free_port()
        job = Job(home, port, self.ports, workload.canary_percent, tls=self.tls)
        job = replace(job, **{"connections": max(1024, workload.connections), **entrant.variant.changes})
        argv = peer.command(job)
        cores = f"{PROXY_CORE},{OTHER_CORE}" if job.workers > 1 else str(PROXY_CORE)
        process = (stack or self.stack).enter_context(running(argv, cores, home / "log"))
        door = client.Door(job.port, workload, self.client_tls, splits=not peer.lacks("split"))
        wait_until(lambda: client.is_up(door), entrant.name, home / "log")
        client.check(door)
        command = " ".join(Path(word).name if word.startswith("/") else word for word in argv)
        return Running(entrant.name, peer, job, process.pid, command.replace(str(self.folder) + "/", ""), door)


def free_port() -> int:
    """A port of loopback that nobody has right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
