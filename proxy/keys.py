"""The secrets of one installation: which there are and how a key file reads. `proxy.net.keyfiles` has the files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

SECRET_BYTES = 32  # BLAKE2b takes up to 64; 32 random ones cannot be guessed
NAMES = ("cookie", "identity", "split", "preview", "synthetic", "control")
PREVIOUS = ".previous"
FILE_NAMES = tuple(name + suffix for name in NAMES for suffix in ("", PREVIOUS))

_HEX = re.compile(rb"([0-9a-fA-F]{%d})\r?\n?" % (2 * SECRET_BYTES))


class KeyFileError(ValueError):
    """A key file that is missing or is not what it should be. Its content is never in the message."""


@dataclass(frozen=True, slots=True)
class Secret:
    """One secret in rotation.

    Attributes:
        current: 32 bytes; signs.
        previous: Verifies too: the one before, or before a rotation the one to come.
    """

    current: bytes
    previous: bytes | None = None

    def __repr__(self) -> str:
        return f"Secret(..., previous={'...' if self.previous else None})"  # never into a log or a traceback


@dataclass(frozen=True, slots=True)
class Keys:
    """Every secret of an installation.

    Attributes:
        cookie: Signs the cookie that carries the user key.
        identity: Turns what names a user into the user key; a change makes everybody another user.
        split: Makes the salts of the revisions on trial.
        preview: Signs preview links and the cookie that pins.
        synthetic: Signs the load generator's tag.
        control: Pins the control port.
    """

    cookie: Secret
    identity: Secret
    split: Secret
    preview: Secret
    synthetic: Secret
    control: Secret


def serialise(secret: bytes) -> bytes:
    """The content of a key file: 64 hexadecimal digits and a line feed."""
    return secret.hex().encode() + b"\n"


def parse(files: Mapping[str, bytes]) -> Keys:
    """Read the contents of key files.

    Args:
        files: Content by file name, `FILE_NAMES`; a file that ends in ``.previous`` may be missing, others are ignored.

    Raises:
        KeyFileError: Names the first file at fault.
    """
    return Keys(**{name: Secret(_secret(name, files), _previous(name + PREVIOUS, files)) for name in NAMES})


def parse_secret(name: str, content: bytes) -> bytes:
    """Read the content of one key file: the 32 bytes of its secret.

    Raises:
        KeyFileError: It has another form; ``name`` is what the message calls it.
    """
    match = _HEX.fullmatch(content)
    if not match:
        raise KeyFileError(
            f"{name}: expected {2 * SECRET_BYTES} hexadecimal digits and a line feed, got {len(content)} bytes "
            "of another form"
        )
    return bytes.fromhex(match[1].decode())


def _previous(name: str, files: Mapping[str, bytes]) -> bytes | None:
    return _secret(name, files) if name in files else None


def _secret(name: str, files: Mapping[str, bytes]) -> bytes:
    if name not in files:
        raise KeyFileError(f"{name}: expected a key file with {2 * SECRET_BYTES} hexadecimal digits, found none")
    try:
        return parse_secret(name, files[name])
    except KeyFileError as error:
        raise KeyFileError(
            f"{error}: restore the file, or remove it to have another made (a new identity or split key deals all "
            "users anew)"
        ) from None
