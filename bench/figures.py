"""Figures from samples: medians, spreads, and ratios with the interval in which they are known.

A machine is never quiet, and its disturbances last longer than a sample: so systems are compared within a round, where
both were measured within seconds of each other.  The ratio of two systems is the median of their rounds' ratios; its
interval comes from drawing rounds anew (the percentile bootstrap), from a fixed seed so that the same samples always
give the same figures.  Ratios are handled as logarithms: twice as slow and twice as fast are equally far from the same.
"""

from __future__ import annotations

import dataclasses
import math
import random
import statistics
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Ratio", "Spread", "log_ratios", "ratio", "scaled_mad", "spread"]

#: Draws of the bootstrap, and the part of them that the interval holds.
_DRAWS = 2000
_LEVEL = 0.95
#: The median absolute deviation of a normal distribution times this is its standard deviation.
_MAD_TO_DEVIATION = 1.4826


@dataclasses.dataclass(frozen=True)
class Spread:
    """The samples of one cell in short."""

    median: float
    #: Median absolute deviation, scaled to be comparable with a standard deviation.
    deviation: float
    least: float
    greatest: float
    count: int


@dataclasses.dataclass(frozen=True)
class Ratio:
    """How many times as much one system takes as another."""

    median: float
    #: The interval that holds it with 95 % confidence, as far as a few rounds can say.
    low: float
    high: float
    count: int


def scaled_mad(values: Sequence[float]) -> float:
    """Return the median absolute deviation of *values*, scaled as a standard deviation; 0 for fewer than two."""
    middle = statistics.median(values)
    return _MAD_TO_DEVIATION * statistics.median(abs(value - middle) for value in values)


def spread(values: Sequence[float]) -> Spread:
    """Return *values* in short. ValueError when there is none."""
    if not values:
        raise ValueError("no samples")
    return Spread(statistics.median(values), scaled_mad(values), min(values), max(values), len(values))


def log_ratios(system: Mapping[int, float], base: Mapping[int, float]) -> list[float]:
    """Return the logarithms of *system* over *base*, both samples by round, in the rounds that have both."""
    return [
        math.log(system[number] / base[number])
        for number in sorted(system.keys() & base.keys())
        if system[number] > 0 and base[number] > 0
    ]


def ratio(system: Mapping[int, float], base: Mapping[int, float]) -> Ratio | None:
    """Return how many times as much *system* takes as *base*; None when no round has both."""
    logs = log_ratios(system, base)
    if not logs:
        return None
    low, high = _bootstrap_interval(logs)
    return Ratio(math.exp(statistics.median(logs)), math.exp(low), math.exp(high), len(logs))


def _bootstrap_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the interval of the median of *values* under drawing as many of them again."""
    draw = random.Random(0)  # noqa: S311  # not for secrets
    medians = sorted(statistics.median(draw.choices(values, k=len(values))) for _ in range(_DRAWS))
    cut = int(_DRAWS * (1 - _LEVEL) / 2)
    return medians[cut], medians[-1 - cut]
