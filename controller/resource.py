"""What only a cluster has: the status of the custom resource with its fence, and the actions of people as objects.

Git owns neither. The status is written by the holder of the Lease alone, the actions by whoever may ask for them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from controller.messages import PRINTABLE
from controller.past import MAX_TEXT
from controller.spec import API_VERSION, ApiVersion, RolloutName
from controller.status import Observation, PlanStatus
from proxy.document import Document, Fault, Percent, refuse
from proxy.plan import Name, Revision

MAX_STATE = 524_288  # a third of what etcd takes for one object


class Leader(Document):
    """Who writes this status. Another one takes over with a higher term, and then the first is refused.

    Attributes:
        identity: Of the controller.
        term: Counts the holders; never falls.
    """

    identity: Annotated[str, Field(min_length=1, max_length=253)]
    term: Annotated[int, Field(ge=1, le=2**53)]


class PublishedPlan(PlanStatus):
    """The plan in force, who serves it, and the plan itself.

    Attributes:
        generation: Counts the plans of this rollout; never falls.
        digest: Of the whole plan; two proxies with equal digests decide alike.
        replicas: How many proxies there are.
        current: How many serve this very plan.
        pending: The others, the first 64 of them.
        document: The plan without endpoints and secrets, at most 128 KiB of it; every controller adds those for its
            own proxy.
    """

    document: dict[str, Any] | None = None


class RolloutStatus(Observation):
    """What a rollout in a cluster is at, and what its controller needs to go on with it.

    Attributes:
        observed_generation: Of the document that all this is about.
        phase: Where it is, in one word.
        leader: Who writes this.
        plan: The plan in force, who serves it, and the plan itself.
        revision: Revisions of stable and of what is on trial.
        step: The current step; absent: none is under way.
        weight: The canary's share of users.
        abort: The abort that stands; absent: none.
        verdict: What the evidence says; absent: nothing is being judged.
        actions: The last 16 that people asked for.
        conditions: Accepted, Programmed, Progressing, Ready and Degraded.
        state: What the rollout is at, for its controller: resumed after a crash. Not for others to read.
        evidence: What was counted so far, for its controller, likewise.
    """

    leader: Leader | None = None
    plan: PublishedPlan | None = None
    state: Annotated[str, Field(max_length=MAX_STATE)] | None = None
    evidence: Annotated[str, Field(max_length=MAX_TEXT)] | None = None


class ActionSpec(Document):
    """What somebody asks for. It cannot be changed: make another one.

    Attributes:
        rollout: Name of the CanaryRollout, in the same namespace.
        verb: What to do.
        revision: The one on trial; the action is refused when that is another one by then.
        requested_by: User name of whoever asks, as the API server knows it.
        weight: Per cent of users, for SetWeight.
        reason: Why, for Abort.
    """

    rollout: RolloutName
    verb: Literal["Promote", "PromoteFull", "Pause", "Resume", "Abort", "Retry", "SetWeight"]
    revision: Revision
    requested_by: Annotated[str, Field(min_length=1, max_length=1024, pattern=PRINTABLE)]
    weight: Percent | None = None
    reason: Annotated[str, Field(max_length=1024, pattern=PRINTABLE)] | None = None

    @model_validator(mode="after")
    def _check(self) -> ActionSpec:
        faults = []
        if (self.verb == "SetWeight") != (self.weight is not None):
            faults.append(Fault("weight", "is needed for SetWeight, and has no meaning for anything else"))
        if self.reason is not None and self.verb != "Abort":
            faults.append(Fault("reason", "has a meaning for Abort only"))
        refuse(faults)
        return self


class ActionMetadata(Document):
    """Which action this is."""

    name: Name
    namespace: Name = "default"


class RolloutAction(Document):
    """Something that a person asks of a rollout. What became of it is in the rollout's status.actions by its uid."""

    api_version: ApiVersion = API_VERSION
    kind: Literal["RolloutAction"] = "RolloutAction"
    metadata: ActionMetadata
    spec: ActionSpec
