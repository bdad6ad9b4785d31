"""Certificates for tests: an authority, what it issues, and how a client believes it."""

from __future__ import annotations

import os
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import trustme

from proxy.net.credentials import Credentials, Pair

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


class Authority:
    """One authority."""

    def __init__(self) -> None:
        self._ca = trustme.CA()

    @property
    def pem(self) -> bytes:
        return self._ca.cert_pem.bytes()

    def issue(self, *names: str, **options: Any) -> Pair:
        """A pair for DNS names and IP addresses."""
        made = self._ca.issue_cert(*names, **options)
        return Pair(b"".join(blob.bytes() for blob in made.cert_chain_pems), made.private_key_pem.bytes())

    def expired(self, *names: str) -> Pair:
        """A pair that held until long ago."""
        return self.issue(*names, not_before=datetime(2019, 1, 1, tzinfo=UTC), not_after=LONG_AGO)

    def client(self, pair: Pair | None = None, folder: Path | None = None) -> ssl.SSLContext:
        """A client's context that believes this authority; a pair of its own needs a folder to be loaded from."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
        self._ca.configure_trust(context)
        if pair is not None and folder is not None:
            context.load_cert_chain(*write_pair(folder, "client", pair))
        return context

    def server(self, pair: Pair, folder: Path) -> ssl.SSLContext:
        """A server's context with this pair, which asks clients for certificates of this authority if told to."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*write_pair(folder, "server", pair))
        self._ca.configure_trust(context)
        return context


def write_pair(folder: Path, name: str, pair: Pair) -> tuple[Path, Path]:
    """The two files of a pair, each put in place whole."""
    paths = folder / f"{name}.crt", folder / f"{name}.key"
    for path, content in zip(paths, (pair.certificate, pair.key), strict=True):
        draft = path.with_suffix(".draft")
        draft.write_bytes(content)
        os.rename(draft, path)
    return paths


def listening(*pairs: Pair, **more: Any) -> tuple[dict[str, Any], Credentials]:
    """Settings of a data plane whose one listener shows these pairs, and the pairs as credentials."""
    files = [{"certFile": f"{index}.crt", "keyFile": f"{index}.key"} for index, _ in enumerate(pairs)]
    return {"listeners": [{"tls": {"certificates": files}}]} | more, Credentials((pairs,))
