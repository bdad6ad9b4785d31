"""A proxy out of the image, started as the chart starts it, and how long that takes."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from proxy import keys
from tests.image.build import ROOT
from tests.image.contain import USER

PATIENCE_S = 60.0
LOOK_S = 0.005
SETTINGS: dict[str, Any] = {
    "kind": "ProxySettings",
    "listeners": [{"address": "127.0.0.1:0"}],
    "metrics": {"listen": "127.0.0.1:0"},
    "planFile": "plan.yaml",
    "stateDir": "/var/lib/cohort",
    "keysDir": "/etc/cohort/keys",
    "admin": {"listen": "unix:/run/cohort/admin.sock"},
}
PLAN: dict[str, Any] = {
    "kind": "Plan",
    "rollout": {"namespace": "shop", "name": "checkout", "uid": "initial"},
    "generation": 1,
    "salt": "00" * 32,
    "users": [{"mint": {}}],
    "arms": [{"name": "stable", "revision": "v1", "weightBp": 10000, "endpoints": []}],
}
BINDS = ("etc:/etc/cohort:ro", "state:/var/lib/cohort", "run:/run/cohort")


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE_S)
        self._path = path

    def connect(self) -> None:
        """Connect."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


class Contained:
    """A running proxy of the image.

    Attributes:
        process: Its supervisor.
        ready_s: Seconds from its first instruction to its first answer that it is ready.
    """

    def __init__(self, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._folder = folder
        self.ready_s = self._wait() - float(self.log.split("\n")[0])

    @property
    def log(self) -> str:
        """What it wrote on standard error so far."""
        return (self._folder / "log").read_text()

    def ask(self, path: str) -> tuple[int, bytes]:
        """Ask the admin API."""
        with contextlib.closing(UnixConnection(self._folder / "run/admin.sock")) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def _wait(self) -> float:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError):
                if self.ask("/ready")[0] == 200:
                    return time.monotonic()
            time.sleep(LOOK_S)
        raise AssertionError(f"not ready: {self.process.returncode}\n{self.log}")


@contextlib.contextmanager
def started(tree: Path, configuration: dict[str, Any], folder: Path, endpoint: int) -> Iterator[Contained]:
    """Run the image's own command on a plan that sends everyone to one port of the loopback interface.

    Args:
        tree: The image's files.
        configuration: The image's, as OCI has it: Entrypoint, Env.
        folder: Empty; it becomes what a pod's volumes are.
        endpoint: The port.
    """
    _fill(folder, endpoint)
    binds = [part for bind in BINDS for part in ("--bind", f"{folder}/{bind}")]
    environment = [part for one in configuration["Env"] for part in ("--env", one)]
    command = [*configuration["Entrypoint"], "proxy", "--config", "/etc/cohort/proxy.yaml"]
    argv = [sys.executable, "-m", "tests.image.contain", *binds, *environment, str(tree), "--", *command]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log)
    try:
        yield Contained(folder, process)
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE_S)
        finally:
            process.kill()
            process.wait()


def _fill(folder: Path, endpoint: int) -> None:
    """Volumes as the kubelet makes them: a ConfigMap's and a Secret's files, and empty folders of the pod's group."""
    (folder / "etc/keys").mkdir(parents=True)
    arm = PLAN["arms"][0] | {"endpoints": [{"address": "127.0.0.1", "port": endpoint}]}
    (folder / "etc/proxy.yaml").write_text(json.dumps(SETTINGS))
    (folder / "etc/plan.yaml").write_text(json.dumps(PLAN | {"arms": [arm]}))
    for number, name in enumerate(keys.NAMES):
        (folder / "etc/keys" / name).write_bytes(keys.serialise(bytes([number]) * keys.SECRET_BYTES))
    for name in ("state", "run"):
        (folder / name).mkdir()
        os.chown(folder / name, 0, USER)
        (folder / name).chmod(0o2775)
