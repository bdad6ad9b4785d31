"""A worker's data plane: its listeners, its connections, the plan in force, and one sweep for all time-outs."""

from __future__ import annotations

import asyncio
import email.utils
import errno
import logging
import os
import random
import resource
import select
import socket
import ssl
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from proxy.config import ProxySettings
from proxy.counters import EVIDENCE, Counters
from proxy.errors import ProxyError, UpstreamError
from proxy.exchange import DONE, TUNNEL
from proxy.http1 import HeadLimits, Request
from proxy.identity import TrustedPeers
from proxy.keys import Keys
from proxy.memo import HeadMemo, ResponseMemo
from proxy.net.accesslog import AccessLog
from proxy.net.arrival import Arrival
from proxy.net.credentials import Credentials, Presented, upstream_context
from proxy.net.dial import dial
from proxy.net.downstream import Downstream
from proxy.net.mirror import Copy
from proxy.net.pool import Endpoint, Room
from proxy.net.turnstile import Turnstile
from proxy.net.upstream import HOLD_BUDGET, Upstream
from proxy.net.view import ArmView, View
from proxy.plan import Arm, Plan
from proxy.region import EPOCH_S
from proxy.shared import LATCH, PLAN_SEQUENCE, Words
from proxy.standing import GOOD, Rules

if TYPE_CHECKING:
    from proxy.net.relay import Relay

log = logging.getLogger("cohort.server")

SWEEP_S: Final = 0.25  # resolution of every time-out; a sweep of 10,000 connections takes 1 ms
RESET_POLL_S = 1.0  # how often paused clients are looked at for a reset
LEAVE_S = 1.0  # for the closing of tunnels at the end of a drain
BACKLOG = 4096  # uvloop listens again with 100 when it is not told
QUEUE_S = 1.0  # for accepting what waits on a socket that is given up
RESERVED_FILES = 64  # descriptors kept for upstreams' control, logs and the loop itself
READ_BYTES = 65_536
LONG_READ_BYTES = 262_144  # half the system calls of 128 KiB, and still within the second cache
RETRY_SHARE: Final = 0.1  # contract item 15
RETRY_RESERVE: Final = 10  # retries within a window however few the requests
ID_DIGITS: Final = 32
IDS_TOGETHER: Final = 256
RETRY_WINDOW_S = 10  # as Finagle and Linkerd
LAG_S = 0.5  # a loop that comes this much too late must not take time-outs for other people's fault
# What keeps us from connecting though the endpoint is well.
_OUR_FAULT = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL))


class Server:
    """The data plane of one worker.

    Attributes:
        buffered: Bytes that kernels did not take yet, of all connections.
        collecting: Copies whose requests' bodies are still under way.
        date: The current ``Date`` line.
        draining: Answers announce the close from now on.
        most_body: Bytes that a request's body may have; 0: any number.
        most_buffered: Beyond which connections stop reading.
        now: Loop time at the end of the current sweep's interval: deadlines counted from it are never early.
        long_buffer: Where a service's answer is read into if its client takes more than a usual read at once.
        read_buffer: Where every other read goes, the beginning of the same memory; copied out, or passed on, before the
            loop goes on.
        starved: Upstream connections that wait until less is buffered.
        turnstile: Says when there is time for a handshake.
        wall_s: Unix seconds, at most one sweep old.
    """

    def __init__(self, settings: ProxySettings, keys: Keys, words: Words, counters: Counters, log: AccessLog) -> None:
        self.settings = settings
        # Copied out of the settings: reading a model's field costs 0.1 us.
        timeouts, limits = settings.timeouts, settings.limits
        self.head_s = timeouts.head
        self.response_head_s = timeouts.response_head
        self.try_s = min(timeouts.per_try or timeouts.response_head, timeouts.response_head)
        self.connect_s = timeouts.connect
        self.body_idle_s = timeouts.body_idle
        self.keep_alive_s = timeouts.keep_alive
        self.tunnel_idle_s = timeouts.tunnel_idle
        self.upstream_keep_alive_s = timeouts.upstream_keep_alive
        self.most_body = limits.body_bytes
        self.counters = counters
        self.loop = asyncio.get_running_loop()
        self.turnstile = Turnstile(self.loop, time.monotonic)
        self.trusted = TrustedPeers(settings.trusted_peers)
        self.default_host = settings.default_host.encode()
        self.head_limits = HeadLimits(limits.header_block_bytes, limits.header_count, limits.target_bytes)
        self.heads = HeadMemo(self.head_limits)
        self.response_heads = ResponseMemo(self.head_limits)
        self.long_buffer = memoryview(bytearray(LONG_READ_BYTES))
        self.read_buffer = self.long_buffer[: min(READ_BYTES, limits.buffer_bytes)]
        self.connections: set[Downstream | Arrival] = set()
        self.upstreams: set[Upstream] = set()
        self.starved: list[Upstream] = []
        self.collecting: dict[Copy, Relay] = {}
        self.buffered = 0
        self.most_buffered = limits.worker_buffer_bytes
        self.now = self.loop.time() + SWEEP_S
        self.draining = False
        self.closing = False
        self.wall_s = 0.0
        self.date = b""
        self._log = log
        self._is_logged = settings.log.access != "off"
        self._ids, self._ids_left = b"", 0  # digits for ids to come: one call of the system for many
        self._epoch = 0
        self._keys = keys
        self._cells = words.cells
        self._views: dict[int, View] = {}
        self._view: View | None = None
        self._sequence = 0
        self._endpoints: dict[tuple[str, int, str | None, bool], Endpoint] = {}
        self._addresses: dict[str, list[str]] = {}
        self._unhealthy: set[tuple[str, int]] = set()
        self._rooms: dict[tuple[str, bool], Room] = {}
        rules = settings.endpoints
        self._rules = Rules(rules.failures, rules.ejection, rules.longest_ejection)
        self._out: set[Endpoint] = set()
        self._requests = 0  # these two: within the window
        self._retries = 0
        self._past: deque[tuple[int, int]] = deque([(0, 0)] * RETRY_WINDOW_S)
        self._past_at = 0.0
        self._judges_from = 0.0
        self._presented: dict[int, Presented] = {}
        self._credentials = Credentials()
        self._upstream_tls: ssl.SSLContext | None = None  # made when it is needed: the system's authorities take 20 ms
        self._trusting = asyncio.Lock()
        self._listeners: list[tuple[socket.socket, int]] = []
        self._accepting: list[asyncio.Server] = []
        self._cap = min(limits.connections, _most_connections())
        self._tasks: asyncio.TaskGroup | None = None
        self._latched_at = 0.0
        self._poll_at = 0.0
        self._tick_wall()

    # --- plans

    def stage(self, sequence: int, plan: Plan) -> None:
        """Compile a plan and keep it until its number is the one in force.

        Raises:
            ValueError: It cannot be compiled.
        """
        via = (self.settings.via or "").encode()
        view = View(plan, self._keys, self.trusted, os.urandom, self._arm_endpoints, self._room, via)
        for arm in view.pools:
            self._refresh(arm)
        self._views[sequence] = view

    def view(self) -> View | None:
        """The plan in force, None before the first. Cost: one read of shared memory."""
        sequence = self._cells[PLAN_SEQUENCE]
        if sequence != self._sequence:
            self._turn(sequence)
        return self._view

    def _turn(self, sequence: int) -> None:
        view = self._views.get(sequence)
        if view is None:
            return  # flipped before it was staged here: impossible by the protocol, and the old plan is a safe answer
        for old in [number for number in self._views if number < sequence]:
            self._views.pop(old).retire()
        self._forget_endpoints()
        self._view, self._sequence = view, sequence
        self.counters.new_revision(view.plan.rollout.uid, view.plan.revision)

    def discovered(self, found: dict[str, Any]) -> None:
        """Take over what the supervisor knows of endpoints beside the plan, for every plan that is staged.

        New requests go to the new addresses at once; idle connections to old ones are closed, busy ones later.

        Args:
            found: The whole of it: ``names``, a list of addresses for each name; ``unhealthy``, pairs of address and
                port that fail their checks.
        """
        arms = [arm for view in self._views.values() for arm in view.pools]
        used = {arm.dns[0] for arm in arms if arm.dns}
        self._unhealthy = {(address, port) for address, port in found["unhealthy"]}
        for endpoint in self._endpoints.values():
            endpoint.checked((endpoint.address, endpoint.port) not in self._unhealthy, self.loop.time())
        # What an old plan still uses stays although the supervisor asks for it no more.
        self._addresses = {name: known for name, known in self._addresses.items() if name in used} | found["names"]
        for arm in arms:
            if arm.dns and arm.dns[0] in found["names"]:
                name, port = arm.dns
                arm.move([self._endpoint(text, port, arm.of_plan, arm.is_mirror) for text in self._addresses[name]])
            self._refresh(arm)
        self._forget_endpoints()

    def _arm_endpoints(self, arm: Arm, for_copies: bool) -> list[Endpoint]:
        if arm.dns is None:
            return [self._endpoint(e.address, e.port, arm, for_copies) for e in arm.endpoints]
        known = self._addresses.get(arm.dns.host, ())
        return [self._endpoint(address, arm.dns.port, arm, for_copies) for address in known]

    def _forget_endpoints(self) -> None:
        """Let go of those that no plan names and no request uses."""
        for key in [key for key, endpoint in self._endpoints.items() if not endpoint.plans and not endpoint.active]:
            del self._endpoints[key]

    def _endpoint(self, address: str, port: int, arm: Arm, for_copies: bool) -> Endpoint:
        server_name = arm.proven_name(address)
        key = (address, port, server_name, for_copies)
        endpoint = self._endpoints.get(key)
        if endpoint is None:
            endpoint = self._endpoints[key] = Endpoint(address, port, server_name)
            endpoint.is_healthy = (address, port) not in self._unhealthy
        endpoint.enlist(arm.name, self.loop.time())
        return endpoint

    def _room(self, arm: str, for_copies: bool) -> Room:
        room = self._rooms.get((arm, for_copies))
        if room is None:
            limits = self.settings.limits
            most = (
                (limits.mirror_requests, limits.mirror_pending)
                if for_copies
                else (limits.arm_requests, limits.arm_pending)
            )
            room = self._rooms[(arm, for_copies)] = Room(*most, limits.arm_connects_per_second)
            room.refill(SWEEP_S)
        return room

    @property
    def is_latched(self) -> bool:
        """Whether an abort stands. Cost: one read of shared memory."""
        return self._cells[LATCH] != 0

    def trust(self, credentials: Credentials) -> None:
        """Use these certificates and keys from the next handshake on.

        Raises:
            ValueError: They cannot be used; nothing has changed.
            OSError: Likewise.
        """
        self._use(credentials, self._present(credentials))

    async def trust_anew(self, credentials: Credentials) -> None:
        """The same beside requests: a context takes some milliseconds to make, and there may be many."""
        async with self._trusting:
            self._use(credentials, await asyncio.to_thread(self._present, credentials))

    def _present(self, credentials: Credentials) -> dict[int, Presented]:
        listeners = enumerate(zip(self.settings.listeners, credentials.listeners, strict=True))
        return {i: Presented(pairs, one.tls.min_version) for i, (one, pairs) in listeners if one.tls is not None}

    def _use(self, credentials: Credentials, presented: dict[int, Presented]) -> None:
        before, self._credentials = self._credentials, credentials
        self._presented, self._upstream_tls = presented, None
        if (before.authorities, before.client) != (credentials.authorities, credentials.client):
            for endpoint in self._endpoints.values():
                if endpoint.server_name is not None:
                    endpoint.clear()

    # --- connections

    async def serve(self, sockets: list[tuple[socket.socket, int]]) -> None:
        """Accept on these listening sockets and sweep until cancelled.

        Args:
            sockets: Each with the index of its listener in the settings. Inherited and never closed here: closing one
                of SO_REUSEPORT resets what is queued on it.
        """
        self._listeners = sockets
        await self._accept()
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            while True:
                await asyncio.sleep(SWEEP_S)
                await self._sweep()

    async def _accept(self) -> None:
        """Accept on duplicates, so that accepting can stop while the listening sockets stay open."""
        for sock, index in self._listeners:
            listener = self.settings.listeners[index]
            is_plain = listener.tls is None and not listener.proxy_protocol
            factory = self._downstream if is_plain else partial(self._arrival, index)
            self._accepting.append(await self.loop.create_server(factory, sock=sock.dup(), backlog=BACKLOG))

    def _stop_accepting(self) -> None:
        for server in self._accepting:
            server.close()
        self._accepting.clear()

    def _downstream(self) -> Downstream:
        return Downstream(self)

    def _arrival(self, index: int) -> asyncio.BufferedProtocol:
        listener = self.settings.listeners[index]
        return Arrival(self, self._presented[index] if listener.tls else None).protocol(listener.proxy_protocol)

    def opened(self, connection: Downstream | Arrival) -> None:
        """A client has connected."""
        self.connections.add(connection)
        self.counters.connections(1)
        if len(self.connections) >= self._cap and self._accepting:
            self.counters.downstream_rejected("connections")
            log.warning("no more clients accepted: %d connections are open, the limit", len(self.connections))
            self._stop_accepting()

    def closed(self, connection: Downstream | Arrival) -> None:
        """A client's connection is gone."""
        self.connections.discard(connection)
        self.counters.connections(-1)

    def connect(self, endpoint: Endpoint, relay: Relay | Copy) -> None:
        """Open a connection for a relay, which hears of the outcome."""
        assert self._tasks is not None
        self._tasks.create_task(self._connect(endpoint, relay))

    async def _connect(self, endpoint: Endpoint, relay: Relay | Copy) -> None:
        connection: Upstream | None
        try:
            connection = await self._open(endpoint)
        except UpstreamError as error:
            connection, failure = None, error
        try:
            if connection is None:
                relay.connect_failed(failure)
            else:
                relay.connect_done(connection)
        except Exception:  # this task's root: one broken exchange must not end the others
            log.exception("exchange failed: %r", relay)
            if connection is not None:
                connection.close()
            relay.broke()

    async def _open(self, endpoint: Endpoint) -> Upstream:
        """A new connection; the endpoint's standing hears of a failure.

        Raises:
            UpstreamError: There is none within the connect time-out.
        """
        began = self.loop.time()
        try:
            connection = await self._open_in_time(endpoint, began + self.connect_s)
        except TimeoutError:
            if self.loop.time() - began < self.connect_s + LAG_S:
                self._unreachable(endpoint, "no connection in time", refused=False)
            raise UpstreamError("connect", f"{endpoint.text}: no connection in time", 504) from None
        except OSError as error:
            if error.errno not in _OUR_FAULT:
                self._unreachable(endpoint, str(error), refused=True)
            raise UpstreamError("connect", f"{endpoint.text}: {error}") from None
        if connection.is_lost:
            gone = UpstreamError("connect", f"{endpoint.text}: closed as soon as it was open")
            self.endpoint_failed(endpoint, gone)
            raise gone
        return connection

    async def _open_in_time(self, endpoint: Endpoint, due: float) -> Upstream:
        limit = asyncio.timeout(None)
        timer = self.loop.call_at(due, self._late, limit, due)
        try:
            async with limit:
                if endpoint.server_name is not None:
                    return await self._open_tls(endpoint, endpoint.server_name)
                _, connection = await self.loop.create_connection(
                    lambda: Upstream(self, endpoint), endpoint.address, endpoint.port
                )
                return connection
        finally:
            timer.cancel()

    def _late(self, limit: asyncio.Timeout, due: float) -> None:
        """A connection is not there when it is due; a loop that comes late itself has not looked whether it is."""
        now = self.loop.time()
        limit.reschedule(now + self.connect_s if now > due + LAG_S else now)

    async def _open_tls(self, endpoint: Endpoint, server_name: str) -> Upstream:
        async with self._trusting:
            context = self._upstream_tls
            if context is None:
                context = self._upstream_tls = await asyncio.to_thread(upstream_context, self._credentials)
        connection = Upstream(self, endpoint)
        await dial(context, server_name, endpoint.address, endpoint.port, connection, self.read_buffer)
        return connection

    # --- endpoints

    def endpoint_answered(self, endpoint: Endpoint) -> None:
        """One that had failed has answered."""
        was_good = endpoint.standing.state == GOOD
        endpoint.standing.answered(self.loop.time())
        if not was_good:
            endpoint.since = self.loop.time()
            log.info("endpoint %s of arm %s answers again", endpoint.text, endpoint.arm)
            self._stands_anew(endpoint)

    def endpoint_failed(self, endpoint: Endpoint, error: UpstreamError) -> None:
        """A request got no complete answer."""
        now = self.loop.time()
        if error.kind == "timeout" and now < self._judges_from:
            return
        was_out = endpoint.standing.is_out
        endpoint.standing.failed(now, self._rules, _spread())
        if endpoint.standing.is_out and not was_out:
            self._went_out(endpoint, f"{endpoint.standing.failures} requests in a row failed, the last: {error}")

    def _unreachable(self, endpoint: Endpoint, why: str, refused: bool) -> None:
        was_out = endpoint.standing.is_out
        endpoint.standing.unreachable(refused, self.loop.time(), self._rules, _spread())
        if was_out:
            self._stands_anew(endpoint)
        else:
            self._went_out(endpoint, why)

    def _went_out(self, endpoint: Endpoint, why: str) -> None:
        seconds = endpoint.standing.until - self.loop.time()
        log.warning("endpoint %s of arm %s is left out for %.1f s: %s", endpoint.text, endpoint.arm, seconds, why)
        self._stands_anew(endpoint)

    def _stands_anew(self, endpoint: Endpoint) -> None:
        """Have all arms that use an endpoint look again which are usable."""
        if endpoint.standing.is_out:
            self._out.add(endpoint)
        else:
            self._out.discard(endpoint)
        for view in self._views.values():
            for arm in view.pools:
                if endpoint in arm.endpoints:
                    self._refresh(arm)

    def _refresh(self, arm: ArmView) -> None:
        rules = self.settings.endpoints
        arm.refresh(self.loop.time(), rules.panic_percent, rules.slow_start)

    def _probe_endpoints(self, now: float) -> None:
        """Try a connection to each endpoint that has been left out for long enough."""
        for endpoint in [e for e in self._out if now >= e.standing.until and not e.is_probed]:
            if not endpoint.plans:
                self._out.discard(endpoint)
            elif self._tasks is not None:
                endpoint.is_probed = True
                self._tasks.create_task(self._probe(endpoint))

    async def _probe(self, endpoint: Endpoint) -> None:
        try:
            connection = await self._open(endpoint)
        except UpstreamError:
            return
        finally:
            endpoint.is_probed = False
        connection.release()
        endpoint.standing.reached()
        self._stands_anew(endpoint)

    def _look_at_arms(self) -> None:
        """Publish what each arm has to do, let those in that wait for room, and see newcomers grow."""
        for (name, for_copies), room in self._rooms.items():
            room.refill(SWEEP_S)
            room.admit()
            if not for_copies:
                self.counters.pending(name, room.busy + len(room.waiting))
        if self._view is not None:
            for arm in self._view.pools:
                if arm.is_mixed:
                    self._refresh(arm)
            for arm in self._view.arms:
                self.counters.ejected(arm.name, sum(e.standing.is_out for e in arm.endpoints) if self._out else 0)

    # --- retries and buffers

    @property
    def may_retry(self) -> bool:
        """Whether the budget of retries allows one more: contract item 15."""
        return self._retries < max(RETRY_RESERVE, RETRY_SHARE * self._requests)

    def take_retry(self, arm: str) -> None:
        """Spend one retry."""
        self._retries += 1
        self.counters.retry(arm)

    def _turn_window(self, now: float) -> None:
        """Each second: what is older than the window no longer counts."""
        if now < self._past_at:
            return
        self._past_at = now + 1.0
        requests, retries = self._past.popleft()
        self._requests -= requests
        self._retries -= retries
        self._past.append(
            (self._requests - sum(past[0] for past in self._past), self._retries - sum(past[1] for past in self._past))
        )

    def _feed_starved(self) -> None:
        if self.starved and self.buffered <= self.most_buffered // 2:
            starved, self.starved = self.starved, []
            for connection in starved:
                connection.free(HOLD_BUDGET)

    # --- time

    async def _sweep(self) -> None:
        """Everything that only time brings about."""
        now = self.loop.time()
        if now > self.now + LAG_S:
            self._slept(now)
        self.now = now + SWEEP_S
        self._turn_window(now)
        self._forget_copies()
        self._tick_wall()
        self.view()
        for connection in [c for c in self.connections if c.deadline < now]:
            connection.expired(now)
        for upstream in [u for u in self.upstreams if u.deadline < now]:
            upstream.expired(now)
        self._feed_starved()
        if now >= self._poll_at:
            self._poll_at = now + RESET_POLL_S
            self._find_resets()
        self._drain_aborted(now)
        self._probe_endpoints(now)
        self._look_at_arms()
        self._log.turn()
        if not self._accepting and not self.closing and len(self.connections) < self._cap * 0.9:
            await self._accept()

    def _slept(self, now: float) -> None:
        """The loop stood still: that time is nobody's fault, and idle connections may be closed by now.

        What peers have sent meanwhile waits to be read: their deadlines move by as much as we were away.
        """
        log.warning("the event loop came %.1f s late", now - self.now)
        self._judges_from = now + 1.0
        away = now - self.now + SWEEP_S
        for peer in [*self.connections, *(upstream for upstream in self.upstreams if upstream.relay is not None)]:
            peer.deadline += away
        for upstream in [u for u in self.upstreams if u.relay is None and not u.is_alive()]:
            upstream.expired(now)

    def _tick_wall(self) -> None:
        wall = time.time()
        if int(wall) != int(self.wall_s):
            self.date = b"Date: %b\r\n" % email.utils.formatdate(wall, usegmt=True).encode()
        self.wall_s = wall
        self._epoch = int(wall) // EPOCH_S

    def _find_resets(self) -> None:
        """Close clients that are gone while their reading is paused."""
        held = {c.fileno(): c for c in self.connections if c.is_held}
        if not held:
            return
        poll = select.poll()
        for descriptor in held:
            poll.register(descriptor, 0)  # errors and hang-ups are always reported
        for descriptor, events in poll.poll(0):
            if events & select.POLLERR:  # a hang-up alone is the end of both ways, with bytes that may still be read
                held[descriptor].kill()

    def _drain_aborted(self, now: float) -> None:
        """After an abort, streams on other arms than stable get `abortDrain` and no more."""
        if not self.is_latched:
            self._latched_at = 0.0
        elif not self._latched_at:
            self._latched_at = now - SWEEP_S
        elif self.now >= self._latched_at + self.settings.timeouts.abort_drain:
            for connection in list(self.connections):
                if connection.relay is not None and not connection.relay.arm.stable:
                    connection.relay.call_off()
            for upstream in [u for u in self.upstreams if isinstance(u.relay, Copy) and not u.relay.arm.stable]:
                upstream.expired(now)

    def _forget_copies(self) -> None:
        """Give up copies of requests that have ended without their bodies' ends."""
        for copy in [copy for copy, relay in self.collecting.items() if relay.exchange.state == DONE]:
            copy.forget()

    # --- accounts

    def fresh_id(self) -> bytes:
        """32 hexadecimal digits: a request id, and the trace id of a trace that begins here."""
        at = self._ids_left
        if not at:
            self._ids = os.urandom(at := IDS_TOGETHER * ID_DIGITS // 2).hex().encode()
            at *= 2
        self._ids_left = at = at - ID_DIGITS
        return self._ids[at : at + ID_DIGITS]

    def account(self, relay: Relay, seconds: float, failed: bool) -> None:
        """One exchange has ended."""
        self.count(relay, seconds, failed)
        if relay.decision.rekeyed:
            self.counters.rekeyed()
        self._requests += 1
        if self._is_logged:
            self._log.exchange(self.wall_s, relay, seconds)

    def count(self, relay: Relay, seconds: float, failed: bool) -> None:
        """One exchange has ended for its arm."""
        counters, arm, key = self.counters, relay.arm.name, relay.decision.key
        counters.exchange(arm, relay.reason, relay.source, relay.status, failed, seconds, relay.upstream_s)
        if key is not None and relay.source == "user":
            counters.user(arm, key, self._epoch)
        if failed and not relay.arm.stable and relay.source in EVIDENCE:
            counters.user_failed(arm, key)

    def count_tunnel(self, relay: Relay, seconds: float, failed: bool) -> None:
        """One exchange has become a tunnel, or was one for a short time."""
        self.count(relay, seconds, failed)
        if relay.decision.rekeyed:
            self.counters.rekeyed()
        self._requests += 1

    def log_exchange(self, relay: Relay, seconds: float) -> None:
        """One exchange in the access log."""
        if self._is_logged:
            self._log.exchange(self.wall_s, relay, seconds)

    def log_local(self, client: Downstream, request: Request, status: int, request_id: bytes, seconds: float) -> None:
        """An answer of our own that no service had a part in."""
        self._log.local(self.wall_s, client.peer, request, status, request_id, seconds)

    def refuse(self, client: Downstream | Arrival, cause: str, error: ProxyError) -> bytes:
        """Count and log bytes that were no request; returns the id that an answer is to have."""
        request_id = self.fresh_id()
        self.counters.downstream_rejected(cause)
        self.log_refused(client, error, request_id)
        return request_id

    def log_refused(self, client: Downstream | Arrival, error: ProxyError, request_id: bytes) -> None:
        """Bytes that were no request."""
        self._log.refused(self.wall_s, client.peer, error, request_id)

    # --- the end

    async def drain(self, lame_duck_s: float, drain_s: float) -> None:
        """Leave in order: announce the close, accept for a while, let what is under way finish.

        Args:
            lame_duck_s: Still accepting for this long, because lists of endpoints are late.
            drain_s: Then at most this long for exchanges under way; tunnels are closed `LEAVE_S` before its end.
        """
        self.draining = True
        await asyncio.sleep(lame_duck_s)
        self.closing = True
        self._stop_accepting()
        await self._finish(0.0, drain_s)

    async def retire(self, idle_s: float, drain_s: float) -> None:
        """Leave to others who accept on the same sockets: stop accepting, let what is under way finish.

        Nobody loses anything by that: a connection that is queued on a socket that others hold is theirs, what waits
        on one that nobody holds any more is accepted first.

        Args:
            idle_s: For clients between two requests: the next answer tells them to come back on a new connection.
            drain_s: At most this long for all, `idle_s` included.
        """
        self.draining = True
        await self._accept_queued()
        self.closing = True
        self._stop_accepting()
        for sock, _ in self._listeners:
            sock.close()
        self._listeners = []
        await self._finish(min(idle_s, drain_s), drain_s)

    async def _accept_queued(self) -> None:
        """Go on accepting until nothing waits, `QUEUE_S` at most."""
        end = self.loop.time() + QUEUE_S
        while self.loop.time() < end:
            if not _readable([sock.fileno() for sock, _ in self._listeners]):
                return
            await asyncio.sleep(0.01)

    async def _finish(self, idle_s: float, drain_s: float) -> None:
        """Let exchanges finish, close idle connections from ``idle_s`` on, and at the end all."""
        now = self.loop.time()
        close_idle, end = now + idle_s, now + drain_s
        while self.connections and (now := self.loop.time()) < end:
            if now >= close_idle:
                self._close_idle()
            if now >= end - LEAVE_S:
                self._close_tunnels()
            await asyncio.sleep(SWEEP_S)
        for connection in list(self.connections):
            connection.kill()
        for upstream in list(self.upstreams):
            upstream.close()
        await asyncio.sleep(0)

    def _close_idle(self) -> None:
        """Close every connection between two requests, unless the next one has come and only waits to be read."""
        idle = {connection.fileno(): connection for connection in self.connections if connection.is_idle}
        for descriptor in idle.keys() - _readable([*idle]):
            idle[descriptor].close_idle()

    def _close_tunnels(self) -> None:
        """Tell those who would never end by themselves."""
        for connection in list(self.connections):
            if connection.relay is not None and connection.relay.exchange.state == TUNNEL:
                connection.relay.call_off()


def _readable(descriptors: list[int]) -> set[int]:
    """Those on which something waits."""
    poll = select.poll()
    for descriptor in descriptors:
        if descriptor >= 0:
            poll.register(descriptor, select.POLLIN)
    return {descriptor for descriptor, _ in poll.poll(0)}


def _spread() -> float:
    """A factor by which workers' back-offs differ."""
    return random.uniform(0.8, 1.2)  # noqa: S311  # spreads load, guards nothing


def _most_connections() -> int:
    """Clients that fit below RLIMIT_NOFILE, each with one upstream connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return max(1, (hard - RESERVED_FILES) // 2)
