"""System calls about futexes.

Linux counterpart: kernel/futex/syscalls.c.  What they do is in ``futex`` (waiting and waking), ``futex_pi`` (locks)
and ``robust_list``.
"""

from __future__ import annotations

import struct
from errno import EINVAL, ENOSYS
from typing import TYPE_CHECKING, Final

from . import futex as futexes
from . import futex_pi
from .futex import MATCH_ANY, Deadline, Futex
from .guest_clocks import ClockId
from .robust_list import exit_robust_list, wake_child_tid
from .table import S32, U32, U64, Address, syscall
from .task import Task

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["exit_robust_list", "wake_child_tid"]


class FUTEX:
    """FUTEX_* (include/uapi/linux/futex.h); plain integers, since every wait would look its member up twice."""

    WAIT: Final = 0
    WAKE: Final = 1
    FD: Final = 2
    REQUEUE: Final = 3
    CMP_REQUEUE: Final = 4
    WAKE_OP: Final = 5
    LOCK_PI: Final = 6
    UNLOCK_PI: Final = 7
    TRYLOCK_PI: Final = 8
    WAIT_BITSET: Final = 9
    WAKE_BITSET: Final = 10
    WAIT_REQUEUE_PI: Final = 11
    CMP_REQUEUE_PI: Final = 12
    LOCK_PI2: Final = 13


_PRIVATE: Final = 128
_CLOCK_REALTIME: Final = 256
_MAY_CHOOSE_CLOCK: Final = frozenset({FUTEX.WAIT_BITSET, FUTEX.WAIT_REQUEUE_PI, FUTEX.LOCK_PI2})
#: Operations whose fourth argument is a struct timespec, and whether it is relative, realtime.
_TIMEOUTS: Final = {
    FUTEX.WAIT: (True, False),
    FUTEX.WAIT_BITSET: (False, False),
    FUTEX.WAIT_REQUEUE_PI: (False, False),
    FUTEX.LOCK_PI: (False, True),
    FUTEX.LOCK_PI2: (False, False),
}
_FUTEX2_U32: Final = 2
_FUTEX2_KNOWN: Final = 3 | _PRIVATE
#: struct futex_waitv: value, address, flags, reserved.
_WAITV: Final = struct.Struct("<QQII")
_WAITV_MAX: Final = 128


@syscall(202, partial="FUTEX_WAKE_OP is not atomic against guest code that changes the word at the same moment")
def futex(task: Task, address: Address, op: S32, value: U32, fourth: U64, address2: Address, value3: U32) -> object:
    """futex(2): wait for, wake, lock, unlock.

    EAGAIN, EDEADLK, EFAULT, EINTR, EINVAL, ENOSYS, EPERM, ESRCH, ETIMEDOUT.
    """
    operation = op & ~(_PRIVATE | _CLOCK_REALTIME)
    realtime = bool(op & _CLOCK_REALTIME)
    if realtime and operation not in _MAY_CHOOSE_CLOCK:
        raise OSError(ENOSYS, "")
    first, second = Futex(address, not op & _PRIVATE), Futex(address2, not op & _PRIVATE)
    if operation == FUTEX.WAKE:
        return futexes.wake(task, first, value, MATCH_ANY)
    if operation == FUTEX.WAKE_BITSET:
        return futexes.wake(task, first, value, value3)
    if operation in _TIMEOUTS:
        return _timed(task, operation, first, second, value, value3, _deadline(task, operation, fourth, realtime))
    return _at_once(task, operation, first, second, value, fourth & MATCH_ANY, value3)


def _deadline(task: Task, operation: int, address: int, realtime: bool) -> Deadline | None:  # private
    relative, always_realtime = _TIMEOUTS[operation]
    return futexes.read_deadline(task, address, absolute=not relative, realtime=realtime or always_realtime)


def _timed(
    task: Task, operation: int, first: Futex, second: Futex, value: int, bits: int, deadline: Deadline | None
) -> object:
    """The operations that wait."""
    if operation in (FUTEX.LOCK_PI, FUTEX.LOCK_PI2):
        return futex_pi.lock(task, first, deadline)
    if operation == FUTEX.WAIT_REQUEUE_PI:
        return futex_pi.wait_for_requeue(task, first, value, second, deadline)
    wanted = [(first, value)]
    return futexes.wait(task, wanted, MATCH_ANY if operation == FUTEX.WAIT else bits, deadline)


def _at_once(task: Task, operation: int, first: Futex, second: Futex, wakes: int, count: int, value3: int) -> object:
    """The operations that do not wait."""
    if operation == FUTEX.REQUEUE:
        return futexes.requeue(task, first, second, wakes, count, None)
    if operation == FUTEX.CMP_REQUEUE:
        return futexes.requeue(task, first, second, wakes, count, value3)
    if operation == FUTEX.WAKE_OP:
        return _wake_op(task, first, second, wakes, count, value3)
    if operation == FUTEX.UNLOCK_PI:
        return futex_pi.unlock(task, first)
    if operation == FUTEX.TRYLOCK_PI:
        return futex_pi.lock(task, first, None, wait=False)
    if operation == FUTEX.CMP_REQUEUE_PI:
        return futex_pi.requeue(task, first, second, wakes, count, value3)
    raise OSError(ENOSYS, "")


# -- FUTEX_WAKE_OP ------------------------------------------------------------------------------------------------

_OPERATIONS: Final[dict[int, Callable[[int, int], int]]] = {
    0: lambda _old, argument: argument,
    1: lambda old, argument: old + argument,
    2: lambda old, argument: old | argument,
    3: lambda old, argument: old & ~argument,
    4: lambda old, argument: old ^ argument,
}
_COMPARISONS: Final[dict[int, Callable[[int, int], bool]]] = {
    0: lambda old, argument: old == argument,
    1: lambda old, argument: old != argument,
    2: lambda old, argument: old < argument,
    3: lambda old, argument: old <= argument,
    4: lambda old, argument: old > argument,
    5: lambda old, argument: old >= argument,
}
_SHIFT: Final = 8


def _wake_op(task: Task, first: Futex, second: Futex, wakes: int, wakes2: int, encoded: int) -> int:
    """Change the second word, wake waiters of the first, and of the second if its old value compares."""
    operation, comparison = encoded >> 28 & 7, encoded >> 24 & 15
    argument, compared = _signed12(encoded >> 12), _signed12(encoded)
    if encoded >> 28 & _SHIFT:
        argument = 1 << (argument & 31)
    for word in (first, second):
        futexes.channel_of(task, word)
    if operation not in _OPERATIONS or comparison not in _COMPARISONS:
        raise OSError(ENOSYS, "")
    old = task.memory.read_s32(second.address)
    task.memory.write_u32(second.address, _OPERATIONS[operation](old, argument) & MATCH_ANY)
    woken = futexes.wake(task, first, wakes, MATCH_ANY)
    if _COMPARISONS[comparison](old, compared):
        woken += futexes.wake(task, second, wakes2, MATCH_ANY)
    return woken


def _signed12(value: int) -> int:
    return (value & 0xFFF ^ 0x800) - 0x800


# -- the calls of futex2 ------------------------------------------------------------------------------------------


def _futex2(address: int, flags: int) -> Futex:
    """Return the futex that FUTEX2_* flags describe: 32-bit words only, as Linux has it."""
    if flags & ~_FUTEX2_KNOWN or flags & 3 != _FUTEX2_U32:
        raise OSError(EINVAL, "")
    return Futex(address, not flags & _PRIVATE)


def _futex2_deadline(task: Task, address: int, clock: int) -> Deadline | None:
    if address and clock not in (ClockId.REALTIME, ClockId.MONOTONIC):
        raise OSError(EINVAL, "")
    return futexes.read_deadline(task, address, absolute=True, realtime=clock == ClockId.REALTIME)


def _read_waitv(task: Task, address: int, count: int) -> list[tuple[Futex, int]]:
    wanted = []
    for value, word, flags, reserved in _WAITV.iter_unpack(task.memory.read(address, count * _WAITV.size)):
        if reserved or value > MATCH_ANY:
            raise OSError(EINVAL, "")
        wanted.append((_futex2(word, flags), value))
    return wanted


@syscall(449)
def futex_waitv(task: Task, vector: Address, count: U32, flags: U32, timeout: Address, clock: S32) -> object:
    """futex_waitv(2): wait for one of several futexes; its index. EAGAIN, EFAULT, EINTR, EINVAL, ETIMEDOUT."""
    if flags or not 1 <= count <= _WAITV_MAX or not vector:
        raise OSError(EINVAL, "")
    deadline = _futex2_deadline(task, timeout, clock)
    return futexes.wait(task, _read_waitv(task, vector, count), MATCH_ANY, deadline, restarts=False)


@syscall(454)
def futex_wake(task: Task, address: Address, mask: U64, count: S32, flags: U32) -> object:
    """futex_wake(2): wake waiters that share a bit. EFAULT, EINVAL."""
    if not 0 < mask <= MATCH_ANY:
        raise OSError(EINVAL, "")
    return futexes.wake(task, _futex2(address, flags), count, mask) if count else 0


@syscall(455)
def futex_wait(task: Task, address: Address, value: U64, mask: U64, flags: U32, timeout: Address, clock: S32) -> object:
    """futex_wait(2): wait for a word. EAGAIN, EFAULT, EINTR, EINVAL, ETIMEDOUT."""
    word = _futex2(address, flags)
    if value > MATCH_ANY or not 0 < mask <= MATCH_ANY:
        raise OSError(EINVAL, "")
    return futexes.wait(task, [(word, value)], mask, _futex2_deadline(task, timeout, clock))


@syscall(456)
def futex_requeue(task: Task, vector: Address, flags: U32, wakes: S32, moves: S32) -> object:
    """futex_requeue(2): wake some waiters of one futex and move others to a second. EAGAIN, EFAULT, EINVAL."""
    if flags or not vector:
        raise OSError(EINVAL, "")
    (first, value), (second, _) = _read_waitv(task, vector, 2)
    return futexes.requeue(task, first, second, wakes, moves, value)
