"""A client between its connection and its first request: the PROXY protocol and the TLS handshake, where there are."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, cast

from proxy.certificate import Guard
from proxy.errors import DownstreamError
from proxy.forward import own_answer
from proxy.net.downstream import LINGER_TOTAL_S, Downstream
from proxy.net.tls import Tls
from proxy.preface import Preface, PrefaceError, parse

if TYPE_CHECKING:
    from proxy.net.credentials import Presented
    from proxy.net.relay import Relay
    from proxy.net.server import Server


_PLAIN = ("HTTP_REQUEST", "HTTPS_PROXY_REQUEST")  # how OpenSSL calls HTTP where a handshake should be


class Arrival(asyncio.BufferedProtocol):
    """One of a server's connections, until a `Downstream` takes its place.

    Of the loop it hears only until the PROXY protocol's header is complete; from then on of `Tls`.

    Attributes:
        deadline: Loop time at which it has taken too long, all together.
        peer: The client's address as far as it is known.

    Args:
        presented: What TLS shows; None: no TLS.
    """

    __slots__ = (
        "_has_begun", "_has_failed", "_pending", "_preface", "_presented", "_server", "_tls", "_transport", "deadline",
        "peer",
    )  # fmt: skip

    is_held = False
    relay: Relay | None = None

    def __init__(self, server: Server, presented: Presented | None) -> None:
        self._server = server
        self._presented = presented
        self._transport: asyncio.Transport
        self._tls: Tls | None = None
        self._preface: Preface | None = None
        self._pending = b""
        self._has_begun = False
        self._has_failed = False
        self.deadline = 0.0
        self.peer = ""

    def protocol(self, has_preface: bool) -> asyncio.BufferedProtocol:
        """What the loop is to talk to."""
        if has_preface or self._presented is None:
            return self
        return Tls(self._presented.context, self, self._server.read_buffer, turnstile=self._server.turnstile)

    def _connected(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        peername = transport.get_extra_info("peername")
        self.peer = peername[0] if peername else "0.0.0.0"  # noqa: S104  # gone already
        self.deadline = self._server.now + self._server.head_s
        self._server.opened(self)

    # --- the PROXY protocol: what the loop tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected. Only trusted peers may say who their clients are."""
        self._connected(cast("asyncio.Transport", transport))  # uvloop does not derive from it
        if not self._server.trusted.trusts(self.peer):
            self._turn_away("untrusted", "PROXY protocol: the peer is not one of trustedPeers")

    def get_buffer(self, sizehint: int) -> memoryview:
        """The worker's one read buffer."""
        return self._server.read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes of the header, or more."""
        if self._has_failed:
            return
        self._has_begun = True
        self._pending += self._server.read_buffer[:nbytes]
        try:
            preface = parse(self._pending)
        except PrefaceError as error:
            self._turn_away("preface", f"PROXY protocol: {error}")
            return
        if preface is not None:
            self._go_on(preface, self._pending[preface.size :])

    def eof_received(self) -> bool:
        """Closed before the header was complete."""
        if self._has_begun and not self._has_failed:
            self._turn_away("preface", "PROXY protocol: closed within the header")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self.ended()

    def _turn_away(self, cause: str, reason: str) -> None:
        self._has_failed = True
        self._server.refuse(self, cause, DownstreamError(0, reason))
        self._transport.abort()

    def _go_on(self, preface: Preface, rest: bytes) -> None:
        """Hand the connection over, with what came behind the header."""
        self._preface, self._pending = preface, b""
        self.peer = preface.source or self.peer
        above: asyncio.BufferedProtocol
        if self._presented is not None:
            above = self._tls = Tls(
                self._presented.context, self, self._server.read_buffer, turnstile=self._server.turnstile
            )
        else:
            self._server.closed(self)
            above = Downstream(self._server, preface)
        self._transport.set_protocol(above)
        above.connection_made(self._transport)
        buffer = self._server.read_buffer
        while rest and not self._transport.is_closing():
            part, rest = rest[: len(buffer)], rest[len(buffer) :]
            buffer[: len(part)] = part
            above.buffer_updated(len(part))

    # --- what TLS tells

    def began(self, tls: Tls) -> None:
        """Connected."""
        if self._preface is None:
            self._tls = tls
            self._connected(cast("asyncio.Transport", tls))

    def done(self, tls: Tls) -> Downstream:
        """The handshake is complete: from here on it is a client like others."""
        self._server.closed(self)
        client = Downstream(self._server, self._preface)
        client.is_secure = True
        assert self._presented is not None
        asked, served = self._presented.served(tls.ssl_object)
        if asked:
            client.guard = Guard(asked, served)
        return client

    def failed(self, error: Exception | None) -> bytes:
        """No handshake, or what came later was no TLS."""
        if error is None and (self._tls is None or not self._tls.has_begun):
            return b""  # somebody looked whether the port is open
        self._has_failed = True
        self.deadline = self._server.now + LINGER_TOTAL_S
        is_plain = isinstance(error, ssl.SSLError) and error.reason in _PLAIN
        reason = f"TLS: {_reason(error)}"
        request_id = self._server.refuse(self, "tls", DownstreamError(400 if is_plain else 0, reason))
        return own_answer(400, request_id, self._server.date, b"", False, True) if is_plain else b""

    def ended(self) -> None:
        """The connection is gone."""
        self._server.closed(self)

    # --- what the server asks

    @property
    def is_idle(self) -> bool:
        """Whether nothing has come."""
        return not self._has_begun and (self._tls is None or not self._tls.has_begun)

    def close_idle(self) -> None:
        """Close a connection on which nothing has come."""
        self._transport.abort()

    def kill(self) -> None:
        """End at once."""
        self._transport.abort()

    def expired(self, now: float) -> None:
        """The sweep found the deadline passed."""
        if not self._has_failed:
            what = "PROXY protocol: header" if self._tls is None else "TLS: handshake"
            self._server.refuse(self, "timeout", DownstreamError(0, f"{what} took too long"))
        self._transport.abort()

    def fileno(self) -> int:
        """Of the socket."""
        return int(self._transport.get_extra_info("socket").fileno())


def _reason(error: Exception | None) -> str:
    """Why, in OpenSSL's words; nothing of what the client sent."""
    if error is None:
        return "closed within the handshake"
    reason = getattr(error, "reason", None) or type(error).__name__
    return str(reason).lower().replace("_", " ")
