"""An API server in memory, as far as cohort's controllers use one: optimistic locking, watches, the rules of status.

`tests/kube/test_fake_api.py` holds it against the real one. Here it stands in where a fault is the point: a process may
be cut off from it, or die, before or after any write.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from controller.net.kube.client import JSON_PATCH, MERGE_PATCH, ApiRefused

Object = dict[str, Any]


class FakeApi:
    """All objects by their paths.

    Attributes:
        objects: ``/api/.../plural/name`` to the object as it is.
        written: Each write of a status that was accepted: who wrote (term, identity), and the object after it.
        refused: Each write that was refused: path, status and reason.

    Args:
        wall: Unix seconds.
    """

    def __init__(self, wall: Callable[[], float]) -> None:
        self.objects: dict[str, Object] = {}
        self.written: list[Object] = []
        self.refused: list[tuple[str, int, str]] = []
        self._wall = wall
        self._versions = itertools.count(1)
        self._version = 0
        self._history: list[tuple[int, str, str, Object]] = []
        self._changed = asyncio.Condition()

    # What everybody may ask

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str] | None = None,
        kind: str = "application/json",
        limit_s: float = 5.0,
    ) -> Object:
        """One request, and the answer's document; raises `ApiRefused`."""
        try:
            answer = copy.deepcopy(self._answer(method, path, copy.deepcopy(body), kind))
        except ApiRefused as error:
            if method != "GET":
                self.refused.append((path, error.status, str(error)))
            raise
        async with self._changed:
            self._changed.notify_all()
        return answer

    async def watch(self, path: str, version: str, limit_s: int) -> AsyncIterator[Object]:
        """What happens to a collection since a version."""
        seen = int(version)
        ends = asyncio.get_running_loop().time() + limit_s
        while True:
            history, latest = self._history, self._version  # whoever takes an event may take his time
            for at, kind, place, item in history:
                if at > seen and place.rpartition("/")[0] == path:
                    yield {"type": kind, "object": copy.deepcopy(item)}
            seen = latest
            try:
                async with asyncio.timeout_at(ends), self._changed:
                    await self._changed.wait_for(lambda: self._version > seen)  # noqa: B023  # awaited in this turn
            except TimeoutError:
                return

    def _answer(self, method: str, path: str, body: Any, kind: str) -> Object:
        match method:
            case "GET" if path in self.objects:
                return self.objects[path]
            case "GET" if path.rpartition("/")[2] in _COLLECTIONS:
                items = [item for place, item in self.objects.items() if place.rpartition("/")[0] == path]
                return {"items": items, "metadata": {"resourceVersion": str(self._version)}}
            case "POST":
                return self._create(path, body)
            case "PUT":
                return self._replace(path, body)
            case "PATCH":
                return self._patch(path, body, kind)
            case "DELETE" if path in self.objects:
                return self._store("DELETED", path, self.objects[path])
        raise ApiRefused(404, f"{method} {path}: 404: not found")

    # How it keeps objects

    def _store(self, kind: str, path: str, item: Object) -> Object:
        self._version = next(self._versions)
        item = {**item, "metadata": {**item["metadata"], "resourceVersion": str(self._version)}}
        if kind == "DELETED":
            del self.objects[path]
        else:
            self.objects[path] = item
        self._history = [*self._history[-500:], (self._version, kind, path, item)]
        return item

    def _create(self, path: str, body: Object) -> Object:
        metadata = {**body.get("metadata", {})}
        number = next(self._versions)
        if prefix := metadata.pop("generateName", ""):
            metadata["name"] = f"{prefix}{number:05}"
        place = f"{path}/{metadata['name']}"
        if place in self.objects:
            raise ApiRefused(409, f"POST {path}: 409: {metadata['name']} already exists")
        created = datetime.fromtimestamp(self._wall(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        metadata |= {
            "namespace": path.split("/")[-2],
            "uid": f"00000000-0000-4000-8000-{number:012}",
            "generation": 1,
            "creationTimestamp": created,
        }
        return self._store("ADDED", place, {**body, "metadata": metadata})

    def _replace(self, path: str, body: Object) -> Object:
        before = self._known(path)
        self._same(path, before, body["metadata"].get("resourceVersion"))
        return self._changed_to(path, before, {**body, "metadata": before["metadata"]})

    def _patch(self, path: str, body: Any, kind: str) -> Object:
        place = path.removesuffix("/status")
        before = self._known(place)
        if kind == JSON_PATCH:
            after = _operated(path, before, body)
        else:
            assert kind == MERGE_PATCH
            self._same(path, before, body.get("metadata", {}).pop("resourceVersion", None))
            after = _merged(before, body)
        if place == path:
            return self._changed_to(path, before, after)
        _fence(path, before.get("status") or {}, after["status"])
        if after["status"] == before.get("status"):
            return before
        after = self._store("MODIFIED", place, {**before, "status": after["status"]})
        self.written.append(after)
        return after

    def _changed_to(self, path: str, before: Object, after: Object) -> Object:
        if "status" in before:
            after = {**after, "status": before["status"]}  # a subresource of its own
        if after == before:
            return before
        generation = before["metadata"]["generation"] + (after.get("spec") != before.get("spec"))
        return self._store("MODIFIED", path, {**after, "metadata": {**before["metadata"], "generation": generation}})

    def _known(self, path: str) -> Object:
        if path not in self.objects:
            raise ApiRefused(404, f"{path}: 404: not found")
        return self.objects[path]

    def _same(self, path: str, before: Object, version: str | None) -> None:
        if version not in (None, before["metadata"]["resourceVersion"]):
            raise ApiRefused(409, f"{path}: 409: the object has been modified")


_COLLECTIONS = (
    "canaryrollouts",
    "rolloutactions",
    "analysistemplates",
    "services",
    "pods",
    "endpointslices",
    "leases",
    "events",
)


def _merged(before: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    after = dict(before) if isinstance(before, dict) else {}
    for key, value in patch.items():
        if value is None:
            after.pop(key, None)
        else:
            after[key] = _merged(after.get(key), value)
    return after


def _operated(path: str, before: Object, operations: list[Object]) -> Object:
    """RFC 6902, as much of it as is used: test a value, put another one at the top."""
    after = dict(before)
    for operation in operations:
        steps = operation["path"].strip("/").split("/")
        if operation["op"] == "test":
            found: Any = after
            for step in steps:
                found = found.get(step) if isinstance(found, dict) else None
            if found != operation["value"]:
                raise ApiRefused(422, f"{path}: 422: testing value {operation['path']} failed")
        else:
            assert (operation["op"], len(steps)) == ("add", 1)
            after[steps[0]] = operation["value"]
    return after


def _fence(path: str, before: Object, after: Object) -> None:
    """The definition's rules on status."""
    old, new = before.get("leader"), after.get("leader") or {}
    if old and not (
        new.get("term", 0) > old["term"] or (new.get("term") == old["term"] and new.get("identity") == old["identity"])
    ):
        raise ApiRefused(422, f"{path}: 422: status.leader: another controller has taken over")
    old_plan, new_plan = before.get("plan"), after.get("plan")
    if old_plan and (not new_plan or new_plan["generation"] < old_plan["generation"]):
        raise ApiRefused(422, f"{path}: 422: status.plan: the generation of a plan never falls")
