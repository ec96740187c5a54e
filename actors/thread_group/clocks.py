"""The guest's clocks as a worker reads them: the host's clocks and Timekeeper's parameters, with no message.

Linux counterpart: kernel/time/timekeeping.c's read side.  Guests read them by their vDSO, from a page that the worker's
host port keeps up to date: by the same host clocks, and the offsets given to it here.  So both say the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...messages.thread_group import ClockParameters
    from .host import WorkerHost

__all__ = ["GuestClock"]


class GuestClock:
    """Guest CLOCK_MONOTONIC and CLOCK_REALTIME in nanoseconds."""

    def __init__(self, host: WorkerHost) -> None:
        self._host = host
        self._monotonic_offset_ns = 0
        self._realtime_offset_ns = 0
        self._frozen_at_ns: int | None = None
        #: Whether Timekeeper has spoken.
        self._told = False

    def set_parameters(self, parameters: ClockParameters) -> None:
        """Read by *parameters* from now on, and let guests do so.

        Timekeeper reads the host's clock by itself, and this worker may be some ns behind or, rarely, ahead of that.
        Time must not stand still before what a guest has read, nor go on behind where it stood.
        """
        before_ns = self.monotonic_ns() if self._told else None
        self._monotonic_offset_ns = parameters.monotonic_offset_ns
        self._realtime_offset_ns = parameters.realtime_offset_ns
        self._told = True
        if parameters.frozen_at_ns is not None:
            self._frozen_at_ns = parameters.frozen_at_ns + self._host.hide_clocks()
            return
        self._frozen_at_ns = None
        if before_ns is not None:
            self._monotonic_offset_ns += max(before_ns - self.monotonic_ns(), 0)
        self._host.show_clocks(self._monotonic_offset_ns, self._realtime_offset_ns)

    @property
    def frozen(self) -> bool:
        """Whether time stands still, in a pause."""
        return self._frozen_at_ns is not None

    def monotonic_ns(self) -> int:
        """Return guest CLOCK_MONOTONIC, which stands still in a pause."""
        if self._frozen_at_ns is not None:
            return self._frozen_at_ns
        return self._host.monotonic_ns() + self._monotonic_offset_ns

    def realtime_ns(self) -> int:
        """Return guest CLOCK_REALTIME."""
        return self._host.realtime_ns() + self._realtime_offset_ns

    def to_host(self, monotonic_ns: int) -> int:
        """Return the host CLOCK_MONOTONIC at which the guest's will be *monotonic_ns* unless a pause comes between."""
        return monotonic_ns - self._monotonic_offset_ns

    @property
    def realtime_offset_ns(self) -> int:
        """Guest realtime minus guest monotonic, in ns, as of now: turns absolute realtime deadlines into monotonic."""
        return self.realtime_ns() - self.monotonic_ns()
