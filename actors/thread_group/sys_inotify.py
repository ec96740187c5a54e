"""System calls that make inotify instances and change their watches.

Linux counterpart: fs/notify/inotify/inotify_user.c.  Asks MountNamespace AddWatch and RemoveWatch.
"""

from __future__ import annotations

import os
from errno import EACCES, EINVAL, EMFILE, ENOENT
from typing import TYPE_CHECKING, Any, Final

from ...config.limits import MAX_INOTIFY_INSTANCES
from ...messages.mount_namespace import AddWatch, RemoveWatch
from ..runtime.actor import Ask
from .inotify_file import InotifyFile
from .open_file import OpenFile
from .paths import AT_FDCWD, ask_path, base_of, who
from .table import S32, U32, PathName, syscall

if TYPE_CHECKING:
    from ..runtime.actor import Asking
    from .task import Task

__all__: list[str] = []

_DONT_FOLLOW, _MASK_CREATE, _MASK_ADD = 0x02000000, 0x10000000, 0x20000000
#: Every IN_* bit that Linux knows (ALL_INOTIFY_BITS).
_ALL_BITS: Final = 0xF700EFFF


@syscall(253)
def inotify_init(task: Task) -> int:
    """inotify_init(2): make an inotify instance. EMFILE."""
    return _make(task, 0)


@syscall(294)
def inotify_init1(task: Task, flags: S32) -> int:
    """inotify_init1(2): with IN_NONBLOCK, IN_CLOEXEC. EINVAL, EMFILE."""
    if flags & ~(os.O_NONBLOCK | os.O_CLOEXEC):
        raise OSError(EINVAL, "")
    return _make(task, flags)


def _make(task: Task, flags: int) -> int:
    group = task.group
    if sum(isinstance(file, InotifyFile) for file in task.worker.files) >= MAX_INOTIFY_INSTANCES:
        raise OSError(EMFILE, "")
    file = InotifyFile(task.worker, group.mount_namespace, flags)
    return group.files.add(group, file, close_on_exec=bool(flags & os.O_CLOEXEC))


def _instance(task: Task, fd: int) -> InotifyFile:
    file = task.group.files.get(fd)
    if not isinstance(file, InotifyFile):
        raise OSError(EINVAL, "no inotify descriptor")
    return file


@syscall(254)
def inotify_add_watch(task: Task, fd: S32, path: PathName, mask: U32) -> Any:
    """inotify_add_watch(2): EACCES, EBADF, EEXIST, EFAULT, EINVAL, ENAMETOOLONG, ENOENT, ENOSPC, ENOTDIR."""
    if mask & ~_ALL_BITS or not mask or mask & _MASK_ADD and mask & _MASK_CREATE:
        raise OSError(EINVAL, "")
    file = _instance(task, fd)
    if not path:
        raise OSError(ENOENT, "")
    return _add(task, file, path, mask)


def _add(task: Task, file: InotifyFile, path: bytes, mask: int) -> Asking:
    root, caller, worker = task.group.fs.root, who(task), task.worker.address

    def request(base: int, rest: bytes) -> AddWatch:
        follow = not mask & _DONT_FOLLOW
        return AddWatch(
            worker=worker, file=file.number, root=root, base=base, path=rest, follow=follow, mask=mask, who=caller
        )

    reply = yield from ask_path(task, base_of(task, AT_FDCWD, path), path, request)
    if isinstance(reply, OpenFile):
        raise OSError(EACCES, "what has no name cannot be watched yet")
    return reply.wd


@syscall(255)
def inotify_rm_watch(task: Task, fd: S32, wd: S32) -> Asking:
    """inotify_rm_watch(2): EBADF, EINVAL."""
    file = _instance(task, fd)
    return _remove(task, file, wd)


def _remove(task: Task, file: InotifyFile, wd: int) -> Asking:
    request = RemoveWatch(worker=task.worker.address, file=file.number, wd=wd)
    yield Ask(task.group.mount_namespace, request)
    return 0
