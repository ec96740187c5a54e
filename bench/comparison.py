"""Whether a run is worse than an earlier one: ``--compare OLD.json``.

Compared are ratios to native, so that another machine, or the same one on a bad day, does not count; what has no native
counterpart is compared as it is, when the machines are the same.  A cell is a regression when three things hold:

* the median of the logarithms of its ratios has grown by more than *threshold*, what anyone would care about;
* that is more than noise, with one chance in twenty of a false alarm in the whole table: the growth divided by its
  standard error is above the normal quantile for 0.05 / (number of cells);
* nearly every new sample is worse than nearly every old one: the probability that a new one is worse than an old one
  (Vargha and Delaney's A, which knows ranks alone) is at least 0.9. A single bad round does not do that.

A cell of three rounds knows little about its own noise, so its deviation is taken to be at least that of all cells of
its system in its group (the scaled MAD of their residuals), and at least 1 %.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from typing import TYPE_CHECKING

from .figures import log_ratios, scaled_mad
from .systems import GREENROOM_SYSTEMS, NATIVE, RUNTIME

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .document import Document

__all__ = ["THRESHOLD", "Change", "compare"]

#: Part by which a ratio has to grow to be a regression.
THRESHOLD = 0.10
_FALSE_ALARM = 0.05
_SUPERIORITY = 0.9
_LEAST_DEVIATION = 0.01
#: The standard error of a median of n normal values is this times that of their mean.
_MEDIAN_ERROR = 1.2533
#: What has to be equal for figures that are no ratios to be compared.
_SAME_MACHINE = ("processor", "cpus", "kernel", "python")


@dataclasses.dataclass(frozen=True)
class Change:
    """A cell in both documents."""

    row: str
    system: str
    #: New over old, in the sense of costs: above 1 is worse.
    factor: float
    #: Growth over its standard error.
    score: float
    #: Probability that a new sample is worse than an old one.
    superiority: float
    verdict: str


@dataclasses.dataclass(frozen=True)
class _Cell:
    group: str
    row: str
    system: str
    old: Sequence[float]
    new: Sequence[float]


def compare(old: Document, new: Document, threshold: float = THRESHOLD) -> list[Change]:
    """Return what has become of greenroom's cells; those whose verdict is "regression" are worse beyond noise."""
    cells = _cells(old, new)
    noise = _pooled(cells)
    # Both sides of the table are looked at.
    limit = statistics.NormalDist().inv_cdf(1 - _FALSE_ALARM / (2 * max(len(cells), 1)))
    return [_judge(cell, noise[cell.group, cell.system], limit, math.log1p(threshold)) for cell in cells]


def _judge(cell: _Cell, pooled: float, limit: float, threshold: float) -> Change:
    growth = statistics.median(cell.new) - statistics.median(cell.old)
    error = math.hypot(*(_standard_error(values, pooled) for values in (cell.old, cell.new)))
    score, superiority = growth / error, _superiority(cell.old, cell.new)
    verdict = "same"
    if growth > threshold and score > limit and superiority >= _SUPERIORITY:
        verdict = "regression"
    elif growth < -threshold and score < -limit and superiority <= 1 - _SUPERIORITY:
        verdict = "improvement"
    return Change(cell.row, cell.system, math.exp(growth), score, superiority, verdict)


def _standard_error(values: Sequence[float], pooled: float) -> float:
    return _MEDIAN_ERROR * max(scaled_mad(values), pooled) / math.sqrt(len(values))


def _superiority(old: Sequence[float], new: Sequence[float]) -> float:
    """Return the probability that one of *new* is greater than one of *old*; a tie counts half."""
    wins = sum((b > a) + (b == a) / 2 for a in old for b in new)
    return wins / (len(old) * len(new))


def _pooled(cells: Sequence[_Cell]) -> dict[tuple[str, str], float]:
    """Return the least deviation of a cell, by group and system."""
    residuals: dict[tuple[str, str], list[float]] = {}
    for cell in cells:
        for values in (cell.old, cell.new):
            middle = statistics.median(values)
            # One sample is its own median, and the middle one of three too: they say nothing about noise.
            found = sorted(abs(value - middle) for value in values)[1:]
            residuals.setdefault((cell.group, cell.system), []).extend(found)
    return {key: max(_scaled(found), _LEAST_DEVIATION) for key, found in residuals.items()}


def _scaled(residuals: Sequence[float]) -> float:
    return scaled_mad([*residuals, *(-value for value in residuals)]) if residuals else 0.0


def _cells(old: Document, new: Document) -> list[_Cell]:
    same_machine = all(old.machine.get(key) == new.machine.get(key) for key in _SAME_MACHINE)
    cells = []
    for row in new.rows:
        for system in (*GREENROOM_SYSTEMS, RUNTIME):
            before, after = (_logs(document, row.key, system, row.unit, same_machine) for document in (old, new))
            if before and after:
                cells.append(_Cell(row.group, row.key, system, before, after))
    return cells


def _logs(document: Document, row: str, system: str, unit: str, same_machine: bool) -> list[float]:
    """Return the logarithms of a cell's costs, as ratios to native where native has the row."""
    sign = -1 if unit == "1/s" else 1
    values, native = document.values(row, system), document.values(row, NATIVE)
    if native:
        return [sign * value for value in log_ratios(values, native)]
    if not same_machine:
        return []
    return [sign * math.log(value) for value in values.values() if value > 0]
