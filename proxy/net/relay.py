"""One exchange's I/O: carries out what `exchange.Exchange` decides, between one client and one endpoint."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from proxy.body import LAST_CHUNK, BodyReader, Payload, body_reader, chunk
from proxy.errors import DownstreamError, ProxyError, UpstreamError
from proxy.exchange import ANSWER, CONNECTING, FALL_BACK, LINGER, RELAYING, RETRY, TRUNCATE, Exchange
from proxy.forward import SWITCH_LINES, framing_lines, passed_on, sent_id
from proxy.http1 import CHUNKED, UNTIL_CLOSE, Request, Response
from proxy.net.mirror import SOURCE, Copy
from proxy.net.pool import Endpoint, Room
from proxy.net.tunnel import Tunnel
from proxy.net.upstream import HOLD_PEER, LONG_BYTES, NEVER, Upstream
from proxy.websocket import check_granted

if TYPE_CHECKING:
    from proxy.decide import Decision
    from proxy.net.downstream import Downstream
    from proxy.net.view import ArmView, View

_SAFE: Final = frozenset((b"GET", b"HEAD", b"OPTIONS"))
CLIENT_GONE: Final = 499  # nginx's code for a client that left before the answer: a series of its own, never a failure


class Relay:
    """One request between its client and its endpoint, from the decision to the accounts.

    Attributes:
        arm: The arm in force, which a retry after an abort changes to stable.
        request_id: As sent to the service.
        sent: Payload bytes of the answer handed to the client's connection.
    """

    __slots__ = (
        "_body", "_client", "_continued", "_copy", "_first_sent_at", "_fresh_id", "_held", "_held_ended", "_length",
        "_response", "_sent_at", "_server", "_started", "_upstream", "_view", "arm", "decision", "endpoint",
        "endpoint_text", "exchange", "reason", "received", "request", "request_id", "sent", "source", "status",
        "upstream_s",
    )  # fmt: skip

    def __init__(self, client: Downstream, view: View, request: Request, decision: Decision, started: float) -> None:
        self._client = client
        self._server = client.server
        self._view = view
        self._started = started
        self.request = request
        self.decision = decision
        self.arm: ArmView = view.arms[decision.arm]
        self.reason = decision.reason
        self.source = decision.source
        self.exchange = Exchange(request.method, request.length != 0)
        self.received = 0
        self.sent = 0
        self.status = 0
        self.upstream_s = 0.0
        self.request_id = b""
        self.endpoint: Endpoint | None = None
        self.endpoint_text = ""
        self._body: BodyReader | None = None
        self._continued = False
        self._copy: Copy | None = None
        self._fresh_id = b""
        self._held = b""
        self._held_ended = False
        self._length = 0
        self._response: Response | None = None
        self._first_sent_at = 0.0
        self._sent_at = 0.0
        self._upstream: Upstream | None = None

    def __repr__(self) -> str:
        state = ("connecting", "waiting", "relaying", "tunnel", "done")[self.exchange.state]
        return f"<Relay {self.request.method!r} {state} arm={self.arm.name} endpoint={self.endpoint}>"

    @property
    def client_text(self) -> str:
        """The peer's address."""
        return self._client.peer

    @property
    def generation(self) -> int:
        """Of the plan that this exchange began with."""
        return self._view.plan.generation

    # --- request

    def start(self, rest: bytes) -> bytes:
        """Begin; ``rest`` is what came behind the head.

        Returns:
            What of it lies behind the request's end: the client's next request.
        """
        if self.decision.is_mirrored and self._view.mirror is not None and not self.request.websocket_key:
            self._copy = Copy(self._server, self._view.mirror)
        if self.exchange.request_open:
            self._body = body_reader(self.request.length, _bad_request, self._server.head_limits)
            if self._copy is not None:
                self._copy.collect(self)
            if rest:
                rest = self._take(rest)
        self._choose(None)
        return rest

    def _take(self, data: bytes) -> bytes:
        """Feed body bytes and hold their payload for `_flush`; returns what lies behind the end."""
        body = self._body
        assert body is not None
        payload = body.feed(data)
        self.received += len(payload)
        limit = self._server.most_body
        if limit and self.received > limit:
            raise DownstreamError(413, f"body above {limit} bytes")
        self._held = self._held + payload if self._held else payload
        if self._copy is not None:
            self._copy.add(payload)
        if body.done:
            self._held_ended = True
            self.exchange.request_ended()
            return body.rest
        return b""

    def request_body(self, data: bytes) -> bytes:
        """More bytes from the client while its request is open; returns what lies behind its end."""
        rest = self._take(data)
        if self.exchange.state != CONNECTING and self._upstream is not None:
            self._upstream.write(self._framed_body())
            self._client.deadline = self._server.now + self._request_patience()
            if self._copy is not None and self._held_ended:
                self._send_copy(self._copy)
        return rest

    def _framed_body(self) -> bytes:
        payload, self._held = self._held, b""
        if self.request.length == CHUNKED:
            payload = chunk(payload) if payload else b""
            if self._held_ended:
                payload += LAST_CHUNK
        return payload

    def _request_patience(self) -> float:
        server = self._server
        if self.exchange.request_open or self._response is not None:
            return server.body_idle_s
        return min(server.try_s, self._time_left()) if self._first_sent_at else server.try_s

    def _time_left(self) -> float:
        """Seconds until the response's head is due, over all tries."""
        return self._server.response_head_s - (time.monotonic() - (self._first_sent_at or self._sent_at))

    # --- choosing and connecting

    def _choose(self, failed: Endpoint | None) -> None:
        arm, client = self.arm, self._client
        endpoint = arm.choose(failed, self._server.now)
        if endpoint is None:
            self._unreachable(UpstreamError("connect", f"arm {arm.name} has no endpoint to use", 503), None)
            return
        room = arm.room
        if room.busy >= room.most_busy:
            self._wait(room)
            return
        # Contract item 16; and a retry does not trust the pool that has just failed it.
        check = self.request.method not in _SAFE and not client.unsafe_seen
        connection = None if failed else endpoint.take()
        while check and connection is not None and not connection.is_alive():
            connection.close()
            connection = endpoint.take()
        if connection is None:
            if room.connects < 1.0:
                self._wait(room)
                return
            room.connects -= 1.0
        if check:
            client.unsafe_seen = True
        self.endpoint = endpoint
        self.endpoint_text = endpoint.text
        endpoint.active += 1
        room.busy += 1
        if connection is not None:
            self.connected(connection)
            return
        client.deadline = NEVER  # connecting has a time-out of its own
        if self.exchange.request_open:
            client.hold(HOLD_PEER)
        self._server.connect(endpoint, self)

    def _wait(self, room: Room) -> None:
        """Until there is room, but no longer than for a connection."""
        if room.is_full:
            self._fail(503, "overflow")
            return
        room.waiting[self] = None
        self._client.deadline = self._server.now + self._server.connect_s
        if self.exchange.request_open:
            self._client.hold(HOLD_PEER)

    def admitted(self) -> None:
        """There is room now; an abort may have come meanwhile."""
        self._look_at_latch()
        self._choose(None)

    def _look_at_latch(self) -> None:
        if self._server.is_latched and not self.arm.stable:
            self.arm = self._view.arms[0]
            self.reason = "abort"

    def connect_done(self, connection: Upstream) -> None:
        """A new connection was made; an abort that came meanwhile keeps the request from its arm."""
        if self._server.is_latched and not self.arm.stable and self.exchange.state == CONNECTING:
            connection.release()
            self._leave_endpoint()
            self.admitted()
        else:
            self.connected(connection)

    def connected(self, connection: Upstream) -> None:
        """A connection to the chosen endpoint: send the request."""
        if self.exchange.state != CONNECTING:
            connection.relay = None
            connection.release()  # the client left meanwhile; the connection is as good as new
            return
        self.exchange.connected()
        self._upstream = connection
        connection.begin(self, self.request.method)
        client = self._client
        self._fresh_id = self._fresh_id or self._server.fresh_id()
        head = self.head_for(self.request, self.arm, self._request_lines())
        self._sent_at = time.monotonic()
        connection.write(head + self._framed_body() if self._body is not None else head)
        client.deadline = self._server.now + self._request_patience()
        if self.exchange.request_open:
            client.free(HOLD_PEER)
        elif self._copy is not None:
            self._send_copy(self._copy)

    def head_for(self, request: Request, arm: ArmView, lines: bytes) -> bytes:
        """The head of this request, or of its copy, to a service.

        Args:
            request: This relay's, or what a copy makes of it.
            arm: Where it goes.
            lines: Of the decision.
        """
        client, decision = self._client, self.decision
        baggage = arm.copy_baggage if arm.is_mirror or self.source == SOURCE else arm.baggage
        head, self.request_id = self._view.rules[client.is_trusted].head(
            request, decision.target, request.host or self._server.default_host, client.peer_bytes,
            self._fresh_id, lines, baggage, decision.strip_prefix, client.is_secure,
        )  # fmt: skip
        return head

    def _send_copy(self, copy: Copy) -> None:
        self._copy = None
        copy.send(self)

    def _request_lines(self) -> bytes:
        lines = self.arm.lines(self.reason)
        if self.exchange.attempts > 1:
            lines += b"X-Cohort-Attempt: %d\r\n" % self.exchange.attempts
        return lines

    def connect_failed(self, error: UpstreamError) -> None:
        """The endpoint could not be reached within the connect time-out."""
        endpoint = self._leave_endpoint()
        if self.exchange.state == CONNECTING:
            self._unreachable(error, endpoint)

    def _unreachable(self, error: UpstreamError, endpoint: Endpoint | None) -> None:
        server, arm = self._server, self.arm
        server.counters.upstream_failure(arm.name, error.kind)
        has_other = any(other is not endpoint for other in arm.usable)
        action = self.exchange.connect_failed(has_other and server.may_retry, self._view.falls_back and not arm.stable)
        if action == RETRY:
            self._retry(endpoint)
        elif action == FALL_BACK:
            self._fall_back(error.status)
        else:
            self._answer(error.status, failed=True)

    def _retry(self, failed: Endpoint | None) -> None:
        """Once more, with a new look at the abort latch."""
        self._server.take_retry(self.arm.name)
        self._first_sent_at = self._first_sent_at or self._sent_at
        self._look_at_latch()
        self._choose(failed)

    def _fall_back(self, status: int) -> None:
        """To stable, because the arm is down; that still counts against the arm, and its user as one of it."""
        self.status = status
        self._server.count(self, time.monotonic() - self._started, failed=True)
        self.status = 0
        self.arm, self.reason = self._view.arms[0], "fallback"
        if self.source == "user":
            self.source = "forced"
        self._choose(None)

    def _leave_endpoint(self) -> Endpoint | None:
        endpoint, self.endpoint = self.endpoint, None
        room = self.arm.room
        if endpoint is not None:
            endpoint.active -= 1
            room.busy -= 1
            if room.waiting:
                self._server.loop.call_soon(room.admit)
        elif room.waiting:
            room.waiting.pop(self, None)
        return endpoint

    # --- response

    def interim(self, response: Response) -> None:
        """A 1xx other than 101. HTTP/1.0 clients never see one, and a 100 only who waits for one, once."""
        request = self.request
        if request.http11 and (response.status != 100 or (request.expect_continue and not self._continued)):
            self._continued = self._continued or response.status == 100
            lines = self._view.response_rules.interim(response)
            self._client.write(b"HTTP/1.1 %d %b\r\n%b\r\n" % (response.status, response.reason, lines))

    def switched(self, response: Response, connection: Upstream) -> Tunnel:
        """A 101: its head goes to the client, and both connections to the tunnel that is returned.

        Raises:
            UpstreamError: ``protocol``: it does not grant what was asked for.
        """
        accepts = [value for name, _, value in response.fields if name == b"sec-websocket-accept"]
        check_granted(self.request.websocket_key, response.upgrade, accepts)
        self.exchange.switched()
        self._upstream = None
        self._answered(response)
        self._client.write(self._answer_head(response, SWITCH_LINES + b"\r\n"))
        return Tunnel(self, self._client, connection)

    def tunnel_counted(self, failed: bool) -> None:
        """It is known whether the tunnel stands."""
        self._server.count_tunnel(self, time.monotonic() - self._started, failed)

    def tunnel_ended(self) -> None:
        """The tunnel is closed."""
        self._leave_endpoint()
        self._server.log_exchange(self, time.monotonic() - self._started)

    def response_head(self, response: Response, payload: Payload, reader: BodyReader) -> None:
        """The final head, with what came of the body."""
        client, request = self._client, self.request
        self.exchange.response_started()
        self._answered(response)
        # An answer that comes before the request's end may end before it: then the connection cannot go on.
        keep_alive = client.keeps_alive(request) and not self.exchange.request_open
        framing, self._length = framing_lines(response, request.method, request.http11, keep_alive)
        if not keep_alive:
            client.is_last = True
            if self._length == UNTIL_CLOSE:
                client.begin_unmarked()
        head = self._answer_head(response, framing)
        self.sent = len(payload)
        if self._length == CHUNKED:
            payload = self._chunks(payload, reader)
        if len(payload) >= LONG_BYTES:
            client.pass_on(head, payload)
        else:
            client.write(head + payload if payload else head)
        if reader.done:
            self._response_ended(reader)
            return
        client.deadline = self._server.now + self._server.body_idle_s
        if client.is_full and self._upstream is not None:
            self._upstream.hold(HOLD_PEER)

    def _answered(self, response: Response) -> None:
        endpoint = self.endpoint
        if endpoint is not None and endpoint.standing.failures:
            self._server.endpoint_answered(endpoint)
        self._response = response
        self.status = response.status
        self.upstream_s = time.monotonic() - self._sent_at

    def _answer_head(self, response: Response, framing: bytes) -> bytes:
        decision = self.decision
        cookies = decision.set_cookies
        return self._view.response_rules.head(
            response, self._explained(response) if decision.explain else b"",
            b"".join(cookies) if cookies else b"", self._server.date, decision.strip_prefix, framing,
        )  # fmt: skip

    def _explained(self, response: Response) -> bytes:
        """The decision for the client, and the request's id unless the service tells one."""
        lines = self.arm.lines(self.reason)
        if any(name == b"x-request-id" for name, _, _ in response.fields):
            return lines
        return lines + b"X-Request-Id: %b\r\n" % self.request_id

    def room(self) -> int:
        """Bytes that the client's kernel takes for certain, beyond a usual read."""
        return self._client.room()

    def response_body(self, payload: Payload, reader: BodyReader) -> None:
        """More of the body, or its end."""
        self.sent += len(payload)
        if self._length == CHUNKED:
            payload = self._chunks(payload, reader)
        if isinstance(payload, memoryview):
            self._client.pass_on(b"", payload)
        elif payload:
            self._client.write(payload)
        if reader.done:
            self._response_ended(reader)
        else:
            self._client.deadline = self._server.now + self._server.body_idle_s

    def _chunks(self, payload: Payload, reader: BodyReader) -> bytes:
        framed = chunk(payload) if payload else b""
        if not reader.done:
            return framed
        if reader.trailers and self.request.te_trailers:
            return b"%b0\r\n%b\r\n" % (framed, passed_on(reader.trailers))
        return framed + LAST_CHUNK

    def _response_ended(self, reader: BodyReader) -> None:
        action = self.exchange.response_ended()
        response, connection = self._response, self._upstream
        assert response is not None
        self._upstream = None
        self._leave_endpoint()
        if connection is not None:
            if reader.rest:
                self._server.counters.upstream_failure(self.arm.name, "protocol")
            if action == LINGER or reader.rest or not response.keep_alive or response.length == UNTIL_CLOSE:
                connection.close()
            elif connection.is_full:  # it answered before it had taken all of the request
                connection.finish()
            else:
                connection.release()
        self._account(failed=self.status >= 500)
        self._client.exchange_ended(must_close=action == LINGER or self._length == UNTIL_CLOSE)

    # --- what goes wrong

    def upstream_lost(self, error: UpstreamError, any_byte: bool) -> None:
        """The connection ended, broke the protocol or was too slow before the response was complete; it is closed."""
        connection, self._upstream = self._upstream, None
        endpoint = self._leave_endpoint()
        # A service may close an idle connection at any time, so one that was used before says nothing.
        if endpoint is not None and (any_byte or error.kind != "reset" or connection is None or connection.served == 1):
            self._server.endpoint_failed(endpoint, error)
        action = self.exchange.upstream_lost(any_byte, self._server.may_retry and self._time_left() > 0)
        if action == RETRY:
            self._retry(endpoint)
            return
        self._server.counters.upstream_failure(self.arm.name, error.kind)
        if action == ANSWER:
            self._answer(error.status, failed=True)
        else:
            self._truncate(failed=True)

    def _fail(self, status: int, kind: str) -> None:
        """Give up: answer, or cut an answer that has begun. ``kind`` is empty if it is not the service's fault."""
        action = self.exchange.failed()
        if self._upstream is not None:
            self._upstream.close()
            self._upstream = None
        self._leave_endpoint()
        if kind:
            self._server.counters.upstream_failure(self.arm.name, kind)
        if action == TRUNCATE:
            self._truncate(failed=bool(kind))
        else:
            self._answer(status, failed=bool(kind))

    def _truncate(self, failed: bool) -> None:
        self._account(failed)
        self._client.truncate(reset=self._length == UNTIL_CLOSE)

    def _answer(self, status: int, failed: bool) -> None:
        self.status = status
        self.request_id = self.request_id or sent_id(self.request) or self._server.fresh_id()
        decision = self.decision
        extra = b"".join(decision.set_cookies)
        if decision.explain:
            extra += self.arm.lines(self.reason)
        if status == 503:
            extra += b"Retry-After: 1\r\n"
        must_close = self.exchange.request_open
        self._account(failed)
        self._client.answer(self.request, status, self.request_id, extra, must_close)

    def request_fault(self, error: ProxyError, cause: str = "body") -> None:
        """The client broke the framing of its body, ended in it, or sent too much too early."""
        self._client.is_last = True
        self._server.counters.downstream_rejected(cause)
        self._fail(error.status, "")

    def request_cut(self) -> None:
        """The client ended within its body."""
        self.request_fault(DownstreamError(400, "closed within a request body"))

    def downstream_lost(self) -> None:
        """The client's connection is gone."""
        self.exchange.downstream_lost()
        if self._upstream is not None:
            self._upstream.close()
            self._upstream = None
        self._leave_endpoint()
        self.status = self.status or CLIENT_GONE
        self._account(failed=False)

    def expired(self) -> None:
        """The deadline passed: find out who is idle."""
        client = self._client
        if self.exchange.request_open and not client.is_held:
            client.is_last = True
            self._server.counters.downstream_rejected("timeout")
            self._fail(408, "")
        elif self.exchange.state == RELAYING and client.is_full:
            if client.has_progressed():
                client.deadline = self._server.now + self._server.body_idle_s
            else:
                self._server.counters.downstream_rejected("timeout")
                self._fail(0, "")
        elif self._upstream is None:
            self._fail(503, "overflow")
        elif self._upstream.is_starved:
            self._fail(
                503, ""
            )  # we did not read: the buffers of this worker are full, and that is not the service's fault
        else:
            any_byte = self._upstream.any_byte
            self._upstream.close()
            self.upstream_lost(UpstreamError("timeout", "no answer in time", 504), any_byte)

    def broke(self) -> None:
        """A fault of our own: give everything back, and end the client, who could wait for ever."""
        self._leave_endpoint()
        self._client.kill()

    def call_off(self) -> None:
        """The limit for streams on an aborted arm has passed."""
        self._fail(503, "")

    # --- back-pressure

    def downstream_full(self) -> None:
        """The client takes no more; a head is waited for all the same, or the service would seem slow."""
        if self._upstream is not None and self._response is not None:
            self._upstream.hold(HOLD_PEER)

    def downstream_drained(self) -> None:
        """The client has taken all that was written."""
        if self._upstream is not None:
            self._upstream.free(HOLD_PEER)
        self._client.deadline = self._server.now + self._request_patience()

    def upstream_full(self) -> None:
        """The service takes no more of the request."""
        self._client.hold(HOLD_PEER)

    def upstream_drained(self) -> None:
        """The service has taken all that was written."""
        self._client.free(HOLD_PEER)
        self._client.deadline = self._server.now + self._request_patience()

    # --- accounts

    def _account(self, failed: bool) -> None:
        """Count the exchange, unless the client ended it before anything was sent: that says nothing of the arm."""
        seconds = time.monotonic() - self._started
        if failed or self._sent_at:
            self._server.account(self, seconds, failed)
        else:
            self._server.log_exchange(self, seconds)


def _bad_request(message: str) -> DownstreamError:
    return DownstreamError(400, message)
