"""Whether what happened is what a case accepts, and whether the invariants of all cases held."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.wire.case import Case, Outcome
from tests.wire.client import Client
from tests.wire.service import Call, Service
from tests.wire.stand import Samples, total
from tests.wire.strict import Message

RSS_BYTES = 8 << 20  # I7
BLOCK_S = 0.1  # I7
SMUGGLED = b"SMUGGLED"
_LOGGED = ("Traceback", "never retrieved", "Fatal error", "Exception in callback", "was destroyed but it is pending")
_LATE = (
    "no answer within",
    "a victim got 504",
    "the proxy does not answer",
    "not closed within",
    "neither answer nor close",
)
# What only the insides of a proxy would say (I6).
_INTERNALS = re.compile(
    rb"traceback|\.py\b|exception|errno|asyncio|uvloop|aiohttp|llhttp|h11|127\.0\.0\.1:\d|expected |object at 0x",
    re.IGNORECASE,
)


@dataclass
class Evidence:
    """All that was seen of one run.

    Attributes:
        before: Metrics before it; `after`: once everything had settled.
        log: What the proxy logged meanwhile.
        timing: Faults by the clock, which a busy machine can cause.
        taken: Bytes that the proxy had read from clients which could not send all.
    """

    case: Case
    clients: Sequence[Client]
    services: Sequence[Service]
    before: Samples = field(default_factory=dict)
    after: Samples = field(default_factory=dict)
    log: str = ""
    timing: list[str] = field(default_factory=list)
    taken: int = 0

    @property
    def calls(self) -> list[Call]:
        """Upstream connections."""
        return [call for service in self.services for call in service.calls]

    @property
    def requests(self) -> list[Message]:
        """What the services read in this case, the incomplete ones too."""
        return [message for call in self.calls for message in call.requests if not call.service.gets_copies]

    @property
    def seen(self) -> int:
        """Complete requests."""
        return sum(message.complete for message in self.requests)

    @property
    def up_bytes(self) -> bytes:
        """Everything sent to the services."""
        return b"\n".join(call.received for call in self.calls if not call.service.gets_copies)

    def delta(self, name: str, **labels: str) -> int:
        """How much a counter grew."""
        return round(total(self.after, name, **labels) - total(self.before, name, **labels))


# --- the outcomes of a case


def mismatches(outcome: Outcome, evidence: Evidence) -> list[str]:
    """What of an outcome was otherwise; empty where it matches."""
    found = [text for client in evidence.clients for text in _client_mismatches(outcome, client, evidence)]
    wanted = outcome.upstream_sees
    if wanted is not None and evidence.seen not in wanted:
        found.append(f"upstream_sees: expected {wanted}, got {evidence.seen}")
    found += _texts("up", outcome.up_has, outcome.up_lacks, evidence.up_bytes)
    return found


def _client_mismatches(outcome: Outcome, client: Client, evidence: Evidence) -> list[str]:
    finals = client.finals
    codes = [message.status for message in finals]
    found = _status_mismatches(outcome, codes, client.is_over)
    ended_by_us = client.closed in ("close", "rst")
    if outcome.connection == "close" and not client.is_over:
        found.append("connection: expected close, it is open")
    if outcome.connection == "keepalive":
        if client.is_over:
            found.append("connection: expected keepalive, it is closed")
        elif finals and finals[-1].closes:
            found.append("connection: expected keepalive, the response announces its close")
    if outcome.wants_incomplete:
        if finals and finals[0].complete:
            found.append("the response looks whole, though it was cut")
    elif not ended_by_us and not all(message.complete for message in finals) and not _gave_up(client):
        found.append("a response is incomplete")
    found += _texts("cl", outcome.cl_has, outcome.cl_lacks, client.received)
    if outcome.within_ms and (late := _outcome_at(outcome, client) - client.link.sent_at) > outcome.within_ms / 1000:
        found.append(f"within_ms: expected {outcome.within_ms}, took {late * 1000:.0f}")
    return found


def _gave_up(client: Client) -> bool:
    """The script has not been carried out, because the proxy reads no more: what is under way may be incomplete."""
    return not client.is_done


def _status_mismatches(outcome: Outcome, codes: list[int], is_over: bool) -> list[str]:
    if not codes:
        if 0 not in outcome.status:
            return [f"status: expected {_choice(outcome.status)}, got no response"]
        return [] if is_over else ["status: expected a close without response, the connection is open"]
    if codes[0] not in outcome.status:
        return [f"status: expected {_choice(outcome.status)}, got {codes[0]}"]
    found = [
        f"then: expected {_choice(allowed)}, got {code}"
        for allowed, code in zip(outcome.then, codes[1:], strict=False)
        if code not in allowed
    ]
    if outcome.responses is None:
        if len(codes) != 1 + len(outcome.then):
            found.append(f"responses: expected {1 + len(outcome.then)}, got {len(codes)}: {codes[:20]}")
    elif len(codes) not in outcome.responses:
        found.append(f"responses: expected {outcome.responses}, got {len(codes)}: {codes[:20]}")
    return found


def _choice(codes: Sequence[int]) -> str:
    return " or ".join(map(str, codes))


def _texts(what: str, has: Sequence[str], lacks: Sequence[str], data: bytes) -> list[str]:
    lower = data.lower()
    found = [f"{what}_has: {text!r} is missing" for text in has if text.encode("latin-1").lower() not in lower]
    return found + [f"{what}_lacks: {text!r} is there" for text in lacks if text.encode("latin-1").lower() in lower]


def _outcome_at(outcome: Outcome, client: Client) -> float:
    """When an outcome was there: the close where that is part of it, else the last response."""
    link = client.link
    if outcome.connection == "close" or not client.final_at:
        return link.ended_at or link.sent_at
    return client.final_at[-1]


# --- the invariants


def violations(evidence: Evidence) -> list[str]:
    """What of I1, I2, I3, I5, I6 and I7 was broken; the victim probe (I4) is a request of its own."""
    return [*smuggled(evidence), *lasting(evidence)]


def lasting(evidence: Evidence) -> list[str]:
    """The same without I3, for bytes that may hold any target."""
    return [
        *_accounts(evidence),
        *_upstream_syntax(evidence),
        *_closed_upstream(evidence),
        *_answers(evidence),
        *_logged(evidence.log),
    ]


def _accounts(evidence: Evidence) -> list[str]:
    """I1. What the proxy counts are requests that it gave to a version, one each, whatever became of them.

    Attempts that got as far as the service are those, and the retries, without those that did not connect. A request
    whose client left, or broke its body, before the connection was made cannot be told from one that left later, and
    one that went into a connection which the service had just ended was never read: only for those the comparison is
    with two bounds. Each attempt ends in the head of an answer, in a failure, or by its client's fault.
    """
    delta = evidence.delta
    sent = delta("cohort_requests_total") - delta("cohort_requests_total", source="mirror")
    sent += delta("cohort_retries_total")
    for kind in ("connect", "overflow"):
        sent -= delta("cohort_upstream_failures_total", kind=kind)
    left = delta("cohort_requests_total", code="499") + delta("cohort_downstream_rejected_total", cause="body")
    unsure = left + delta("cohort_retries_total") + delta("cohort_upstream_failures_total", kind="reset")
    calls = [call for call in evidence.calls if not call.service.gets_copies]
    heads = len([message for call in calls for message in call.reader.messages[call.first :]])
    relayed = delta("cohort_upstream_duration_seconds_count")
    failed = delta("cohort_upstream_failures_total") + delta("cohort_retries_total")
    left += sum(delta("cohort_downstream_rejected_total", cause=cause) for cause in ("limit", "timeout"))
    found = []
    if not sent - unsure <= heads <= sent:
        found.append(f"I1: services read {heads} requests, the proxy counted {sent} (of these {unsure} maybe not sent)")
    written = sum(len([m for m in call.answers.finals if m.begin >= call.written_from]) for call in calls)
    if relayed > written:
        found.append(f"I1: the proxy counted {relayed} response heads, services wrote {written}")
    if sent > relayed + failed + left:
        found.append(f"I1: of {sent} requests {relayed} were answered, {failed} failed and {left} clients left")
    copied = len([message for call in evidence.calls if call.service.gets_copies for message in call.requests])
    if copied > heads:
        found.append(f"I1: {copied} copies of {heads} requests")
    return found


def _upstream_syntax(evidence: Evidence) -> list[str]:
    """I2."""
    given = b"\n".join(client.sent for client in evidence.clients)
    found = []
    for call in evidence.calls:
        if call.reader.fault is not None:
            found.append(f"I2: upstream of {call.service.arm}: {call.reader.fault}")
        found += call.violations
        found += call.misread()
    for message in evidence.requests:
        # An absolute target may have no path; it gets one.
        if message.target not in given and message.target.removeprefix(b"/") not in given:
            found.append(f"I2: the target {message.target[:80]!r} is not one that the client sent")
    return found


def smuggled(evidence: Evidence) -> list[str]:
    """I3."""
    if any("SMUGGLED" in text for outcome in evidence.case.expect for text in outcome.up_has):
        return []
    return [f"I3: {message.target!r} reached a service" for message in evidence.requests if SMUGGLED in message.target]


def _closed_upstream(evidence: Evidence) -> list[str]:
    """I5. To be asked once the proxy has had time to close."""
    found = []
    for call in evidence.calls:
        if call.must_close and not call.link.is_over:
            found.append(f"I5: still open after a response that broke its framing: {call.answers.fault}")
        if call.reader.is_partial:
            if not call.link.is_over:
                found.append("I5: an upstream connection with part of a request is still open")
            if call.reader.current is not None and call.reader.current.last_chunk:
                found.append("I5: a terminating chunk on a request that never ended")
    return found


def unsettled(evidence: Evidence) -> bool:
    """Whether something that I1 or I5 asks for may still come about by itself."""
    pending = total(evidence.after, "cohort_pending_requests")
    return bool(pending or _closed_upstream(evidence) or _accounts(evidence))


def _answers(evidence: Evidence) -> list[str]:
    """I6, and that what the client got is HTTP."""
    found = []
    for client in evidence.clients:
        if client.reader.fault is not None:
            found.append(f"I6: to the client: {client.reader.fault}")
        interims = [message.status for message in client.reader.messages]
        if interims.count(100) > max(1, len(client.finals)):
            found.append(f"I6: {interims.count(100)} times 100 for {len(client.finals)} responses")
        was_reset = client.link.ended == "reset" and client.finals and client.finals[-1].framing != "close"
        if was_reset and all(message.complete for message in client.finals):
            found.append("the connection was reset behind a complete response, which may destroy it on its way")
        if evidence.case.port == "admin":
            continue
        for message in client.finals:
            is_relayed = message.all(b"x-up") or (evidence.case.up is not None and not _is_own(message))
            if not is_relayed and (leak := _INTERNALS.search(message.body)):
                found.append(f"I6: {leak[0]!r} in an answer of the proxy's own: {bytes(message.body[:200])!r}")
    for call in evidence.calls:
        found += _cut(call, evidence)
    return found


def _is_own(message: Message) -> bool:
    return message.status >= 400 and not message.all(b"x-up")


def _cut(call: Call, evidence: Evidence) -> list[str]:
    """A response that its service cut must not look whole to the client (contract item 14)."""
    last = call.answers.finals[-1] if call.answers.finals else None
    if last is None or last.complete or last.begin < call.written_from or len(evidence.clients) != 1:
        return []
    client = evidence.clients[0]
    finals = client.finals
    if finals and finals[-1].complete and finals[-1].status == last.status and len(finals) == len(call.requests):
        return ["a response that its service cut looks whole to the client"]
    return []


def _logged(log: str) -> list[str]:
    """I7, what the log tells."""
    return [f"I7: in the log: {line[:200]}" for line in log.splitlines() if any(word in line for word in _LOGGED)]


def grown(growth: int, trouble: str, is_alive: bool) -> list[str]:
    """I7, what was seen from outside: memory in bytes, and whether the proxy lives."""
    found = [f"I7: memory grew by {growth / (1 << 20):.1f} MiB"] if growth > RSS_BYTES else []
    if trouble:
        found.append(f"I7: {trouble}")
    return found if is_alive else [*found, "I7: the proxy or its worker has ended"]


def blocked(seconds: float) -> list[str]:
    """I7, the loop of events."""
    return [f"I7: the loop stood still for {seconds * 1000:.0f} ms"] if seconds > BLOCK_S else []


def is_late(fault: str) -> bool:
    """Whether a fault is one of the clock, which a machine that does too much at once can cause as well."""
    return any(text in fault for text in _LATE)
