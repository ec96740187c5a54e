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
from .inspection import may_inspect

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...messages.base import Message
    from ...messages.mount_namespace import Credentials
    from ..runtime.actor import Asking
    from .actor import ThreadGroup
    from .open_file import OpenFile
    from .task import Task

    #: Handle where a path starts, and the path.
    _Place = tuple[int, bytes]

__all__ = [
    "AT_FDCWD",
    "ask_path",
    "ask_two_paths",
    "base_of",
    "is_link",
    "link_text",
    "magic_target",
    "owner_of_link",
    "who",
]

AT_FDCWD: Final = -100
_MAX_LINKS: Final = 40
_SLASH: Final = ord("/")


def who(task: Task) -> Credentials:
    """Return the caller's credentials as MountNamespace wants them."""
    return task.group.credentials.for_files(task)


def base_of(task: Task, dirfd: int, path: bytes) -> int:
    """Return the handle where *path* starts. EBADF and ENOTDIR only when *dirfd* is used at all."""
    if path and path[0] == _SLASH:
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
    places = [(base, path)]
    return _ask(task, places, lambda: request(*places[0]))


def ask_two_paths(task: Task, old: _Place, new: _Place, request: Callable[[_Place, _Place], Message]) -> Asking:
    """Like ``ask_path`` for a request with two paths, each with its own base."""
    places = [old, new]
    return _ask(task, places, lambda: request(places[0], places[1]))


def _ask(task: Task, places: list[_Place], request: Callable[[], Message]) -> Asking:
    for _ in range(_MAX_LINKS):
        try:
            reply: Any = yield Ask(task.group.mount_namespace, request())
        except OSError as error:
            side, pid, magic, rest = _met_in_error(error)
        else:
            if not getattr(reply, "magic", ""):
                if getattr(reply, "missing", b""):
                    raise OSError(ENOENT, "")
                return reply
            side, pid, magic, rest = 0, reply.proc_pid, reply.magic, reply.rest
        target = magic_target(task, pid, magic)
        if not isinstance(target, int):
            if rest:
                raise OSError(ENOTDIR, "")
            return target
        # A rest of "/" says that the target must be a directory.
        places[side] = target, b"." if rest == b"/" else rest
    raise OSError(ELOOP, "")


def _met_in_error(error: OSError) -> tuple[int, int, str, bytes]:
    """Return (index of the path, process, link, rest) of the magic link that *error* tells of; else raise it."""
    words = (error.strerror or "").split(" ")
    if error.errno != ELOOP or words[0] != "magic-link":
        raise error
    _, side, pid, magic, rest = words
    return int(side == "new"), int(pid), magic, bytes.fromhex(rest)


def magic_target(task: Task, pid: int, magic: str) -> int | OpenFile:
    """Return the handle that a magic link leads to, or the open file when it has none. ENOENT, EACCES."""
    group = owner_of_link(task, pid)
    if group is None:
        raise OSError(EACCES, "")
    kind, _, number = _without_thread(magic).partition("/")
    if kind == "fd":
        file = _file_of(group, number)
        return file.handle or file
    if kind == "exe":
        return _present(group.executable[1])
    return _present(group.fs.root if kind == "root" else group.fs.cwd)


def owner_of_link(task: Task, pid: int) -> ThreadGroup | None:
    """Return the process whose link it is, None when another worker has it. EACCES unless the caller may ptrace it."""
    group = task.group if pid == task.group.pid else task.worker.group_of_pid(pid)
    if group is not None and not may_inspect(task.group, group):
        raise OSError(EACCES, "")
    return group


def _present(handle: int) -> int:
    """A process that is being born or has exited has no such place."""
    if not handle:
        raise OSError(ENOENT, "")
    return handle


def _without_thread(magic: str) -> str:
    """``task/12/exe`` -> ``exe``: threads share all of it here."""
    return magic.split("/", 2)[2] if magic.startswith("task/") else magic


def is_link(magic: str) -> bool:
    """Tell whether a name below /proc/PID is a magic link."""
    kind, _, number = _without_thread(magic).partition("/")
    return kind in ("cwd", "exe", "root") or kind == "fd" and number.isdecimal()


def _file_of(group: ThreadGroup, number: str) -> OpenFile:
    file = group.files.find(int(number)) if number.isdecimal() else None
    if file is None:
        raise OSError(ENOENT, "")
    return file


def link_text(group: ThreadGroup, magic: str, root: int) -> Asking:
    """Return what readlink(2) of a magic link of *group* shows to who has *root*: a path, ``pipe:[1]``... ENOENT."""
    kind, _, number = _without_thread(magic).partition("/")
    if kind == "fd":
        file = _file_of(group, number)
        handle, fallback = file.handle, file.link_text()
    elif kind == "exe":
        fallback, handle = group.executable
    else:
        handle, fallback = group.fs.root if kind == "root" else group.fs.cwd, b"/"
    if not handle:
        return fallback
    try:
        reply = yield Ask(group.mount_namespace, GetPath(root=root, handle=handle))
    except OSError as error:
        if error.errno != ENOENT:
            raise
        return fallback.removesuffix(b" (deleted)") + b" (deleted)"
    return reply.text
