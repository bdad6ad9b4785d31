"""What the loop does not do or tell of a socket: bytes that leave at once without a copy, and what the kernel holds."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
import sys
import termios

from proxy.body import Payload

_FOUR_BYTES = b"\0" * 4
_SO_MEMINFO = 55  # asm-generic/socket.h; the socket module does not name it
_MEMINFO = struct.Struct("6I")
_SNDBUF, _WMEM_QUEUED = 3, 5  # places of SK_MEMINFO_SNDBUF and SK_MEMINFO_WMEM_QUEUED, linux/sock_diag.h


def descriptor(transport: asyncio.Transport) -> int:
    """Of the transport's socket."""
    return int(transport.get_extra_info("socket").fileno())


def queued(descriptor: int) -> int:
    """Bytes in the kernel's queue that the other side's machine has not acknowledged. Cost: a short system call."""
    return int.from_bytes(fcntl.ioctl(descriptor, termios.TIOCOUTQ, _FOUR_BYTES), sys.byteorder)


def untaken(transport: asyncio.Transport) -> int:
    """Bytes written that the other side's machine has not acknowledged, ours and the kernel's together."""
    return queued(descriptor(transport)) + transport.get_write_buffer_size()


def room(descriptor: int) -> int:
    """Bytes that the kernel takes of a write to this socket at least; 0 where it does not tell. Cost: two system calls.

    The kernel counts what it keeps for each packet too, so that payload of half the free space fits for certain.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, descriptor)  # detached again below, of whatever family
    try:
        numbers: tuple[int, ...] = _MEMINFO.unpack(sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))
    except (OSError, struct.error):
        return 0
    finally:
        sock.detach()
    return max(0, numbers[_SNDBUF] - numbers[_WMEM_QUEUED]) // 2


def write_now(transport: asyncio.Transport, descriptor: int, head: bytes, body: Payload) -> None:
    """Write both in one system call, uncopied, and leave to the transport what the kernel does not take.

    Args:
        transport: Open, plain and with nothing in its buffer, or what is written here would overtake that.
        descriptor: Of its socket.
        head: May be empty.
        body: Its memory may change as soon as this returns.
    """
    try:
        taken = os.writev(descriptor, (head, body))
    except OSError:  # it is full, or has ended, which the transport finds out
        taken = 0
    if taken < len(head):
        transport.write(head[taken:] + body)
    elif taken < len(head) + len(body):
        transport.write(bytes(body[taken - len(head) :]))
