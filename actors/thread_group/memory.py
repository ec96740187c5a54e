"""The memory of a process: its mappings, its heap's end, and where arguments, environment and program lie.

Linux counterpart: struct mm_struct; mm/mmap.c, mm/mprotect.c, mm/mremap.c.  A MemoryManager owns the list of mappings,
which is the truth for /proc/PID/maps, save and restore; the pages themselves are the host's.  Each operation checks
what Linux checks, in Linux's order, makes the injected host call at an address chosen here, and then updates the list:
a refusal of the host leaves the list as it was.

Differences from Linux: the stack is mapped at its full size at once, so the kernel's own copies never have to grow it;
shared anonymous memory is a memfd per mapping, which fork shares and a save writes once; there are no huge pages.
"""

from __future__ import annotations

import operator
import os
from errno import EACCES, EAGAIN, EEXIST, EFAULT, EINVAL, ENODEV, ENOMEM, EOPNOTSUPP, EPERM
from typing import TYPE_CHECKING, Any, Final

from ...config.limits import MAX_MAP_COUNT
from ...platform.interface import GUEST_TOP
from .limits import Resource
from .user_access import UserAccess
from .vma import (
    NOWHERE,
    PAGE_SIZE,
    VM_ACCESS,
    VM_ACCOUNT,
    VM_DONTCOPY,
    VM_DONTEXPAND,
    VM_EXEC,
    VM_GROWSDOWN,
    VM_LOCKED,
    VM_LOCKONFAULT,
    VM_MAYACCESS,
    VM_MAYSHARE,
    VM_MAYWRITE,
    VM_NORESERVE,
    VM_READ,
    VM_SHARED,
    VM_WRITE,
    Vma,
    page_align,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ...platform.interface import AddressSpace
    from .actor import ThreadGroup
    from .host import WorkerHost
    from .task import Task
    from .vma import Backing, VmaList

__all__ = ["MemoryManager", "SharedMemory"]

MAP_SHARED: Final = 0x01
MAP_PRIVATE: Final = 0x02
MAP_SHARED_VALIDATE: Final = 0x03
MAP_TYPE: Final = 0x0F
MAP_FIXED: Final = 0x10
MAP_ANONYMOUS: Final = 0x20
MAP_32BIT: Final = 0x40
MAP_GROWSDOWN: Final = 0x0100
MAP_LOCKED: Final = 0x2000
MAP_NORESERVE: Final = 0x4000
MAP_POPULATE: Final = 0x8000
MAP_NONBLOCK: Final = 0x10000
MAP_STACK: Final = 0x20000
MAP_HUGETLB: Final = 0x40000
MAP_SYNC: Final = 0x80000
MAP_FIXED_NOREPLACE: Final = 0x100000
#: What RLIMIT_DATA counts has VM_WRITE alone of these.
_DATA_MASK: Final = VM_WRITE | VM_SHARED | VM_GROWSDOWN
#: Flags that say something about the address.
_PLACING: Final = MAP_FIXED | MAP_FIXED_NOREPLACE | MAP_32BIT
#: The flags that kernels before MAP_SHARED_VALIDATE knew, with the sizes of huge pages.
_LEGACY_MAP_MASK: Final = 0x0407F9F3 | 0x3F << 26

MREMAP_MAYMOVE: Final = 1
MREMAP_FIXED: Final = 2
MREMAP_DONTUNMAP: Final = 4

READ_IMPLIES_EXEC: Final = 0x0400000
ADDR_NO_RANDOMIZE: Final = 0x0040000
ADDR_COMPAT_LAYOUT: Final = 0x0200000

MMAP_MIN_ADDR: Final = 65536
CAP_IPC_LOCK: Final = 14
CAP_SYS_RAWIO: Final = 17
#: Linux keeps this free below a stack (stack_guard_gap).
_STACK_GUARD: Final = 256 * PAGE_SIZE
#: What a new program's stack has natively (stack_expand and a page of strings).
_FIRST_STACK_PAGES: Final = 33
_MAP_32BIT_START, _MAP_32BIT_END = 0x4000_0000, 0x8000_0000
#: Most that is taken on the host above ``mmap_base``, without memory: what a random base needs.
_MOST_TAKEN_BYTES: Final = 1 << 41


def _error(errno: int, text: str = "") -> OSError:
    return OSError(errno, text or os.strerror(errno))


class SharedMemory:
    """Shared anonymous memory: a host memfd that every process which inherits the mapping shares."""

    __slots__ = ("_host", "_users", "dev", "flags", "host_fd", "ino", "path")

    def __init__(self, host: WorkerHost, length: int) -> None:
        self._host = host
        self._users = 0
        try:
            self.host_fd = host.make_memfd(b"shared", 0)
        except OSError:
            # Of this worker's descriptors the guest knows nothing: it is out of memory.
            raise _error(ENOMEM) from None
        try:
            host.truncate(self.host_fd, length)
        except OSError:
            host.close(self.host_fd)
            raise
        self.path = b"/dev/zero (deleted)"
        self.dev = 1
        self.ino = host.file_status(self.host_fd)[1]
        self.flags = os.O_RDWR

    def hold(self) -> SharedMemory:
        """Count one more address space that maps it."""
        self._users += 1
        return self

    def release(self) -> None:
        """Count one less; the last one frees the memory."""
        self._users -= 1
        if self._users <= 0 and self.host_fd >= 0:
            self._host.close(self.host_fd)
            self.host_fd = -1


class MemoryManager(UserAccess):
    """One guest address space. ThreadGroups that share memory (CLONE_VM, vfork) share one of these."""

    def __init__(self, space: AddressSpace) -> None:
        super().__init__(space)
        self._users = 1
        self.start_brk = 0
        self.brk_end = 0
        self.start_code = self.end_code = 0
        self.start_data = self.end_data = 0
        self.start_stack = 0
        #: Pages of the stack that Linux would not have mapped yet; RLIMIT_AS does not count them.
        self.idle_stack_pages = 0
        self.arg_start = self.arg_end = 0
        self.env_start = self.env_end = 0
        #: The program, which /proc/PID/exe leads to; held while this memory lives (mm->exe_file).
        self.executable: Backing | None = None
        #: As /proc/PID/auxv shows it.
        self.auxv = b""
        #: personality(2); here because it survives exec and fork as the memory layout that it chooses does.
        self.personality = 0
        #: Where mappings are placed from, downwards.
        self.mmap_base = GUEST_TOP - (1 << 30)
        #: The same while the host, when it chooses, would place a mapping where we do; else 0.
        self.natural_base = 0
        #: Upwards instead (ADDR_COMPAT_LAYOUT, or a stack without limit).
        self.bottom_up = False
        #: VM_* flags of future mappings (mlockall(MCL_FUTURE)).
        self.future_flags = 0
        #: MEMBARRIER_CMD_REGISTER_* that were called.
        self.membarrier_registrations = 0
        #: Peak resident set in KiB, as of the last times that CPU time was read and of threads that have gone.
        self.max_rss_kib = 0
        #: What the forker had in use when this memory was copied from its own; 0 for what no fork has made.
        self.forked_rss_kib = 0
        #: The last look at what is in use, for forks: when (ns of the guest's monotonic clock), and KiB.
        self.recent_rss = (0, 0)

    # -- users --------------------------------------------------------------------------------------------------

    def share(self, _group: ThreadGroup) -> MemoryManager:
        """Count one more thread group that runs in this memory."""
        self._users += 1
        return self

    def drop(self, _group: ThreadGroup) -> None:
        """A thread group is gone or has exec'ed; the last one lets the files go. The pages go with the host tasks."""
        self._users -= 1
        if self._users == 0:
            self.vmas.clear()
            self._changed()
            self.set_executable(None)

    def set_executable(self, file: Backing | None) -> None:
        """Hold *file*, the program, and let the one before go."""
        before, self.executable = self.executable, file
        if file is not None:
            file.hold()
        if before is not None:
            before.release()

    @property
    def shared(self) -> bool:
        """Whether other thread groups run in this memory too."""
        return self._users > 1

    def fork(self, space: AddressSpace, _group: ThreadGroup) -> MemoryManager:
        """Return what a forked child has; the host has copied the pages, honouring MADV_DONTFORK and WIPEONFORK."""
        child = MemoryManager(space)
        for name, value in zip(_INHERITED, _inherited(self), strict=True):
            setattr(child, name, value)
        child.natural_base = self.natural_base
        child.set_executable(self.executable)
        if self.vmas.flags_seen & _NOT_INHERITED:
            child._inherit_some(self.vmas)
        else:
            child.share_mappings(self.vmas)
        return child

    def share_mappings(self, vmas: VmaList) -> None:
        """Have all of *vmas* mapped in this new address space, as the host has already."""
        self.vmas = vmas.fork()
        for file in self.vmas.file_users:
            file.hold()

    def _inherit_some(self, vmas: VmaList) -> None:
        """Take over a parent's mappings but for those that do not go to children; locks do not either."""
        self.vmas.restored = vmas.restored.copy()
        for vma in vmas:
            if not vma.flags & VM_DONTCOPY:
                copy = vma.part(vma.start, vma.end)
                copy.flags &= ~(VM_LOCKED | VM_LOCKONFAULT)
                self._add(copy)

    def after_fork(self, _child: Task) -> None:
        """Nothing is left to do in the child: the host's fork has honoured the advice that was passed on to it."""

    # -- changes of the list ------------------------------------------------------------------------------------

    def _add(self, vma: Vma) -> None:
        """Insert *vma* where nothing is mapped; its file is held while it has mappings here."""
        if vma.file is not None and vma.file not in self.vmas.file_users:
            vma.file.hold()
        self.vmas.insert(vma)
        self._hit = self._write_hit = NOWHERE

    def enter(self, vmas: list[Vma]) -> None:
        """Note what the host has mapped already in this new address space; in order, and none continues another."""
        for vma in vmas:
            self._add(vma)

    def _changed(self) -> None:
        """The list has lost mappings: forget the last hit, and let files go that have none left."""
        self._hit = self._write_hit = NOWHERE
        users = self.vmas.file_users
        if 0 in users.values():
            for file in [file for file, count in users.items() if count == 0]:
                del users[file]
                file.release()

    def set_flags(self, start: int, end: int, clear: int, put: int) -> None:
        """Change VM_* flags of everything mapped in the range."""
        self.vmas.set_flags(start, end, clear, put)
        self._hit = self._write_hit = NOWHERE

    def _replace(self, vma: Vma) -> None:
        """Put *vma* in place of whatever is mapped there."""
        if self.vmas.overlapping(vma.start, vma.end):
            self.vmas.cut(vma.start, vma.end)
            self._add(vma)
            self._changed()
        else:
            self._add(vma)

    # -- where --------------------------------------------------------------------------------------------------

    def agree_with_host(self, task: Task) -> None:
        """Have the host choose as we do in this empty memory: all between our base and its own is taken from now on."""
        base = task.worker.platform.mmap_base
        if self.bottom_up or not 0 <= base - self.mmap_base <= _MOST_TAKEN_BYTES:
            return
        if base > self.mmap_base:
            flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
            task.host.mmap(self.mmap_base, base - self.mmap_base, 0, flags)
        self.natural_base = self.mmap_base

    def _freed(self, end: int) -> None:
        """Something that ended at *end* is unmapped: above our base the host would use the room."""
        if end > self.mmap_base:
            self.natural_base = 0
        self._changed()

    def find_gap(self, length: int, *, low: int = MMAP_MIN_ADDR, high: int = 0) -> int:
        """Return the highest free address for *length* bytes below *high* (0: mmap_base). ENOMEM."""
        if self.bottom_up and high == 0:
            return self._find_above(length)
        top = self.vmas.find_gap(length, high or self.mmap_base, _STACK_GUARD, not high)
        address = (top - length) & -PAGE_SIZE
        if address >= low:
            return address
        if high == 0:
            return self._find_above(length)
        raise _error(ENOMEM)

    def _find_above(self, length: int) -> int:
        """Nothing is free below mmap_base: return the lowest free address above it (arch_get_unmapped_area)."""
        address = self.mmap_base
        for vma in self.vmas.overlapping(address, GUEST_TOP):
            if address + length <= self._start_with_guard(vma):
                return address
            address = max(address, vma.end)
        if address + length > GUEST_TOP:
            raise _error(ENOMEM)
        return address

    @staticmethod
    def _start_with_guard(vma: Vma) -> int:
        return max(vma.start - _STACK_GUARD, 0) if vma.flags & VM_GROWSDOWN else vma.start

    def _place(self, task: Task, address: int, length: int, flags: int) -> int:
        """Return where a new mapping goes (get_unmapped_area)."""
        if flags & (MAP_FIXED | MAP_FIXED_NOREPLACE):
            self._check_fixed(task, address, length)
            if flags & MAP_FIXED_NOREPLACE and self.vmas.overlapping(address, address + length):
                raise _error(EEXIST)
            return address
        if address:
            address = max(address & -PAGE_SIZE, MMAP_MIN_ADDR)
            if address + length <= GUEST_TOP and self._is_free(address, address + length):
                return address
        if flags & MAP_32BIT:
            return self.find_gap(length, low=_MAP_32BIT_START, high=_MAP_32BIT_END)
        return self.find_gap(length)

    def _is_free(self, start: int, end: int) -> bool:
        above = self.vmas.at_or_above(start)
        return above is None or end <= self._start_with_guard(above)

    @staticmethod
    def _check_fixed(task: Task, address: int, length: int) -> None:
        if address > GUEST_TOP - length:
            raise _error(ENOMEM)
        if address % PAGE_SIZE:
            raise _error(EINVAL)
        if address < MMAP_MIN_ADDR and not task.group.credentials.has(CAP_SYS_RAWIO):
            raise _error(EPERM)

    # -- limits -------------------------------------------------------------------------------------------------

    def check_growth(self, task: Task, pages: int, flags: int) -> None:
        """ENOMEM when *pages* more pages with VM_* *flags* are too many (may_expand_vm)."""
        limits, vmas = task.group.limits, self.vmas
        if vmas.total_pages - self.idle_stack_pages + pages > limits.memory_pages:
            raise _error(ENOMEM)
        if flags & _DATA_MASK == VM_WRITE and vmas.data_pages + pages > limits.data_pages:
            raise _error(ENOMEM)

    def check_lock(self, task: Task, pages: int, errno: int) -> None:
        """Raise *errno* when *pages* more locked pages are more than RLIMIT_MEMLOCK allows."""
        allowed = task.group.limits.soft(Resource.MEMLOCK) // PAGE_SIZE
        if self.vmas.locked_pages + pages > allowed and not task.group.credentials.has(CAP_IPC_LOCK):
            raise _error(errno)

    # -- mmap ---------------------------------------------------------------------------------------------------

    def map(
        self, task: Task, address: int, length: int, prot: int, flags: int, file: Backing | None = None, offset: int = 0
    ) -> int:
        """mmap(2); *file* is None for anonymous memory. Returns the address; OSError with mmap's errno."""
        if length == 0:
            raise _error(EINVAL)
        length = page_align(length)
        if length > GUEST_TOP or len(self.vmas) > MAX_MAP_COUNT:
            raise _error(ENOMEM)
        if prot & VM_READ and self.personality & READ_IMPLIES_EXEC:
            prot |= VM_EXEC
        anywhere = not address and not flags & _PLACING
        address = self._place(task, address, length, flags)
        end = address + length
        vm_flags = prot & VM_ACCESS | self.future_flags
        if flags & MAP_LOCKED:
            vm_flags |= VM_LOCKED
        if vm_flags & VM_LOCKED:
            self._check_map_locked(task, length // PAGE_SIZE)
        vm_flags |= _file_flags(file, prot, flags) if file is not None else _anonymous_flags(flags)
        if vm_flags & (VM_WRITE | VM_SHARED | VM_NORESERVE) == VM_WRITE:
            vm_flags |= VM_ACCOUNT
        replaced = self._mapped_pages(address, end) if flags & MAP_FIXED else 0  # everywhere else the place is free
        self.check_growth(task, length // PAGE_SIZE - replaced, vm_flags)
        vma = Vma(address, end, vm_flags, file, offset if file else 0)
        self._map_now(task, vma, flags, natural=anywhere and end <= self.natural_base)
        if flags & MAP_GROWSDOWN:
            self.natural_base = 0  # the host keeps no guard below this mapping
        return address

    def _check_map_locked(self, task: Task, pages: int) -> None:
        privileged = task.group.credentials.has(CAP_IPC_LOCK)
        if not privileged and not task.group.limits.soft(Resource.MEMLOCK):
            raise _error(EPERM)
        self.check_lock(task, pages, EAGAIN)

    def _mapped_pages(self, start: int, end: int) -> int:
        there = self.vmas.overlapping(start, end)
        return sum([min(v.end, end) - max(v.start, start) for v in there]) // PAGE_SIZE

    def _map_now(self, task: Task, vma: Vma, flags: int, *, natural: bool) -> None:
        created = None
        if vma.flags & VM_SHARED and vma.file is None:
            created = vma.file = SharedMemory(task.worker.host, vma.end - vma.start)
        extra = flags & (MAP_POPULATE | MAP_NONBLOCK | MAP_FIXED)
        if vma.end > self.mmap_base and not self.bottom_up:
            extra |= MAP_FIXED  # to the host it may be taken
        try:
            map_on_host(task, vma, extra, natural=natural)
        except OSError:
            if created is not None:
                created.release()
            raise
        if flags & MAP_FIXED:
            self._replace(vma)
        else:
            self._add(vma)

    def map_stack(self, task: Task, start: int, end: int, *, executable: bool) -> None:
        """Map a new program's stack; memory that is not touched is not there."""
        flags = VM_READ | VM_WRITE | VM_MAYACCESS | VM_GROWSDOWN | VM_NORESERVE | (VM_EXEC if executable else 0)
        vma = Vma(start, end, flags)
        self.idle_stack_pages = max(vma.pages - _FIRST_STACK_PAGES, 0)
        map_on_host(task, vma, 0)
        self._add(vma)

    def map_special(self, task: Task, parts: Sequence[Vma]) -> None:
        """Map neighbouring parts of one host file by one host call (install_special_mapping). ENOMEM.

        The host gives each part what all may do together, which is why the list of mappings decides.
        """
        start, end = parts[0].start, parts[-1].end
        self.check_growth(task, (end - start) // PAGE_SIZE, 0)
        prot = 0
        for part in parts:
            prot |= host_prot(part.flags)
        assert parts[0].file is not None
        task.host.mmap(start, end - start, prot, MAP_PRIVATE, parts[0].file.host_fd, parts[0].offset)
        for part in parts:
            self._add(part)

    def grow_stack(self, task: Task, address: int) -> bool:
        """A fault at *address*: extend the stack mapping above it if that is what is missing (expand_stack).

        The caller retries the instruction when True, else it is a SIGSEGV.
        """
        if not MMAP_MIN_ADDR <= address < GUEST_TOP:
            return False
        stack = self.vmas.at_or_above(address)
        start = address & -PAGE_SIZE
        if stack is None or not stack.flags & VM_GROWSDOWN or stack.start <= address:
            return False
        below = self.vmas.below(stack.start)
        gap = 0 if below is None or below.flags & VM_GROWSDOWN or not below.flags & VM_ACCESS else _STACK_GUARD
        if below is not None and start < below.end + gap:
            return False
        if stack.end - start > task.group.limits.soft(Resource.STACK):
            return False
        try:
            self.check_growth(task, (stack.start - start) // PAGE_SIZE, stack.flags)
            map_on_host(task, Vma(start, stack.start, stack.flags), 0)
        except OSError:
            return False
        self.vmas.extend_down(stack, start)
        return True

    # -- munmap -------------------------------------------------------------------------------------------------

    def unmap(self, task: Task, address: int, length: int) -> None:
        """munmap(2). EINVAL, ENOMEM when a split would make too many mappings."""
        if address % PAGE_SIZE or length == 0 or address > GUEST_TOP or length > GUEST_TOP - address:
            raise _error(EINVAL)
        end = address + page_align(length)
        vma = self.vmas.at_or_above(address)
        if vma is None or vma.start >= end:
            return
        if vma.start < address and end < vma.end and len(self.vmas) >= MAX_MAP_COUNT:  # a split
            raise _error(ENOMEM)
        task.host.munmap(address, end - address)
        self.vmas.cut(address, end)
        self._freed(end)

    # -- mprotect -----------------------------------------------------------------------------------------------

    def protect(self, task: Task, start: int, end: int, prot: int) -> None:
        """Set PROT_* on the range, mapping by mapping until one refuses: EACCES, or ENOMEM at a hole."""
        if prot & VM_READ and self.personality & READ_IMPLIES_EXEC:
            prot |= VM_EXEC
        prot &= VM_ACCESS
        reached, refusal = self._protectable(task, start, end, prot)
        if reached > start:
            task.host.mprotect(start, reached - start, host_prot(prot))
            self.vmas.set_flags(start, reached, VM_ACCESS, prot, account=bool(prot & VM_WRITE))
            self._hit = self._write_hit = NOWHERE
        if refusal is not None:
            raise refusal

    def _protectable(self, task: Task, start: int, end: int, prot: int) -> tuple[int, OSError | None]:
        """Return how far the range can get *prot*, and what stops it there."""
        reached = start
        for vma in self.vmas.overlapping(start, end):
            if vma.start > reached:
                break
            if prot & ~(vma.flags >> 4) & VM_ACCESS:
                return reached, _error(EACCES)
            if prot & VM_WRITE and not vma.flags & (VM_WRITE | VM_SHARED):
                try:
                    self.check_growth(task, 0, vma.flags | VM_WRITE)
                except OSError as error:
                    return reached, error
            reached = min(vma.end, end)
        return reached, None if reached >= end else _error(ENOMEM)

    # -- brk ----------------------------------------------------------------------------------------------------

    def brk(self, task: Task, address: int) -> int:
        """brk(2): move the heap's end and return where it is now; a refusal leaves it."""
        if not self.start_brk <= address <= GUEST_TOP:
            return self.brk_end
        data = address - self.start_brk + self.end_data - self.start_data
        if data > task.group.limits.soft(Resource.DATA):
            return self.brk_end
        old, new = page_align(self.brk_end), page_align(address)
        try:
            if new < old:
                task.host.munmap(new, old - new)
                self.vmas.cut(new, old)
                self._freed(old)
            elif new > old:
                self._grow_heap(task, old, new)
        except OSError:
            return self.brk_end
        self.brk_end = address
        return address

    def _grow_heap(self, task: Task, old: int, new: int) -> None:
        # A page stays free between the heap and what follows it.
        if not self._is_free(old, new + PAGE_SIZE) or new > GUEST_TOP or len(self.vmas) > MAX_MAP_COUNT:
            raise _error(ENOMEM)
        flags = _DATA_FLAGS | self.future_flags
        self.check_growth(task, (new - old) // PAGE_SIZE, flags)
        if flags & VM_LOCKED:
            self.check_lock(task, (new - old) // PAGE_SIZE, EAGAIN)
        vma = Vma(old, new, flags)
        map_on_host(task, vma, 0)
        self._add(vma)

    # -- mremap -------------------------------------------------------------------------------------------------

    def remap(self, task: Task, old: int, old_length: int, new_length: int, flags: int, new: int) -> int:
        """mremap(2). Returns the new address; EAGAIN, EFAULT, EINVAL, ENOMEM."""
        if flags & ~7 or flags & (MREMAP_FIXED | MREMAP_DONTUNMAP) and not flags & MREMAP_MAYMOVE:
            raise _error(EINVAL)
        if flags & MREMAP_DONTUNMAP and old_length != new_length:
            raise _error(EINVAL)
        old_length, new_length = page_align(old_length), page_align(new_length)
        if old % PAGE_SIZE or not new_length or old + old_length > 1 << 64:
            raise _error(EINVAL)
        vma = self.vmas.find(old)
        if vma is None:
            raise _error(EFAULT)
        if flags & (MREMAP_FIXED | MREMAP_DONTUNMAP):
            return self._remap_to(task, vma, old, old_length, new_length, flags, new)
        if old_length >= new_length:
            if old_length > new_length:
                self.unmap(task, old + new_length, old_length - new_length)
            return old
        self._check_resize(task, vma, old, old_length, new_length)
        if self._expand(task, vma, old, old_length, new_length):
            return old
        if not flags & MREMAP_MAYMOVE:
            raise _error(ENOMEM)
        return self._move(task, vma, old, old_length, self.find_gap(new_length), new_length, keep=False)

    def _remap_to(self, task: Task, vma: Vma, old: int, old_length: int, new_length: int, flags: int, new: int) -> int:
        """mremap_to: the caller gave the address, or wants to keep the old mapping."""
        if flags & MREMAP_FIXED:
            if new % PAGE_SIZE or new_length > GUEST_TOP or new > GUEST_TOP - new_length:
                raise _error(EINVAL)
            if old < new + new_length and new < old + old_length:
                raise _error(EINVAL)
            self._check_fixed(task, new, new_length)
            self.unmap(task, new, new_length)
        if old_length > new_length:
            self.unmap(task, old + new_length, old_length - new_length)
            old_length = new_length
        found = self.vmas.find(old)
        if found is None:
            raise _error(EFAULT)
        self._check_resize(task, found, old, old_length, new_length)
        if flags & MREMAP_DONTUNMAP:
            self.check_growth(task, old_length // PAGE_SIZE, vma.flags)
        if not flags & MREMAP_FIXED:
            new = self._place(task, new, new_length, 0)
        return self._move(task, found, old, old_length, new, new_length, keep=bool(flags & MREMAP_DONTUNMAP))

    def _check_resize(self, task: Task, vma: Vma, old: int, old_length: int, new_length: int) -> None:
        """vma_to_resize: may this part of *vma* become that long?"""
        if old_length == 0 and not vma.flags & VM_MAYSHARE:
            raise _error(EINVAL)
        if old_length > vma.end - old:
            raise _error(EFAULT)
        if new_length > old_length and vma.flags & VM_DONTEXPAND:
            raise _error(EFAULT)
        more = (new_length - old_length) // PAGE_SIZE
        if more > 0 and vma.flags & VM_LOCKED:
            self.check_lock(task, more, EAGAIN)
        self.check_growth(task, more, vma.flags)

    def _expand(self, task: Task, vma: Vma, old: int, old_length: int, new_length: int) -> bool:
        """Extend in place if there is room. The host maps the new part like the old one: the same to the guest."""
        end, new_end = old + old_length, old + new_length
        if not old_length or end != vma.end or new_end > GUEST_TOP or not self._is_free(end, new_end):
            return False
        more = Vma(end, new_end, vma.flags, vma.file, vma.offset_at(end), vma.name)
        map_on_host(task, more, 0)
        self._add(more)
        return True

    def _move(self, task: Task, vma: Vma, old: int, old_length: int, new: int, new_length: int, *, keep: bool) -> int:
        if len(self.vmas) >= MAX_MAP_COUNT - 3:
            raise _error(ENOMEM)
        self.settle(task, old, old + old_length)
        moved = Vma(new, new + new_length, vma.flags, vma.file, vma.offset_at(old), vma.name)
        if old_length == 0:
            map_on_host(task, moved, 0)
        else:
            task.host.mremap(old, old_length, new, new_length)
            (taken,) = self.vmas.cut(old, old + old_length)
            if keep:
                taken.flags &= ~(VM_LOCKED | VM_LOCKONFAULT)
                map_on_host(task, taken, 0)
                self._add(taken)
        self._add(moved)
        self._freed(old + old_length)
        return new

    # -- pages that came from a checkpoint ----------------------------------------------------------------------

    def settle(self, task: Task, start: int, end: int) -> None:
        """Make restored pages ordinary ones, for host calls that want a range to be one mapping or anonymous."""
        for first, last in self.vmas.restored.within(start, end):
            for at in range(first, last, _SETTLE_BYTES):
                piece_end = min(at + _SETTLE_BYTES, last)
                data = self.space.read(at, piece_end - at)
                self.discard_restored(task, at, piece_end)
                self.space.write(at, data)

    def discard_restored(self, task: Task, start: int, end: int) -> None:
        """Forget restored pages: what the mapping itself shows is there again."""
        for first, last in self.vmas.restored.within(start, end):
            for vma in self.vmas.overlapping(first, last):
                map_on_host(task, vma.part(max(first, vma.start), min(last, vma.end)), 0)
            self.vmas.restored.cut(first, last)

    # -- save and restore ---------------------------------------------------------------------------------------

    def snapshot_state(self, name_file: Callable[[Backing], Any]) -> dict[str, Any]:
        """Return everything but the pages as plain data; *name_file* gives a file the name that a save knows it by."""
        state: dict[str, Any] = {name: getattr(self, name) for name in _INHERITED}
        state["future_flags"], state["max_rss_kib"] = self.future_flags, self.max_rss_kib
        state["executable"] = None if self.executable is None else name_file(self.executable)
        state["vmas"] = [
            (v.start, v.end, v.flags, None if v.file is None else name_file(v.file), v.offset, v.name)
            for v in self.vmas
        ]
        return state

    def load_state(self, task: Task, state: dict[str, Any], file_of: Callable[[Any], Backing]) -> None:
        """Become what was saved, mapping everything in *task*'s empty address space; the pages come after."""
        for name in _INHERITED:
            setattr(self, name, state[name])
        self.agree_with_host(task)
        self.future_flags, self.max_rss_kib = state["future_flags"], state["max_rss_kib"]
        self.set_executable(None if state["executable"] is None else file_of(state["executable"]))
        for start, end, flags, file, offset, name in state["vmas"]:
            vma = Vma(start, end, flags, None if file is None else file_of(file), offset, name)
            map_on_host(task, vma, 0)
            self._add(vma)


_NOT_INHERITED: Final = VM_DONTCOPY | VM_LOCKED | VM_LOCKONFAULT
#: Restored pages that are settled at once, in bytes.
_SETTLE_BYTES: Final = 1 << 20
#: What fork copies and a save keeps, beside the mappings.
_INHERITED: Final = (
    "start_brk",
    "brk_end",
    "start_code",
    "end_code",
    "start_data",
    "end_data",
    "start_stack",
    "idle_stack_pages",
    "arg_start",
    "arg_end",
    "env_start",
    "env_end",
    "auxv",
    "personality",
    "mmap_base",
    "bottom_up",
    "membarrier_registrations",
)
_inherited: Final = operator.attrgetter(*_INHERITED)
_DATA_FLAGS: Final = VM_READ | VM_WRITE | VM_MAYACCESS | VM_ACCOUNT


def host_prot(prot: int) -> int:
    """Return the protection for the host: on x86 what is writable or executable is readable.

    Saying so keeps a host CPU with protection keys from making execute-only memory, which Linux without them has not.
    """
    return prot & VM_ACCESS | (VM_READ if prot & (VM_WRITE | VM_EXEC) else 0)


def map_on_host(task: Task, vma: Vma, extra_flags: int, *, natural: bool = False) -> None:
    """Make the host map what *vma* says; *natural* as ``HostTask.mmap`` has it."""
    file = vma.file
    flags = (MAP_SHARED if vma.flags & VM_MAYSHARE else MAP_PRIVATE) | extra_flags
    if vma.flags & VM_NORESERVE:
        flags |= MAP_NORESERVE
    fd = -1
    if file is None:
        flags |= MAP_ANONYMOUS
    else:
        fd = file.host_fd
    task.host.mmap(vma.start, vma.end - vma.start, host_prot(vma.flags), flags, fd, vma.offset, natural=natural)


def _anonymous_flags(flags: int) -> int:
    """Return the VM_* flags that the MAP_* *flags* of anonymous memory mean. EINVAL."""
    kind = flags & MAP_TYPE
    if kind == MAP_PRIVATE:
        extra = VM_GROWSDOWN if flags & MAP_GROWSDOWN else 0
    elif kind == MAP_SHARED and not flags & MAP_GROWSDOWN:
        extra = VM_SHARED | VM_MAYSHARE
    else:
        raise _error(EINVAL)
    return VM_MAYACCESS | extra | (VM_NORESERVE if flags & MAP_NORESERVE else 0)


def _file_flags(file: Backing, prot: int, flags: int) -> int:
    """Check a mapping of *file* against how it was opened, and return its VM_* flags."""
    mode = file.flags & os.O_ACCMODE
    kind = flags & MAP_TYPE
    result = VM_MAYACCESS | (VM_NORESERVE if flags & MAP_NORESERVE else 0)
    if kind in (MAP_SHARED, MAP_SHARED_VALIDATE):
        if kind == MAP_SHARED_VALIDATE and flags & ~_LEGACY_MAP_MASK:
            raise _error(EOPNOTSUPP)
        if prot & VM_WRITE and mode == os.O_RDONLY:
            raise _error(EACCES)
        result |= VM_MAYSHARE | VM_SHARED
        if mode == os.O_RDONLY:
            result &= ~(VM_MAYWRITE | VM_SHARED)
    elif kind != MAP_PRIVATE:
        raise _error(EINVAL)
    if mode == os.O_WRONLY:
        raise _error(EACCES)
    if file.host_fd < 0:
        raise _error(ENODEV)
    if flags & MAP_GROWSDOWN:
        raise _error(EINVAL)
    return result
