"""Copies of users' requests for another arm. Their answers are dropped, and nothing of them is felt by anybody.

A copy is sent when its request is complete, over connections and within limits of its own. It is never repeated, never
a user's evidence, and it is dropped, and counted, wherever sending it could cost anything.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from proxy.body import BodyReader, Payload
from proxy.errors import UpstreamError
from proxy.http1 import UNTIL_CLOSE, Request, Response
from proxy.net.pool import Endpoint
from proxy.net.upstream import Upstream

if TYPE_CHECKING:
    from proxy.net.relay import Relay
    from proxy.net.server import Server
    from proxy.net.view import ArmView

REASON = SOURCE = "mirror"
MOST_ANSWER_BYTES = 1_048_576  # of one copy's answer; a longer one is cut off, which is cheaper than to read it


class Copy:
    """One request's copy, which stands where a relay stands for its connection.

    Attributes:
        arm: The mirror's, with endpoints and room of its own.
    """

    __slots__ = (
        "_answered", "_body", "_endpoint", "_head", "_is_dropped", "_method", "_queued_at", "_response", "_server",
        "_upstream", "arm",
    )  # fmt: skip

    def __init__(self, server: Server, arm: ArmView) -> None:
        self.arm = arm
        self._server = server
        self._body = bytearray()  # not a list of parts, of which a client may send thousands that hold a byte each
        self._answered = 0
        self._head = b""
        self._method = b""
        self._queued_at = 0.0
        self._is_dropped = False
        self._endpoint: Endpoint | None = None
        self._response: Response | None = None
        self._upstream: Upstream | None = None

    def __repr__(self) -> str:
        return f"<Copy {self._method!r} arm={self.arm.name} endpoint={self._endpoint}>"

    def collect(self, relay: Relay) -> None:
        """The request's body is to come: take a place among the copies that wait, if there is one."""
        if self._is_full or relay.request.length > self._server.settings.limits.mirror_body_bytes:
            self._drop()
        else:
            self._server.collecting[self] = relay

    @property
    def _is_full(self) -> bool:
        room = self.arm.room
        return len(room.waiting) + len(self._server.collecting) >= room.most_waiting

    def forget(self) -> None:
        """The request will never be complete."""
        self._body.clear()
        self._drop()

    def add(self, payload: bytes) -> None:
        """Keep a part of the request's body, up to the limit."""
        if self._is_dropped:
            return
        self._body += payload
        if len(self._body) > self._server.settings.limits.mirror_body_bytes:
            self.forget()

    def send(self, relay: Relay) -> None:
        """The request is complete: queue its copy.

        Args:
            relay: Of the request, whose head has been sent.
        """
        if self._is_dropped:
            return
        self._server.collecting.pop(self, None)
        body = bytes(self._body)
        self._body.clear()
        self._method = relay.request.method
        self._head = relay.head_for(_plain(relay.request, len(body)), self.arm, self.arm.lines(REASON)) + body
        self._queued_at = self._server.loop.time()
        if self._is_full:
            self._drop()
        else:
            self.arm.room.waiting[self] = None
            self._server.loop.call_soon(self.arm.room.admit)

    def _drop(self) -> None:
        self._is_dropped = True
        self._head = b""
        self._server.collecting.pop(self, None)
        self._server.counters.mirrored(self.arm.name, "dropped")

    # --- what the room and the server call

    def admitted(self) -> None:
        """There is room: send it, unless that has become pointless."""
        server, room = self._server, self.arm.room
        endpoint = self.arm.choose(None, server.now)
        too_late = server.loop.time() - self._queued_at > server.connect_s
        # Where a user's request would try an endpoint that is out, as a last resort, a copy is not worth the attempt.
        if too_late or endpoint is None or endpoint.standing.is_out or self._is_stopped:
            self._drop()
            return
        connection = endpoint.take()
        if connection is None and room.connects < 1.0:
            room.waiting[self] = None
            return
        self._endpoint = endpoint
        endpoint.active += 1
        room.busy += 1
        if connection is not None:
            self.connect_done(connection)
        else:
            room.connects -= 1.0
            server.connect(endpoint, self)

    @property
    def _is_stopped(self) -> bool:
        return self._server.is_latched and not self.arm.stable

    def connect_failed(self, error: UpstreamError) -> None:
        """The endpoint could not be reached."""
        self._end(error.status, "failed")

    def connect_done(self, connection: Upstream) -> None:
        """A connection to the chosen endpoint."""
        if self._is_stopped:
            connection.release()
            self._leave()
            self._drop()
            return
        self._upstream = connection
        connection.begin(self, self._method)
        connection.deadline = self._server.now + self._server.response_head_s
        connection.write(self._head)
        self._head = b""

    # --- what the connection tells

    def interim(self, response: Response) -> None:
        """Nobody waits for it."""

    def switched(self, response: Response, connection: Upstream) -> NoReturn:
        """A 101, which no copy asks for."""
        raise UpstreamError("protocol", "101 to a copy")

    def response_head(self, response: Response, payload: Payload, reader: BodyReader) -> None:
        """The final head, with what came of the body."""
        self._response = response
        endpoint = self._endpoint
        if endpoint is not None and endpoint.standing.failures:
            self._server.endpoint_answered(endpoint)
        self.response_body(payload, reader)

    def response_body(self, payload: Payload, reader: BodyReader) -> None:
        """More of the body, or its end."""
        self._answered += len(payload)
        response, connection = self._response, self._upstream
        assert response is not None
        if not reader.done and self._answered <= MOST_ANSWER_BYTES:
            return
        self._upstream = None
        if connection is not None:
            if reader.done and not reader.rest and response.keep_alive and response.length != UNTIL_CLOSE:
                connection.release()
            else:
                connection.close()
        self._end(response.status, "sent")

    def upstream_lost(self, error: UpstreamError, any_byte: bool) -> None:
        """The connection ended, broke the protocol or was too slow; it is closed."""
        connection, self._upstream = self._upstream, None
        if self._endpoint is not None and (error.kind != "reset" or connection is None or connection.served == 1):
            self._server.endpoint_failed(self._endpoint, error)
        self._end(error.status, "failed")

    def room(self) -> int:
        """Nothing is passed on."""
        return 0

    def upstream_full(self) -> None:
        """The kernel takes no more of the copy; what is left is bounded by the limit on bodies."""

    def upstream_drained(self) -> None:
        """The kernel has taken all of it."""

    def broke(self) -> None:
        """A fault of our own, which is nobody's evidence."""
        self._upstream = None
        self._leave()
        self._server.counters.mirrored(self.arm.name, "failed")

    # --- the end

    def _leave(self) -> None:
        endpoint, self._endpoint = self._endpoint, None
        room = self.arm.room
        if endpoint is not None:
            endpoint.active -= 1
            room.busy -= 1
            if room.waiting:
                self._server.loop.call_soon(room.admit)

    def _end(self, status: int, result: str) -> None:
        self._leave()
        counters = self._server.counters
        counters.mirrored(self.arm.name, result)
        counters.request(self.arm.name, REASON, SOURCE, status, failed=result == "failed" or status >= 500)


def _plain(request: Request, length: int) -> Request:
    """The request as a copy sends it: its body is known whole, and nobody waits for a 100 or for trailers."""
    if request.length == 0 and not request.te_trailers:
        return request
    return replace(request, length=length, expect_continue=False, te_trailers=False)
