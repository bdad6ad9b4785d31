"""The proxies of all replicas, as the one that decides asks them: its own, and the others by their control ports."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from controller.endpoints import Place, Unusable
from controller.errors import Temporary
from controller.net.kube.namespace import Namespace
from controller.net.proxies import Control, ProxyClient
from controller.spec import ControllerSettings, Kube
from controller.version import ServiceRef
from proxy.plan import Endpoint

Connect = Callable[[str, str], ProxyClient]


def by_control_port(settings: ControllerSettings, kube: Kube) -> Connect:
    """What makes the client of a replica, of its name and the URL of its control port."""

    pinned = Pinned(kube.control_ca(settings.keys_dir))

    def connect(name: str, url: str) -> ProxyClient:
        at = Control(url, kube.control_token(settings.keys_dir), pinned.context)
        return ProxyClient(settings.proxies[0], is_fed=True, at=at, name=name)

    return connect


class Pinned:
    """The certificate that control ports show, read again when its file is another one.

    Args:
        path: Of the file.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._content = b""
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        """What trusts it and nothing else; raises `Temporary`."""
        try:
            content = Path(self._path).read_bytes()
            if self._context is None or content != self._content:
                self._context, self._content = _trusting(content), content
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            reason = getattr(error, "strerror", None) or error
            raise Temporary(f"the certificate of control ports, {self._path}: {reason}") from None
        return self._context


def _trusting(certificate: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody yet; a default one takes no data for everybody
    context.load_verify_locations(cadata=certificate.decode("ascii"))
    context.check_hostname = False  # the certificate itself is pinned
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


class Unfound(ProxyClient):
    """Replicas that nobody knows where to ask: nothing advances, as for one that does not answer.

    Args:
        name: What would tell where they are.
        problem: Why it does not.
    """

    def __init__(self, name: str, problem: str) -> None:
        self.address = name
        self.is_fed = True
        self._putting = asyncio.Lock()
        self._problem = problem

    async def close(self) -> None:
        """There is nothing to close."""

    async def _ask(
        self, method: str, path: str, limit_s: float, body: bytes | None = None, extra: dict[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        raise Temporary(self._problem)


class Peers:
    """One client a replica, the same one as long as the replica is there.

    Args:
        kube: Names the headless Service of the control ports.
        namespace: As it is now.
        pod: The own one.
        own: The own proxy by its admin API.
        connect: Makes a client, of a replica's name and URL.
    """

    def __init__(self, kube: Kube, namespace: Namespace, pod: str, own: ProxyClient, connect: Connect) -> None:
        self._ref = ServiceRef(name=kube.control, port=kube.control_port)
        self._namespace = namespace
        self._pod = pod
        self._own = own
        self._connect = connect
        self._others: dict[tuple[str, str], ProxyClient] = {}
        self._gone: list[ProxyClient] = []
        self._unfound: Unfound | None = None

    def clients(self) -> list[ProxyClient]:
        """Of all replicas that there are now. Those of before that left are open until `retire`."""
        places, problem = self._places()
        wanted = {(place.uid, _url(place.endpoint)): place for place in places if place.pod != self._pod}
        self._gone += [self._others.pop(key) for key in [key for key in self._others if key not in wanted]]
        for key, place in wanted.items():
            if key not in self._others:
                self._others[key] = self._connect(place.pod or place.uid, key[1])
        if not problem:
            self._unfound = None
            return [self._own, *self._others.values()]
        self._unfound = self._unfound or Unfound(f"Service {self._ref.name}", problem)
        return [self._own, *self._others.values(), self._unfound]

    def _places(self) -> tuple[tuple[Place, ...], str]:
        """Where replicas are, and why these may not be all; where this one is not among them, others may lack too."""
        try:
            places = self._namespace.places(self._ref)
        except Unusable as error:
            return (), str(error)
        is_known = any(place.pod == self._pod for place in places)
        return places, "" if is_known else f"its endpoints do not name this replica, {self._pod}"

    async def retire(self) -> None:
        """Close the clients of replicas that left, when nobody uses them any more."""
        while self._gone:
            await self._gone.pop().close()

    async def close(self) -> None:
        """Close all."""
        for client in (self._own, *self._others.values(), *self._gone):
            await client.close()


def _url(endpoint: Endpoint) -> str:
    host = f"[{endpoint.address}]" if ":" in endpoint.address else endpoint.address
    return f"https://{host}:{endpoint.port}"
