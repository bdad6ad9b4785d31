"""Bodies of the controller's API beside the status: what may be asked, and what is answered."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from controller.events import Verb
from controller.version import Addresses
from proxy.document import Document, Duration, Fault, Percent, refuse
from proxy.plan import Dns, Name, Revision

MAX_TTL_S = 90 * 86_400.0  # a link that outlives the rollout it was made for helps nobody

PRINTABLE = r"^[^\x00-\x1f\x7f-\x9f]*$"  # it goes into logs and terminals

_TAKES = {Verb.START: ("addresses", "dns"), Verb.SET_WEIGHT: ("weight",), Verb.ABORT: ("reason",)}


class ActionRequest(Document):
    """What somebody asks for.

    Attributes:
        revision: For Start the one to try, else the one that is meant; absent: whichever is on trial.
        weight: Per cent of users, for SetWeight.
        addresses: For Start, or ``dns``; neither: the document's, if it has this revision as its canary.
        by: Who asks, for the record.
        reason: Why, for Abort.
    """

    verb: Verb
    by: Annotated[str, Field(min_length=1, max_length=256, pattern=PRINTABLE)]
    revision: Revision | None = None
    weight: Percent | None = None
    addresses: Addresses | None = None
    dns: Dns | None = None
    reason: Annotated[str, Field(max_length=1024, pattern=PRINTABLE)] | None = None

    @model_validator(mode="after")
    def _check(self) -> ActionRequest:
        faults = [
            Fault(name, f"has no meaning for {self.verb}")
            for name in ("weight", "addresses", "dns", "reason")
            if getattr(self, name) is not None and name not in _TAKES.get(self.verb, ())
        ]
        if self.verb is Verb.START and self.revision is None:
            faults.append(Fault("revision", "Start needs the revision to try"))
        if self.verb is Verb.SET_WEIGHT and self.weight is None:
            faults.append(Fault("weight", "SetWeight needs the weight, in per cent of users"))
        refuse(faults)
        return self


class ActionAnswer(Document):
    """What became of it; ``message`` in a sentence."""

    result: str
    message: str


class PreviewRequest(Document):
    """A link that pins a browser to an arm for so long."""

    arm: Name
    ttl: Annotated[Duration, Field(ge=1, le=MAX_TTL_S)] = 168 * 3600.0  # a week, as a forgotten pin


class PreviewAnswer(Document):
    """The token, and the path with it on the service's own host."""

    token: str
    path: str


class WhoamiAnswer(Document):
    """The version of one user: 32 hexadecimal digits of key, the bucket of 10,000, and what the plan gives it.

    Attributes:
        weight: The canary's, in per cent.
    """

    key: str
    bucket: int
    arm: str
    reason: str
    revision: str
    generation: int
    weight: str


class EventAnswer(Document):
    """One thing that happened; ``at`` is UTC as RFC 3339 writes it."""

    seq: int
    at: str
    type: str
    reason: str
    message: str


class Failure(Document):
    """Why a request was not carried out."""

    error: str
    faults: tuple[dict[str, Any], ...] | None = None
