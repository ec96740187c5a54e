"""Medians, spreads and ratios are what they are called."""

from __future__ import annotations

import math

import pytest
from greenroom.bench.figures import log_ratios, ratio, scaled_mad, spread


def test_spread_of_known_values() -> None:
    found = spread([5.0, 1.0, 2.0, 100.0, 3.0])
    assert (found.median, found.least, found.greatest, found.count) == (3.0, 1.0, 100.0, 5)
    assert found.deviation == pytest.approx(2 * 1.4826)


def test_one_sample_has_no_deviation() -> None:
    assert scaled_mad([7.0]) == 0


def test_spread_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no samples"):
        spread([])


def test_ratio_is_taken_within_rounds() -> None:
    """The machine was ten times slower in round 1, for both; round 2 has native alone."""
    found = ratio({0: 2.0, 1: 20.0}, {0: 1.0, 1: 10.0, 2: 500.0})
    assert found is not None
    assert (found.median, found.low, found.high, found.count) == pytest.approx((2.0, 2.0, 2.0, 2))


def test_ratio_without_a_common_round_is_none() -> None:
    assert ratio({0: 1.0}, {1: 1.0}) is None


def test_interval_holds_the_ratio_and_is_the_same_each_time() -> None:
    system = {number: 3.0 + number % 3 for number in range(9)}
    native = dict.fromkeys(range(9), 1.0)
    found = ratio(system, native)
    assert found is not None
    assert 3.0 <= found.low < found.median < found.high <= 5.0 + 1e-9
    assert ratio(system, native) == found


def test_twice_and_half_are_equally_far() -> None:
    twice, half = log_ratios({0: 2.0}, {0: 1.0}), log_ratios({0: 1.0}, {0: 2.0})
    assert twice == [-one for one in half] == [math.log(2)]
