"""Fixtures of the guest tests: both placements, and compiled guest programs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

pytest.register_assert_rewrite("oracle")  # before its first import: failures in it show both sides

from guest_programs import compiled  # noqa: E402
from oracle import PLACEMENTS  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(params=PLACEMENTS)
def placement(request: pytest.FixtureRequest) -> str:
    """Each placement in turn."""
    return str(request.param)


@pytest.fixture
def needs_root() -> None:
    """The native side of the test needs root, which the guest's side has in any case."""
    if os.geteuid() != 0:
        pytest.skip("the native side needs root")


@pytest.fixture(scope="session")
def program() -> Callable[..., str]:
    """Return the function that compiles a guest program and returns its path."""
    return compiled
