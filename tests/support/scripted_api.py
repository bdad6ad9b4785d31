"""An API server's small part that a controller sees: objects, watches, a Lease, the fence; and its faults on demand.

What it knows is in memory. Like the real one it counts versions over everything, refuses a write of an older version,
forgets what happened before a compaction, and keeps the two rules of a CanaryRollout's status. Admission, schemas and
accounts are not its business: any token is taken.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
import ssl
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aiohttp import web

Object = dict[str, Any]
NO_LONGER = 410


class Happened(NamedTuple):
    """One change of a collection."""

    version: int
    kind: str
    collection: str
    item: Object


class Asked(NamedTuple):
    """One request: when in monotonic seconds, by what token, and what for; a watch has the method WATCH."""

    at: float
    token: str
    method: str
    path: str


class FakeApi:
    """One API server.

    Attributes:
        asked: Every request, refused ones too.
        refused: By code, the answers that were a fault of the moment or the fence's.
        fault: Given method and path (a watch is WATCH), a status code to answer with, 0 to cut the connection, -1 to
            hang; None: none.
        echo: Whether events come twice, and each pair of them in the wrong order.
        before_write: Awaited before a status is written.
    """

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.refused: Counter[int] = Counter()
        self.fault: Callable[[str, str], int | None] = lambda method, path: None
        self.echo = False
        self.before_write: Callable[[Object], Awaitable[None]] | None = None
        self._objects: dict[str, dict[str, Object]] = {}
        self._history: list[Happened] = []
        self._versions = itertools.count(100)
        self._version = 100
        self._forgotten = 0
        self._news = asyncio.Condition()
        self._ending = asyncio.Event()
        self._cuts = 0

    # -- what tests do

    async def put(self, collection: str, item: Object) -> Object:
        """Make or replace an object: ``/api/v1/namespaces/shop/services``."""
        name = item["metadata"]["name"]
        known = self._objects.get(collection, {}).get(name)
        made = copy.deepcopy(item)
        made["metadata"].setdefault("uid", known["metadata"]["uid"] if known else str(uuid.uuid4()))
        made["metadata"].setdefault("creationTimestamp", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
        made["metadata"].setdefault("namespace", collection.split("/namespaces/")[1].split("/")[0])
        return await self._keep(collection, made, "MODIFIED" if known else "ADDED")

    async def remove(self, collection: str, name: str) -> None:
        item = copy.deepcopy(self._objects[collection].pop(name))
        await self._tell("DELETED", collection, item)

    def get(self, collection: str, name: str) -> Object:
        return self._objects[collection][name]

    async def forget(self) -> None:
        """Forget all that has happened: watches from before get 410."""
        self._forgotten = self._version
        self._history.clear()
        await self._wake()

    async def cut(self) -> None:
        """Reset the connection of every watch."""
        self._cuts += 1
        await self._wake()

    async def _wake(self) -> None:
        async with self._news:
            self._news.notify_all()

    async def _keep(self, collection: str, item: Object, kind: str) -> Object:
        self._objects.setdefault(collection, {})[item["metadata"]["name"]] = item
        await self._tell(kind, collection, item)
        return item

    async def _tell(self, kind: str, collection: str, item: Object) -> None:
        self._version = next(self._versions) + 1
        item["metadata"]["resourceVersion"] = str(self._version)
        self._history.append(Happened(self._version, kind, collection, copy.deepcopy(item)))
        await self._wake()

    # -- what controllers ask

    @asynccontextmanager
    async def serving(self, tls: ssl.SSLContext | None = None, port: int = 0) -> AsyncIterator[int]:
        """Serve on a loopback port, which is given."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        self._ending.clear()
        try:
            await web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls, reuse_address=True).start()
            yield int(runner.addresses[0][1])
        finally:
            self._ending.set()
            await self._wake()
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        method = "WATCH" if request.query.get("watch") == "true" else request.method
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        self.asked.append(Asked(time.monotonic(), token, method, request.path))
        if (code := self.fault(method, request.path)) is not None:
            return await self._fail(request, code)
        before, _, rest = request.path.rpartition("/namespaces/")
        namespace, plural, *more = rest.split("/")
        collection = f"{before}/namespaces/{namespace}/{plural}"
        if method == "WATCH":
            return await self._watch(request, collection)
        try:
            return web.json_response(await self._answer(request, collection, *more))
        except web.HTTPException as refusal:
            self.refused[refusal.status] += 1
            return web.json_response({"kind": "Status", "message": refusal.text}, status=refusal.status)

    async def _fail(self, request: web.Request, code: int) -> web.StreamResponse:
        self.refused[code] += 1
        if code < 0:
            await self._ending.wait()
        if code <= 0:
            _abort(request)
            return web.Response()
        headers = {"Retry-After": "1"} if code == 429 else {}
        return web.json_response({"kind": "Status", "message": "a fault"}, status=code, headers=headers)

    async def _answer(self, request: web.Request, collection: str, name: str = "", status: str = "") -> Object:
        items = self._objects.setdefault(collection, {})
        if not name:
            if request.method == "POST":
                return await self._create(collection, await request.json())
            return {"kind": "List", "metadata": {"resourceVersion": str(self._version)}, "items": list(items.values())}
        if name not in items:
            raise web.HTTPNotFound(text=f"{name} not found")
        if request.method == "GET":
            return items[name]
        if request.method == "DELETE":
            await self.remove(collection, name)
            return {"kind": "Status", "status": "Success"}
        body = await request.json()
        if status:
            return await self._patch_status(collection, name, body)
        return await self._replace(collection, name, body)

    async def _create(self, collection: str, item: Object) -> Object:
        name = item["metadata"].get("name") or item["metadata"]["generateName"] + uuid.uuid4().hex[:8]
        if name in self._objects[collection]:
            raise web.HTTPConflict(text=f"{name} already exists")
        return await self.put(collection, item | {"metadata": item["metadata"] | {"name": name}})

    async def _replace(self, collection: str, name: str, item: Object) -> Object:
        self._expect_version(collection, name, item)
        return await self.put(collection, item)

    def _expect_version(self, collection: str, name: str, item: Object) -> None:
        version = item["metadata"].get("resourceVersion")
        if version not in (None, self._objects[collection][name]["metadata"]["resourceVersion"]):
            raise web.HTTPConflict(text="the object has been modified")

    async def _patch_status(self, collection: str, name: str, patch: Any) -> Object:
        is_merge = isinstance(patch, dict)
        if self.before_write:
            await self.before_write(patch["status"] if is_merge else patch[-1]["value"])
        item = copy.deepcopy(self._objects[collection][name])
        before = item.get("status") or {}
        if is_merge:
            self._expect_version(collection, name, patch)
            item["status"] = before | patch["status"]
        else:
            *tests, status = patch
            known = {"/metadata/uid": item["metadata"]["uid"], "/status/state": before.get("state")}
            for test in tests:
                if test["value"] != known[test["path"]]:
                    raise web.HTTPUnprocessableEntity(text=f"the test of {test['path']} failed")
            item["status"] = status["value"]
        _check_fence(before, item["status"])
        return await self._keep(collection, item, "MODIFIED")

    # -- watches

    async def _watch(self, request: web.Request, collection: str) -> web.StreamResponse:
        since, cuts = int(request.query["resourceVersion"]), self._cuts
        response = web.StreamResponse()
        await response.prepare(request)
        deadline = time.monotonic() + float(request.query["timeoutSeconds"])
        while not self._ending.is_set() and (left := deadline - time.monotonic()) > 0:
            if since < self._forgotten:
                gone = {"code": NO_LONGER, "message": "too old resource version"}
                await _send(response, [{"type": "ERROR", "object": gone}])
                break
            news = [one for one in self._history if one.version > since and one.collection == collection]
            await _send(response, self._events(news))
            since = news[-1].version if news else since
            await self._wait(collection, since, cuts, left)
            if self._cuts != cuts:
                _abort(request)
                break
        return response

    def _events(self, news: list[Happened]) -> list[Object]:
        events = [{"type": one.kind, "object": one.item} for one in news]
        return [event for event in reversed(events) for _ in range(2)] if self.echo else events

    async def _wait(self, collection: str, since: int, cuts: int, limit_s: float) -> None:
        def is_more() -> bool:
            fresh = any(one.version > since and one.collection == collection for one in self._history)
            return self._ending.is_set() or fresh or since < self._forgotten or self._cuts != cuts

        try:
            async with asyncio.timeout(limit_s), self._news:
                await self._news.wait_for(is_more)
        except TimeoutError:
            pass


def _abort(request: web.Request) -> None:
    if request.transport is not None:  # else the client has gone
        request.transport.abort()


async def _send(response: web.StreamResponse, events: list[Object]) -> None:
    if events:
        await response.write(b"".join(json.dumps(event).encode() + b"\n" for event in events))


def _check_fence(before: Object, after: Object) -> None:
    """The rules of the definition on `status`: see controller/crd.py."""
    old, new = before.get("leader"), after.get("leader")
    if old and not (new and (new["term"] > old["term"] or new == old)):
        raise web.HTTPUnprocessableEntity(text="status.leader: another controller has taken over")
    if before.get("plan") and after.get("plan", {}).get("generation", -1) < before["plan"]["generation"]:
        raise web.HTTPUnprocessableEntity(text="status.plan.generation: it never falls")
