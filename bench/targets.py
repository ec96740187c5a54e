"""What greenroom has to reach, and whether a run shows it.

The limits are those that the project set itself for two cores and the platform notify; times are the machine's own,
ratios are to what was measured in the same run.
"""

from __future__ import annotations

import dataclasses
import statistics
from typing import TYPE_CHECKING

from .cells import cost_ratio
from .systems import NATIVE

if TYPE_CHECKING:
    from .document import Document

__all__ = ["RIVALS", "SUBJECT", "TARGETS", "Target", "Verdict", "judge", "slower_than"]

SUBJECT = "notify"
#: Peers that greenroom has to beat on every row. By the name before a dash: another runsc is not meant.
RIVALS = ("runsc", "proot")


@dataclasses.dataclass(frozen=True)
class Target:
    """One limit. Without *base* it is for the figure of *row* itself, otherwise for its ratio to that system's."""

    row: str
    #: At most this, in the row's unit; at least for a rate.
    limit: float
    base: str = ""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a run says about a target."""

    target: Target
    unit: str
    #: None when it was not measured; *reason* says why.
    measured: float | None
    reason: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the limit is kept; None when nobody knows."""
        if self.measured is None:
            return None
        return self.measured >= self.target.limit if self.at_least else self.measured <= self.target.limit

    @property
    def at_least(self) -> bool:
        """Whether more is better."""
        return self.unit == "1/s" and not self.target.base


TARGETS: tuple[Target, ...] = (
    Target("micro/getppid", 9e-6),
    Target("micro/getppid", 0.7, base="ptrace"),
    Target("micro/pread 4 KiB", 13e-6),
    Target("micro/pwrite 4 KiB", 13e-6),
    Target("micro/stat", 30e-6),
    Target("micro/pipe write + read", 20e-6),
    Target("micro/mmap + munmap", 30e-6),
    Target("micro/thread create + join", 180e-6),
    Target("micro/fork + exit + wait", 250e-6),
    Target("micro/vfork + exec + wait, dynamic", 1.2e-3),
    Target("micro/clock_gettime, libc", 1.5, base=NATIVE),
    Target("macro/python3 -c pass", 2.0, base=NATIVE),
    Target("macro/computing, one thread", 1.01, base=NATIVE),
    # Two threads on one core take twice as long as on two. The shorter row shows how soon they are on two.
    Target("macro/computing, two threads, 0.2 s", 1.1, base=NATIVE),
    Target("start-up//bin/true, cold", 0.150),
    Target("start-up//bin/true, with a supervisor", 0.040),
    Target("start-up//bin/true, from a warm Python process", 0.010),
    Target("start-up/sandboxes per second, four at a time", 100.0),
    Target("memory/each further one", 12e6),
)


def judge(document: Document) -> list[Verdict]:
    """Return what *document* says about each target."""
    return [_judge(document, target) for target in TARGETS]


def _judge(document: Document, target: Target) -> Verdict:
    row = next((row for row in document.rows if row.key == target.row), None)
    if row is None:
        return Verdict(target, "s", None, "not in this run")
    values = document.values(target.row, SUBJECT)
    if not values:
        return Verdict(target, row.unit, None, _why(document, target.row))
    if not target.base:
        return Verdict(target, row.unit, statistics.median(values.values()))
    found = cost_ratio(document, row, SUBJECT, target.base)
    return Verdict(target, row.unit, found.median if found else None, "" if found else f"no figure of {target.base}")


def slower_than(document: Document, system: str, rival: str) -> list[str] | None:
    """Return the rows in which *system* is not better than *rival*; None when no row has both."""
    common, slower = 0, []
    for row in document.rows:
        found = cost_ratio(document, row, system, rival)
        if found is not None:
            common += 1
            if found.median >= 1:
                slower.append(row.key)
    return slower if common else None


def _why(document: Document, row: str) -> str:
    errors = document.errors.get(row, {}).get(SUBJECT)
    return errors[-1][1] if errors else "not measured"
