"""The proxies that are measured: each does the same per-user split of the same two backends with one worker."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import yaml

from tests.support.require import find

VENV = Path(sys.executable).parent


@dataclass(frozen=True, slots=True)
class Job:
    """What a peer has to do.

    Attributes:
        folder: Empty and the peer's own.
        port: Of loopback, where the peer listens.
        backends: Port by arm.
        canary_percent: Share of users, by the cookie ``uid``, for the second backend.
    """

    folder: Path
    port: int
    backends: Mapping[str, int]
    canary_percent: int


class Peer(Protocol):
    """One proxy."""

    name: str

    def version(self) -> str:
        """As the program says it."""

    def command(self, job: Job) -> list[str]:
        """Write the configuration and return the command line that serves it in the foreground."""


class Nginx:
    """split_clients over the cookie, kept-alive upstreams."""

    name = "nginx"

    def version(self) -> str:
        """As the program says it."""
        return _first_line([find("nginx"), "-v"]).removeprefix("nginx version: ")

    def command(self, job: Job) -> list[str]:
        """One worker, no access log."""
        upstreams = "".join(
            f"upstream {arm} {{ server 127.0.0.1:{port}; keepalive 128; keepalive_requests 1000000000; }}\n"
            for arm, port in job.backends.items()
        )
        return nginx_command(
            job.folder,
            f"""
            split_clients "$cookie_uid" $arm {{ {job.canary_percent}% canary; * stable; }}
            {upstreams}
            server {{
                listen 127.0.0.1:{job.port};
                location / {{
                    proxy_pass http://$arm;
                    proxy_http_version 1.1;
                    proxy_set_header Connection "";
                    proxy_set_header Host $host;
                    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
                    proxy_set_header X-Forwarded-Proto $scheme;
                }}
            }}
            """,
        )


class Envoy:
    """Weighted clusters chosen by a hash of the cookie."""

    name = "envoy"

    def version(self) -> str:
        """As the program says it, without the build's hash."""
        return "envoy/" + _first_line([str(VENV / "envoy"), "--version"]).partition("version:")[2].split("/")[1]

    def command(self, job: Job) -> list[str]:
        """One worker, no access log, no admin interface; all else as Envoy defaults."""
        weights = {"stable": 100 - job.canary_percent, "canary": job.canary_percent}
        route = {
            "hash_policy": [{"cookie": {"name": "uid"}}],
            "weighted_clusters": {
                "use_hash_policy": True,
                "clusters": [{"name": arm, "weight": weights[arm]} for arm in job.backends],
            },
        }
        manager = {
            "@type": _type("filters.network.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": "ingress",
            "use_remote_address": True,  # appends the client to X-Forwarded-For
            "route_config": {
                "virtual_hosts": [
                    {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": route}]}
                ]
            },
            "http_filters": [
                {
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": _type("filters.http.router.v3.Router")},
                }
            ],
        }
        chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        config = {
            "static_resources": {
                "listeners": [{"address": _address(job.port), "filter_chains": [chain]}],
                "clusters": [_cluster(arm, port) for arm, port in job.backends.items()],
            }
        }
        path = job.folder / "envoy.yaml"
        path.write_text(yaml.safe_dump(config))
        return [str(VENV / "envoy"), "-c", str(path), "--concurrency", "1", "--disable-hot-restart", "-l", "warning"]


class Cohort:
    """Ourselves, from a plan file: every limit, time-out and counter on."""

    def __init__(self, name: str = "cohort", checkout: Path | None = None) -> None:
        self.name = name
        self._folder = checkout / ".venv/bin" if checkout else VENV

    def version(self) -> str:
        """As it is installed."""
        return "cohort/" + importlib.metadata.version("cohort-proxy")

    def command(self, job: Job) -> list[str]:
        """One worker, no access log."""
        weights = {"stable": 10_000 - job.canary_percent * 100, "canary": job.canary_percent * 100}
        plan = {
            "kind": "Plan",
            "rollout": {"namespace": "bench", "name": "bench", "uid": "0b5e0f0e-0000-4000-8000-000000000001"},
            "generation": 1,
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
        }
        settings = {
            "kind": "ProxySettings",
            "listeners": [{"address": f"127.0.0.1:{job.port}"}],
            "workers": 1,
            "planFile": "plan.json",
            "metrics": {"listen": "127.0.0.1:0"},
            "log": {"access": "off", "level": "warning"},
        }
        (job.folder / "plan.json").write_text(json.dumps(plan))
        (job.folder / "proxy.json").write_text(json.dumps(settings))
        return [str(self._folder / "cohort"), "proxy", "--config", str(job.folder / "proxy.json")]


PEERS: dict[str, Peer] = {peer.name: peer for peer in (Cohort(), Envoy(), Nginx())}


def nginx_command(folder: Path, servers: str) -> list[str]:
    """An nginx of one worker with the given blocks of its ``http`` section, without access log."""
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    path = folder / "nginx.conf"
    path.write_text(
        f"daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr warn;\n"
        "events { worker_connections 4096; }\n"
        f"http {{ access_log off; keepalive_requests 1000000000; {temporary} {servers} }}\n"
    )
    return [find("nginx"), "-p", str(folder), "-e", "stderr", "-c", str(path)]


def _first_line(argv: list[str]) -> str:
    done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.stdout.strip().splitlines()[0].strip()


def _type(name: str) -> str:
    return f"type.googleapis.com/envoy.extensions.{name}"


def _address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _cluster(name: str, port: int) -> dict[str, object]:
    endpoint = {"endpoint": {"address": _address(port)}}
    return {
        "name": name,
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
