"""A folder of documents, looked at again and again.

Looking is cheap and works on every file system, mounted ConfigMaps included, where notifications do not. A file counts
once two looks in a row found it the same: an editor or a copy may be half done.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from controller.catalog import File, read, unreadable
from proxy.document import MAX_DOCUMENT_BYTES

LOOK_S = 0.5  # a change counts within two looks
SUFFIXES = (".yaml", ".yml", ".json")
MAX_FILES = 1000

_Signature = tuple[int, int, int, int]


class Folder:
    """The folder; its methods block on the disk.

    Attributes:
        files: By path, what is there; a file that is gone is not.
        problem: Why the folder itself cannot be read; empty: it can.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.files: dict[str, File] = {}
        self.problem = ""
        self._seen: dict[str, _Signature] = {}
        self._read: dict[str, _Signature] = {}

    def look(self) -> bool:
        """Look once.

        Returns:
            Whether anything counts that did not before.
        """
        before = dict(self.files), self.problem
        try:
            found = dict(self._found())
        except OSError as error:
            # A folder that cannot be read says nothing: all that was there goes on counting.
            self.problem = f"{self.path}: {error.strerror}"
            return before != (self.files, self.problem)
        self.problem = "" if len(found) <= MAX_FILES else f"{self.path}: more than {MAX_FILES} documents"
        for path, signature in list(found.items())[:MAX_FILES]:
            if self._seen.get(path) == signature and self._read.get(path) != signature:
                self.files[path] = self._load(path)
                self._read[path] = signature
        for path in [path for path in self.files if path not in found and path not in self._seen]:
            del self.files[path]
            self._read.pop(path, None)
        self._seen = found
        return before != (self.files, self.problem)

    @property
    def is_settled(self) -> bool:
        """Whether every file that was seen has been read."""
        return all(self._read.get(path) == signature for path, signature in self._seen.items())

    def _found(self) -> Iterator[tuple[str, _Signature]]:
        pending = [self.path]
        while pending:
            folder = pending.pop()
            for entry in sorted(os.listdir(folder)):
                path = os.path.join(folder, entry)
                if entry.startswith("."):
                    continue  # hidden; a ConfigMap's own folders too, whose files are linked from beside them
                try:
                    about = os.stat(path)
                except OSError:
                    if entry.endswith(SUFFIXES):
                        yield path, (0, 0, 0, 0)  # a link to nowhere, or to itself
                    continue
                if stat.S_ISDIR(about.st_mode):
                    if not os.path.islink(path):
                        pending.append(path)
                elif entry.endswith(SUFFIXES):
                    yield path, (about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)

    def _load(self, path: str) -> File:
        before = self.files.get(path)
        name = os.path.relpath(path, self.path)
        try:
            # A FIFO among the documents must not hang the controller.
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    return unreadable(name, "expected a file", before)
                with open(descriptor, "rb", closefd=False) as file:
                    content = file.read(MAX_DOCUMENT_BYTES + 1)
            finally:
                os.close(descriptor)
        except OSError as error:
            return unreadable(name, f"cannot be read: {error.strerror}", before)
        return read(name, content, before)
