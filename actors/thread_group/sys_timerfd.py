"""System calls that make and set timerfds.

Linux counterpart: fs/timerfd.c.
"""

from __future__ import annotations

import os
from errno import EINVAL, EPERM
from typing import Final

from .guest_clocks import ClockId, ClockKey
from .sys_time import CAP_WAKE_ALARM, pack_itimerspec, read_itimerspec
from .table import S32, Address, syscall
from .task import Task
from .timer_file import TFD_TIMER_ABSTIME, TFD_TIMER_CANCEL_ON_SET, TimerFile

__all__: list[str] = []

_ALARM_CLOCKS: Final = frozenset({ClockId.REALTIME_ALARM, ClockId.BOOTTIME_ALARM})
_CLOCKS: Final = frozenset({ClockId.REALTIME, ClockId.MONOTONIC, ClockId.BOOTTIME}) | _ALARM_CLOCKS


@syscall(283)
def timerfd_create(task: Task, clock: S32, flags: S32) -> int:
    """timerfd_create(2): a timer that is read as a file. EINVAL, EMFILE, EPERM for the clocks that wake a machine."""
    if flags & ~(os.O_NONBLOCK | os.O_CLOEXEC) or clock not in _CLOCKS:
        raise OSError(EINVAL, "")
    if clock in _ALARM_CLOCKS and not task.group.credentials.has(CAP_WAKE_ALARM):
        raise OSError(EPERM, "")
    file = TimerFile(task.worker, ClockKey(clock), flags)
    return task.group.files.add(task.group, file, close_on_exec=bool(flags & os.O_CLOEXEC))


def _timer_of(task: Task, fd: int) -> TimerFile:
    file = task.group.files.get(fd)
    if not isinstance(file, TimerFile):
        raise OSError(EINVAL, "no timerfd")
    return file


@syscall(286)
def timerfd_settime(task: Task, fd: S32, flags: S32, new: Address, old: Address) -> int:
    """timerfd_settime(2): set or unset a timer. EBADF, EFAULT, EINVAL."""
    value, interval = read_itimerspec(task, new)
    if flags & ~(TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET):
        raise OSError(EINVAL, "")
    file = _timer_of(task, fd)
    before = pack_itimerspec(*file.alarm.get())
    file.set(value, interval, flags)
    if old:
        task.memory.write(old, before)
    return 0


@syscall(287)
def timerfd_gettime(task: Task, fd: S32, current: Address) -> int:
    """timerfd_gettime(2): time to the next expiry. EBADF, EFAULT, EINVAL."""
    task.memory.write(current, pack_itimerspec(*_timer_of(task, fd).alarm.get()))
    return 0
