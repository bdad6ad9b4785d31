"""The client of a proxy's admin API, against the fake and its faults."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from controller.errors import Outranked, PlanRefused, Temporary
from controller.net import proxies
from controller.net.proxies import ProxyClient
from controller.spec import ProxyAddress
from controller.state import Phase
from proxy.plan import Plan
from tests.controller.world import World, document
from tests.support.fake_admin import FakeAdmin, serving, serving_port
from tests.support.fake_proxy import FakeProxy


def plans() -> list[Plan]:
    return World(document({"setWeight": 5}, {"pause": {}})).until(Phase.PAUSED).proxy.history


@pytest.fixture
def admin() -> FakeAdmin:
    return FakeAdmin(FakeProxy())


@pytest.fixture
async def client(admin: FakeAdmin, tmp_path: Path) -> AsyncIterator[ProxyClient]:
    async with (
        serving(admin, str(tmp_path / "admin.sock")) as address,
        ProxyClient(ProxyAddress(address=address)) as opened,
    ):
        yield opened


async def test_a_plan_is_put_over_what_is_there(admin: FakeAdmin, client: ProxyClient) -> None:
    """If-Match with the etag of the plan before, or none."""
    first, second = plans()
    await client.put(first, None)
    assert (await client.state())["plan"]["etag"] == first.etag
    await client.put(second, first.etag)
    assert await client.plan() == second.model_dump(mode="json", by_alias=True)
    assert admin.proxy.history == [first, second]


async def test_a_plan_over_another_is_outranked(admin: FakeAdmin, client: ProxyClient) -> None:
    """412 and 409: the proxy must be looked at again."""
    first, second = plans()
    await client.put(second, None)
    with pytest.raises(Outranked):
        await client.put(first, None)
    with pytest.raises(Outranked):
        await client.put(first, second.etag)


async def test_a_refused_plan_says_every_fault(admin: FakeAdmin, client: ProxyClient) -> None:
    """422 with faults."""
    admin.proxy.refuses_plan = True
    with pytest.raises(PlanRefused, match="refuses plan 1: arms: this proxy is broken"):
        await client.put(plans()[0], None)


async def test_an_abort_returns_the_latch_that_stands(admin: FakeAdmin, client: ProxyClient) -> None:
    """Idempotent: a standing latch is returned, whatever id was asked for."""
    assert (await client.abort("aaaaaaaa", "anna", "Requested"))["id"] == "aaaaaaaa"
    assert (await client.abort("bbbbbbbb", "bob", "Requested"))["id"] == "aaaaaaaa"


async def test_an_abort_that_fails_is_temporary(admin: FakeAdmin, client: ProxyClient) -> None:
    """A full disk: tried again."""
    admin.proxy.refuses_latch = True
    with pytest.raises(Temporary, match="status 500: no space left on device"):
        await client.abort("aaaaaaaa", "anna", "")


async def test_an_abort_outlives_a_lifting_plan_that_was_under_way(admin: FakeAdmin, client: ProxyClient) -> None:
    """A retry's plan is on its way when somebody aborts again: the latch it would lift is set anew after it."""
    plan = plans()[0].model_copy(update={"lifts": ("aaaaaaaa",)})
    admin.proxy.latch = {"id": "aaaaaaaa", "revision": "v2", "by": "anna", "at": 0}
    arrived, go = asyncio.Event(), asyncio.Event()

    async def slowly() -> None:
        arrived.set()
        await go.wait()

    admin.before_put = slowly
    async with asyncio.TaskGroup() as tasks:
        putting = tasks.create_task(client.put(plan, None))
        await arrived.wait()
        aborting = tasks.create_task(client.abort("bbbbbbbb", "bob", ""))
        await asyncio.sleep(0.05)
        assert not aborting.done()
        go.set()
    assert putting.done()
    assert (await client.state())["latch"]["id"] == "bbbbbbbb"
    assert aborting.result()["id"] == "bbbbbbbb"


@pytest.mark.parametrize("call", ["state", "stats", "plan", "put", "abort"])
async def test_every_call_has_a_deadline(
    admin: FakeAdmin, client: ProxyClient, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """A proxy that hangs is one that does not answer."""
    for name in ("LOOK_S", "ABORT_S", "PUT_S"):
        monkeypatch.setattr(proxies, name, 0.05)
    admin.delay_s = 0.3
    with pytest.raises(Temporary, match="no answer"):
        await _call(client, call)


async def _call(client: ProxyClient, call: str) -> None:
    if call == "put":
        await client.put(plans()[0], None)
    elif call == "abort":
        await client.abort("aaaaaaaa", "anna", "")
    else:
        await getattr(client, call)()


@pytest.mark.parametrize("call", ["state", "put", "abort"])
async def test_a_proxy_that_is_gone_is_temporary(tmp_path: Path, call: str) -> None:
    """No socket, and nobody behind it."""
    async with ProxyClient(ProxyAddress(address=f"unix:{tmp_path}/nobody.sock")) as client:
        with pytest.raises(Temporary):
            await _call(client, call)


async def test_a_connection_that_breaks_is_temporary(admin: FakeAdmin, client: ProxyClient) -> None:
    """Killed in the middle of an answer."""
    admin.proxy.is_up = False
    with pytest.raises(Temporary):
        await client.state()


@pytest.mark.parametrize("body", [b"[]", b"no JSON", b"", b'"text"'])
async def test_an_answer_that_is_no_object_is_temporary(tmp_path: Path, body: bytes) -> None:
    """Something else listens there."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=body, status=200 if body else 404)

    app = web.Application()
    app.router.add_route("*", "/{path}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "x.sock")).start()
    try:
        async with ProxyClient(ProxyAddress(address=f"unix:{tmp_path}/x.sock")) as client:
            with pytest.raises(Temporary):
                await client.state()
    finally:
        await runner.cleanup()


async def test_an_endless_answer_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded whatever a peer sends."""
    monkeypatch.setattr(proxies, "MAX_ANSWER_BYTES", 1000)

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=b" " * 100_000)

    app = web.Application()
    app.router.add_get("/state", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "x.sock")).start()
    try:
        async with ProxyClient(ProxyAddress(address=f"unix:{tmp_path}/x.sock")) as client:
            with pytest.raises(Temporary, match="more than 1000 bytes"):
                await client.state()
    finally:
        await runner.cleanup()


async def test_a_port_is_asked_with_its_token(tmp_path: Path) -> None:
    """Read anew for each request, so that a rotated token counts at once."""
    token = tmp_path / "token"
    admin = FakeAdmin(FakeProxy(), token="right")
    async with (
        serving_port(admin) as address,
        ProxyClient(ProxyAddress(address=address, token_file=str(token))) as client,
    ):
        with pytest.raises(Temporary, match="cannot be read"):
            await client.state()
        token.write_text("wrong\n")
        with pytest.raises(Temporary, match="401"):
            await client.state()
        token.write_text("ri\x00ght")
        with pytest.raises(Temporary, match="no token of printable characters"):
            await client.state()
        token.write_text("right\n")
        assert (await client.state())["plan"] is None
