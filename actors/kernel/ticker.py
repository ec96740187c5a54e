"""The CPU clock ticker: 100 ticks a second for groups that measure CPU time, and none when there are no such groups.

Linux counterpart: the periodic tick (run_posix_cpu_timers); the reference is kernel.go's runCPUClockTicker.  Tells
``thread_group.CpuTick``; stands in a pause.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ...config.limits import CPU_TICK_HZ
from ...messages.thread_group import CpuTick

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...messages.base import Message
    from ..runtime.loop import Loop, Timer
    from ..timekeeper.host import HostClock

__all__ = ["CpuClockTicker"]

_PERIOD_NS: Final = 1_000_000_000 // CPU_TICK_HZ


class CpuClockTicker:
    """A periodic timer that exists only while someone needs it and nothing is paused."""

    def __init__(self, loop: Loop, host: HostClock, tell: Callable[[str, Message], None]) -> None:
        self._loop = loop
        self._host = host
        self._tell = tell
        self._timer: Timer | None = None
        #: Addresses of the groups that are told.
        self.subscribers: dict[str, None] = {}
        self.held = False
        self.count = 0

    @property
    def running(self) -> bool:
        """Whether the timer exists."""
        return self._timer is not None

    def subscribe(self, address: str, *, needed: bool) -> None:
        """Begin or end telling *address*."""
        if needed:
            self.subscribers[address] = None
        else:
            self.subscribers.pop(address, None)
        self._update()

    def hold(self, *, held: bool) -> None:
        """Stand still (a pause), or go on."""
        self.held = held
        self._update()

    def stop(self) -> None:
        """Forget every subscriber."""
        self.subscribers.clear()
        self._update()

    def _update(self) -> None:
        wanted = bool(self.subscribers) and not self.held
        if wanted and self._timer is None:
            self._arm()
        elif not wanted and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        self._timer = self._loop.call_at(self._host.monotonic_ns() + _PERIOD_NS, self._tick)

    def _tick(self) -> None:
        self.count += 1
        for address in self.subscribers:
            self._tell(address, CpuTick(count=self.count))
        self._arm()
