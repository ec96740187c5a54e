"""The port to the host's clocks, so that a trace can record what they said and a replay can say it again."""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["HostClock", "SystemClock"]


class HostClock(Protocol):
    """What Timekeeper and Kernel ask of the host."""

    def monotonic_ns(self) -> int:
        """Host CLOCK_MONOTONIC."""

    def realtime_ns(self) -> int:
        """Host CLOCK_REALTIME."""


class SystemClock:
    """The real host."""

    def monotonic_ns(self) -> int:
        """Host CLOCK_MONOTONIC."""
        return time.monotonic_ns()

    def realtime_ns(self) -> int:
        """Host CLOCK_REALTIME."""
        return time.time_ns()
