"""What cases of the file ask for in words: set-ups and checks by the case's id, and what holds for a whole port."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.wire.case import Case
from tests.wire.fill import Filler
from tests.wire.oracle import Evidence
from tests.wire.stand import Stand
from tests.wire.strict import Message

Check = Callable[[Stand, Evidence, Filler], list[str]]
STALLED_BYTES = 262_144  # one read and a head's limit, with room
LOG_S = 0.3  # until a line is written
CHECKS: dict[str, Check] = {}


def _check(*ids: str) -> Callable[[Check], Check]:
    def add(check: Check) -> Check:
        CHECKS.update(dict.fromkeys(ids, check))
        return check

    return add


@contextlib.asynccontextmanager
async def prepared(stand: Stand, case: Case) -> AsyncIterator[None]:
    """What must be so before a case whose note says it."""
    if case.id != "CK-09":
        yield
        return
    await stand.put(canary_bp=0)
    try:
        yield
    finally:
        await stand.put()


async def check(stand: Stand, evidence: Evidence, filler: Filler, state: Any, is_last: bool) -> list[str]:
    """What a note asks for and was otherwise.

    Args:
        state: Of the proxy before a case on the admin port.
        is_last: Of the runs of a case: what has to be asked for is asked then.
    """
    found = CHECKS[evidence.case.id](stand, evidence, filler) if evidence.case.id in CHECKS else []
    if state is not None:
        now = await stand.state()
        if now["plan"] != state["plan"] or now["latch"] != state["latch"]:
            found.append(f"note: plan or latch changed: {state['plan']} to {now['plan']}")
    if is_last and evidence.case.id in ASKS:
        found += await ASKS[evidence.case.id](stand)
    return found


def _versions(evidence: Evidence) -> list[str]:
    return [b"".join(message.all(b"x-up")).decode() for client in evidence.clients for message in client.finals]


def _served_by(*versions: str) -> Check:
    def served_by(_: Stand, evidence: Evidence, __: Filler) -> list[str]:
        found = _versions(evidence)
        return [] if found == list(versions) else [f"note: expected {list(versions)}, served by {found}"]

    return served_by


CHECKS |= {
    "CK-09": _served_by("stable"),
    "FW-09": _served_by("stable", "canary"),
    "HO-11": _served_by("stable"),
}


@_check("FW-10")
def _first_line_counts(_: Stand, evidence: Evidence, __: Filler) -> list[str]:
    return ["note: the second line decided"] if "canary" in _versions(evidence) else []


@_check("CH-30")
def _trailers_are_no_fields(_: Stand, evidence: Evidence, __: Filler) -> list[str]:
    found = [
        f"note: {name!r} in a header block"
        for message in evidence.requests
        for name, _ in message.fields
        if name.lower() in (b"x-user-id", b"x-canary")
    ]
    return found + ["note: a trailer chose the version"] * ("canary" in _versions(evidence))


@_check("HD-16")
def _order_is_kept(_: Stand, evidence: Evidence, __: Filler) -> list[str]:
    values = b", ".join(value for message in evidence.requests for value in message.all(b"x-a"))
    return [] if values == b"1, 2" else [f"note: X-A came as {values!r}"]


@_check("CK-01")
def _cookie_is_safe(_: Stand, evidence: Evidence, __: Filler) -> list[str]:
    lines = [line for message in evidence.clients[0].finals for line in message.all(b"set-cookie")]
    found = [f"note: no SameSite in {line!r}" for line in lines if b"samesite=" not in line.lower()]
    return found + [f"note: the version stands in {line!r}" for line in lines if re.search(rb"canary|stable", line)]


@_check("CK-05")
def _same_version(_: Stand, evidence: Evidence, filler: Filler) -> list[str]:
    was, now = filler.versions.get("genuine"), _versions(evidence)
    found = [] if now == [was] else [f"note: the cookie's user was on {was}, is on {now}"]
    sent = evidence.clients[0].sent
    cookie = sent[sent.find(b"Cookie: ") + 8 :].partition(b"\r\n")[0]
    return found + ["note: Cookie was not relayed as it came"] * (cookie not in evidence.up_bytes)


@_check("CN-10")
def _service_is_let_go(_: Stand, evidence: Evidence, __: Filler) -> list[str]:
    gone_at = evidence.clients[0].link.sent_at + 0.1  # the script's pause before the reset
    ends = [call.link.ended_at for call in evidence.calls if call.is_touched]
    late = [f"{end - gone_at:.1f} s" for end in ends if not end or end - gone_at > 1.0]
    if evidence.delta("cohort_retries_total"):
        late.append("a retry")
    return [f"note: the client was gone, and then: {', '.join(late)}"] if late else []


@_check("CN-08")
def _nothing_is_hoarded(_: Stand, evidence: Evidence, __: Filler) -> list[str]:
    return [f"note: {evidence.taken} bytes were read while stalled"] if evidence.taken > STALLED_BYTES else []


@_check("RS-18")
def _another_connection(_: Stand, evidence: Evidence, __: Filler) -> list[str]:
    counts = [len(call.requests) for call in evidence.calls if call.requests]
    return [] if counts == [1, 1] else [f"note: requests by upstream connection: {counts}"]


@_check("RS-20")
def _events_flow(_: Stand, evidence: Evidence, __: Filler) -> list[str]:
    stream = evidence.clients[0].received
    for event in (b"data: 1", b"data: 2"):
        call = next(call for call in evidence.calls if event in call.sent)
        at = call.answers.stream.find(event, call.written_from)
        written = next(write.at for write in call.writes if write.end > at)
        arrived = next((when for when, end in evidence.clients[0].arrivals if end > stream.find(event)), 0.0)
        if arrived - written > 0.05:
            evidence.timing.append(f"note: {event!r} took {(arrived - written) * 1000:.0f} ms")
    return []


@_check("RS-21")
def _trailer_stays_one(_: Stand, evidence: Evidence, __: Filler) -> list[str]:
    as_field = [message for message in evidence.clients[0].finals if message.all(b"x-sum")]
    return ["note: X-Sum became a field"] if as_field else []


@_check("RT-13")
def _whole_body_again(_: Stand, evidence: Evidence, __: Filler) -> list[str]:
    sizes = [len(message.body) for message in evidence.requests]
    return [] if set(sizes) == {1000} else [f"note: bodies of {sizes} bytes"]


@_check("UP-06", "TE-30")
def _arrives_as_body(_: Stand, evidence: Evidence, __: Filler) -> list[str]:
    sizes = [len(message.body) for message in evidence.requests]
    return [] if sizes in ([], [36]) else [f"note: bodies of {sizes} bytes"]


@_check("RL-27")
def _only_loopback(stand: Stand, _: Evidence, __: Filler) -> list[str]:
    lines = Path(f"/proc/{stand.pid}/net/tcp").read_text().splitlines()[1:]
    remotes = {line.split()[2].partition(":")[0] for line in lines}
    return ["note: a socket to 169.254.169.254"] if "FEA9FEA9" in remotes else []


@_check("LM-16")
def _others_live(_: Stand, evidence: Evidence, __: Filler) -> list[str]:
    served = sum([message.status for message in client.finals] == [200, 200] for client in evidence.clients)
    return [] if served >= 199 else [f"note: {served} connections got two answers"]  # the watch has one of 200


@_check("LM-17")
def _hashes_are_random(stand: Stand, _: Evidence, __: Filler) -> list[str]:
    environment = Path(f"/proc/{stand.pid}/environ").read_bytes().split(b"\0")
    return ["note: PYTHONHASHSEED is pinned"] if any(v.startswith(b"PYTHONHASHSEED=") for v in environment) else []


@_check("RS-11")
def _all_is_body(_: Stand, evidence: Evidence, __: Filler) -> list[str]:
    message: Message = evidence.clients[0].finals[0]
    wrong = message.status == 200 and bytes(message.body) != b"5\r\nhello\r\n0\r\n\r\n"
    return ["note: the body is not all bytes to the end"] if wrong else []


# --- what has to be asked


async def _is_healthy(stand: Stand) -> list[str]:
    status, _ = await stand.ask("GET", "/healthz")
    return [] if status == 200 else [f"note: health is {status}"]


async def _one_record(stand: Stand) -> list[str]:
    """One access record, every line parses, the target says what was sent."""
    await asyncio.sleep(LOG_S)
    records = [json.loads(line) for line in stand.access.splitlines()]
    if any("forged" in record or "lvl" in record for record in records):
        return ["note: a client wrote into the log"]
    theirs = [record for record in records if record["target"] != "*" and not record["target"].startswith("/wire-")]
    last = theirs[-1] if theirs else None
    if last is not None and (last["status"] == 400 or "%0A%22" in last["target"]):
        return []
    return [f"note: the last access record is {last}"]


async def _series_are_bounded(stand: Stand) -> list[str]:
    text = (await stand.ask("GET", "/metrics", port=stand.metrics_port))[1].decode()
    samples = await stand.metrics()
    names = [line for line in text.splitlines() if line.startswith("cohort_requests_total")]
    found = [] if len(names) < 50 else [f"note: {len(names)} series of requests"]
    return found + ["note: up is no metric of ours"] * any(name == "up" for name, _ in samples)


ASKS: dict[str, Callable[[Stand], Awaitable[list[str]]]] = {
    "LM-16": _is_healthy,
    "LG-01": _one_record,
    "LG-02": _series_are_bounded,
    "AD-01": _is_healthy,
}
