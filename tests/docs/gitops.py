"""docs/gitops.md: the manifests on it, and the health check that Argo CD would run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lupa.lua51
import yaml

PAGE = Path(__file__).parents[2] / "docs/gitops.md"
KEY = "resource.customizations.health.cohort.dev_CanaryRollout"


def manifest(kind: str) -> dict[str, Any]:
    """The only manifest of a kind on the page."""
    blocks = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (found,) = [one for one in map(yaml.safe_load, blocks) if one["kind"] == kind]
    return dict(found)


def health(rollout: Mapping[str, Any]) -> tuple[str, str]:
    """What Argo CD would say of a CanaryRollout: its health and a message.

    The script runs in the interpreter of Argo CD's language version, with nothing but `obj` and the base library.
    """
    lua = lupa.lua51.LuaRuntime(register_eval=False, register_builtins=False)
    lua.globals()["obj"] = lua.table_from(rollout, recursive=True)
    for name in ("io", "os", "debug", "string", "math", "coroutine", "python"):
        lua.globals()[name] = None
    found = dict(lua.execute(manifest("ConfigMap")["data"][KEY]).items())
    assert set(found) == {"status", "message"}, found
    return found["status"], found["message"]
