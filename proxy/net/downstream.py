"""One client connection: finds requests in its bytes, one exchange at a time, and writes answers in order."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from typing import TYPE_CHECKING, Final, cast

from proxy.body import Payload
from proxy.errors import DownstreamError, ProxyError
from proxy.forward import own_answer, sent_id
from proxy.http1 import Request, request_head_end
from proxy.identity import client_address
from proxy.net.kernel import descriptor, queued, room, untaken, write_now
from proxy.net.relay import Relay
from proxy.net.upstream import HOLD_PEER, UNSENT_BYTES

if TYPE_CHECKING:
    from proxy.certificate import Guard
    from proxy.decide import Decision
    from proxy.net.server import Server
    from proxy.net.tls import Tls
    from proxy.net.tunnel import Tunnel
    from proxy.net.view import View
    from proxy.preface import Preface

# A further reason to stop reading, beside those in `upstream`.
HOLD_PIPELINE: Final = 4  # enough requests wait behind the one under way

LINGER_IDLE_S: Final = 1.0  # contract item 12: discard until idle for this long,
LINGER_TOTAL_S: Final = 5.0  # and never longer than this
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER with time 0: close() sends RST
_IN_ORDER: Final = struct.pack("ii", 0, 0)


class Downstream(asyncio.BufferedProtocol):
    """A client connection.

    Attributes:
        deadline: Loop time at which whatever is waited for has taken too long.
        guard: Tells requests for hosts that the certificate shown does not hold for; None: no host was asked for.
        is_last: The answer under way says ``Connection: close``.
        is_full: The kernel takes no more of the answer for now.
        is_secure: The connection is TLS.
        peer_bytes: The other end's address as text.
        relay: The exchange under way, or the tunnel that it has become, if any.
        unsafe_seen: A request of a method that must not be repeated has come (contract item 16).
    """

    __slots__ = (
        "_buffered", "_descriptor", "_eof", "_first_byte", "_holds", "_is_due", "_is_unmarked", "_left", "_linger_end",
        "_lingering", "_pending", "_preface", "_room", "_running", "_scanned", "_transport", "deadline", "guard",
        "is_full", "is_last", "is_secure", "is_trusted", "peer", "peer_bytes", "relay", "server", "unsafe_seen",
    )  # fmt: skip

    def __init__(self, server: Server, preface: Preface | None = None) -> None:
        self.server = server
        self._preface = preface
        self._transport: asyncio.Transport | None = None
        self.relay: Relay | Tunnel | None = None
        self.peer = ""
        self.peer_bytes = b""
        self.is_trusted = False
        self.is_secure = False
        self.guard: Guard | None = None
        self.is_full = False
        self.is_last = False
        self.deadline = 0.0
        self._pending = b""
        self._scanned = 0
        self._first_byte = 0.0
        self._holds = 0
        self._buffered = 0
        self._left = -1
        self._lingering = False
        self._linger_end = 0.0
        self._eof = False
        self._is_unmarked = False
        self._is_due = False
        self._running = False
        self._descriptor = -1
        self._room = 0  # of the kernel's queue while it is empty, which does not shrink; 0: not asked yet
        self.unsafe_seen = False

    def __repr__(self) -> str:
        state = "lingering" if self._lingering else "busy" if self.relay else "idle"
        return f"<Downstream {self.peer} {state} pending={len(self._pending)} holds={self._holds}>"

    @property
    def is_held(self) -> bool:
        """Whether reading is paused."""
        return self._holds != 0

    @property
    def is_idle(self) -> bool:
        """Between requests, with nothing of the next one here."""
        return self.relay is None and not self._pending and not self._lingering

    # --- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is connected."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop does not derive from it
        self._transport.set_write_buffer_limits(high=UNSENT_BYTES)
        preface = self._preface
        if preface is None or preface.source is None:
            peername = transport.get_extra_info("peername")
            self.peer = peername[0] if peername else "0.0.0.0"  # noqa: S104  # gone already
        else:
            self.peer = preface.source
        self.peer_bytes = self.peer.encode()
        # A load balancer that does not say whose bytes these are must not lend them its own good name.
        is_known = preface is None or preface.source is not None
        self.is_trusted = is_known and self.server.trusted.trusts(self.peer)
        self.deadline = self.server.now + self.server.head_s
        self.server.opened(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """The worker's one read buffer; its bytes are copied out before the loop reads again."""
        return self.server.read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes from the client."""
        if self._lingering:
            if not self.is_full:
                self.deadline = min(self._linger_end, self.server.now + LINGER_IDLE_S)
            return
        data = bytes(self.server.read_buffer[:nbytes])
        relay = self.relay
        if relay is None:
            if self._pending:
                if self._is_due:
                    self._pipelined(data)
                    return
                self._pending += data
            else:
                self._pending = data
                self._first_byte = time.monotonic()
                self.deadline = self.server.now + self.server.head_s
            self._requests()
        elif relay.exchange.request_open:
            try:
                rest = relay.request_body(data)
            except DownstreamError as error:
                relay.request_fault(error)
                return
            if rest:
                self._pipelined(rest)
        else:
            self._pipelined(data)

    def eof_received(self) -> bool:
        """The client sends no more; it may well wait for its answer (contract trap: returning None would lose it)."""
        self._eof = True
        if self._lingering or self.is_idle:
            return False
        if self.relay is None:
            if not self.is_full and not self._is_due:  # else whole requests may wait
                self._refuse(DownstreamError(400, "closed within a request head"))
        elif self.relay.exchange.request_open:
            self.relay.request_cut()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, by whomever."""
        self._transport = None
        self.server.closed(self)
        self.server.buffered -= self._buffered
        self._buffered = 0
        relay, self.relay = self.relay, None
        if relay is not None:
            relay.downstream_lost()

    def pause_writing(self) -> None:
        """The kernel takes no more of the answer."""
        self.is_full = True
        if self._transport is not None:
            self._buffered = self._transport.get_write_buffer_size()
            self.server.buffered += self._buffered
        if self.relay is not None:
            self.relay.downstream_full()

    def resume_writing(self) -> None:
        """All that was written has gone to the kernel."""
        self.is_full = False
        self.server.buffered -= self._buffered
        self._buffered = 0
        if self.relay is not None:
            self.relay.downstream_drained()
        elif self._lingering:
            self._wait_for_end()
        elif self._pending and not self._is_due:
            self._next()

    # --- requests

    def _pipelined(self, data: bytes) -> None:
        """Bytes of later requests wait, within bounds; so do those meant for a tunnel that is not there yet."""
        self._pending += data
        limits, relay = self.server.settings.limits, self.relay
        if relay is not None and relay.request.websocket_key:
            if len(self._pending) > limits.buffer_bytes:
                self._pending = b""
                error = DownstreamError(400, f"more than {limits.buffer_bytes} bytes before the answer")
                relay.request_fault(error, "limit")
            return
        if len(self._pending) >= limits.header_block_bytes or self._pending.count(b"\r\n\r\n") >= limits.pipelined:
            self.hold(HOLD_PIPELINE)

    def _requests(self) -> None:
        """Begin the waiting requests, one after another, until one has to be waited for.

        None begins while the client takes nothing: answers would pile up here, and their services be kept waiting.
        """
        if self.is_full:
            self.deadline = self.server.now + self.server.body_idle_s
            self.hold(HOLD_PIPELINE)
            return
        limits, data = self.server.head_limits, b""
        self._running = True
        try:
            while self._pending and self.relay is None and not self._lingering and not self.is_full:
                data = self._pending
                end = request_head_end(data, limits, self._scanned)
                if not end:
                    self._scanned = len(data)
                    break
                self._scanned = 0
                request = self.server.heads.parse(data[:end])
                self._pending = data[end:]
                self._begin(request)
        except DownstreamError as error:
            self._refuse(error, with_body=not data.lstrip(b"\r\n").startswith(b"HEAD "))
        finally:
            self._running = False
        if self.relay is None and self.is_full and self._pending:
            self.hold(HOLD_PIPELINE)  # our own answers have filled it
        elif self._holds and self.relay is None:
            self.free(HOLD_PIPELINE)  # all that waited was answered at once

    def _begin(self, request: Request) -> None:
        """Decide and start one exchange; what waits behind its head is its body and then later requests."""
        server = self.server
        limit = server.most_body
        if limit and request.length > limit:
            raise DownstreamError(413, f"declared body of {request.length} bytes is above {limit}")
        if request.method == b"OPTIONS" and (request.target == b"*" or request.max_forwards == 0):
            self._local(request, 204, b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n", None)
            return
        if self.guard is not None and self._is_misdirected(request, self.guard):
            server.counters.downstream_rejected("misdirected")
            self._local(request, 421, b"", None)
            return
        view = server.view()
        if view is None:
            self._local(request, 503, b"Retry-After: 1\r\n", None)
            return
        client, secure = self._origin(request) if self.is_trusted else (self.peer, self.is_secure)
        decision = view.splitter.decide(request, client, self.is_trusted, secure, server.is_latched, server.wall_s)
        if decision.answer or decision.local is not None:
            self._decided(request, view, decision)
            return
        relay = self.relay = Relay(self, view, request, decision, self._first_byte)
        rest, self._pending = self._pending, b""
        try:
            rest = relay.start(rest)
        except DownstreamError as error:
            relay.request_fault(error)
            return
        if rest and not self._lingering:
            self._pipelined(rest)

    def _is_misdirected(self, request: Request, guard: Guard) -> bool:
        """Whether Host names what the handshake was not for. A trusted peer speaks for many hosts on one connection."""
        return not self.is_trusted and request.host != b"" and not guard.admits(request.host)

    def _origin(self, request: Request) -> tuple[str, bool]:
        """What a trusted peer says of the client: its address, and whether its side is TLS."""
        client = client_address(request, self.peer, self.server.trusted)
        return client, self.is_secure or request.first(b"x-forwarded-proto") == b"https"

    def _decided(self, request: Request, view: View, decision: Decision) -> None:
        """Answer what a route or the preview answers by itself."""
        local = decision.local
        extra = b"".join(decision.set_cookies)
        if decision.explain:
            extra += view.arms[decision.arm].lines(decision.reason)
        if local is None:
            self._local(request, decision.answer, extra, None)
        else:
            self._local(request, local.status, extra + local.lines, local.body)

    def _local(self, request: Request, status: int, extra: bytes, body: bytes | None) -> None:
        """Answer without a service; a request's body that is not here yet ends the connection."""
        complete = 0 <= request.length <= len(self._pending)
        if complete:
            self._pending = self._pending[request.length :]
        request_id = sent_id(request) or self.server.fresh_id()
        self.server.log_local(self, request, status, request_id, time.monotonic() - self._first_byte)
        self.answer(request, status, request_id, extra, not complete, body)

    def _refuse(self, error: ProxyError, with_body: bool = True) -> None:
        """A fault before any exchange: answer, close, read nothing more (contract item 2)."""
        request_id = self.server.fresh_id()
        self.server.counters.downstream_rejected("limit" if error.status in (413, 414, 431) else "syntax")
        self.server.log_refused(self, error, request_id)
        self._pending = b""
        self.write(own_answer(error.status, request_id, self.server.date, b"", False, with_body))
        self._linger()

    # --- what the relay asks for

    def keeps_alive(self, request: Request) -> bool:
        """Whether the connection may go on after this request's answer."""
        return request.keep_alive and not self.is_last and not self.server.draining and not self._at_end

    @property
    def _at_end(self) -> bool:
        return self._eof and not self._pending

    def write(self, data: bytes) -> None:
        """Send bytes of an answer."""
        if self._transport is not None:
            self._transport.write(data)

    def pass_on(self, head: bytes, body: Payload) -> None:
        """Send bytes of an answer of which the second part need not be copied if they leave at once."""
        transport = self._transport
        if transport is None:
            return
        if self.is_secure or transport.get_write_buffer_size() or transport.is_closing():
            transport.write(head + body)
        else:
            write_now(transport, self._file(transport), head, body)

    def _file(self, transport: asyncio.Transport) -> int:
        """The socket's descriptor; asked for by few connections, and then often."""
        if self._descriptor < 0:
            self._descriptor = descriptor(transport)
        return self._descriptor

    def room(self) -> int:
        """Bytes that the kernel takes of the answer at once for certain; 0: nobody knows."""
        transport = self._transport
        if self.is_full or self.is_secure or transport is None or transport.get_write_buffer_size():
            return 0
        if transport.is_closing():
            return 0
        file = self._file(transport)
        is_empty = not queued(file)
        if is_empty and self._room:
            return self._room
        found = room(file)
        if is_empty:
            self._room = found
        return found

    def answer(self, request: Request, status: int, request_id: bytes, extra: bytes, must_close: bool,
               body: bytes | None = None) -> None:  # fmt: skip
        """Send a complete answer of our own and end the exchange."""
        keep_alive = self.keeps_alive(request) and not must_close
        if keep_alive and not request.http11:
            extra += b"Connection: keep-alive\r\n"
        with_body = request.method != b"HEAD"
        self.is_last = not keep_alive
        self.write(own_answer(status, request_id, self.server.date, extra, keep_alive, with_body, body))
        self.exchange_ended(must_close=must_close)

    def exchange_ended(self, must_close: bool) -> None:
        """The answer is written: go on with the next request, or end the connection in order."""
        self.relay = None
        if self._holds:
            self.free(HOLD_PEER)  # a service that was slow is no concern of the next request's
        if self._is_unmarked:
            self._mark_end(False)
        if must_close or self.is_last or self._at_end:
            self._linger()
            return
        self.deadline = self.server.now + self.server.keep_alive_s
        if self._pending and not self._running:
            self._is_due = True
            loop = self.server.loop
            loop.call_soon(loop.call_soon, self._go_on)

    def _go_on(self) -> None:
        """Begin what waits behind the exchange that has ended.

        That is done after the loop has looked at all connections again, so that surplus bytes behind the last answer
        are found while its connection is idle, and are not taken for the next answer (contract item 13).
        """
        self._is_due = False
        if self._transport is not None and self.relay is None and not self._lingering:
            self._next()

    def _next(self) -> None:
        """Go on with what waits behind a request that is answered."""
        self._first_byte = time.monotonic()
        self.deadline = self.server.now + self.server.head_s
        self.free(HOLD_PIPELINE)
        self._requests()
        if self._eof and self.relay is None and self._pending and not self._lingering and not self.is_full:
            self._refuse(DownstreamError(400, "closed within a request head"))

    @property
    def has_ended(self) -> bool:
        """Whether the client sends no more."""
        return self._eof

    def switch(self) -> bytes:
        """Leave HTTP; returns what came behind the request."""
        pending, self._pending = self._pending, b""
        self.free(HOLD_PIPELINE)
        return pending

    def write_end(self) -> bool:
        """End our way behind what is written, if the other way can stay open."""
        if self._transport is None or not self._transport.can_write_eof():
            return False
        self._transport.write_eof()
        return True

    def begin_unmarked(self) -> None:
        """The end of the connection will be the end of this answer's body.

        Until it is, the kernel is to send RST by whatever the connection ends: a drain's limit, a worker's death.
        """
        self._mark_end(True)

    def _mark_end(self, by_reset: bool) -> None:
        self._is_unmarked = by_reset
        if self._transport is not None:
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET if by_reset else _IN_ORDER)

    def truncate(self, reset: bool) -> None:
        """End an answer that is not complete so that the client can tell (contract item 14)."""
        self.relay = None
        if self.is_secure and self._transport is not None:
            cast("Tls", self._transport).is_cut = True
        if not reset:
            self._linger()
        elif self._transport is not None:
            self._transport.abort()

    def hold(self, reason: int) -> None:
        """Stop reading for a reason."""
        if not self._holds and self._transport is not None:
            self._transport.pause_reading()
        self._holds |= reason

    def free(self, reason: int) -> None:
        """A reason to stop reading is gone."""
        if self._holds & reason:
            self._holds &= ~reason
            if not self._holds and self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()

    def has_progressed(self) -> bool:
        """Whether a client that is full has taken anything since this was asked last; the kernel's queue counts."""
        if self._transport is None:
            return False
        left, self._left = self._left, untaken(self._transport)
        return left != self._left

    # --- the end

    def _linger(self) -> None:
        """Send FIN after what is written, then discard what comes, so that no RST destroys the answer."""
        self.relay = None
        self._pending = b""
        transport = self._transport
        if transport is None or self._lingering:
            return
        self._lingering = True
        if self._eof:
            transport.close()
            return
        if self._holds:
            self._holds = 0
            transport.resume_reading()
        transport.write_eof()
        self._wait_for_end()

    def _wait_for_end(self) -> None:
        """Start the clocks of contract item 12 once the answer has left; until then it is a slow reader's."""
        now = self.server.now
        self._linger_end = now + LINGER_TOTAL_S
        self.deadline = now + (self.server.body_idle_s if self.is_full else LINGER_IDLE_S)

    def close_idle(self) -> None:
        """Close between requests, without an answer."""
        if self._transport is not None:
            self._transport.close()

    def kill(self) -> None:
        """End at once, whatever is under way."""
        if self._transport is not None:
            self._transport.abort()

    def expired(self, now: float) -> None:
        """The sweep found the deadline passed."""
        if self._lingering:
            if self.is_full and self.has_progressed():
                self.deadline = now + self.server.body_idle_s
            else:
                self.kill()
        elif self.relay is not None:
            self.relay.expired()
        elif self.is_full:
            if self.has_progressed():
                self.deadline = now + self.server.body_idle_s
            else:
                self.server.counters.downstream_rejected("timeout")
                self.kill()
        elif self._pending:
            self.server.counters.downstream_rejected("timeout")
            self._refuse(DownstreamError(408, "request head took too long"))
        else:
            self.close_idle()

    def fileno(self) -> int:
        """For polling a paused socket for a reset, which nobody would notice otherwise."""
        return -1 if self._transport is None else descriptor(self._transport)
