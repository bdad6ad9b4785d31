"""The two backends: programs that answer with constant bytes and count what they were asked."""

from __future__ import annotations

import re
import sys
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.bench.peers.nginx import nginx_command
from tests.bench.workload import Workload

LONGEST_LITERAL = 2048  # nginx refuses long words in its configuration; longer answers are files


@dataclass(frozen=True, slots=True)
class Counts:
    """Of both backends since they started."""

    connections: int
    requests: int


def backend_command(folder: Path, ports: Mapping[str, int], status_port: int, workload: Workload) -> list[str]:
    """The command line of both backends, each on its port by arm."""
    if workload.is_streamed:
        arms = [f"{arm}={port}" for arm, port in ports.items()]
        module = [sys.executable, "-m", "tests.bench.programs.service"]
        return [*module, str(status_port), str(workload.answer_bytes), *arms]
    extra = "add_header X-Trace-Id $request_id;" if workload.answer_id else ""
    servers = "".join(
        f"server {{ listen 127.0.0.1:{port} backlog=4096; default_type text/plain; {extra}\n"
        'location = /forwarded-for { return 200 "$http_x_forwarded_for"; }\n'
        f"location / {{ {_answer(folder, arm, workload.answers()[arm])} }} }}\n"
        for arm, port in ports.items()
    )
    status = f"server {{ listen 127.0.0.1:{status_port}; location / {{ stub_status; }} }}\n"
    return nginx_command(folder, servers + status, connections=32_768)


def _answer(folder: Path, arm: str, body: bytes) -> str:
    if len(body) <= LONGEST_LITERAL:
        return f'return 200 "{body.decode()}";'
    (folder / arm).write_bytes(body)
    return f"root {folder}; try_files /{arm} =404; sendfile on; tcp_nopush on; open_file_cache max=4;"


def counts(status_port: int) -> Counts:
    """What the backends have counted so far, this question included."""
    with urllib.request.urlopen(f"http://127.0.0.1:{status_port}/", timeout=20) as answer:
        numbers = re.search(r"\n\s*(\d+)\s+(\d+)\s+(\d+)\s*\n", answer.read().decode())
    assert numbers is not None, "stub_status has a line of three numbers"
    return Counts(int(numbers[1]), int(numbers[3]))
