"""System calls give in a sandbox what they give natively: results and errnos, by family.

Each program prints one line for each call; a difference shows the call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from oracle import AS_CALLER, Case, in_sandbox, natively

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_AS_ANYONE = (
    "pidfd",
    "process",
    "signals",
    "files",
    "pipes",
    "descriptors",
    "splice",
    "sockets",
    "memory",
    "time",
    "leases",
)


def _check_lines(case: Case, placement: str, directory: Path) -> None:
    """Compare line by line first: that shows the call, where whole outputs show a wall of text."""
    expected, said = natively(case, directory), in_sandbox(case, placement, AS_CALLER)
    assert said.stdout.decode().split("\n") == expected.stdout.decode().split("\n")
    assert said == expected


@pytest.mark.parametrize("family", _AS_ANYONE)
def test_family_equals_native(family: str, program: Callable[..., str], placement: str, tmp_path: Path) -> None:
    _check_lines(Case((program(f"conform_{family}"),)), placement, tmp_path)


def test_identity_equals_native(program: Callable[..., str], placement: str, tmp_path: Path, needs_root: None) -> None:
    _check_lines(Case((program("conform_identity"),)), placement, tmp_path)


@pytest.mark.parametrize("links", ["-static", "-static-pie", "-no-pie"])
def test_linkage_makes_no_difference(links: str, program: Callable[..., str], placement: str, tmp_path: Path) -> None:
    _check_lines(Case((program("threads", links),)), placement, tmp_path)
