"""What of a kubelet the API server itself asks: a container's log, for ``kubectl logs`` and ``helm test --logs``."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.kube.pods.node import Node

FOLLOW_S = 0.2


async def serve_logs(node: Node, listening: socket.socket, settings: dict[str, Any]) -> None:
    """For ever, on a socket that is the machine's own loopback."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(settings["server_certificate"], settings["server_key"])
    app = web.Application()

    async def answer(request: web.Request) -> web.StreamResponse:
        return await _answer(node, request)

    app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.SockSite(runner, listening, ssl_context=tls).start()
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


async def _answer(node: Node, request: web.Request) -> web.StreamResponse:
    """The newest run's output, or the one's before, whole or its last lines, once or as long as it grows."""
    match = request.match_info
    path = node.log(
        match["namespace"], match["pod"], match["container"], previous=request.query.get("previous") == "true"
    )
    if path is None or not path.exists():
        raise web.HTTPNotFound(text="no log")
    data = path.read_bytes()
    place = len(data)
    if tail := request.query.get("tailLines"):
        data = b"".join(data.splitlines(keepends=True)[-int(tail) :])
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    await response.prepare(request)
    await response.write(data)
    while request.query.get("follow") == "true" and node.is_running(match["namespace"], match["pod"]):
        await asyncio.sleep(FOLLOW_S)
        place = await _more(path, place, response)
    await response.write_eof()
    return response


async def _more(path: Path, place: int, response: web.StreamResponse) -> int:
    with path.open("rb") as file:
        file.seek(place)
        data = file.read()
    await response.write(data)
    return place + len(data)
