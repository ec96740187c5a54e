"""What the tests of memory, loader and templates stand on: a bench on a platform of its own."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
from memory_bench import Bench

if TYPE_CHECKING:
    from collections.abc import Iterator

    from greenroom.platform.ptrace.platform import PtracePlatform


@pytest.fixture
def bench(make_platform: type[PtracePlatform]) -> Iterator[Bench]:
    """A task with empty memory."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        pytest.skip("a thread of pytest-xdist's takes SIGCHLD: run these tests without -n")
    platform = make_platform()
    platform.start()
    try:
        yield Bench(platform)
    finally:
        platform.close()
        # The platform leaves it blocked in this thread, which programs started later would inherit.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
