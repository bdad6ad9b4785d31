"""Memory shared by inheritance: a memfd that no path names and nobody can unlink, gone with its last process."""

from __future__ import annotations

import mmap
import os


def create(size: int) -> int:
    """A descriptor of ``size`` zero bytes; pass it on to a child and `attach` it there."""
    descriptor = os.memfd_create("cohort", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, size)
    return descriptor


def grow(descriptor: int, size: int) -> None:
    """Make room for ``size`` bytes at least. What is mapped already stays valid, and sees none of what is new."""
    if os.fstat(descriptor).st_size < size:
        os.ftruncate(descriptor, size)


def attach(descriptor: int) -> memoryview:
    """Map all of it, writable, for as long as the view or one made from it lives."""
    return memoryview(mmap.mmap(descriptor, os.fstat(descriptor).st_size))
