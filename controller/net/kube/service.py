"""The process of a controller in a cluster: keys, account and names in, a replica at work until it is told to end."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack

from controller import planner
from controller.errors import ControllerError, Permanent
from controller.net.engine import Clocks
from controller.net.kube import exposition
from controller.net.kube.client import Account, Client, in_cluster
from controller.net.kube.holder import Means
from controller.net.kube.peers import by_control_port
from controller.net.kube.replica import Pod, Replica
from controller.net.proxies import ProxyClient
from controller.spec import ControllerSettings, Kube
from proxy.keys import KeyFileError
from proxy.net.keyfiles import load_keys

log = logging.getLogger("cohort.kube")


def run(settings: ControllerSettings, kube: Kube) -> None:
    """Run a controller until SIGTERM or SIGINT. Ends the process with 1 and a reason if it cannot start."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    try:
        asyncio.run(_until_signalled(settings, kube))
    except ControllerError as error:
        log.critical("%s", error)
        sys.exit(1)


async def _until_signalled(settings: ControllerSettings, kube: Kube) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(settings, kube, stop)


async def serve(settings: ControllerSettings, kube: Kube, stop: asyncio.Event) -> None:
    """Run a controller until ``stop`` is set.

    Raises:
        Permanent: It cannot start: it is in no pod, or a key is missing.
    """
    secrets, account = await _given(settings, kube)
    means = Means(secrets, Clocks(time.monotonic, time.time), settings.poll_interval)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(Client(account))
        replica = Replica(kube, client, pod(settings, kube, os.environ), means, random.random)
        try:
            async with asyncio.TaskGroup() as tasks:
                work = [tasks.create_task(replica.run(), name="replica")]
                if kube.metrics.listen:
                    work.append(
                        tasks.create_task(exposition.serve(kube.metrics.listen, replica.metrics), name="metrics")
                    )
                await stop.wait()
                for task in work:
                    task.cancel()
        except ExceptionGroup as group:
            cause: Exception = group
            while isinstance(cause, ExceptionGroup):
                cause = cause.exceptions[0]
            raise cause from group


async def _given(settings: ControllerSettings, kube: Kube) -> tuple[Mapping[str, bytes], Account]:
    """The split secrets by `planner.key_id`, the current one first, and the pod's account; raises `Permanent`."""
    try:
        keys = await asyncio.to_thread(load_keys, settings.keys_dir)
        account = in_cluster(os.environ, kube.account_dir)
    except KeyFileError as error:
        raise Permanent(f"keysDir: {error}") from None
    except ValueError as error:
        raise Permanent(f"--kube: {error}") from None
    known = [keys.split.current, *([keys.split.previous] if keys.split.previous else [])]
    return {planner.key_id(secret): secret for secret in known}, account


def pod(settings: ControllerSettings, kube: Kube, env: Mapping[str, str]) -> Pod:
    """This replica, by its environment."""
    name = env.get("POD_NAME") or os.uname().nodename
    identity = f"{name}_{(env.get('POD_UID') or name)[:8]}"
    own = ProxyClient(settings.proxies[0], is_fed=True, name=name)
    return Pod(name, identity, own, ProxyClient(settings.proxies[0]), by_control_port(settings, kube))
