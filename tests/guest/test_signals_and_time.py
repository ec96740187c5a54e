"""Signals, futexes, clocks and timers: guest programs say in a sandbox what they say natively."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from oracle import Case, in_sandbox, natively

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize("name", ["signals", "signals_processes", "futexes", "times", "signals_threads"])
def test_program_equals_native(name: str, program: Callable[..., str], placement: str, tmp_path: Path) -> None:
    """Compared line by line: a difference shows the call."""
    case = Case((program(name),))
    expected, said = natively(case, tmp_path), in_sandbox(case, placement)
    assert said.stdout.decode().split("\n") == expected.stdout.decode().split("\n")
    assert said == expected
