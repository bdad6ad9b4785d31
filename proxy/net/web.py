"""The supervisor's own HTTP servers, bounded so that nobody who may not ask can keep out those who may.

aiohttp waits for a request head without end. Here a connection that has not shown within `STRANGER_S` that it may ask
is closed, and there are at most `CONNECTIONS`: abort and probes must be heard while somebody hoards connections.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import ssl
from collections.abc import Sequence
from http import HTTPStatus
from weakref import WeakSet

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

log = logging.getLogger("cohort.web")

SERVER = "cohort"  # what Server says: versions of libraries are nobody's business
CONNECTIONS = 128  # of one server; a controller needs one, Prometheus two
STRANGER_S = 10.0  # Prometheus' default time-out of a scrape
HANDSHAKE_S = 5.0  # of TLS; a stranger's too
CLOSE_S = 2.0  # for answers under way at the end
LINGER_S = 2.0  # for the rest of a request's body that nobody wants


class Site:
    """One application on its listening sockets.

    Args:
        app: Answers the requests.
        sockets: Listening; closed by `close`.
        tls: What is shown; None: it is not spoken.
    """

    def __init__(
        self, app: web.Application, sockets: Sequence[socket.socket], tls: ssl.SSLContext | None = None
    ) -> None:
        self._runner = web.AppRunner(
            app,
            access_log=None,
            auto_decompress=False,  # nobody has to send us compressed bodies, and small ones may unfold to huge ones
            lingering_time=LINGER_S,
            shutdown_timeout=CLOSE_S,
        )
        app.on_response_prepare.append(_hide_versions)
        self._sockets = sockets
        self._tls = tls
        self._room = _room()
        self._known: WeakSet[RequestHandler] = WeakSet()
        self._servers: list[asyncio.Server] = []

    def admit(self, request: web.Request) -> None:
        """Let the connection of this request stay for as long as it likes: whoever asks has shown that he may."""
        self._known.add(request.protocol)

    async def open(self) -> None:
        """Begin to answer."""
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        for sock in self._sockets:
            if sock.family == socket.AF_UNIX:
                self._servers.append(await loop.create_unix_server(self._connect, sock=sock))
            else:
                limit_s = HANDSHAKE_S if self._tls else None
                server = await loop.create_server(
                    self._connect, sock=sock, ssl=self._tls, ssl_handshake_timeout=limit_s
                )
                self._servers.append(server)

    async def close(self) -> None:
        """Finish answers under way, then close every connection."""
        for server in self._servers:
            server.close()
        await self._runner.cleanup()
        for sock in self._sockets:
            sock.close()

    def _connect(self) -> asyncio.Protocol:
        server = self._runner.server
        if server is None or len(server.connections) >= min(CONNECTIONS, self._room):
            return _Full()
        handler = silent(server)
        asyncio.get_running_loop().call_later(STRANGER_S, self._look, handler)
        return handler

    def _look(self, handler: RequestHandler) -> None:
        if handler.transport is not None and handler not in self._known:
            handler.force_close()


def _room() -> int:
    """Connections of one server that RLIMIT_NOFILE allows, so that two of them leave three quarters to all else."""
    return open_files() // 8


def open_files() -> int:
    """How many files this process may have open, at least 64 for what is reckoned from it; the limit is used whole."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return max(64, hard)


def silent(server: web.Server) -> RequestHandler:
    """A protocol of this server for one connection, that answers what is no request with a constant text."""
    return _Handler(server, loop=asyncio.get_running_loop(), **server._kwargs)


class _Handler(RequestHandler):
    """Says nothing of what it could not read: a faulty head may hold a token, and aiohttp would repeat it."""

    __slots__ = ("__weakref__",)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what is no request, or to a fault of ours, which alone is logged."""
        if status >= 500:
            log.error("a request of an API failed", exc_info=exc)
        phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "error"
        response = web.json_response({"error": phrase}, status=status, headers={"Server": SERVER})
        response.force_close()
        return response


async def _hide_versions(_: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = SERVER


class _Full(asyncio.Protocol):
    """A connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()
