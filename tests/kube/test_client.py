"""Client, watch and Lease against a real API server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from controller.errors import Temporary
from controller.net.kube.client import ApiRefused, Client
from controller.net.kube.lease import Elector
from controller.net.kube.watch import Watch
from tests.kube.account import account
from tests.kube.cluster import PATIENCE_S, Cluster

pytestmark = pytest.mark.slow


def config_map(name: str) -> dict[str, object]:
    return {"metadata": {"name": name}}


def path(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/configmaps"


async def until(look: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not look():
            await asyncio.sleep(0.05)


@asynccontextmanager
async def watching(client: Client, namespace: str) -> AsyncIterator[Watch]:
    watch = Watch(client, path(namespace), lambda: None, draw=lambda: 0.0)
    task = asyncio.create_task(watch.run())
    try:
        await until(lambda: watch.is_synced)
        yield watch
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_watch_survives_an_api_server_that_restarts_and_forgets(
    cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    async with Client(account(cluster, namespace, tmp_path)) as client, watching(client, namespace) as watch:
        await client.ask("POST", path(namespace), config_map("a"))
        await until(lambda: "a" in watch.objects)
        await asyncio.to_thread(cluster.stop_api)
        with pytest.raises(Temporary):
            await client.ask("GET", path(namespace))
        assert "a" in watch.objects
        await asyncio.to_thread(cluster.start_api)
        await asyncio.to_thread(cluster.call, "DELETE", f"{path(namespace)}/a")
        await asyncio.to_thread(cluster.call, "POST", path(namespace), config_map("b"))
        await asyncio.to_thread(cluster.forget)
        await until(lambda: "a" not in watch.objects and "b" in watch.objects)


async def test_token_and_authority_are_read_again_when_they_change(
    cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    given = account(cluster, namespace, tmp_path)
    token, authority = Path(given.token_file), Path(given.ca_file)
    good, known = token.read_text(), authority.read_text()
    async with Client(given) as client:
        token.write_text("expired")
        with pytest.raises(ApiRefused) as refused:
            await client.ask("GET", path(namespace))
        assert refused.value.status == 401
        token.write_text(good)
        authority.write_bytes(_another_authority())
        with pytest.raises(Temporary):
            await client.ask("GET", path(namespace))
        authority.write_text(known)
        assert (await client.ask("GET", path(namespace)))["kind"] == "ConfigMapList"


def _another_authority() -> bytes:
    import trustme

    return trustme.CA().cert_pem.bytes()


async def test_an_api_server_that_hangs_is_no_endless_call(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    async with Client(account(cluster, namespace, tmp_path)) as client:
        await client.ask("GET", path(namespace))
        cluster.freeze_api()
        try:
            with pytest.raises(Temporary, match="no answer within 1 s"):
                await client.ask("GET", path(namespace), limit_s=1.0)
        finally:
            cluster.thaw_api()


async def test_a_lease_goes_from_one_to_the_next_when_it_is_released(
    cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    async with Client(account(cluster, namespace, tmp_path)) as client:
        a, b = (
            Elector(client, namespace, "cohort-web", name, 15, monotonic=time.monotonic, wall=time.time)
            for name in ("a", "b")
        )
        await a.look()
        await b.look()
        assert (a.is_held, b.is_held, b.holder) == (True, False, "a")
        await a.look()
        assert a.is_held
        await a.release()
        await b.look()
        assert (a.is_held, b.is_held) == (False, True)
