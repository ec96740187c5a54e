"""A set of address ranges.

Linux counterpart: none; the kernel's interval trees come near.  There are few ranges, so a sorted list will do.
"""

from __future__ import annotations

__all__ = ["Ranges"]


class Ranges:
    """Disjoint ranges (start, end) in order."""

    __slots__ = ("_ranges",)

    def __init__(self, ranges: list[tuple[int, int]] | None = None) -> None:
        self._ranges = list(ranges or ())

    def __bool__(self) -> bool:
        return bool(self._ranges)

    def copy(self) -> Ranges:
        """Return an independent copy."""
        return Ranges(self._ranges)

    def add(self, start: int, end: int) -> None:
        """Add a range; ranges that touch become one."""
        touching = [r for r in self._ranges if r[0] <= end and start <= r[1]]
        start = min([start, *(r[0] for r in touching)])
        end = max([end, *(r[1] for r in touching)])
        self._ranges = sorted([*(r for r in self._ranges if r not in touching), (start, end)])

    def cut(self, start: int, end: int) -> None:
        """Take a range out."""
        left: list[tuple[int, int]] = []
        for first, last in self._ranges:
            if first < start:
                left.append((first, min(last, start)))
            if last > end:
                left.append((max(first, end), last))
        self._ranges = [r for r in left if r[0] < r[1]]

    def within(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return the parts that lie between *start* and *end*."""
        return [(max(first, start), min(last, end)) for first, last in self._ranges if first < end and start < last]
