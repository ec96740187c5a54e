"""The texts of cells and notes, the same in every table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .figures import ratio, spread
from .systems import NATIVE, RUNTIME

if TYPE_CHECKING:
    from .document import Document, RowInfo, SystemInfo
    from .figures import Ratio

__all__ = ["cost_ratio", "figure", "notes", "shown_systems", "text", "times"]


def figure(value: float, unit: str) -> str:
    """Return *value* with three digits and a unit that a person would choose."""
    if unit == "bytes":
        return f"{_three(value / 1e6)} MB"
    if unit == "1/s":
        return f"{value:,.0f} /s" if value >= 99.95 else f"{_three(value)} /s"
    for scale, name in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        # 999.6 us would be rounded to 1000.
        if abs(value) >= 0.9995 * scale:
            return f"{_three(value / scale)} {name}"
    return f"{_three(value / 1e-9)} ns"


def times(value: float) -> str:
    """Return a ratio."""
    return f"{_three(value)}x"


def _three(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 99.95 else f"{value:.1f}" if abs(value) >= 9.995 else f"{value:.2f}"


def cost_ratio(document: Document, row: RowInfo, system: str, base: str = NATIVE) -> Ratio | None:
    """Return how many times *base*'s costs a system has: of a rate it is the inverse. None when there is none."""
    ours, theirs = document.values(row.key, system), document.values(row.key, base)
    return ratio(theirs, ours) if row.unit == "1/s" else ratio(ours, theirs)


def text(document: Document, row: RowInfo, system: str) -> tuple[str, str]:
    """Return the median of a cell, and its ratio to native with half of its interval in percent; "" for none."""
    values = document.values(row.key, system)
    if not values:
        return "", ""
    median = figure(spread(list(values.values())).median, row.unit)
    found = cost_ratio(document, row, system)
    if system == NATIVE or found is None:
        return median, ""
    if found.count == 1:
        return median, times(found.median)
    return median, f"{times(found.median)} ±{(found.high - found.low) / 2 / found.median * 100:.0f}%"


def shown_systems(document: Document, group: str) -> list[SystemInfo]:
    """Return the columns of a group's table: the runtime has rows of its own."""
    return [system for system in document.systems if (system.name == RUNTIME) == (group == "messages")]


def notes(document: Document) -> list[str]:
    """Return what is to be said about cells that are empty or have fewer samples: a line for each system and reason."""
    lines = [f"{system.title}: {system.unavailable}" for system in document.systems if system.unavailable]
    if not document.complete:
        lines.append(
            "the time limit came before the last round's end: a cell that nothing else explains was not reached"
        )
    for system in document.systems:
        reasons: dict[str, list[str]] = {}
        for row in document.rows:
            for _, reason in document.errors.get(row.key, {}).get(system.name, ()):
                share = " (in some rounds)" if document.values(row.key, system.name) else ""
                if row.key + share not in reasons.setdefault(reason, []):
                    reasons[reason].append(row.key + share)
        lines += [f"{system.title}: {reason}: {'; '.join(rows)}" for reason, rows in reasons.items()]
    return lines
