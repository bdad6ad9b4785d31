from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest

from tests.bench import client
from tests.bench.peers import PEERS
from tests.bench.stage import Entrant, Stage
from tests.bench.workload import WORKLOADS, Variant
from tests.support.require import require


@pytest.mark.parametrize("name", PEERS)
def test_every_peer_does_the_job(name: str, tmp_path: Path) -> None:
    """Bytes, a sticky split of the right share, the override and X-Forwarded-For; over TLS 1.3, where it has that."""
    require("nginx")
    if name == "haproxy":
        require("haproxy")
    workload = WORKLOADS["small-get" if PEERS[name].lacks("tls") else "tls"]
    with contextlib.ExitStack() as stack:
        stage = Stage(workload, tmp_path, stack)
        stage.open()
        running = stage.start(Entrant(PEERS[name], Variant()))
        before = stage.counts()
        client.check(running.door)
        after = stage.counts()
        assert after.requests - before.requests > 800
        assert after.connections - before.connections < 10
        assert running.cpu_ns() > 0
        if running.door.splits:
            with pytest.raises(client.WrongAnswerError, match="expected 60% of users"):
                client.check(running.door, canary_percent=60)


def test_wrong_bytes_are_found(tmp_path: Path) -> None:
    """A proxy that answers something else than the backend must fail the run, however fast it is."""
    require("nginx")
    with contextlib.ExitStack() as stack:
        stage = Stage(WORKLOADS["small-get"], tmp_path, stack)
        stage.open()
        other = replace(stage.workload, answer_bytes=127)
        with pytest.raises(client.WrongAnswerError, match="backend's bytes"):
            client.check(replace(stage.direct, workload=other))
        with (
            pytest.raises(client.WrongAnswerError, match="under load"),
            client.watched(replace(stage.direct, workload=other)),
        ):
            client.check(stage.direct)
