"""The two backends: one nginx that answers with constant bytes and counts what it was asked."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from tests.bench.peers import nginx_command
from tests.bench.workload import Workload


def backend_command(folder: Path, ports: Mapping[str, int], status_port: int, workload: Workload) -> list[str]:
    """The command line of both backends, each on its port by arm."""
    answers = workload.answers()
    extra = "add_header X-Trace-Id $request_id;" if workload.answer_id else ""
    servers = "".join(
        f"server {{ listen 127.0.0.1:{port}; default_type text/plain; {extra} "
        f'location / {{ return 200 "{answers[arm].decode()}"; }} }}\n'
        for arm, port in ports.items()
    )
    status = f"server {{ listen 127.0.0.1:{status_port}; location / {{ stub_status; }} }}\n"
    return nginx_command(folder, servers + status)


def requests_answered(status_port: int) -> int:
    """How many requests the backends have answered so far, this question included."""
    with urllib.request.urlopen(f"http://127.0.0.1:{status_port}/", timeout=5) as answer:
        numbers = re.search(r"\n\s*(\d+)\s+(\d+)\s+(\d+)\s*\n", answer.read().decode())
    assert numbers is not None, "stub_status has a line of three numbers"
    return int(numbers[3])
