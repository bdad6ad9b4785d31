"""The per-user split as somebody writes it who has aiohttp and an afternoon.

``python -m tests.bench.programs.aiohttp_proxy PORT PERCENT STABLE CANARY [CERTIFICATE KEY]``
"""

from __future__ import annotations

import asyncio
import ssl
import sys
import zlib

import uvloop
from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector, WSMsgType, web
from multidict import CIMultiDict
from yarl import URL

HOP_BY_HOP = ("Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "TE", "Trailer", "Upgrade")
WHOLE_BYTES = 65_536  # an answer up to this is read before it is sent


class Proxy:
    """The handler of all requests."""

    def __init__(self, session: ClientSession, percent: int, stable: str, canary: str) -> None:
        self._session, self._percent = session, percent
        self._stable, self._canary = stable, canary

    def _service(self, request: web.Request) -> str:
        if request.headers.get("X-Canary") == "yes":
            return self._canary
        bucket = zlib.crc32(request.cookies.get("uid", "").encode()) % 100
        return self._canary if bucket < self._percent else self._stable

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """One request."""
        url = URL(self._service(request) + request.raw_path, encoded=True)
        headers = CIMultiDict(request.headers)
        for name in HOP_BY_HOP:
            headers.popall(name, None)
        before = headers.get("X-Forwarded-For")
        headers["X-Forwarded-For"] = f"{before}, {request.remote}" if before else str(request.remote)
        headers["X-Forwarded-Proto"] = request.scheme
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._tunnel(request, url, headers)
        body = request.content if request.can_read_body else None
        async with self._session.request(
            request.method, url, headers=headers, data=body, allow_redirects=False
        ) as answer:
            fields = CIMultiDict(answer.headers)
            for name in (*HOP_BY_HOP, "Transfer-Encoding"):
                fields.popall(name, None)
            if answer.content_length is not None and answer.content_length <= WHOLE_BYTES:
                return web.Response(status=answer.status, headers=fields, body=await answer.read())
            response = web.StreamResponse(status=answer.status, headers=fields)
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response

    async def _tunnel(self, request: web.Request, url: URL, headers: CIMultiDict[str]) -> web.StreamResponse:
        for name in [name for name in headers if name.lower().startswith("sec-websocket-")]:
            headers.popall(name, None)
        client = web.WebSocketResponse(compress=False)
        await client.prepare(request)
        async with self._session.ws_connect(url, headers=headers) as service, asyncio.TaskGroup() as ways:
            ways.create_task(_pass_on(client, service))
            ways.create_task(_pass_on(service, client))
        return client


async def _pass_on(one: web.WebSocketResponse, other: web.WebSocketResponse) -> None:
    async for message in one:
        if message.type is WSMsgType.TEXT:
            await other.send_str(message.data)
        else:
            await other.send_bytes(message.data)
    await other.close()


async def main(port: int, percent: int, stable: int, canary: int, *pair: str) -> None:
    """Serve until the process is ended."""
    context = None
    if pair:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(*pair)
    session = ClientSession(
        connector=TCPConnector(limit=0, keepalive_timeout=60),
        cookie_jar=DummyCookieJar(),
        timeout=ClientTimeout(total=None),
        auto_decompress=False,
        skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
    )
    proxy = Proxy(session, percent, f"http://127.0.0.1:{stable}", f"http://127.0.0.1:{canary}")
    server = web.Server(proxy.serve, access_log=None)
    listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", port, ssl=context, backlog=1024)
    await listening.serve_forever()


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[1:5]]
    uvloop.run(main(numbers[0], numbers[1], numbers[2], numbers[3], *sys.argv[5:]))
