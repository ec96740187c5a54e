"""System calls that make signalfds.

Linux counterpart: fs/signalfd.c.
"""

from __future__ import annotations

import os
from errno import EINVAL
from typing import Final

from . import siginfo as si
from .signal_file import SignalFile
from .table import S32, U64, Address, syscall
from .task import Task

__all__: list[str] = []

_SIGSET_BYTES: Final = 8


@syscall(282)
def signalfd(task: Task, fd: S32, mask: Address, size: U64) -> int:
    """signalfd(2): take signals by reading a file. EBADF, EFAULT, EINVAL, EMFILE."""
    return _signalfd(task, fd, mask, size, 0)


@syscall(289)
def signalfd4(task: Task, fd: S32, mask: Address, size: U64, flags: S32) -> int:
    """signalfd(2) with flags: SFD_NONBLOCK, SFD_CLOEXEC. EBADF, EFAULT, EINVAL, EMFILE."""
    return _signalfd(task, fd, mask, size, flags)


def _signalfd(task: Task, fd: int, mask: int, size: int, flags: int) -> int:
    if size != _SIGSET_BYTES or flags & ~(os.O_NONBLOCK | os.O_CLOEXEC):
        raise OSError(EINVAL, "")
    wanted = task.memory.read_u64(mask) & ~si.UNBLOCKABLE
    if fd == -1:
        file = SignalFile(task.worker, wanted, flags, task.group)
        return task.group.files.add(task.group, file, close_on_exec=bool(flags & os.O_CLOEXEC))
    existing = task.group.files.get(fd)
    if not isinstance(existing, SignalFile):
        raise OSError(EINVAL, "no signalfd")
    existing.set_mask(wanted)
    return fd
