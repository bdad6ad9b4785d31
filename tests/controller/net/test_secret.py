"""The Secret of an installation: what is in it, and that it is made once."""

from __future__ import annotations

import base64
import datetime
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web

from controller.errors import Permanent, Temporary
from controller.net import secret
from proxy import keys

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def files(made: dict[str, Any]) -> dict[str, bytes]:
    """What a pod that mounts the Secret sees."""
    return {name: base64.b64decode(content) for name, content in made["data"].items()}


def test_it_has_every_key_and_none_twice() -> None:
    """A proxy whose keys directory it is starts with it."""
    found = keys.parse(files(secret.manifest("keys", "shop", secret.contents(NOW))))
    assert len({getattr(found, name).current for name in keys.NAMES}) == len(keys.NAMES)
    assert secret.contents(NOW) != secret.contents(NOW)


def test_the_certificate_is_trusted_by_itself_alone(tmp_path: Path) -> None:
    """Control ports are pinned: whoever trusts this certificate believes one name, and nobody else's."""
    made = secret.contents(datetime.datetime.now(datetime.UTC))
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).write_bytes(made[name])
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    shake_hands(server, ssl.create_default_context(cafile=str(tmp_path / "tls.crt")), secret.CONTROL_NAME)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(server, ssl.create_default_context(cafile=str(tmp_path / "tls.crt")), "other")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(server, ssl.create_default_context(), secret.CONTROL_NAME)


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> None:
    """A handshake in memory."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(down, up, server_hostname=name), server.wrap_bio(up, down, server_side=True)]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass


class ApiServer:
    """What answers POSTs of Secrets.

    Attributes:
        statuses: One for each answer.
        seen: Authorization and document of each request.
    """

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.seen: list[tuple[str | None, Any]] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.seen.append((request.headers.get("Authorization"), await request.json()))
        assert request.path == "/api/v1/namespaces/shop/secrets"
        return web.json_response({"message": "why"}, status=self.statuses.pop(0))


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ApiServer]:
    """One that this process takes for its cluster's."""
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    (tmp_path / "token").write_text("t0ken\n")
    found = ApiServer()
    application = web.Application()
    application.router.add_post("/{path:.*}", found.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(runner.addresses[0][1]))
    yield found
    await runner.cleanup()


async def test_it_is_created_once_and_then_left_alone(server: ApiServer, tmp_path: Path) -> None:
    """409: there is one, whose keys users are dealt by."""
    made = secret.manifest("keys", "shop", secret.contents(NOW))
    server.statuses = [201, 409]
    assert await secret._create(made, tmp_path)
    assert not await secret._create(made, tmp_path)
    assert server.seen == [("Bearer t0ken", made)] * 2


@pytest.mark.parametrize(("status", "kind"), [(403, Permanent), (422, Permanent), (429, Temporary), (500, Temporary)])
async def test_a_refusal_says_whether_to_try_again(
    server: ApiServer, tmp_path: Path, status: int, kind: type[Exception]
) -> None:
    server.statuses = [status]
    with pytest.raises(kind, match=f"answered {status}: .*why"):
        await secret._create(secret.manifest("keys", "shop", {}), tmp_path)


async def test_an_authority_that_is_not_the_cluster_s_is_not_believed(server: ApiServer, tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.crt")
    with pytest.raises(Temporary, match="not reached"):
        await secret._create(secret.manifest("keys", "shop", {}), tmp_path)
    assert server.seen == []


def test_outside_of_a_pod_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(Permanent, match="for a pod in a cluster"):
        secret.create(secret.manifest("keys", "shop", {}))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    with pytest.raises(Permanent, match="files of a service account"):
        secret.create(secret.manifest("keys", "shop", {}), tmp_path)
