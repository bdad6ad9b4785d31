"""Bar charts as SVG: a bar an entrant, a line from its least to its greatest round; readable on light and dark."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from tests.bench.figures import Figure
from tests.bench.results import SUBJECT

WIDTH, LABEL_WIDTH, VALUE_WIDTH = 720, 190, 90
ROW_HEIGHT, BAR_HEIGHT, TOP = 26, 16, 34
STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #1f2328 } .title { font-weight: 600 } .label { text-anchor: end }
.bar { fill: #8c959f } .ours { fill: #0969da } .spread { stroke: #1f2328; stroke-width: 1.5 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .bar { fill: #6e7681 } .ours { fill: #4493f8 } .spread { stroke: #e6edf3 }
}"""


def bars(title: str, figure: Figure, values: Mapping[str, Mapping[str, float]]) -> str:
    """A chart of one figure, the least first.

    Args:
        values: ``median``, ``low`` and ``high`` by entrant.
    """
    rows = sorted(values.items(), key=lambda item: item[1]["median"])
    most = max(value["high"] for _, value in rows) or 1.0
    scale = (WIDTH - LABEL_WIDTH - VALUE_WIDTH) / most
    height = TOP + ROW_HEIGHT * len(rows) + 8
    heading = escape(f"{title}: {figure.label}")
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
            f'role="img" aria-label="{heading}">',
            f"<style>\n{STYLE}\n</style>",
            f'<text class="title" x="8" y="20">{heading}</text>',
            *(_row(index, name, value, figure, scale) for index, (name, value) in enumerate(rows)),
            "</svg>\n",
        ]
    )


def _row(index: int, name: str, value: Mapping[str, float], figure: Figure, scale: float) -> str:
    y = TOP + ROW_HEIGHT * index
    middle = y + BAR_HEIGHT / 2
    kind = "bar ours" if name.partition(",")[0] == SUBJECT else "bar"
    low, high = (LABEL_WIDTH + value[end] * scale for end in ("low", "high"))
    return "\n".join(
        [
            f'<text class="label" x="{LABEL_WIDTH - 8}" y="{y + 13}">{escape(name)}</text>',
            f'<rect class="{kind}" x="{LABEL_WIDTH}" y="{y}" width="{max(value["median"] * scale, 1):.1f}" '
            f'height="{BAR_HEIGHT}" rx="2"/>',
            f'<line class="spread" x1="{low:.1f}" y1="{middle:g}" x2="{high:.1f}" y2="{middle:g}"/>',
            f'<text x="{max(high, low) + 8:.1f}" y="{y + 13}">{escape(figure.text(value["median"]))}</text>',
        ]
    )
