"""Controllers as in a cluster, each beside a proxy, with a fake API server that has just what they watch."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.faults.stand import ServiceProcess, Stand
from tests.faults.steering import free_port
from tests.integration.programs import Program, RealProxy, until
from tests.support.certificates import Authority, write_pair
from tests.support.scripted_api import FakeApi, Object

CORE = "/api/v1/namespaces/shop"
COHORT = "/apis/cohort.dev/v1alpha1/namespaces/shop"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices"
ROLLOUTS = f"{COHORT}/canaryrollouts"
VERSION = "app.kubernetes.io/version"
LEASE = "3s"


def rollout(steps: Sequence[Object]) -> Object:
    """A CanaryRollout of two Services."""
    spec = {
        "stable": {"service": {"name": "checkout-stable", "port": "http"}},
        "canary": {"service": {"name": "checkout-canary", "port": "http"}},
        "revisionFrom": {"podLabel": VERSION},
        "users": [{"cookie": {"name": "uid"}}],
        "strategy": {"canary": {"steps": [*steps]}},
    }
    return {
        "apiVersion": "cohort.dev/v1alpha1",
        "kind": "CanaryRollout",
        "metadata": {"name": "checkout", "generation": 1},
        "spec": spec,
    }


class Controller:
    """One replica's."""

    def __init__(self, folder: Path, name: str, proxy: RealProxy, keys: Path, server: int) -> None:
        folder.mkdir()
        self.name = name
        account = folder.parent
        settings = {
            "kind": "ControllerSettings",
            "keysDir": str(keys),
            "proxies": [{"address": proxy.address}],
            "pollInterval": "200ms",
            "kube": {
                "namespace": "shop",
                "rollout": "checkout",
                "leaseDuration": LEASE,
                "accountDir": str(account),
                "controlService": f"{name}-control",
            },
        }
        (folder / "controller.yaml").write_text(yaml.safe_dump(settings))
        where = ("--namespace", "shop", "--rollout", "checkout", "--settings", "controller.yaml")
        self.program = Program(folder, "controller", "--kube", *where)
        own = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(server), "POD_NAME": name}
        self.program.environment = os.environ | own | {"POD_UID": f"{name}-uid"}

    def signal(self, number: int) -> None:
        assert self.program.process is not None
        self.program.process.send_signal(number)


class Replicas:
    """The API server, and the controllers.

    Attributes:
        api: The API server; `server_is_up` says whether it runs.
    """

    def __init__(self, folder: Path, stand: Stand) -> None:
        self.api = FakeApi()
        self.stand = stand
        self.server_is_up = False
        self._port = free_port()
        self._folder = folder / "account"
        self._folder.mkdir()
        authority = Authority()
        (self._folder / "ca.crt").write_bytes(authority.pem)
        (self._folder / "token").write_text("token")
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(*write_pair(self._folder, "server", authority.issue("127.0.0.1")))
        self.controllers = [
            Controller(self._folder / f"cohort-{number}", f"cohort-{number}", proxy, stand.keys, self._port)
            for number, proxy in enumerate(stand.proxies)
        ]
        self._up = contextlib.AsyncExitStack()

    async def start_server(self) -> None:
        """Start the API server, at the address it had before."""
        await self._up.enter_async_context(self.api.serving(self._tls, self._port))
        self.server_is_up = True

    async def stop_server(self) -> None:
        """End it and every connection."""
        self.server_is_up = False
        await self._up.aclose()

    # -- what the team has deployed

    async def deploy(self, steps: Sequence[Object]) -> None:
        """Services, pods and a rollout."""
        for arm, services in (("stable", self.stand.stable), ("canary", self.stand.canary)):
            ports = [{"name": "http", "port": 80, "protocol": "TCP"}]
            await self.api.put(f"{CORE}/services", {"metadata": {"name": f"checkout-{arm}"}, "spec": {"ports": ports}})
            for service in services:
                await self.open(service)
        for controller in self.controllers:
            await self._alone(controller.name)
        await self.api.put(ROLLOUTS, rollout(steps))

    async def _alone(self, name: str) -> None:
        """A control Service for each replica: on one machine they have one address, and each asks its own proxy."""
        ports = [{"port": 8083, "protocol": "TCP"}]
        await self.api.put(f"{CORE}/services", {"metadata": {"name": f"{name}-control"}, "spec": {"ports": ports}})
        target = {"kind": "Pod", "name": name, "uid": f"{name}-uid"}
        item = {
            "metadata": {"name": f"{name}-control", "labels": {"kubernetes.io/service-name": f"{name}-control"}},
            "addressType": "IPv4",
            "ports": ports,
            "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}, "targetRef": target}],
        }
        await self.api.put(SLICES, item)

    async def open(self, service: ServiceProcess) -> None:
        """Put one endpoint behind its Service; a slice of its own, for on one machine each has a port of its own."""
        arm = service.name.partition("-")[0]
        labels = {VERSION: "v1" if arm == "stable" else "v2"}
        pod = await self.api.put(f"{CORE}/pods", {"metadata": {"name": service.name, "labels": labels}, "spec": {}})
        target = {"kind": "Pod", "name": service.name, "uid": pod["metadata"]["uid"]}
        item = {
            "metadata": {"name": service.name, "labels": {"kubernetes.io/service-name": f"checkout-{arm}"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": service.port, "protocol": "TCP"}],
            "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}, "targetRef": target}],
        }
        await self.api.put(SLICES, item)

    async def shut(self, service: ServiceProcess) -> None:
        """Take it away again."""
        await self.api.remove(SLICES, service.name)

    # -- what there is to see

    @property
    def status(self) -> Object:
        found: Object = self.api.get(ROLLOUTS, "checkout").get("status") or {}
        return found

    async def wait_for(self, look: Callable[[Object], Any], seconds: float = 60.0) -> Object:
        """Wait until the status is as it should be."""

        async def holds() -> Any:
            return self.status if look(self.status) else None

        try:
            found: Object = await until(holds, seconds)
        except TimeoutError as error:
            told = "\n".join(one.program.log[-1500:] for one in self.controllers)
            seen = {key: value for key, value in self.status.items() if key not in ("state", "plan")}
            raise TimeoutError(f"{error}: {seen}\n{told}") from None
        return found

    def holder(self) -> Controller:
        """Whoever wrote the status last."""
        identity = (self.status.get("leader") or {}).get("identity", "")
        return next(one for one in self.controllers if identity.startswith(f"{one.name}_"))


@contextlib.asynccontextmanager
async def replicas(folder: Path, stand: Stand, steps: Sequence[Object]) -> AsyncIterator[Replicas]:
    """All of it, running; the proxies have no plan but what their controllers give them."""
    made = Replicas(folder, stand)
    await asyncio.gather(*(proxy.start_afresh() for proxy in stand.proxies))
    await made.deploy(steps)
    await made.start_server()
    try:
        for controller in made.controllers:
            await controller.program.start()
        await made.wait_for(lambda status: (status.get("plan") or {}).get("current"))
        await until(lambda: _have_plans(stand))
        yield made
    finally:
        for controller in made.controllers:
            if controller.program.process is not None:
                await controller.program.stop(signal.SIGKILL)
        await made.stop_server()


async def _have_plans(stand: Stand) -> bool:
    return all([(await proxy.state())["plan"] for proxy in stand.proxies])
