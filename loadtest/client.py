"""One HTTP/1.1 connection as a browser keeps it, on gevent's sockets and llhttp.

Not locust's FastHttpUser: its pool asks ``select`` whether a kept connection is alive, which from descriptor 1024 on
says no, so that a thousand users would connect anew for each request; and each user would cost a pool of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gevent import Timeout, socket
from gevent.lock import BoundedSemaphore
from gevent.monkey import get_original
from geventhttpclient.response import HTTPParseError, HTTPResponse

READ_BYTES = 65_536
IDEMPOTENT = frozenset(("GET", "HEAD", "OPTIONS", "PUT", "DELETE"))  # RFC 9110 section 9.2.2
_poll: Any = get_original("select", "poll")


class LostError(Exception):
    """No whole answer came.

    Attributes:
        cause: connect, timeout, closed (before the first byte), truncated or protocol.
    """

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(f"{cause}: {message}")
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Reply:
    """One whole answer; header names in lower case."""

    status: int
    fields: Mapping[str, list[str]]
    body: bytes

    def one(self, name: str) -> str | None:
        """The value of a field that may occur once; several are joined by commas."""
        values = self.fields.get(name)
        return None if values is None else ", ".join(values)


class Connection:
    """At most one open connection to one address, opened when it is needed.

    Args:
        address: What `resolve` found.
        host: The ``Host`` to send.
    """

    __slots__ = ("_address", "_fresh", "_host", "_socket", "_timeout_s")

    def __init__(self, address: tuple[Any, ...], host: str, timeout_s: float) -> None:
        self._address = address
        self._host = host
        self._timeout_s = timeout_s
        self._socket: Any = None
        self._fresh = False

    def exchange(self, method: str, target: str, fields: Mapping[str, str], body: bytes = b"") -> Reply:
        """Send one request and read the whole answer.

        A kept connection that the server has closed meanwhile is replaced, and an idempotent request that such a
        connection swallowed is sent once more, as every browser does (RFC 9112 section 9.3.1).

        Raises:
            LostError: No whole answer within the time-out.
        """
        request = self._request(method, target, fields, body)
        close = fields.get("Connection", "").lower() == "close"
        timer = Timeout.start_new(self._timeout_s)
        try:
            try:
                return self._once(request, method, close)
            except LostError as error:
                if error.cause != "closed" or self._fresh or method not in IDEMPOTENT:
                    raise
                return self._once(request, method, close)
        except BaseException as error:
            self.close()  # a user that is stopped in mid-answer, too, leaves the rest of it unread
            if error is timer:
                raise LostError("timeout", f"no whole answer within {self._timeout_s:g} s") from None
            raise
        finally:
            timer.close()

    def close(self) -> None:
        """Close what is open."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _request(self, method: str, target: str, fields: Mapping[str, str], body: bytes) -> bytes:
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self._host}", *(f"{k}: {v}" for k, v in fields.items())]
        if body or method in ("POST", "PUT", "PATCH"):
            lines.append(f"Content-Length: {len(body)}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body

    def _once(self, request: bytes, method: str, close: bool) -> Reply:
        try:
            self._open()
        except OSError as error:
            raise LostError("connect", error.strerror or str(error)) from None
        response = HTTPResponse(method)
        received = False
        try:
            self._socket.sendall(request)
            while not _is_whole(response):
                data = self._socket.recv(READ_BYTES)
                received = received or bool(data)
                response.feed(data)  # no data: the end, which llhttp judges by the framing
                if not data and not _is_whole(response):
                    raise LostError("closed", "no answer before the connection ended")
        except OSError as error:
            raise self._broken(received, error.strerror or str(error)) from None
        except HTTPParseError as error:
            text = str(error) or type(error).__name__
            raise (LostError("protocol", text) if received and data else self._broken(received, text)) from None
        if close or response.should_close():
            self.close()
        return _reply(response)

    def _broken(self, received: bool, message: str) -> LostError:
        """The error for a connection that ended; closes it so that another attempt opens one."""
        self.close()
        return LostError("truncated" if received else "closed", message)

    def _open(self) -> None:
        self._fresh = self._socket is None or _is_readable(self._socket)
        if self._fresh:
            self.close()
            self._socket = socket.socket(socket.AF_INET6 if len(self._address) == 4 else socket.AF_INET)
            self._socket.connect(self._address)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class SharedConnections:
    """A fixed number of connections that all users share: who may send takes one and gives it back."""

    def __init__(self, connections: list[Connection]) -> None:
        self._idle = connections
        self._free = BoundedSemaphore(len(connections))

    def exchange(self, method: str, target: str, fields: Mapping[str, str], body: bytes = b"") -> Reply:
        """As `Connection.exchange`, after waiting for a free connection."""
        with self._free:
            connection = self._idle.pop()  # the last one used: the most likely to be open still
            try:
                return connection.exchange(method, target, fields, body)
            finally:
                self._idle.append(connection)

    def close(self) -> None:
        """The connections belong to all users: they stay."""


def resolve(host: str, port: int) -> tuple[Any, ...]:
    """The first address of a name, looked up once a run.

    Raises:
        OSError: The name is unknown.
    """
    address: tuple[Any, ...] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4]
    return address


def _is_whole(response: HTTPResponse) -> bool:
    """Interim answers (1xx) are followed by the final one."""
    return response.message_complete and response.get_code() >= 200


def _is_readable(sock: Any) -> bool:
    """An idle connection that can be read has ended, or says what nobody asked for."""
    poll = _poll()
    poll.register(sock.fileno(), 1)
    return bool(poll.poll(0))


def _reply(response: HTTPResponse) -> Reply:
    fields: dict[str, list[str]] = {}
    for name, value in response.items():
        fields.setdefault(name.lower(), []).append(value)
    return Reply(response.get_code(), fields, bytes(response._body_buffer))
