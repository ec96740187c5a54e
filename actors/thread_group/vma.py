"""One process's mappings in address order: what is mapped where, and with which permissions.

Linux counterpart: struct vm_area_struct and its maple tree (include/linux/mm.h, mm/vma.c).  Pure bookkeeping: nothing
here touches the host.  Mappings split and merge as in Linux, so that /proc/PID/maps reads the same.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Any, Final, Protocol

from .ranges import Ranges

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PAGE_SIZE", "Backing", "Vma", "VmaList", "page_align"]

PAGE_SIZE: Final = 4096
_PAGE_MASK: Final = PAGE_SIZE - 1

# VM_* (include/linux/mm.h); the low three bits are PROT_READ, PROT_WRITE and PROT_EXEC.
VM_READ: Final = 0x1
VM_WRITE: Final = 0x2
VM_EXEC: Final = 0x4
VM_SHARED: Final = 0x8
VM_MAYREAD: Final = 0x10
VM_MAYWRITE: Final = 0x20
VM_MAYEXEC: Final = 0x40
VM_MAYSHARE: Final = 0x80
VM_GROWSDOWN: Final = 0x100
VM_PFNMAP: Final = 0x400
VM_LOCKED: Final = 0x2000
VM_IO: Final = 0x4000
VM_SEQ_READ: Final = 0x8000
VM_RAND_READ: Final = 0x10000
VM_DONTCOPY: Final = 0x20000
VM_DONTEXPAND: Final = 0x40000
VM_LOCKONFAULT: Final = 0x80000
VM_ACCOUNT: Final = 0x100000
VM_NORESERVE: Final = 0x200000
VM_WIPEONFORK: Final = 0x2000000
VM_DONTDUMP: Final = 0x4000000
VM_HUGEPAGE: Final = 0x20000000
VM_NOHUGEPAGE: Final = 0x40000000
VM_MERGEABLE: Final = 0x80000000
#: Mappings that are no ordinary memory.
VM_SPECIAL: Final = VM_IO | VM_DONTEXPAND | VM_PFNMAP
#: Permissions in force.
VM_ACCESS: Final = VM_READ | VM_WRITE | VM_EXEC
#: Permissions that mprotect may give.
VM_MAYACCESS: Final = VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC


def page_align(length: int) -> int:
    """Round *length* up to whole pages."""
    return (length + _PAGE_MASK) & ~_PAGE_MASK


class Backing(Protocol):
    """What a mapping of a file needs of it: open files and shared anonymous memory have these."""

    #: Host descriptor that is mapped, -1 when the file cannot be.
    host_fd: int
    #: Access mode and status flags.
    flags: int

    @property
    def dev(self) -> int:
        """st_dev."""

    @property
    def ino(self) -> int:
        """st_ino."""

    @property
    def path(self) -> bytes:
        """As /proc/PID/maps shows it."""

    def hold(self) -> Any:
        """Count one more user."""

    def release(self) -> None:
        """Count one user less."""


class Vma:
    """One mapping. *offset* is the file's at *start*, in bytes; 0 for private anonymous memory."""

    __slots__ = ("end", "file", "flags", "name", "offset", "start")

    def __init__(
        self, start: int, end: int, flags: int, file: Backing | None = None, offset: int = 0, name: str = ""
    ) -> None:
        self.start = start
        self.end = end
        self.flags = flags
        self.file = file
        self.offset = offset
        self.name = name

    def __repr__(self) -> str:
        return f"Vma({self.start:#x}-{self.end:#x}, {self.flags:#x}, {self.file!r}, {self.offset:#x})"

    @property
    def prot(self) -> int:
        """PROT_* in force."""
        return self.flags & VM_ACCESS

    @property
    def pages(self) -> int:
        """Length in pages."""
        return (self.end - self.start) // PAGE_SIZE

    @property
    def is_data(self) -> bool:
        """Whether it counts against RLIMIT_DATA (is_data_mapping): private, writable, no stack."""
        return self.flags & (VM_WRITE | VM_SHARED | VM_GROWSDOWN) == VM_WRITE

    def offset_at(self, address: int) -> int:
        """Return the file offset that *address* shows."""
        return self.offset + (address - self.start) if self.file is not None else 0

    def part(self, start: int, end: int) -> Vma:
        """Return a mapping like this one, of the part from *start* to *end*."""
        return Vma(start, end, self.flags, self.file, self.offset_at(start), self.name)

    def joins(self, after: Vma) -> bool:
        """Return whether *after* continues this mapping, so that Linux would make one of the two."""
        return (
            self.flags == after.flags
            and self.end == after.start
            and self.file is after.file
            and self.name == after.name
            and (self.file is None or self.offset_at(self.end) == after.offset)
        )


#: Contains nothing: where the search cache points when it is stale.
NOWHERE: Final = Vma(0, 0, 0)


class VmaList:
    """The mappings of one address space, ordered, without overlap.

    A fork shares the mappings with its parent until either changes one (``_own``): most children exit or exec before.
    """

    __slots__ = (
        "_gap_hints",
        "_shared",
        "_starts",
        "_vmas",
        "data_pages",
        "file_users",
        "flags_seen",
        "locked_pages",
        "restored",
        "total_pages",
    )

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._vmas: list[Vma] = []
        #: A parent or child may look at the same two lists and mappings.
        self._shared = False
        #: By k: no gap of 2**k pages begins or ends above that address (and below where ``find_gap`` begins).
        self._gap_hints: dict[int, int] = {}
        #: Pages mapped, and of them those that RLIMIT_DATA and RLIMIT_MEMLOCK count.
        self.total_pages = 0
        self.data_pages = 0
        self.locked_pages = 0
        #: All flags that any mapping has had: what is not here need not be looked for.
        self.flags_seen = 0
        #: How many mappings each file has here.
        self.file_users: dict[Backing, int] = {}
        #: Where private pages are the host's mapping of a checkpoint rather than what the mapping says.
        self.restored = Ranges()

    def __len__(self) -> int:
        return len(self._vmas)

    def __iter__(self) -> Iterator[Vma]:
        return iter(self._vmas)

    # -- searching ----------------------------------------------------------------------------------------------

    def find(self, address: int) -> Vma | None:
        """Return the mapping that contains *address*."""
        index = bisect_right(self._starts, address) - 1
        if index >= 0:
            vma = self._vmas[index]
            if address < vma.end:
                return vma
        return None

    def at_or_above(self, address: int) -> Vma | None:
        """Return the first mapping that ends above *address* (find_vma)."""
        index = self._first(address)
        return self._vmas[index] if index < len(self._vmas) else None

    def below(self, address: int) -> Vma | None:
        """Return the last mapping that starts below *address*."""
        index = bisect_right(self._starts, address - 1) - 1
        return self._vmas[index] if index >= 0 else None

    def overlapping(self, start: int, end: int) -> list[Vma]:
        """Return the mappings that overlap the range, in order."""
        first = self._first(start)
        last = bisect_right(self._starts, end - 1)
        return self._vmas[first:last]

    def covers(self, start: int, end: int) -> bool:
        """Return whether the range has no hole."""
        for vma in self.overlapping(start, end):
            if vma.start > start:
                return False
            start = vma.end
        return start >= end

    def find_gap(self, length: int, top: int, guard: int, hinted: bool) -> int:
        """Return the end of the highest gap of *length* bytes below *top*; *guard* bytes stay free below a stack.

        It may begin below 0: there is none then.  With *hinted*, *top* must be the same each time: what was found
        to be full is not looked at again until something there is unmapped, so that filling an address space
        does not take longer and longer.
        """
        kind = (length // PAGE_SIZE).bit_length() - 1
        if hinted:
            top = min(top, self._gap_hints.get(kind, top))
        first = 0
        for index in range(bisect_right(self._starts, top - 1) - 1, -1, -1):
            vma = self._vmas[index]
            gap = top - vma.end
            if gap >= PAGE_SIZE << kind:
                first = first or top
                if gap >= length:
                    break
            top = min(top, vma.start - guard if vma.flags & VM_GROWSDOWN else vma.start)
        if hinted:
            self._gap_hints[kind] = first or top
        return top

    def _first(self, address: int) -> int:
        index = bisect_right(self._starts, address) - 1
        if index >= 0 and address < self._vmas[index].end:
            return index
        return index + 1

    # -- changing -----------------------------------------------------------------------------------------------

    def fork(self) -> VmaList:
        """Return a list of the same mappings. The caller holds the files once more."""
        child = VmaList()
        child._starts, child._vmas = self._starts, self._vmas
        child._shared = self._shared = True
        child._gap_hints = self._gap_hints.copy()
        child.total_pages, child.data_pages, child.locked_pages = self.total_pages, self.data_pages, self.locked_pages
        child.flags_seen = self.flags_seen
        child.file_users = self.file_users.copy()
        child.restored = self.restored.copy()
        return child

    def _own(self) -> None:
        """Every change begins here: what others may look at is copied first."""
        if self._shared:
            self._shared = False
            self._starts = self._starts.copy()
            self._vmas = [Vma(v.start, v.end, v.flags, v.file, v.offset, v.name) for v in self._vmas]

    def clear(self) -> None:
        """Take everything out."""
        self._starts, self._vmas, self._shared = [], [], False
        self._gap_hints.clear()
        self.total_pages = self.data_pages = self.locked_pages = 0
        self.file_users = dict.fromkeys(self.file_users, 0)
        self.restored = Ranges()

    def insert(self, vma: Vma) -> None:
        """Add a mapping where nothing is mapped, and merge it with its neighbours."""
        self._own()
        self._count(vma, 1)
        vmas, starts, start, end = self._vmas, self._starts, vma.start, vma.end
        index = bisect_right(starts, start)
        after = vmas[index] if index < len(vmas) and starts[index] == end and vma.joins(vmas[index]) else None
        if index and (before := vmas[index - 1]).end == start and before.joins(vma):
            self._uncount_joined(vma)
            before.end = end
            if after is not None:
                self._uncount_joined(after)
                before.end = after.end
                del vmas[index], starts[index]
        elif after is not None:
            self._uncount_joined(after)
            vma.end = after.end
            vmas[index], starts[index] = vma, start
        else:
            starts.insert(index, start)
            vmas.insert(index, vma)

    def cut(self, start: int, end: int) -> list[Vma]:
        """Take the range out, splitting the mappings at its ends, and return what was there."""
        if self._shared:
            self._own()
        index = bisect_right(self._starts, start) - 1
        if index >= 0:
            vma = self._vmas[index]
            if end <= vma.end and (vma.start == start or vma.end == end):
                return [self._cut_one(index, vma, start, end)]
        self.split(start)
        self.split(end)
        first = self._first(start)
        last = bisect_right(self._starts, end - 1)
        gone = self._vmas[first:last]
        del self._vmas[first:last], self._starts[first:last]
        if self.restored:
            self.restored.cut(start, end)
        for vma in gone:
            self._count(vma, -1)
        self._note_gap(first)
        return gone

    def _cut_one(self, index: int, vma: Vma, start: int, end: int) -> Vma:
        """Take out one whole mapping, or one end of it: what programs mostly unmap."""
        if self.restored:
            self.restored.cut(start, end)
        if vma.start == start and vma.end == end:
            gone = vma
            del self._vmas[index], self._starts[index]
            self._count(gone, -1)
        else:
            gone = vma.part(start, end)
            if vma.start == start:
                vma.offset = vma.offset_at(end)
                vma.start = self._starts[index] = end
            else:
                vma.end = start
                index += 1
            self._count_pages(gone, -1)
        self._note_gap(index)
        return gone

    def _note_gap(self, index: int) -> None:
        """Something is free again before the mapping at *index*."""
        starts, hints = self._starts, self._gap_hints
        bottom = self._vmas[index - 1].end if index else 0
        top = starts[index] if index < len(starts) else 1 << 64
        kinds = ((top - bottom) // PAGE_SIZE).bit_length()
        for kind, hint in hints.items():
            if hint < top and kind < kinds:
                hints[kind] = top

    def split(self, address: int) -> None:
        """Make *address* a boundary of the mapping that contains it, if any."""
        self._own()
        index = bisect_right(self._starts, address) - 1
        if index < 0:
            return
        vma = self._vmas[index]
        if not vma.start < address < vma.end:
            return
        upper = vma.part(address, vma.end)
        vma.end = address
        self._starts.insert(index + 1, address)
        self._vmas.insert(index + 1, upper)
        if vma.file is not None:
            self.file_users[vma.file] += 1

    def set_flags(self, start: int, end: int, clear: int, put: int, *, account: bool = False) -> None:
        """Change the flags of everything mapped in the range; neighbours that have become equal are merged.

        With *account*, private memory is charged from now on, and merges with none that is not.
        """
        if self._shared:
            self._own()
        vmas = self._vmas
        index = bisect_right(self._starts, start) - 1
        if index >= 0 and vmas[index].start == start and vmas[index].end == end:
            vma = vmas[index]
            self._change_flags(vma, clear, put, account)
            if index and vmas[index - 1].joins(vma) or index + 1 < len(vmas) and vma.joins(vmas[index + 1]):
                self.merge(start, end)
            return
        self.split(start)
        self.split(end)
        for vma in self.overlapping(start, end):
            self._change_flags(vma, clear, put, account)
        self.merge(start, end)

    def _change_flags(self, vma: Vma, clear: int, put: int, account: bool) -> None:
        flags = vma.flags & ~clear | put
        if account and not flags & (VM_SHARED | VM_NORESERVE):
            flags |= VM_ACCOUNT
        if flags != vma.flags:
            self._count_pages(vma, -1)
            vma.flags = flags
            self._count_pages(vma, 1)

    def set_name(self, start: int, end: int, name: str) -> None:
        """Name the anonymous memory in the range (PR_SET_VMA_ANON_NAME)."""
        self.split(start)
        self.split(end)
        for vma in self.overlapping(start, end):
            vma.name = name
        self.merge(start, end)

    def extend_down(self, vma: Vma, start: int) -> None:
        """Let a stack begin at *start*, below where it did."""
        self._own()
        index = bisect_right(self._starts, vma.start) - 1
        vma = self._vmas[index]
        self._count(vma, -1)
        vma.start = self._starts[index] = start
        self._count(vma, 1)

    def merge(self, start: int, end: int) -> None:
        """Merge neighbours that continue each other, from the one before *start* to the one at *end*."""
        self._own()
        index = max(self._first(start) - 1, 0)
        while index + 1 < len(self._vmas) and self._starts[index] <= end:
            vma, after = self._vmas[index], self._vmas[index + 1]
            if not vma.joins(after):
                index += 1
                continue
            self._uncount_joined(after)
            vma.end = after.end
            del self._vmas[index + 1], self._starts[index + 1]

    def _count(self, vma: Vma, sign: int) -> None:
        self._count_pages(vma, sign)
        if vma.file is not None:
            self.file_users[vma.file] = self.file_users.get(vma.file, 0) + sign

    def _count_pages(self, vma: Vma, sign: int) -> None:
        pages = sign * ((vma.end - vma.start) // PAGE_SIZE)
        flags = vma.flags
        self.flags_seen |= flags
        self.total_pages += pages
        if flags & (VM_WRITE | VM_SHARED | VM_GROWSDOWN) == VM_WRITE:
            self.data_pages += pages
        if flags & VM_LOCKED:
            self.locked_pages += pages

    def _uncount_joined(self, vma: Vma) -> None:
        """Two mappings have become one: the pages stay, the file has one user less."""
        if vma.file is not None:
            self.file_users[vma.file] -= 1

    def check(self) -> None:
        """Assert the invariants."""
        assert self._starts == [vma.start for vma in self._vmas], "the index matches the mappings"
        assert all(vma.start < vma.end for vma in self._vmas), "no mapping is empty"
        pairs = list(zip(self._vmas, self._vmas[1:], strict=False))
        assert all(vma.end <= after.start for vma, after in pairs), "mappings are ordered and do not overlap"
        assert self.total_pages == sum(vma.pages for vma in self._vmas), "every page is counted once"
        assert self.locked_pages == sum(vma.pages for vma in self._vmas if vma.flags & VM_LOCKED), "so are locked pages"
