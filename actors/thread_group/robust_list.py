"""What a thread leaves behind in memory when it ends: robust locks that it held, and its cleared thread id.

Linux counterpart: exit_robust_list and handle_futex_death (kernel/futex/core.c), mm_release (kernel/fork.c).  The list
is guest memory, hostile as all of it: it is walked a bounded number of steps, and what cannot be read ends the walk.
"""

from __future__ import annotations

import struct
from errno import EINVAL, ESRCH
from typing import TYPE_CHECKING, Final

from . import futex, futex_pi
from .futex import MATCH_ANY, Futex
from .futex_pi import OWNER_DIED, TID_MASK, WAITERS
from .table import S32, U64, Address, syscall

if TYPE_CHECKING:
    from .task import Task

__all__ = ["exit_robust_list", "wake_child_tid"]

#: struct robust_list_head: first entry, offset from an entry to its lock's word, entry being locked or unlocked.
_HEAD: Final = struct.Struct("<QqQ")
#: Entries looked at, as Linux: the list may be circular.
_LIMIT: Final = 2048
_ADDRESS: Final = (1 << 64) - 1


@syscall(273)
def set_robust_list(task: Task, head: Address, length: U64) -> int:
    """set_robust_list(2): where the list of robust locks is. EINVAL."""
    if length != _HEAD.size:
        raise OSError(EINVAL, "")
    task.robust_list = (head, length)
    return 0


@syscall(274, partial="threads of the own process only")
def get_robust_list(task: Task, tid: S32, head: Address, length: Address) -> int:
    """get_robust_list(2): where a thread's list of robust locks is. EFAULT, ESRCH."""
    owner = task.group.tasks.get(tid) if tid else task
    if owner is None:
        raise OSError(ESRCH, "")
    task.memory.write_u64(length, _HEAD.size)
    task.memory.write_u64(head, owner.robust_list[0])
    return 0


def exit_robust_list(task: Task) -> None:
    """Hand over the PI locks of a dying thread that others wait for; mark the others, wake a waiter of each. EFAULT."""
    futex_pi.hand_over_all(task)
    head, task.robust_list = task.robust_list[0], (0, 0)
    if head:
        _walk(task, head)


def _walk(task: Task, head: int) -> None:
    first, offset, pending = _HEAD.unpack(task.memory.read(head, _HEAD.size))
    entry = first
    for _ in range(_LIMIT):
        if entry & ~1 == head:
            break
        # The next pointer is read first: who is woken may free the entry.
        following = task.memory.read_u64(entry & ~1)
        if entry != pending:
            _mark(task, entry, offset, is_pending=False)
        entry = following
    if pending:
        _mark(task, pending, offset, is_pending=True)


def _mark(task: Task, entry: int, offset: int, *, is_pending: bool) -> None:
    """One lock: FUTEX_OWNER_DIED in place of the dying owner's id.

    A waiter may set FUTEX_WAITERS at this moment and see that overwritten; it then waits for a value that is not there
    any more, gets EAGAIN, and finds the mark.
    """
    is_pi = bool(entry & 1)
    address = ((entry & ~1) + offset) & _ADDRESS
    if address & 3:
        raise OSError(EINVAL, "")
    word = task.memory.read_u32(address)
    if is_pending and not is_pi and not word & TID_MASK:
        futex.wake(task, Futex(address, shared=True), 1, MATCH_ANY)
    if word & TID_MASK != task.tid:
        return
    task.memory.write_u32(address, word & WAITERS | OWNER_DIED)
    if word & WAITERS and not is_pi:
        futex.wake(task, Futex(address, shared=True), 1, MATCH_ANY)


def wake_child_tid(task: Task) -> None:
    """CLONE_CHILD_CLEARTID: clear the thread id in memory and wake one waiter: pthread_join."""
    address, task.clear_child_tid = task.clear_child_tid, 0
    if address and (len(task.group.tasks) > 1 or task.memory.shared):
        task.memory.write_u32(address, 0)
        futex.wake(task, Futex(address, shared=True), 1, MATCH_ANY)
