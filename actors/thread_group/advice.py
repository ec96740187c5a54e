"""madvise, mlock, mincore and msync: what a program says about memory that it has mapped.

Linux counterpart: mm/madvise.c, mm/mlock.c, mm/mincore.c, mm/msync.c.  Advice that changes what the program can see
(its pages vanish, a fork does not inherit them) is passed on to the host; advice about speed is checked and mostly
ignored.  Locked memory is counted but not pinned on the host: one sandbox must not starve the others.
"""

from __future__ import annotations

import os
from errno import EACCES, EBUSY, EFAULT, EINVAL, ENOMEM, EPERM
from typing import TYPE_CHECKING, Final

from ...platform.interface import GUEST_TOP
from .limits import Resource
from .memory import CAP_IPC_LOCK, MemoryManager, SharedMemory
from .vma import (
    PAGE_SIZE,
    VM_DONTCOPY,
    VM_DONTDUMP,
    VM_HUGEPAGE,
    VM_IO,
    VM_LOCKED,
    VM_LOCKONFAULT,
    VM_MAYSHARE,
    VM_MERGEABLE,
    VM_NOHUGEPAGE,
    VM_PFNMAP,
    VM_RAND_READ,
    VM_SEQ_READ,
    VM_SHARED,
    VM_SPECIAL,
    VM_WIPEONFORK,
    VM_WRITE,
    Vma,
    page_align,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .task import Task

__all__ = ["advise", "lock", "lock_all", "resident", "synchronise", "unlock"]

MADV_NORMAL: Final = 0
MADV_RANDOM: Final = 1
MADV_SEQUENTIAL: Final = 2
MADV_WILLNEED: Final = 3
MADV_DONTNEED: Final = 4
MADV_FREE: Final = 8
MADV_REMOVE: Final = 9
MADV_DONTFORK: Final = 10
MADV_DOFORK: Final = 11
MADV_MERGEABLE: Final = 12
MADV_UNMERGEABLE: Final = 13
MADV_HUGEPAGE: Final = 14
MADV_NOHUGEPAGE: Final = 15
MADV_DONTDUMP: Final = 16
MADV_DODUMP: Final = 17
MADV_WIPEONFORK: Final = 18
MADV_KEEPONFORK: Final = 19
MADV_COLD: Final = 20
MADV_PAGEOUT: Final = 21
MADV_POPULATE_READ: Final = 22
MADV_POPULATE_WRITE: Final = 23
MADV_DONTNEED_LOCKED: Final = 24
MADV_HWPOISON: Final = 100
MADV_SOFT_OFFLINE: Final = 101

#: Advice that only changes flags of the mapping: (clear, set).
_FLAG_CHANGES: Final = {
    MADV_NORMAL: (VM_RAND_READ | VM_SEQ_READ, 0),
    MADV_RANDOM: (VM_SEQ_READ, VM_RAND_READ),
    MADV_SEQUENTIAL: (VM_RAND_READ, VM_SEQ_READ),
    MADV_DONTFORK: (0, VM_DONTCOPY),
    MADV_DOFORK: (VM_DONTCOPY, 0),
    MADV_MERGEABLE: (0, VM_MERGEABLE),
    MADV_UNMERGEABLE: (VM_MERGEABLE, 0),
    MADV_HUGEPAGE: (VM_NOHUGEPAGE, VM_HUGEPAGE),
    MADV_NOHUGEPAGE: (VM_HUGEPAGE, VM_NOHUGEPAGE),
    MADV_DONTDUMP: (0, VM_DONTDUMP),
    MADV_DODUMP: (VM_DONTDUMP, 0),
    MADV_WIPEONFORK: (0, VM_WIPEONFORK),
    MADV_KEEPONFORK: (VM_WIPEONFORK, 0),
}
#: Of these the host must know, because it forks and faults.
_HOST_FLAG_CHANGES: Final = frozenset((MADV_DONTFORK, MADV_DOFORK, MADV_WIPEONFORK, MADV_KEEPONFORK))
#: VM_* flags of mappings that refuse some of these.
_REFUSING: Final = {MADV_DOFORK: VM_IO, MADV_DODUMP: VM_SPECIAL}
_DISCARDS: Final = frozenset((MADV_DONTNEED, MADV_DONTNEED_LOCKED, MADV_FREE, MADV_REMOVE))
_POPULATES: Final = frozenset((MADV_POPULATE_READ, MADV_POPULATE_WRITE))
_HINTS: Final = frozenset((MADV_WILLNEED, MADV_COLD, MADV_PAGEOUT))

#: Pages that mincore looks at in one go.
_RESIDENT_PIECE_PAGES: Final = 1 << 16

MS_ASYNC: Final = 1
MS_INVALIDATE: Final = 2
MS_SYNC: Final = 4


def _error(errno: int) -> OSError:
    return OSError(errno, os.strerror(errno))


# -- madvise ----------------------------------------------------------------------------------------------------


def advise(task: Task, start: int, length: int, advice: int) -> None:
    """madvise(2). EACCES, EINVAL, ENOMEM when part of the range is not mapped (the rest is advised), EPERM."""
    if advice in (MADV_HWPOISON, MADV_SOFT_OFFLINE):
        raise _error(EPERM)
    if advice not in _FLAG_CHANGES and advice not in _DISCARDS | _POPULATES | _HINTS:
        raise _error(EINVAL)
    end = start + page_align(length)
    if start % PAGE_SIZE or end > 1 << 64 or (length and end == start):
        raise _error(EINVAL)
    if end == start:
        return
    memory = task.memory
    there = memory.vmas.overlapping(start, min(end, GUEST_TOP))
    if advice == MADV_DONTNEED and _discard_at_once(task, there, start, end):
        return
    for vma in there:
        _advise_one(task, vma, max(vma.start, start), min(vma.end, end), advice)
    if not memory.vmas.covers(start, end):
        raise _error(ENOMEM)


def _discard_at_once(task: Task, there: list[Vma], start: int, end: int) -> bool:
    """Discard a range without holes, all of which may go, by the one host call that is the guest's own."""
    reached = start
    for vma in there:
        if vma.start > reached or vma.flags & (VM_PFNMAP | VM_LOCKED):
            return False
        reached = vma.end
    if reached < end:
        return False
    task.memory.discard_restored(task, start, end)
    task.host.madvise(start, end - start, MADV_DONTNEED)
    return True


def _advise_one(task: Task, vma: Vma, start: int, end: int, advice: int) -> None:
    if advice in _FLAG_CHANGES:
        if vma.flags & _REFUSING.get(advice, 0):
            raise _error(EINVAL)
        if advice == MADV_WIPEONFORK and (vma.file is not None or vma.flags & VM_SHARED):
            raise _error(EINVAL)
        if advice in _HOST_FLAG_CHANGES:
            if advice == MADV_WIPEONFORK:
                task.memory.settle(task, start, end)
            task.host.madvise(start, end - start, advice)
        clear, put = _FLAG_CHANGES[advice]
        task.memory.set_flags(start, end, clear, put)
    elif advice in _DISCARDS:
        _check_discard(vma, advice)
        if advice != MADV_REMOVE:
            task.memory.discard_restored(task, start, end)
        task.host.madvise(start, end - start, advice if advice != MADV_DONTNEED_LOCKED else MADV_DONTNEED)
    elif advice in _POPULATES:
        task.host.madvise(start, end - start, advice)


def _check_discard(vma: Vma, advice: int) -> None:
    """May these pages be thrown away?"""
    if vma.flags & VM_PFNMAP or vma.flags & VM_LOCKED and advice != MADV_DONTNEED_LOCKED:
        raise _error(EINVAL)
    if advice == MADV_FREE and (vma.file is not None or vma.flags & VM_MAYSHARE):
        raise _error(EINVAL)
    if advice == MADV_REMOVE:
        if vma.file is None:
            raise _error(EINVAL)
        if vma.flags & (VM_SHARED | VM_WRITE) != VM_SHARED | VM_WRITE:
            raise _error(EACCES)


# -- mlock ------------------------------------------------------------------------------------------------------


def lock(task: Task, start: int, length: int, *, on_fault: bool) -> None:
    """mlock(2), mlock2(2). EPERM, ENOMEM (limit, or a hole), EINVAL."""
    memory = task.memory
    privileged = task.group.credentials.has(CAP_IPC_LOCK)
    if not privileged and not task.group.limits.soft(Resource.MEMLOCK):
        raise _error(EPERM)
    start, end = _whole_pages(start, length)
    already = sum(_overlap(v, start, end) for v in memory.vmas.overlapping(start, end) if v.flags & VM_LOCKED)
    memory.check_lock(task, (end - start - already) // PAGE_SIZE, ENOMEM)
    _set_lock(memory, start, end, VM_LOCKED | (VM_LOCKONFAULT if on_fault else 0))


def unlock(task: Task, start: int, length: int) -> None:
    """munlock(2). ENOMEM for a hole, EINVAL."""
    start, end = _whole_pages(start, length)
    _set_lock(task.memory, start, end, 0)


def lock_all(task: Task, put: int, *, current: bool, future: bool) -> None:
    """mlockall(2), munlockall(2) (*put* 0). EPERM, ENOMEM."""
    memory = task.memory
    if put:
        privileged = task.group.credentials.has(CAP_IPC_LOCK)
        limit = task.group.limits.soft(Resource.MEMLOCK)
        if not privileged and not limit:
            raise _error(EPERM)
        if not privileged and current and memory.vmas.total_pages > limit // PAGE_SIZE:
            raise _error(ENOMEM)
    memory.future_flags = put if future else 0
    if current:
        _change_locks(memory, 0, GUEST_TOP, put)


def _whole_pages(start: int, length: int) -> tuple[int, int]:
    end = page_align(start + length)
    if end > 1 << 64:
        raise _error(EINVAL)
    return start & -PAGE_SIZE, end


def _overlap(vma: Vma, start: int, end: int) -> int:
    return min(vma.end, end) - max(vma.start, start)


def _set_lock(memory: MemoryManager, start: int, end: int, put: int) -> None:
    reached = start
    for vma in memory.vmas.overlapping(start, end):
        if vma.start > reached:
            break
        reached = min(vma.end, end)
    if reached > start:
        _change_locks(memory, start, reached, put)
    if reached < end:
        raise _error(ENOMEM)


def _change_locks(memory: MemoryManager, start: int, end: int, put: int) -> None:
    """The vDSO is never locked, nor does it have to be (mlock_fixup)."""
    for vma in memory.vmas.overlapping(start, end):
        if not vma.flags & VM_SPECIAL:
            memory.set_flags(max(vma.start, start), min(vma.end, end), VM_LOCKED | VM_LOCKONFAULT, put)


# -- mincore and msync ------------------------------------------------------------------------------------------


def resident(task: Task, start: int, length: int) -> Iterator[bytes]:
    """mincore(2): one byte per page, 1 for those in memory, in pieces. EINVAL, ENOMEM for a hole or a bad range."""
    if start % PAGE_SIZE:
        raise _error(EINVAL)
    end = start + page_align(length)
    if end > GUEST_TOP or not task.memory.vmas.covers(start, end):
        raise _error(ENOMEM)
    host, host_tid = task.worker.host, task.host.host_tid
    while start < end:
        pages = min((end - start) // PAGE_SIZE, _RESIDENT_PIECE_PAGES)
        present = host.present_pages(host_tid, start // PAGE_SIZE, pages)
        if len(present) != pages:
            raise _error(EFAULT)
        yield bytes(map(max, present, _in_page_cache(task, start, start + pages * PAGE_SIZE)))
        start += pages * PAGE_SIZE


def _in_page_cache(task: Task, start: int, end: int) -> bytes:
    """One byte per page: 1 for those of files, which the host's page cache may hold without telling us."""
    pages = bytearray((end - start) // PAGE_SIZE)
    for vma in task.memory.vmas.overlapping(start, end):
        if vma.file is not None and not isinstance(vma.file, SharedMemory):
            first, last = (max(vma.start, start) - start) // PAGE_SIZE, (min(vma.end, end) - start) // PAGE_SIZE
            pages[first:last] = b"\1" * (last - first)
    return bytes(pages)


def synchronise(task: Task, start: int, length: int, flags: int) -> None:
    """msync(2). EINVAL, ENOMEM for a hole, EBUSY for MS_INVALIDATE of locked memory, EIO."""
    if flags & ~(MS_ASYNC | MS_INVALIDATE | MS_SYNC) or start % PAGE_SIZE or flags & 5 == MS_ASYNC | MS_SYNC:
        raise _error(EINVAL)
    end = start + page_align(length)
    if end > 1 << 64:
        raise _error(ENOMEM)
    for vma in task.memory.vmas.overlapping(start, end):
        if flags & MS_INVALIDATE and vma.flags & VM_LOCKED:
            raise _error(EBUSY)
        if flags & MS_SYNC and vma.file is not None and vma.flags & VM_SHARED:
            task.worker.host.sync_file(vma.file.host_fd, True)
    if not task.memory.vmas.covers(start, end):
        raise _error(ENOMEM)
