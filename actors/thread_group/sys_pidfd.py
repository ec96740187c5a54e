"""System calls on pidfds.

Linux counterpart: kernel/pid.c (pidfd_open) and kernel/signal.c (pidfd_send_signal); waitid(P_PIDFD) is with the waits.
"""

from __future__ import annotations

import os
from errno import EINVAL
from typing import TYPE_CHECKING

from ...messages.task_set import Kill, QueryProcess
from . import siginfo as si
from .pid_file import PidFile, pid_file_of
from .sys_signal import check_signo, read_siginfo, user_siginfo
from .table import S32, U32, Address, syscall
from .task import Petition

if TYPE_CHECKING:
    from .task import Task

__all__: list[str] = []


@syscall(434, partial="PIDFD_THREAD is refused with EINVAL; a reaped process shows no POLLHUP")
def pidfd_open(task: Task, pid: S32, flags: U32) -> object:
    """pidfd_open(2): a process as a file. EINVAL, EMFILE, ENOENT for a thread that leads none, ESRCH."""
    if flags & ~os.O_NONBLOCK or pid <= 0:
        raise OSError(EINVAL, "")
    answer = task.take_answer()
    if answer is None:
        return Petition(QueryProcess, {"pid": pid, "attribute": "pidfd"})
    file = PidFile(task.worker, pid, answer.value, flags, exited=bool(answer.extra[0]))
    return task.group.files.add(task.group, file, close_on_exec=True)


@syscall(424, partial="directories of /proc are refused with EBADF")
def pidfd_send_signal(task: Task, fd: S32, signo: S32, info: Address, flags: U32) -> object:
    """pidfd_send_signal(2): send a signal to a pidfd's process. EAGAIN, EBADF, EFAULT, EINVAL, EPERM, ESRCH."""
    answer = task.take_answer()
    if answer is not None:
        return answer.value
    if flags:
        raise OSError(EINVAL, "")
    file = pid_file_of(task, fd)
    if info:
        if si.signo_of(task.memory.read(info, si.SIGINFO_BYTES)) != signo:
            raise OSError(EINVAL, "")
        siginfo = read_siginfo(task, info, signo, file.pid)
    else:
        siginfo = user_siginfo(task, signo, si.SI_USER)
    check_signo(signo)
    fields = {"pid": file.pid, "target_tid": 0, "signo": signo, "siginfo": siginfo, "target_group": file.serial}
    return Petition(Kill, fields)
