"""Where a rollout's state is kept in a cluster: the status of its custom resource, written by one holder.

The fence is in the object: whoever takes over first writes ``leader`` with the next term, in one patch that touches
nothing else, and a rule of the definition refuses every later write of an earlier term. So a holder that was frozen
past its Lease and thawed writes nothing, whatever it believes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from controller.errors import ControllerError, Temporary
from controller.events import Tell
from controller.net.engine import timestamp
from controller.net.kube.client import JSON_PATCH, MERGE_PATCH, ApiRefused
from controller.net.store import Moved

WRITE_S = 2.0  # what an abort may have to wait for behind a write that hangs
CHECKPOINT_S = 5.0  # elapsed time that a crash may lose; each is a write to etcd
NOTE = 1024  # characters of an Event
SERVER_ERROR = 500  # from here on a write may have been carried out
REFUSED = (409, 422)  # another object by now, or the rule of the fence
TAKEN = "another controller has taken over"  # as that rule says it: `controller.rules`

log = logging.getLogger("cohort.kube")

Object = dict[str, Any]


class Api(Protocol):
    """The API server."""

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str] | None = None,
        kind: str = ...,
        limit_s: float = ...,
    ) -> Object:
        """One request, and the answer's document; raises `Temporary`."""


class Permission(Protocol):
    """Whether one may act; `lease.Elector` says."""

    @property
    def is_held(self) -> bool:
        """Now."""


class Fenced(Temporary):
    """What is stored is not what this one has decided on: somebody else has taken over, or a lost write arrived."""


def path(namespace: str, name: str) -> str:
    """Of a custom resource's status."""
    return f"/apis/cohort.dev/v1alpha1/namespaces/{namespace}/canaryrollouts/{name}/status"


async def take_over(api: Api, rollout: Object, identity: str) -> Object:
    """Make the status ours: the next term, and nothing else of it changed.

    Args:
        api: The API server.
        rollout: The custom resource as last seen; a later one refuses.
        identity: Of this controller.

    Returns:
        The custom resource after that: from here on nobody else writes its status.

    Raises:
        Temporary: It has changed meanwhile, or the API server does not answer: look again.
    """
    metadata, status = rollout["metadata"], rollout.get("status") or {}
    leader = {"identity": identity, "term": int((status.get("leader") or {}).get("term") or 0) + 1}
    begun = {} if status else {"phase": "Pending", "observedGeneration": metadata.get("generation", 0)}
    body = {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "status": {**begun, "leader": leader}}
    return await api.ask("PATCH", path(metadata["namespace"], metadata["name"]), body, kind=MERGE_PATCH)


class Ledger:
    """The status of one custom resource, from one takeover on.

    Attributes:
        checkpoint_s: How often elapsed time alone is stored.
        is_fenced: Whether somebody else has taken over, or a write whose answer was lost was carried out after all:
            then nothing is written any more, and who may decide takes over anew.
        uid: Of the resource; ``term``: which takeover this one is.
        generation: Of the document that the rollout is at, as the API server counts.

    Args:
        api: The API server.
        rollout: As `take_over` returned it.
        lease: Without it nothing is written but what an abort may do without.
        reporter: Who says what Events tell.
    """

    def __init__(
        self,
        api: Api,
        rollout: Object,
        lease: Permission,
        reporter: str,
    ) -> None:
        self.checkpoint_s = CHECKPOINT_S
        self.is_fenced = False
        self.generation = int(rollout["metadata"].get("generation") or 0)
        self.uid = str(rollout["metadata"]["uid"])
        self._api = api
        self._metadata: Mapping[str, Any] = rollout["metadata"]
        self._leader = rollout["status"]["leader"]
        self.term = int(self._leader["term"])
        self._plan: Object = rollout["status"].get("plan") or {}  # stays until there is another: its number never falls
        self._lease = lease
        self._reporter = reporter
        self._written: Object = {}
        self._state = rollout["status"].get("state")  # as last known to be stored
        self._is_in_doubt = False  # whether the answer to a write was lost, so that it may have been carried out

    async def save(self, moved: Moved) -> None:
        """Store a transition.

        Without the Lease, or an API server, time and measurements go on in memory, so that a bad canary is still found
        and latched; nothing else happens.

        Raises:
            Temporary: It could not be stored: it has not happened.
        """
        try:
            await self._write(moved)
        except Temporary as error:
            if not moved.is_quiet or self.is_fenced:
                raise
            log.info("a checkpoint was not stored: %s", error)
        await self.tell(moved.stored.key, moved.at, moved.told)

    async def show(self, moved: Moved) -> None:
        """Write what has changed beside the state: who has acknowledged, conditions, measured shares."""
        try:
            await self._write(moved)
        except Temporary as error:
            log.info("the status was not written: %s", error)

    async def _write(self, moved: Moved) -> None:
        if self.is_fenced:
            raise Fenced("another controller has taken this rollout over")
        if not self._lease.is_held:
            raise Temporary("the Lease is not held: nothing but an abort is carried out")
        status = self._status(moved)
        await self._replace(status)

    async def refuse(self, reason: str, problem: str, rollout: Object, at: float) -> None:
        """Say why a rollout does not even begin; raises `Temporary`."""
        generation = rollout["metadata"].get("generation", 0)
        known = {each.get("type"): each for each in (rollout.get("status") or {}).get("conditions") or ()}
        told = [_untrue(kind, reason, problem, generation, known.get(kind) or {}, at) for kind in ("Accepted", "Ready")]
        if told != [known.get("Accepted"), known.get("Ready")]:
            begun = {"phase": "Pending", "observedGeneration": generation}
            await self._replace({**begun, "leader": self._leader, "conditions": told})

    async def _replace(self, status: Object) -> None:
        if status == self._written:
            return
        body = [
            {"op": "test", "path": "/metadata/uid", "value": self._metadata["uid"]},
            # What was decided since stands on what was stored before: a plan's number is never given out twice.
            *([{"op": "test", "path": "/status/state", "value": self._state}] if self._is_in_doubt else []),
            {"op": "add", "path": "/status", "value": status},
        ]
        where = path(self._metadata["namespace"], self._metadata["name"])
        try:
            await self._api.ask("PATCH", where, body, kind=JSON_PATCH, limit_s=WRITE_S)
        except Temporary as error:
            self._refused(error)
            raise
        self._written, self._state, self._is_in_doubt = status, status.get("state"), False

    def _refused(self, error: Temporary) -> None:
        """What a write that failed means for those to come; raises `Fenced` where deciding has to begin anew."""
        if not isinstance(error, ApiRefused) or error.status >= SERVER_ERROR:
            self._is_in_doubt = True
        elif error.status in REFUSED and (self._is_in_doubt or TAKEN in str(error)):
            self.is_fenced = True
            raise Fenced(str(error)) from None

    def _status(self, moved: Moved) -> Object:
        status: Object = moved.status.model_dump(mode="json", by_alias=True, exclude_none=True)
        status.pop("resourceVersion", None)
        status |= {"leader": self._leader, "state": moved.stored.state, "observedGeneration": self.generation}
        if moved.stored.evidence:
            status["evidence"] = moved.stored.evidence
        if "plan" in status:
            self._plan = {}
        elif self._plan:
            status["plan"] = self._plan
        for condition in status.get("conditions", ()):
            condition["observedGeneration"] = self.generation
        if moved.plan and moved.document:
            status["plan"] |= {"digest": moved.plan.core_digest, "document": moved.document}
        return status

    async def tell(self, key: str, at: float, told: Sequence[Tell]) -> None:
        """Tell people, as Events; one that is not taken is lost, for nothing hangs on it."""
        for tell in told:
            try:
                await self._api.ask("POST", self._events_path(), self._event(tell, at), limit_s=WRITE_S)
            except ControllerError as error:
                log.info("an Event was not taken: %s", error)

    def _events_path(self) -> str:
        return f"/apis/events.k8s.io/v1/namespaces/{self._metadata['namespace']}/events"

    def _event(self, tell: Tell, at: float) -> Object:
        metadata = self._metadata
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"generateName": f"{metadata['name']}-", "namespace": metadata["namespace"]},
            "eventTime": timestamp(at)[:-1] + ".000000Z",
            "type": "Warning" if tell.is_warning else "Normal",
            "reason": str(tell.reason),
            "action": str(tell.reason),
            "note": tell.message[:NOTE],
            "reportingController": "cohort.dev/controller",
            "reportingInstance": self._reporter[:128],
            "regarding": {
                "apiVersion": "cohort.dev/v1alpha1",
                "kind": "CanaryRollout",
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
            },
        }


def _untrue(kind: str, reason: str, message: str, generation: int, before: Object, at: float) -> Object:
    """A condition that does not hold, since when it did not."""
    since = before.get("lastTransitionTime") if before.get("status") == "False" else None
    return {
        "type": kind,
        "status": "False",
        "reason": reason,
        "message": message[:4096],
        "observedGeneration": generation,
        "lastTransitionTime": since or timestamp(at),
    }
