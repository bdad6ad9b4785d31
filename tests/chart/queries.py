"""Queries as Prometheus reads them, as far as names and labels go: what a panel or an alert needs to exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
SELECTOR = re.compile(r"\b(cohort_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(rf'\s*({NAME})\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"\s*(?:,|$)')
GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
LEGEND = re.compile(rf"\{{\{{\s*({NAME})\s*\}}\}}")


@dataclass(frozen=True, slots=True)
class Selector:
    """One series that a query asks for.

    Attributes:
        name: Of the metric.
        matchers: Label, operator and value of each.
    """

    name: str
    matchers: tuple[tuple[str, str, str], ...]

    def __str__(self) -> str:
        return self.name + "{" + ",".join(f'{label}{sign}"{value}"' for label, sign, value in self.matchers) + "}"


def selectors(query: str) -> Iterator[Selector]:
    """Every selector of a query.

    Raises:
        AssertionError: The braces of one hold something else than matchers.
    """
    for name, inside in SELECTOR.findall(query):
        assert MATCHER.sub("", inside) == "", inside
        yield Selector(name, tuple(MATCHER.findall(inside)))


def labels(query: str) -> set[str]:
    """Labels that a query groups or joins by."""
    return {label.strip() for inside in GROUPING.findall(query) for label in inside.split(",") if label.strip()}


def shown(legend: str) -> set[str]:
    """Labels that a legend shows."""
    return set(LEGEND.findall(legend))
