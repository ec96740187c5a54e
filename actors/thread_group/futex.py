"""Futexes: waiting in the kernel for a word of guest memory.

Linux counterpart: kernel/futex/core.c, waitwake.c and requeue.c.  A waiter is a task that is blocked on the channel of
its futex (``Worker.wait_on``); the channel keeps the order.  What it waits for and whether it was woken is in
``Task.memo``; whoever wakes it marks that before it calls the handler again, so a spurious wake-up, a pause or a
restore is told from a real one.

Why no wake-up is lost: the word is read and the task queued in one handler, and every FUTEX_WAKE is a handler too, so
these come one after the other.  Guest code on another CPU may change the word at any time, but calls FUTEX_WAKE after
that: if the change came before our reading, we see it (EAGAIN); if after, its wake-up is handled after the queueing
and finds us.  Processes that share a futex must be of one worker.
"""

from __future__ import annotations

from errno import EAGAIN, EFAULT, EINVAL, ETIMEDOUT
from typing import TYPE_CHECKING, Final, NamedTuple

from . import dispatch
from .guest_clocks import ClockId, ClockKey, to_monotonic
from .sys_time import read_timespec
from .task import ERESTART_RESTARTBLOCK, ERESTARTSYS, Block
from .vma import VM_SHARED

if TYPE_CHECKING:
    from collections.abc import Hashable

    from .task import Task

__all__ = [
    "MATCH_ANY",
    "Deadline",
    "Futex",
    "channel_of",
    "expired",
    "move",
    "park",
    "queue",
    "read_deadline",
    "requeue",
    "signed",
    "wait",
    "waiters",
    "wake",
    "wake_task",
]

MATCH_ANY: Final = 0xFFFFFFFF
_NEVER_NS: Final = (1 << 63) - 1


class Futex(NamedTuple):
    """A futex as a waiter remembers it: plain data."""

    address: int
    shared: bool


class Deadline(NamedTuple):
    """When a wait ends: a time of the guest's monotonic or realtime clock, in ns."""

    time_ns: int
    realtime: bool


def channel_of(task: Task, futex: Futex) -> Hashable:
    """Return what the waiters of a futex share: an address of this memory, or a place in a file or shared memory.

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


def signed(value: int) -> int:
    """Return a 32-bit count as the int that it is on Linux."""
    return (value & 0xFFFFFFFF ^ 0x80000000) - 0x80000000


# -- deadlines ----------------------------------------------------------------------------------------------------


def read_deadline(task: Task, address: int, *, absolute: bool, realtime: bool) -> Deadline | None:
    """Return the deadline that a struct timespec gives, None for a null pointer; it is remembered in memo. EINVAL."""
    remembered = task.memo.get("deadline")
    if remembered is not None:
        return Deadline(*remembered)
    if not address:
        return None
    time_ns = read_timespec(task, address)
    if not absolute:
        time_ns = min(time_ns + task.worker.clock.monotonic_ns(), _NEVER_NS)
    task.memo["deadline"] = (time_ns, realtime)
    return Deadline(time_ns, realtime)


def expired(task: Task, deadline: Deadline | None) -> bool:
    """Return whether the deadline has come."""
    if deadline is None:
        return False
    clock = task.worker.clock
    return (clock.realtime_ns() if deadline.realtime else clock.monotonic_ns()) >= deadline.time_ns


# -- waiting ------------------------------------------------------------------------------------------------------


def wait(
    task: Task, wanted: list[tuple[Futex, int]], bits: int, deadline: Deadline | None, *, restarts: bool = True
) -> object:
    """Wait until one of the futexes is woken; return its index.

    *wanted* are futexes with the values that they must have (EAGAIN).  ETIMEDOUT; EINVAL without bits.  A signal
    restarts the call, with the deadline that it had if *restarts*.
    """
    if not bits:
        raise OSError(EINVAL, "")
    if "futexes" not in task.memo:
        channels = tuple([channel_of(task, futex) for futex, _ in wanted])
        for futex, value in wanted:
            if task.memory.read_u32(futex.address) != value:
                raise OSError(EAGAIN, "")
        queue(task, [futex for futex, _ in wanted], bits)
        return park(task, channels, deadline)
    if "woken" in task.memo:
        return task.memo["woken"]
    if expired(task, deadline):
        raise OSError(ETIMEDOUT, "")
    if task.interrupted:
        return _interrupted(task, deadline, restarts=restarts)
    return park(task, tuple(channel_of(task, Futex(*futex)) for futex in task.memo["futexes"]), deadline)


def _interrupted(task: Task, deadline: Deadline | None, *, restarts: bool) -> int:
    """The restarted call looks at the word again."""
    for name in ("futexes", "bits"):
        del task.memo[name]
    return ERESTART_RESTARTBLOCK if restarts and deadline is not None else ERESTARTSYS


def queue(task: Task, futexes: list[Futex], bits: int) -> None:
    """Note what the task is about to wait for."""
    task.memo["futexes"] = [tuple(futex) for futex in futexes]
    task.memo["bits"] = bits


def park(task: Task, channels: tuple[Hashable, ...], deadline: Deadline | None) -> Block:
    """Return the wait on *channels*; a deadline on the realtime clock is looked at again when that is set."""
    deadline_ns = None
    if deadline is not None:
        key = ClockKey(ClockId.REALTIME if deadline.realtime else ClockId.MONOTONIC)
        deadline_ns = min(to_monotonic(task.worker, key, deadline.time_ns), _NEVER_NS)
        if deadline.realtime:
            channels = (*channels, ("clock",))
    return Block(channels=channels, deadline_ns=deadline_ns, recall_on_signal=True)


# -- waking -------------------------------------------------------------------------------------------------------


def waiters(task: Task, channel: Hashable) -> list[Task]:
    """Return who waits on a futex, in order."""
    return task.worker.waiters(channel)


def wake_task(waiter: Task, channel: Hashable) -> None:
    """Wake one waiter of a futex: its call returns, now or when a stop is over."""
    assert waiter.block is not None
    waiter.memo["woken"] = waiter.block.channels.index(channel)
    dispatch.wake(waiter)


def wake(task: Task, futex: Futex, count: int, bits: int) -> int:
    """FUTEX_WAKE: wake up to *count* waiters, at least one, that share a bit; return how many.

    EINVAL for PI waiters.
    """
    if not bits:
        raise OSError(EINVAL, "")
    channel = channel_of(task, futex)
    woken = 0
    for waiter in waiters(task, channel):
        if waiter.memo.get("pi"):
            raise OSError(EINVAL, "waiters of a PI futex")
        if waiter.memo["bits"] & bits:
            wake_task(waiter, channel)
            woken += 1
            if woken >= signed(count):
                break
    return woken


def requeue(task: Task, first: Futex, second: Futex, wakes: int, moves: int, expected: int | None) -> int:
    """FUTEX_CMP_REQUEUE: wake *wakes* waiters and move *moves* more to another futex; return how many of both.

    EAGAIN.
    """
    wakes, moves = signed(wakes), signed(moves)
    if wakes < 0 or moves < 0:
        raise OSError(EINVAL, "")
    source, target = channel_of(task, first), channel_of(task, second)
    if expected is not None and task.memory.read_u32(first.address) != expected:
        raise OSError(EAGAIN, "")
    found = waiters(task, source)
    if any(waiter.memo.get("pi") for waiter in found[: wakes + moves]):
        raise OSError(EINVAL, "waiters of a PI futex")
    for waiter in found[:wakes]:
        wake_task(waiter, source)
    moved = found[wakes : wakes + moves]
    for waiter in moved:
        move(waiter, source, target, second)
    return len(found[:wakes]) + len(moved)


def move(waiter: Task, source: Hashable, target: Hashable, futex: Futex) -> None:
    """Queue a waiter behind those of another futex, in its sleep."""
    block = waiter.block
    assert block is not None
    if source == target:
        return
    index = block.channels.index(source)
    block.channels = (*block.channels[:index], target, *block.channels[index + 1 :])
    waiter.worker.forget(source, waiter)
    waiter.worker.wait_on(target, waiter)
    waiter.memo["futexes"][index] = tuple(futex)
