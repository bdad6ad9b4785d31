"""TLS over one TCP connection: a protocol to the transport below it, a transport to the protocol above it.

The loop's own TLS cannot do what an HTTP proxy must: tell the end of a connection that was announced (close_notify)
from one that was not, end its own side without announcing it, and end only its own side.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, Protocol, cast

from proxy.net.turnstile import Turnstile

UNREAD_BYTES = 262_144  # more than an answer's bytes that wait for a slow reader
_HANDSHAKE, _OPEN, _FAILED, _CLOSED = range(4)  # failed: the handshake did, what still comes is discarded


class Handshake(Protocol):
    """Who waits for a handshake, and hears of faults after it."""

    def began(self, tls: Tls) -> None: ...  # noqa: D102  # connected, nothing said yet
    def done(self, tls: Tls) -> asyncio.BufferedProtocol: ...  # noqa: D102  # returns what is to be above
    def failed(self, error: Exception | None) -> bytes: ...  # noqa: D102  # now or later; returns what to send as it is
    def ended(self) -> None: ...  # noqa: D102  # the connection is gone before it was done


class Tls(asyncio.BufferedProtocol):
    """One connection.

    Of a transport it has what the protocols of this proxy use. What it has written lies with the transport below: so
    back-pressure is that transport's, and nothing is held here but the part of a record that has come.

    Attributes:
        has_begun: Anything has come.
        is_cut: The end of our side must not look like one: no close_notify.
        ssl_object: OpenSSL's view of the connection.

    Args:
        context: Of this side.
        handshake: Hears of the handshake.
        buffer: Where to read into, shared by all connections of a loop.
        server_name: Of the other side, which must prove it; None: this is the server's side.
        turnstile: Says when there is time for a handshake; None: always.
    """

    __slots__ = (
        "_above", "_buffer", "_error", "_handshake", "_has_ended", "_incoming", "_is_announced", "_is_held", "_is_over",
        "_is_waiting", "_outgoing", "_raw", "_raw_ended", "_server_name", "_stash", "_state", "_turnstile", "has_begun",
        "is_cut", "ssl_object",
    )  # fmt: skip

    def __init__(
        self,
        context: ssl.SSLContext,
        handshake: Handshake,
        buffer: memoryview,
        server_name: str | None = None,
        turnstile: Turnstile | None = None,
    ) -> None:
        self._handshake = handshake
        self._buffer = buffer
        self._server_name = server_name
        self._turnstile = turnstile
        self._is_waiting = False
        self._error: ssl.SSLError | None = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.ssl_object = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_name is None, server_hostname=server_name
        )
        self._above: asyncio.BufferedProtocol | None = None
        self._raw: asyncio.Transport
        self._state = _HANDSHAKE
        self._is_held = False
        self._has_ended = False  # our way
        self._stash = b""
        self._is_over = False  # nothing more will come, and the protocol above knows
        self._is_announced = False  # close_notify has come
        self._raw_ended = False
        self.has_begun = False
        self.is_cut = False

    # --- what the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected: a client begins the handshake."""
        self._raw = cast("asyncio.Transport", transport)  # uvloop does not derive from it
        self._handshake.began(self)
        if self._server_name is not None:
            self._shake()

    def get_buffer(self, sizehint: int) -> memoryview:
        """The loop's one read buffer: what is in it is taken out before anything else is read."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes from the other side."""
        if self._state == _OPEN:
            self._incoming.write(self._buffer[:nbytes])
            self._read()
        elif self._state == _HANDSHAKE:
            self.has_begun = True
            self._incoming.write(self._buffer[:nbytes])
            self._ask_to_shake()

    def eof_received(self) -> bool:
        """The other side's FIN: after its close_notify, or a connection cut short."""
        if self._state == _HANDSHAKE:
            self._fail(None)
        elif self._state == _OPEN:
            self._raw_ended = True
            self._read()
        return self._state == _OPEN

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, by whomever."""
        self._state = _CLOSED
        if self._above is not None:
            self._above.connection_lost(exc or self._error)
        else:
            self._handshake.ended()

    def pause_writing(self) -> None:
        """The kernel takes no more."""
        if self._above is not None:
            self._above.pause_writing()

    def resume_writing(self) -> None:
        """All that was written has gone to the kernel."""
        if self._above is not None:
            self._above.resume_writing()

    # --- handshake

    def _ask_to_shake(self) -> None:
        """Go on with the handshake when there is time; what comes meanwhile stays with the kernel."""
        if self._turnstile is None:
            self._shake()
        elif not self._is_waiting and not self._turnstile.enter(self._have_turn):
            self._is_waiting = True
            self._raw.pause_reading()

    def _have_turn(self) -> None:
        if self._state != _HANDSHAKE:
            return
        if self._is_waiting:
            self._is_waiting = False
            self._raw.resume_reading()
        self._shake()

    def _shake(self) -> None:
        try:
            self.ssl_object.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
        except OSError as error:  # SSLError and CertificateError are
            self._fail(error)
        else:
            self._flush()
            self._state = _OPEN
            self._above = self._handshake.done(self)
            self._above.connection_made(cast("asyncio.Transport", self))
            self._read()

    def _fail(self, error: Exception | None) -> None:
        """Say why by an alert, or as the one who waits wants it, and end our side; then only discard."""
        self._state = _FAILED
        plain = self._handshake.failed(error)
        self._raw.write(plain or self._outgoing.read())
        if not self._raw.is_closing():
            self._raw.write_eof()

    # --- reading

    def _read(self) -> None:
        """Decrypt what is here and hand it up, until that is all, or nobody wants more for now."""
        while self._state == _OPEN and not self._is_held and not self._is_over:
            size, error = self._unstash() if self._stash else self._decrypt()
            if size and self._above is not None:
                self._above.buffer_updated(size)
            if self._outgoing.pending:
                self._reply()
            if error is not None:
                self._break(error)
            elif self._is_announced and not self._stash:
                self._end_of_input(announced=True)
            elif not size or not self._has_input:
                break
        if self._raw_ended and self._state == _OPEN and not self._is_held:
            self._end_of_input(announced=False)

    def _reply(self) -> None:
        """Send what OpenSSL says by itself, as when the other side renews its keys; it may do so without end."""
        self._flush()
        if self._raw.get_write_buffer_size() > UNREAD_BYTES:
            self.abort()

    def _decrypt(self) -> tuple[int, ssl.SSLError | None]:
        """Fill the buffer: bytes in it, and what is wrong with what follows."""
        buffer, read, size = self._buffer, self.ssl_object.read, 0
        try:
            while size < len(buffer) and (self._incoming.pending or self.ssl_object.pending()):
                got = cast("int", read(len(buffer) - size, buffer[size:]))  # into a buffer: how many
                if not got:
                    self._is_announced = True
                    break
                size += got
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._is_announced = True
        except ssl.SSLError as error:
            return size, error
        return size, None

    def _unstash(self) -> tuple[int, None]:
        """The same for what was decrypted before."""
        part, self._stash = self._stash[: len(self._buffer)], self._stash[len(self._buffer) :]
        self._buffer[: len(part)] = part
        return len(part), None

    @property
    def _has_input(self) -> bool:
        return bool(self._stash) or self._incoming.pending > 0 or self.ssl_object.pending() > 0

    def _end_of_input(self, announced: bool) -> None:
        """Nothing more comes. What a service did not announce is no end, whatever its framing says."""
        if self._is_over:
            return
        self._is_over = True
        above = self._above
        if above is None or (not announced and self._server_name is not None):
            self.abort()
        elif not above.eof_received():
            self.close()

    def _break(self, error: ssl.SSLError) -> None:
        """What came is no TLS, or was tampered with: say so by the alert that OpenSSL made, and close."""
        self._is_over = True
        self._error = error
        self._handshake.failed(error)
        self._flush()
        self._state = _CLOSED
        self._raw.close()

    # --- what the protocol above calls

    def write(self, data: bytes) -> None:
        """Encrypt and send."""
        if self._state != _OPEN or self._has_ended or not data:
            return
        try:
            written = self.ssl_object.write(data)
            while written < len(data):
                data = data[written:]
                written = self.ssl_object.write(data)
        except ssl.SSLError:
            self.abort()
        else:
            self._raw.write(self._outgoing.read())

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data and not self._has_ended:
            self._raw.write(data)

    def _say_end(self) -> None:
        """Send close_notify, unless the end must not look like one."""
        if self._state != _OPEN or self._has_ended:
            return
        if not self.is_cut:
            try:
                self.ssl_object.unwrap()
            except ssl.SSLError:
                pass  # it waits for the other side's, which may come or not
            self._flush()
        self._has_ended = True

    def can_write_eof(self) -> bool:
        """Whether one way may end before the other: RFC 8446 section 6.1. A peer of TLS 1.2 will end both."""
        return True

    def write_eof(self) -> None:
        """End our way: close_notify and FIN. What comes is still handed up."""
        if self._state == _OPEN and not self._has_ended:
            self._put_aside()
            self._say_end()
            self._raw.write_eof()

    def _put_aside(self) -> None:
        """Decrypt what waits while nobody wants it: to send close_notify OpenSSL looks at it, and loses it."""
        while self._is_held and self._has_input and not self._is_over:
            size, _ = self._decrypt()
            if not size:
                return
            self._stash += self._buffer[:size]

    def close(self) -> None:
        """End both ways once all is sent."""
        self._say_end()
        self._state = _CLOSED
        self._raw.close()

    def abort(self) -> None:
        """End both sides at once."""
        self._state = _CLOSED
        self._raw.abort()

    def is_closing(self) -> bool:
        """Whether nothing can be written any more."""
        return self._state == _CLOSED or self._raw.is_closing()

    def pause_reading(self) -> None:
        """Hand up no more."""
        self._is_held = True
        self._raw.pause_reading()

    def resume_reading(self) -> None:
        """Hand up again, first what has come already."""
        self._is_held = False
        self._raw.resume_reading()
        if self._has_input or self._raw_ended:
            asyncio.get_running_loop().call_soon(self._read)  # not within a call from above

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Of the transport below."""
        self._raw.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        """Encrypted bytes that the kernel has not taken."""
        return self._raw.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Of the transport below."""
        return self._raw.get_extra_info(name, default)
