"""What the proxy cannot do yet, and which cases therefore cannot be run."""

from __future__ import annotations

import asyncio

from tests.wire.case import Case
from tests.wire.client import Client
from tests.wire.service import PROBE
from tests.wire.stand import Stand

NO_UPGRADES = "no upgrades yet"
_HANDSHAKE = (
    b"GET %bupgrade HTTP/1.1\r\nHost: %b\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def obstacle(case: Case) -> str:
    """Why a case cannot be run; empty where it can."""
    if case.phase != "1":
        return f"phase {case.phase}"
    if case.profile == "h2":
        return "no HTTP/2 yet"
    return ""


def needs_tunnel(case: Case) -> bool:
    """Whether nothing but a switch of protocols will do."""
    return all(outcome.status == (101,) for outcome in case.expect)


async def has_upgrades(stand: Stand) -> bool:
    """Whether the proxy asks a service to switch protocols when a client does."""
    client = await Client.connect(stand.port, asyncio.Event())
    try:
        await client.link.write(_HANDSHAKE % (PROBE, stand.host))
        async with asyncio.timeout(5.0):
            while not client.final_at:
                await asyncio.sleep(0.01)
        return any(message.all(b"upgrade") for call in stand.services["a"].calls for message in call.reader.messages)
    finally:
        await client.close()
