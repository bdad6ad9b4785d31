"""Real control ports of proxies, each with a keeper that keeps nothing on disk, in a thread of their own."""

from __future__ import annotations

import asyncio
import datetime
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controller.net import secret
from proxy.net.control import ControlTls, control_app
from proxy.net.credentials import Pair
from proxy.net.web import Site
from proxy.plan import Plan
from tests.proxy.net.test_admin import FakeSupervisor

TOKEN = "0123456789abcdef-control"


def installation(folder: Path) -> Pair:
    """The Secret of an installation as files, as `--token-file` and its neighbour are; the certificate's pair."""
    made = secret.contents(datetime.datetime.now(datetime.UTC))
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in made.items():
        (folder / name).write_bytes(content)
    (folder / "control").write_text(TOKEN)
    return Pair(made[secret.CERTIFICATE], made[secret.PRIVATE_KEY])


@dataclass
class Ports:
    """So many proxies of one installation.

    Attributes:
        addresses: ``127.0.0.1:PORT``, one each.
    """

    keys: Path
    supervisors: list[FakeSupervisor] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)

    @property
    def token_file(self) -> str:
        return str(self.keys / "control")

    @property
    def latches(self) -> list[Any]:
        """What stands at each."""
        return [supervisor.keeper.latch for supervisor in self.supervisors]

    def line(self, *which: int) -> list[str]:
        """The options that find these proxies."""
        places = [f"--address={self.addresses[i]}" for i in which or range(len(self.addresses))]
        return ["abort", "--direct", f"--token-file={self.token_file}", *places]


@contextmanager
def control_ports(folder: Path, count: int, plan: Plan | None = None) -> Iterator[Ports]:
    """Serve until the block ends; each proxy has the plan in force."""
    pair = installation(folder)
    ports, loop, ready, stop = Ports(folder), asyncio.new_event_loop(), threading.Event(), asyncio.Event()

    async def run() -> None:
        sites = []
        for _ in range(count):
            supervisor = FakeSupervisor()
            if plan:
                await supervisor.keeper.adopt(plan, "a test")
            site = _site(supervisor, folder / "control", pair, ports)
            await site.open()
            ports.supervisors.append(supervisor)
            sites.append(site)
        ready.set()
        await stop.wait()
        for site in sites:
            await site.close()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    try:
        assert ready.wait(30)
        yield ports
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def _site(supervisor: FakeSupervisor, token_file: Path, pair: Pair, ports: Ports) -> Site:
    sock = socket.create_server(("127.0.0.1", 0))
    ports.addresses.append(f"127.0.0.1:{sock.getsockname()[1]}")
    app = control_app(supervisor, token_file, lambda: 0.0, lambda request: site.admit(request))  # type: ignore[arg-type]  # a stand-in
    site = Site(app, [sock], ControlTls(pair).context)
    return site
