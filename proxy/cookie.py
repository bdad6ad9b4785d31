"""Cookies: finding them in a request, and the signed ones of ours, which never say a version."""

from __future__ import annotations

import binascii
from functools import lru_cache
from hashlib import blake2b
from hmac import compare_digest

from proxy.assign import KEY_BYTES
from proxy.keys import Secret

VERSION = b"\x01"
ID_BYTES = 4
MAC_BYTES = 16
REMEMBERED_COOKIES = 16_384  # verified once; 4 MB at the most
_OVERHEAD = len(VERSION) + ID_BYTES + MAC_BYTES
_SEMICOLON, _BLANKS = 0x3B, b" \t"

# base64url without padding, one spelling only: the other alphabet and "=" become bytes that the strict decoder refuses.
_TO_STANDARD = bytes.maketrans(b"-_+/=", b"+/\0\0\0")
_TO_URL = bytes.maketrans(b"+/", b"-_")


def encode(data: bytes) -> bytes:
    """base64url without padding; RFC 4648 section 5."""
    return binascii.b2a_base64(data, newline=False).rstrip(b"=").translate(_TO_URL)


def decode(text: bytes) -> bytes | None:
    """The bytes of a base64url text without padding; None for any text that `encode` does not write."""
    rest = len(text) % 4
    try:
        if not rest:
            return binascii.a2b_base64(text.translate(_TO_STANDARD), strict_mode=True)
        data = binascii.a2b_base64(text.translate(_TO_STANDARD) + b"=" * (4 - rest), strict_mode=True)
    except binascii.Error:
        return None
    return data if encode(data) == text else None


def place(header: bytes, needle: bytes, start: int = 0) -> int:
    """Where the value of the next cookie of one name begins; -1 if there is none.

    Args:
        header: The Cookie field, several lines joined with ``;``. Neighbours that are no pairs hide nothing.
        needle: The name and ``=``. Case counts.
        start: Where to begin.

    Cost: one search, linear in the header.
    """
    at = header.find(needle, start)
    while at >= 0:
        before = at - 1
        while before >= 0 and header[before] in _BLANKS:
            before -= 1
        if before < 0 or header[before] == _SEMICOLON:
            return at + len(needle)
        at = header.find(needle, at + len(needle))
    return -1


def value(header: bytes, at: int) -> bytes:
    """What stands from a `place` up to the next ``;``, quotes kept, without the blanks around it."""
    end = header.find(b";", at)
    return (header[at:end] if end >= 0 else header[at:]).strip(_BLANKS)


def first_value(header: bytes, needle: bytes) -> bytes | None:
    """The value of the first cookie of one name, if there is any. Arguments as of `place`."""
    at = place(header, needle)
    return value(header, at) if at >= 0 else None


class Seal:
    """Signs short bodies for one purpose and name: ``base64url(version, key id, body, MAC)``.

    The MAC is BLAKE2b keyed with the secret over purpose, name, version, key id and body; so what was signed under one
    name or for one purpose is worth nothing under another.

    Args:
        purpose: At most 16 bytes.
        name: Whom or what the text is for; may hold more than the text shows.
        secret: The current one signs, both verify.
        body_bytes: The length of a body.
    """

    def __init__(self, purpose: bytes, name: str, secret: Secret, body_bytes: int) -> None:
        if (body_bytes + _OVERHEAD) % 3:
            raise ValueError(f"a text of {body_bytes + _OVERHEAD} bytes has unused bits in base64: two spellings")
        self.text_bytes = (body_bytes + _OVERHEAD) // 3 * 4
        self._signer, self._prefix = _mac(purpose, name, secret.current)
        self._verifiers = {self._prefix: self._signer}
        if secret.previous is not None:
            verifier, prefix = _mac(purpose, name, secret.previous)
            self._verifiers.setdefault(prefix, verifier)

    def sign(self, body: bytes) -> bytes:
        """The text for a body of ``body_bytes``. Cost: one hash."""
        mac = self._signer.copy()
        mac.update(body)
        return encode(self._prefix + body + mac.digest())

    def verify(self, text: bytes) -> tuple[bytes, bool] | None:
        """The body of a text and whether the current secret signed it; None unless we signed it under this name.

        Cost: one hash, and none for texts that are not of our form.
        """
        if len(text) != self.text_bytes or (data := decode(text)) is None:
            return None
        prefix = data[: len(VERSION) + ID_BYTES]
        if (verifier := self._verifiers.get(prefix)) is None:
            return None
        body = data[len(VERSION) + ID_BYTES : -MAC_BYTES]
        mac = verifier.copy()
        mac.update(body)
        return (body, prefix == self._prefix) if compare_digest(mac.digest(), data[-MAC_BYTES:]) else None


def _mac(purpose: bytes, name: str, secret: bytes) -> tuple[blake2b, bytes]:
    """A hash that has taken in all but the body, and the version and key id that stand before the body."""
    prefix = VERSION + blake2b(b"key id", digest_size=ID_BYTES, key=secret, person=purpose).digest()
    return blake2b(name.encode() + b"\0" + prefix, digest_size=MAC_BYTES, key=secret, person=purpose), prefix


def set_cookie(name: str, value: bytes, max_age_s: int, secure: bool) -> bytes:
    """A complete ``Set-Cookie`` line; RFC 6265 section 4.1. With ``max_age_s`` 0 the browser drops the cookie."""
    line = b"Set-Cookie: %b=%b; Path=/; Max-Age=%d; HttpOnly; SameSite=Lax" % (name.encode(), value, max_age_s)
    return line + (b"; Secure\r\n" if secure else b"\r\n")


class UserCookie:
    """The cookie that carries a user key and the rank of the source that the key came from.

    Args:
        name: Of the cookie. It is part of the MAC, and the rollout is not: two installations share their users by the
            same name and secret.
        secret: The installation's cookie secret.
        max_age_s: For how long a browser keeps the cookie, whole seconds.
    """

    def __init__(self, name: str, secret: Secret, max_age_s: int) -> None:
        self.name = name
        self._needle = name.encode() + b"="
        self._seal = Seal(b"cohort user", name, secret, 1 + 4 + KEY_BYTES)
        self._verify = lru_cache(REMEMBERED_COOKIES)(self._seal.verify)
        self._max_age_s = max_age_s

    def read(self, header: bytes, now: float) -> tuple[bytes, int, bool] | None:
        """The first cookie of ours that is genuine and has not expired.

        Args:
            header: The Cookie field, several lines joined with ``;``.
            now: Unix seconds.

        Returns:
            The user key, the rank, and whether the cookie is due to be written again: half of its life is over, or
            the previous secret signed it. None without a genuine cookie.
        """
        at = place(header, self._needle)
        while at >= 0:
            text = value(header, at)
            found = self._verify(text) if len(text) == self._seal.text_bytes else None
            if found is not None:
                body, current = found
                left_s = int.from_bytes(body[1:5], "big") - now
                if left_s > 0:
                    return body[5:], body[0], not current or left_s < self._max_age_s / 2
            at = place(header, self._needle, at)
        return None

    def line(self, key: bytes, rank: int, now: float, secure: bool) -> bytes:
        """The ``Set-Cookie`` line for a user: key of 16 bytes, rank 0-255, ``now`` in Unix seconds before 2106."""
        body = b"%c%b%b" % (rank, (int(now) + self._max_age_s).to_bytes(4, "big"), key)
        return set_cookie(self.name, self._seal.sign(body), self._max_age_s, secure)
