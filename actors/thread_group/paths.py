"""Naming files in requests to MountNamespace: where a path starts, and the magic links that only we can follow.

Linux counterpart: the dirfd rules of fs/namei.c, and proc_pid_get_link and proc_fd_link (fs/proc).  MountNamespace
walks every path; when it meets /proc/PID/{fd/N,exe,cwd,root}, it says so, and the walk goes on here from what that
link stands for.
"""

from __future__ import annotations

import stat
from errno import EACCES, ELOOP, ENOENT, ENOTDIR
from typing import TYPE_CHECKING, Any, Final

from ...messages.mount_namespace import GetPath
from ..runtime.actor import Ask

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...messages.base import Message
    from ...messages.mount_namespace import Credentials
    from ..runtime.actor import Asking
    from .open_file import OpenFile
    from .task import Task

__all__ = ["AT_FDCWD", "ask_path", "base_of", "link_text", "magic_target", "who"]

AT_FDCWD: Final = -100
_MAX_LINKS: Final = 40


def who(task: Task) -> Credentials:
    """Return the caller's credentials as MountNamespace wants them."""
    return task.group.credentials.for_files(task)


def base_of(task: Task, dirfd: int, path: bytes) -> int:
    """Return the handle where *path* starts. EBADF and ENOTDIR only when *dirfd* is used at all."""
    if path[:1] == b"/":
        return task.group.fs.root
    if dirfd == AT_FDCWD:
        return task.group.fs.cwd
    file = task.group.files.get_any(dirfd)
    if not stat.S_ISDIR(file.mode):
        raise OSError(ENOTDIR, "")
    return file.handle


def ask_path(task: Task, base: int, path: bytes, request: Callable[[int, bytes], Message]) -> Asking:
    """Ask what ``request(base, path)`` asks, through the magic links on the way, and return the reply.

    Returns the OpenFile when the path led to an open file that MountNamespace does not know (a pipe, a socket...).
    """
    namespace = task.group.mount_namespace
    for _ in range(_MAX_LINKS):
        reply: Any = yield Ask(namespace, request(base, path))
        if not getattr(reply, "magic", ""):
            return reply
        target = magic_target(task, reply.proc_pid, reply.magic)
        if not isinstance(target, int):
            if reply.rest:
                raise OSError(ENOTDIR, "")
            return target
        # A rest of "/" says that the target must be a directory.
        base, path = target, b"." if reply.rest == b"/" else reply.rest
    raise OSError(ELOOP, "")


def magic_target(task: Task, pid: int, magic: str) -> int | OpenFile:
    """Return the handle that a magic link leads to, or the open file when it has none. ENOENT, EACCES."""
    if pid != task.group.pid:
        raise OSError(EACCES, "")
    kind, _, number = _without_thread(magic).partition("/")
    if kind == "fd":
        file = _file_of(task, number)
        return file.handle or file
    if kind == "exe":
        return task.group.executable[1]
    return task.group.fs.root if kind == "root" else task.group.fs.cwd


def _without_thread(magic: str) -> str:
    """``task/12/exe`` -> ``exe``: threads share all of it here."""
    return magic.split("/", 2)[2] if magic.startswith("task/") else magic


def _file_of(task: Task, number: str) -> OpenFile:
    file = task.group.files.find(int(number))
    if file is None:
        raise OSError(ENOENT, "")
    return file


def link_text(task: Task, magic: str) -> Asking:
    """Return what readlink(2) of a magic link of the own process shows: a path, ``pipe:[1]``... ENOENT."""
    kind, _, number = _without_thread(magic).partition("/")
    group = task.group
    if kind == "fd":
        file = _file_of(task, number)
        handle, fallback = file.handle, file.link_text()
    elif kind == "exe":
        fallback, handle = group.executable
    else:
        handle, fallback = group.fs.root if kind == "root" else group.fs.cwd, b"/"
    if not handle:
        return fallback
    try:
        reply = yield Ask(group.mount_namespace, GetPath(root=group.fs.root, handle=handle))
    except OSError as error:
        if error.errno != ENOENT:
            raise
        return fallback.removesuffix(b" (deleted)") + b" (deleted)"
    return reply.text
