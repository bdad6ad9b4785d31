"""``cohort controller --kube`` as a process, started before anything that it needs is there."""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
import yaml
from aiohttp import web

from controller.errors import Temporary
from controller.net import secret
from controller.net.kube.peers import Pinned
from proxy import keys
from tests.integration.programs import Program, until

pytestmark = pytest.mark.slow

TOKEN = "a-token-of-an-account"
CLUSTER = "/apis/coordination.k8s.io/v1/namespaces/shop/leases"
ROLLOUT = {
    "metadata": {"name": "checkout", "namespace": "shop", "uid": "1", "resourceVersion": "1"},
    "spec": {},
    "status": {"plan": {"document": {"rollout": {"uid": "1"}, "generation": 1}}},
}


class ApiServer:
    """As much of one as a controller asks at its start.

    Attributes:
        has_definitions: Whether it knows the resources of cohort.dev.
        asked: Method, path and what Authorization said, of each request.
    """

    def __init__(self) -> None:
        self.has_definitions = False
        self.asked: list[tuple[str, str, str]] = []
        self.authority = trustme.CA()
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert("127.0.0.1").configure_cert(self.tls)
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))  # who connects is refused until it listens
        self._runner: web.AppRunner | None = None
        self._closing = asyncio.Event()

    @property
    def port(self) -> int:
        return int(self.socket.getsockname()[1])

    async def open(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.SockSite(self._runner, self.socket, ssl_context=self.tls).start()

    async def close(self) -> None:
        self._closing.set()
        if self._runner:
            await self._runner.cleanup()
        self.socket.close()

    def has_seen(self, method: str, path: str) -> bool:
        """Whether that was asked for with the right token."""
        return (method, path, f"Bearer {TOKEN}") in self.asked

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.method, request.path, request.headers.get("Authorization", "")))
        if "/cohort.dev/" in request.path and not self.has_definitions:
            return _refusal(404, "the server could not find the requested resource")
        if request.query.get("watch"):
            response = web.StreamResponse()
            await response.prepare(request)
            await self._closing.wait()
            return response
        if request.method == "POST":
            return web.json_response(await request.json(), status=201)
        if request.method != "GET":
            return _refusal(409, "the object has been modified")
        if request.path.startswith(f"{CLUSTER}/"):
            return _refusal(404, "leases not found")
        items = [ROLLOUT] if request.path.endswith("/canaryrollouts") else []
        return web.json_response({"items": items, "metadata": {"resourceVersion": "1"}})


def _refusal(status: int, message: str) -> web.Response:
    return web.json_response({"kind": "Status", "message": message}, status=status)


class Controller:
    """The process, with a settings file and nothing else."""

    def __init__(self, folder: Path, api: ApiServer) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._port = int(probe.getsockname()[1])
        settings = {
            "kind": "ControllerSettings",
            "keysDir": "keys",
            "proxies": [{"address": "unix:admin.sock"}],
            "kube": {
                "namespace": "shop",
                "rollout": "checkout",
                "accountDir": "account",
                "metrics": {"listen": f"127.0.0.1:{self._port}"},
            },
        }
        (folder / "controller.yaml").write_text(yaml.safe_dump(settings))
        self.program = Program(folder, "controller", "--kube", "--settings", "controller.yaml")
        self.program.environment = os.environ | {
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(api.port),
            "POD_NAME": "cohort-0",
        }

    async def says(self, text: str) -> None:
        """Wait until its log has a text; it is alive then."""

        async def said() -> bool:
            assert self.program.process is not None
            assert self.program.process.returncode is None, self.program.log
            return text in self.program.log

        try:
            await until(said, 60.0)
        except TimeoutError as error:
            raise AssertionError(f"{text!r} is not in\n{self.program.log}") from error

    async def waits_for(self, what: str) -> None:
        """Wait until its metrics say that it waits for something; empty: for nothing."""

        async def found() -> bool:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{self._port}/metrics") as answer,
            ):
                text = await answer.text()
            series = f'cohort_controller_waiting{{on="%s",rollout="shop/checkout"}} {1.0 if what else 0.0}'
            return all(series % each in text for each in ([what] if what else ["keys", "cluster"]))

        await until(found, 60.0)

    def lines(self, text: str) -> int:
        return sum(text in line for line in self.program.log.splitlines())


@pytest.fixture
async def api() -> AsyncIterator[ApiServer]:
    made = ApiServer()
    yield made
    await made.close()


async def test_whatever_may_heal_is_waited_for_told_once_and_never_ends_it(tmp_path: Path, api: ApiServer) -> None:
    """A sidecar that ends itself makes its Pod unready: keys, account, API server, definitions, its own proxy."""
    controller = Controller(tmp_path, api)
    await controller.program.start()
    await controller.says("keysDir: keys/cookie: expected a key file")
    await controller.waits_for("keys")
    assert not (tmp_path / "keys").exists()  # keys of its own would deal its users anew
    await _fill_keys(controller, tmp_path / "keys")
    await _fill_account(controller, tmp_path / "account", api)
    await api.open()
    await controller.says("the server could not find the requested resource")
    await controller.waits_for("cluster")
    api.has_definitions = True
    await controller.says("GET /state: ")  # there is a plan for its own proxy, which is not up
    await controller.waits_for("")
    await until(_true(lambda: api.has_seen("POST", CLUSTER)))
    assert controller.lines("keysDir: keys/cookie: expected a key file") == 1
    assert controller.lines("GET /state: ") == 1
    assert "Traceback" not in controller.program.log
    assert await controller.program.stop() == 0


async def _fill_keys(controller: Controller, folder: Path) -> None:
    folder.mkdir()
    for name in keys.NAMES:
        (folder / name).write_text("garbage")
    await controller.says("hexadecimal digits and a line feed, got 7 bytes")
    for name in keys.NAMES:
        (folder / name).write_bytes(keys.serialise(b"k" * 32))


async def _fill_account(controller: Controller, folder: Path, api: ApiServer) -> None:
    await controller.says("account/token cannot be read")
    folder.mkdir()
    (folder / "token").write_bytes(b"\xff\x00\n garbage")
    await controller.says("account/token has no token of printable characters")
    (folder / "token").write_text(TOKEN)
    await controller.says("account/ca.crt cannot be read")
    (folder / "ca.crt").write_text("garbage")
    await controller.says("account/ca.crt is no certificate")
    api.authority.cert_pem.write_to_path(folder / "ca.crt")
    await controller.says("Cannot connect to host 127.0.0.1")


def _true(look: Any) -> Any:
    async def look_again() -> bool:
        return bool(look())

    return look_again


async def test_what_cannot_heal_ends_it_with_the_reason(tmp_path: Path, api: ApiServer) -> None:
    """Settings are read once: wrong ones are 1 with the field path, a missing place 2; no pod is 1."""
    controller = Controller(tmp_path, api)
    path = tmp_path / "controller.yaml"
    settings = yaml.safe_load(path.read_text())
    for change, code, said in (
        ({"kube": settings["kube"] | {"leaseDuration": "1s"}}, 1, "kube.leaseDuration"),
        ({"kube": settings["kube"] | {"colour": "red"}}, 1, "kube.colour"),
        ({"kube": {"namespace": "shop"}}, 1, "kube.rollout"),
        ({"kube": None}, 2, "namespace"),
    ):
        path.write_text(json.dumps(settings | change))
        assert await _end(controller) == code, controller.program.log
        assert said in "".join(controller.program.log.splitlines()[-3:]), controller.program.log
    path.write_text(json.dumps(settings))
    assert controller.program.environment is not None
    del controller.program.environment["KUBERNETES_SERVICE_HOST"]
    assert await _end(controller) == 1
    assert "expected KUBERNETES_SERVICE_HOST" in controller.program.log.splitlines()[-1]


async def _end(controller: Controller) -> int:
    await controller.program.start()
    assert controller.program.process is not None
    async with asyncio.timeout(60):
        return await controller.program.process.wait()


def test_the_certificate_of_control_ports_is_read_again_and_what_is_none_is_told(tmp_path: Path) -> None:
    """A Secret that is replaced counts at once; until it can be read the replicas are merely not asked."""
    path = tmp_path / "tls.crt"
    pinned = Pinned(str(path))
    for content, said in ((None, "No such file"), (b"garbage", "tls.crt"), (b"\xff", "tls.crt"), (b"", "tls.crt")):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(Temporary, match=said):
            pinned.context()
    now = datetime.datetime.now(datetime.UTC)
    path.write_bytes(secret.contents(now)[secret.CERTIFICATE])
    first = pinned.context()
    assert pinned.context() is first
    path.write_bytes(secret.contents(now)[secret.CERTIFICATE])
    assert pinned.context() is not first
