"""The modules that every request passes, compiled to C: where a build is kept, and that it is of these very sources.

`make compiled` (hatch_build.py) has mypyc make extension modules of `MODULES`, in a folder of ``proxy/_compiled`` that
is named after a digest of all sources of this package and after the interpreter's ABI. `install` looks for the folder
of the sources that are there: one byte changed, and a build is not found any more. Without one the same sources run as
Python, at twice the CPU time a request.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from hashlib import blake2b
from pathlib import Path

MODULES = (
    "assign", "baggage", "body", "cookie", "counters", "decide", "errors", "exchange", "facts", "forward", "grammar",
    "head", "http1", "identity", "logline", "memo", "preview", "region", "route", "shared", "sketch", "standing",
    "target", "websocket", "net.accesslog", "net.downstream", "net.kernel", "net.mirror", "net.pool", "net.relay",
    "net.server", "net.tunnel", "net.upstream", "net.view",
)  # fmt: skip
LIBRARY = "cohort__mypyc"  # one library has all of them, as mypyc names it; the modules themselves only point to it
RECIPE = "2"  # to be raised with whatever else changes a build: the options of compilers
SWITCH = "COHORT_PURE"  # set to anything but 0, it has the sources themselves run
PACKAGE = Path(__file__).parents[1]


def folder() -> Path:
    """Where the build of the sources that are there belongs. Cost: 2 ms.

    Raises:
        OSError: The sources cannot be read: they are in an archive, say.
    """
    sources = sorted((*PACKAGE.glob("*.py"), *PACKAGE.glob("net/*.py")))
    digest = blake2b(RECIPE.encode(), digest_size=16)
    for path in sources:
        data = path.read_bytes()
        digest.update(b"%b %d\n" % (path.relative_to(PACKAGE).as_posix().encode(), len(data)))
        digest.update(data)
    return PACKAGE / "_compiled" / f"{digest.hexdigest()}.{sysconfig.get_config_var('SOABI')}"


def _find() -> Path | None:
    if os.environ.get(SWITCH, "") not in ("", "0"):
        return None
    try:
        found = folder()
        return found if found.is_dir() else None
    except OSError:
        return None


def install(package: str, path: list[str]) -> None:
    """Have the compiled modules of one package found before their sources.

    Args:
        package: Its name.
        path: Its ``__path__``.
    """
    if _FOLDER is not None:
        path.insert(0, str(_FOLDER.joinpath(*package.split("."))))


_FOLDER = _find()
IS_IN_USE = _FOLDER is not None
if _FOLDER is not None:
    sys.path.append(str(_FOLDER / "library"))
