"""The load generator and a real proxy: whose key file it is given marks its requests, and anybody else's are users'."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from proxy.keys import serialise
from tests.integration.programs import COHORT, RealProxy, backend, plan

pytestmark = pytest.mark.integration


USERS = 10


async def load(proxy: RealProxy, *arguments: str) -> dict[str, Any]:
    """What ten users saw in half a second."""
    process = await asyncio.create_subprocess_exec(
        COHORT, "loadtest", "--target", f"http://127.0.0.1:{proxy.port}", "--users", str(USERS), "--spawn-rate", "100",
        "--think", "10ms..30ms", "--duration", "500ms", "--progress", "0s", "--identity", "header", "-o", "json",
        *arguments, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    assert process.returncode == 0
    return dict(json.loads(out))


def told(result: dict[str, Any]) -> range:
    """What the proxy may have counted of a run: a request that the end has cut is not in the run's own word."""
    return range(result["requests"], result["requests"] + USERS + 1)


async def counted(proxy: RealProxy, source: str) -> int:
    """Requests of one source."""
    arms = (await proxy.get("/stats"))["arms"].values()
    return sum(arm["sources"].get(source, {"requests": 0})["requests"] for arm in arms)


async def users(proxy: RealProxy) -> int:
    """Distinct users."""
    return sum(arm["users"]["estimate"] for arm in (await proxy.get("/stats"))["arms"].values())


async def test_marked_users_are_no_evidence_and_a_foreign_key_marks_nobody(tmp_path: Path) -> None:
    """Contract item 9, E1, S7: in one proxy, one after the other."""
    proxy, foreign = RealProxy(tmp_path), tmp_path / "foreign"
    foreign.write_bytes(serialise(b"x" * 32))
    async with backend("stable") as (_, stable), backend("canary") as (_, canary):
        await proxy.start()
        try:
            sources = [{"header": {"name": "X-User-Id", "trust": "Anyone"}}]
            status, body = await proxy.put_plan(plan(stable, canary, 5_000, users=sources))
            assert status == 200, body
            marked = await load(
                proxy, "--synthetic-key", str(tmp_path / "keys/synthetic"), "--rollout", "shop/checkout"
            )
            assert marked["requests"] > 10
            assert await counted(proxy, "user") == 0
            assert await counted(proxy, "synthetic") in told(marked)
            assert await users(proxy) == 0
            plain = await load(proxy, "--synthetic-key", str(foreign), "--rollout", "shop/checkout")
            assert await counted(proxy, "user") in told(plain)
            assert await counted(proxy, "synthetic") in told(marked)
            assert await users(proxy) in range(8, 13)  # a sketch
        finally:
            await proxy.stop()
