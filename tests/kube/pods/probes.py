"""Probes and hooks: one look at a container from outside, and the thresholds over many."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from tests.kube.pods.fields import Document

Run = Callable[[Sequence[str]], Awaitable[int]]  # a command inside the container, to its exit status
UNVERIFIED = ssl.create_default_context()
UNVERIFIED.check_hostname = False
UNVERIFIED.verify_mode = ssl.CERT_NONE


async def look(probe: Document, address: str, container: Document, run: Run) -> str:
    """Look once; empty if all is well, else what was wrong. ``timeoutSeconds`` is kept."""
    try:
        async with asyncio.timeout(probe.get("timeoutSeconds", 1)):
            return await act(probe, address, container, run)
    except TimeoutError:
        return "no answer in time"


async def act(handler: Document, address: str, container: Document, run: Run) -> str:
    """Carry a probe's or a hook's action out; empty if it went well."""
    if command := handler.get("exec"):
        status = await run(command["command"])
        return f"exit status {status}" if status else ""
    if seconds := handler.get("sleep"):
        await asyncio.sleep(seconds["seconds"])
        return ""
    try:
        if get := handler.get("httpGet"):
            return await _get(get, get.get("host") or address, _port(get["port"], container))
        tcp = handler["tcpSocket"]
        _, writer = await asyncio.open_connection(tcp.get("host") or address, _port(tcp["port"], container))
        writer.transport.abort()
    except (OSError, asyncio.IncompleteReadError, ValueError, IndexError) as error:
        return str(error) or type(error).__name__
    return ""


async def _get(get: Document, host: str, port: int) -> str:
    tls = UNVERIFIED if get.get("scheme") == "HTTPS" else None
    fields = {"Host": f"{host}:{port}", "User-Agent": "kube-probe/1.36", "Accept": "*/*", "Connection": "close"}
    fields |= {field["name"]: field["value"] for field in get.get("httpHeaders") or ()}
    reader, writer = await asyncio.open_connection(host, port, ssl=tls)
    try:
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        writer.write(f"GET {get.get('path') or '/'} HTTP/1.1\r\n{lines}\r\n".encode())
        status = int((await reader.readline()).split()[1])
    finally:
        writer.transport.abort()
    return "" if 200 <= status < 400 else f"HTTP {status}"


def _port(port: Any, container: Document) -> int:
    """A port by number or by name.

    Raises:
        ValueError: The container has none of that name.
    """
    if isinstance(port, int):
        return port
    named = {one.get("name"): one["containerPort"] for one in container.get("ports") or ()}
    if port not in named:
        raise ValueError(f"no port {port}")
    return int(named[port])


async def follow(probe: Document, once: Callable[[], Awaitable[str]], tell: Callable[[bool, str], None]) -> None:
    """Look again and again, and tell each time a threshold is reached; ends only when cancelled."""
    await asyncio.sleep(probe.get("initialDelaySeconds", 0))
    row, good = 0, True
    while True:
        wrong = await once()
        row = row + 1 if good is (not wrong) else 1
        good = not wrong
        if row >= (probe.get("successThreshold", 1) if good else probe.get("failureThreshold", 3)):
            tell(good, wrong)
        await asyncio.sleep(probe.get("periodSeconds", 10))
