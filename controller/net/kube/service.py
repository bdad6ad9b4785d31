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
from functools import partial

from controller import metrics, planner
from controller.errors import ControllerError, Permanent
from controller.net.engine import Clocks
from controller.net.kube import exposition
from controller.net.kube.client import Account, Client, in_cluster
from controller.net.kube.holder import Means
from controller.net.kube.once import Once, lasting
from controller.net.kube.peers import by_control_port
from controller.net.kube.replica import Pod, Replica
from controller.net.proxies import ProxyClient
from controller.spec import ControllerSettings, Kube
from proxy.keys import KeyFileError
from proxy.net.keyfiles import load_keys

KEYS_S = 1.0  # between looks at keys that cannot be read

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

    Whatever may heal is waited for: files that are not there yet or cannot be read, an API server, its definitions, the
    own proxy.

    Raises:
        Permanent: It is in no pod.
    """
    try:
        account = in_cluster(os.environ, kube.account_dir)
    except ValueError as error:
        raise Permanent(f"--kube: {error}") from None
    begun = _Begun(settings, kube, account)
    async with asyncio.TaskGroup() as tasks:
        work = [tasks.create_task(lasting("the controller", begun.run), name="replica")]
        if listen := kube.metrics.listen:
            serving = partial(exposition.serve, listen, begun.metrics)
            work.append(tasks.create_task(lasting("the metrics' port", serving), name="metrics"))
        await stop.wait()
        for task in work:
            task.cancel()


class _Begun:
    """A replica as soon as there can be one."""

    def __init__(self, settings: ControllerSettings, kube: Kube, account: Account) -> None:
        self._settings, self._kube, self._account = settings, kube, account
        self._replica: Replica | None = None
        self._since = time.monotonic()

    async def run(self) -> None:
        """Wait for the keys, then work until cancelled."""
        means = Means(await self._secrets(), Clocks(time.monotonic, time.time), self._settings.poll_interval)
        async with Client(self._account) as client:
            here = pod(self._settings, self._kube, os.environ)
            self._replica = Replica(self._kube, client, here, means, random.random)
            try:
                await self._replica.run()
            finally:
                self._replica = None

    async def _secrets(self) -> Mapping[str, bytes]:
        """The split secrets by `planner.key_id`, the current one first."""
        problems = Once()
        while True:
            try:
                # Never made here: keys of one replica's own would deal its users anew.
                keys = await asyncio.to_thread(load_keys, self._settings.keys_dir, is_made=False)
                break
            except KeyFileError as error:
                problems.say(f"keysDir: {error}: waiting for it")
            await asyncio.sleep(KEYS_S)
        known = [keys.split.current, *([keys.split.previous] if keys.split.previous else [])]
        return {planner.key_id(secret): secret for secret in known}

    def metrics(self) -> str:
        """What Prometheus reads."""
        if self._replica is not None:
            return self._replica.metrics()
        waiting_s = time.monotonic() - self._since
        key = f"{self._kube.namespace}/{self._kube.rollout}"
        return metrics.exposition([], metrics.Replica(key, False, waiting_s, waiting_s, waits_for="keys"))


def pod(settings: ControllerSettings, kube: Kube, env: Mapping[str, str]) -> Pod:
    """This replica, by its environment."""
    name = env.get("POD_NAME") or os.uname().nodename
    identity = f"{name}_{(env.get('POD_UID') or name)[:8]}"
    own = ProxyClient(settings.proxies[0], is_fed=True, name=name)
    return Pod(name, identity, own, ProxyClient(settings.proxies[0]), by_control_port(settings, kube))
