"""Scheduling: affinity, policies, nice values and I/O priorities, kept and reported but not acted upon.

Linux counterpart: kernel/sched/syscalls.c, kernel/sys.c (priorities), block/ioprio.c.  Threads of other processes are
reached when they live on this worker; else the answer is ESRCH.
"""

from __future__ import annotations

import struct
from errno import E2BIG, EACCES, EINVAL, EPERM, ESRCH
from typing import TYPE_CHECKING, Final

from .credentials import CAP_SYS_ADMIN, CAP_SYS_NICE
from .limits import Resource
from .scheduling import Scheduling
from .table import S32, U32, Address, syscall

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .task import Task

__all__ = ["affinity_of"]

_OTHER, _FIFO, _RR, _BATCH, _IDLE, _DEADLINE = 0, 1, 2, 3, 5, 6
_POLICIES: Final = (_OTHER, _FIFO, _RR, _BATCH, _IDLE)
_REALTIME: Final = (_FIFO, _RR)
_RESET_ON_FORK: Final = 0x4000_0000
#: SCHED_FLAG_RESET_ON_FORK, SCHED_FLAG_KEEP_POLICY, SCHED_FLAG_KEEP_PARAMS.
_ATTR_RESET, _ATTR_KEEP_POLICY, _ATTR_KEEP_PARAMS = 1, 8, 0x10
_MAX_REALTIME_PRIORITY: Final = 99
#: struct sched_attr: size policy flags nice priority runtime deadline period util_min util_max.
_ATTR: Final = struct.Struct("<IIQiIQQQII")
_ATTR_MIN_BYTES: Final = 48
_PAGE_BYTES: Final = 4096
#: SCHED_RR's slice, and the base slice that sched_getattr(2) shows for SCHED_OTHER.
_RR_SLICE_NS: Final = 100_000_000
_FAIR_SLICE_NS: Final = 1_400_000
#: Process id of init.
_INIT: Final = 1
_PRIO_PROCESS, _PRIO_PGRP, _PRIO_USER = 0, 1, 2


def _find(task: Task, tid: int) -> Task:
    """Return the thread *tid* (0: the caller). ESRCH when it is not on this worker."""
    if tid in (0, task.tid):
        return task
    for group in task.worker.groups.values():
        found = group.tasks.get(tid)
        if found is not None:
            return found
    raise OSError(ESRCH, "")


def _settings(task: Task, tid: int) -> Scheduling:
    """Return the settings of the thread *tid*, to be read. Init has no thread, so nobody changes its own. ESRCH."""
    return Scheduling() if tid == _INIT else _find(task, tid).scheduling


def _check_owner(task: Task, target: Task) -> None:
    """EPERM unless the caller's effective uid is one of the target's, or it has CAP_SYS_NICE."""
    mine, theirs = task.group.credentials, target.group.credentials
    if mine.euid not in (theirs.euid, theirs.ruid) and not mine.has(CAP_SYS_NICE):
        raise OSError(EPERM, "")


# -- CPUs -------------------------------------------------------------------------------------------------------


def affinity_of(task: Task, settings: Scheduling | None = None) -> int:
    """Return the CPUs on which *task*, or another thread with *settings*, may run as a bit mask."""
    return (settings or task.scheduling).cpus or (1 << task.worker.application_cores) - 1


@syscall(203, partial="kept and reported; the host chooses the CPU")
def sched_setaffinity(task: Task, tid: S32, size: U32, mask: Address) -> int:
    """sched_setaffinity(2): the CPUs that a thread may use. EFAULT, EINVAL for no CPU that exists, EPERM, ESRCH."""
    shown = (1 << task.worker.application_cores) - 1
    wanted = int.from_bytes(task.memory.read(mask, min(size, 128)), "little") & shown if size else 0
    target = _find(task, tid)
    _check_owner(task, target)
    if not wanted:
        raise OSError(EINVAL, "")
    target.scheduling.cpus = 0 if wanted == shown else wanted
    return 0


@syscall(204)
def sched_getaffinity(task: Task, tid: S32, size: U32, mask: Address) -> int:
    """sched_getaffinity(2): the CPUs that a thread may use. EFAULT, EINVAL for a short or odd size, ESRCH."""
    if size * 8 < task.worker.application_cores or size & 7:
        raise OSError(EINVAL, "")
    # Linux copies the kernel's whole mask, whose length is its number of possible CPUs rounded up to a long.
    length = min(size, (task.worker.application_cores + 63) // 64 * 8)
    task.memory.write(mask, affinity_of(task, _settings(task, tid)).to_bytes(length, "little"))
    return length


@syscall(309)
def getcpu(task: Task, cpu: Address, node: Address, _cache: Address) -> int:
    """getcpu(2): a CPU that the caller may use, and node 0. EFAULT."""
    mask = affinity_of(task)
    for address, value in ((cpu, (mask & -mask).bit_length() - 1), (node, 0)):
        if address:
            task.memory.write(address, struct.pack("<I", value))
    return 0


@syscall(24)
def sched_yield(_task: Task) -> int:
    """sched_yield(2): the way back to user mode yields. Never fails."""
    return 0


# -- policies ---------------------------------------------------------------------------------------------------


def _check_policy(policy: int, priority: int) -> None:
    if policy not in _POLICIES or priority < 0 or priority > _MAX_REALTIME_PRIORITY:
        raise OSError(EINVAL, "")
    if (priority != 0) != (policy in _REALTIME):
        raise OSError(EINVAL, "")


def _set_policy(task: Task, target: Task, policy: int, priority: int) -> None:
    """Change policy and priority together. EINVAL, EPERM."""
    _check_policy(policy, priority)
    _check_owner(task, target)
    allowed = target.group.limits.soft(Resource.RTPRIO)
    current = target.scheduling
    raises = policy in _REALTIME and (policy != current.policy or priority > current.priority)
    if raises and priority > allowed and not task.group.credentials.has(CAP_SYS_NICE):
        raise OSError(EPERM, "")
    current.policy, current.priority = policy, priority


@syscall(142, partial="kept and reported; the host schedules")
def sched_setparam(task: Task, tid: S32, param: Address) -> int:
    """sched_setparam(2): the real-time priority. EFAULT, EINVAL, EPERM, ESRCH."""
    _check_pointer(tid, param)
    (priority,) = struct.unpack("<i", task.memory.read(param, 4))
    target = _find(task, tid)
    _set_policy(task, target, target.scheduling.policy, priority)
    return 0


def _check_pointer(tid: int, pointer: int) -> None:
    if tid < 0 or not pointer:
        raise OSError(EINVAL, "")


@syscall(143)
def sched_getparam(task: Task, tid: S32, param: Address) -> int:
    """sched_getparam(2): the real-time priority. EFAULT, EINVAL, ESRCH."""
    _check_pointer(tid, param)
    task.memory.write(param, struct.pack("<i", _settings(task, tid).priority))
    return 0


@syscall(144, partial="kept and reported; the host schedules")
def sched_setscheduler(task: Task, tid: S32, policy: S32, param: Address) -> int:
    """sched_setscheduler(2): policy and real-time priority. EFAULT, EINVAL, EPERM, ESRCH."""
    _check_pointer(tid, param)
    if policy < 0:
        raise OSError(EINVAL, "")
    (priority,) = struct.unpack("<i", task.memory.read(param, 4))
    target = _find(task, tid)
    _set_policy(task, target, policy & ~_RESET_ON_FORK, priority)
    target.scheduling.reset_on_fork = bool(policy & _RESET_ON_FORK)
    return 0


@syscall(145)
def sched_getscheduler(task: Task, tid: S32) -> int:
    """sched_getscheduler(2): the policy. EINVAL, ESRCH."""
    if tid < 0:
        raise OSError(EINVAL, "")
    scheduling = _settings(task, tid)
    return scheduling.policy | (_RESET_ON_FORK if scheduling.reset_on_fork else 0)


@syscall(146)
def sched_get_priority_max(_task: Task, policy: S32) -> int:
    """sched_get_priority_max(2): 99 for real-time policies, else 0. EINVAL."""
    return _priority_bound(policy, _MAX_REALTIME_PRIORITY)


@syscall(147)
def sched_get_priority_min(_task: Task, policy: S32) -> int:
    """sched_get_priority_min(2): 1 for real-time policies, else 0. EINVAL."""
    return _priority_bound(policy, 1)


def _priority_bound(policy: int, realtime: int) -> int:
    if policy != _DEADLINE and policy not in _POLICIES:
        raise OSError(EINVAL, "")
    return realtime if policy in _REALTIME else 0


@syscall(148)
def sched_rr_get_interval(task: Task, tid: S32, interval: Address) -> int:
    """sched_rr_get_interval(2): the length of a time slice. EFAULT, EINVAL, ESRCH."""
    if tid < 0:
        raise OSError(EINVAL, "")
    ns = _RR_SLICE_NS if _settings(task, tid).policy == _RR else 0
    task.memory.write(interval, struct.pack("<qq", *divmod(ns, 10**9)))
    return 0


@syscall(314, partial="SCHED_DEADLINE and utilisation clamps are refused with EINVAL")
def sched_setattr(task: Task, tid: S32, attr: Address, flags: U32) -> int:
    """sched_setattr(2): policy, nice value and priority together. E2BIG, EFAULT, EINVAL, EPERM, ESRCH."""
    _check_pointer(tid, attr)
    if flags:
        raise OSError(EINVAL, "")
    _, policy, attr_flags, nice, priority, *_ = _read_attr(task, attr)
    if attr_flags & ~(_ATTR_RESET | _ATTR_KEEP_POLICY | _ATTR_KEEP_PARAMS):
        raise OSError(EINVAL, "")
    target = _find(task, tid)
    current = target.scheduling
    if attr_flags & _ATTR_KEEP_POLICY:
        policy = current.policy
    if attr_flags & _ATTR_KEEP_PARAMS:
        priority, nice = current.priority, current.nice
    _set_policy(task, target, policy, priority)
    if policy in (_OTHER, _BATCH):
        _set_nice(task, target, nice)
    current.reset_on_fork = bool(attr_flags & _ATTR_RESET)
    return 0


def _read_attr(task: Task, attr: int) -> tuple[int, ...]:
    """Copy a struct sched_attr whose first field is its size (0: the first version's)."""
    (size,) = struct.unpack("<I", task.memory.read(attr, 4))
    size = size or _ATTR_MIN_BYTES
    if not _ATTR_MIN_BYTES <= size <= _PAGE_BYTES:
        task.memory.write(attr, struct.pack("<I", _ATTR.size))
        raise OSError(E2BIG, "")
    data = task.memory.read(attr, size)
    if any(data[_ATTR.size :]):
        task.memory.write(attr, struct.pack("<I", _ATTR.size))
        raise OSError(E2BIG, "")
    return _ATTR.unpack(data[: _ATTR.size].ljust(_ATTR.size, b"\0"))


@syscall(315)
def sched_getattr(task: Task, tid: S32, attr: Address, size: U32, flags: U32) -> int:
    """sched_getattr(2): policy, nice value and priority together. EFAULT, EINVAL, ESRCH."""
    _check_pointer(tid, attr)
    if flags or not _ATTR_MIN_BYTES <= size <= _PAGE_BYTES:
        raise OSError(EINVAL, "")
    current = _settings(task, tid)
    length = min(size, _ATTR.size)
    fair = current.policy in (_OTHER, _BATCH)
    data = _ATTR.pack(
        length,
        current.policy,
        _ATTR_RESET if current.reset_on_fork else 0,
        current.nice if fair else 0,
        current.priority,
        _FAIR_SLICE_NS if fair else 0,
        0,
        0,
        0,
        0,
    )
    task.memory.write(attr, data[:length])
    return 0


# -- nice values ------------------------------------------------------------------------------------------------


def _targets(task: Task, which: int, who: int) -> Iterator[Task]:
    """Yield the threads that *which* and *who* of getpriority(2) name, as far as this worker has them."""
    if which == _PRIO_PROCESS:
        yield _find(task, who)
        return
    for group in list(task.worker.groups.values()):
        if which == _PRIO_PGRP and group.pgid == (who or task.group.pgid):
            yield from group.tasks.values()
        if which == _PRIO_USER and group.credentials.ruid == (who or task.group.credentials.ruid):
            yield from group.tasks.values()


def _named(task: Task, which: int, who: int) -> list[Task]:
    if which not in (_PRIO_PROCESS, _PRIO_PGRP, _PRIO_USER):
        raise OSError(EINVAL, "")
    found = list(_targets(task, which, who))
    if not found:
        raise OSError(ESRCH, "")
    return found


def _set_nice(task: Task, target: Task, nice: int) -> None:
    """Change one thread's nice value. EACCES to lower it below what RLIMIT_NICE allows, EPERM for others' threads."""
    nice = max(-20, min(19, nice))
    _check_owner(task, target)
    allowed = 20 - target.group.limits.soft(Resource.NICE)
    if nice < min(target.scheduling.nice, allowed) and not task.group.credentials.has(CAP_SYS_NICE):
        raise OSError(EACCES, "")
    target.scheduling.nice = nice


@syscall(140, partial="others' threads are reached when they live on the same worker")
def getpriority(task: Task, which: S32, who: S32) -> int:
    """getpriority(2): 20 minus the lowest nice value of the named threads. EINVAL, ESRCH."""
    if which == _PRIO_PROCESS:
        return 20 - _settings(task, who).nice
    return 20 - min(t.scheduling.nice for t in _named(task, which, who))


@syscall(141, partial="kept and reported; others' threads are reached when they live on the same worker")
def setpriority(task: Task, which: S32, who: S32, nice: S32) -> int:
    """setpriority(2): the nice value of the named threads. EACCES, EINVAL, EPERM, ESRCH."""
    for target in _named(task, which, who):
        _set_nice(task, target, nice)
    return 0


# -- I/O priorities ---------------------------------------------------------------------------------------------

_IO_NONE, _IO_REALTIME, _IO_BEST_EFFORT, _IO_IDLE = range(4)
_IO_LEVELS: Final = 8


def _io_which(task: Task, which: int, who: int) -> list[Task]:
    """ioprio_get(2)'s *which* counts from 1."""
    return _named(task, which - 1, who)


@syscall(251, partial="kept and reported; others' threads are reached when they live on the same worker")
def ioprio_set(task: Task, which: S32, who: S32, priority: S32) -> int:
    """ioprio_set(2): the I/O class and level of the named threads. EINVAL, EPERM, ESRCH."""
    io_class, level = priority >> 13 & 7, priority & 7
    if io_class > _IO_IDLE or priority < 0 or (io_class == _IO_NONE and level):
        raise OSError(EINVAL, "")
    if io_class == _IO_REALTIME and not task.group.credentials.has(CAP_SYS_ADMIN):
        raise OSError(EPERM, "")
    for target in _io_which(task, which, who):
        _check_owner(task, target)
        target.scheduling.io_priority = priority
    return 0


@syscall(252, partial="others' threads are reached when they live on the same worker")
def ioprio_get(task: Task, which: S32, who: S32) -> int:
    """ioprio_get(2): the highest I/O priority of the named threads. EINVAL, ESRCH."""
    return max((t.scheduling.io_priority for t in _io_which(task, which, who)), key=_io_rank)


def _io_rank(priority: int) -> tuple[int, int]:
    """Order I/O priorities as ioprio_best does: the lower class wins, then the lower level; unset is best effort, 4."""
    io_class, level = priority >> 13, priority & (_IO_LEVELS - 1)
    return (-_IO_BEST_EFFORT, -4) if io_class == _IO_NONE else (-io_class, -level)
