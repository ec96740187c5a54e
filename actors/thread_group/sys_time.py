"""System calls about time: clocks, sleeping, interval timers and POSIX timers.

Linux counterpart: kernel/time/.  Clocks are read from the worker with no message; setting the realtime clock is told
to Timekeeper.
"""

from __future__ import annotations

import struct
from errno import EINVAL, EOPNOTSUPP, EPERM
from typing import TYPE_CHECKING, Final

from ...messages.timekeeper import SetRealtime
from . import guest_clocks, timers
from . import siginfo as si
from .credentials import CAP_SYS_TIME
from .guest_clocks import ClockId, ClockKey, clock_key
from .sys_process import live_times_ns
from .table import S32, U32, Address, syscall
from .task import ERESTART_RESTARTBLOCK, ERESTARTNOHAND, Block, Task

if TYPE_CHECKING:
    from .alarm import Alarm
    from .timers import PosixTimer

__all__ = [
    "CAP_WAKE_ALARM",
    "monotonic_deadline",
    "pack_itimerspec",
    "pack_timespec",
    "read_itimerspec",
    "read_timespec",
]

_NS: Final = 1_000_000_000
_US: Final = 1_000_000
_NS_PER_TICK: Final = 10_000_000
#: KTIME_MAX: what does not fit in 63 bits of nanoseconds is for ever.
_NEVER_NS: Final = (1 << 63) - 1
_TIMESPEC: Final = struct.Struct("<qq")
_ITIMERSPEC: Final = struct.Struct("<qqqq")
_TIMER_ABSTIME: Final = 1
CAP_WAKE_ALARM: Final = 35
#: Longest that clock_settime waits for Timekeeper to pass the new time on, in ns.
_SETTIME_PATIENCE_NS: Final = _NS

_TIMEX: Final = struct.Struct("<I4xqqqqi4xqqqqqqi4xqqqqqi44x")
_STA_UNSYNC: Final = 0x40
_TIME_ERROR: Final = 5


# -- struct timespec and friends ----------------------------------------------------------------------------------


def _to_ns(seconds: int, nanoseconds: int) -> int:
    if seconds < 0 or not 0 <= nanoseconds < _NS:
        raise OSError(EINVAL, "not a time")
    return min(seconds * _NS + nanoseconds, _NEVER_NS)


def read_timespec(task: Task, address: int) -> int:
    """Return a struct timespec of the guest in ns, at most KTIME_MAX. EFAULT, EINVAL."""
    return _to_ns(*_TIMESPEC.unpack(task.memory.read(address, _TIMESPEC.size)))


def pack_timespec(time_ns: int) -> bytes:
    """Return struct timespec."""
    return _TIMESPEC.pack(*divmod(time_ns, _NS))


def _pack_timeval(time_ns: int) -> bytes:
    seconds, rest = divmod(time_ns, _NS)
    return _TIMESPEC.pack(seconds, rest // 1000)


def read_itimerspec(task: Task, address: int) -> tuple[int, int]:
    """Return (value, interval) of a struct itimerspec in ns. EFAULT, EINVAL."""
    interval_s, interval_ns, value_s, value_ns = _ITIMERSPEC.unpack(task.memory.read(address, _ITIMERSPEC.size))
    return _to_ns(value_s, value_ns), _to_ns(interval_s, interval_ns)


def pack_itimerspec(value_ns: int, interval_ns: int) -> bytes:
    """Return struct itimerspec."""
    return _ITIMERSPEC.pack(*divmod(interval_ns, _NS), *divmod(value_ns, _NS))


def monotonic_deadline(task: Task, timeout_ns: int) -> int:
    """Return the guest CLOCK_MONOTONIC *timeout_ns* from now, at most KTIME_MAX."""
    return min(task.worker.clock.monotonic_ns() + timeout_ns, _NEVER_NS)


# -- reading and setting clocks -----------------------------------------------------------------------------------


@syscall(228)
def clock_gettime(task: Task, clock: S32, address: Address) -> int:
    """clock_gettime(2): read a clock. EFAULT, EINVAL."""
    task.memory.write(address, pack_timespec(guest_clocks.read(task.worker, clock_key(task, clock))))
    return 0


@syscall(229)
def clock_getres(task: Task, clock: S32, address: Address) -> int:
    """clock_getres(2): resolution of a clock. EFAULT, EINVAL."""
    resolution = guest_clocks.resolution_ns(clock_key(task, clock))
    if address:
        task.memory.write(address, pack_timespec(resolution))
    return 0


@syscall(96)
def gettimeofday(task: Task, value: Address, zone: Address) -> int:
    """gettimeofday(2): realtime in microseconds, and a time zone that is always UTC. EFAULT."""
    if value:
        task.memory.write(value, _pack_timeval(task.worker.clock.realtime_ns()))
    if zone:
        task.memory.write(zone, bytes(8))
    return 0


@syscall(201)
def time(task: Task, address: Address) -> int:
    """time(2): realtime in seconds. EFAULT."""
    seconds = task.worker.clock.realtime_ns() // _NS
    if address:
        task.memory.write_s64(address, seconds)
    return seconds


@syscall(227)
def clock_settime(task: Task, clock: S32, address: Address) -> object:
    """clock_settime(2): set the realtime clock. EFAULT, EINVAL, EPERM."""
    if clock != ClockId.REALTIME:
        clock_key(task, clock)
        raise OSError(EINVAL, "this clock cannot be set")
    return _set_realtime(task, read_timespec(task, address))


@syscall(164, partial="the time zone is accepted and forgotten")
def settimeofday(task: Task, value: Address, zone: Address) -> object:
    """settimeofday(2): set the realtime clock. EFAULT, EINVAL, EPERM."""
    if zone:
        task.memory.check_readable(zone, 8)
    if not value:
        return _check_may_set(task)
    seconds, microseconds = _TIMESPEC.unpack(task.memory.read(value, _TIMESPEC.size))
    return _set_realtime(task, _to_ns(seconds, microseconds * 1000))


def _check_may_set(task: Task) -> int:
    if not task.group.credentials.has(CAP_SYS_TIME):
        raise OSError(EPERM, "")
    return 0


def _set_realtime(task: Task, realtime_ns: int) -> object:
    """Tell Timekeeper, and return when this worker reads by the new time: the caller may look at once."""
    if "told" in task.memo:
        return 0
    _check_may_set(task)
    task.memo["told"] = True
    task.group.tell("timekeeper", SetRealtime(realtime_ns=realtime_ns))
    deadline = monotonic_deadline(task, _SETTIME_PATIENCE_NS)
    return Block(channels=(("clock",),), deadline_ns=deadline, uninterruptible=True)


@syscall(159, partial="read-only: EPERM for any mode bit")
def adjtimex(task: Task, address: Address) -> int:
    """adjtimex(2): parameters of the clock discipline, which is the host's. EFAULT, EPERM."""
    (modes,) = struct.unpack("<I", task.memory.read(address, 4))
    if modes:
        raise OSError(EPERM, "")
    seconds, rest = divmod(task.worker.clock.realtime_ns(), _NS)
    timex = (0, 0, 0, 16_000_000, 16_000_000, _STA_UNSYNC, 2, 1, 500 << 16, seconds, rest // 1000, 10_000)
    task.memory.write(address, _TIMEX.pack(*timex, *([0] * 7)))
    return _TIME_ERROR


@syscall(305, partial="read-only: EPERM for any mode bit")
def clock_adjtime(task: Task, clock: S32, address: Address) -> int:
    """clock_adjtime(2): adjtimex of a clock. EFAULT, EINVAL, EOPNOTSUPP, EPERM."""
    if clock != ClockId.REALTIME:
        clock_key(task, clock)
        raise OSError(EOPNOTSUPP, "")
    return adjtimex(task, address)


@syscall(100)
def times(task: Task, address: Address) -> int:
    """times(2): CPU times in clock ticks; the result counts ticks of a steady clock. EFAULT."""
    group = task.group
    if address:
        user, system = live_times_ns(group)
        spans = (user, system, group.times.children_user_ns, group.times.children_system_ns)
        task.memory.write(address, struct.pack("<4q", *(span // _NS_PER_TICK for span in spans)))
    return task.worker.clock.monotonic_ns() // _NS_PER_TICK


# -- sleeping -----------------------------------------------------------------------------------------------------


@syscall(35)
def nanosleep(task: Task, request: Address, remaining: Address) -> object:
    """nanosleep(2): sleep for a time. EFAULT, EINTR, EINVAL."""
    return _sleep_for(task, ClockKey(ClockId.MONOTONIC), request, remaining)


@syscall(230)
def clock_nanosleep(task: Task, clock: S32, flags: S32, request: Address, remaining: Address) -> object:
    """clock_nanosleep(2): sleep for or until a time of a clock. EFAULT, EINTR, EINVAL, EOPNOTSUPP."""
    key = _clock_to_wait_on(task, clock)
    if key.clock == ClockId.THREAD_CPUTIME_ID:
        raise OSError(EINVAL, "a sleeping thread uses no CPU time")
    if flags & _TIMER_ABSTIME:
        return _sleep_until(task, key, read_timespec(task, request))
    return _sleep_for(task, key, request, remaining)


def _clock_to_wait_on(task: Task, clock: int) -> ClockKey:
    """Return a clock that timers run on. EINVAL, EOPNOTSUPP for those that can only be read, EPERM for alarms."""
    key = clock_key(task, clock)
    if key.clock in (ClockId.MONOTONIC_RAW, ClockId.REALTIME_COARSE, ClockId.MONOTONIC_COARSE):
        raise OSError(EOPNOTSUPP, "")
    if key.clock in (ClockId.REALTIME_ALARM, ClockId.BOOTTIME_ALARM) and not task.group.credentials.has(CAP_WAKE_ALARM):
        raise OSError(EPERM, "")
    return key


def _sleep_for(task: Task, key: ClockKey, request: int, remaining: int) -> object:
    """A relative sleep: the realtime clock's jumps do not matter, so it counts on the monotonic one, as on Linux."""
    if not guest_clocks.is_cpu(key):
        key = ClockKey(ClockId.MONOTONIC)
    if "until" not in task.memo:
        task.memo["until"] = min(guest_clocks.read(task.worker, key) + read_timespec(task, request), _NEVER_NS)
    left = task.memo["until"] - guest_clocks.read(task.worker, key)
    if left <= 0:
        return 0
    if task.interrupted:
        if remaining:
            task.memory.write(remaining, pack_timespec(left))
        return ERESTART_RESTARTBLOCK
    return Block(deadline_ns=_wake_at(task, key, task.memo["until"]), recall_on_signal=True)


def _sleep_until(task: Task, key: ClockKey, until_ns: int) -> object:
    """An absolute sleep; one on the realtime clock looks again when that is set."""
    if guest_clocks.read(task.worker, key) >= until_ns:
        return 0
    channels = (("clock",),) if guest_clocks.is_realtime(key) else ()
    return Block(channels=channels, deadline_ns=_wake_at(task, key, until_ns), on_signal=ERESTARTNOHAND)


def _wake_at(task: Task, key: ClockKey, until_ns: int) -> int:
    return min(guest_clocks.to_monotonic(task.worker, key, until_ns), _NEVER_NS)


# -- interval timers ----------------------------------------------------------------------------------------------


def _read_itimerval(task: Task, address: int) -> tuple[int, int]:
    interval_s, interval_us, value_s, value_us = _ITIMERSPEC.unpack(task.memory.read(address, _ITIMERSPEC.size))
    if not (0 <= interval_us < _US and 0 <= value_us < _US):
        raise OSError(EINVAL, "")
    return _to_ns(value_s, value_us * 1000), _to_ns(interval_s, interval_us * 1000)


def _pack_itimerval(value_ns: int, interval_ns: int) -> bytes:
    return _pack_timeval(interval_ns) + _pack_timeval(value_ns)


def _interval_timer(task: Task, which: int) -> Alarm:
    if which not in (timers.ITIMER_REAL, timers.ITIMER_VIRTUAL, timers.ITIMER_PROF):
        raise OSError(EINVAL, "")
    return task.group.timers.interval(which)


@syscall(36)
def getitimer(task: Task, which: S32, address: Address) -> int:
    """getitimer(2): time to the next expiry of an interval timer, and its interval. EFAULT, EINVAL."""
    task.memory.write(address, _shown(_interval_timer(task, which)))
    return 0


def _shown(alarm: Alarm) -> bytes:
    """struct itimerval: a timer that is set never shows zero."""
    left, interval = alarm.get()
    return _pack_itimerval(max(left, 1000) if alarm.expiry_ns is not None else 0, interval)


@syscall(38)
def setitimer(task: Task, which: S32, new: Address, old: Address) -> int:
    """setitimer(2): set an interval timer. EFAULT, EINVAL."""
    value, interval = _read_itimerval(task, new) if new else (0, 0)
    alarm = _interval_timer(task, which)
    before = _shown(alarm)
    _set_relative(alarm, value, interval)
    if old:
        task.memory.write(old, before)
    return 0


def _set_relative(alarm: Alarm, value: int, interval: int) -> None:
    if value:
        alarm.set(min(alarm.now() + value, _NEVER_NS), interval)
    else:
        alarm.set(None, 0)


@syscall(37)
def alarm(task: Task, seconds: U32) -> int:
    """alarm(2): have SIGALRM sent; the seconds that an earlier alarm had left, rounded. Never fails."""
    timer = task.group.timers.interval(timers.ITIMER_REAL)
    left, _interval = timer.get()
    was_set = timer.expiry_ns is not None
    _set_relative(timer, seconds * _NS, 0)
    return max((left + _NS // 2) // _NS, 1) if was_set else 0


# -- POSIX timers -------------------------------------------------------------------------------------------------


@syscall(222)
def timer_create(task: Task, clock: S32, event: Address, created: Address) -> int:
    """timer_create(2): make a timer that sends a signal. EAGAIN, EFAULT, EINVAL, EOPNOTSUPP, EPERM."""
    key = _clock_to_wait_on(task, clock)
    value, signo, notify, tid = _read_sigevent(task, event) if event else (None, si.SIGALRM, timers.SIGEV_SIGNAL, 0)
    timer = task.group.timers.create(key, notify, signo, value, tid)
    try:
        task.memory.write_s32(created, timer.number)
    except OSError:
        task.group.timers.delete(timer.number)
        raise
    return 0


def _read_sigevent(task: Task, address: int) -> tuple[int | None, int, int, int]:
    """Return (value, signal, SIGEV_*, thread) of a struct sigevent. EINVAL."""
    value, signo, notify, tid = struct.unpack("<Qiii44x", task.memory.read(address, 64))
    if notify not in (timers.SIGEV_SIGNAL, timers.SIGEV_NONE, timers.SIGEV_SIGNAL | timers.SIGEV_THREAD_ID):
        raise OSError(EINVAL, "")
    if notify == timers.SIGEV_THREAD_ID and tid not in task.group.tasks:
        raise OSError(EINVAL, "no such thread")
    if notify != timers.SIGEV_NONE and not 1 <= signo <= si.NSIG:
        raise OSError(EINVAL, "no such signal")
    return value, signo, notify, tid if notify == timers.SIGEV_THREAD_ID else 0


@syscall(223)
def timer_settime(task: Task, number: S32, flags: S32, new: Address, old: Address) -> int:
    """timer_settime(2): set or unset a timer. EFAULT, EINVAL."""
    if not new:
        raise OSError(EINVAL, "")
    value, interval = read_itimerspec(task, new)
    timer = task.group.timers.find(number)
    before = _timer_shown(timer)
    timers.discard_signal(task.group, timer)
    timer.overrun = 0
    set_alarm(timer.alarm, value, interval, absolute=bool(flags & _TIMER_ABSTIME))
    if old:
        task.memory.write(old, before)
    return 0


def set_alarm(alarm: Alarm, value: int, interval: int, *, absolute: bool) -> None:
    """Set an alarm as timer_settime(2) and timerfd_settime(2) do: a value of zero unsets it."""
    if absolute and value:
        alarm.set(value, interval)
    else:
        _set_relative(alarm, value, interval)


def _timer_shown(timer: PosixTimer) -> bytes:
    """struct itimerspec: a timer that is set, or about to send its signal, never shows zero."""
    left, interval = timer.alarm.get()
    pending = timer.alarm.expiry_ns is not None and timer.notify != timers.SIGEV_NONE and not timer.queued
    return pack_itimerspec(max(left, 1) if pending else left, interval)


@syscall(224)
def timer_gettime(task: Task, number: S32, address: Address) -> int:
    """timer_gettime(2): time to the next expiry. EFAULT, EINVAL."""
    task.memory.write(address, _timer_shown(task.group.timers.find(number)))
    return 0


@syscall(225)
def timer_getoverrun(task: Task, number: S32) -> int:
    """timer_getoverrun(2): expirations that the last signal stands for beyond one. EINVAL."""
    return min(task.group.timers.find(number).overrun, 0x7FFFFFFF)


@syscall(226)
def timer_delete(task: Task, number: S32) -> int:
    """timer_delete(2): forget a timer. EINVAL."""
    task.group.timers.delete(number)
    return 0
