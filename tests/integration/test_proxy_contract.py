"""What the controller relies on holds of the real proxy and of the fake alike."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from controller.errors import Outranked, PlanRefused
from controller.look import parse_look
from controller.net.proxies import ProxyClient
from controller.spec import ProxyAddress
from controller.state import Phase
from proxy.plan import Endpoint, Plan
from tests.controller.world import World, document
from tests.support.fake_admin import FakeAdmin, serving
from tests.support.fake_proxy import FakeProxy
from tests.support.supervised import proxy_process

pytestmark = pytest.mark.integration


def plans() -> tuple[Plan, Plan]:
    """Two plans that follow each other, with v2 on trial in the second."""
    history = World(document({"setWeight": 5}, {"pause": {}})).until(Phase.PAUSED).proxy.history
    return history[0], history[1]


@asynccontextmanager
async def fake(folder: Path) -> AsyncIterator[str]:
    async with serving(FakeAdmin(FakeProxy()), str(folder / "admin.sock")) as address:
        yield address


@asynccontextmanager
async def real(folder: Path) -> AsyncIterator[str]:
    async with proxy_process(folder, workers=2):
        yield f"unix:{folder / 'admin.sock'}"


@pytest.fixture(params=[fake, real], ids=["fake", "real"])
async def client(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ProxyClient]:
    async with request.param(tmp_path) as address, ProxyClient(ProxyAddress(address=address)) as opened:
        yield opened


async def test_without_a_plan_there_is_none(client: ProxyClient) -> None:
    """A fresh proxy: no plan, no latch, numbers of nobody."""
    shown = await client.state()
    assert (shown["plan"], shown["latch"]) == (None, None)
    assert shown["boot"]
    look = parse_look(await client.stats())
    assert (look.uid, look.revision, look.generation, look.counts) == (None, None, 0, {})


async def test_a_plan_is_put_shown_and_confirmed(client: ProxyClient) -> None:
    """The etag is the plan's own; the same bytes again are no change; what is shown is what was put."""
    first, second = plans()
    await client.put(first, None)
    await client.put(second, first.etag)
    await client.put(second, second.etag)
    shown = (await client.state())["plan"]
    assert shown["etag"] == second.etag
    assert (shown["uid"], shown["generation"], shown["revision"]) == (second.rollout.uid, second.generation, "v2")
    assert Plan.model_validate(await client.plan(), strict=False).digest == second.digest
    look = parse_look(await client.stats())
    assert (look.uid, look.revision, look.generation) == (second.rollout.uid, "v2", second.generation)


async def test_an_older_or_another_plan_is_outranked(client: ProxyClient) -> None:
    """412 for a stale etag, 409 for an older generation and for equal with other bytes."""
    first, second = plans()
    await client.put(second, None)
    with pytest.raises(Outranked):
        await client.put(first, None)
    with pytest.raises(Outranked):
        await client.put(first, second.etag)
    with pytest.raises(Outranked):
        await client.put(second.model_copy(update={"explain": "Always"}), second.etag)


async def test_another_rollout_starts_afresh(client: ProxyClient) -> None:
    """Another uid is newer, whatever its generation."""
    first, second = plans()
    other = second.rollout.model_copy(update={"uid": "another"})
    await client.put(second, None)
    await client.put(first.model_copy(update={"rollout": other}), second.etag)
    assert (await client.state())["plan"]["uid"] == "another"


async def test_a_latch_stands_until_a_plan_lifts_it(client: ProxyClient) -> None:
    """The id is the caller's; a standing one is returned; later plans leave it, a lifting one ends it."""
    _, second = plans()
    await client.put(second, None)
    latch = await client.abort("0badcafe", "anna", "Requested: smoke")
    assert (latch["id"], latch["revision"], latch["by"]) == ("0badcafe", "v2", "anna")
    assert (await client.abort("feedbeef", "bob", "Requested"))["id"] == "0badcafe"
    later = second.model_copy(update={"generation": 50})
    await client.put(later, second.etag)
    assert (await client.state())["latch"]["id"] == "0badcafe"
    lifting = later.model_copy(update={"generation": 51, "lifts": ("0badcafe",)})
    await client.put(lifting, later.etag)
    assert (await client.state())["latch"] is None


async def test_a_faulty_plan_is_refused_with_its_faults(tmp_path: Path) -> None:
    """422 and the field paths; of the real proxy, as no valid model of ours is faulty for itself."""
    first, _ = plans()
    arm = first.arms[0].model_copy(update={"endpoints": (Endpoint.model_construct(address="nowhere", port=1),)})
    async with real(tmp_path) as address, ProxyClient(ProxyAddress(address=address)) as opened:
        with pytest.raises(PlanRefused, match=r"refuses plan 1: arms\[0\]\.endpoints\[0\]"):
            await opened.put(first.model_copy(update={"arms": (arm,)}), None)
