"""The pods' network, without a cluster."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kube.pods.network import BRIDGE, LOCKS, NAMESPACES, Network, sweep, within
from tests.kube.pods.session import is_root
from tests.support.require import require

HOLD = """
import pathlib, sys
from tests.kube.pods.network import Network
network = Network(pathlib.Path(sys.argv[1]))
print(network.run, network.attach().namespace, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def root() -> None:
    if not is_root():
        pytest.skip("network namespaces are made by root only")
    require("ip", "iproute2")


def test_two_pods_reach_each_other_and_the_bridge(tmp_path: Path) -> None:
    """From the moment on that they are attached; nobody else is there."""
    network = Network(tmp_path)
    try:
        one, two = network.attach(), network.attach()
        with within(two.namespace, lambda: socket.create_server((two.address, 0))) as server:
            port = server.getsockname()[1]
            within(one.namespace, lambda: socket.create_connection((two.address, port), timeout=30)).close()
        with within(network.control, lambda: socket.create_server((BRIDGE, 0))) as server:
            port = server.getsockname()[1]
            within(two.namespace, lambda: socket.create_connection((BRIDGE, port), timeout=30)).close()
        network.detach(one)
        assert not one.namespace.exists()
        assert network.attach().address not in (one.address, two.address)  # which may still be remembered somewhere
    finally:
        network.close()
    assert not [path for path in NAMESPACES.iterdir() if network.run in path.name]


def test_what_a_killed_run_has_left_is_removed_and_what_lives_is_not(tmp_path: Path) -> None:
    """By the next run that begins."""
    folders = [tmp_path / "dead", tmp_path / "live"]
    runs = []
    for folder in folders:
        folder.mkdir()
        command = [sys.executable, "-c", HOLD, str(folder)]
        runs.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    names = []
    for run in runs:
        assert run.stdout
        names.append(run.stdout.readline().split()[0])
    dead, live = runs
    dead.kill()
    dead.communicate()
    sweep()
    left = " ".join(path.name for path in NAMESPACES.iterdir())
    assert names[0] not in left
    assert not folders[0].exists()
    assert not (LOCKS / names[0]).exists()
    assert names[1] in left
    assert folders[1].exists()
    live.kill()
    live.communicate()
    sweep()
    assert not folders[1].exists()
