"""The guest's clocks as offsets to the host's: plain data and arithmetic.

Linux counterpart: struct timekeeper.  Guest CLOCK_MONOTONIC starts at 0 at boot, stands still while frozen, and
never goes backwards; a load continues it from the saved value plus the real time that has passed since.  Unlike
Linux's, it also counts the time that a saved sandbox slept, as CLOCK_BOOTTIME does.  CLOCK_REALTIME is the host's
plus an offset, and is never frozen.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from ...messages.thread_group import ClockParameters
from ...messages.timekeeper import ClockState

if TYPE_CHECKING:
    from ...messages.timekeeper import LoadClocks
    from .host import HostClock

__all__ = ["TRANSITIONS", "ClockMode", "GuestClocks"]


class ClockMode(enum.Enum):
    """Whether monotonic time passes."""

    RUNNING = "running"
    FROZEN = "frozen"


#: mode -> modes that may follow it.
TRANSITIONS: dict[ClockMode, frozenset[ClockMode]] = {
    ClockMode.RUNNING: frozenset({ClockMode.FROZEN}),
    ClockMode.FROZEN: frozenset({ClockMode.RUNNING}),
}


class GuestClocks:
    """Guest CLOCK_MONOTONIC and CLOCK_REALTIME, in ns, over the *host*'s; monotonic is 0 now."""

    def __init__(self, host: HostClock) -> None:
        self._host = host
        self.mode = ClockMode.RUNNING
        self.realtime_offset_ns = 0
        self.frozen_at_ns: int | None = None
        self.boot()

    def boot(self) -> None:
        """Let monotonic be 0 now: the sandbox may have been prepared long ago. Nobody has read the clocks yet."""
        self.monotonic_offset_ns = -self._host.monotonic_ns()
        self.boot_realtime_ns = self._host.realtime_ns()

    def advance(self, old: ClockMode, new: ClockMode) -> None:
        """Go from *old* to *new*: the only writer of ``mode``. AssertionError for an impossible step."""
        assert self.mode is old, f"clocks are {self.mode.value}, not {old.value}"
        assert new in TRANSITIONS[old], f"clocks cannot go from {old.value} to {new.value}"
        self.mode = new

    def monotonic_ns(self) -> int:
        """Guest CLOCK_MONOTONIC."""
        if self.frozen_at_ns is not None:
            return self.frozen_at_ns
        return self._host.monotonic_ns() + self.monotonic_offset_ns

    def realtime_ns(self) -> int:
        """Guest CLOCK_REALTIME."""
        return self._host.realtime_ns() + self.realtime_offset_ns

    def freeze(self) -> None:
        """Monotonic time stands still from now on."""
        self.advance(ClockMode.RUNNING, ClockMode.FROZEN)
        self.frozen_at_ns = self._host.monotonic_ns() + self.monotonic_offset_ns

    def thaw(self) -> None:
        """Monotonic time goes on from where it stood."""
        self.advance(ClockMode.FROZEN, ClockMode.RUNNING)
        assert self.frozen_at_ns is not None
        self.monotonic_offset_ns = self.frozen_at_ns - self._host.monotonic_ns()
        self.frozen_at_ns = None

    def set_realtime(self, realtime_ns: int) -> None:
        """clock_settime(CLOCK_REALTIME): boot moves along on the new scale."""
        step = realtime_ns - self.realtime_ns()
        self.realtime_offset_ns += step
        self.boot_realtime_ns += step

    def load(self, saved: LoadClocks) -> None:
        """Continue from saved times, frozen: monotonic plus the real time that has passed, but never less."""
        self.realtime_offset_ns = saved.realtime_offset_ns
        self.boot_realtime_ns = saved.boot_realtime_ns
        passed_ns = max(0, self.realtime_ns() - saved.realtime_ns)
        if self.mode is ClockMode.RUNNING:
            self.freeze()
        self.frozen_at_ns = saved.monotonic_ns + passed_ns

    def state(self) -> ClockState:
        """Return the times as of now."""
        return ClockState(
            monotonic_ns=self.monotonic_ns(),
            realtime_ns=self.realtime_ns(),
            boot_realtime_ns=self.boot_realtime_ns,
            realtime_offset_ns=self.realtime_offset_ns,
        )

    def parameters(self) -> ClockParameters:
        """Return what a worker needs in order to read the clocks by itself."""
        return ClockParameters(
            monotonic_offset_ns=self.monotonic_offset_ns,
            realtime_offset_ns=self.realtime_offset_ns,
            frozen_at_ns=self.frozen_at_ns,
        )

    def check(self) -> None:
        """Assert the invariants."""
        assert (self.frozen_at_ns is not None) == (self.mode is ClockMode.FROZEN), "only frozen clocks stand at a time"
        assert self.monotonic_ns() >= 0, "monotonic time starts at 0"
