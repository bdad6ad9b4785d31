"""One connection to an endpoint: heads and bodies of responses in, requests out. The relay decides what they mean."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING, Final, cast

from proxy.body import COMPLETE, BodyReader, CloseBody, LengthBody, body_reader
from proxy.errors import ProxyError, UpstreamError
from proxy.http1 import Response, response_head_end
from proxy.net.kernel import descriptor, untaken

if TYPE_CHECKING:
    from proxy.net.mirror import Copy
    from proxy.net.pool import Endpoint
    from proxy.net.relay import Relay
    from proxy.net.server import Server
    from proxy.net.tunnel import Tunnel

NEVER: Final = float("inf")
# What the kernel did not take before the other side's reading stops. Small, because 10,000 connections may all have it;
# not zero, because then uvloop writes each message at once instead of all of one turn of the loop together (1 us).
UNSENT_BYTES: Final = 2048
LONG_BYTES: Final = 16_384  # from here a copy costs more than what avoids it
HEAD_BYTES: Final = 4096  # enough for nearly all heads
MAX_INTERIM: Final = 16  # interim responses before one final; 103 comes once or twice

# Why reading is paused; a connection reads again when no reason is left.
HOLD_PEER: Final = 1  # the client's side takes no more
HOLD_BUDGET: Final = 2  # all buffers of this worker together are over their limit


class Upstream(asyncio.BufferedProtocol):
    """A connection to one endpoint, idle in its pool or bound to one relay.

    Attributes:
        any_byte: Something of a response to the request under way has come.
        deadline: Loop time at which it is closed while idle, or while it still sends though nobody uses it any more.
        is_full: The kernel takes no more of the request for now.
        served: Exchanges begun on it.
    """

    __slots__ = (
        "_buffered", "_holds", "_interims", "_is_long", "_left", "_method", "_pending", "_reader", "_scanned",
        "_server", "_transport", "any_byte", "deadline", "endpoint", "is_full", "relay", "served",
    )  # fmt: skip

    def __init__(self, server: Server, endpoint: Endpoint) -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self.endpoint = endpoint
        self.relay: Relay | Copy | Tunnel | None = None
        self.deadline = NEVER
        self.served = 0
        self._holds = 0
        self._buffered = 0
        self._left = -1
        self._is_long = False  # the answer under way, or else the last one
        self.is_full = False
        self._begin(b"")

    def __repr__(self) -> str:
        state = "closed" if self._transport is None else "busy" if self.relay else "idle"
        return f"<Upstream {self.endpoint.text} {state} served={self.served} holds={self._holds}>"

    def _begin(self, method: bytes) -> None:
        self._method = method
        self._reader: BodyReader | None = None
        self._pending = b""
        self._scanned = 0
        self._interims = 0
        self.any_byte = False

    @property
    def is_lost(self) -> bool:
        """Whether it has ended; nothing is reported of it any more."""
        return self._transport is None

    # --- what the relay asks for

    def begin(self, relay: Relay | Copy, method: bytes) -> None:
        """Bind to one relay, whose request has this method."""
        self.relay = relay
        self.served += 1
        self.deadline = NEVER
        self._begin(method)

    def write(self, data: bytes) -> None:
        """Send bytes of the request."""
        if self._transport is not None:
            self._transport.write(data)

    def release(self) -> None:
        """The exchange is complete and both sides agree on it: back to the pool, if the endpoint is still in use."""
        self.relay = None
        if self._holds:
            self.free(self._holds)  # the client that was too slow is no concern of the next one's
        if self._transport is None or not self.endpoint.plans or self._server.closing:
            self.close()
        else:
            self.deadline = self._server.now + self._server.upstream_keep_alive_s
            self.endpoint.give(self)

    def close(self) -> None:
        """Unbind and close; nothing more is reported."""
        self.relay = None
        if self._transport is not None:
            self._transport.abort()

    def finish(self) -> None:
        """Unbind, and close once what is written has gone; a service that does not take it is cut off in time."""
        self.relay = None
        self.deadline = self._server.now + self._server.body_idle_s
        self._holds = 0
        if self._transport is not None:
            self._transport.close()

    def write_end(self) -> bool:
        """End our way behind what is written, if the other way can stay open."""
        if self._transport is None or not self._transport.can_write_eof():
            return False
        self._transport.write_eof()
        return True

    def has_progressed(self) -> bool:
        """Whether the service has taken anything since this was asked last."""
        if self._transport is None:
            return False
        left, self._left = self._left, untaken(self._transport)
        return left != self._left

    def hold(self, reason: int) -> None:
        """Stop reading for a reason."""
        if not self._holds and self._transport is not None:
            self._transport.pause_reading()
        self._holds |= reason

    def free(self, reason: int) -> None:
        """A reason to stop reading is gone."""
        if self._holds & reason:
            self._holds &= ~reason
            if not self._holds and self._transport is not None:
                self._transport.resume_reading()

    @property
    def is_starved(self) -> bool:
        """Whether it is not read because the buffers of this worker are full."""
        return bool(self._holds & HOLD_BUDGET)

    def is_alive(self) -> bool:
        """Ask the kernel whether the service has closed or sent anything: contract item 16. Cost: a system call."""
        if self._transport is None or self._transport.is_closing():
            return False
        try:
            peek = socket.socket(fileno=descriptor(self._transport))  # detached again below
        except OSError:
            return False
        try:
            peek.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            peek.detach()
        return False

    def expired(self, now: float) -> None:
        """The sweep found the deadline passed: idle for too long, or a copy's answer is.

        One that the loop closed before it was connected is never reported as lost, so it is forgotten here.
        """
        self.endpoint.idle.pop(self, None)
        self._server.upstreams.discard(self)
        self._fail(UpstreamError("timeout", "no answer in time", 504))

    # --- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected; who asked for it may have given up in this very moment, so it is idle until it is bound."""
        self.deadline = self._server.now + self._server.upstream_keep_alive_s
        self._transport = cast("asyncio.Transport", transport)  # uvloop does not derive from it
        self._transport.set_write_buffer_limits(high=UNSENT_BYTES)
        self._server.upstreams.add(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """The worker's one read buffer; its bytes are passed on or copied out before the loop reads again.

        A read may bring more than `bufferBytes` if the client's kernel is sure to take what is above that.
        """
        server, relay = self._server, self.relay
        if relay is None or not self._is_long:
            return server.read_buffer
        return server.long_buffer[: len(server.read_buffer) + relay.room()]

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes of a response, or surplus."""
        data = self._server.long_buffer[:nbytes]
        relay = self.relay
        if relay is None:
            # Contract item 13: nothing may come while idle.
            self.endpoint.idle.pop(self, None)
            self._server.counters.upstream_failure(self.endpoint.arm, "protocol")
            self.close()
            return
        self.any_byte = True
        try:
            if self._reader is not None:
                self._body(relay, self._reader, data)
            elif nbytes < LONG_BYTES or not self._long(relay, data):  # type: ignore[arg-type]  # as in the next line
                self._heads(relay, bytes(data))  # type: ignore[arg-type]  # a tunnel has a reader from its first byte
        except UpstreamError as error:
            self._fail(error)
        if self._server.buffered > self._server.most_buffered and self.relay is not None:
            is_first = not self.is_starved
            self.hold(HOLD_BUDGET)
            if is_first:
                self._server.starved.append(self)

    def _heads(self, relay: Relay | Copy, data: bytes) -> None:
        if self._pending:
            data = self._pending + data
        limits = self._server.head_limits
        while True:
            end = response_head_end(data, limits, self._scanned)
            if not end:
                self._pending = data
                self._scanned = len(data)
                return
            response = self._server.response_heads.parse(data[:end], self._method)
            data = data[end:]
            self._scanned = 0
            if response.status >= 200:
                break
            if response.status == 101:
                self._switch(relay, response, data)
                return
            self._interim(relay, response)
            if not data:
                self._pending = b""
                return
        self._pending = b""
        if len(data) == response.length:  # all of a short answer, as most are
            self._is_long = False
            relay.response_head(response, data, COMPLETE)
            return
        # Of a body in chunks nobody knows how long it will be; one that fills a read is long, and so may be the next.
        self._is_long = response.length >= LONG_BYTES or len(data) + end >= len(self._server.read_buffer)
        reader = self._reader = body_reader(response.length, _broken, limits)
        relay.response_head(response, reader.feed(data) if data else b"", reader)

    def _long(self, relay: Relay | Copy, data: memoryview) -> bool:
        """A head and much of its body in one read: the body is passed on uncopied. All else is left to `_heads`."""
        if self._pending:
            return False
        beginning = bytes(data[:HEAD_BYTES])
        end = response_head_end(beginning, self._server.head_limits)
        if not end:
            return False
        response = self._server.response_heads.parse(beginning[:end], self._method)
        if response.status < 200 or response.length < LONG_BYTES:
            return False
        self._is_long = True
        reader = self._reader = LengthBody(response.length, _broken)
        relay.response_head(response, reader.view(data[end:]), reader)
        return True

    def _interim(self, relay: Relay | Copy, response: Response) -> None:
        self._interims += 1
        if self._interims > MAX_INTERIM:
            raise UpstreamError("protocol", f"more than {MAX_INTERIM} interim responses")
        relay.interim(response)

    def _switch(self, relay: Relay | Copy, response: Response, data: bytes) -> None:
        """What stands behind this head is no HTTP, if the relay agrees; else it is a fault."""
        tunnel = relay.switched(response, self)
        self._pending = b""
        self._reader = CloseBody()
        self._is_long = False
        tunnel.begin()
        if data and self.relay is tunnel:
            tunnel.response_body(data, self._reader)

    def _body(self, relay: Relay | Copy | Tunnel, reader: BodyReader, data: memoryview) -> None:
        if isinstance(reader, LengthBody) and len(data) >= LONG_BYTES:
            relay.response_body(reader.view(data), reader)
        else:
            relay.response_body(reader.feed(bytes(data)), reader)

    def _fail(self, error: UpstreamError) -> None:
        """The response broke the protocol or ended early: this connection is never used again."""
        relay, any_byte = self.relay, self.any_byte
        self.close()
        if relay is not None:
            relay.upstream_lost(error, any_byte)

    def eof_received(self) -> bool:
        """The service closed its side, which ends a body without length and breaks everything else."""
        relay = self.relay
        if relay is None:
            self.endpoint.idle.pop(self, None)
            return False
        try:
            if self._reader is None:
                raise UpstreamError("reset", "closed before the response head was complete")
            self._reader.eof()
        except ProxyError as error:
            self._fail(UpstreamError("truncated" if self._reader else "reset", str(error)))
        else:
            relay.response_body(b"", self._reader)
        return self.relay is not None  # a tunnel whose other way is open

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, by whomever."""
        self._transport = None
        self.endpoint.idle.pop(self, None)
        self._server.upstreams.discard(self)
        self._server.buffered -= self._buffered
        self._buffered = 0
        relay = self.relay
        if relay is not None:
            self.relay = None
            kind = "truncated" if self._reader is not None else "reset"
            if isinstance(exc, ssl.SSLError) and self.served == 1 and not self.any_byte:
                kind = "connect"  # in TLS 1.3 a service refuses our certificate after our side of the handshake
            relay.upstream_lost(UpstreamError(kind, "connection lost"), self.any_byte)

    def pause_writing(self) -> None:
        """The kernel takes no more of the request."""
        self.is_full = True
        if self._transport is not None:
            self._buffered = self._transport.get_write_buffer_size()
            self._server.buffered += self._buffered
        if self.relay is not None:
            self.relay.upstream_full()

    def resume_writing(self) -> None:
        """All that was written has gone to the kernel."""
        self.is_full = False
        self._server.buffered -= self._buffered
        self._buffered = 0
        if self.relay is not None:
            self.relay.upstream_drained()


def _broken(message: str) -> UpstreamError:
    return UpstreamError("protocol", message)
