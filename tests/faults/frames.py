"""WebSocket frames, as much as the load and the services say to each other. RFC 6455 section 5.2."""

from __future__ import annotations

import asyncio
import base64
import hashlib

from tests.faults.client import Fault

TEXT, CLOSE = 1, 8
_MASK = bytes(4)  # a mask of zeros is one: nobody between client and service looks inside
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def accept_key(key: str) -> str:
    """What answers ``Sec-WebSocket-Key``."""
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode()


def client_frame(kind: int, payload: bytes) -> bytes:
    """A whole message of at most 125 bytes, masked as a client has to."""
    return bytes((0x80 | kind, 0x80 | len(payload))) + _MASK + payload


def server_frame(kind: int, payload: bytes) -> bytes:
    """The same without a mask, as a service has to."""
    return bytes((0x80 | kind, len(payload))) + payload


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Kind and payload of the next frame, masked or not.

    Raises:
        Fault: `truncated`: the connection ended first, without a close.
    """
    try:
        first, second = await reader.readexactly(2)
        length = second & 0x7F
        if length == 126:
            length = int.from_bytes(await reader.readexactly(2), "big")
        mask = await reader.readexactly(4) if second & 0x80 else bytes(4)
        data = await reader.readexactly(length)
    except (asyncio.IncompleteReadError, OSError) as error:
        raise Fault("truncated", f"a WebSocket ended without a close: {error}") from None
    return first & 0x0F, bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))
