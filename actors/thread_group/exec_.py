"""execve: from a path to a program that is about to run its first instruction.

Linux counterpart: do_execveat_common and begin_new_exec (fs/exec.c).  Asks MountNamespace Open (in ``executable.py``),
GetStatus for set-user-id programs, and BecomeWorkingDirectory for a first program; tells TaskSet Executed.

The new program is loaded into a fresh host task; the guest's Task is then bound to it and the old host task ended.  So
a multi-threaded or non-leader execve, and one in the memory of a vfork parent, need nothing special.  Until the point
of no return nothing of the caller is touched; a failure behind it ends the process by SIGSEGV, as in Linux.
"""

from __future__ import annotations

import contextlib
import os
import stat
from errno import EACCES, ENOENT, ENOTDIR
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from ...config.logging import get_logger
from ...messages.base import Done
from ...messages.mount_namespace import BecomeWorkingDirectory, FileStatus, GetStatus
from ...messages.task_set import Executed
from ...platform.interface import HostTaskDied
from ..runtime.actor import Ask
from . import exits, loader, signals, stdio, sys_futex, sys_identity
from .credentials import Credentials
from .device import DEVICES
from .executable import ExecRequest, open_program
from .file_table import FileTable
from .memory import MemoryManager
from .open_file import Identity
from .paths import who
from .task import NO_RESULT, RunState, Task
from .templates import key_of

if TYPE_CHECKING:
    from collections.abc import Hashable

    from ...messages.task_set import ProcessArguments
    from ..runtime.actor import Asking
    from .actor import ThreadGroup
    from .executable import ReadArguments
    from .loader import Program
    from .open_file import OpenFile
    from .templates import Template

__all__ = ["execve", "load_first_program"]

log = get_logger(__name__)

#: A standard stream that is to be /dev/null.
_NULL_STREAM: Final = -1
_DEV_NULL: Final = 1 << 8 | 3
_COMMAND_BYTES: Final = 15
_NO_ALTSTACK: Final = (0, 2, 0)
#: Where a first program is looked for when its environment has no PATH.
_DEFAULT_PATH: Final = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class _Owner(NamedTuple):
    """Ids that a set-user-id or set-group-id program gives; None for those that stay."""

    uid: int | None
    gid: int | None


_NOBODY: Final = _Owner(None, None)


def execve(task: Task, request: ExecRequest, read_arguments: ReadArguments) -> Asking:
    """Replace the program of *task*'s process; *read_arguments* copies argv and envp once the file is open."""
    program = yield from open_program(task, request, read_arguments)
    try:
        owner = yield from _owner_after(task, program.file)
        if task.state is not RunState.DEAD:
            _replace(task, program, owner)
    finally:
        program.release()
    return NO_RESULT


def _owner_after(task: Task, file: OpenFile) -> Asking:
    """Return whom a set-user-id or set-group-id program makes us."""
    set_uid = bool(file.mode & stat.S_ISUID)
    set_gid = file.mode & (stat.S_ISGID | stat.S_IXGRP) == stat.S_ISGID | stat.S_IXGRP
    if not (set_uid or set_gid) or not file.handle:
        return _NOBODY
    request = GetStatus(root=task.group.fs.root, base=file.handle, path=b"", follow=True, who=who(task))
    status = FileStatus.unpack((yield Ask(task.group.mount_namespace, request)).status)
    return _Owner(status.uid if set_uid else None, status.gid if set_gid else None)


# -- the point of no return and what follows -------------------------------------------------------------------------


def _replace(task: Task, program: Program, owner: _Owner) -> None:
    """Become the new program: the task is bound to a fresh host task."""
    group = task.group
    key = key_of(task, program) if owner == _NOBODY else None
    host, template = task.worker.templates.new_host(key)
    exits.kill_other_threads(task)
    _leave_memory(task)
    old_host, old_memory, old_tid = task.host, task.memory, task.tid
    _become_leader(task)
    _change_identity(task, program, owner)
    old_host.owner = None
    task.host, host.owner = host, task
    task.memory = group.memory = MemoryManager(host.space)
    task.memory.personality = old_memory.personality
    loaded = _load(task, program, key, template)
    old_host.kill()
    old_memory.drop(group)
    if loaded:
        task.worker.node.loop.call_soon(partial(task.worker.templates.prepare, template))
        exits.release_vfork_parent(task)
        command = program.name[:_COMMAND_BYTES].decode(errors="replace")
        log.info("program started", actor=group.address, tgid=group.pid, command=command)
        group.tell_task_set(Executed(group=group.group, command=command, old_tid=old_tid))


def _leave_memory(task: Task) -> None:
    """exec_mm_release: robust futexes and CLONE_CHILD_CLEARTID; bad pointers are the guest's own trouble."""
    with contextlib.suppress(OSError, HostTaskDied):
        sys_futex.exit_robust_list(task)
    with contextlib.suppress(OSError, HostTaskDied):
        sys_futex.wake_child_tid(task)
    task.robust_list = (0, 0)
    task.clear_child_tid = 0


def _become_leader(task: Task) -> None:
    """A thread that execs takes over the leader's id; the leader is dead by now (de_thread)."""
    group = task.group
    del group.tasks[task.tid]
    task.tid = group.pid
    group.tasks[task.tid] = task


def _change_identity(task: Task, program: Program, owner: _Owner) -> None:
    """What a process keeps and loses with its program: credentials, descriptors, signal handlers, names."""
    group = task.group
    before = group.credentials.copy()
    group.credentials.on_exec(set_uid=owner.uid, set_gid=owner.gid)
    after = group.credentials
    program.secure = after.euid != after.ruid or after.egid != after.rgid
    if (before.euid, before.egid, before.suid, before.sgid) != (after.euid, after.egid, after.suid, after.sgid):
        sys_identity.tell_credentials(task)
    group.dumpable = 0 if program.secure else 1
    group.files = group.files.unshare(group)
    group.files.close_on_exec()
    signals.reset_on_exec(group)
    task.altstack = _NO_ALTSTACK
    _name(task, program)


def _name(task: Task, program: Program) -> None:
    """Set comm and what /proc/PID/exe leads to."""
    task.command = program.name[:_COMMAND_BYTES].decode(errors="surrogateescape")
    task.group.executable = (program.file.path, program.file.handle)


def _load(task: Task, program: Program, key: Hashable | None, template: Template | None) -> bool:
    """Load the program; a failure now ends the process."""
    try:
        task.memory.set_executable(program.file)
        if template is None:
            layout = loader.map_program(task, program)
            task.worker.templates.loaded(key, task, program, layout)
        else:
            layout = template.fill(task.memory, program)
        loader.begin(task, program, layout)
    except OSError as error:
        log.info("exec failed beyond the point of no return", path=program.filename, error=str(error))
        exits.exit_group(task.group, signals.SIGSEGV)
        return False
    except HostTaskDied:
        exits.host_task_died(task, signals.SIGKILL)
        return False
    return True


# -- the first program of a process --------------------------------------------------------------------------------


def load_first_program(group: ThreadGroup, arguments: ProcessArguments) -> Asking:
    """Make the leader of a process that comes from outside, loaded and stopped at its first instruction.

    Fails with execve(2)'s errnos; the group ends then.
    """
    host = group.worker.platform.create_task()
    task = Task(group, group.pid, host, MemoryManager(host.space))
    task.pending = signals.SignalQueue()
    task.start_ns = group.worker.clock.monotonic_ns()
    host.owner = task
    group.memory = task.memory
    group.files = FileTable(group.group)
    try:
        yield from _set_up(task, arguments)
        program = yield from _find_program(task, arguments)
        try:
            _name(task, program)
            task.memory.set_executable(program.file)
            loader.load(task, program)
        finally:
            program.release()
    except BaseException:
        _abandon(task)
        raise
    group.tasks[task.tid] = task
    log.info("program started", actor=group.address, tgid=group.pid, command=task.command)
    return Done()


def _set_up(task: Task, arguments: ProcessArguments) -> Asking:
    """Give the process its user, limits, standard streams and working directory."""
    group = task.group
    group.credentials = Credentials.of_user(arguments.uid, arguments.gid, arguments.groups)
    for resource, soft in arguments.limits.items():
        group.limits.set(resource, soft, max(soft, group.limits.get(resource)[1]))
    _open_streams(group, arguments)
    path = os.fsencode(arguments.working_directory)
    request = BecomeWorkingDirectory(root=group.fs.root, base=group.fs.root, path=path, who=who(task))
    group.fs.set_cwd(group, (yield Ask(group.mount_namespace, request)).handle)


def _open_streams(group: ThreadGroup, arguments: ProcessArguments) -> None:
    """Open descriptors 0, 1 and 2 on what the tokens stand for; -1 is /dev/null."""
    take = group.node.descriptors.take
    fds = [take(token) if token >= 0 else -1 for token in arguments.stdio]
    stdio.open_stdio(group, fds, arguments.terminal)
    for number, token in enumerate(arguments.stdio):
        if token == _NULL_STREAM:
            identity = Identity(mode=stat.S_IFCHR | 0o666, ino=4, dev=6, rdev=_DEV_NULL, path=b"/dev/null")
            group.files.put(group, number, DEVICES[_DEV_NULL](group.worker, identity, os.O_RDWR))


def _find_program(task: Task, arguments: ProcessArguments) -> Asking:
    """Open the program, looking in PATH for a name without a slash, as execvpe(3) does."""
    name = os.fsencode(arguments.filename)
    refusal = OSError(ENOENT, os.strerror(ENOENT))
    for path in _candidates(name, arguments.envv):
        base = task.group.fs.root if path.startswith(b"/") else task.group.fs.cwd
        try:
            return (
                yield from open_program(
                    task,
                    ExecRequest(base, path, 0, path),
                    lambda: (list(arguments.argv), list(arguments.envv)),
                )
            )
        except OSError as error:
            if error.errno == EACCES:
                refusal = error
            elif error.errno not in (ENOENT, ENOTDIR):
                raise
    raise refusal


def _candidates(name: bytes, envv: tuple[bytes, ...]) -> list[bytes]:
    if not name or b"/" in name:
        return [name] if name else []
    path = next((e[5:] for e in envv if e.startswith(b"PATH=")), _DEFAULT_PATH)
    return [directory + b"/" + name if directory else name for directory in path.split(b":")]


def _abandon(task: Task) -> None:
    """The first program could not be loaded: nobody will hear of this process."""
    group = task.group
    task.host.kill()
    group.files.drop(group)
    group.fs.drop(group)
    task.memory.drop(group)
    group.gone()
