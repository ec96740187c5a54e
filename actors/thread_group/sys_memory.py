"""Memory mappings: mmap and its relatives, and what else belongs to an address space.

Linux counterpart: mm/*.c, and for arch_prctl, personality arch/x86/kernel/process_64.c and kernel/exec_domain.c.  What
a mapping is and may become is in ``memory.py``; madvise, mlock, mincore and msync are in ``advice.py``.  There is one
NUMA node and the kernel is built without CONFIG_NUMA: mbind, set_mempolicy and the like are not in the table (ENOSYS).
"""

from __future__ import annotations

import stat
from errno import EINVAL, ENODEV, ENOMEM, ENOSPC, EPERM, ESRCH
from typing import TYPE_CHECKING, Final

from . import advice
from .device import ZeroDevice
from .inspection import may_inspect
from .memory import MAP_ANONYMOUS, MAP_FIXED, MAP_HUGETLB, MAP_SHARED
from .table import S32, U32, U64, Address, syscall
from .task import RunState
from .vma import PAGE_SIZE, VM_EXEC, VM_GROWSDOWN, VM_LOCKED, VM_LOCKONFAULT, VM_READ, VM_SHARED, VM_WRITE, page_align

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .actor import ThreadGroup
    from .task import Task

__all__: list[str] = []

_PROT_SEM: Final = 0x8
_PROT_GROWSDOWN: Final = 0x01000000
_PROT_GROWSUP: Final = 0x02000000
_PROT_KNOWN: Final = VM_READ | VM_WRITE | VM_EXEC | _PROT_SEM | _PROT_GROWSDOWN | _PROT_GROWSUP
#: Bytes that process_vm_readv holds at once.
_COPY_PIECE_BYTES: Final = 1 << 20


# -- mappings ---------------------------------------------------------------------------------------------------


@syscall(9)
def mmap(task: Task, address: Address, length: U64, prot: U64, flags: U64, fd: S32, offset: U64) -> int:
    """mmap(2): map a file or memory. EACCES, EAGAIN, EBADF, EEXIST, EINVAL, ENODEV, ENOMEM, EOPNOTSUPP, EPERM."""
    if offset % PAGE_SIZE:
        raise OSError(EINVAL, "unaligned offset")
    if flags & MAP_ANONYMOUS:
        if flags & MAP_HUGETLB:
            raise OSError(ENOMEM, "no huge pages")
        return task.memory.map(task, address, length, prot, flags)
    file = task.group.files.get(fd)
    if flags & MAP_HUGETLB:
        raise OSError(EINVAL, "not a hugetlbfs file")
    if isinstance(file, ZeroDevice):
        return task.memory.map(task, address, length, prot, flags | MAP_ANONYMOUS)
    if not stat.S_ISREG(file.mode):
        raise OSError(ENODEV, "cannot be mapped")
    return task.memory.map(task, address, length, prot, flags, file, offset)


@syscall(11)
def munmap(task: Task, address: Address, length: U64) -> int:
    """munmap(2): remove mappings. EINVAL, ENOMEM."""
    task.memory.unmap(task, address, length)
    return 0


@syscall(10)
def mprotect(task: Task, start: Address, length: U64, prot: U64) -> int:
    """mprotect(2): change permissions. EACCES, EINVAL, ENOMEM for a hole (what is below it has changed)."""
    grows = prot & (_PROT_GROWSDOWN | _PROT_GROWSUP)
    if grows == _PROT_GROWSDOWN | _PROT_GROWSUP or start % PAGE_SIZE:
        raise OSError(EINVAL, "")
    if not length:
        return 0
    end = start + page_align(length)
    if end > 1 << 64 or end <= start:
        raise OSError(ENOMEM, "")
    if prot & ~_PROT_KNOWN or grows == _PROT_GROWSUP:
        raise OSError(EINVAL, "")
    if grows:
        start = _stack_start(task, start, end)
    task.memory.protect(task, start, end, prot)
    return 0


def _stack_start(task: Task, start: int, end: int) -> int:
    """PROT_GROWSDOWN: from the lowest page of the stack on."""
    vma = task.memory.vmas.at_or_above(start)
    if vma is None or vma.start >= end:
        raise OSError(ENOMEM, "")
    if not vma.flags & VM_GROWSDOWN:
        raise OSError(EINVAL, "")
    return vma.start


@syscall(12)
def brk(task: Task, address: Address) -> int:
    """brk(2): move the end of the heap, or return where it is. Never fails."""
    return task.memory.brk(task, address)


@syscall(25)
def mremap(task: Task, old: Address, old_length: U64, new_length: U64, flags: U64, new: Address) -> int:
    """mremap(2): resize or move a mapping. EAGAIN, EFAULT, EINVAL, ENOMEM."""
    return task.memory.remap(task, old, old_length, new_length, flags, new)


@syscall(216)
def remap_file_pages(task: Task, start: Address, size: U64, prot: U64, page_offset: U64, _flags: U64) -> int:
    """remap_file_pages(2): map another part of a shared file mapping, as Linux emulates it since 4.0. EINVAL."""
    start, size = start & -PAGE_SIZE, size & -PAGE_SIZE
    vma = task.memory.vmas.find(start)
    if prot or vma is None or not vma.flags & VM_SHARED or vma.file is None or not size or start + size > vma.end:
        raise OSError(EINVAL, "")
    task.memory.map(task, start, size, vma.prot, MAP_SHARED | MAP_FIXED, vma.file, page_offset * PAGE_SIZE)
    return 0


# -- advice, locks, residence -----------------------------------------------------------------------------------


@syscall(28, partial="advice about speed is checked and ignored; no memory poisoning, no guard regions")
def madvise(task: Task, start: Address, length: U64, what: S32) -> int:
    """madvise(2): say how memory will be used. EACCES, EAGAIN, EINVAL, ENOMEM, EPERM."""
    advice.advise(task, start, length, what)
    return 0


@syscall(149, partial="counted against RLIMIT_MEMLOCK, not pinned on the host")
def mlock(task: Task, start: Address, length: U64) -> int:
    """mlock(2): keep pages in memory. EINVAL, ENOMEM, EPERM."""
    advice.lock(task, start, length, on_fault=False)
    return 0


@syscall(325, partial="as mlock")
def mlock2(task: Task, start: Address, length: U64, flags: S32) -> int:
    """mlock2(2): keep pages in memory, with MLOCK_ONFAULT once they are there. EINVAL, ENOMEM, EPERM."""
    if flags & ~1:
        raise OSError(EINVAL, "")
    advice.lock(task, start, length, on_fault=bool(flags))
    return 0


@syscall(150, partial="as mlock")
def munlock(task: Task, start: Address, length: U64) -> int:
    """munlock(2): undo mlock. EINVAL, ENOMEM."""
    advice.unlock(task, start, length)
    return 0


@syscall(151, partial="as mlock")
def mlockall(task: Task, flags: S32) -> int:
    """mlockall(2): lock everything, now or in future. EINVAL, ENOMEM, EPERM."""
    current, future, on_fault = 1, 2, 4
    if not flags or flags & ~7 or flags == on_fault:
        raise OSError(EINVAL, "")
    put = VM_LOCKED | (VM_LOCKONFAULT if flags & on_fault else 0)
    advice.lock_all(task, put, current=bool(flags & current), future=bool(flags & future))
    return 0


@syscall(152, partial="as mlock")
def munlockall(task: Task) -> int:
    """munlockall(2): unlock everything. Never fails."""
    advice.lock_all(task, 0, current=True, future=False)
    return 0


@syscall(27)
def mincore(task: Task, start: Address, length: U64, vector: Address) -> int:
    """mincore(2): which pages are in memory. EFAULT, EINVAL, ENOMEM."""
    for piece in advice.resident(task, start, length):
        task.memory.write(vector, piece)
        vector += len(piece)
    return 0


@syscall(26)
def msync(task: Task, start: Address, length: U64, flags: S32) -> int:
    """msync(2): write a shared file mapping back. EBUSY, EINVAL, EIO, ENOMEM."""
    advice.synchronise(task, start, length, flags)
    return 0


# -- protection keys: as on a CPU without them --------------------------------------------------------------------


@syscall(329)
def pkey_mprotect(task: Task, start: Address, length: U64, prot: U64, pkey: S32) -> int:
    """pkey_mprotect(2): mprotect with a protection key; there is none to give, so EINVAL unless *pkey* is -1."""
    if pkey != -1:
        raise OSError(EINVAL, "")
    return mprotect(task, start, length, prot)


@syscall(330)
def pkey_alloc(task: Task, flags: U64, rights: U64) -> int:
    """pkey_alloc(2): EINVAL for bad arguments, else ENOSPC: the CPU that we show has no protection keys."""
    raise OSError(EINVAL if flags or rights & ~3 else ENOSPC, "")


@syscall(331)
def pkey_free(task: Task, _pkey: S32) -> int:
    """pkey_free(2): EINVAL: no key was ever given."""
    raise OSError(EINVAL, "")


# -- barriers ---------------------------------------------------------------------------------------------------

_MEMBARRIER_GLOBAL: Final = 1
_MEMBARRIER_GET_REGISTRATIONS: Final = 1 << 9
#: GLOBAL, GLOBAL_EXPEDITED and its registration, PRIVATE_EXPEDITED and its registration.
_MEMBARRIER_KNOWN: Final = 0x1F
_MEMBARRIER_REGISTER: Final = 1 << 2 | 1 << 4
_MEMBARRIER_PRIVATE: Final = 1 << 3


@syscall(324, partial="no SYNC_CORE and RSEQ commands")
def membarrier(task: Task, command: S32, flags: U32, _cpu: S32) -> int:
    """membarrier(2): a memory barrier on all threads of the process. EINVAL, EPERM without registration."""
    memory = task.memory
    if flags:
        raise OSError(EINVAL, "")
    if command == 0:
        return _MEMBARRIER_KNOWN | _MEMBARRIER_GET_REGISTRATIONS
    if command == _MEMBARRIER_GET_REGISTRATIONS:
        return memory.membarrier_registrations
    if command not in (1, 2, 4, 8, 16):
        raise OSError(EINVAL, "")
    if command & _MEMBARRIER_REGISTER:
        memory.membarrier_registrations |= command
        return 0
    if command == _MEMBARRIER_PRIVATE and not memory.membarrier_registrations & _MEMBARRIER_PRIVATE << 1:
        raise OSError(EPERM, "")
    if _others_run(task):
        # The host's own: all its running threads pass a barrier, the guest's among them.
        task.worker.host.membarrier(_MEMBARRIER_GLOBAL)
    return 0


def _others_run(task: Task) -> bool:
    return any(
        other is not task and other.state is RunState.RUNNING
        for group in task.worker.groups.values()
        for other in group.tasks.values()
    )


# -- other processes' memory --------------------------------------------------------------------------------------


@syscall(310, partial="only processes of the same worker")
def process_vm_readv(
    task: Task, pid: S32, local: Address, local_count: U64, remote: Address, remote_count: U64, flags: U64
) -> int:
    """process_vm_readv(2): copy from another process. EFAULT, EINVAL, EPERM, ESRCH."""
    here = task.memory.read_iovec(local, local_count)
    there = task.memory.read_iovec(remote, remote_count)
    other = _other_process(task, pid, flags)
    return _copy(other, there, task.group, here)


@syscall(311, partial="only processes of the same worker")
def process_vm_writev(
    task: Task, pid: S32, local: Address, local_count: U64, remote: Address, remote_count: U64, flags: U64
) -> int:
    """process_vm_writev(2): copy to another process. EFAULT, EINVAL, EPERM, ESRCH."""
    here = task.memory.read_iovec(local, local_count)
    there = task.memory.read_iovec(remote, remote_count)
    other = _other_process(task, pid, flags)
    return _copy(task.group, here, other, there)


def _other_process(task: Task, pid: int, flags: int) -> ThreadGroup:
    """Return the process if the caller may ptrace it. EINVAL, EPERM, ESRCH."""
    if flags:
        raise OSError(EINVAL, "")
    group = task.worker.group_of_pid(pid)
    if group is None or group.memory is None:
        raise OSError(ESRCH, "")
    if not may_inspect(task.group, group):
        raise OSError(EPERM, "")
    return group


def _copy(source: ThreadGroup, parts: list[tuple[int, int]], target: ThreadGroup, places: list[tuple[int, int]]) -> int:
    """Copy *parts* over *places* in pieces until either ends or faults; EFAULT when the first byte does."""
    done = 0
    for read_from, write_to, length in _pieces(parts, places):
        try:
            data = source.memory.read_partial(read_from, length)
            written = target.memory.write_partial(write_to, data)
        except OSError:
            if done:
                break
            raise
        done += written
        if written < length:
            break
    return done


def _pieces(parts: list[tuple[int, int]], places: list[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    """Cut two vectors into pieces that are contiguous in both: (source, target, length)."""
    targets = iter(places)
    target, room = 0, 0
    for source, left in parts:
        taken = 0
        while taken < left:
            while not room:
                following = next(targets, None)
                if following is None:
                    return
                target, room = following
            length = min(left - taken, room, _COPY_PIECE_BYTES)
            yield source + taken, target, length
            taken, target, room = taken + length, target + length, room - length


# -- the architecture's and the execution domain's ----------------------------------------------------------------

_ARCH_SET_GS, _ARCH_SET_FS, _ARCH_GET_FS, _ARCH_GET_GS = 0x1001, 0x1002, 0x1003, 0x1004
_ARCH_GET_CPUID, _ARCH_SET_CPUID = 0x1011, 0x1012
_TASK_SIZE_MAX: Final = 0x7FFF_FFFF_F000


@syscall(158, partial="fs and gs bases, and CPUID queries; no CPUID faulting, AMX permissions or shadow stacks")
def arch_prctl(task: Task, code: S32, argument: U64) -> int:
    """arch_prctl(2): thread pointers. EFAULT, EINVAL, ENODEV, EPERM for an address outside user space."""
    if code in (_ARCH_SET_FS, _ARCH_SET_GS):
        if argument >= _TASK_SIZE_MAX:
            raise OSError(EPERM, "")
        registers = task.host.get_registers()
        if code == _ARCH_SET_FS:
            registers.fs_base = argument
        else:
            registers.gs_base = argument
        task.host.set_registers(registers)
        return 0
    if code in (_ARCH_GET_FS, _ARCH_GET_GS):
        registers = task.host.get_registers()
        task.memory.write_u64(argument, registers.fs_base if code == _ARCH_GET_FS else registers.gs_base)
        return 0
    if code == _ARCH_GET_CPUID:
        return 1
    raise OSError(ENODEV if code == _ARCH_SET_CPUID else EINVAL, "")


@syscall(135, partial="ADDR_NO_RANDOMIZE, ADDR_COMPAT_LAYOUT and READ_IMPLIES_EXEC have an effect; kept per process")
def personality(task: Task, persona: U32) -> int:
    """personality(2): the execution domain; 0xffffffff only reads it. Never fails."""
    before = task.memory.personality
    if persona != 0xFFFF_FFFF:
        task.memory.personality = persona
    return before
