"""Timers that run while no task waits for them: interval timers, POSIX timers, and what timerfd builds on.

Linux counterpart: kernel/time/itimer.c, posix-timers.c and hrtimers.  An alarm is one-shot: a periodic timer is set
forward when its signal is taken or its descriptor read, so that a short interval costs nothing while nobody looks.
Expiries are times of the guest's own clocks: a pause stops them, a save keeps them.
"""

from __future__ import annotations

import dataclasses
from errno import EAGAIN, EINVAL
from typing import TYPE_CHECKING, Any, Final

from . import guest_clocks, signal_send
from . import siginfo as si
from .guest_clocks import ClockId, ClockKey
from .limits import Resource
from .siginfo import SIGALRM, SIGPROF, SIGVTALRM

if TYPE_CHECKING:
    from collections.abc import Callable

    from .actor import ThreadGroup
    from .signal_state import Pending
    from .worker import Worker

__all__ = ["Alarm", "GroupTimers", "PosixTimer", "cancel_all", "clock_changed", "drop_posix_timers", "signal_taken"]

ITIMER_REAL: Final = 0
ITIMER_VIRTUAL: Final = 1
ITIMER_PROF: Final = 2
_ITIMER_SIGNALS: Final = (SIGALRM, SIGVTALRM, SIGPROF)
#: What ``Pending.timer`` says of ITIMER_REAL's SIGALRM.
REAL_ITIMER: Final = -2

SIGEV_SIGNAL: Final = 0
SIGEV_NONE: Final = 1
SIGEV_THREAD_ID: Final = 4
#: A periodic timer whose signal is ignored is set forward by at least this, in ns.
_IGNORED_STEP_NS: Final = 10_000_000


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


@dataclasses.dataclass(slots=True)
class PosixTimer:
    """A timer of timer_create(2)."""

    number: int
    notify: int
    signo: int
    value: int
    #: Thread that gets the signal, 0 for the process.
    tid: int
    alarm: Alarm
    #: Expirations that the last signal did not report.
    overrun: int = 0
    #: Its signal is in a queue.
    queued: bool = False

    def state(self) -> dict[str, Any]:
        """Return plain data for a save."""
        names = ("number", "notify", "signo", "value", "tid", "overrun", "queued")
        return {**{name: getattr(self, name) for name in names}, "alarm": self.alarm.state()}


class GroupTimers:
    """The timers of one process: three interval timers, and those of timer_create by number."""

    __slots__ = ("_next", "group", "intervals", "posix")

    def __init__(self, group: ThreadGroup) -> None:
        self.group = group
        self.intervals: dict[int, Alarm] = {}
        self.posix: dict[int, PosixTimer] = {}
        self._next = 0

    def interval(self, which: int) -> Alarm:
        """Return ITIMER_REAL, VIRTUAL or PROF, made when it is first asked for."""
        alarm = self.intervals.get(which)
        if alarm is None:
            cpu = ClockKey(ClockId.PROCESS_CPUTIME_ID, self.group.group, 0, which == ITIMER_VIRTUAL)
            key = ClockKey(ClockId.MONOTONIC) if which == ITIMER_REAL else cpu
            alarm = self.intervals[which] = Alarm(self.group.worker, key, lambda: _interval_due(self.group, which))
        return alarm

    def create(self, key: ClockKey, notify: int, signo: int, value: int | None, tid: int) -> PosixTimer:
        """Make a timer. *value* None stands for the timer's number. EAGAIN beyond RLIMIT_SIGPENDING."""
        if len(self.posix) >= self.group.limits.soft(Resource.SIGPENDING):
            raise OSError(EAGAIN, "RLIMIT_SIGPENDING")
        number = self._next
        self._next += 1
        alarm = Alarm(self.group.worker, key, lambda: _posix_due(self.group, number))
        timer = PosixTimer(number, notify, signo, number if value is None else value, tid, alarm)
        self.posix[number] = timer
        return timer

    def find(self, number: int) -> PosixTimer:
        """Return the timer with that number. EINVAL."""
        timer = self.posix.get(number)
        if timer is None:
            raise OSError(EINVAL, "no such timer")
        return timer

    def delete(self, number: int) -> None:
        """Forget a timer and its queued signal. EINVAL."""
        timer = self.find(number)
        timer.alarm.set(None, 0)
        discard_signal(self.group, timer)
        del self.posix[number]

    def state(self) -> dict[str, Any]:
        """Return plain data for a save."""
        return {
            "intervals": {which: alarm.state() for which, alarm in self.intervals.items()},
            "posix": [timer.state() for timer in self.posix.values()],
            "next": self._next,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Inverse of ``state``, on a fresh object; the clocks stand still meanwhile."""
        for which, saved in state["intervals"].items():
            self.interval(which).set(saved["expiry_ns"], saved["interval_ns"])
        for saved in state["posix"]:
            self._next = saved["number"]
            key = ClockKey(*saved["alarm"]["key"])
            timer = self.create(key, saved["notify"], saved["signo"], saved["value"], saved["tid"])
            timer.overrun, timer.queued = saved["overrun"], saved["queued"]
            # A queued signal sets its timer forward when it is taken; until then the expiry is in the past.
            timer.alarm.expiry_ns, timer.alarm.interval_ns = saved["alarm"]["expiry_ns"], saved["alarm"]["interval_ns"]
            if not timer.queued:
                timer.alarm.arm()
        self._next = state["next"]


def discard_signal(group: ThreadGroup, timer: PosixTimer) -> None:
    """Take the timer's signal out of the queues: it was set anew or deleted."""
    timer.queued = False
    group.signals.pending.discard_timer(timer.number)
    for task in group.tasks.values():
        task.pending.discard_timer(timer.number)


def _interval_due(group: ThreadGroup, which: int) -> None:
    """An interval timer has expired."""
    alarm, signo = group.timers.intervals[which], _ITIMER_SIGNALS[which]
    info = si.kernel_siginfo(signo, si.SI_KERNEL)
    if which != ITIMER_REAL:
        alarm.forward()
        signal_send.send(group, signo, info)
    elif not signal_send.send(group, signo, info, timer=REAL_ITIMER):
        alarm.forward(_IGNORED_STEP_NS)


def _posix_due(group: ThreadGroup, number: int) -> None:
    """A POSIX timer has expired: send its signal; it is set forward when that is taken."""
    timer = group.timers.posix[number]
    if timer.notify == SIGEV_NONE:
        return
    target = group.tasks.get(timer.tid) if timer.tid else None
    if timer.tid and target is None:
        return
    timer.queued = True
    info = si.timer_siginfo(timer.signo, number, 0, timer.value)
    if not signal_send.send(group, timer.signo, info, target, timer=number):
        timer.queued = False
        timer.overrun += timer.alarm.forward(_IGNORED_STEP_NS)


def signal_taken(group: ThreadGroup, taken: Pending) -> Pending:
    """A thread takes a timer's signal: set the timer forward, and say how many expirations the signal stands for."""
    if taken.timer == REAL_ITIMER:
        group.timers.interval(ITIMER_REAL).forward()
        return taken
    timer = group.timers.posix.get(taken.timer)
    if timer is None:
        return taken
    timer.queued = False
    timer.overrun = max(timer.alarm.forward() - 1, 0)
    return taken._replace(siginfo=si.timer_siginfo(taken.signo, timer.number, timer.overrun, timer.value))


def drop_posix_timers(group: ThreadGroup) -> None:
    """execve: timers of timer_create are gone, interval timers stay."""
    for number in list(group.timers.posix):
        group.timers.delete(number)


def cancel_all(group: ThreadGroup) -> None:
    """The process is gone."""
    drop_posix_timers(group)
    for alarm in group.timers.intervals.values():
        alarm.set(None, 0)
