"""Runs one case against a running proxy: the script, the wait for an outcome, the invariants, the probes."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from tests.wire import notes, oracle
from tests.wire import profile as profiles
from tests.wire.case import Case, Outcome
from tests.wire.client import Client
from tests.wire.fill import Filler, FillError
from tests.wire.oracle import Evidence
from tests.wire.service import BOTH, Script
from tests.wire.stand import Stand, StandError, total

QUIET_S = 0.12  # without anything new before an outcome counts: a second response would come within a millisecond
NEVER_S = 4.5  # without anything new before a case is given up: twice the longest of the proxy's time-outs
BLOCKED_S = 2.0  # for which a write may stand still once an outcome is there
CASE_S = 40.0
STUCK = "harness: the case took too long"
SETTLE_S = 3.0  # for the proxy to finish what a case began
VICTIMS = 5  # I4
VICTIM_S = 1.0
UNLUCKY = 6  # runs of a case that gives one endpoint of several a state of its own: which one is taken is drawn
SHOWN_BYTES = 300  # of each direction in a report
LEAK_S = 8.0  # longer than a connection may linger


@dataclass
class Result:
    """What became of one case.

    Attributes:
        faults: What was wrong; empty: passed.
        timing: Of these, those by the clock alone.
        shown: The bytes both ways.
    """

    case: Case
    faults: list[str] = field(default_factory=list)
    timing: list[str] = field(default_factory=list)
    shown: str = ""

    @property
    def is_passed(self) -> bool:
        return not self.faults and not self.timing


async def run_case(stand: Stand, case: Case) -> Result:
    """Run a case as often as it says, and the victim probe behind it."""
    result = Result(case)
    repeat = max(case.repeat, UNLUCKY if {"a", "b"} & case.endpoints.keys() else 1)
    stand.new_log()
    stand.watch.begin()
    versions: list[str] = []
    run = Run(stand, case, is_last=repeat == 1)
    try:
        async with asyncio.timeout(CASE_S + repeat), run.set_up():
            for number in range(repeat):
                run = Run(stand, case, is_last=number == repeat - 1, filler=run.filler)
                await run.once(result)
                versions += run.versions
                if result.faults:
                    break
    except (FillError, StandError) as error:
        result.faults.append(f"harness: {error}")
    except TimeoutError:
        result.faults.append(STUCK)
    if not result.faults:
        result.faults += _shares(case, versions)
    for fault in await probe(stand):
        (result.timing if oracle.is_late(fault) else result.faults).append(fault)
    return result


def _shares(case: Case, versions: Sequence[str]) -> list[str]:
    found = []
    for version, allowed in case.dist.items():
        share = versions.count(version) / max(1, len(versions))
        if share not in allowed:
            found.append(f"dist: expected {allowed} of {len(versions)} on {version}, got {share:.3f}")
    return found


class Run:
    """One run of a case on fresh connections."""

    def __init__(self, stand: Stand, case: Case, is_last: bool, filler: Filler | None = None) -> None:
        self.stand = stand
        self.case = case
        self.filler = filler or Filler(stand, case)
        self.filler.nonce = secrets.token_hex(8)
        self._is_last = is_last
        self._changed = asyncio.Event()
        self.clients: list[Client] = []
        self.services = list(stand.services.values())
        self.evidence: Evidence

    @property
    def versions(self) -> list[str]:
        """X-Up of the first response of each connection."""
        firsts = [client.finals[0] for client in self.clients if client.finals]
        return [value.decode() for message in firsts for value in message.all(b"x-up")[:1]]

    @contextlib.asynccontextmanager
    async def set_up(self) -> AsyncIterator[None]:
        """What holds for all runs of a case: values, endpoints in states of their own, and what its note asks for."""
        await self.filler.prepare()
        async with _endpoints(self.stand, self.case, self.filler), notes.prepared(self.stand, self.case):
            yield

    async def once(self, result: Result) -> None:
        """Run the script and judge it."""
        case, stand = self.case, self.stand
        self.evidence = Evidence(case, self.clients, self.services, before=await stand.metrics())
        send = self.filler.steps(case.send)
        outcomes = [self.filler.outcome(outcome) for outcome in case.expect]
        self._begin()
        state = await stand.state() if case.port == "admin" else None
        is_admin = case.port == "admin"
        port = {"admin": stand.admin_port, "tls": stand.tls_port}.get(case.port, stand.port)
        tls = case.tls if case.port == "tls" and not case.raw_tcp else None
        versions = BOTH if is_admin else BOTH[:1]  # where nobody keeps a connection HTTP/1.0 is as good
        tasks: list[asyncio.Task[None]] = []
        try:
            for _ in range(case.conns):
                client = await Client.connect(port, self._changed, versions, tls)
                client.is_raw = case.raw_tcp
                self.clients.append(client)
            tasks = [asyncio.create_task(client.run(send)) for client in self.clients]
            faults = await self._until_outcome(outcomes)
            follow = [] if faults else await self._follow_up(outcomes)
            told = stand.watch.told()
            self.evidence.taken = sum(client.link.taken() for client in self.clients if client.link.is_blocked)
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            result.faults += [f"harness: {end!r}" for end in ends if isinstance(end, Exception)]
            for client in self.clients:
                await client.close()
        await self._settle()
        evidence = self.evidence
        evidence.log = stand.new_log()
        result.faults += faults or oracle.mismatches(self._best(outcomes), evidence)
        result.faults += follow
        result.faults += oracle.violations(evidence)
        blocked_s, growth, trouble = told
        result.faults += oracle.grown(growth, trouble, stand.is_alive)
        result.timing += oracle.blocked(blocked_s)
        result.faults += await notes.check(stand, evidence, self.filler, state, self._is_last)
        result.timing += evidence.timing
        if any(fault.startswith("within_ms") for fault in result.faults):
            result.timing += [fault for fault in result.faults if fault.startswith("within_ms")]
            result.faults = [fault for fault in result.faults if not fault.startswith("within_ms")]
        result.shown = shown(evidence)

    def _begin(self) -> None:
        case, endpoints = self.case, profiles.endpoints(self.case)
        for name, service in self.stand.services.items():
            steps = endpoints.get(name, None if service.gets_copies else case.up)
            script = None
            if steps is not None and not isinstance(steps, str):
                script = Script(self.filler.steps(steps), case.up_when)
            service.changed = self._changed
            service.begin(script, is_fresh=case.up_when == "connect")

    def _best(self, outcomes: Sequence[Outcome]) -> Outcome:
        return min(outcomes, key=lambda outcome: len(oracle.mismatches(outcome, self.evidence)))

    async def _until_outcome(self, outcomes: Sequence[Outcome]) -> list[str]:
        """Wait until an outcome is there and nothing more comes; returns what is wrong with the nearest one."""
        quiet = QUIET_S if self._is_last else 0.0
        last = time.monotonic()
        while True:
            wrong = oracle.mismatches(self._best(outcomes), self.evidence)
            is_settled = not wrong and all(self._is_through(client) for client in self.clients)
            if is_settled and time.monotonic() - last >= quiet:
                return []
            is_idle = all(client.is_done or client.link.is_blocked for client in self.clients)
            if is_idle and time.monotonic() - last > NEVER_S:
                return wrong or ["the script cannot be carried out"]
            self._changed.clear()
            try:
                async with asyncio.timeout(quiet if is_settled else QUIET_S):
                    await self._changed.wait()
            except TimeoutError:
                continue
            last = time.monotonic()

    def _is_through(self, client: Client) -> bool:
        """The script is at its end, or stands still because the proxy reads no more."""
        return client.is_done or (client.link.is_blocked and time.monotonic() - client.link.progress_at > BLOCKED_S)

    async def _follow_up(self, outcomes: Sequence[Outcome]) -> list[str]:
        """A connection that is said to stay must still be good for a request."""
        if self._best(outcomes).connection != "keepalive":
            return []
        await self._scripts_end()
        wrong = await asyncio.gather(
            *(client.ask(self._nonce, self._host, VICTIM_S) for client in self.clients if not client.is_over)
        )
        return [f"keepalive: the next request on this connection got {text}" for text in wrong if text]

    async def _scripts_end(self) -> None:
        """What a service sends while a request is on its connection is the answer to that."""
        deadline = time.monotonic() + SETTLE_S
        while any(call.is_playing and not call.link.is_over for call in self.evidence.calls):
            if time.monotonic() > deadline:
                return
            await asyncio.sleep(0.01)

    @property
    def _host(self) -> bytes:
        """A Host that reaches a service, on a connection that was made for one too."""
        asked = self.case.tls.get("sni")
        return asked.encode() if asked else self.stand.host

    @property
    def _nonce(self) -> bytes:
        return secrets.token_hex(8).encode()

    async def _settle(self) -> None:
        await self._scripts_end()
        deadline = time.monotonic() + SETTLE_S
        while True:
            self.evidence.after = await self.stand.metrics()
            if not oracle.unsettled(self.evidence) or time.monotonic() > deadline:
                return
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def _endpoints(stand: Stand, case: Case, filler: Filler) -> AsyncIterator[None]:
    """Give endpoints the states that a case wants, by another plan, and undo it."""
    states = {name: state for name, state in profiles.endpoints(case).items() if isinstance(state, str)}
    if not states:
        yield
        return
    unknown = states.keys() - stand.services.keys()
    if unknown:
        raise FillError(f"profile {stand.profile} has no endpoint {', '.join(unknown)}")
    with contextlib.ExitStack() as stack:
        ports: dict[str, list[int]] = {}
        for name, service in stand.services.items():
            of_arm = ports.setdefault(service.arm, [])
            state = states.get(name, "")
            if state == "refuse":
                of_arm.append(_refusing(stack))
            elif state == "blackhole":
                of_arm.append(_silent(stack))
            elif not state:
                of_arm.append(service.port)
        await stand.put(ports=ports)
        try:
            yield
        finally:
            await stand.put()


def _refusing(stack: contextlib.ExitStack) -> int:
    """A port that nobody listens on, held so that nobody will."""
    held = stack.enter_context(socket.socket())
    held.bind(("127.0.0.1", 0))
    return int(held.getsockname()[1])


def _silent(stack: contextlib.ExitStack) -> int:
    """A port whose SYNs are never answered: the queue of its listener is full."""
    listener = stack.enter_context(socket.socket())
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    for _ in range(3):
        filler = stack.enter_context(socket.socket())
        filler.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            filler.connect(listener.getsockname())
    return int(listener.getsockname()[1])


async def probe(stand: Stand) -> list[str]:
    """I4: victims on fresh connections each get their own answer."""

    async def victim() -> str:
        try:
            client = await Client.connect(stand.port, asyncio.Event())
        except (OSError, TimeoutError) as error:
            return f"no connection: {error!r}"
        try:
            return await client.ask(secrets.token_hex(8).encode(), stand.host, VICTIM_S)
        finally:
            await client.close()

    for service in stand.services.values():
        service.begin(None, is_fresh=False)
    wrong = await asyncio.gather(*(victim() for _ in range(VICTIMS)))
    return [f"I4: a victim got {text}" for text in wrong if text]


async def at_rest(stand: Stand) -> list[str]:
    """Wait until nobody but the watch is connected and nothing is under way; returns what does not end."""
    deadline = time.monotonic() + LEAK_S
    while True:
        samples = await stand.metrics()
        clients = round(total(samples, "cohort_downstream_connections"))
        pending = round(total(samples, "cohort_pending_requests"))
        found = [f"leak: {clients - 1} client connections"] * (clients > 1)
        found += [f"leak: {pending} requests pending"] * bool(pending)
        if not found or time.monotonic() > deadline:
            return found
        await asyncio.sleep(0.1)


def own_descriptors(stand: Stand) -> int:
    """Open files of a worker at rest without its connections to services, the watch's among them."""
    pooled = sum(not call.link.is_over for service in stand.services.values() for call in service.calls)
    return stand.descriptors - pooled


async def leaks(stand: Stand, descriptors: int) -> list[str]:
    """What a class of cases has left behind in a proxy that nobody asks any more.

    Args:
        descriptors: `own_descriptors` before.
    """
    found = await at_rest(stand)
    more = own_descriptors(stand) - descriptors
    return found + [f"leak: {more} descriptors"] * (more > 0)


def shown(evidence: Evidence) -> str:
    """The bytes both ways, in one line."""
    parts = []
    for number, client in enumerate(evidence.clients[:2]):
        parts.append(_part(f"client{number or ''}>", client.sent))
        parts.append(_part(f"client{number or ''}<", client.received))
        parts.append(f"[{client.link.ended or client.closed or 'open'}]")
    for call in evidence.calls:
        if call.is_touched:
            parts.append(_part(f"{call.service.arm}<", call.received))
            parts.append(_part(f"{call.service.arm}>", call.sent))
            parts.append(f"[{call.link.ended or call.link.closed or 'open'}]")
    return " ".join(parts)


def _part(what: str, data: bytes) -> str:
    rest = f"...({len(data)} bytes)" if len(data) > SHOWN_BYTES else ""
    return f"{what} {data[:SHOWN_BYTES]!r}{rest}"
