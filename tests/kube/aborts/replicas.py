"""The replicas of an installation, asked from outside of the controllers."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp

from tests.kube.installation import NAME, Installation, worker

STEPS: list[dict[str, Any]] = [{"setWeight": 10}, {"pause": {}}, {"setWeight": 50}, {"pause": {}}]
LOOK_S = 0.005  # between two looks at a proxy that is waited for
PATIENCE_S = 60.0
COHORT_PROGRAM = str(Path(sys.executable).parent / "cohort")
COHORT = (sys.executable, "-c", "import sys; from controller.cli import main; sys.exit(main())")


@dataclass(frozen=True, slots=True)
class Replica:
    """One pod of the installation.

    Attributes:
        address: Of the pod.
        process: Process 1 of its proxy: by it the files of the pod are found; ``controller`` that of its controller.
    """

    pod: str
    address: str
    process: int
    controller: int

    @property
    def admin(self) -> str:
        """The proxy's admin API, which only the pod sees."""
        return f"/proc/{self.process}/root/run/cohort/admin.sock"

    @contextlib.asynccontextmanager
    async def _session(self) -> Any:
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(self.admin)) as session:
            yield session

    async def state(self) -> Any:
        """What the proxy shows."""
        async with self._session() as session, session.get("http://localhost/state") as answer:
            return await answer.json()

    async def plan(self) -> Any:
        """What it serves."""
        async with self._session() as session, session.get("http://localhost/plan") as answer:
            return await answer.json()

    async def abort(self, **body: str) -> Any:
        """POST /abort to its admin API."""
        async with self._session() as session, session.post("http://localhost/abort", json=body) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def until(self, look: Callable[[Any], Any]) -> float:
        """Wait until the proxy shows something; when that was seen, in seconds of `time.perf_counter`."""
        deadline = time.perf_counter() + PATIENCE_S
        async with self._session() as session:
            while True:
                async with session.get("http://localhost/state") as answer:
                    shown = await answer.json()
                if look(shown):
                    return time.perf_counter()
                assert time.perf_counter() < deadline, shown
                await asyncio.sleep(LOOK_S)


class Replicas:
    """Those of one installation, and the installation's Secret, kept beforehand as a person would."""

    def __init__(self, shop: Installation, folder: Path) -> None:
        self.shop, self.folder = shop, folder
        path = f"/api/v1/namespaces/{shop.namespace}/secrets/{NAME}-keys"
        for name, value in shop.cluster.call("GET", path)["data"].items():
            if name in ("control", "tls.crt"):
                (folder / name).write_bytes(base64.b64decode(value))
        self.all = self._found()

    def _found(self) -> list[Replica]:
        found = []
        for name in self.shop.proxies():
            address = self.shop.space.pod(name)["status"]["podIP"]
            found.append(Replica(name, address, self.shop.proxy_pid(name), self.shop.controller_pid(name)))
        return found

    def others(self) -> list[Replica]:
        """All but the one whose controller decides."""
        holder = self.shop.holder()
        return [replica for replica in self.all if replica.pod != holder]

    async def on_trial(self, version: str = "v2") -> dict[str, Any]:
        """A revision at its first pause, at every proxy, and no abort; the status."""
        if self.shop.versions["shop-canary"] != version:
            await self.shop.release(version)
        elif self.shop.status["phase"] == "Aborted":
            await self.shop.action("Retry", revision=version)

        def is_on_trial(status: Any) -> bool:
            is_everywhere = status["plan"]["current"] == len(self.all)
            return bool(status["phase"] == "Paused" and status["revision"].get("canary") == version and is_everywhere)

        status = await self.shop.until(is_on_trial)
        for replica in self.all:
            await replica.until(lambda state: state["latch"] is None and state["plan"]["revision"] == version)
        return status

    def direct_within(self, replica: Replica) -> tuple[int, Any]:
        """Run it in one pod, with what the pod has, on the name of the control Service."""
        line = ("abort", "--direct", "--token-file=/etc/cohort/keys/control", f"--address={NAME}-control", "-o", "json")
        enter = ("nsenter", f"--target={replica.process}", "--mount", "--net", "--root", COHORT_PROGRAM)
        done = subprocess.run((*enter, *line, "--by=bob"), capture_output=True, text=True, check=False)
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    def direct(self, *places: str, options: tuple[str, ...] = ()) -> tuple[int, Any, float]:
        """Run ``cohort abort --direct`` where the pods' addresses are reached.

        Returns:
            The exit code, the document, and the seconds of the whole process.
        """
        line = ["abort", "--direct", f"--token-file={self.folder / 'control'}", "-o", "json", *options]
        line += [f"--address={place}" for place in places or [replica.address for replica in self.all]]
        begun = time.perf_counter()
        done = self.shop.pods.run(*COHORT, *line, env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"})
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout), time.perf_counter() - begun

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """While the block runs every controller is stopped where it is."""
        pids = [self.shop.cluster.until(partial(worker, replica.controller)) for replica in self.all]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
