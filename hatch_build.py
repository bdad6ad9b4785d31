"""Compiles the modules that requests pass: ``python hatch_build.py`` does it, and a wheel has what was made so.

A hook of hatchling, which looks for this file, so that a wheel with a build is one for its platform.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT))
os.environ["COHORT_PURE"] = "1"  # mypyc reads sources; this process must not run an older build of them

from proxy.net import compiled  # noqa: E402


class CustomBuildHook(BuildHookInterface[Any]):
    """Puts the build of these very sources into a wheel, if there is one."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """As hatchling calls it; ``version`` is ``editable`` for an install that runs from the checkout."""
        folder = compiled.folder()
        if version != "editable" and folder.is_dir():
            build_data["pure_python"] = False
            build_data["infer_tag"] = True
            build_data["force_include"][str(folder)] = f"proxy/_compiled/{folder.name}"


def main() -> int:
    """Make the build of the sources that are there, unless it is there; older ones go.

    Returns:
        0 also where there is no compiler, or no place for a build: then the proxy runs as Python, and says so.
    """
    folder = compiled.folder()
    if folder.is_dir():
        return 0
    if (missing := _missing()) is not None:
        _say(f"not compiled, so the proxy takes twice the CPU time: {missing}")
        return 0
    _say(f"compiling {len(compiled.MODULES)} modules, about a minute")
    try:
        folder.parent.mkdir(exist_ok=True)
        place = tempfile.TemporaryDirectory(dir=folder.parent, prefix="new-")
    except OSError as error:
        _say(f"not compiled, so the proxy takes twice the CPU time: {error}")
        return 0
    with place as scratch:
        command = [sys.executable, __file__, scratch]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603  # ourselves
        if done.returncode:
            _say("\n".join((done.stdout[-2000:], done.stderr[-8000:], "not compiled")))
            return 1
        if compiled.folder() != folder:
            _say("not compiled: the sources have changed meanwhile")
            return 1
        _put(Path(scratch, "built"), folder)
    return 0


def _put(built: Path, folder: Path) -> None:
    """Put a build where it belongs, unless another process was first, and remove older ones."""
    try:
        built.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
    for old in folder.parent.glob(f"*.{folder.name.partition('.')[2]}"):
        if old != folder:
            shutil.rmtree(old, ignore_errors=True)  # whoever else removes it just now is welcome


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201  # it is a program


def _missing() -> str | None:
    """What a build needs and this machine does not have."""
    compiler = sysconfig.get_config_var("CC").split()[0]
    if shutil.which(compiler) is None:
        return f"no C compiler ({compiler}): as root, apt-get install gcc libc6-dev"
    header = Path(sysconfig.get_path("include"), "Python.h")
    return None if header.exists() else f"no {header}: as root, apt-get install python3-dev"


def compile_into(scratch: Path) -> None:
    """Compile, in a process of its own, because mypyc and setuptools leave much behind."""
    from mypyc.build import mypycify
    from setuptools import setup

    paths = [f"proxy/{module.replace('.', '/')}.py" for module in compiled.MODULES]
    group = compiled.LIBRARY.removesuffix("__mypyc")
    extensions = mypycify(paths, opt_level="3", debug_level="0", group_name=group, target_dir=str(scratch / "c"))
    for extension in extensions:
        extension.extra_compile_args.append("-Wno-error")  # what another compiler warns of is no fault of ours
    arguments = ["--quiet", "build_ext", f"--build-lib={scratch / 'built'}", f"--build-temp={scratch / 'objects'}"]
    setup(name="cohort-proxy", packages=[], py_modules=[], ext_modules=extensions, script_args=arguments)
    library = scratch / "built/library"
    library.mkdir()
    for path in (scratch / "built").glob(f"{compiled.LIBRARY}.*"):
        path.rename(library / path.name)


if __name__ == "__main__":
    if sys.argv[1:]:
        compile_into(Path(sys.argv[1]))
    else:
        sys.exit(main())
