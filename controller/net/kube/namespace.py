"""What a controller sees of its namespace: the rollout, and all objects that have a part in it, kept current."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from controller import cluster, endpoints
from controller.cluster import Behind
from controller.endpoints import Place
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
    """

    def __init__(
        self, api: Source, name: str, rollout: str, changed: Callable[[], None], draw: Callable[[], float]
    ) -> None:
        def watch(group: str, plural: str) -> Watch:
            return Watch(api, f"/{group}/namespaces/{name}/{plural}", changed, draw=draw)

        self._rollout = rollout
        self.rollouts = watch("apis/cohort.dev/v1alpha1", "canaryrollouts")
        self.templates = watch("apis/cohort.dev/v1alpha1", "analysistemplates")
        self.actions = watch("apis/cohort.dev/v1alpha1", "rolloutactions")
        self.services = watch("api/v1", "services")
        self.pods = watch("api/v1", "pods")
        self.slices = watch("apis/discovery.k8s.io/v1", "endpointslices")
        self._watches = (self.rollouts, self.templates, self.actions, self.services, self.pods, self.slices)

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for watch in self._watches:
                tasks.create_task(watch.run(), name="watch")

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

    def endpoints(self, ref: ServiceRef) -> tuple[Endpoint, ...]:
        """The same as a plan has it; raises `Unusable`."""
        return endpoints.endpoints(self.places(ref))
