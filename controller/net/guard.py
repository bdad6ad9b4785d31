"""Who may use the controller's API: the doors that every request passes before a handler sees it.

A browser that was lured to a foreign page must not steer a rollout: the Host must be this machine's (DNS rebinding), a
foreign Origin is refused, and a write must be JSON, which no form can send. Nothing is changed by GET. Where there is a
token, it is compared in constant time, and wrong ones are answered slowly.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import web

from controller.errors import Permanent

REFUSAL_S = 0.5  # a guess costs this; 64 hexadecimal digits then take longer than there is time
MAX_REFUSALS = 16  # answered slowly at once; more are refused at once
OPEN_PATHS = ("/metrics", "/healthz")  # numbers and names that the configuration has; no secrets

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = logging.getLogger("cohort.controller")


def read_token(path: str) -> bytes:
    """The token of a file.

    Raises:
        Permanent: There is none.
    """
    try:
        token = Path(path).read_bytes().strip()
    except OSError as error:
        raise Permanent(f"api.tokenFile {path}: {error.strerror}") from None
    if len(token) < 16:
        raise Permanent(f"api.tokenFile {path}: expected at least 16 characters, got {len(token)}")
    return token


class Guard:
    """The doors of one API.

    Args:
        host: The address that it listens on; empty: all.
        token_file: Read anew for each request, so that a changed token counts at once; None: none is needed.
    """

    def __init__(self, host: str, token_file: str | None) -> None:
        self._is_loopback = host in ("127.0.0.1", "::1")
        self._token_file = token_file
        self._refusing = 0
        if token_file is not None:
            read_token(token_file)  # at the start, so that a wrong path is told at once

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let a request pass, or answer it."""
        refusal = self._host(request) or self._origin(request) or self._content(request)
        if refusal is None:
            refusal = await self._token(request)
        return refusal if refusal is not None else await handler(request)

    def _host(self, request: web.Request) -> web.Response | None:
        """Only names that no foreign DNS can point here: localhost, and addresses."""
        host = urlsplit(f"//{request.headers.get('Host', '')}").hostname or ""
        try:
            address = ipaddress.ip_address(host)
            is_ours = address.is_loopback or not self._is_loopback
        except ValueError:
            is_ours = host == "localhost"
        return None if is_ours else failure(403, f"host {host!r} is not this controller's: ask for it by address")

    def _origin(self, request: web.Request) -> web.Response | None:
        origin = request.headers.get("Origin")
        if origin is None or origin == f"{request.scheme}://{request.headers.get('Host', '')}":
            return None
        return failure(403, f"origin {origin!r} is foreign: pages of other sites may not steer rollouts")

    def _content(self, request: web.Request) -> web.Response | None:
        if request.method in ("GET", "HEAD") or request.content_type == "application/json":
            return None
        return failure(415, f"expected Content-Type application/json, got {request.content_type}")

    async def _token(self, request: web.Request) -> web.Response | None:
        if self._token_file is None or request.path in OPEN_PATHS:
            return None
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        try:
            wanted = b"Bearer " + read_token(self._token_file)
        except Permanent as error:
            log.error("%s", error)
            return failure(503, "the controller cannot read its own token: see its log")
        if hmac.compare_digest(given, wanted):
            return None
        if self._refusing >= MAX_REFUSALS:
            return failure(429, "too many requests with a wrong token")
        self._refusing += 1
        try:
            await asyncio.sleep(REFUSAL_S)
        finally:
            self._refusing -= 1
        return failure(401, "expected Authorization: Bearer and the controller's token", {"WWW-Authenticate": "Bearer"})


def failure(status: int, error: str, headers: dict[str, str] | None = None) -> web.Response:
    """An error answer."""
    return web.json_response({"error": error}, status=status, headers=headers)
