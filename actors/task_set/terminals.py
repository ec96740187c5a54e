"""Controlling terminals: TIOCSCTTY, TIOCNOTTY, TIOCSPGRP, TIOCGPGRP, TIOCGSID, hang-ups.

Linux counterpart: drivers/tty/tty_jobctrl.c.  A terminal is known here from the moment that it controls a session;
its characters and settings are the worker's.  Raising SIGTTOU is the caller's part: it knows its signal mask.
"""

from __future__ import annotations

from errno import EINVAL, ENOTTY, EPERM, ESRCH
from typing import TYPE_CHECKING

from ...messages.thread_group import Signal
from ..thread_group.siginfo import SIGCONT, SIGHUP
from . import jobs
from .siginfo import kernel_siginfo
from .tree import Terminal

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...messages import task_set as messages
    from .process import Process
    from .tree import ProcessTree

    Operation = Callable[[ProcessTree, Process, messages.JobControl], int]

__all__ = ["OPERATIONS", "drop", "hang_up", "leader_exited", "signal_foreground"]


def _acquire(tree: ProcessTree, caller: Process, message: messages.JobControl) -> int:
    """TIOCSCTTY. EPERM unless the caller leads a session without a terminal, and this one is free or may be stolen."""
    number, steal = message.terminal, message.a == 1
    terminal = tree.terminals.get(number)
    if caller.session_leader and terminal is not None and terminal.session == caller.sid:
        return 0
    if not caller.session_leader or caller.terminal:
        raise PermissionError(EPERM, "not a session leader without a terminal")
    if terminal is not None:
        if not steal or caller.uids[1] != 0:
            raise PermissionError(EPERM, "the terminal controls another session")
        _clear_session(tree, number)
    set_controlling(tree, caller, number)
    return 0


def set_controlling(tree: ProcessTree, leader: Process, number: int) -> None:
    """Make terminal *number* the controlling terminal of a session's leader."""
    leader.terminal = number
    tree.terminals[number] = Terminal(session=leader.sid, foreground=leader.pgid)
    _refresh_session(tree, leader.sid)


def _release(tree: ProcessTree, caller: Process, message: messages.JobControl) -> int:
    """TIOCNOTTY: give the terminal up; its session's leader takes it from all. ENOTTY."""
    if not caller.terminal or caller.terminal != message.terminal:
        raise OSError(ENOTTY, "not the controlling terminal")
    if caller.session_leader:
        foreground = tree.terminals[caller.terminal].foreground
        jobs.signal_process_group(tree, foreground, SIGHUP)
        jobs.signal_process_group(tree, foreground, SIGCONT)
        _clear_session(tree, caller.terminal)
    else:
        drop(tree, caller)
        jobs.refresh(tree, {caller.pgid})
    return 0


def _get_pgrp(tree: ProcessTree, caller: Process, message: messages.JobControl) -> int:
    """TIOCGPGRP: 0 when there is no foreground process group. ENOTTY."""
    _check_own(caller, message)
    terminal = tree.terminals.get(message.terminal)
    return terminal.foreground if terminal is not None else 0


def _get_sid(tree: ProcessTree, caller: Process, message: messages.JobControl) -> int:
    """TIOCGSID. ENOTTY."""
    _check_own(caller, message)
    terminal = tree.terminals.get(message.terminal)
    if terminal is None:
        raise OSError(ENOTTY, "the terminal controls no session")
    return terminal.session


def _check_own(caller: Process, message: messages.JobControl) -> None:
    through_master = message.b == 1
    if not through_master and caller.terminal != message.terminal:
        raise OSError(ENOTTY, "not the controlling terminal")


def _set_pgrp(tree: ProcessTree, caller: Process, message: messages.JobControl) -> int:
    """TIOCSPGRP. EINVAL, ENOTTY, EPERM for a process group of another session, ESRCH."""
    if message.a < 0:
        raise OSError(EINVAL, "negative process group")
    terminal = tree.terminals.get(message.terminal)
    if terminal is None or caller.terminal != message.terminal or terminal.session != caller.sid:
        raise OSError(ENOTTY, "not the controlling terminal")
    members = tree.members(message.a)
    named = members[0] if members else tree.by_tid.get(message.a)
    if named is None:
        raise ProcessLookupError(ESRCH, "no such process group")
    if named.sid != caller.sid:
        raise PermissionError(EPERM, "the process group is in another session")
    terminal.foreground = message.a
    _refresh_session(tree, caller.sid)
    return 0


OPERATIONS: dict[str, Operation] = {
    "tty_acquire": _acquire,
    "tty_release": _release,
    "tty_get_pgrp": _get_pgrp,
    "tty_set_pgrp": _set_pgrp,
    "tty_get_sid": _get_sid,
}


# -- losing a terminal ------------------------------------------------------------------------------------------


def drop(tree: ProcessTree, process: Process) -> None:
    """One process loses its terminal (setsid, TIOCNOTTY)."""
    number, process.terminal = process.terminal, 0
    _forget_unused(tree, number)


def _clear_session(tree: ProcessTree, number: int) -> None:
    """Everyone loses terminal *number*."""
    session = tree.terminals[number].session
    for process in tree.processes.values():
        if process.terminal == number:
            process.terminal = 0
    del tree.terminals[number]
    _refresh_session(tree, session)


def _forget_unused(tree: ProcessTree, number: int) -> None:
    if number in tree.terminals and not any(p.terminal == number for p in tree.processes.values()):
        del tree.terminals[number]


def _refresh_session(tree: ProcessTree, sid: int) -> None:
    jobs.refresh(tree, {p.pgid for p in tree.sessions.get(sid, {}).values()})


def leader_exited(tree: ProcessTree, leader: Process) -> None:
    """A session's leader exits: SIGHUP to the foreground, and the session has no terminal (disassociate_ctty).

    As Linux does for pseudo-terminals, there is no SIGCONT: a stopped foreground gets that when it is orphaned.
    """
    number = leader.terminal
    if leader.session_leader and number:
        jobs.signal_process_group(tree, tree.terminals[number].foreground, SIGHUP)
        _clear_session(tree, number)


def hang_up(tree: ProcessTree, number: int) -> None:
    """The master side closed: SIGHUP, SIGCONT to the session's leader, SIGHUP to the foreground (__tty_hangup)."""
    terminal = tree.terminals.get(number)
    if terminal is None:
        return
    for process in tree.sessions.get(terminal.session, {}).values():
        if process.session_leader:
            for signo in (SIGHUP, SIGCONT):
                tree.signal(process, Signal(tid=0, signo=signo, siginfo=kernel_siginfo(signo)))
    jobs.signal_process_group(tree, terminal.foreground, SIGHUP)
    _clear_session(tree, number)


def signal_foreground(tree: ProcessTree, number: int, signo: int) -> None:
    """The line discipline signals the foreground process group."""
    terminal = tree.terminals.get(number)
    if terminal is not None:
        jobs.signal_process_group(tree, terminal.foreground, signo)
