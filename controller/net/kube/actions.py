"""What people ask for in a cluster: objects of their own, carried out once each and collected when they are done."""

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

KEEP_ACTIONS = 12  # objects of actions that are done; a status names 16, so none is ever taken for a new one
GONE = 404
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
        self._rollout = kube.rollout
        self._path = f"/apis/cohort.dev/v1alpha1/namespaces/{kube.namespace}/rolloutactions"
        self._wall = wall
        self._problems = Once()

    def _mine(self) -> list[Object]:
        """Oldest first."""
        found = [item for item in self._namespace.actions.objects.values() if cluster.action_of(item, self._rollout)]
        return sorted(found, key=_age)

    async def carry_out(self, engine: Engine) -> None:
        """Have done what is not on record yet."""
        done = _done(engine)
        for item in self._mine():
            if _uid(item) not in done:
                await self._act(engine, item)

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
        done = _done(engine)
        ended = [item for item in self._mine() if _uid(item) in done]
        for i, item in enumerate(ended):
            if i < len(ended) - KEEP_ACTIONS or self._wall() - _created(item) > KEEP_S:
                await self._remove(item)

    async def _remove(self, item: Object) -> None:
        try:
            await self._api.ask("DELETE", f"{self._path}/{item['metadata']['name']}")
        except ApiRefused as error:
            if error.status != GONE:  # removed already, and not heard of yet
                raise


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
