"""Caddy: the first two digits of the cookie, by a regular expression."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

from tests.bench.peers.job import VENV, Job, first_line

NAME = "shop.example"  # for clients that ask for no name, or for an address


class Caddy:
    """One of the peers; what is not written here is Caddy's default.

    It has a hash of a header field or of the address to choose among upstreams, but none of a cookie to choose among
    routes. The users' ids begin with evenly spread hexadecimal digits, which a regular expression can split as well,
    and cheaper.
    """

    name = "caddy"

    def version(self) -> str:
        """As the program says it."""
        return "caddy/" + first_line([str(VENV / "caddy"), "version"]).split()[0].removeprefix("v")

    def lacks(self, need: str) -> str:
        """Nothing."""
        return ""

    def command(self, job: Job) -> list[str]:
        """One process; it runs on as many cores as it may."""
        path = job.folder / "caddy.json"
        path.write_text(json.dumps(_configuration(job), indent=1))
        env = [f"{name}={job.folder}" for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")]
        return ["env", *env, f"GOMAXPROCS={job.workers}", str(VENV / "caddy"), "run", "--config", str(path)]

    def change(self, job: Job, pid: int, canary_percent: int) -> None:
        """The whole configuration anew, by the admin API."""
        connection = http.client.HTTPConnection("localhost", timeout=20)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(job.folder / "admin.sock"))
        try:
            body = json.dumps(_configuration(job, canary_percent))
            connection.request("POST", "/load", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            if answer.status != 200:
                raise RuntimeError(f"caddy: {answer.status} {answer.read().decode()}")
        finally:
            connection.close()


def _configuration(job: Job, canary_percent: int | None = None) -> dict[str, Any]:
    percent = job.canary_percent if canary_percent is None else canary_percent
    override = {"header": {"X-Canary": ["yes"]}}
    split = {"vars_regexp": {"{http.request.cookie.uid}": {"pattern": _first_digits(percent)}}}
    server: dict[str, Any] = {
        "listen": [f"127.0.0.1:{job.port}"],
        "protocols": ["h1"],
        "automatic_https": {"disable": True},
        "routes": [
            {"match": [override, *([split] if percent else [])], "handle": [_pass(job.backends["canary"])]},
            {"handle": [_pass(job.backends["stable"])]},
        ],
    }
    apps: dict[str, Any] = {"http": {"servers": {"all": server}}}
    if job.tls is not None:
        server["tls_connection_policies"] = [{"protocol_min": "tls1.3", "default_sni": NAME, "fallback_sni": NAME}]
        pair = {"certificate": str(job.tls[0]), "key": str(job.tls[1])}
        apps["tls"] = {"certificates": {"load_files": [pair]}}
    if job.has_log:
        server["logs"] = {}
    return {
        "admin": {"listen": f"unix/{job.folder}/admin.sock", "config": {"persist": False}},
        "logging": {"logs": {"default": {"level": "INFO" if job.has_log else "WARN"}}},
        "apps": apps,
    }


def _pass(port: int) -> dict[str, Any]:
    keep = {"max_idle_conns_per_host": 128}  # as many as nginx is given; Caddy's 32 would close half of them
    transport = {"protocol": "http", "keep_alive": keep, "compression": False}
    return {"handler": "reverse_proxy", "transport": transport, "upstreams": [{"dial": f"127.0.0.1:{port}"}]}


def _first_digits(percent: int) -> str:
    """A regular expression for ids whose first two digits are below the share of 256."""
    limit = round(percent * 2.56)
    high, low = divmod(limit, 16)
    parts = [f"[{_digits(high)}]"] if high else []
    parts += [f"{high:x}[{_digits(low)}]"] if low else []
    return f"^(?:{'|'.join(parts)})" if parts else "^$"


def _digits(count: int) -> str:
    return "0123456789abcdef"[:count]
