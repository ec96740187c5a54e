"""wait4(2) and waitid(2): which child is reported, and the waits that are parked until one is.

Linux counterpart: do_wait and its helpers in kernel/exit.c.  Handles Wait and WaitCancel; answers parked waits in
the order of their coming whenever a child changes.
"""

from __future__ import annotations

from errno import ECHILD, EINTR
from typing import TYPE_CHECKING, Final

from ..thread_group.siginfo import CLD_CONTINUED, CLD_STOPPED, SIGCHLD
from .process import ParkedWait, Process, ProcessState
from .siginfo import exit_code_and_status

if TYPE_CHECKING:
    from ...messages import task_set as messages
    from .tree import ProcessTree

__all__ = ["begin", "cancel", "wake"]

P_ALL, P_PID, P_PGID, P_PIDFD = 0, 1, 2, 3
WNOHANG: Final = 1
WUNTRACED: Final = 2
WEXITED: Final = 4
WCONTINUED: Final = 8
WNOWAIT: Final = 0x0100_0000
WNOTHREAD: Final = 0x2000_0000
WALL: Final = 0x4000_0000
WCLONE: Final = 0x8000_0000

_CONTINUED_STATUS: Final = 0xFFFF


def begin(tree: ProcessTree, caller: Process, message: messages.Wait) -> None:
    """Answer a wait, or park it."""
    number = message.id
    if message.id_type == P_PGID and number == 0:
        number = caller.pgid
    wait = ParkedWait(message.tid, message.petition, message.id_type, number, message.options & 0xFFFF_FFFF)
    if _try(tree, caller, wait):
        return
    if wait.options & WNOHANG:
        tree.answer(caller, wait.tid, wait.petition, extra=(0, 0, 0, 0, 0, 0))
    else:
        caller.waits.pop(wait.tid, None)
        caller.waits[wait.tid] = wait


def cancel(tree: ProcessTree, caller: Process, message: messages.WaitCancel) -> None:
    """EINTR for the petition, unless it has been answered."""
    parked = caller.waits.get(message.tid) or tree.reads.get((caller.group, message.tid))
    if parked is not None and parked.petition == message.petition:
        tree.drop_petitions(caller, message.tid)
        tree.answer(caller, message.tid, message.petition, errno=EINTR)


def wake(tree: ProcessTree, parent: Process) -> None:
    """A child changed or went: look at the parent's parked waits again."""
    for wait in list(parent.waits.values()):
        if _try(tree, parent, wait):
            del parent.waits[wait.tid]


def _try(tree: ProcessTree, caller: Process, wait: ParkedWait) -> bool:
    """Answer *wait* if a child has something to report, or if there is none to wait for."""
    hopeless = True
    for child in _candidates(tree, caller, wait):
        if child.state is ProcessState.ZOMBIE:
            if wait.options & WEXITED:
                _report_exit(tree, caller, wait, child)
                return True
            # As in Linux, a zombie gives no hope to a wait for stops.
            continue
        hopeless = False
        if _try_stop(tree, caller, wait, child) or _try_continue(tree, caller, wait, child):
            return True
    if hopeless:
        tree.answer(caller, wait.tid, wait.petition, errno=ECHILD)
    return hopeless


def _candidates(tree: ProcessTree, caller: Process, wait: ParkedWait) -> list[Process]:
    """Return the eligible children: those of the calling thread first, then its siblings', oldest first."""
    if wait.id_type == P_PID:
        child = tree.by_tid.get(wait.id)
        children = [child] if child is not None and child.pid == wait.id and child.parent == caller.group else []
    else:
        children = tree.children_of(caller)
    eligible = [c for c in children if _is_eligible(wait, c)]
    if wait.options & WNOTHREAD:
        return [c for c in eligible if c.parent_tid == wait.tid]
    if len(caller.threads) > 1:
        eligible.sort(key=lambda c: c.parent_tid != wait.tid)
    return eligible


def _is_eligible(wait: ParkedWait, child: Process) -> bool:
    """Linux: eligible_pid and eligible_child; P_PID has been looked at."""
    if wait.id_type == P_PGID and child.pgid != wait.id or wait.id_type == P_PIDFD and child.group != wait.id:
        return False
    return bool(wait.options & WALL) or (child.exit_signal != SIGCHLD) == bool(wait.options & WCLONE)


def _answer(tree: ProcessTree, caller: Process, wait: ParkedWait, child: Process, status: int, code: int) -> None:
    extra = (
        status,
        child.uids[0],
        child.user_ns + child.children_user_ns,
        child.system_ns + child.children_system_ns,
        max(child.max_rss_kib, child.children_max_rss_kib),
        code,
    )
    tree.answer(caller, wait.tid, wait.petition, value=child.pid, extra=extra)


def _report_exit(tree: ProcessTree, caller: Process, wait: ParkedWait, child: Process) -> None:
    if not wait.options & WNOWAIT:
        caller.add_child_resources(child)
        # First: who hears of the end finds no more of the process in /proc.
        tree.remove(child)
    _answer(tree, caller, wait, child, child.status, exit_code_and_status(child.status)[0])


def _try_stop(tree: ProcessTree, caller: Process, wait: ParkedWait, child: Process) -> bool:
    if not wait.options & WUNTRACED or not child.unreported_stop:
        return False
    _answer(tree, caller, wait, child, child.unreported_stop << 8 | 0x7F, CLD_STOPPED)
    if not wait.options & WNOWAIT:
        child.unreported_stop = 0
    return True


def _try_continue(tree: ProcessTree, caller: Process, wait: ParkedWait, child: Process) -> bool:
    if not wait.options & WCONTINUED or not child.unreported_continue:
        return False
    _answer(tree, caller, wait, child, _CONTINUED_STATUS, CLD_CONTINUED)
    if not wait.options & WNOWAIT:
        child.unreported_continue = False
    return True
