"""Certificates and keys: read and checked by the supervisor, held by the workers as contexts of ``ssl``.

The supervisor reads the files, and passes on what is in them. So one verdict holds for all workers, and a worker that
starts while a file is broken gets what the others have.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proxy.certificate import Certificate, choose, host_name, read_certificate
from proxy.config import KeyPair, ListenerTls, ProxySettings
from proxy.document import DocumentError, Fault
from proxy.net.files import read_bounded

MAX_PEM_BYTES = 1_048_576  # all of a distribution's authorities have 220 KB
# TLS 1.2 with forward secrecy and authenticated encryption only, RFC 9325 section 4.2; all of 1.3 has both.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate chain and its private key, PEM."""

    certificate: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Credentials:
    """All that the settings name.

    Attributes:
        listeners: The pairs of each listener; none where it has no TLS.
        authorities: Whom services' certificates must come from, PEM; None: whom the system trusts.
        client: What services are shown.
        control: What the control port shows; None: there is none.
    """

    listeners: tuple[tuple[Pair, ...], ...] = ()
    authorities: bytes | None = None
    client: Pair | None = None
    control: Pair | None = None

    def document(self) -> dict[str, Any]:
        """As it goes to a worker."""
        return {
            "listeners": [[_said(pair) for pair in pairs] for pairs in self.listeners],
            "authorities": None if self.authorities is None else self.authorities.decode("latin-1"),
            "client": self.client and _said(self.client),
            "control": self.control and _said(self.control),
        }

    @classmethod
    def parse(cls, document: dict[str, Any]) -> Credentials:
        """The same read back."""
        authorities, client = document["authorities"], document["client"]
        control = document.get("control")  # of a version of before
        return cls(
            tuple(tuple(_heard(pair) for pair in pairs) for pairs in document["listeners"]),
            None if authorities is None else authorities.encode("latin-1"),
            client and _heard(client),
            control and _heard(control),
        )


def _said(pair: Pair) -> list[str]:
    return [pair.certificate.decode("latin-1"), pair.key.decode("latin-1")]


def _heard(pair: list[str]) -> Pair:
    return Pair(pair[0].encode("latin-1"), pair[1].encode("latin-1"))


# --- files


def paths(settings: ProxySettings, base: Path) -> list[Path]:
    """Every file that `read` reads."""
    pairs: list[Any] = [pair for listener in settings.listeners if listener.tls for pair in listener.tls.certificates]
    pairs.append(settings.upstream_tls)
    pairs += [settings.control.tls] if settings.control.listen else []
    named = [name for pair in pairs for name in (pair.cert_file, pair.key_file)]
    return [base / name for name in (*named, settings.upstream_tls.ca_file) if name is not None]


def read(settings: ProxySettings, base: Path) -> Credentials:
    """Read every file and check that it can be used.

    Args:
        base: The directory that relative paths start from.

    Raises:
        DocumentError: With every fault and its field path; nothing of a key is in it.
    """
    faults: list[Fault] = []
    reading = _Reading(base, faults)
    listeners = tuple(
        tuple(
            reading.pair(f"listeners[{i}].tls.certificates[{j}]", pair) for j, pair in enumerate(_pairs(listener.tls))
        )
        for i, listener in enumerate(settings.listeners)
    )
    upstream = settings.upstream_tls
    authorities = client = None
    if upstream.ca_file is not None:
        authorities = reading.file("upstreamTls.caFile", upstream.ca_file)
        reading.check("upstreamTls.caFile", upstream.ca_file, lambda: upstream_context(Credentials((), authorities)))
    if upstream.cert_file is not None and upstream.key_file is not None:
        client = reading.pair("upstreamTls", KeyPair(cert_file=upstream.cert_file, key_file=upstream.key_file))
    control = None
    if settings.control.listen:
        names = settings.control.tls
        control = reading.pair("control.tls", KeyPair(cert_file=names.cert_file, key_file=names.key_file))
    if faults:
        raise DocumentError(faults)
    return Credentials(listeners, authorities, client, control)


def _pairs(tls: ListenerTls | None) -> tuple[KeyPair, ...]:
    return tls.certificates if tls else ()


class _Reading:
    """Reads files, and collects what is wrong with them."""

    def __init__(self, base: Path, faults: list[Fault]) -> None:
        self._base = base
        self._faults = faults

    def file(self, field_path: str, name: str) -> bytes:
        try:
            content = read_bounded(self._base / name, MAX_PEM_BYTES)
        except OSError as error:
            self._refuse(field_path, name, f"cannot be read: {error.strerror or error}")
            return b""
        if len(content) > MAX_PEM_BYTES:
            self._refuse(field_path, name, f"larger than {MAX_PEM_BYTES} bytes")
            return b""
        return content

    def pair(self, field_path: str, names: KeyPair) -> Pair:
        before = len(self._faults)
        certificate = self.file(f"{field_path}.certFile", names.cert_file)
        pair = Pair(certificate, self.file(f"{field_path}.keyFile", names.key_file))
        if len(self._faults) == before:
            self.check(f"{field_path}.certFile", names.cert_file, lambda: read_certificate(certificate))
        if len(self._faults) == before:
            self.check(
                f"{field_path}.keyFile", names.key_file, lambda: _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), pair)
            )
        return pair

    def check(self, field_path: str, name: str, attempt: Callable[[], object]) -> None:
        try:
            attempt()
        except (ValueError, OSError) as error:
            self._refuse(field_path, name, _reason(error))

    def _refuse(self, field_path: str, name: str, message: str) -> None:
        self._faults.append(Fault(field_path, f"{self._base / name}: {message}"))


def _reason(error: Exception) -> str:
    """What is wrong with a file, in words; OpenSSL's own where ours have none."""
    if not isinstance(error, ssl.SSLError):
        return str(error)
    words = {
        "KEY_VALUES_MISMATCH": "this key does not belong to the certificate",
        "KEY_TYPE_MISMATCH": "this key does not belong to the certificate",
        "EE_KEY_TOO_SMALL": "the key of the certificate is too short to be safe",
        "CA_MD_TOO_WEAK": "the certificate is signed with a hash that is not safe any more",
        "NO_CERTIFICATE_OR_CRL_FOUND": "expected a PEM file with -----BEGIN CERTIFICATE-----",
    }
    return words.get(error.reason or "", f"not PEM that can be used ({error.reason or 'no key, or broken'})")


# --- contexts


@contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """A path that leads to these bytes and never to a disk: ``ssl`` loads keys from paths only."""
    descriptor = os.memfd_create("pem")
    try:
        os.write(descriptor, content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _refuse_password() -> str:
    raise ValueError("the key is encrypted; a proxy that starts by itself needs one that is not")


def _load(context: ssl.SSLContext, pair: Pair) -> None:
    with _in_memory(pair.certificate) as certificate, _in_memory(pair.key) as key:
        context.load_cert_chain(certificate, key, _refuse_password)


def _harden(context: ssl.SSLContext) -> None:
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF


class _ServerObject(ssl.SSLObject):
    """One handshake: with it is kept what the client asked for."""

    asked = ""


class Presented:
    """What one listener shows: for each name that a client may ask for, a certificate.

    Attributes:
        context: What every handshake begins with.

    Args:
        pairs: At least one; the first is for clients that ask for no name, or for one that none has.
        min_version: ``1.2`` or ``1.3``.
    """

    def __init__(self, pairs: tuple[Pair, ...], min_version: str) -> None:
        self._certificates = [read_certificate(pair.certificate) for pair in pairs]
        self._contexts = [self._make(pair, min_version) for pair in pairs]
        self.context = self._contexts[0]
        self.context.sni_callback = self._choose

    @staticmethod
    def _make(pair: Pair, min_version: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = _VERSIONS[min_version]
        context.sslobject_class = _ServerObject
        _harden(context)
        _load(context, pair)
        return context

    def _choose(self, handshake: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        if name and isinstance(handshake, _ServerObject):
            handshake.asked = name
            handshake.context = self._contexts[choose(self._certificates, host_name(name))]

    def served(self, handshake: ssl.SSLObject) -> tuple[str, Certificate]:
        """The name that a client asked for, empty without one, and the certificate that it got."""
        asked = handshake.asked if isinstance(handshake, _ServerObject) else ""
        return asked, self._certificates[choose(self._certificates, host_name(asked)) if asked else 0]


def control_context(pair: Pair, context: ssl.SSLContext | None = None) -> ssl.SSLContext:
    """How the control port meets who asks; given one, its next handshakes show this pair.

    Raises:
        OSError: The pair cannot be used.
    """
    if context is None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3  # both ends are ours
        _harden(context)
    _load(context, pair)
    return context


def upstream_context(credentials: Credentials) -> ssl.SSLContext:
    """How this proxy meets services: their certificates and names are verified, whatever else is set.

    Raises:
        OSError: The authorities or the pair cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies chain and name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _harden(context)
    if credentials.authorities is None:
        context.load_default_certs()
    else:
        with _in_memory(credentials.authorities) as path:
            context.load_verify_locations(path)
    if credentials.client is not None:
        _load(context, credentials.client)
    return context
