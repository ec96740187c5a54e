"""Alarms: expiries on the guest's clocks, with a callback when they have come.

Linux counterpart: hrtimers and alarmtimer (kernel/time/hrtimer.c).  An alarm is one-shot: a periodic one is set forward
by whoever looks at it (a signal that is taken, a descriptor that is read), so that a short interval costs nothing while
nobody looks.  Expiries are times of the guest's own clocks: a pause stops them, a save keeps them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import guest_clocks

if TYPE_CHECKING:
    from collections.abc import Callable

    from .guest_clocks import ClockKey
    from .worker import Worker

__all__ = ["Alarm", "clock_changed"]


class Alarm:
    """An expiry on one of the guest's clocks, with a callback when it has come, and the interval to the next."""

    __slots__ = ("_due", "_timer", "clock_jumped", "expiry_ns", "interval_ns", "key", "worker")

    def __init__(self, worker: Worker, key: ClockKey, due: Callable[[], None]) -> None:
        self.worker = worker
        self.key = key
        self._due = due
        self._timer: Any = None
        #: Time of the clock, None when the alarm is not set. It stays at the past expiry until ``forward``.
        self.expiry_ns: int | None = None
        self.interval_ns = 0
        #: Called when the realtime clock was set while the alarm is, if somebody cares.
        self.clock_jumped: Callable[[], None] | None = None

    def now(self) -> int:
        """Return the clock's time in ns."""
        return guest_clocks.read(self.worker, self.key)

    def set(self, expiry_ns: int | None, interval_ns: int) -> None:
        """Set to an absolute time of the clock, or (None) unset."""
        self.expiry_ns, self.interval_ns = expiry_ns, interval_ns
        self.arm()

    def get(self) -> tuple[int, int]:
        """Return (ns to the next expiry, interval); (0, interval) when unset or past and not periodic."""
        if self.expiry_ns is None:
            return 0, self.interval_ns
        left = self.expiry_ns - self.now()
        if left <= 0 and self.interval_ns:
            left %= self.interval_ns
            left = left or self.interval_ns
        return max(left, 0), self.interval_ns

    def missed(self) -> int:
        """Return how often it has expired and was not set forward yet."""
        if self.expiry_ns is None:
            return 0
        late = self.now() - self.expiry_ns
        if late < 0:
            return 0
        return 1 + (late // self.interval_ns if self.interval_ns else 0)

    def forward(self, least_ns: int = 0) -> int:
        """Set a periodic alarm to its next expiry, a one-shot one off; return how many have passed."""
        count = self.missed()
        if not count:
            return 0
        if not self.interval_ns:
            self.set(None, 0)
            return count
        assert self.expiry_ns is not None
        count = max(count, -(-least_ns // self.interval_ns))
        self.set(self.expiry_ns + count * self.interval_ns, self.interval_ns)
        return count

    def arm(self) -> None:
        """Have the loop call back; again after the clock has changed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        alarms = self.worker.alarms
        if self.expiry_ns is None:
            alarms.pop(self, None)
            return
        alarms[self] = None
        # Time that stands still needs no timer: ``clock_changed`` arms it when time goes on.
        if not self.worker.clock.frozen:
            deadline = guest_clocks.to_monotonic(self.worker, self.key, self.expiry_ns)
            self._timer = self.worker.call_at(deadline, self._called)

    def _called(self) -> None:
        self._timer = None
        if self.worker.clock.frozen or self.expiry_ns is None:
            return
        if self.now() < self.expiry_ns:
            self.arm()
            return
        self.worker.alarms.pop(self, None)
        self._due()

    def state(self) -> dict[str, Any]:
        """Return plain data for a save."""
        return {"key": tuple(self.key), "expiry_ns": self.expiry_ns, "interval_ns": self.interval_ns}


def clock_changed(worker: Worker) -> None:
    """Timekeeper has spoken: time goes on, stands still, or the realtime clock has jumped."""
    for alarm in list(worker.alarms):
        alarm.arm()
        if alarm.clock_jumped is not None and not worker.clock.frozen:
            alarm.clock_jumped()
    worker.wake(("clock",))
