"""Fixtures of the guest tests: platforms and placements, and compiled guest programs.

Every test runs on every platform that ``--platforms`` names; those that choose a placement run in both, save that
ptrace with split processes is for :data:`_SPLIT_PTRACE` alone: what breaks it breaks another combination too.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

pytest.register_assert_rewrite("oracle")  # before its first import: failures in it show both sides

from greenroom.config.spec import PLATFORM_VARIABLE  # noqa: E402
from guest_programs import compiled  # noqa: E402
from oracle import ENVIRONMENT, PLACEMENTS  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

#: Modules whose tests also run on ptrace with split processes.
_SPLIT_PTRACE = ("test_conformance", "test_ends", "test_save_restore")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what the matrix has no place for."""

    def wanted(item: pytest.Item) -> bool:
        params = item.callspec.params if hasattr(item, "callspec") else {}
        combination = params.get("guest_platform"), params.get("placement")
        return combination != ("ptrace", "split") or item.path.stem in _SPLIT_PTRACE

    left_out = [item for item in items if not wanted(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if wanted(item)]


@pytest.fixture(autouse=True)
def guest_platform(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make every sandbox use one platform."""
    monkeypatch.setenv(PLATFORM_VARIABLE, request.param)
    monkeypatch.setitem(ENVIRONMENT, PLATFORM_VARIABLE, request.param)
    return str(request.param)


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
