"""A client between its connection and its first request: the TLS handshake, where its listener has TLS."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING

from proxy.certificate import Guard
from proxy.errors import DownstreamError
from proxy.forward import own_answer
from proxy.net.downstream import LINGER_TOTAL_S, Downstream
from proxy.net.tls import Tls

if TYPE_CHECKING:
    from proxy.net.credentials import Presented
    from proxy.net.relay import Relay
    from proxy.net.server import Server


class Arrival:
    """One of a server's connections, until a `Downstream` takes its place.

    Attributes:
        deadline: Loop time at which it has taken too long.
        peer: The other end's address.
    """

    __slots__ = ("_has_failed", "_presented", "_server", "_tls", "deadline", "peer")

    is_held = False
    relay: Relay | None = None

    def __init__(self, server: Server, presented: Presented) -> None:
        self._server = server
        self._presented = presented
        self._tls: Tls
        self._has_failed = False
        self.deadline = 0.0
        self.peer = ""

    def protocol(self) -> asyncio.BufferedProtocol:
        """What the loop is to talk to."""
        return Tls(self._presented.context, self, self._server.read_buffer)

    # --- what TLS tells

    def began(self, tls: Tls) -> None:
        """Connected."""
        self._tls = tls
        peername = tls.get_extra_info("peername")
        self.peer = peername[0] if peername else "0.0.0.0"  # noqa: S104  # gone already
        self.deadline = self._server.now + self._server.head_s
        self._server.opened(self)

    def done(self, tls: Tls) -> Downstream:
        """The handshake is complete: from here on it is a client like others."""
        self._server.closed(self)
        client = Downstream(self._server)
        client.is_secure = True
        asked, served = self._presented.served(tls.ssl_object)
        if asked:
            client.guard = Guard(asked, served)
        return client

    def failed(self, error: Exception | None) -> bytes:
        """No handshake, or what came later was no TLS."""
        if error is None and not self._tls.has_begun:
            return b""  # somebody looked whether the port is open
        self._has_failed = True
        self.deadline = self._server.now + LINGER_TOTAL_S
        is_plain = isinstance(error, ssl.SSLError) and error.reason == "HTTP_REQUEST"
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
        return not self._tls.has_begun

    def close_idle(self) -> None:
        """Close a connection on which nothing has come."""
        self._tls.abort()

    def kill(self) -> None:
        """End at once."""
        self._tls.abort()

    def expired(self, now: float) -> None:
        """The sweep found the deadline passed."""
        if not self._has_failed:
            self._server.refuse(self, "timeout", DownstreamError(0, "TLS: handshake took too long"))
        self._tls.abort()

    def fileno(self) -> int:
        """Of the socket."""
        return int(self._tls.get_extra_info("socket").fileno())


def _reason(error: Exception | None) -> str:
    """Why, in OpenSSL's words; nothing of what the client sent."""
    if error is None:
        return "closed within the handshake"
    reason = getattr(error, "reason", None) or type(error).__name__
    return str(reason).lower().replace("_", " ")
