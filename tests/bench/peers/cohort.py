"""Ourselves, from a plan file: every limit, time-out and counter on."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any

from tests.bench.peers.job import VENV, Job, first_line


class Cohort:
    """The subject; ``checkout`` is another one, set up, that is measured beside this one."""

    def __init__(self, name: str = "cohort", checkout: Path | None = None) -> None:
        self.name = name
        self._folder = checkout / ".venv/bin" if checkout else VENV
        self._generation = 1
        self._abort_id = ""

    def version(self) -> str:
        """As it is installed."""
        return first_line([str(self._folder / "cohort"), "version"])

    def lacks(self, need: str) -> str:
        """Nothing."""
        return ""

    def command(self, job: Job) -> list[str]:
        """As many workers as asked for."""
        listener: dict[str, Any] = {"address": f"127.0.0.1:{job.port}"}
        if job.tls is not None:
            pair = {"certFile": str(job.tls[0]), "keyFile": str(job.tls[1])}
            listener["tls"] = {"certificates": [pair], "minVersion": "1.3"}
        settings: dict[str, Any] = {
            "kind": "ProxySettings",
            "listeners": [listener],
            "workers": job.workers,
            "planFile": "plan.json",
            "metrics": {"listen": "127.0.0.1:0"},
            "log": {"access": "stdout" if job.has_log else "off", "level": "warning"},
        }
        if job.connections > 8_000:  # the default would have the last ones wait
            settings["limits"] = {"connections": job.connections * 2}
        (job.folder / "plan.json").write_text(json.dumps(_plan(job, job.canary_percent, 1)))
        (job.folder / "proxy.json").write_text(json.dumps(settings))
        argv = [str(self._folder / "cohort"), "proxy", "--config", str(job.folder / "proxy.json")]
        return argv if job.is_compiled else ["env", "COHORT_PURE=1", *argv]

    def change(self, job: Job, pid: int, canary_percent: int) -> None:
        """Another plan; a share of nothing is an abort, which the next plan lifts."""
        if not canary_percent:
            self._abort_id = f"{self._generation:08x}"
            self._ask(job, "POST", "/abort", {"by": "bench", "id": self._abort_id})
            return
        self._generation += 1
        lifts = {"lifts": [self._abort_id]} if self._abort_id else {}
        self._ask(job, "PUT", "/plan", _plan(job, canary_percent, self._generation) | lifts)

    def _ask(self, job: Job, method: str, path: str, document: dict[str, Any]) -> None:
        connection = http.client.HTTPConnection("localhost", timeout=20)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(job.folder / "admin.sock"))
        try:
            connection.request(
                method, path, json.dumps(document), {"Content-Type": "application/json", "If-Match": "*"}
            )
            answer = connection.getresponse()
            if answer.status >= 300:
                raise RuntimeError(f"cohort: {answer.status} {answer.read().decode()}")
        finally:
            connection.close()


def _plan(job: Job, canary_percent: int, generation: int) -> dict[str, Any]:
    weights = {"stable": 10_000 - canary_percent * 100, "canary": canary_percent * 100}
    return {
        "kind": "Plan",
        "rollout": {"namespace": "bench", "name": "bench", "uid": "0b5e0f0e-0000-4000-8000-000000000001"},
        "generation": generation,
        "revision": "v2",
        "salt": "5a" * 32,
        "arms": [
            {
                "name": arm,
                "revision": f"v{number}",
                "weightBp": weights[arm],
                "endpoints": [{"address": "127.0.0.1", "port": port}],
            }
            for number, (arm, port) in enumerate(job.backends.items(), 1)
        ],
        "users": [{"cookie": {"name": "uid"}}],
        "routes": [
            {
                "name": "staff",
                "matches": [{"headers": [{"name": "X-Canary", "value": "yes"}]}],
                "arm": "canary",
                "trust": "Anyone",
            }
        ],
    }
