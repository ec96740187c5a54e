"""The clocks that a guest can name by a clockid_t: read, resolution, and when a deadline on one is due.

Linux counterpart: kernel/time/posix-timers.c, posix-stubs and posix-cpu-timers.c.  Wall clocks are the worker's
GuestClock; CPU clocks are the host's CPU clocks of the host tasks.
"""

from __future__ import annotations

import enum
from errno import EINVAL
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from .actor import ThreadGroup
    from .task import Task
    from .worker import Worker

__all__ = ["ClockId", "ClockKey", "clock_key", "is_cpu", "is_realtime", "read", "resolution_ns", "to_monotonic"]


class ClockId(enum.IntEnum):
    """CLOCK_* (include/uapi/linux/time.h)."""

    REALTIME = 0
    MONOTONIC = 1
    PROCESS_CPUTIME_ID = 2
    THREAD_CPUTIME_ID = 3
    MONOTONIC_RAW = 4
    REALTIME_COARSE = 5
    MONOTONIC_COARSE = 6
    BOOTTIME = 7
    REALTIME_ALARM = 8
    BOOTTIME_ALARM = 9
    TAI = 11


#: What follows the realtime clock; greenroom's TAI is UTC, as on a machine that nobody told the offset.
_REALTIME: Final = frozenset({ClockId.REALTIME, ClockId.REALTIME_COARSE, ClockId.REALTIME_ALARM, ClockId.TAI})
_CPU: Final = frozenset({ClockId.PROCESS_CPUTIME_ID, ClockId.THREAD_CPUTIME_ID})
#: Bits of a negative clockid_t: which time of the process (SCHED: all of it), and that it is a thread's.
_CPU_CLOCK_MASK: Final = 3
_CPU_SCHED: Final = 2
_CPU_VIRTUAL: Final = 1
_CPU_FD: Final = 3
_CPU_PER_THREAD: Final = 4
#: CPU time is looked at this often at most, in ns, when a deadline on a CPU clock is near.
_CPU_STEP_NS: Final = 4_000_000
_COARSE_NS: Final = 4_000_000


class ClockKey(NamedTuple):
    """Which clock, as plain data: one that all processes share, or the CPU time of one process or thread."""

    #: A ClockId; PROCESS_CPUTIME_ID or THREAD_CPUTIME_ID for CPU clocks.
    clock: int
    #: Serial number of the process and thread id (0: all of the process) of a CPU clock.
    group: int = 0
    tid: int = 0
    #: Only time in user mode (the CPUCLOCK_VIRT kind of a dynamic clock).
    virtual: bool = False


#: The keys of the clocks that all processes share, by their numbers.
_SHARED: Final = {int(clock): ClockKey(clock) for clock in ClockId if clock not in _CPU}


def clock_key(task: Task, number: int) -> ClockKey:
    """Return the clock that *task* means by a clockid_t. EINVAL."""
    shared = _SHARED.get(number)
    if shared is not None:
        return shared
    if number < 0:
        return _dynamic(task, number)
    if number == ClockId.PROCESS_CPUTIME_ID:
        return ClockKey(number, task.group.group)
    if number == ClockId.THREAD_CPUTIME_ID:
        return ClockKey(number, task.group.group, task.tid)
    raise OSError(EINVAL, "no such clock")


def _dynamic(task: Task, number: int) -> ClockKey:
    """A negative id: ~pid << 3 and three bits. Threads must be the caller's own, as on Linux."""
    pid, kind = ~(number >> 3), number & _CPU_CLOCK_MASK
    if kind == _CPU_FD:
        raise OSError(EINVAL, "no clock devices")
    virtual = kind == _CPU_VIRTUAL
    if number & _CPU_PER_THREAD:
        tid = pid or task.tid
        if tid not in task.group.tasks:
            raise OSError(EINVAL, "no such thread")
        return ClockKey(ClockId.THREAD_CPUTIME_ID, task.group.group, tid, virtual)
    group = task.group if pid in (0, task.group.pid) else task.worker.group_of_pid(pid)
    if group is None:
        raise OSError(EINVAL, "no such process")
    return ClockKey(ClockId.PROCESS_CPUTIME_ID, group.group, 0, virtual)


def is_cpu(key: ClockKey) -> bool:
    """Return whether the clock counts CPU time."""
    return key.clock in _CPU


def is_realtime(key: ClockKey) -> bool:
    """Return whether the clock jumps with clock_settime(2)."""
    return key.clock in _REALTIME


def resolution_ns(key: ClockKey) -> int:
    """Return clock_getres(2)'s answer: 1 ns with high resolution timers, a tick for the coarse clocks."""
    return _COARSE_NS if key.clock in (ClockId.REALTIME_COARSE, ClockId.MONOTONIC_COARSE) else 1


def read(worker: Worker, key: ClockKey) -> int:
    """Return the clock's time in ns."""
    if is_realtime(key):
        return worker.clock.realtime_ns()
    if is_cpu(key):
        return _cpu_ns(worker, key)
    return worker.clock.monotonic_ns()


def to_monotonic(worker: Worker, key: ClockKey, time_ns: int) -> int:
    """Return the guest CLOCK_MONOTONIC at which the clock can show *time_ns* at the earliest."""
    if is_realtime(key):
        return time_ns - worker.clock.realtime_offset_ns
    if is_cpu(key):
        group = worker.group(key.group)
        threads = len(group.tasks) if group is not None and not key.tid else 1
        left = max(time_ns - _cpu_ns(worker, key), 0)
        return worker.clock.monotonic_ns() + max(left // max(threads, 1), _CPU_STEP_NS)
    return time_ns


def _cpu_ns(worker: Worker, key: ClockKey) -> int:
    group = worker.group(key.group)
    if group is None:
        return 0
    if key.tid:
        task = group.tasks.get(key.tid)
        return 0 if task is None else _task_ns(worker, task, virtual=key.virtual)
    if key.virtual:
        return _virtual_ns(group)
    return (
        group.times.dead_user_ns
        + group.times.dead_system_ns
        + sum(_task_ns(worker, task, virtual=False) for task in group.tasks.values())
    )


def _virtual_ns(group: ThreadGroup) -> int:
    """Return the process's CPU time in user mode, in ns."""
    return group.times.dead_user_ns + sum(group.worker.cpu_times_ns(task)[0] for task in group.tasks.values())


def _task_ns(worker: Worker, task: Task, *, virtual: bool) -> int:
    if virtual:
        return worker.cpu_times_ns(task)[0]
    try:
        return worker.host.cpu_time_ns(task.host.host_tid)
    except OSError:
        return 0
