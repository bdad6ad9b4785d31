"""TLS for a client of the harness: certificates for the stand, and one connection's side of it, by ``ssl`` alone."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.certificates import Authority, write_pair

# Names that belong together on one certificate; a client asks for the first one unless its case says otherwise.
NAMES = (("t", "localhost", "probe.test"), ("a.test",), ("b.test",))
_VERSIONS = {
    "TLSv1": ssl.TLSVersion.TLSv1,
    "TLSv1.1": ssl.TLSVersion.TLSv1_1,
    "TLSv1.2": ssl.TLSVersion.TLSv1_2,
    "TLSv1.3": ssl.TLSVersion.TLSv1_3,
}
READ_BYTES = 65_536


@functools.cache
def _authority() -> Authority:
    return Authority()


def write_certificates(folder: Path) -> None:
    """The pairs that `listener` names."""
    for index, names in enumerate(NAMES):
        write_pair(folder, f"tls{index}", _authority().issue(*names))


def listener() -> dict[str, Any]:
    """A listener with TLS on a free port."""
    pairs = [{"certFile": f"tls{index}.crt", "keyFile": f"tls{index}.key"} for index in range(len(NAMES))]
    return {"address": "127.0.0.1:0", "tls": {"certificates": pairs}}


class Secure:
    """The client's side of one connection.

    Attributes:
        is_over: The other side has announced its end.

    Args:
        options: Of a case: ``min`` and ``max`` versions, ``sni`` (null: none), ``alpn``, ``ciphers``.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        context = _authority().client()
        context.check_hostname = False  # a case asks for what it wants
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # old versions are offered to see them refused
            if "max" in options:
                context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
                context.maximum_version = _VERSIONS[options["max"]]
                context.set_ciphers(options.get("ciphers", "ALL:@SECLEVEL=0"))
            if "min" in options:
                context.minimum_version = _VERSIONS[options["min"]]
        if "alpn" in options:
            context.set_alpn_protocols(options["alpn"])
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        name = options.get("sni", NAMES[0][0])
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        self.is_over = False

    async def shake(self, sock: socket.socket) -> bool:
        """Carry out the handshake; returns whether the other side took part in it to its end."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                self._object.do_handshake()
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    await loop.sock_sendall(sock, self._outgoing.read())
                return False
            else:
                await loop.sock_sendall(sock, self._outgoing.read())
                return True
            try:
                await loop.sock_sendall(sock, self._outgoing.read())
                data = await loop.sock_recv(sock, READ_BYTES)
            except OSError:
                return False
            if not data:
                return False
            self._incoming.write(data)

    def opened(self, data: bytes = b"") -> bytes:
        """What these bytes of the wire say.

        Raises:
            OSError: They are no TLS, or an alert.
        """
        self._incoming.write(data)
        found = bytearray()
        with contextlib.suppress(ssl.SSLWantReadError):
            while not self.is_over:
                part = self._object.read(READ_BYTES)
                found += part
                self.is_over = not part
        return bytes(found)

    def sealed(self, data: bytes) -> bytes:
        """Bytes for the wire that say this."""
        self._object.write(data)
        return self._outgoing.read()
