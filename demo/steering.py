"""The demo's side of the controller: follows one rollout and carries out what the page's buttons ask."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp

from demo.console import Refused

WAIT_S = 1.0  # what is measured moves without a change of the rollout: seen at least so often
RETRY_S = 0.5
ACTION_S = 15.0  # an abort waits for the proxies


class Steering:
    """One rollout of one controller.

    Attributes:
        document: The rollout with its status, as last seen; empty before the controller has answered.
    """

    def __init__(self, session: aiohttp.ClientSession, url: str, namespace: str, name: str) -> None:
        self.document: dict[str, Any] = {}
        self._session = session
        self._url = f"{url}/api/v1/rollouts/{namespace}/{name}"
        self._changed = asyncio.Event()

    async def follow(self) -> None:
        """Keep ``document`` fresh until cancelled."""
        while True:
            try:
                self.document = await self._fetch()
                self._changed.set()
            except (aiohttp.ClientError, TimeoutError, ValueError):
                await asyncio.sleep(RETRY_S)

    async def change(self, wait_s: float) -> None:
        """Return at the next answer of the controller, or after ``wait_s`` seconds."""
        self._changed.clear()
        try:
            async with asyncio.timeout(wait_s):
                await self._changed.wait()
        except TimeoutError:
            pass

    async def act(self, verb: str, **values: Any) -> str:
        """Carry out an action.

        Raises:
            Refused: The controller says no, or does not answer.
        """
        body = {"verb": verb, "by": "demo", **values}
        try:
            timeout = aiohttp.ClientTimeout(ACTION_S)
            async with self._session.post(f"{self._url}/actions", json=body, timeout=timeout) as response:
                answer = await response.json()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise Refused(f"the controller does not answer: {error}") from None
        if response.status != 200:
            raise Refused(str(answer.get("error") or answer.get("faults") or answer))
        return str(answer.get("message", ""))

    async def _fetch(self) -> dict[str, Any]:
        since = self.document.get("status", {}).get("resourceVersion")
        query = {"wait": f"{WAIT_S:g}", "since": str(since)} if since is not None else {}
        timeout = aiohttp.ClientTimeout(WAIT_S + 5)
        async with self._session.get(self._url, params=query, timeout=timeout) as response:
            if response.status != 200:
                raise ValueError(f"status {response.status}")
            return dict(await response.json())
