"""ioctl: the requests that every file has; the rest goes to the file.

Linux counterpart: fs/ioctl.c.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any, Final

from .opening import open_at
from .paths import AT_FDCWD
from .regular_file import RegularFile
from .table import S32, U32, Address, syscall
from .terminal import PtyMaster

if TYPE_CHECKING:
    from .open_file import OpenFile
    from .task import Task

_FIONBIO, _FIONCLEX, _FIOCLEX, _FIOASYNC, _FIONREAD, _FIOQSIZE = 0x5421, 0x5450, 0x5451, 0x5452, 0x541B, 0x5460
_FIGETBSZ: Final = 2
_TIOCGPTPEER: Final = 0x5441
_BLOCK_BYTES: Final = 4096


@syscall(16, partial="terminals, pipes and sockets; no block or network devices")
def ioctl(task: Task, fd: S32, request: U32, argument: Address) -> Any:
    """ioctl(2): EBADF, EFAULT, EINVAL, ENOTTY."""
    files = task.group.files
    file = files.get(fd)
    if request in (_FIOCLEX, _FIONCLEX):
        files.set_close_on_exec(fd, on=request == _FIOCLEX)
        return 0
    if request in (_FIONBIO, _FIOASYNC):
        flag = os.O_NONBLOCK if request == _FIONBIO else os.O_ASYNC
        file.flags = file.flags | flag if task.memory.read_s32(argument) else file.flags & ~flag
        return 0
    if stat.S_ISREG(file.mode) or stat.S_ISDIR(file.mode):
        return _on_file(task, file, request, argument)
    if request == _TIOCGPTPEER and isinstance(file, PtyMaster):
        return open_at(task, AT_FDCWD, b"/dev/pts/%d" % file.index, argument & 0xFFFFFFFF | os.O_NOCTTY, 0)
    return file.ioctl(task, request, argument)


def _on_file(task: Task, file: OpenFile, request: int, argument: int) -> Any:
    """Regular files and directories."""
    if request == _FIGETBSZ:
        task.memory.write_s32(argument, _BLOCK_BYTES)
        return 0
    if request == _FIONREAD and isinstance(file, RegularFile):
        size = task.worker.host.file_status(file.host_fd)[7]
        task.memory.write_s32(argument, max(0, size - file.position()))
        return 0
    if request == _FIOQSIZE and isinstance(file, RegularFile):
        task.memory.write_s64(argument, task.worker.host.file_status(file.host_fd)[7])
        return 0
    return file.ioctl(task, request, argument)
