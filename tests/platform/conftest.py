"""Fixtures of the platform's tests: a started platform that leaves nothing behind."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from guests import Driver

if TYPE_CHECKING:
    from collections.abc import Iterator

    from greenroom.platform.ptrace.platform import PtracePlatform


def children() -> set[int]:
    """Return the pids of this process's children, zombies included."""
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        return {int(pid) for pid in file.read().split()}


@pytest.fixture(autouse=True)
def _own_process() -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        pytest.skip("a thread of pytest-xdist's takes SIGCHLD: run these tests without -n")


@pytest.fixture
def platform(make_platform: type[PtracePlatform]) -> Iterator[PtracePlatform]:
    before = children()
    platform = make_platform()
    platform.start()
    try:
        yield platform
    finally:
        platform.close()
    assert children() == before


@pytest.fixture
def driver(platform: PtracePlatform) -> Driver:
    return Driver(platform)
