"""What one fault's run has to show: figures, each with its bound. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One measured value.

    Attributes:
        bound: As text, `<= 200 ms`; empty for a value that is only told.
    """

    name: str
    value: str
    bound: str
    holds: bool

    def __str__(self) -> str:
        bound = f" ({self.bound})" if self.bound else ""
        return f"{'' if self.holds else 'NOT '}{self.name} {self.value}{bound}"


@dataclass
class Check:
    """The figures of one run, in the order in which they were taken.

    Attributes:
        slack: What limits on times are multiplied by: more than 1 on a machine that has other things to do.
    """

    slack: float = 1.0
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def says(self, name: str, value: object, unit: str = "") -> None:
        """A value without a bound."""
        self.figures.append(Figure(name, _text(value, unit), "", holds=True))

    def exactly(self, name: str, value: object, wanted: object = 0) -> None:
        """A value that has to be this one."""
        self.figures.append(Figure(name, _text(value), f"= {wanted}", holds=value == wanted))

    def at_most(self, name: str, value: float, limit: float, unit: str = "") -> None:
        """A value that may not be more."""
        if unit in ("s", "ms"):
            limit *= self.slack
        self.figures.append(Figure(name, _text(value, unit), f"<= {_text(limit, unit)}", holds=value <= limit))

    def at_least(self, name: str, value: float, limit: float, unit: str = "") -> None:
        self.figures.append(Figure(name, _text(value, unit), f">= {_text(limit, unit)}", holds=value >= limit))

    def true(self, name: str, holds: object) -> None:
        """Something that holds or not."""
        self.figures.append(Figure(name, "yes" if holds else "no", "= yes", holds=bool(holds)))

    def note(self, text: str) -> None:
        """What a reader of a failure wants to know, or how the fault was injected where there is a choice."""
        self.notes.append(text)

    @property
    def holds(self) -> bool:
        """Every figure is within its bound, and there is one."""
        return bool(self.figures) and all(figure.holds for figure in self.figures)

    def document(self) -> dict[str, Any]:
        return {"figures": [asdict(figure) for figure in self.figures], "notes": self.notes, "holds": self.holds}


def _text(value: object, unit: str = "") -> str:
    number = str(value)
    if isinstance(value, float):
        number = f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"
    return f"{number} {unit}".strip()
