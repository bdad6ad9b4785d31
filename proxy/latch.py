"""The abort latch: while it stands everybody is on stable, and only a plan that names its id in ``lifts`` ends it.

The document is small and kept beside the last good plan; it is on disk before an abort is answered.
"""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import blake2b
from typing import Annotated

from pydantic import Field

from proxy.document import Document, DocumentError, parse
from proxy.plan import Plan, Revision

Id = Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]  # what a plan's lifts may name
Who = Annotated[str, Field(min_length=1, max_length=256)]
Reason = Annotated[str, Field(max_length=1024)]


class Latch(Document):
    """One abort that stands.

    Attributes:
        revision: On trial when it was aborted; None if none was, or if nobody knows any more.
        by: Who aborted, as they said it.
        at: UTC, as RFC 3339 writes it.
    """

    id: Id
    revision: Revision | None = None
    by: Who
    at: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]
    reason: Reason = ""


class Abort(Document):
    """A request to abort.

    Attributes:
        id: Chosen by a caller that may have to ask again; absent: the proxy chooses one.
    """

    by: Who
    reason: Reason = ""
    id: Id | None = None


def latch(abort: Abort, fresh_id: str, revision: str | None, now_wall_s: float) -> Latch:
    """The latch that a request to abort sets.

    Args:
        fresh_id: The id if the request names none.
        revision: The one on trial now.
        now_wall_s: Unix seconds.
    """
    at = timestamp(now_wall_s)
    return Latch(id=abort.id or fresh_id, revision=revision, by=abort.by, at=at, reason=abort.reason)


def timestamp(wall_s: float) -> str:
    """UTC to the second, as RFC 3339 writes it: ``2026-09-01T12:00:00Z``."""
    return datetime.fromtimestamp(wall_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def serialise_latch(latch: Latch) -> bytes:
    """The document as it is stored: one line of JSON."""
    return latch.model_dump_json(by_alias=True).encode() + b"\n"


def restore_latch(content: bytes, now_wall_s: float) -> Latch:
    """The latch that a stored document stands for.

    A document that cannot be read is an abort all the same: users stay on stable, and the latch gets an id made from
    the content, the same at each start, so that a plan can lift it.
    """
    try:
        return parse(Latch, content)
    except DocumentError as error:
        made = blake2b(content, digest_size=8).hexdigest()
        at = timestamp(now_wall_s)
        return Latch(id=made, by="cohort", at=at, reason=f"the stored latch cannot be read: {error}"[:1024])


def is_lifted(latch: Latch, plan: Plan) -> bool:
    """Whether this plan ends this latch."""
    return latch.id in plan.lifts
