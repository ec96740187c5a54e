"""Waiting for children, resource limits and usage, and prctl.

Linux counterpart: kernel/exit.c (wait), kernel/sys.c (limits, usage, prctl).
"""

from __future__ import annotations

import os
import struct
from errno import EAGAIN, EINVAL, EPERM, ESRCH
from typing import TYPE_CHECKING, Final

from ...messages.task_set import CommandChanged, Subreaper, Wait
from . import signals
from .credentials import CAP_SETPCAP, CAP_SYS_RESOURCE, SECURE_KEEP_CAPS, SECURE_NO_AMBIENT_RAISE
from .limits import Resource
from .pid_file import pid_file_of
from .table import S32, U32, U64, Address, syscall
from .task import ERESTARTSYS, Petition, Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from .actor import ThreadGroup

__all__ = ["rusage"]

_P_ALL, _P_PID, _P_PGID, _P_PIDFD = 0, 1, 2, 3


class W:
    """W* of wait4(2) and waitid(2): plain integers, see ``sys_clone.CLONE``."""

    NOHANG: Final = 1
    UNTRACED: Final = 2
    EXITED: Final = 4
    CONTINUED: Final = 8
    NOWAIT: Final = 0x0100_0000
    NOTHREAD: Final = 0x2000_0000
    ALL: Final = 0x4000_0000
    CLONE: Final = 0x8000_0000


_WAIT4_OPTIONS: Final = W.NOHANG | W.UNTRACED | W.CONTINUED | W.NOTHREAD | W.ALL | W.CLONE
_WAITID_OPTIONS: Final = _WAIT4_OPTIONS | W.EXITED | W.NOWAIT
_EINTR: Final = 4


def _wait(task: Task, id_type: int, number: int, options: int) -> tuple[int, tuple[int, ...]] | Petition | int:
    """Petition for a child; later return (pid, Answer.extra), or ERESTARTSYS when a signal came first."""
    answer, task.answer = task.answer, None
    if answer is None:
        return Petition(Wait, {"id_type": id_type, "id": number, "options": options}, interruptible=True)
    if answer.errno == _EINTR:
        return ERESTARTSYS
    if answer.errno:
        raise OSError(answer.errno, "")
    if answer.value and not options & W.NOWAIT:
        _add_child_times(task.group, answer.extra)
    return answer.value, answer.extra


def _add_child_times(group: ThreadGroup, extra: tuple[int, ...]) -> None:
    _status, _uid, user_ns, system_ns, max_rss_kib, code = extra
    if code in (signals.CLD_EXITED, signals.CLD_KILLED, signals.CLD_DUMPED):
        group.times.children_user_ns += user_ns
        group.times.children_system_ns += system_ns
        group.times.children_max_rss_kib = max(group.times.children_max_rss_kib, max_rss_kib)


@syscall(61)
def wait4(task: Task, pid: S32, status: Address, options: U32, usage: Address) -> object:
    """wait4(2): wait for a child's change of state. ECHILD, EINVAL, EFAULT, EINTR, ESRCH for INT_MIN."""
    if options & ~_WAIT4_OPTIONS:
        raise OSError(EINVAL, "")
    if pid == -(1 << 31):
        raise OSError(ESRCH, "")
    if pid == 0 or pid < -1:
        id_type, number = _P_PGID, -pid or task.group.pgid
    else:
        id_type, number = (_P_ALL, 0) if pid == -1 else (_P_PID, pid)
    found = _wait(task, id_type, number, options | W.EXITED)
    if not isinstance(found, tuple):
        return found
    child, extra = found
    if child:
        if status:
            task.memory.write(status, struct.pack("<I", extra[0]))
        if usage:
            task.memory.write(usage, rusage(extra[2], extra[3], extra[4]))
    return child


@syscall(247)
def waitid(task: Task, id_type: S32, number: S32, info: Address, options: U32, usage: Address) -> object:
    """waitid(2): wait for a child's change of state. EAGAIN (O_NONBLOCK), EBADF, ECHILD, EFAULT, EINTR, EINVAL."""
    if options & ~_WAITID_OPTIONS or not options & (W.EXITED | W.UNTRACED | W.CONTINUED):
        raise OSError(EINVAL, "")
    polls = task.memo.get("nonblocking_pidfd", False)
    if task.answer is None:
        number, nonblocking = _waited_for(task, id_type, number)
        polls = task.memo["nonblocking_pidfd"] = nonblocking and not options & W.NOHANG
    found = _wait(task, id_type, number, options | W.NOHANG if polls else options)
    if not isinstance(found, tuple):
        return found
    child, extra = found
    if polls and not child:
        raise BlockingIOError(EAGAIN, "")
    if child and usage:
        task.memory.write(usage, rusage(extra[2], extra[3], extra[4]))
    if info:
        task.memory.write(info, _child_info(child, extra))
    return 0


def _waited_for(task: Task, id_type: int, number: int) -> tuple[int, bool]:
    """Return the id that TaskSet knows, and whether it is a pidfd with O_NONBLOCK. EBADF, EINVAL."""
    if id_type not in (_P_ALL, _P_PID, _P_PGID, _P_PIDFD) or (id_type == _P_PID and number <= 0):
        raise OSError(EINVAL, "")
    if id_type in (_P_PGID, _P_PIDFD) and number < 0:
        raise OSError(EINVAL, "")
    if id_type == _P_PIDFD:
        file = pid_file_of(task, number)
        return file.serial, bool(file.flags & os.O_NONBLOCK)
    return number or (task.group.pgid if id_type == _P_PGID else 0), False


def _child_info(pid: int, extra: tuple[int, ...]) -> bytes:
    """siginfo_t as waitid fills it: zeros when there was no child to report (WNOHANG)."""
    if not pid:
        return struct.pack("<iiiiIIi", 0, 0, 0, 0, 0, 0, 0)
    status, uid, _user, _system, _rss, code = extra
    if code == signals.CLD_EXITED:
        shown = status >> 8 & 0xFF
    elif code in (signals.CLD_KILLED, signals.CLD_DUMPED):
        shown = status & 0x7F
    else:
        shown = signals.SIGCONT if code == signals.CLD_CONTINUED else status >> 8 & 0xFF
    return struct.pack("<iiiiIIi", signals.SIGCHLD, 0, code, 0, pid, uid, shown)


# -- usage --------------------------------------------------------------------------------------------------------


def rusage(user_ns: int, system_ns: int, max_rss_kib: int) -> bytes:
    """Return struct rusage (144 bytes); what greenroom does not count is zero, as Linux's unmaintained fields are."""
    times = (*divmod(user_ns // 1000, 1_000_000), *divmod(system_ns // 1000, 1_000_000))
    return struct.pack("<4q14q", *times, max_rss_kib, *([0] * 13))


def live_times_ns(group: ThreadGroup) -> tuple[int, int]:
    """Return (user, system) CPU time in ns of a process: its live threads and its dead ones."""
    user_ns, system_ns = group.times.dead_user_ns, group.times.dead_system_ns
    for task in group.tasks.values():
        user, system = group.worker.cpu_times_ns(task)
        user_ns += user
        system_ns += system
    return user_ns, system_ns


@syscall(98, partial="only CPU times and the peak resident set are counted")
def getrusage(task: Task, who: S32, usage: Address) -> int:
    """getrusage(2): resources that the process, its children or the thread used. EFAULT, EINVAL."""
    times = task.group.times
    if who in (0, 1):
        task.worker.note_resident(task)
    if who == 0:
        data = rusage(*live_times_ns(task.group), task.group.memory.max_rss_kib)
    elif who == -1:
        data = rusage(times.children_user_ns, times.children_system_ns, times.children_max_rss_kib)
    elif who == 1:
        data = rusage(*task.worker.cpu_times_ns(task), task.group.memory.max_rss_kib)
    else:
        raise OSError(EINVAL, "")
    task.memory.write(usage, data)
    return 0


# -- limits -------------------------------------------------------------------------------------------------------

_LIMIT: Final = struct.Struct("<QQ")


def _resource(number: int) -> Resource:
    try:
        return Resource(number)
    except ValueError:
        raise OSError(EINVAL, "no such resource") from None


def _set_limit(group: ThreadGroup, resource: Resource, soft: int, hard: int) -> None:
    if soft > hard:
        raise OSError(EINVAL, "soft limit above the hard one")
    if hard > group.limits.get(resource)[1] and not group.credentials.has(CAP_SYS_RESOURCE):
        raise OSError(EPERM, "")
    if resource is Resource.NOFILE and hard > 1 << 20:
        raise OSError(EPERM, "above fs.nr_open")
    group.limits.set(resource, soft, hard)


@syscall(97)
def getrlimit(task: Task, resource: U32, limit: Address) -> int:
    """getrlimit(2): soft and hard limit. EFAULT, EINVAL."""
    task.memory.write(limit, _LIMIT.pack(*task.group.limits.get(_resource(resource))))
    return 0


@syscall(160)
def setrlimit(task: Task, resource: U32, limit: Address) -> int:
    """setrlimit(2): set soft and hard limit. EFAULT, EINVAL, EPERM."""
    _set_limit(task.group, _resource(resource), *_LIMIT.unpack(task.memory.read(limit, _LIMIT.size)))
    return 0


@syscall(302, partial="other processes: those of the same worker, for root or the same user")
def prlimit64(task: Task, pid: S32, resource: U32, new: Address, old: Address) -> int:
    """prlimit(2): get and set a limit of a process. EFAULT, EINVAL, EPERM, ESRCH."""
    group = _target_of_prlimit(task, pid)
    kind = _resource(resource)
    wanted = _LIMIT.unpack(task.memory.read(new, _LIMIT.size)) if new else None
    before = group.limits.get(kind)
    if wanted is not None:
        _set_limit(group, kind, *wanted)
    if old:
        task.memory.write(old, _LIMIT.pack(*before))
    return 0


def _target_of_prlimit(task: Task, pid: int) -> ThreadGroup:
    if pid in (0, task.group.pid):
        return task.group
    group = task.worker.group_of_pid(pid)
    if group is None:
        raise OSError(ESRCH, "")
    mine, theirs = task.group.credentials, group.credentials
    same_user = {theirs.ruid, theirs.euid, theirs.suid} == {mine.ruid}
    same_group = {theirs.rgid, theirs.egid, theirs.sgid} == {mine.rgid}
    if not (same_user and same_group) and not mine.has(CAP_SYS_RESOURCE):
        raise OSError(EPERM, "")
    return group


# -- prctl --------------------------------------------------------------------------------------------------------

_COMMAND_BYTES: Final = 16
#: Every securebit with its lock, and the locks alone.
_SECURE_KNOWN, _SECURE_LOCKS = 0xFFF, 0xAAA
_AMBIENT_IS_SET, _AMBIENT_RAISE, _AMBIENT_LOWER, _AMBIENT_CLEAR_ALL = 1, 2, 3, 4


def _set_death_signal(task: Task, signo: int, *_: int) -> int:
    if signo > 64:
        raise OSError(EINVAL, "")
    task.group.times.death_signal = signo
    return 0


def _get_death_signal(task: Task, address: int, *_: int) -> int:
    task.memory.write(address, struct.pack("<i", task.group.times.death_signal))
    return 0


def _set_name(task: Task, address: int, *_: int) -> int:
    name = task.memory.read_string(address, _COMMAND_BYTES - 1)[: _COMMAND_BYTES - 1]
    task.command = name.decode("utf-8", "surrogateescape")
    if task.tid == task.group.pid:
        task.group.tell_task_set(CommandChanged(group=task.group.group, command=name.decode("utf-8", "replace")))
    return 0


def _get_name(task: Task, address: int, *_: int) -> int:
    name = task.command.encode("utf-8", "surrogateescape")
    task.memory.write(address, name[: _COMMAND_BYTES - 1].ljust(_COMMAND_BYTES, b"\0"))
    return 0


def _set_subreaper(task: Task, enabled: int, *_: int) -> int:
    task.group.subreaper = bool(enabled)
    task.group.tell_task_set(Subreaper(group=task.group.group, enabled=bool(enabled)))
    return 0


def _get_subreaper(task: Task, address: int, *_: int) -> int:
    task.memory.write(address, struct.pack("<i", task.group.subreaper))
    return 0


def _set_no_new_privs(task: Task, value: int, *rest: int) -> int:
    if value != 1 or any(rest[:3]):
        raise OSError(EINVAL, "")
    task.group.credentials.no_new_privs = True
    return 0


def _get_no_new_privs(task: Task, *rest: int) -> int:
    if any(rest[:4]):
        raise OSError(EINVAL, "")
    return int(task.group.credentials.no_new_privs)


def _set_dumpable(task: Task, value: int, *_: int) -> int:
    if value not in (0, 1):
        raise OSError(EINVAL, "")
    task.group.dumpable = value
    return 0


def _get_dumpable(task: Task, *_: int) -> int:
    return task.group.dumpable


def _capability(task: Task, number: int) -> int:
    if number > 40:
        raise OSError(EINVAL, "")
    return 1 << number


def _read_bounding(task: Task, number: int, *_: int) -> int:
    return int(bool(task.group.credentials.bounding & _capability(task, number)))


def _drop_bounding(task: Task, number: int, *_: int) -> int:
    if not task.group.credentials.has(CAP_SETPCAP):
        raise OSError(EPERM, "")
    task.group.credentials.bounding &= ~_capability(task, number)
    return 0


def _keep_capabilities(task: Task, value: int, *_: int) -> int:
    if value > 1:
        raise OSError(EINVAL, "")
    bits = task.group.credentials.securebits
    if bits & SECURE_KEEP_CAPS << 1:
        raise OSError(EPERM, "locked")
    task.group.credentials.securebits = bits & ~SECURE_KEEP_CAPS | value * SECURE_KEEP_CAPS
    return 0


def _keeps_capabilities(task: Task, *_: int) -> int:
    return int(bool(task.group.credentials.securebits & SECURE_KEEP_CAPS))


def _get_securebits(task: Task, *_: int) -> int:
    return task.group.credentials.securebits


def _set_securebits(task: Task, value: int, *_: int) -> int:
    own = task.group.credentials
    locks = own.securebits & _SECURE_LOCKS
    changes_locked = locks >> 1 & (own.securebits ^ value)
    if changes_locked or locks & ~value or value & ~_SECURE_KNOWN or not own.has(CAP_SETPCAP):
        raise OSError(EPERM, "")
    own.securebits = value
    return 0


def _ambient(task: Task, operation: int, number: int, *rest: int) -> int:
    """PR_CAP_AMBIENT_IS_SET, _RAISE, _LOWER and _CLEAR_ALL."""
    own = task.group.credentials
    if any(rest[:2]) or (operation == _AMBIENT_CLEAR_ALL and number):
        raise OSError(EINVAL, "")
    if operation == _AMBIENT_CLEAR_ALL:
        own.ambient = 0
        return 0
    bit = _capability(task, number)
    if operation == _AMBIENT_IS_SET:
        return int(bool(own.ambient & bit))
    if operation == _AMBIENT_RAISE:
        if not own.permitted & own.inheritable & bit or own.securebits & SECURE_NO_AMBIENT_RAISE:
            raise OSError(EPERM, "")
        own.ambient |= bit
    elif operation == _AMBIENT_LOWER:
        own.ambient &= ~bit
    else:
        raise OSError(EINVAL, "")
    return 0


def _timer_slack(task: Task, *_: int) -> int:
    return 50_000


def _accept(task: Task, *_: int) -> int:
    return 0


def _get_tsc(task: Task, address: int, *_: int) -> int:
    task.memory.write_s32(address, _TSC_ENABLE)
    return 0


def _set_tsc(task: Task, mode: int, *_: int) -> int:
    """PR_SET_TSC: what it is. A SIGSEGV for rdtsc is not to be had, as where there is no TSC."""
    if mode != _TSC_ENABLE:
        raise OSError(EINVAL, "")
    return 0


_TSC_ENABLE: Final = 1
#: PR_* operations that are there; anything else is EINVAL, which is Linux's answer for an unknown one.
_OPERATIONS: dict[int, Callable[..., int]] = {
    1: _set_death_signal,
    2: _get_death_signal,
    3: _get_dumpable,
    4: _set_dumpable,
    7: _keeps_capabilities,
    8: _keep_capabilities,
    15: _set_name,
    16: _get_name,
    23: _read_bounding,
    24: _drop_bounding,
    25: _get_tsc,
    26: _set_tsc,
    27: _get_securebits,
    28: _set_securebits,
    29: _accept,  # PR_SET_TIMERSLACK: timers here are never that exact
    30: _timer_slack,
    36: _set_subreaper,
    37: _get_subreaper,
    38: _set_no_new_privs,
    39: _get_no_new_privs,
    47: _ambient,
}


@syscall(
    157, partial="names, death signal, subreaper, no_new_privs, dumpable, capabilities, securebits, TSC; else EINVAL"
)
def prctl(task: Task, option: S32, a: U64, b: U64, c: U64, d: U64) -> int:
    """prctl(2): operations on the process or thread. EFAULT, EINVAL, EPERM."""
    operation = _OPERATIONS.get(option)
    if operation is None:
        raise OSError(EINVAL, "")
    return operation(task, a, b, c, d)
