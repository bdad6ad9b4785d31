"""The plan as the holder of the Lease publishes it, and as every replica completes it for its own proxy. Pure.

Published is all that decides who sees which version. Where the services' pods are and the salt, which is a secret, each
replica adds by itself, and nothing else: so replicas, and versions of cohort beside each other, serve one plan.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from controller.planner import content
from controller.state import State
from controller.version import ServiceRef
from proxy.assign import salt
from proxy.document import DocumentError, validate
from proxy.plan import Endpoint, Plan

MAX_BYTES = 131_072  # kubernetes.md: what a status has room for
SPLIT_KEY, SERVICE = "splitKey", "service"

Places = Callable[[ServiceRef, str | None], tuple[Endpoint, ...]]  # of one revision, or of whichever


class Incomplete(ValueError):
    """A published plan that cannot be completed here; the message says why."""


def publish(state: State, plan: Plan, split_keys: tuple[str, ...]) -> dict[str, Any]:
    """The document of a plan.

    Args:
        state: The rollout that the plan was made of.
        plan: As `planner.plan` made it.
        split_keys: Ids of the split secrets, the current one first.

    Raises:
        Incomplete: It is larger than a status has room for.
    """
    parts = content(state)
    assert parts is not None  # there is a plan
    value = plan.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude={"salt", "endpoints_version"})
    for arm, version in zip(value["arms"], (parts.stable, parts.canary), strict=False):
        if version and version.service:
            arm.pop("endpoints", None)
            arm[SERVICE] = version.service.model_dump(mode="json", by_alias=True)
    value[SPLIT_KEY] = parts.split_key if parts.split_key in split_keys else split_keys[0]
    size = len(json.dumps(value).encode())
    if size > MAX_BYTES:
        raise Incomplete(f"the plan has {size} bytes, and a status has room for {MAX_BYTES}: use fewer routes")
    return value


def complete(document: Mapping[str, Any], secrets: Mapping[str, bytes], places: Places, version: int) -> Plan:
    """The plan of a published document.

    Args:
        document: As `publish` made it.
        secrets: Split secrets by `planner.key_id`.
        places: Where a Service's pods are; may raise ValueError. Behind stable all count: a team may roll it as it
            always did. Behind any other those of its revision alone, for of what comes next nobody has decided yet.
        version: Of the endpoints.

    Raises:
        Incomplete: A secret is missing, a Service cannot be used, or the document is of a version that this one cannot
            read whole.
    """
    try:
        value = json.loads(json.dumps(document))
        secret = secrets.get(str(value.pop(SPLIT_KEY)))
        if secret is None:
            raise Incomplete("its split secret is not among the keys of this replica")
        for i, arm in enumerate(value["arms"]):
            if service := arm.pop(SERVICE, None):
                found = places(validate(ServiceRef, service), arm["revision"] if i else None)
                arm["endpoints"] = [place.model_dump(mode="json", by_alias=True) for place in found]
        salted_by = value["arms"][min(1, len(value["arms"]) - 1)]["revision"]
        value["salt"] = salt(value["rollout"]["uid"], salted_by, secret).hex()
        value["endpointsVersion"] = version
        return validate(Plan, value)
    except Incomplete:
        raise
    except DocumentError as error:
        raise Incomplete(f"it is of another version of cohort: {error}") from None
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise Incomplete(f"it is of another version of cohort: without {error}") from None
    except ValueError as error:
        raise Incomplete(str(error)) from None
