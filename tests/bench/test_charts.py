from __future__ import annotations

import xml.etree.ElementTree as ElementTree

from tests.bench.charts import bars
from tests.bench.figures import FIGURES

VALUES = {
    "nginx": {"median": 15.0, "low": 14.0, "high": 17.0},
    "cohort": {"median": 20.0, "low": 19.0, "high": 40.0},
    "a <b> & c": {"median": 0.0, "low": 0.0, "high": 0.0},
}
SVG = "{http://www.w3.org/2000/svg}"


def test_each_entrant_has_a_bar_as_long_as_its_figure() -> None:
    """The least first; the longest line ends before the numbers, and names are text, whatever is in them."""
    root = ElementTree.fromstring(bars("small <get>", FIGURES["cpu_us"], VALUES))
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert texts == ["small <get>: CPU µs a request", "a <b> & c", "0.0", "nginx", "15.0", "cohort", "20.0"]
    widths = [float(element.attrib["width"]) for element in root.iter(f"{SVG}rect")]
    assert widths[2] / widths[1] == 20 / 15
    ends = [float(element.attrib["x2"]) for element in root.iter(f"{SVG}line")]
    assert max(ends) < float(root.attrib["width"]) - 80


def test_charts_are_readable_on_dark_pages() -> None:
    """Whoever reads at night sees black on black else."""
    assert "prefers-color-scheme: dark" in bars("x", FIGURES["cpu_us"], VALUES)
