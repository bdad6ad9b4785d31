"""All that a proxy reads before it starts: settings, and the files that they name. Refused with field paths."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxy.config import ProxySettings
from proxy.document import MAX_DOCUMENT_BYTES, DocumentError, Fault, load, validate
from proxy.keys import KeyFileError
from proxy.net import credentials
from proxy.net.credentials import Credentials
from proxy.net.files import read_bounded
from proxy.net.keyfiles import load_keys

TOKEN_CHARS = 16  # at least


@dataclass(frozen=True, slots=True)
class Start:
    """What was read.

    Attributes:
        settings: Validated.
        token: Of the admin API; None on a Unix socket without tokenFile, where the file's mode is the guard.
        credentials: Certificates and keys of TLS.
    """

    settings: ProxySettings
    token: str | None
    credentials: Credentials


def read_start(path: Path) -> Start:
    """Read settings and what they name; keys are made here if they are missing, before workers race for them.

    Raises:
        DocumentError: Something cannot be read or is not valid.
    """
    base = path.absolute().parent
    settings = validate(ProxySettings, read_document(path))
    found = credentials.read(settings, base)
    try:
        load_keys(base / settings.keys_dir)
    except (KeyFileError, OSError) as error:
        raise DocumentError([Fault("keysDir", str(error))]) from None
    if settings.control.listen:
        read_token(base / settings.control.token_file, "control.tokenFile")
    token = settings.admin.token_file
    return Start(settings, read_token(base / token, "admin.tokenFile") if token is not None else None, found)


def read_document(path: Path) -> Any:
    """The value of a YAML or JSON file, not validated.

    Raises:
        DocumentError: There is none.
    """
    try:
        return load(read_bounded(path, MAX_DOCUMENT_BYTES))
    except OSError as error:
        raise DocumentError([Fault("", f"cannot be read: {error.strerror or error}")]) from None


def read_token(path: Path, field_path: str) -> str:
    """The token in a file.

    Raises:
        DocumentError: There is none that could be one; ``field_path`` says where the file is named.
    """
    try:
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DocumentError([Fault(field_path, f"{path} cannot be read: {error}")]) from None
    if len(token) < TOKEN_CHARS or not token.isascii() or not token.isprintable():
        raise DocumentError([Fault(field_path, f"{path}: expected at least {TOKEN_CHARS} printable ASCII characters")])
    return token
