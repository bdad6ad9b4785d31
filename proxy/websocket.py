"""WebSocket as far as a proxy needs it: who asks for it, who grants it, and where frames end. RFC 6455.

What is said inside of the frames is for the two ends alone: nothing here reads, changes or limits a message.
"""

from __future__ import annotations

import base64
import hashlib

from proxy.errors import UpstreamError
from proxy.grammar import WEBSOCKET_KEY

PROTOCOL = b"websocket"
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3

# Close frames with code 1001, "going away", as RFC 6455 section 7.4.1 has it for a server that goes down; everybody
# knows it, unlike 1012. What goes to a service is masked, here with zeros: there is nothing to hide (section 10.3).
TO_CLIENT = b"\x88\x02\x03\xe9"
TO_SERVICE = b"\x88\x82\x00\x00\x00\x00\x03\xe9"
_CLOSE = 8  # opcode
_MASKED = 0x80
_LENGTH_BYTES = {126: 2, 127: 8}  # of the length behind the first two bytes, RFC 6455 section 5.2


def accept(key: bytes) -> bytes:
    """What a service answers to a key; RFC 6455 section 4.2.2."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def asked_key(upgrade: bytes, options: set[bytes], keys: list[bytes]) -> bytes:
    """Whether fields of a request ask for WebSocket and for nothing else; RFC 6455 section 4.1.

    Args:
        upgrade: The Upgrade field, several lines joined by commas.
        options: Of Connection, in lower case.
        keys: Every Sec-WebSocket-Key.

    Returns:
        The key, empty if they do not: another protocol or a list, no word in Connection, or not one valid key.
    """
    if upgrade.lower() != PROTOCOL or b"upgrade" not in options or len(keys) != 1:
        return b""
    return keys[0] if WEBSOCKET_KEY.fullmatch(keys[0]) else b""


def check_granted(key: bytes, upgrade: bytes, accepts: list[bytes]) -> None:
    """Whether a 101 grants what was asked for.

    Args:
        key: Of the request; empty if it asked for no other protocol.
        upgrade: What the answer switches to, lower-case; empty if it does not say so.
        accepts: Every Sec-WebSocket-Accept.

    Raises:
        UpstreamError: ``protocol``: not asked for, another protocol, or not the answer to this key.
    """
    if not key:
        raise UpstreamError("protocol", "101 without a request to switch protocols")
    if upgrade != PROTOCOL:
        raise UpstreamError("protocol", "101 to another protocol than websocket")
    if accepts != [accept(key)]:
        raise UpstreamError("protocol", "101 without the Sec-WebSocket-Accept that the key asks for")


class Frames:
    """Where frames end in one direction, so that one of ours can stand between two.

    Attributes:
        has_closed: A Close frame has begun: nothing may come behind it.
    """

    __slots__ = ("_head", "_left", "has_closed")

    def __init__(self) -> None:
        self._head = b""  # the beginning of a frame's head
        self._left = 0  # bytes of the frame under way
        self.has_closed = False

    @property
    def can_close(self) -> bool:
        """Whether a Close frame may stand here; between the fragments of a message it may (section 5.4)."""
        return not self._left and not self._head and not self.has_closed

    def feed(self, data: bytes) -> None:
        """The next bytes, in pieces of any size. Cost: none within a frame, 0.5 us for each that begins."""
        at = self._left
        if self._head:
            data, self._head = self._head + data, b""
        size = len(data)
        while at < size:
            length = self._frame(data, at)
            if not length:
                self._head, at = data[at:], size
            at += length
        self._left = at - size

    def _frame(self, data: bytes, at: int) -> int:
        """The length of the frame that begins there, head included; 0 if more is needed to know it."""
        if len(data) < at + 2:
            return 0
        small = data[at + 1] & 127
        more = _LENGTH_BYTES.get(small, 0)
        head = 2 + more + (4 if data[at + 1] & _MASKED else 0)
        if len(data) < at + head:
            return 0
        if data[at] & 15 == _CLOSE:
            self.has_closed = True
        return head + (int.from_bytes(data[at + 2 : at + 2 + more]) if more else small)
