"""Whether what was measured is within what must hold (bounds.yaml)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.bench.results import SUBJECT

FILE = Path(__file__).with_name("bounds.yaml")


@dataclass(frozen=True, slots=True)
class Bound:
    """One line that a figure, or its ratio to another entrant's, must stay below or reach.

    Attributes:
        of: Whose figure.
        to: Whose it is divided by; empty: by nobody's.
        is_stretch: It would be good to have.
    """

    workload: str
    figure: str
    of: str = SUBJECT
    to: str = ""
    at_most: float | None = None
    at_least: float | None = None
    is_stretch: bool = False

    def value(self, document: dict[str, Any]) -> dict[str, float] | None:
        """Median, low and high of what is bounded; None if it was not measured."""
        if not document:
            return None
        summary = document["summary"]
        if not self.to:
            return summary["figures"].get(self.figure, {}).get(self.of)  # type: ignore[no-any-return]  # JSON
        rows = [row for row in summary["ratios"] if (row["of"], row["to"]) == (self.of, self.to)]
        return rows[0].get(self.figure) if rows else None

    def is_met(self, value: float) -> bool:
        """Whether a median is within it."""
        return (self.at_most is None or value <= self.at_most) and (self.at_least is None or value >= self.at_least)

    def text(self) -> str:
        """The line itself."""
        return f"at most {self.at_most:g}" if self.at_most is not None else f"at least {self.at_least:g}"

    def verdict(self, document: dict[str, Any]) -> str:
        """``met``, ``not met`` or ``not measured``."""
        value = self.value(document)
        return "not measured" if value is None else "met" if self.is_met(value["median"]) else "not met"


def bounds(section: str = "bounds") -> list[Bound]:
    """All of one section of the file, in its order."""
    return [Bound(**entry) for entry in yaml.safe_load(FILE.read_text())[section]]
