"""The guest's clocks as file times and /proc show them: the host's, and what Timekeeper told of the difference.

Linux: ktime_get_coarse_real_ts64 for inodes, ktime_get_boottime for /proc/uptime.  The memfds that workers write to are
stamped by the host itself; only names and attributes follow a clock that the guest has set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...messages.thread_group import ClockParameters
    from .host_files import HostFiles

__all__ = ["GuestTime"]


class GuestTime:
    """Guest times in nanoseconds."""

    def __init__(self, host: HostFiles) -> None:
        self._host = host
        self._realtime_offset_ns = 0
        self._monotonic_offset_ns = 0
        self._frozen_at_ns: int | None = None

    def set_parameters(self, parameters: ClockParameters) -> None:
        """Timekeeper has spoken."""
        self._realtime_offset_ns = parameters.realtime_offset_ns
        self._monotonic_offset_ns = parameters.monotonic_offset_ns
        self._frozen_at_ns = parameters.frozen_at_ns

    def now_ns(self) -> int:
        """Return the time of a change."""
        return self._host.now_ns() + self._realtime_offset_ns

    def uptime_ns(self) -> int:
        """Return the time since the sandbox began, which stands still in a pause."""
        if self._frozen_at_ns is not None:
            return self._frozen_at_ns
        return self._host.monotonic_ns() + self._monotonic_offset_ns
