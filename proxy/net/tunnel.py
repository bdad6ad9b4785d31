"""A WebSocket connection once both sides have agreed on it: bytes both ways as they come, until both ways have ended.

A tunnel stands where the relay stood that led to it, so connections call the same methods of both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxy.exchange import FINISH
from proxy.net.upstream import HOLD_PEER
from proxy.websocket import TO_CLIENT, TO_SERVICE, Frames

if TYPE_CHECKING:
    from proxy.body import BodyReader, Payload
    from proxy.errors import ProxyError, UpstreamError
    from proxy.net.downstream import Downstream
    from proxy.net.relay import Relay
    from proxy.net.upstream import Upstream


# A tunnel that its service breaks before this is a failed request, one that is older has been served. To count all at
# their end would tell of the good ones hours after the bad ones, to count all at their beginning of no bad ones.
COUNTED_AFTER_S: Final = 10.0


class Tunnel:
    """Two connections that have left HTTP for good.

    Attributes:
        arm: Of the exchange.
        exchange: In the state `exchange.TUNNEL`, then done.
        request: That asked for it.
    """

    __slots__ = (
        "_asked", "_client", "_is_counted", "_relay", "_said", "_server", "_upstream", "arm", "exchange", "request",
    )  # fmt: skip

    def __init__(self, relay: Relay, client: Downstream, upstream: Upstream) -> None:
        self._relay = relay
        self._client = client
        self._upstream = upstream
        self._server = client.server
        self._asked, self._said = Frames(), Frames()  # by the client, by the service
        self._is_counted = False
        self.arm = relay.arm
        self.exchange = relay.exchange
        self.request = relay.request

    def __repr__(self) -> str:
        relay, exchange = self._relay, self.exchange
        ways = f"{'>' * exchange.request_open}{'<' * exchange.response_open}"
        return f"<Tunnel {ways} arm={self.arm.name} received={relay.received} sent={relay.sent}>"

    def begin(self) -> None:
        """Take over both connections; what the client sent meanwhile goes first."""
        client = self._client
        client.relay = self._upstream.relay = self
        held = client.switch()
        if client.is_full:
            self.downstream_full()
        if held:
            self.request_body(held)
        client.deadline = self._server.now + min(COUNTED_AFTER_S, self._server.tunnel_idle_s)
        if client.has_ended:
            self.request_cut()

    def _moved(self) -> None:
        """A way that goes on alone ends soon: what is left of a WebSocket connection then is at most its closing."""
        if self._is_counted:
            server, exchange = self._server, self.exchange
            is_whole = exchange.request_open and exchange.response_open
            self._client.deadline = server.now + (server.tunnel_idle_s if is_whole else server.body_idle_s)

    def _count(self, failed: bool) -> None:
        if not self._is_counted:
            self._is_counted = True
            self._relay.tunnel_counted(failed)

    # --- bytes, and their ends

    def request_body(self, data: bytes) -> bytes:
        """Bytes from the client; none is left over."""
        self._relay.received += len(data)
        self._asked.feed(data)
        self._upstream.write(data)
        self._moved()
        return b""

    def request_cut(self) -> None:
        """The client sends no more."""
        self._count(failed=False)
        if self.exchange.request_ended() == FINISH:
            self._finish()
        elif self._upstream.write_end():
            self._moved()
        else:
            self._end(failed=False, in_order=True)

    def room(self) -> int:
        """Messages are short."""
        return 0

    def response_body(self, payload: Payload, reader: BodyReader) -> None:
        """Bytes from the service, or their end."""
        payload = bytes(payload)
        if payload:
            self._relay.sent += len(payload)
            self._said.feed(payload)
            self._client.write(payload)
            self._moved()
        if reader.done and self.exchange.response_open:
            self._response_ended()

    @property
    def _is_closing(self) -> bool:
        """Whether either side has said that it is done; then ends of connections, of whatever kind, are no fault."""
        return self._asked.has_closed or self._said.has_closed

    def _response_ended(self) -> None:
        """The service sends no more. Without a Close frame that is what is left of one that has died."""
        failed = self.exchange.request_open and not self._is_closing
        if failed:
            self._server.counters.upstream_failure(self.arm.name, "truncated")
        self._count(failed)
        if self.exchange.response_ended() == FINISH:
            self._finish()
        elif self._client.write_end():
            self._moved()
        else:
            self._end(failed, in_order=not failed)

    def _finish(self) -> None:
        """Both ways have ended."""
        self._leave(failed=False)
        self._client.exchange_ended(must_close=True)

    # --- what goes wrong

    def upstream_lost(self, error: UpstreamError, any_byte: bool) -> None:
        """The service's connection broke: its failure, unless one side was done before."""
        failed = self.exchange.response_open and not self._is_closing
        self.exchange.upstream_lost(any_byte, may_retry=False)
        if failed:
            self._server.counters.upstream_failure(self.arm.name, "reset")
        self._leave(failed)
        self._client.truncate(reset=False)

    def downstream_lost(self) -> None:
        """The client is gone; what it sent before still goes to the service."""
        self.exchange.downstream_lost()
        self._leave(failed=False)

    def request_fault(self, error: ProxyError, cause: str = "") -> None:
        """Never called: no byte is wrong here."""
        raise error

    def expired(self) -> None:
        """Nothing has moved for long; a side that takes nothing is to blame, silence of both nobody."""
        if not self._is_counted:
            self._count(failed=False)
            self._moved()
            return
        client, upstream = self._client, self._upstream
        is_stuck = client.is_full or upstream.is_full
        if is_stuck and (client.has_progressed() | upstream.has_progressed()):
            self._moved()
        elif upstream.is_full:
            self._server.counters.upstream_failure(self.arm.name, "timeout")
            self._end(failed=True)
        elif client.is_full:
            self._server.counters.downstream_rejected("timeout")
            self._end(failed=False)
        else:
            self.call_off()

    def call_off(self) -> None:
        """The tunnel has to end, by nobody's fault: an abort, a drain, silence.

        Both sides are told to go away where a frame may stand.
        """
        exchange = self.exchange
        is_told = self._said.can_close and exchange.response_open
        if is_told:
            self._client.write(TO_CLIENT)
        if self._asked.can_close and exchange.request_open:
            self._upstream.write(TO_SERVICE)
        self._end(failed=False, in_order=is_told)

    def _end(self, failed: bool, in_order: bool = False) -> None:
        """Both ways at once; ``in_order``: what the client has is whole."""
        self.exchange.failed()
        self._leave(failed)
        if in_order:
            self._client.exchange_ended(must_close=True)
        else:
            self._client.truncate(reset=False)

    def _leave(self, failed: bool) -> None:
        self._upstream.finish()
        self._count(failed)
        self._relay.tunnel_ended()

    # --- back-pressure

    def downstream_full(self) -> None:
        """The client takes no more."""
        self._upstream.hold(HOLD_PEER)

    def downstream_drained(self) -> None:
        """The client has taken all that was written."""
        self._upstream.free(HOLD_PEER)
        self._moved()

    def upstream_full(self) -> None:
        """The service takes no more."""
        self._client.hold(HOLD_PEER)

    def upstream_drained(self) -> None:
        """The service has taken all that was written."""
        self._client.free(HOLD_PEER)
        self._moved()
