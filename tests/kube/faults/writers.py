"""Who wrote a rollout's status, from the API server's audit log. Pure.

Never two writers: in the order in which the API server accepted them, terms never fall, and a term has one identity.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

FENCED = (409, 422)
Event = Mapping[str, Any]


class Write(NamedTuple):
    """One write of the status.

    Attributes:
        version: The resourceVersion that it made; 0 where it was refused.
        at: When the API server answered, as the audit log writes it.
        code: Of the answer.
        said: Why it was refused.
        leader: ``(term, identity)`` that the writer gave itself.
        rollout: The CanaryRollout after it; empty where it was refused.
    """

    version: int
    at: str
    code: int
    said: str
    leader: tuple[int, str]
    rollout: Mapping[str, Any]


def writes(events: Iterable[Event], namespace: str) -> list[Write]:
    """Every answered write of a status in a namespace, in the log's order."""
    return list(_writes(events, namespace))


def _writes(events: Iterable[Event], namespace: str) -> Iterator[Write]:
    for event in events:
        reference = event.get("objectRef") or {}
        found = reference.get("resource"), reference.get("subresource"), reference.get("namespace")
        if found != ("canaryrollouts", "status", namespace) or event["verb"] not in ("patch", "update"):
            continue
        answer = event.get("responseStatus") or {}
        code = int(answer.get("code") or 0)
        rollout = event.get("responseObject") or {} if 200 <= code < 300 else {}
        version = int((rollout.get("metadata") or {}).get("resourceVersion") or 0)
        said = str(answer.get("message") or "")
        yield Write(version, str(event.get("stageTimestamp") or ""), code, said, _leader(event), rollout)


def _leader(event: Event) -> tuple[int, str]:
    """What the request says, which is a merge patch, a JSON patch or the object itself."""
    body = event.get("requestObject") or {}
    if isinstance(body, list):
        body = {"status": next((one["value"] for one in body if one.get("path") == "/status"), {})}
    leader = (body.get("status") or {}).get("leader") or {}
    return int(leader.get("term") or 0), str(leader.get("identity") or "")


def accepted(found: Iterable[Write]) -> list[Write]:
    """Those that the API server carried out, in its order."""
    return sorted((write for write in found if 200 <= write.code < 300), key=lambda write: write.version)


def fenced(found: Iterable[Write]) -> list[Write]:
    """Those that the rule of the definition refused, because another one has taken over."""
    return [write for write in found if write.code in FENCED and "leader" in write.said]


def problems(found: Iterable[Write]) -> list[str]:
    """What shows two writers; empty: there was never more than one."""
    told, names, last = [], dict[int, str](), 0
    for write in accepted(found):
        term, identity = write.leader
        if term < last:
            told.append(f"{write.version}: term {term} of {identity} was accepted after term {last}")
        if names.setdefault(term, identity) != identity:
            told.append(f"{write.version}: term {term} is of {identity} and of {names[term]}")
        last = max(last, term)
    return told
