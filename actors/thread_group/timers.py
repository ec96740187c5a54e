"""Timers that send signals: interval timers and POSIX timers.

Linux counterpart: kernel/time/itimer.c and posix-timers.c.  A periodic timer is set forward when its signal is taken.
"""

from __future__ import annotations

from errno import EAGAIN, EINVAL
from typing import TYPE_CHECKING, Any, Final

from ...messages.base import owned
from . import siginfo as si
from . import signal_send
from .alarm import Alarm
from .guest_clocks import ClockId, ClockKey
from .limits import Resource
from .siginfo import SIGALRM, SIGPROF, SIGVTALRM

if TYPE_CHECKING:
    from .actor import ThreadGroup
    from .signal_state import Pending

__all__ = ["GroupTimers", "PosixTimer", "cancel_all", "drop_posix_timers", "signal_taken"]

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


@owned
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
        """Return ITIMER_REAL, VIRTUAL or PROF, made when it is first asked for.

        VIRTUAL counts all CPU time of the host tasks: what the guest's kernel does is done by the worker, and what
        the host counts as system time there is the cost of stopping for us, which no program expects to pay.
        """
        alarm = self.intervals.get(which)
        if alarm is None:
            cpu = ClockKey(ClockId.PROCESS_CPUTIME_ID, self.group.group)
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
