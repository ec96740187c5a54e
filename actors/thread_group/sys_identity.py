"""Who a process is: process, thread, group and session ids, user and group ids.

Linux counterpart: kernel/sys.c and kernel/groups.c.  Ids of the own process are answered here with no message; what
concerns other processes, or changes the tree, is a petition to TaskSet.
"""

from __future__ import annotations

import struct
from errno import EINVAL, EPERM, ESRCH
from typing import TYPE_CHECKING, Final

from ...messages.task_set import CredentialsChanged, JobControl
from .credentials import CAP_SETGID, CAP_SETUID
from .table import S32, U32, Address, syscall
from .task import Petition, Task

if TYPE_CHECKING:
    from .credentials import Credentials

__all__ = ["tell_credentials"]

_NOBODY: Final = 0xFFFFFFFF  # -1: leave as it is
_MAX_GROUPS: Final = 65536


@syscall(39)
def getpid(task: Task) -> int:
    """getpid(2): the process id. Never fails."""
    return task.group.pid


@syscall(186)
def gettid(task: Task) -> int:
    """gettid(2): the thread id. Never fails."""
    return task.tid


@syscall(110)
def getppid(task: Task) -> int:
    """getppid(2): the parent's process id. Never fails."""
    return task.group.ppid


@syscall(102)
def getuid(task: Task) -> int:
    """getuid(2): the real user id. Never fails."""
    return task.group.credentials.ruid


@syscall(104)
def getgid(task: Task) -> int:
    """getgid(2): the real group id. Never fails."""
    return task.group.credentials.rgid


@syscall(107)
def geteuid(task: Task) -> int:
    """geteuid(2): the effective user id. Never fails."""
    return task.group.credentials.euid


@syscall(108)
def getegid(task: Task) -> int:
    """getegid(2): the effective group id. Never fails."""
    return task.group.credentials.egid


@syscall(111)
def getpgrp(task: Task) -> int:
    """getpgrp(2): the process group id. Never fails."""
    return task.group.pgid


def _job_control(task: Task, operation: str, a: int = 0, b: int = 0) -> object:
    answer = task.take_answer()
    if answer is None:
        return Petition(JobControl, {"operation": operation, "a": a, "b": b, "terminal": 0})
    return answer.value


@syscall(121)
def getpgid(task: Task, pid: S32) -> object:
    """getpgid(2): a process's group id. ESRCH."""
    if pid in (0, task.group.pid):
        return task.group.pgid
    if pid < 0:
        raise OSError(ESRCH, "")
    return _job_control(task, "getpgid", pid)


@syscall(124)
def getsid(task: Task, pid: S32) -> object:
    """getsid(2): a process's session id. ESRCH."""
    if pid in (0, task.group.pid):
        return task.group.sid
    if pid < 0:
        raise OSError(ESRCH, "")
    return _job_control(task, "getsid", pid)


@syscall(109)
def setpgid(task: Task, pid: S32, pgid: S32) -> object:
    """setpgid(2): move a process to a process group. EACCES after the child's execve, EINVAL, EPERM, ESRCH."""
    if pgid < 0:
        raise OSError(EINVAL, "")
    pid = pid or task.group.pid
    return _job_control(task, "setpgid", pid, pgid or pid)


@syscall(112)
def setsid(task: Task) -> object:
    """setsid(2): start a session and a process group. EPERM for a process group leader."""
    return _job_control(task, "setsid")


# -- user and group ids -------------------------------------------------------------------------------------------


def tell_credentials(task: Task) -> None:
    """Tell TaskSet the ids that it needs for kill's permission checks and for /proc."""
    c = task.group.credentials
    task.group.tell_task_set(
        CredentialsChanged(group=task.group.group, uids=(c.ruid, c.euid, c.suid), gids=(c.rgid, c.egid, c.sgid))
    )


def _set_uids(task: Task, real: int, effective: int, saved: int) -> int:
    """Set the ids that are not -1 and everything that follows from them."""
    credentials = task.group.credentials
    old = credentials.copy()
    credentials.ruid = old.ruid if real == _NOBODY else real
    credentials.euid = old.euid if effective == _NOBODY else effective
    credentials.suid = old.suid if saved == _NOBODY else saved
    credentials.fsuid = credentials.euid
    credentials.fix_capabilities(old)
    tell_credentials(task)
    return 0


def _set_gids(task: Task, real: int, effective: int, saved: int) -> int:
    credentials = task.group.credentials
    credentials.rgid = credentials.rgid if real == _NOBODY else real
    credentials.egid = credentials.egid if effective == _NOBODY else effective
    credentials.sgid = credentials.sgid if saved == _NOBODY else saved
    credentials.fsgid = credentials.egid
    tell_credentials(task)
    return 0


def _uids(c: Credentials) -> tuple[int, int, int]:
    return c.ruid, c.euid, c.suid


def _gids(c: Credentials) -> tuple[int, int, int]:
    return c.rgid, c.egid, c.sgid


def _check_among(allowed: tuple[int, ...], *wanted: int) -> None:
    """Without the capability, an id may only become one that the process has."""
    if any(w != _NOBODY and w not in allowed for w in wanted):
        raise OSError(EPERM, "")


@syscall(105)
def setuid(task: Task, uid: U32) -> int:
    """setuid(2): all user ids with CAP_SETUID, else the effective one. EINVAL, EPERM."""
    c = task.group.credentials
    if uid == _NOBODY:
        raise OSError(EINVAL, "")
    if c.has(CAP_SETUID):
        return _set_uids(task, uid, uid, uid)
    _check_among((c.ruid, c.suid), uid)
    return _set_uids(task, _NOBODY, uid, _NOBODY)


@syscall(106)
def setgid(task: Task, gid: U32) -> int:
    """setgid(2): all group ids with CAP_SETGID, else the effective one. EINVAL, EPERM."""
    c = task.group.credentials
    if gid == _NOBODY:
        raise OSError(EINVAL, "")
    if c.has(CAP_SETGID):
        return _set_gids(task, gid, gid, gid)
    _check_among((c.rgid, c.sgid), gid)
    return _set_gids(task, _NOBODY, gid, _NOBODY)


@syscall(113)
def setreuid(task: Task, real: U32, effective: U32) -> int:
    """setreuid(2): real and effective user id. EPERM."""
    c = task.group.credentials
    if not c.has(CAP_SETUID):
        _check_among((c.ruid, c.euid), real)
        _check_among(_uids(c), effective)
    changes_saved = real != _NOBODY or effective not in (_NOBODY, c.ruid)
    saved = (c.euid if effective == _NOBODY else effective) if changes_saved else _NOBODY
    return _set_uids(task, real, effective, saved)


@syscall(114)
def setregid(task: Task, real: U32, effective: U32) -> int:
    """setregid(2): real and effective group id. EPERM."""
    c = task.group.credentials
    if not c.has(CAP_SETGID):
        _check_among((c.rgid, c.egid), real)
        _check_among(_gids(c), effective)
    changes_saved = real != _NOBODY or effective not in (_NOBODY, c.rgid)
    saved = (c.egid if effective == _NOBODY else effective) if changes_saved else _NOBODY
    return _set_gids(task, real, effective, saved)


@syscall(117)
def setresuid(task: Task, real: U32, effective: U32, saved: U32) -> int:
    """setresuid(2): real, effective and saved user id. EPERM."""
    c = task.group.credentials
    if not c.has(CAP_SETUID):
        _check_among(_uids(c), real, effective, saved)
    return _set_uids(task, real, effective, saved)


@syscall(119)
def setresgid(task: Task, real: U32, effective: U32, saved: U32) -> int:
    """setresgid(2): real, effective and saved group id. EPERM."""
    c = task.group.credentials
    if not c.has(CAP_SETGID):
        _check_among(_gids(c), real, effective, saved)
    return _set_gids(task, real, effective, saved)


def _write_ids(task: Task, addresses: tuple[int, int, int], ids: tuple[int, int, int]) -> int:
    for address, value in zip(addresses, ids, strict=True):
        task.memory.write(address, struct.pack("<I", value))
    return 0


@syscall(118)
def getresuid(task: Task, real: Address, effective: Address, saved: Address) -> int:
    """getresuid(2): real, effective and saved user id. EFAULT."""
    return _write_ids(task, (real, effective, saved), _uids(task.group.credentials))


@syscall(120)
def getresgid(task: Task, real: Address, effective: Address, saved: Address) -> int:
    """getresgid(2): real, effective and saved group id. EFAULT."""
    return _write_ids(task, (real, effective, saved), _gids(task.group.credentials))


@syscall(122)
def setfsuid(task: Task, uid: U32) -> int:
    """setfsuid(2): the user id of file accesses; returns the old one, also when it does not change. Never fails."""
    c = task.group.credentials
    old = c.copy()
    if uid != _NOBODY and (uid == c.fsuid or uid in _uids(c) or c.has(CAP_SETUID)):
        c.fsuid = uid
        c.fix_file_capabilities(old)
    return old.fsuid


@syscall(123)
def setfsgid(task: Task, gid: U32) -> int:
    """setfsgid(2): the group id of file accesses; returns the old one. Never fails."""
    c = task.group.credentials
    old = c.fsgid
    if gid != _NOBODY and (gid == c.fsgid or gid in _gids(c) or c.has(CAP_SETGID)):
        c.fsgid = gid
    return old


@syscall(115)
def getgroups(task: Task, size: S32, addresses: Address) -> int:
    """getgroups(2): the supplementary group ids. EFAULT, EINVAL when *size* is too small."""
    groups = task.group.credentials.groups
    if size < 0 or 0 < size < len(groups):
        raise OSError(EINVAL, "")
    if size:
        task.memory.write(addresses, struct.pack(f"<{len(groups)}I", *groups))
    return len(groups)


@syscall(116)
def setgroups(task: Task, size: S32, addresses: Address) -> int:
    """setgroups(2): set the supplementary group ids. EFAULT, EINVAL, EPERM without CAP_SETGID."""
    if not task.group.credentials.has(CAP_SETGID):
        raise OSError(EPERM, "")
    if not 0 <= size <= _MAX_GROUPS:
        raise OSError(EINVAL, "")
    task.group.credentials.groups = struct.unpack(f"<{size}I", task.memory.read(addresses, 4 * size)) if size else ()
    return 0
