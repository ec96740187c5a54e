"""The text of a process's files in /proc, made by the process that they are about.

Linux counterpart: fs/proc/base.c and fs/proc/fd.c.  A process reads its own files with :func:`text_of`; for another's
it petitions TaskSet, which sends a ProcRequest here, and :func:`answer_request` tells the reader.  Names are those
below /proc/PID: ``status``, ``task/12/stat``, ``fdinfo/3``.  What is owned elsewhere (mounts, the names of descriptors)
is MountNamespace's.
"""

from __future__ import annotations

import os
from errno import EACCES, EINVAL, EIO, ENOENT
from typing import TYPE_CHECKING, Final

from ...messages.task_set import CommandChanged
from ...messages.thread_group import Answer
from . import proc_memory, proc_status
from .limits import RLIM_INFINITY, Resource
from .paths import is_link, link_text
from .task import RunState

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...messages.thread_group import ProcRequest
    from ..runtime.actor import Asking
    from .actor import ThreadGroup
    from .memory import MemoryManager
    from .task import Task

    _Maker = Callable[[ThreadGroup, Task], bytes]

__all__ = ["answer_request", "text_of", "write_text"]

_WHOLE_ID_MAP: Final = b"%10d %10d %10d\n" % (0, 0, 0xFFFFFFFF)
_UNSET_ID: Final = b"4294967295"
_COMMAND_BYTES: Final = 15
_WORST_OOM_SCORE: Final = 1000


def answer_request(group: ThreadGroup, message: ProcRequest) -> Asking:
    """Tell the reader of one of this process's files its text, or the errno."""
    text, errno = b"", 0
    try:
        if is_link(message.name):
            text = yield from link_text(group, message.name, group.fs.root)
        else:
            text = text_of(group, message.name)
    except OSError as error:
        errno = error.errno or EIO
    answer = Answer(tid=message.tid, petition=message.petition, value=len(text), errno=errno, extra=(), text=text)
    group.tell(f"thread_group:{message.reader}", answer)


def text_of(group: ThreadGroup, name: str) -> bytes:
    """Return the contents of /proc/PID/*name*. ENOENT when there is no such file (any more), EACCES for ``mem``."""
    if name.startswith("task/"):
        tid, _, rest = name[5:].partition("/")
        task = group.tasks.get(int(tid)) if tid.isdecimal() else None
        if task is None:
            raise OSError(ENOENT, "")
        return _text(group, task, rest, whole=False)
    task = group.leader or next(iter(group.tasks.values()), None)
    if task is None:
        raise OSError(ENOENT, "")
    return _text(group, task, name, whole=True)


def _text(group: ThreadGroup, task: Task, name: str, *, whole: bool) -> bytes:
    if name == "stat":
        return proc_status.stat(group, task, whole=whole)
    if name.startswith("fdinfo/"):
        return _descriptor(group, name[7:])
    make = _FILES.get(name)
    if make is None:
        raise OSError(ENOENT, "")
    return make(group, task)


def _descriptor(group: ThreadGroup, name: str) -> bytes:
    """fdinfo/N."""
    fd = int(name) if name.isdecimal() else -1
    file = group.files.find(fd)
    if file is None:
        raise OSError(ENOENT, "")
    flags = file.flags | (os.O_CLOEXEC if group.files.is_close_on_exec(fd) else 0)
    lines = f"pos:\t{file.position()}\nflags:\t0{flags:o}\nmnt_id:\t{_mount_id(group, fd)}\nino:\t{file.ino}\n"
    return lines.encode() + file.extra_fdinfo()


def _mount_id(group: ThreadGroup, fd: int) -> int:
    """Return the mount that the file was opened on; pipes and sockets are on the kernel's own mounts."""
    return group.files.get_any(fd).local_status(group).mount_id


# -- small files ------------------------------------------------------------------------------------------------


def _descriptors(group: ThreadGroup, _task: Task) -> bytes:
    """The names in fd and fdinfo."""
    return b" ".join(b"%d" % fd for fd in group.files.descriptors())


def _limits(group: ThreadGroup, _task: Task) -> bytes:
    rows = [f"{'Limit':25} {'Soft Limit':20} {'Hard Limit':20} {'Units':10}\n"]
    for resource, (title, unit) in _LIMITS.items():
        soft, hard = ("unlimited" if v == RLIM_INFINITY else str(v) for v in group.limits.get(resource))
        rows.append(f"{title:25} {soft:20} {hard:20} {f'{unit:10}' if unit else ''}\n")
    return "".join(rows).encode()


_LIMITS: dict[Resource, tuple[str, str]] = {
    Resource.CPU: ("Max cpu time", "seconds"),
    Resource.FSIZE: ("Max file size", "bytes"),
    Resource.DATA: ("Max data size", "bytes"),
    Resource.STACK: ("Max stack size", "bytes"),
    Resource.CORE: ("Max core file size", "bytes"),
    Resource.RSS: ("Max resident set", "bytes"),
    Resource.NPROC: ("Max processes", "processes"),
    Resource.NOFILE: ("Max open files", "files"),
    Resource.MEMLOCK: ("Max locked memory", "bytes"),
    Resource.AS: ("Max address space", "bytes"),
    Resource.LOCKS: ("Max file locks", "locks"),
    Resource.SIGPENDING: ("Max pending signals", "signals"),
    Resource.MSGQUEUE: ("Max msgqueue size", "bytes"),
    Resource.NICE: ("Max nice priority", ""),
    Resource.RTPRIO: ("Max realtime priority", ""),
    Resource.RTTIME: ("Max realtime timeout", "us"),
}


def _io(_group: ThreadGroup, _task: Task) -> bytes:
    """Counters that are not kept yet."""
    names = ("rchar", "wchar", "syscr", "syscw", "read_bytes", "write_bytes", "cancelled_write_bytes")
    return "".join(f"{name}: 0\n" for name in names).encode()


def _oom_score(group: ThreadGroup, _task: Task) -> bytes:
    """oom_badness of a small process: its adjustment is all that matters, scaled to 0..2000."""
    return b"%d\n" % ((_WORST_OOM_SCORE + group.oom_score_adj) * 2 // 3)


def _syscall(_group: ThreadGroup, task: Task) -> bytes:
    """The call that the thread waits in, its arguments, stack pointer and instruction pointer."""
    if task.state not in (RunState.BLOCKED, RunState.PETITIONING):
        return b"running\n"
    registers = task.host.get_registers()
    words = (*task.args, registers.rsp, registers.rip)
    return f"{task.number} {' '.join(f'{word:#x}' for word in words)}\n".encode()


def _schedstat(group: ThreadGroup, task: Task) -> bytes:
    return b"%d 0 0\n" % sum(group.worker.cpu_times_ns(task))


def _refuse(_group: ThreadGroup, _task: Task) -> bytes:
    raise OSError(EACCES, "")


def _command(_group: ThreadGroup, task: Task) -> bytes:
    return task.command.encode(errors="surrogateescape") + b"\n"


def _oom_adj(group: ThreadGroup, _task: Task) -> bytes:
    """The older scale of -17..15."""
    return b"%d\n" % (group.oom_score_adj * 17 // _WORST_OOM_SCORE)


def _oom_score_adj(group: ThreadGroup, _task: Task) -> bytes:
    return b"%d\n" % group.oom_score_adj


def _personality(group: ThreadGroup, _task: Task) -> bytes:
    return b"%08x\n" % group.memory.personality


def _always(text: bytes) -> _Maker:
    return lambda _group, _task: text


def _of_memory(make: Callable[[MemoryManager], bytes]) -> _Maker:
    return lambda group, _task: make(group.memory)


def _of_group(make: Callable[[ThreadGroup], bytes]) -> _Maker:
    return lambda group, _task: make(group)


#: The files whose text is the same for a process and for each of its threads, but for the thread that they are about.
_FILES: dict[str, _Maker] = {
    "auxv": _of_memory(proc_memory.auxv),
    "cgroup": _always(b"0::/\n"),
    "children": _always(b""),
    "cmdline": _of_memory(proc_memory.cmdline),
    "comm": _command,
    "coredump_filter": _always(b"00000033\n"),
    "environ": _of_memory(proc_memory.environ),
    "fd": _descriptors,
    "fdinfo": _descriptors,
    "gid_map": _always(_WHOLE_ID_MAP),
    "io": _io,
    "limits": _limits,
    "loginuid": _always(_UNSET_ID),
    "maps": _of_memory(proc_memory.maps),
    "mem": _refuse,
    "oom_adj": _oom_adj,
    "oom_score": _oom_score,
    "oom_score_adj": _oom_score_adj,
    "personality": _personality,
    "schedstat": _schedstat,
    "sessionid": _always(_UNSET_ID),
    "setgroups": _always(b"allow\n"),
    "smaps": _of_group(proc_memory.smaps),
    "smaps_rollup": _of_group(proc_memory.smaps_rollup),
    "statm": _of_group(proc_memory.statm),
    "status": proc_status.status,
    "syscall": _syscall,
    "timerslack_ns": _always(b"50000\n"),
    "uid_map": _always(_WHOLE_ID_MAP),
    "wchan": _always(b"0"),
}


# -- writing ----------------------------------------------------------------------------------------------------


def write_text(group: ThreadGroup, name: str, data: bytes) -> int:
    """write(2) to /proc/PID/*name* of the caller's own process: the bytes taken. EACCES, EINVAL, ENOENT."""
    task = group.leader or next(iter(group.tasks.values()))
    if name.startswith("task/"):
        tid, _, name = name[5:].partition("/")
        found = group.tasks.get(int(tid)) if tid.isdecimal() else None
        if found is None:
            raise OSError(ENOENT, "")
        task = found
    write = _WRITABLE.get(name)
    if write is None:
        raise OSError(EACCES, "")
    write(group, task, data)
    return len(data)


def _write_command(group: ThreadGroup, task: Task, data: bytes) -> None:
    task.command = data[:_COMMAND_BYTES].decode(errors="surrogateescape")
    if task.tid == group.pid:
        group.tell_task_set(CommandChanged(group=group.group, command=data[:_COMMAND_BYTES].decode(errors="replace")))


def _write_oom_score_adj(group: ThreadGroup, _task: Task, data: bytes) -> None:
    try:
        value = int(data)
    except ValueError:
        raise OSError(EINVAL, "") from None
    if not -_WORST_OOM_SCORE <= value <= _WORST_OOM_SCORE:
        raise OSError(EINVAL, "")
    group.oom_score_adj = value


def _accept(_group: ThreadGroup, _task: Task, _data: bytes) -> None:
    """Taken and without effect: what it would change does not happen here."""


_WRITABLE: dict[str, Callable[[ThreadGroup, Task, bytes], None]] = {
    "comm": _write_command,
    "oom_score_adj": _write_oom_score_adj,
    "coredump_filter": _accept,
    "timerslack_ns": _accept,
}
