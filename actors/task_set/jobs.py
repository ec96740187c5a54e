"""What each thread group knows of its job: process group, session, terminal, foreground, orphaned.

Linux counterpart: the orphan rules of kernel/exit.c (will_become_orphaned_pgrp, kill_orphaned_pgrp).  Tells
JobChanged to every group whose view has changed, and, when an exit (not a move) orphans a process group with a
stopped member, SIGHUP and SIGCONT.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...messages.thread_group import JobChanged, Signal
from ..thread_group.siginfo import SIGCONT, SIGHUP
from .process import INIT, Job, Process, ProcessState
from .siginfo import kernel_siginfo

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .tree import ProcessTree

__all__ = [
    "is_orphaned",
    "job_of",
    "orphaned_around",
    "pgids_around",
    "refresh",
    "signal_new_orphans",
    "signal_process_group",
]


def is_orphaned(tree: ProcessTree, pgid: int) -> bool:
    """Return whether no living member has a parent in another process group of the same session."""
    for member in tree.members(pgid):
        if member.dead or member.parent == INIT:
            continue
        parent = tree.parent_of(member)
        if parent.pgid != pgid and parent.sid == member.sid:
            return False
    return True


def pgids_around(tree: ProcessTree, process: Process) -> set[int]:
    """Return the process groups whose being orphaned depends on *process*: its own and its children's."""
    return {process.pgid, *(c.pgid for c in tree.children_of(process))}


def orphaned_around(tree: ProcessTree, process: Process) -> dict[int, bool]:
    """Return which process groups around *process* are orphaned, to compare after its exit.

    None, when its exit can change nothing: it has no children, and it is not what keeps its group from being orphaned.
    """
    parent = tree.parent_of(process)
    keeps_its_own = process.parent != INIT and parent.pgid != process.pgid and parent.sid == process.sid
    if not process.children and not keeps_its_own:
        return {}
    return {pgid: is_orphaned(tree, pgid) for pgid in pgids_around(tree, process)}


def signal_new_orphans(tree: ProcessTree, before: dict[int, bool]) -> None:
    """SIGHUP and SIGCONT to each process group that was not orphaned *before*, is now, and has a stopped member."""
    for pgid in sorted(before):
        newly = not before[pgid] and is_orphaned(tree, pgid)
        if newly and any(p.state is ProcessState.STOPPED for p in tree.members(pgid)):
            signal_process_group(tree, pgid, SIGHUP)
            signal_process_group(tree, pgid, SIGCONT)


def signal_process_group(tree: ProcessTree, pgid: int, signo: int) -> None:
    """Send a signal of the kernel's to every member."""
    for member in tree.members(pgid):
        tree.signal(member, Signal(tid=0, signo=signo, siginfo=kernel_siginfo(signo)), to_many=True)


# -- telling ----------------------------------------------------------------------------------------------------


def job_of(tree: ProcessTree, process: Process, orphaned: bool | None = None) -> Job:
    """Return what the process's ThreadGroup must know of its job."""
    terminal = tree.terminals.get(process.terminal)
    foreground = terminal is None or terminal.foreground in (0, process.pgid)
    if orphaned is None:
        orphaned = is_orphaned(tree, process.pgid)
    return Job(process.pgid, process.sid, process.terminal, foreground, orphaned)


def refresh(tree: ProcessTree, pgids: Iterable[int]) -> None:
    """Tell every member of these process groups what has changed for it."""
    for pgid in sorted(pgids):
        orphaned = is_orphaned(tree, pgid)
        for member in tree.members(pgid):
            _tell(tree, member, job_of(tree, member, orphaned))


def _tell(tree: ProcessTree, process: Process, job: Job) -> None:
    if process.dead or job == process.told_job:
        return
    process.told_job = job
    tree.post(
        process,
        JobChanged(pgid=job.pgid, sid=job.sid, terminal=job.terminal, foreground=job.foreground, orphaned=job.orphaned),
    )
