"""What a test needs and only a system package has: its path, or a skip that says how to get it."""

from __future__ import annotations

import ctypes
import os
import shutil

import pytest

PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))  # Debian's nginx is no user's


def find(program: str, package: str = "") -> str:
    """The absolute path of a program.

    Args:
        program: What to look for on the path and in the system directories.
        package: The Debian package that has it, if named otherwise.

    Raises:
        FileNotFoundError: Not installed; the message says how to get it.
    """
    if path := shutil.which(program, path=PATH):
        return path
    raise FileNotFoundError(f"{program} is not installed: as root, apt-get install {package or program}")


def require(program: str, package: str = "") -> str:
    """The same for a test.

    Raises:
        pytest.skip.Exception: Not installed. In CI that is a failure (tests/conftest.py).
    """
    try:
        return find(program, package)
    except FileNotFoundError as error:
        pytest.skip(str(error))


def require_library(name: str, package: str) -> None:
    """The same for a shared library that something not of Debian links.

    Args:
        name: As the linker knows it, ``libatomic.so.1``.
        package: The Debian package that has it.
    """
    try:
        ctypes.CDLL(name)
    except OSError:
        pytest.skip(f"{name} is not installed: as root, apt-get install {package}")
