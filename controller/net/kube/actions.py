"""What people ask for in a cluster: objects of their own, carried out once each and collected when they are done.

A status names the last 16 that are done, and the next holder knows them by that alone. So before one more is carried
out, an object of those 16 has to go where there are many: otherwise it would be taken for a new one.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from controller import cluster
from controller.ask import Refused
from controller.events import Asked, Verb
from controller.net.engine import Engine
from controller.net.kube.client import ApiRefused
from controller.net.kube.ledger import Api
from controller.net.kube.namespace import Namespace
from controller.net.kube.once import Once
from controller.resource import ActionSpec
from controller.spec import Kube
from proxy.document import DocumentError, validate

KEEP_ACTIONS = 12  # objects of actions that are done; fewer than a status names
GONE = (404, 409)  # it was removed meanwhile, or has another uid
KEEP_S = 3600.0  # surface: collected an hour after their end

Object = dict[str, Any]


class Actions:
    """The actions on one rollout.

    Args:
        api: The API server.
        namespace: As it is now.
        kube: Names the rollout.
        wall: Unix seconds.
    """

    def __init__(self, api: Api, namespace: Namespace, kube: Kube, wall: Callable[[], float]) -> None:
        self._api = api
        self._namespace = namespace
        self._path = f"/apis/cohort.dev/v1alpha1/namespaces/{kube.namespace}/rolloutactions"
        self._wall = wall
        self._problems = Once()
        self._removed: set[str] = set()

    def _mine(self) -> list[Object]:
        """Oldest first; of one second in the order in which the API server took them."""
        rollout = self._namespace.rollout
        found = [
            item for item in self._namespace.actions.objects.values() if rollout and cluster.action_of(item, rollout)
        ]
        self._removed &= {_uid(item) for item in found}  # the watch tells of the others
        return sorted((item for item in found if _uid(item) not in self._removed), key=_age)

    async def carry_out(self, engine: Engine) -> None:
        """Have done what is not on record yet."""
        done = _done(engine)
        for item in [item for item in self._mine() if _uid(item) not in done]:
            if item["spec"].get("verb") != Verb.ABORT:  # which waits for nothing
                await self._trim(engine)
            await self._act(engine, item)
            await self._trim(engine)

    async def _act(self, engine: Engine, item: Object) -> None:
        try:
            spec = validate(ActionSpec, item["spec"])
        except DocumentError as error:
            self._problems.say(f"RolloutAction {item['metadata']['name']}: {error}")
            return
        asked = Asked(
            Verb(spec.verb),
            _uid(item),
            spec.requested_by,
            spec.revision,
            weight_bp=spec.weight or 0,
            reason=spec.reason or "",
        )
        try:
            await engine.act(asked)
        except Refused:
            pass  # it is on record

    async def collect(self, engine: Engine) -> None:
        """Remove objects of actions that are done: after an hour, and the oldest where there are many."""
        await self._trim(engine)
        for item in self._ended(engine):
            if self._wall() - _created(item) > KEEP_S:
                await self._remove(item)

    def _ended(self, engine: Engine) -> list[Object]:
        done = _done(engine)
        return [item for item in self._mine() if _uid(item) in done]

    async def _trim(self, engine: Engine) -> None:
        for item in self._ended(engine)[:-KEEP_ACTIONS]:
            await self._remove(item)

    async def _remove(self, item: Object) -> None:
        """Remove this very object: another of its name is asked for anew."""
        only = {"preconditions": {"uid": _uid(item)}}
        try:
            await self._api.ask("DELETE", f"{self._path}/{item['metadata']['name']}", only)
        except ApiRefused as error:
            if error.status not in GONE:
                raise
        self._removed.add(_uid(item))


def _done(engine: Engine) -> set[str]:
    return {action.uid for action in engine.state.actions}


def _age(item: Object) -> tuple[str, int]:
    """The time of creation counts whole seconds; objects that nobody changes came in the order of their versions."""
    metadata = item["metadata"]
    version = str(metadata.get("resourceVersion"))
    return str(metadata.get("creationTimestamp")), int(version) if version.isdecimal() else 0


def _uid(item: Object) -> str:
    return str(item["metadata"]["uid"])


def _created(item: Object) -> float:
    return datetime.fromisoformat(str(item["metadata"]["creationTimestamp"])).timestamp()
