"""``make kube-tools``: build what is missing, one module after the other, and say now and then how far it is."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.kube.tools import LDFLAGS, MODULES, Module, builds, find

GO = "1.26"  # what the modules' go lines ask for
NICENESS = 10  # whoever is at the machine comes first
SAY_EVERY_S = 20.0
DRAFT = "draft-"
ELSEWHERE = ("/usr/local/go/bin", "/usr/lib/go/bin", str(Path.home() / "go" / "bin"))
ENVIRONMENT = {"GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GOFLAGS": "-trimpath -buildvcs=false", "GOWORK": "off"}


def main() -> int:
    """Build every module of which a program is missing; the exit status."""
    if all(map(_is_complete, MODULES)):
        return 0
    builds().mkdir(parents=True, exist_ok=True)
    with (builds() / "lock").open("w") as lock:  # another checkout may be building the same
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _build_missing()


def _build_missing() -> int:
    """With the lock held, so that drafts here are of builds that did not end."""
    for draft in builds().glob(f"{DRAFT}*"):
        shutil.rmtree(draft)
    missing = [module for module in MODULES if not _is_complete(module)]
    go = shutil.which("go", path=os.pathsep.join((os.environ.get("PATH", os.defpath), *ELSEWHERE)))
    if go is None:
        print(f"Go {GO} or newer is needed to build the cluster's components: install it and put it on PATH")
        return 1
    print(
        f"building {', '.join(module.name for module in missing)}: about {_minutes(missing)} min on two cores",
        flush=True,
    )
    return 0 if all(_build(go, module) for module in missing) else 1


def _is_complete(module: Module) -> bool:
    try:
        return all(find(program) for program in module.programs)
    except FileNotFoundError:
        return False


def _minutes(modules: list[Module]) -> int:
    return -(-sum(module.cold_s for module in modules) // 60)


def _build(go: str, module: Module) -> bool:
    """Build in a folder beside the target, which gets its name only when it is whole."""
    started = time.monotonic()
    draft = Path(tempfile.mkdtemp(prefix=DRAFT, dir=builds()))
    for program, package in module.programs.items():
        command = [go, "build", "-v", "-ldflags", LDFLAGS, "-o", str(draft / program), package]
        if not _follow(module, started, command):
            return False
    shutil.rmtree(module.target, ignore_errors=True)
    draft.chmod(0o755)
    draft.rename(module.target)
    print(f"{module.name}: built in {time.monotonic() - started:.0f} s", flush=True)
    return True


def _follow(module: Module, started: float, command: list[str]) -> bool:
    """Run one build and say now and then which package is done, as ``-v`` names them; show what went wrong."""
    said, lines = time.monotonic(), []
    environment = os.environ | ENVIRONMENT
    with subprocess.Popen(
        ["nice", "-n", str(NICENESS), *command],
        cwd=module.folder,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as build:
        assert build.stderr is not None
        for line in build.stderr:
            lines.append(line)
            if time.monotonic() - said >= SAY_EVERY_S:
                said = time.monotonic()
                print(f"{module.name}: {said - started:.0f} s, now at {line.strip()}", flush=True)
    if build.returncode:
        print("".join(lines[-40:]), end="", file=sys.stderr)
    return build.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
