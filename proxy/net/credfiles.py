"""The files of certificates and keys: read at the start, looked at every second, refused whole if one is bad.

As for plans polling sees what inotify does not, the swapped link of a mounted Secret above all.
"""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from proxy.certificate import read_certificate
from proxy.config import ProxySettings
from proxy.document import DocumentError
from proxy.net import credentials
from proxy.net.credentials import Credentials
from proxy.net.planfile import Signature, signature

log = logging.getLogger("cohort.credentials")

RENEW_S = 43_200.0  # contexts are made anew: who steals one's ticket keys reads TLS 1.2 sessions of so long at most
POLL_S = 1.0  # a rotation is planned days ahead; a certificate and its key are often written one after the other


class CredentialFiles:
    """All files that the settings name.

    Attributes:
        current: What was in them when they were last in order.
        refused: How often changed files were refused since the start.

    Args:
        base: The directory that relative paths start from.
        known: What was read from them just before; they are looked at again soon.

    Raises:
        DocumentError: One of them cannot be used.
    """

    def __init__(self, settings: ProxySettings, base: Path, known: Credentials | None = None) -> None:
        self.refused = 0
        self._settings = settings
        self._base = base
        self._paths = credentials.paths(settings, base)
        self._told_s = 0.0
        self._last = self._signatures()
        self._done = self._last if known is None else []
        self.current = credentials.read(settings, base) if known is None else known
        self._context: tuple[Credentials, ssl.SSLContext] | None = None

    def upstream_context(self) -> ssl.SSLContext:
        """How services are verified by what is `current`."""
        if self._context is None or self._context[0] is not self.current:
            self._context = self.current, credentials.upstream_context(self.current)
        return self._context[1]

    def look(self, now_wall_s: float) -> bool:
        """Read the files if they have changed and look the same as at the last call: a writer has finished.

        Args:
            now_wall_s: Unix seconds, for telling certificates that have expired.

        Returns:
            Whether workers are to take `current`: it is new, or theirs has served for `RENEW_S`. Files that are refused
            are read again when they change again.
        """
        is_new = self._read_changed(now_wall_s)
        self._told_s = self._told_s or now_wall_s
        if is_new or abs(now_wall_s - self._told_s) >= RENEW_S:
            self._told_s = now_wall_s
            return True
        return False

    def _read_changed(self, now_wall_s: float) -> bool:
        found = self._signatures()
        settled, self._last = found == self._last, found
        if not settled or found == self._done:
            return False
        try:
            read = credentials.read(self._settings, self._base)
        except DocumentError as error:
            if self._signatures() == found:
                self._done = found
                self.refused += 1
                log.error("certificates are refused, those in use stay: %s", error)
            return False
        if self._signatures() != found:
            return False  # written meanwhile: part of what was read is old
        self._done = found
        if read == self.current:
            return False
        self.current = read
        log.info("certificates are read anew")
        self.warn(now_wall_s)
        return True

    def expiries(self) -> dict[str, float]:
        """When the certificates in use end, Unix seconds, by their files as the settings name them."""
        settings, shown = self._settings, self.current
        found = [
            (names.cert_file, pair)
            for listener, pairs in zip(settings.listeners, shown.listeners, strict=True)
            if listener.tls is not None
            for names, pair in zip(listener.tls.certificates, pairs, strict=True)
        ]
        if settings.upstream_tls.cert_file is not None and shown.client is not None:
            found.append((settings.upstream_tls.cert_file, shown.client))
        return {name: read_certificate(pair.certificate).not_after_s for name, pair in found}

    def warn(self, now_wall_s: float) -> None:
        """Tell of certificates that clients and services will not believe; they are used all the same."""
        shown = [(f"listeners[{i}]", pair) for i, pairs in enumerate(self.current.listeners) for pair in pairs]
        if self.current.client is not None:
            shown.append(("upstreamTls", self.current.client))
        for place, pair in shown:
            certificate = read_certificate(pair.certificate)
            names = ", ".join(sorted(certificate.names | certificate.addresses)) or "no name"
            if certificate.not_after_s < now_wall_s:
                log.warning("%s: the certificate for %s has expired", place, names)
            elif certificate.not_before_s > now_wall_s:
                log.warning("%s: the certificate for %s is not valid yet", place, names)

    def _signatures(self) -> list[Signature]:
        return [signature(path) for path in self._paths]
