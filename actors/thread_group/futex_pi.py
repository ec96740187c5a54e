"""Futexes that are locks: the word holds the owner's thread id, and the kernel hands it over.

Linux counterpart: kernel/futex/pi.c and the PI part of requeue.c.  greenroom does not boost the owner's priority (it
does not schedule); the lock protocol is Linux's.

The guest's fast paths are compare-and-exchange of the word, 0 to tid (lock) and tid to 0 (unlock), while we can only
load and store.  That is enough, because both expect a word without flags: FUTEX_WAITERS is in the top byte, where
thread ids (below 2^22) have no bits, so storing that one byte sets it without touching the id.  From then on no fast
path succeeds, every change comes through here, and whole-word stores are safe.  So: set the flag, read again, decide.
"""

from __future__ import annotations

from errno import EAGAIN, EDEADLK, EINVAL, EPERM, ESRCH, ETIMEDOUT
from typing import TYPE_CHECKING, Final

from . import futex as futexes
from .futex import MATCH_ANY, Deadline, Futex, channel_of
from .task import ERESTARTNOINTR, RunState

if TYPE_CHECKING:
    from collections.abc import Hashable

    from .task import Task

__all__ = ["OWNER_DIED", "TID_MASK", "WAITERS", "hand_over_all", "lock", "requeue", "unlock", "wait_for_requeue"]

WAITERS: Final = 0x80000000
OWNER_DIED: Final = 0x40000000
TID_MASK: Final = 0x3FFFFFFF
_FLAGS: Final = WAITERS | OWNER_DIED


def lock(task: Task, futex: Futex, deadline: Deadline | None, *, wait: bool = True) -> object:
    """FUTEX_LOCK_PI, and (without *wait*) FUTEX_TRYLOCK_PI. EAGAIN, EDEADLK, EINVAL, ESRCH, ETIMEDOUT."""
    channel = channel_of(task, futex)
    if "futexes" in task.memo:
        return _go_on(task, channel, deadline)
    if _acquire(task, futex, task, channel, wait=wait):
        return 0
    if not wait:
        raise OSError(EAGAIN, "")
    futexes.queue(task, [futex], MATCH_ANY)
    task.memo["pi"] = True
    return _park(task, channel, deadline)


def _park(task: Task, channel: Hashable, deadline: Deadline | None) -> object:
    task.worker.pi_waiters[task] = None
    return futexes.park(task, (channel,), deadline)


def _go_on(task: Task, channel: Hashable, deadline: Deadline | None) -> object:
    """A waiter is called again. Woken, it owns the lock: whoever woke it has stored its id."""
    if "woken" in task.memo:
        return 0
    if futexes.expired(task, deadline):
        raise OSError(ETIMEDOUT, "")
    if task.interrupted:
        return ERESTARTNOINTR
    return _park(task, channel, deadline)


def _acquire(task: Task, futex: Futex, taker: Task, channel: Hashable, *, wait: bool = True) -> bool:
    """Store *taker*'s id if the lock is free; else announce a waiter (if it will *wait*) and return False."""
    memory, address = task.memory, futex.address
    word = memory.read_u32(address)
    if word & TID_MASK and not wait:
        _check_owner(task, taker, word)
        return False
    memory.write(address + 3, bytes([word >> 24 & 0x40 | 0x80]))
    word = memory.read_u32(address)
    if word & TID_MASK:
        _check_owner(task, taker, word)
        return False
    others = any(waiter is not taker for waiter in futexes.waiters(task, channel))
    memory.write_u32(address, taker.tid | word & OWNER_DIED | (WAITERS if others else 0))
    return True


def _check_owner(task: Task, taker: Task, word: int) -> None:
    """A lock that one owns, or whose owner is gone, would be waited for in vain."""
    owner = word & TID_MASK
    if owner == taker.tid:
        raise OSError(EDEADLK, "")
    if not any(owner in group.tasks for group in task.worker.groups.values()):
        raise OSError(ESRCH, "the owner of the lock is gone")


def unlock(task: Task, futex: Futex) -> int:
    """FUTEX_UNLOCK_PI: hand the lock to the first waiter, or free it.

    EINVAL, EPERM when the caller is not its owner.
    """
    channel = channel_of(task, futex)
    if task.memory.read_u32(futex.address) & TID_MASK != task.tid:
        raise OSError(EPERM, "")
    _hand_over(task, futex, channel, 0)
    return 0


def _hand_over(task: Task, futex: Futex, channel: Hashable, flags: int) -> None:
    waiting = futexes.waiters(task, channel)
    if not waiting:
        task.memory.write_u32(futex.address, flags)
        return
    heir = waiting[0]
    if not heir.memo.get("pi"):
        raise OSError(EINVAL, "waiters of an ordinary futex")
    task.memory.write_u32(futex.address, heir.tid | WAITERS | flags)
    futexes.wake_task(heir, channel)


def hand_over_all(task: Task) -> None:
    """The task dies: locks that others wait for go to the first of them, marked (exit_pi_state_list)."""
    waiters = task.worker.pi_waiters
    for waiter in list(waiters):
        if not waiter.memo.get("pi") or waiter.state is RunState.DEAD:
            del waiters[waiter]
        elif waiter.state is RunState.BLOCKED:
            _inherit(task, waiter)


def _inherit(dying: Task, waiter: Task) -> None:
    futex = Futex(*waiter.memo["futexes"][0])
    try:
        if waiter.memory.read_u32(futex.address) & TID_MASK == dying.tid:
            _hand_over(waiter, futex, channel_of(waiter, futex), OWNER_DIED)
    except OSError:
        pass  # the waiter has unmapped its lock: it waits on


# -- condition variables on such locks ----------------------------------------------------------------------------


def wait_for_requeue(task: Task, first: Futex, value: int, second: Futex, deadline: Deadline | None) -> object:
    """FUTEX_WAIT_REQUEUE_PI: wait on one futex, return as owner of the other. EAGAIN, EINVAL, ETIMEDOUT."""
    channel = channel_of(task, first)
    if channel == channel_of(task, second):
        raise OSError(EINVAL, "")
    if "futexes" not in task.memo:
        if task.memory.read_u32(first.address) != value:
            raise OSError(EAGAIN, "")
        futexes.queue(task, [first], MATCH_ANY)
        task.memo["requeue"] = tuple(second)
        task.memo["pi"] = True
        return _park(task, channel, deadline)
    if "woken" in task.memo:
        return 0
    if futexes.expired(task, deadline):
        raise OSError(ETIMEDOUT, "")
    moved = tuple(task.memo["futexes"][0]) == tuple(task.memo["requeue"])
    if task.interrupted:
        if moved:
            raise OSError(EAGAIN, "")  # Linux cannot restart it either: the caller locks by itself
        return ERESTARTNOINTR
    return _park(task, channel_of(task, Futex(*task.memo["futexes"][0])), deadline)


def requeue(task: Task, first: Futex, second: Futex, wakes: int, moves: int, expected: int) -> int:
    """FUTEX_CMP_REQUEUE_PI: the first waiter gets the lock if it is free, the others wait for it. EAGAIN, EINVAL."""
    moves = futexes.signed(moves)
    if wakes != 1 or moves < 0:
        raise OSError(EINVAL, "")
    source, target = channel_of(task, first), channel_of(task, second)
    if source == target:
        raise OSError(EINVAL, "")
    if task.memory.read_u32(first.address) != expected:
        raise OSError(EAGAIN, "")
    waiting = futexes.waiters(task, source)[: 1 + moves]
    if any(tuple(waiter.memo.get("requeue", ())) != second for waiter in waiting):
        raise OSError(EINVAL, "these do not wait to be moved there")
    for index, waiter in enumerate(waiting):
        if _acquire(task, second, waiter, target):
            task.memory.write_u32(second.address, waiter.tid | (WAITERS if len(waiting) > index + 1 else 0))
            futexes.wake_task(waiter, source)
        else:
            futexes.move(waiter, source, target, second)
    return len(waiting)
