"""The control port: who may ask, and for what alone."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme

from proxy.document import DocumentError
from proxy.net.control import ControlTls, control_app
from proxy.net.credentials import Pair
from proxy.net.start import read_start
from proxy.net.web import Site
from tests.proxy.net.test_admin import FakeSupervisor

TOKEN = "0123456789abcdef-control"


def pair() -> Pair:
    made = trustme.CA().issue_cert("cohort")
    return Pair(b"".join(blob.bytes() for blob in made.cert_chain_pems), made.private_key_pem.bytes())


@dataclass
class Port:
    url: str
    supervisor: FakeSupervisor
    tls: ControlTls
    token_file: Path
    shown: Pair

    async def ask(self, method: str, path: str, token: str = TOKEN, **more: Any) -> tuple[int, Any]:
        """One request on a connection of its own, with the certificate in `shown` pinned."""
        context = ssl.create_default_context(cadata=self.shown.certificate.decode())
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        headers = {"Authorization": f"Bearer {token}"} | more.pop("headers", {})
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session,
            session.request(method, self.url + path, headers=headers, **more) as answer,
        ):
            return answer.status, await answer.json()


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[Port]:
    token_file = tmp_path / "control"
    token_file.write_text(TOKEN)
    shown = pair()
    tls, supervisor = ControlTls(shown), FakeSupervisor()
    sock = socket.create_server(("127.0.0.1", 0))
    url = f"https://127.0.0.1:{sock.getsockname()[1]}"
    app: Any = control_app(supervisor, token_file, lambda: 0.0, lambda request: site.admit(request))  # type: ignore[arg-type]
    site = Site(app, [sock], tls.context)
    await site.open()
    yield Port(url, supervisor, tls, token_file, shown)
    await site.close()


async def test_tells_state_and_stats_and_takes_an_abort(port: Port) -> None:
    assert await port.ask("GET", "/state") == (200, {})
    assert await port.ask("GET", "/stats") == (200, {})
    status, latch = await port.ask("POST", "/abort", json={"by": "anna", "id": "0123456789abcdef"})
    assert (status, latch["id"]) == (200, "0123456789abcdef")
    assert port.supervisor.keeper.latch


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/plan"),
        ("GET", "/plan"),
        ("POST", "/drain"),
        ("POST", "/reload"),
        ("GET", "/config"),
        ("GET", "/ready"),
    ],
)
async def test_nothing_else_is_there(port: Port, method: str, path: str) -> None:
    assert (await port.ask(method, path, json={}))[0] == 404


async def test_without_the_token_nobody_is_told_anything(port: Port) -> None:
    assert (await port.ask("GET", "/state", token="wrong"))[0] == 401
    assert (await port.ask("POST", "/abort", token="", json={"by": "mallory"}))[0] == 401
    assert port.supervisor.keeper.latch is None


async def test_a_browser_may_not_ask(port: Port) -> None:
    assert (await port.ask("GET", "/state", headers={"Origin": "https://evil.example"}))[0] == 403


async def test_whoever_has_another_certificate_pinned_does_not_speak_to_it(port: Port) -> None:
    port.shown = pair()
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await port.ask("GET", "/state")


async def test_a_renewed_certificate_is_shown_from_the_next_handshake_on(port: Port) -> None:
    port.shown = pair()
    port.tls.renew(port.shown)
    assert (await port.ask("GET", "/state"))[0] == 200


async def test_a_replaced_token_counts_at_once_and_one_that_is_gone_leaves_the_last(port: Port) -> None:
    port.token_file.write_text("another-token-of-enough-length")
    assert (await port.ask("GET", "/state"))[0] == 401
    assert (await port.ask("GET", "/state", token="another-token-of-enough-length"))[0] == 200
    port.token_file.unlink()
    assert (await port.ask("GET", "/state", token="another-token-of-enough-length"))[0] == 200


def test_settings_with_a_control_port_need_its_certificate_and_token(tmp_path: Path) -> None:
    settings = tmp_path / "proxy.yaml"
    settings.write_text("kind: ProxySettings\ncontrol: {listen: '127.0.0.1:0'}\n")
    with pytest.raises(DocumentError, match=r"control\.tls"):
        read_start(settings)
    made = pair()
    (tmp_path / "keys").mkdir(exist_ok=True)
    (tmp_path / "keys/tls.crt").write_bytes(made.certificate)
    (tmp_path / "keys/tls.key").write_bytes(made.key)
    (tmp_path / "keys/control").write_text("short")
    with pytest.raises(DocumentError, match="control"):
        read_start(settings)
