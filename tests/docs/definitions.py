"""The CustomResourceDefinitions of the chart, from the models that read the files."""

from __future__ import annotations

from pathlib import Path

from controller import crd

FOLDER = Path(__file__).parents[2] / "charts/cohort/crds"


def files() -> dict[Path, str]:
    """Every file of the folder, as it should be."""
    return {FOLDER / f"{kind.plural}.yaml": crd.text(crd.definition(kind)) for kind in crd.RESOURCES}
