"""Futexes: waiting in the kernel for a word of guest memory, with and without priority inheritance, and robust lists.

Linux counterpart: kernel/futex/.  A waiter is a task that is blocked on the channel of its futex (``Worker.wait_on``); the channel keeps the
order.  What a waiter is (its futex, its bits, whether it was woken) is in ``Task.memo``; whoever wakes it marks that before it calls the
handler again, so a spurious wake-up, a pause or a restore is told from a real one.

Why no wake-up is lost: the word is read and the task queued in one handler, and every FUTEX_WAKE is a handler too, so these come one
after the other.  Guest code on another CPU may change the word at any time, but then calls FUTEX_WAKE after the change: if
the change came before our reading, we see it (EAGAIN); if after, its wake-up is handled after the queueing and finds us.

Words that the kernel itself changes: the guest's threads may change them at the same moment, and from outside there is no
compare-and-exchange.  Each place says why what it does is enough.
"""

from __future__ import annotations

import enum
import errno
import struct
from errno import EAGAIN, EDEADLK, EFAULT, EINVAL, ENOSYS, EPERM, ESRCH, ETIMEDOUT
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from . import dispatch
from .guest_clocks import ClockId, ClockKey, to_monotonic
from .sys_time import read_timespec
from .table import S32, U32, Address, U64, syscall
from .task import ERESTART_RESTARTBLOCK, ERESTARTNOINTR, ERESTARTSYS, Block, Task
from .vma import VM_SHARED

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["exit_robust_list", "wake_child_tid"]


class Operation(enum.IntEnum):
    """FUTEX_* (include/uapi/linux/futex.h)."""

    WAIT = 0
    WAKE = 1
    FD = 2
    REQUEUE = 3
    CMP_REQUEUE = 4
    WAKE_OP = 5
    LOCK_PI = 6
    UNLOCK_PI = 7
    TRYLOCK_PI = 8
    WAIT_BITSET = 9
    WAKE_BITSET = 10
    WAIT_REQUEUE_PI = 11
    CMP_REQUEUE_PI = 12
    LOCK_PI2 = 13


_O = Operation
_PRIVATE: Final = 128
_CLOCK_REALTIME: Final = 256
_MATCH_ANY: Final = 0xFFFFFFFF

_WAITERS: Final = 0x80000000
_OWNER_DIED: Final = 0x40000000
_TID_MASK: Final = 0x3FFFFFFF

_NEVER_NS: Final = (1 << 63) - 1
_ROBUST_HEAD_BYTES: Final = 24
#: A robust list may be circular or endless: Linux looks at this many entries (ROBUST_LIST_LIMIT).
_ROBUST_LIMIT: Final = 2048


class Futex(NamedTuple):
    """A futex as a waiter remembers it: plain data."""

    address: int
    shared: bool


def _channel(task: Task, futex: Futex) -> Hashable:
    """Return what waiters of a futex share: an address of this memory, or a place in a file or shared memory.

    EINVAL for an unaligned word, EFAULT for one that is not mapped.
    """
    address = futex.address
    if address & 3:
        raise OSError(EINVAL, "unaligned futex")
    if not futex.shared:
        return ("futex", id(task.memory), address)
    vma = task.memory.vmas.find(address)
    if vma is None:
        raise OSError(EFAULT, "")
    if vma.flags & VM_SHARED and vma.file is not None:
        return ("futex in file", vma.file.dev, vma.file.ino, vma.offset + address - vma.start)
    # A shared futex in private memory: Linux keeps these apart from private futexes too.
    return ("shared futex", id(task.memory), address)


# -- the call -----------------------------------------------------------------------------------------------------


@syscall(202, partial="FUTEX_WAKE_OP compares with a value that may be out of date by a race in user space; FUTEX_FD is gone, as on Linux")
def futex(task: Task, address: Address, op: S32, value: U32, timeout: U64, address2: Address, value3: U32) -> object:
    """futex(2): wait for, wake, lock and unlock. EACCES, EAGAIN, EDEADLK, EFAULT, EINTR, EINVAL, ENOSYS, EPERM, ESRCH, ETIMEDOUT."""
    operation = op & ~(_PRIVATE | _CLOCK_REALTIME)
    first = Futex(address, not op & _PRIVATE)
    second = Futex(address2, not op & _PRIVATE)
    realtime = bool(op & _CLOCK_REALTIME)
    if realtime and operation not in (_O.WAIT_BITSET, _O.WAIT_REQUEUE_PI, _O.LOCK_PI2):
        raise OSError(ENOSYS, "")
    if operation == _O.WAIT:
        return _wait(task, first, value, _MATCH_ANY, _timeout(task, timeout, absolute=False, realtime=False))
    if operation == _O.WAKE:
        return wake(task, first, value, _MATCH_ANY)
    if operation == _O.WAIT_BITSET:
        return _wait(task, first, value, value3, _timeout(task, timeout, absolute=True, realtime=realtime))
    if operation == _O.WAKE_BITSET:
        return wake(task, first, value, value3)
    if operation == _O.REQUEUE:
        return _requeue(task, first, second, value, timeout & 0xFFFFFFFF, None)
    if operation == _O.CMP_REQUEUE:
        return _requeue(task, first, second, value, timeout & 0xFFFFFFFF, value3)
    raise OSError(ENOSYS, "")


# -- waiting and waking -------------------------------------------------------------------------------------------


def _timeout(task: Task, address: int, *, absolute: bool, realtime: bool) -> tuple[int, bool] | None:
    """Return the deadline (ns of the realtime or monotonic clock, and which), None for none; remembered in memo."""
    remembered = task.memo.get("deadline")
    if remembered is not None:
        return remembered[0], remembered[1]
    if not address:
        return None
    time_ns = read_timespec(task, address)
    if not absolute:
        time_ns = min(time_ns + task.worker.clock.monotonic_ns(), _NEVER_NS)
    task.memo["deadline"] = (time_ns, realtime)
    return time_ns, realtime


def _clock_of(deadline: tuple[int, bool]) -> ClockKey:
    return ClockKey(ClockId.REALTIME if deadline[1] else ClockId.MONOTONIC)


def _expired(task: Task, deadline: tuple[int, bool] | None) -> bool:
    if deadline is None:
        return False
    clock = task.worker.clock
    return (clock.realtime_ns() if deadline[1] else clock.monotonic_ns()) >= deadline[0]


def _wait(task: Task, futex: Futex, value: int, bits: int, deadline: tuple[int, bool] | None) -> object:
    """FUTEX_WAIT: 0 when woken, ETIMEDOUT, EAGAIN when the word has another value, restarted after a signal."""
    if not bits:
        raise OSError(EINVAL, "")
    waiting = task.memo.get("futex")
    if waiting is None:
        channel = _channel(task, futex)
        if task.memory.read_u32(futex.address) != value:
            raise OSError(EAGAIN, "")
        task.memo["futex"], task.memo["bits"] = tuple(futex), bits
        return _park(task, channel, deadline)
    if task.memo.get("woken"):
        return 0
    if _expired(task, deadline):
        raise OSError(ETIMEDOUT, "")
    if task.interrupted:
        return _interrupted(task, deadline)
    return _park(task, _channel(task, Futex(*waiting)), deadline)


def _interrupted(task: Task, deadline: tuple[int, bool] | None) -> int:
    """The restarted call looks at the word again, and keeps the deadline that it had."""
    for name in ("futex", "bits"):
        task.memo.pop(name, None)
    return ERESTARTSYS if deadline is None else ERESTART_RESTARTBLOCK


def _park(task: Task, channel: Hashable, deadline: tuple[int, bool] | None) -> Block:
    channels: tuple[Hashable, ...] = (channel,)
    deadline_ns = None
    if deadline is not None:
        deadline_ns = to_monotonic(task.worker, _clock_of(deadline), deadline[0])
        if deadline[1]:
            channels = (channel, ("clock",))
    return Block(channels=channels, deadline_ns=deadline_ns, recall_on_signal=True)


def _waiters(task: Task, channel: Hashable) -> list[Task]:
    return [waiter for waiter in task.worker.waiters(channel) if not waiter.memo.get("woken")]


def _wake_task(waiter: Task) -> None:
    waiter.memo["woken"] = True
    dispatch.wake(waiter)


def wake(task: Task, futex: Futex, count: int, bits: int) -> int:
    """FUTEX_WAKE: wake up to *count* waiters, at least one, that share a bit; return how many."""
    if not bits:
        raise OSError(EINVAL, "")
    woken = 0
    count = _signed(count)
    for waiter in _waiters(task, _channel(task, futex)):
        if waiter.memo.get("pi"):
            raise OSError(EINVAL, "the futex is a PI lock")
        if waiter.memo["bits"] & bits:
            _wake_task(waiter)
            woken += 1
            if woken >= count:
                break
    return woken


def _signed(value: int) -> int:
    return (value & 0xFFFFFFFF ^ 0x80000000) - 0x80000000


def _requeue(task: Task, first: Futex, second: Futex, wakes: int, moves: int, expected: int | None) -> int:
    """FUTEX_REQUEUE: wake *wakes* waiters and move *moves* more to another futex; return how many of both."""
    wakes, moves = _signed(wakes), _signed(moves)
    if wakes < 0 or moves < 0:
        raise OSError(EINVAL, "")
    source, target = _channel(task, first), _channel(task, second)
    if expected is not None and task.memory.read_u32(first.address) != expected:
        raise OSError(EAGAIN, "")
    waiters = _waiters(task, source)
    for waiter in waiters[:wakes]:
        _wake_task(waiter)
    moved = waiters[wakes : wakes + moves]
    for waiter in moved:
        _move(waiter, source, target, second)
    return len(waiters[:wakes]) + len(moved)


def _move(waiter: Task, source: Hashable, target: Hashable, futex: Futex) -> None:
    """Queue a waiter behind those of another futex, in its sleep."""
    block = waiter.block
    assert block is not None
    if source == target:
        return
    block.channels = tuple(target if channel == source else channel for channel in block.channels)
    waiter.worker.forget(source, waiter)
    waiter.worker.wait_on(target, waiter)
    waiter.memo["futex"] = tuple(futex)


# -- the end of a thread ------------------------------------------------------------------------------------------


def wake_child_tid(task: Task) -> None:
    """CLONE_CHILD_CLEARTID: clear the thread id in memory and wake one waiter: pthread_join."""
    address, task.clear_child_tid = task.clear_child_tid, 0
    if address and (len(task.group.tasks) > 1 or task.memory.shared):
        task.memory.write_u32(address, 0)
        wake(task, Futex(address, shared=True), 1, _MATCH_ANY)


def exit_robust_list(task: Task) -> None:
    """Nothing yet."""
