"""timerfd: a timer as a file, on the guest's own clocks, so that it stops in a pause.

Linux counterpart: fs/timerfd.c.
"""

from __future__ import annotations

import os
from errno import EAGAIN, ECANCELED, EINVAL
from typing import TYPE_CHECKING, Any, ClassVar, Final

from .alarm import Alarm
from .bell import Bell
from .event_file import anonymous_identity
from .open_file import OpenFile

if TYPE_CHECKING:
    from .guest_clocks import ClockKey
    from .task import Task
    from .worker import Worker

__all__ = ["TFD_TIMER_ABSTIME", "TFD_TIMER_CANCEL_ON_SET", "TimerFile"]

TFD_TIMER_ABSTIME: Final = 1
TFD_TIMER_CANCEL_ON_SET: Final = 2
_TICKS_BYTES: Final = 8
_NS: Final = 1_000_000_000


class TimerFile(OpenFile):
    """A timerfd."""

    __slots__ = ("_bell", "alarm", "cancelled", "settings")
    kind: ClassVar[str] = "timerfd"
    pollable: ClassVar[bool] = True
    atomic: ClassVar[bool] = True

    def __init__(self, worker: Worker, key: ClockKey, flags: int) -> None:
        self._bell = Bell(worker.host)
        super().__init__(
            worker, anonymous_identity(worker, b"[timerfd]"), os.O_RDWR | flags & os.O_NONBLOCK, self._bell.fd
        )
        self.alarm = Alarm(worker, key, self._bell.ring)
        #: Flags of the last timerfd_settime(2).
        self.settings = 0
        #: The clock was set while TFD_TIMER_CANCEL_ON_SET is in force: the next read says so.
        self.cancelled = False

    def set(self, value_ns: int, interval_ns: int, settings: int) -> None:
        """Set the timer (0: unset it); expirations that nobody has read are forgotten."""
        self._bell.silence()
        self._apply(settings)
        if not value_ns:
            self.alarm.set(None, 0)
        else:
            start = 0 if settings & TFD_TIMER_ABSTIME else self.alarm.now()
            self.alarm.set(start + value_ns, interval_ns)

    def _apply(self, settings: int) -> None:
        self.settings, self.cancelled = settings, False
        watched = settings & TFD_TIMER_CANCEL_ON_SET and settings & TFD_TIMER_ABSTIME
        self.alarm.clock_jumped = self._clock_jumped if watched else None

    def _clock_jumped(self) -> None:
        self.cancelled = True
        self._bell.ring()

    def pull(self, task: Task, count: int, offset: int | None) -> bytes:
        """Return how often it has expired since the last read. EINVAL for less than 8 bytes, EAGAIN, ECANCELED."""
        if count < _TICKS_BYTES:
            raise OSError(EINVAL, "")
        if self.cancelled:
            self.cancelled = False
            self._bell.silence()
            raise OSError(ECANCELED, "the clock was set")
        ticks = self.alarm.forward()
        self._bell.silence()
        if not ticks:
            raise BlockingIOError(EAGAIN, "")
        return ticks.to_bytes(_TICKS_BYTES, "little")

    def push(self, task: Task, data: bytes, offset: int | None) -> Any:
        """Timers are not written to. EINVAL."""
        raise OSError(EINVAL, "")

    def closing(self) -> None:
        """Stop the timer."""
        self.alarm.set(None, 0)
        self._bell.close()

    def extra_fdinfo(self) -> bytes:
        """Clock, expirations that nobody has read, and settings."""
        left, interval = self.alarm.get()
        return b"clockid: %d\nticks: %d\nsettime flags: %02o\nit_value: (%d, %d)\nit_interval: (%d, %d)\n" % (
            self.alarm.key.clock,
            self.alarm.missed(),
            self.settings,
            *divmod(left, _NS),
            *divmod(interval, _NS),
        )

    def state(self) -> dict[str, Any]:
        """Add the timer."""
        return {
            **super().state(),
            "alarm": self.alarm.state(),
            "settings": self.settings,
            "cancelled": self.cancelled,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Inverse of ``state``, on a fresh timer; the clocks stand still meanwhile."""
        self._apply(state["settings"])
        self.alarm.set(state["alarm"]["expiry_ns"], state["alarm"]["interval_ns"])
        if state["cancelled"]:
            self._clock_jumped()
