"""Process groups and sessions: setpgid(2), getpgid(2), setsid(2), getsid(2).

Linux counterpart: kernel/sys.c.  Handles JobControl; its operations on terminals are in ``terminals.py``, what
follows from a move for other groups in ``jobs.py``.
"""

from __future__ import annotations

from errno import EACCES, EINVAL, EPERM, ESRCH
from typing import TYPE_CHECKING, Final

from . import jobs, terminals
from .process import INIT, Process

if TYPE_CHECKING:
    from ...messages import task_set as messages
    from .tree import ProcessTree

__all__ = ["handle"]


def handle(tree: ProcessTree, caller: Process, message: messages.JobControl) -> None:
    """Answer one JobControl petition."""
    try:
        operation = _OPERATIONS.get(message.operation) or terminals.OPERATIONS[message.operation]
        value = operation(tree, caller, message)
    except OSError as error:
        tree.answer(caller, message.tid, message.petition, errno=error.errno or EINVAL)
    else:
        tree.answer(caller, message.tid, message.petition, value=value)


def _find(tree: ProcessTree, caller: Process, pid: int) -> Process:
    process = tree.by_tid.get(pid) if pid else caller
    if process is None:
        raise ProcessLookupError(ESRCH, "no such process")
    return process


def _getpgid(tree: ProcessTree, caller: Process, message: messages.JobControl) -> int:
    """getpgid(2). ESRCH."""
    return _find(tree, caller, message.a).pgid


def _getsid(tree: ProcessTree, caller: Process, message: messages.JobControl) -> int:
    """getsid(2). ESRCH."""
    return _find(tree, caller, message.a).sid


def _setsid(tree: ProcessTree, caller: Process, _message: messages.JobControl) -> int:
    """setsid(2). EPERM for a session's leader, or while a process group has the caller's id."""
    if caller.session_leader or caller.pid in tree.process_groups:
        raise PermissionError(EPERM, "leads a process group already")
    around = jobs.pgids_around(tree, caller)
    tree.move(caller, caller.pid, caller.pid)
    caller.session_leader = True
    terminals.drop(tree, caller)
    jobs.refresh(tree, around | {caller.pgid})
    return caller.sid


def _setpgid(tree: ProcessTree, caller: Process, message: messages.JobControl) -> int:
    """setpgid(2). EACCES after the child's exec, EINVAL, EPERM for leaders and across sessions, ESRCH."""
    pid = message.a or caller.pid
    pgid = message.b or pid
    if pgid < 0:
        raise OSError(EINVAL, "negative process group")
    target = _find(tree, caller, pid)
    _check_setpgid(tree, caller, target, pid, pgid)
    if target.pgid != pgid:
        around = jobs.pgids_around(tree, target)
        tree.move(target, pgid, target.sid)
        jobs.refresh(tree, around | {pgid})
    return 0


def _check_setpgid(tree: ProcessTree, caller: Process, target: Process, pid: int, pgid: int) -> None:
    """The checks of setpgid(2), in Linux's order."""
    if target.pid != pid:
        raise OSError(EINVAL, "not a process but a thread")
    if target.parent == caller.group and target.group != INIT:
        if target.sid != caller.sid:
            raise PermissionError(EPERM, "the child is in another session")
        if target.executed:
            raise PermissionError(EACCES, "the child has called execve")
    elif target is not caller:
        raise ProcessLookupError(ESRCH, "neither the caller nor its child")
    if target.session_leader:
        raise PermissionError(EPERM, "leads a session")
    if pgid != pid:
        members = tree.members(pgid)
        if not members or members[0].sid != caller.sid:
            raise PermissionError(EPERM, "no such process group in this session")


_OPERATIONS: Final = {"getpgid": _getpgid, "getsid": _getsid, "setsid": _setsid, "setpgid": _setpgid}
