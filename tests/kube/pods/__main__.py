"""The runner as a process: ``python -m tests.kube.pods SETTINGS``, a file that ``session.PodRunner`` writes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import ssl
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.kube.pods.api import Api
from tests.kube.pods.gateway import CUT, RELAY_PORT, RENEW, Relay
from tests.kube.pods.logs import serve_logs
from tests.kube.pods.network import BRIDGE, Network
from tests.kube.pods.node import Node
from tests.kube.pods.sandbox import setns


def main() -> None:
    """Make the network, move into it, and run pods until SIGTERM."""
    settings = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(settings["folder"])
    logs = socket.create_server(("127.0.0.1", 0))
    network = Network(folder)
    try:
        with ThreadPoolExecutor(1) as outside:
            outside.submit(int).result()  # its thread stays in the namespace that this one leaves now
            setns(str(network.control))
            with contextlib.suppress(asyncio.CancelledError):
                asyncio.run(_serve(settings, network, logs, outside))
    finally:
        network.close()


async def _serve(settings: dict[str, Any], network: Network, logs: socket.socket, outside: ThreadPoolExecutor) -> None:
    task = asyncio.current_task()
    assert task
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    tls = ssl.create_default_context(cafile=settings["authority"])
    tls.load_cert_chain(settings["certificate"], settings["key"])
    folder = Path(settings["folder"])
    api = Api(f"https://{BRIDGE}:{RELAY_PORT}", tls)
    node = Node(folder, api, network)

    relay = Relay("127.0.0.1", settings["port"], outside)
    asyncio.get_running_loop().add_signal_handler(CUT, relay.cut)
    asyncio.get_running_loop().add_signal_handler(RENEW, node.renew_tokens)

    def ready() -> None:
        (folder / "ready").write_text(network.run)

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(relay.serve())
            group.create_task(serve_logs(node, logs, settings))
            group.create_task(node.run(logs.getsockname()[1], ready))
    finally:
        await api.close()


if __name__ == "__main__":
    main()
