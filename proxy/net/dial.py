"""A connection to a service by TLS: made, and the service's name verified, before anything is sent to it."""

from __future__ import annotations

import asyncio
import logging
import ssl

from proxy.net.tls import Tls

log = logging.getLogger("cohort.dial")


class _Dial:
    """A handshake with a service."""

    def __init__(self, above: asyncio.BufferedProtocol, where: str) -> None:
        self.outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._above = above
        self._is_up = False
        self._where = where

    def began(self, tls: Tls) -> None:
        """Connected."""

    def done(self, tls: Tls) -> asyncio.BufferedProtocol:
        """The service is who it should be."""
        self._is_up = True
        if not self.outcome.done():
            self.outcome.set_result(None)
        return self._above

    def failed(self, error: Exception | None) -> bytes:
        """It is not, or what it said later was no TLS: in TLS 1.3 it refuses a client's certificate only then."""
        reason = _reason(error)
        if not self.outcome.done():
            self.outcome.set_exception(ConnectionError(f"TLS: {reason}"))
        elif self._is_up:
            log.warning("%s: TLS broke off: %s", self._where, reason)
        return b""

    def ended(self) -> None:
        """The connection is gone."""
        self.failed(None)


async def dial(context: ssl.SSLContext, server_name: str, address: str, port: int, above: asyncio.BufferedProtocol,
               buffer: memoryview) -> None:  # fmt: skip
    """Connect a protocol to a service by TLS.

    Args:
        context: Verifies.
        server_name: What the service's certificate must hold for: a name or an address.
        above: Gets its ``connection_made`` once the service is verified.
        buffer: As of `Tls`.

    Raises:
        OSError: No connection, or no handshake; the message says why.
    """
    handshake = _Dial(above, f"{address}:{port}")
    transport, _ = await asyncio.get_running_loop().create_connection(
        lambda: Tls(context, handshake, buffer, server_name), address, port
    )
    try:
        await handshake.outcome
    except BaseException:
        transport.abort()
        raise


def _reason(error: Exception | None) -> str:
    """Why, in OpenSSL's words."""
    if error is None:
        return "closed within the handshake"
    if isinstance(error, ssl.SSLCertVerificationError):
        return str(error.verify_message)
    return str(getattr(error, "reason", None) or error).lower().replace("_", " ")
