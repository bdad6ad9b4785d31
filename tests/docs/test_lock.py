from __future__ import annotations

import tomllib
from pathlib import Path

LOCK = tomllib.loads((Path(__file__).parents[2] / "uv.lock").read_text())


def test_every_file_of_a_dependency_has_its_hash() -> None:
    """A file that was swapped on its way is not installed."""
    packages = [package for package in LOCK["package"] if "registry" in package["source"]]
    files = [file for package in packages for file in (*package.get("wheels", ()), package.get("sdist")) if file]
    assert len(packages) > 50
    assert [file for file in files if not file["hash"].startswith("sha256:")] == []
    assert [
        package["name"] for package in LOCK["package"] if not {"registry", "editable"} & package["source"].keys()
    ] == []
