"""Results as a picture: ratios to native by row, and the cost of one as work grows. SVG, by matplotlib."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from .cells import cost_ratio, times
from .rows import GROWTH_COUNTS, GROWTH_KINDS
from .systems import NATIVE, RUNTIME

if TYPE_CHECKING:
    from pathlib import Path

    from .document import Document, RowInfo, SystemInfo

__all__ = ["growth_points", "write_svg"]

#: Colours that people who see few of them can tell apart (Okabe and Ito), and shapes for those who see none.
_COLOURS = ("#000000", "#0072B2", "#56B4E9", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#F0E442", "#999999")
_SHAPES = "|osD^vPX*"
_INCHES_PER_ROW = 0.3


def growth_points(document: Document, kind: str, system: str) -> list[tuple[int, float]]:
    """Return (how many, seconds for one) of a kind, as far as they were measured."""
    points = []
    for count in GROWTH_COUNTS:
        values = document.values(f"growth/{kind}, {count:,}", system)
        if values:
            points.append((count, statistics.median(values.values())))
    return points


def write_svg(document: Document, path: Path) -> None:
    """Draw *document* into *path*; the same document always gives the same file."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "greenroom"
    mpl.rcParams["svg.fonttype"] = "none"
    import matplotlib.pyplot as plt

    rows = [row for row in document.rows if row.group in ("micro", "macro", "start-up", "memory")]
    kinds = [kind for kind in GROWTH_KINDS if growth_points(document, kind, NATIVE)]
    systems = [s for s in document.systems if not s.unavailable and s.name != RUNTIME]
    upper, lower = max(2.5, len(rows) * _INCHES_PER_ROW + 1), 3.4 if kinds else 0.1
    figure = plt.figure(figsize=(12, upper + lower), layout="constrained")
    panels: Any = figure.subfigures(2, 1, height_ratios=[upper, lower])
    styles = {s.name: (_COLOURS[i % len(_COLOURS)], _SHAPES[i % len(_SHAPES)]) for i, s in enumerate(systems)}
    if rows:
        _draw_ratios(panels[0].subplots(), document, rows, systems, styles)
    if kinds:
        for axes, kind in zip(panels[1].subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
            _draw_growth(axes, document, kind, systems, styles)
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)


def _draw_ratios(
    axes: Any, document: Document, rows: list[RowInfo], systems: list[SystemInfo], styles: dict[str, tuple[str, str]]
) -> None:
    for system in systems:
        colour, shape = styles[system.name]
        points = [(place, cost_ratio(document, row, system.name)) for place, row in enumerate(rows)]
        found = [(place, r) for place, r in points if r is not None and system.name != NATIVE]
        if found:
            places, medians = [place for place, _ in found], [r.median for _, r in found]
            spans = [[r.median - r.low for _, r in found], [r.high - r.median for _, r in found]]
            axes.errorbar(medians, places, xerr=spans, fmt=shape, color=colour, label=system.title, markersize=5, lw=1)
    axes.axvline(1, color="black", lw=1)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _place: times(value))
    axes.set_yticks(range(len(rows)), [f"{row.group}: {row.name}" for row in rows])
    axes.invert_yaxis()
    axes.grid(alpha=0.3)
    axes.set_title("cost, as a multiple of native (bars: 95 % of the bootstrap)")
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.05), ncols=len(systems), frameon=False)


def _draw_growth(
    axes: Any, document: Document, kind: str, systems: list[SystemInfo], styles: dict[str, tuple[str, str]]
) -> None:
    for system in systems:
        points = growth_points(document, kind, system.name)
        colour, shape = styles[system.name]
        axes.plot([n for n, _ in points], [1e6 * s for _, s in points], color=colour, marker=shape, markersize=4, lw=1)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_title(f"{kind}: us for one", fontsize=10)
    axes.grid(alpha=0.3)
