"""The generator: wrk for the load, a plain client to see that the answers are the backends' and the split is sticky."""

from __future__ import annotations

import http.client
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.bench.process import OTHER_CORE
from tests.bench.workload import Workload
from tests.support.require import find

SAMPLE_USERS = 400
SHARE_TOLERANCE = 0.11  # five standard deviations of 400 users at 25 %
SCRIPT = Path(__file__).with_name("users.lua")


class WrongAnswerError(Exception):
    """A peer did not do the job that is measured."""


@dataclass(frozen=True, slots=True)
class Load:
    """One run of the generator: times in microseconds; faults are connects, reads, writes, status codes, time-outs."""

    requests: int
    bytes: int
    duration_us: int
    p50_us: int
    p99_us: int
    faults: int


def generate(workload: Workload, port: int, seconds: int, folder: Path) -> Load:
    """Send as much as the peer takes.

    Raises:
        WrongAnswerError: Any fault, or no answer at all.
    """
    template = folder / "request"
    template.write_bytes(workload.request())
    argv = ["taskset", "-c", str(OTHER_CORE), find("wrk"), "-t1", f"-c{workload.connections}", f"-d{seconds}s"]
    argv += ["-s", str(SCRIPT), f"http://127.0.0.1:{port}", "--", str(template), str(workload.users)]
    done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True, timeout=seconds + 30)
    load = Load(**json.loads(done.stdout.strip().splitlines()[-1]))
    if load.faults or not load.requests:
        raise WrongAnswerError(f"{load.faults} faults in {load.requests} requests:\n{done.stdout}")
    return load


def answers(workload: Workload, port: int) -> bool:
    """Whether one request is answered with 200."""
    try:
        return _ask(workload, port, "0")[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def check(workload: Workload, port: int) -> float:
    """The canary's share of a sample of users, each of whom is asked for twice.

    Raises:
        WrongAnswerError: An answer that is no backend's, a user with two versions, or a share far from the weight.
    """
    arm_of = {body: arm for arm, body in workload.answers().items()}
    canary = 0
    for user in range(SAMPLE_USERS):
        seen = [_ask(workload, port, f"sample-{user}") for _ in range(2)]
        if any(status != 200 or body not in arm_of for status, body in seen):
            raise WrongAnswerError(f"expected 200 and a backend's bytes, got {seen}")
        if seen[0] != seen[1]:
            raise WrongAnswerError(f"user {user} saw two versions")
        canary += arm_of[seen[0][1]] == "canary"
    share = canary / SAMPLE_USERS
    if abs(share - workload.canary_percent / 100) > SHARE_TOLERANCE:
        raise WrongAnswerError(f"expected {workload.canary_percent} % of users on the canary, got {share:.1%}")
    return share


def _ask(workload: Workload, port: int, user: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.putrequest("GET", workload.path, skip_host=True, skip_accept_encoding=True)
        for name, value in workload.fields:
            connection.putheader(name, value.replace("@USER@", user))
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
