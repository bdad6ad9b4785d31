"""HAProxy: a hash of the cookie, modulo a hundred, against the share."""

from __future__ import annotations

import socket

from tests.bench.peers.job import Job, first_line
from tests.support.require import find


class Haproxy:
    """One of the peers; what is not written here is HAProxy's default."""

    name = "haproxy"

    def version(self) -> str:
        """As the program says it."""
        return "haproxy/" + first_line([find("haproxy"), "-v"]).split()[2]

    def lacks(self, need: str) -> str:
        """Nothing."""
        return ""

    def command(self, job: Job) -> list[str]:
        """One process with as many threads as asked for."""
        (job.folder / "share.map").write_text(f"canary {job.canary_percent}\n")
        path = job.folder / "haproxy.cfg"
        path.write_text(_configuration(job))
        return [find("haproxy"), "-db", "-f", str(path)]

    def change(self, job: Job, pid: int, canary_percent: int) -> None:
        """The entry of a map, by the runtime API."""
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(job.folder / "admin.sock"))
            client.sendall(f"set map {job.folder}/share.map canary {canary_percent}\n".encode())
            if answer := client.recv(4096).strip():
                raise RuntimeError(f"haproxy: {answer.decode()}")


def _configuration(job: Job) -> str:
    limit = f"str(canary),map_str_int({job.folder}/share.map,0)"
    split = [f"use_backend canary if {{ req.cook(uid),xxh32,mod(100) lt {job.canary_percent} }}"]
    if job.is_changed:
        split = [
            f"http-request set-var(txn.limit) {limit}",
            "use_backend canary if { req.cook(uid),xxh32,mod(100),sub(txn.limit) lt 0 }",
        ]
    tls = ""
    if job.tls is not None:
        both = job.folder / "both.pem"
        both.write_bytes(job.tls[0].read_bytes() + job.tls[1].read_bytes())
        tls = f" ssl crt {both} ssl-min-ver TLSv1.3 alpn http/1.1"
    return "\n".join(
        [
            "global",
            f"  nbthread {job.workers}",
            f"  maxconn {job.connections + 100}",
            "  no strict-limits",  # else it asks for two descriptors a connection before it needs them
            f"  stats socket {job.folder}/admin.sock level admin",
            *(["  log stdout format raw local0"] if job.has_log else []),
            "defaults",
            "  mode http",
            *(["  log global", "  option httplog"] if job.has_log else []),
            "  timeout connect 1s",
            "  timeout client 75s",
            "  timeout server 60s",
            "  timeout http-keep-alive 75s",
            "  timeout tunnel 10m",
            "  option forwardfor",
            "  http-reuse always",
            "frontend all",
            f"  bind 127.0.0.1:{job.port}{tls}",
            f"  http-request set-header X-Forwarded-Proto {'https' if job.tls else 'http'}",
            *(f"  {line}" for line in split if line.startswith("http-request")),
            "  use_backend canary if { req.hdr(X-Canary) -m str yes }",
            *(f"  {line}" for line in split if line.startswith("use_backend")),
            "  default_backend stable",
            *(f"backend {arm}\n  server one 127.0.0.1:{port}" for arm, port in job.backends.items()),
            "",
        ]
    )
