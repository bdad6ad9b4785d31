"""10,000 users through two real proxies, steered by a real controller from 5 to 100 %: one user, one version."""

from __future__ import annotations

import asyncio
import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.integration.programs import Answer, Backend, Client, RealController, RealProxy, backend

USERS = 10_000
CONNECTIONS = 16  # a proxy
STEPS = (5, 25, 50, 100)


def document(stable: int) -> dict[str, Any]:
    """A rollout that pauses at every step until it is promoted."""
    steps = [step for percent in STEPS for step in ({"setWeight": percent}, {"pause": {}})]
    return {
        "apiVersion": "cohort.dev/v1alpha1",
        "kind": "CanaryRollout",
        "metadata": {"name": "checkout", "namespace": "shop"},
        "spec": {
            "stable": {"addresses": [f"127.0.0.1:{stable}"], "revision": "v1"},
            "users": [{"mint": {"maxAge": "2160h"}}],
            "strategy": {"canary": {"steps": steps}},
        },
    }


class Crowd:
    """All users: the cookie that each was given at the first answer, and the version that each saw last."""

    def __init__(self, proxies: list[RealProxy]) -> None:
        self._clients = [[Client(proxy.port) for _ in range(CONNECTIONS)] for proxy in proxies]
        self.cookies = [""] * USERS
        self.seen = ["stable"] * USERS
        self.flips: list[str] = []

    def close(self) -> None:
        for clients in self._clients:
            for client in clients:
                client.close()

    def reconnect(self) -> None:
        """After a proxy was restarted."""
        self.close()

    async def ask_all(self, allowed: Callable[[str, str], bool]) -> dict[str, int]:
        """Every user asks every proxy once; a change of version that is not allowed is a flip.

        Returns:
            Users by version, as the last proxy gave them.
        """
        for clients in self._clients:
            async with asyncio.TaskGroup() as tasks:
                for number, client in enumerate(clients):
                    tasks.create_task(self._ask_some(client, range(number, USERS, CONNECTIONS), allowed))
            allowed = _never  # the proxies agree
        return {arm: self.seen.count(arm) for arm in ("stable", "canary")}

    async def _ask_some(self, client: Client, users: range, allowed: Callable[[str, str], bool]) -> None:
        for user in users:
            answer = await client.ask(self.cookies[user])
            assert answer.status == 200
            self._note(user, answer, allowed)

    def _note(self, user: int, answer: Answer, allowed: Callable[[str, str], bool]) -> None:
        cookie = answer.fields.get("set-cookie")
        assert (cookie is None) == bool(self.cookies[user])  # set at the first answer, and never again
        if cookie:
            self.cookies[user] = cookie.partition(";")[0]
        arm = answer.body.decode()  # what the version itself says, not the proxy
        assert arm == answer.arm
        if arm != self.seen[user] and not allowed(self.seen[user], arm):
            self.flips.append(f"user {user}: {self.seen[user]} -> {arm}, {answer.fields}")
        self.seen[user] = arm


def _never(before: str, after: str) -> bool:
    return False


def _to_canary(before: str, after: str) -> bool:
    return after == "canary"


def within_3_sigma(count: int, percent: int) -> bool:
    share = percent / 100
    return abs(count - USERS * share) <= 3 * math.sqrt(USERS * share * (1 - share))


async def test_ten_thousand_users_keep_their_version_from_5_to_100_percent(tmp_path: Path, free_port: Any) -> None:
    """No flip, shares within 3 sigma, and no restart of worker, proxy or controller changes anybody."""
    keys = tmp_path / "keys"
    proxies = [RealProxy(tmp_path / name, keys=keys) for name in "ab"]
    async with backend("stable") as (_, stable), backend("canary") as (new, canary):
        for proxy in proxies:
            await proxy.start()
        controller = RealController(tmp_path / "controller", free_port(), proxies, keys, [document(stable)])
        await controller.start()
        await controller.wait_for(phase="Healthy")
        crowd = Crowd(proxies)
        try:
            assert await crowd.ask_all(_never) == {"stable": USERS, "canary": 0}
            status, body = await controller.act("Start", revision="v2", addresses=[f"127.0.0.1:{canary}"])
            assert status == 200, body
            for percent in STEPS:
                await controller.wait_for(phase="Paused", weight__programmed=f"{percent}.00")
                counts = await crowd.ask_all(_to_canary)
                print(f"{percent:3} %: {counts['canary']} of {USERS} users on the canary")
                assert within_3_sigma(counts["canary"], percent), counts
                if percent == 5:
                    await _restart_everything(controller, proxies, crowd)
                assert not crowd.flips, crowd.flips[:3]
                assert (await controller.act("Promote"))[0] == 200
            await controller.wait_for(phase="Healthy", revision__stable="v2")
            new.answer = Backend("stable").answer  # the promoted version is the stable one now
            crowd.seen = ["stable"] * USERS
            assert await crowd.ask_all(_never) == {"stable": USERS, "canary": 0}
            assert not crowd.flips, crowd.flips[:3]
        finally:
            crowd.close()
            await controller.program.stop()
            for proxy in proxies:
                await proxy.stop()


async def _restart_everything(controller: RealController, proxies: list[RealProxy], crowd: Crowd) -> None:
    """Nobody may change, whatever is killed."""
    await proxies[0].kill_worker(0)
    crowd.reconnect()
    await crowd.ask_all(_never)
    await proxies[1].stop(signal.SIGKILL)
    await proxies[1].start()
    crowd.reconnect()
    await crowd.ask_all(_never)
    await controller.program.stop(signal.SIGKILL)
    await crowd.ask_all(_never)
    await controller.start()
    await controller.wait_for(phase="Paused", weight__programmed="5.00")
    await crowd.ask_all(_never)
