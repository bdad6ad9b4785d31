"""nginx: split_clients over the cookie, kept-alive upstreams."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

from tests.bench.peers.job import Job, first_line
from tests.support.require import find

UPGRADE = """
proxy_set_header Upgrade $http_upgrade;
proxy_set_header Connection $upgrade_or_nothing;
"""


class Nginx:
    """One of the peers; what is not written here is nginx's default."""

    name = "nginx"

    def version(self) -> str:
        """As the program says it."""
        return first_line([find("nginx"), "-v"]).removeprefix("nginx version: ")

    def lacks(self, need: str) -> str:
        """Nothing."""
        return ""

    def command(self, job: Job) -> list[str]:
        """As many workers as asked for."""
        return nginx_command(job.folder, _servers(job), job.workers, job.connections * 3, job.has_log)

    def change(self, job: Job, pid: int, canary_percent: int) -> None:
        """Another file, and SIGHUP."""
        self.command(replace(job, canary_percent=canary_percent))
        os.kill(pid, signal.SIGHUP)


def _servers(job: Job) -> str:
    upstreams = "".join(
        f"upstream {arm} {{ server 127.0.0.1:{port}; keepalive 128; keepalive_requests 1000000000; }}\n"
        for arm, port in job.backends.items()
    )
    share = f"{job.canary_percent}% canary; " if job.canary_percent else ""
    listen, tls = f"127.0.0.1:{job.port}", ""
    if job.tls is not None:
        listen += " ssl"
        tls = f"ssl_certificate {job.tls[0]}; ssl_certificate_key {job.tls[1]}; ssl_protocols TLSv1.3;"
    return f"""
    split_clients "$cookie_uid" $share {{ {share}* stable; }}
    map $http_x_canary $arm {{ yes canary; default $share; }}
    map $http_upgrade $upgrade_or_nothing {{ default upgrade; "" ""; }}
    {upstreams}
    server {{
        listen {listen};
        {tls}
        location / {{
            proxy_pass http://$arm;
            proxy_http_version 1.1;
            {UPGRADE if job.upgrades else 'proxy_set_header Connection "";'}
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_max_temp_file_size 0;
        }}
    }}
    """


def nginx_command(
    folder: Path, servers: str, workers: int = 1, connections: int = 4096, has_log: bool = False
) -> list[str]:
    """An nginx with the given blocks of its ``http`` section."""
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    path = folder / "nginx.conf"
    user = "" if os.geteuid() else "user root; "  # else its workers may not read the folder
    path.write_text(
        f"{user}daemon off; worker_processes {workers}; pid {folder}/nginx.pid; error_log stderr warn;\n"
        f"events {{ worker_connections {connections}; }}\n"
        f"http {{ access_log {folder / 'access.log' if has_log else 'off'}; keepalive_requests 1000000000;\n"
        f"{temporary} {servers} }}\n"
    )
    return [find("nginx"), "-p", str(folder), "-e", "stderr", "-c", str(path)]
