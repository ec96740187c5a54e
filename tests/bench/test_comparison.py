"""``--compare`` finds what has become slower, and nothing else."""

from __future__ import annotations

import pytest
from documents import document, noisy
from greenroom.bench.comparison import Change, compare


def verdicts(changes: list[Change], kind: str) -> set[tuple[str, str]]:
    return {(change.row, change.system) for change in changes if change.verdict == kind}


@pytest.mark.parametrize("seed", range(5))
def test_noise_is_no_regression(seed: int) -> None:
    """200 cells, of which five in a hundred would be found by a test that forgets how many there are."""
    changes = compare(noisy(seed, 200, 5), noisy(seed + 100, 200, 5))
    assert len(changes) == 200
    assert not verdicts(changes, "regression")
    assert not verdicts(changes, "improvement")


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rounds", [3, 7])
def test_a_third_slower_is_found_among_many(seed: int, rounds: int) -> None:
    changes = compare(noisy(seed, 50, rounds), noisy(seed + 100, 50, rounds, factor=1.35))
    assert verdicts(changes, "regression") == {("micro/49", "ptrace")}
    assert next(c.factor for c in changes if c.row == "micro/49") == pytest.approx(1.35, rel=0.2)


def test_faster_is_an_improvement() -> None:
    changes = compare(noisy(1, 50, 7), noisy(101, 50, 7, factor=0.6))
    assert verdicts(changes, "improvement") == {("micro/49", "ptrace")}
    assert not verdicts(changes, "regression")


def test_growth_below_the_threshold_is_none() -> None:
    old = document({"micro/a": {"native": [1.0] * 9, "ptrace": [10.0] * 9}})
    new = document({"micro/a": {"native": [1.0] * 9, "ptrace": [10.9] * 9}})
    assert not verdicts(compare(old, new, 0.10), "regression")
    assert verdicts(compare(old, new, 0.05), "regression") == {("micro/a", "ptrace")}


def test_a_slower_machine_is_no_regression() -> None:
    old = document({"micro/a": {"native": [1.0] * 5, "ptrace": [10.0] * 5}})
    new = document({"micro/a": {"native": [3.0] * 5, "ptrace": [30.0] * 5}})
    assert compare(old, new)[0].factor == pytest.approx(1.0)


def test_a_single_bad_round_is_no_regression() -> None:
    old = document({"micro/a": {"native": [1.0] * 5, "ptrace": [10.0, 10.1, 9.9, 10.0, 10.2]}})
    new = document({"micro/a": {"native": [1.0] * 5, "ptrace": [10.0, 10.1, 90.0, 10.0, 9.9]}})
    assert not verdicts(compare(old, new), "regression")


def test_fewer_per_second_is_worse() -> None:
    rows = {"messages/tell": {"runtime": [1000.0, 1001.0, 999.0, 1002.0, 998.0]}}
    slower = {"messages/tell": {"runtime": [500.0, 501.0, 499.0, 502.0, 498.0]}}
    units = {"messages/tell": "1/s"}
    assert verdicts(compare(document(rows, units), document(slower, units)), "regression") == {
        ("messages/tell", "runtime")
    }
    assert verdicts(compare(document(slower, units), document(rows, units)), "improvement")


def test_figures_without_native_are_compared_on_one_machine_only() -> None:
    rows = {"messages/tell": {"runtime": [1.0] * 5}}
    old, new = document(rows), document(rows)
    assert len(compare(old, new)) == 1
    new.machine["processor"] = "another"
    assert compare(old, new) == []


def test_peers_do_not_count() -> None:
    old = document({"micro/a": {"native": [1.0] * 5, "runsc": [10.0] * 5}})
    new = document({"micro/a": {"native": [1.0] * 5, "runsc": [90.0] * 5}})
    assert compare(old, new) == []
