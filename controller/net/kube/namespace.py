"""What a controller sees of its namespace: the rollout, and all objects that have a part in it, kept current."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from controller import cluster, endpoints
from controller.cluster import Behind
from controller.endpoints import Place
from controller.net.kube.once import lasting
from controller.net.kube.pace import Pace
from controller.net.kube.watch import Source, Watch
from controller.state import State
from controller.version import ServiceRef
from proxy.plan import Endpoint

Object = dict[str, Any]


class Namespace:
    """One namespace, and one rollout in it.

    Attributes:
        rollouts: Each collection is a watch; ``objects`` of it are by name.

    Args:
        api: The API server.
        name: Of the namespace; ``rollout``: of the CanaryRollout.
        changed: Called after each change.
        draw: A number from 0 to 1, for pauses.
        monotonic: Seconds.
    """

    def __init__(
        self,
        api: Source,
        name: str,
        rollout: str,
        changed: Callable[[], None],
        draw: Callable[[], float],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        pace = Pace(monotonic)

        def watch(rank: int, group: str, plural: str) -> Watch:
            path = f"/{group}/namespaces/{name}/{plural}"
            return Watch(api, path, changed, draw=draw, pace=pace, rank=rank, monotonic=monotonic)

        self._rollout = rollout
        # After an outage first what people ask for, then what everybody is to serve, then where it runs.
        self.actions = watch(0, "apis/cohort.dev/v1alpha1", "rolloutactions")
        self.rollouts = watch(1, "apis/cohort.dev/v1alpha1", "canaryrollouts")
        self.slices = watch(2, "apis/discovery.k8s.io/v1", "endpointslices")
        self.services = watch(3, "api/v1", "services")
        self.pods = watch(4, "api/v1", "pods")
        self.templates = watch(5, "apis/cohort.dev/v1alpha1", "analysistemplates")
        self._watches = (self.rollouts, self.templates, self.actions, self.services, self.pods, self.slices)

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for watch in self._watches:
                tasks.create_task(lasting("a watch", watch.run), name="watch")

    @property
    def is_synced(self) -> bool:
        """Whether all of it was ever seen."""
        return all(watch.is_synced for watch in self._watches)

    @property
    def rollout(self) -> Object | None:
        """The CanaryRollout as last seen; None: there is none."""
        return self.rollouts.objects.get(self._rollout)

    def resolved(self, rollout: Object, known: State | None) -> cluster.Resolved:
        """Its document, with the revisions that run behind its Services now.

        Args:
            rollout: The CanaryRollout.
            known: The state of what is under way; None: nothing is.
        """
        behind = Behind(self.services.objects, self.slices.objects, self.pods.objects)
        return cluster.resolve(cluster.read(rollout, self.templates.objects), behind, known)

    def places(self, ref: ServiceRef) -> tuple[Place, ...]:
        """Where the pods of a Service are, with their names; raises `Unusable`."""
        return endpoints.places(ref, self.services.objects, self.slices.objects)

    def endpoints(self, ref: ServiceRef, revision: str | None) -> tuple[Endpoint, ...]:
        """The same as a plan has it, of one revision or of whichever; raises `Unusable`."""
        places = self.places(ref)
        if revision is not None and self.rollout is not None:
            label = (self.rollout["spec"].get("revisionFrom") or {}).get("podLabel")
            places = endpoints.of_revision(places, revision, self.pods.objects, label)
        return endpoints.endpoints(places)
