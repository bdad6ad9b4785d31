"""The runner's client of the API server: it takes restarts of the server, lost watches and compactions for normal."""

from __future__ import annotations

import asyncio
import json
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import aiohttp

Result = TypeVar("Result")
PATIENCE_S = 10.0
WATCH_S = 240
STRATEGIC = "application/strategic-merge-patch+json"
MISTAKES = (400, 403, 404, 405, 409, 410, 413, 415, 422)  # saying it again does not help


class Refused(Exception):
    """The API server's answer to a request that it does not carry out."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status


class Api:
    """The API server as the admin sees it."""

    def __init__(self, address: str, tls: ssl.SSLContext) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=PATIENCE_S, sock_read=PATIENCE_S)
        connector = aiohttp.TCPConnector(ssl=tls, limit=0)
        self._session = aiohttp.ClientSession(address, connector=connector, timeout=timeout)

    async def close(self) -> None:
        await self._session.close()

    async def call(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        """One request.

        Raises:
            Refused: By the server.
            OSError: Not reached, or not answered in time.
        """
        fields = {"Content-Type": kind} if body is not None else {}
        data = None if body is None else json.dumps(body)
        try:
            async with self._session.request(method, path, data=data, headers=fields) as answer:
                text = await answer.text()
        except aiohttp.ClientError as error:
            raise OSError(str(error)) from error
        if answer.status >= 300:
            raise Refused(answer.status, text)
        return json.loads(text)

    async def insist(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        """The same, said again until the server has heard it.

        Raises:
            Refused: For a reason that stays.
        """
        return await insist(lambda: self.call(method, path, body, kind))

    async def watch(self, path: str) -> AsyncIterator[tuple[str, Any]]:
        """All objects of a kind and then their changes, for ever, as ADDED, MODIFIED and DELETED with the object.

        After a gap an object that has gone in between is DELETED as it was last seen, and all others are ADDED again.
        """
        known: dict[str, Any] = {}
        while True:
            listed = await self.insist("GET", path)
            objects = {item["metadata"]["uid"]: item for item in listed["items"]}
            for gone in known.keys() - objects.keys():
                yield "DELETED", known[gone]
            known = objects
            for item in listed["items"]:
                yield "ADDED", item
            async for event, item in self._follow(path, listed["metadata"]["resourceVersion"]):
                if event == "DELETED":
                    known.pop(item["metadata"]["uid"], None)
                else:
                    known[item["metadata"]["uid"]] = item
                yield event, item

    async def _follow(self, path: str, version: str) -> AsyncIterator[tuple[str, Any]]:
        """Changes from a version on, until they have to be listed again."""
        while True:
            query = {
                "watch": "1",
                "allowWatchBookmarks": "true",
                "resourceVersion": version,
                "timeoutSeconds": str(WATCH_S),
            }
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=PATIENCE_S, sock_read=WATCH_S + PATIENCE_S)
            try:
                async with self._session.get(path, params=query, timeout=timeout) as answer:
                    if answer.status != 200:
                        return
                    async for line in _lines(answer.content):
                        event = json.loads(line)
                        if event["type"] == "ERROR":
                            return
                        version = event["object"]["metadata"]["resourceVersion"]
                        if event["type"] != "BOOKMARK":
                            yield event["type"], event["object"]
            except (aiohttp.ClientError, OSError):
                await asyncio.sleep(random.uniform(0.1, 0.5))


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of any length, which the stream's own iteration does not give."""
    rest = b""
    async for chunk in stream.iter_any():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line


async def insist(call: Callable[[], Awaitable[Result]]) -> Result:
    """Repeat a call of the API until the server has heard it.

    Raises:
        Refused: For a reason that stays.
    """
    while True:
        try:
            return await call()
        except Refused as refused:
            if refused.status in MISTAKES:
                raise
        except OSError:
            pass
        await asyncio.sleep(random.uniform(0.1, 0.5))
