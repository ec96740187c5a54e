"""The text of /proc/PID/{maps,smaps,smaps_rollup,statm,cmdline,environ,auxv}: memory as a process's neighbours see it.

Linux counterpart: fs/proc/task_mmu.c and the memory part of fs/proc/base.c.  The list of mappings is the guest's own;
how much of each is resident is the host's answer for the host task, summed over the guest's mappings.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, NamedTuple

from . import vma as flags_of
from .vma import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .actor import ThreadGroup
    from .memory import MemoryManager
    from .vma import Vma

__all__ = ["Sizes", "auxv", "cmdline", "environ", "maps", "sizes", "smaps", "smaps_rollup", "statm"]

_PAGE_KIB: Final = PAGE_SIZE // 1024
#: Column at which maps names the mapping (seq_setwidth in show_vma_header_prefix).
_NAME_COLUMN: Final = 73
#: Two letters of VmFlags by VM_* bit, in Linux's order.
_FLAG_LETTERS: Final = (
    (flags_of.VM_READ, "rd"),
    (flags_of.VM_WRITE, "wr"),
    (flags_of.VM_EXEC, "ex"),
    (flags_of.VM_SHARED, "sh"),
    (flags_of.VM_MAYREAD, "mr"),
    (flags_of.VM_MAYWRITE, "mw"),
    (flags_of.VM_MAYEXEC, "me"),
    (flags_of.VM_MAYSHARE, "ms"),
    (flags_of.VM_GROWSDOWN, "gd"),
    (flags_of.VM_PFNMAP, "pf"),
    (flags_of.VM_LOCKED, "lo"),
    (flags_of.VM_IO, "io"),
    (flags_of.VM_SEQ_READ, "sr"),
    (flags_of.VM_RAND_READ, "rr"),
    (flags_of.VM_DONTCOPY, "dc"),
    (flags_of.VM_DONTEXPAND, "de"),
    (flags_of.VM_ACCOUNT, "ac"),
    (flags_of.VM_NORESERVE, "nr"),
    (flags_of.VM_WIPEONFORK, "wf"),
    (flags_of.VM_DONTDUMP, "dd"),
    (flags_of.VM_HUGEPAGE, "hg"),
    (flags_of.VM_NOHUGEPAGE, "nh"),
    (flags_of.VM_MERGEABLE, "mg"),
)
#: What smaps counts, in Linux's order; the host's numbers are summed under these names.
_COUNTED: Final = (
    "Rss",
    "Pss",
    "Pss_Dirty",
    "Shared_Clean",
    "Shared_Dirty",
    "Private_Clean",
    "Private_Dirty",
    "Referenced",
    "Anonymous",
    "KSM",
    "LazyFree",
    "AnonHugePages",
    "ShmemPmdMapped",
    "FilePmdMapped",
    "Shared_Hugetlb",
    "Private_Hugetlb",
    "Swap",
    "SwapPss",
    "Locked",
)


class Sizes(NamedTuple):
    """Sizes of a process's memory, in KiB."""

    total: int
    locked: int
    data: int
    stack: int
    code: int
    library: int
    anonymous: int
    file: int
    shared: int
    page_tables: int
    swap: int

    @property
    def resident(self) -> int:
        """VmRSS."""
        return self.anonymous + self.file + self.shared


def sizes(group: ThreadGroup) -> Sizes:
    """Measure the memory of *group*."""
    memory = group.memory
    code = (_round_up(memory.end_code) - memory.start_code // PAGE_SIZE * PAGE_SIZE) // 1024
    executable = sum(v.pages for v in memory.vmas if _is_code(v)) * _PAGE_KIB
    resident = _host_sizes(group)
    return Sizes(
        total=memory.vmas.total_pages * _PAGE_KIB,
        locked=memory.vmas.locked_pages * _PAGE_KIB,
        data=memory.vmas.data_pages * _PAGE_KIB,
        stack=sum(v.pages for v in memory.vmas if v.flags & flags_of.VM_GROWSDOWN) * _PAGE_KIB,
        code=min(code, executable),
        library=executable - min(code, executable),
        anonymous=resident.get("RssAnon", 0),
        file=resident.get("RssFile", 0),
        shared=resident.get("RssShmem", 0),
        page_tables=resident.get("VmPTE", 0),
        swap=resident.get("VmSwap", 0),
    )


def _round_up(address: int) -> int:
    return -(-address // PAGE_SIZE) * PAGE_SIZE


def _is_code(vma: Vma) -> bool:
    """is_exec_mapping: executable, not writable, no stack."""
    wanted = flags_of.VM_EXEC
    return vma.flags & (flags_of.VM_EXEC | flags_of.VM_WRITE | flags_of.VM_GROWSDOWN) == wanted


def _host_sizes(group: ThreadGroup) -> dict[str, int]:
    for task in group.tasks.values():
        try:
            return group.worker.host.task_memory_kib(task.host.host_tid)
        except OSError:  # the host task is dying
            continue
    return {}


def statm(group: ThreadGroup) -> bytes:
    """Size, resident, shared, text, 0, data + stack, 0: in pages."""
    size = sizes(group)
    shared = size.file + size.shared
    kib = (size.total, size.resident, shared, size.code, 0, size.data + size.stack, 0)
    return " ".join(str(k // _PAGE_KIB) for k in kib).encode() + b"\n"


# -- mappings ---------------------------------------------------------------------------------------------------


def maps(memory: MemoryManager) -> bytes:
    """One line for each mapping."""
    return b"".join(_map_line(memory, vma) for vma in memory.vmas)


def _map_line(memory: MemoryManager, vma: Vma) -> bytes:
    name = _name(memory, vma)
    dev, ino = (vma.file.dev, vma.file.ino) if vma.file is not None else (0, 0)
    # The vDSO's is an offset in a file that the guest knows nothing of.
    offset = vma.offset if ino else 0
    letters = "".join(
        letter if vma.flags & bit else "-"
        for bit, letter in ((flags_of.VM_READ, "r"), (flags_of.VM_WRITE, "w"), (flags_of.VM_EXEC, "x"))
    )
    share = "s" if vma.flags & flags_of.VM_MAYSHARE else "p"
    place = f"{offset:08x} {os.major(dev):02x}:{os.minor(dev):02x} {ino}"
    line = f"{vma.start:08x}-{vma.end:08x} {letters}{share} {place} ".encode()
    return line.ljust(_NAME_COLUMN) + name + b"\n" if name else line + b"\n"


def _name(memory: MemoryManager, vma: Vma) -> bytes:
    """What the last column says (get_vma_name)."""
    if vma.file is not None and not vma.name:
        return vma.file.path.replace(b"\n", b"\\012")
    if vma.name:
        return f"[anon{'_shmem' if vma.file is not None else ''}:{vma.name}]".encode()
    if vma.start <= memory.brk_end and vma.end >= memory.start_brk and memory.brk_end > memory.start_brk:
        return b"[heap]"
    if vma.start <= memory.start_stack <= vma.end:
        return b"[stack]"
    return b""


def smaps(group: ThreadGroup) -> bytes:
    """Each mapping with what is resident of it."""
    resident = _resident(group)
    return b"".join(
        _map_line(group.memory, vma) + _smaps_counts(vma, counts)
        for vma, counts in zip(group.memory.vmas, resident, strict=True)
    )


def _smaps_counts(vma: Vma, counts: dict[str, int]) -> bytes:
    lines = [
        _count_line("Size", vma.pages * _PAGE_KIB),
        _count_line("KernelPageSize", _PAGE_KIB),
        _count_line("MMUPageSize", _PAGE_KIB),
        *(_count_line(name, counts[name]) for name in _COUNTED),
        "THPeligible:           0\n",
        "VmFlags: " + "".join(f"{letters} " for bit, letters in _FLAG_LETTERS if vma.flags & bit) + "\n",
    ]
    return "".join(lines).encode()


def _count_line(name: str, kib: int) -> str:
    return f"{name + ':':16}{kib:8} kB\n"


def smaps_rollup(group: ThreadGroup) -> bytes:
    """The sum of smaps."""
    vmas = list(group.memory.vmas)
    total = _sum(_resident(group))
    head = f"{vmas[0].start:08x}-{vmas[-1].end:08x} ---p 00000000 00:00 0 ".encode() if vmas else b""
    names = [*_COUNTED[:3], "Pss_Anon", "Pss_File", "Pss_Shmem", *_COUNTED[3:]]
    total |= {"Pss_Anon": total["Anonymous"], "Pss_File": total["Pss"] - total["Anonymous"], "Pss_Shmem": 0}
    lines = "".join(_count_line(name, max(total[name], 0)) for name in names)
    return head.ljust(_NAME_COLUMN) + b"[rollup]\n" + lines.encode()


def _resident(group: ThreadGroup) -> list[dict[str, int]]:
    """Return the counts of each mapping, in order."""
    rows: list[tuple[int, int, dict[str, int]]] = []
    for task in group.tasks.values():
        try:
            rows = group.worker.host.task_mappings_kib(task.host.host_tid)
            break
        except OSError:  # the host task is dying
            continue
    return [_sum(row for start, _, row in rows if vma.start <= start < vma.end) for vma in group.memory.vmas]


def _sum(rows: Iterable[dict[str, int]]) -> dict[str, int]:
    total = dict.fromkeys(_COUNTED, 0)
    for row in rows:
        for name in _COUNTED:
            total[name] += row.get(name, 0)
    return total


# -- areas that execve laid out ---------------------------------------------------------------------------------


def cmdline(memory: MemoryManager) -> bytes:
    """The arguments; a program that wrote over their last NUL shows one string that may reach into its environment."""
    if memory.arg_start >= memory.arg_end:
        return b""
    text = _area(memory, memory.arg_start, memory.arg_end)
    if text.endswith(b"\0") or memory.env_end <= memory.arg_end:
        return text
    return _area(memory, memory.arg_start, memory.env_end).split(b"\0")[0] + b"\0"


def environ(memory: MemoryManager) -> bytes:
    """The environment as execve left it and the program changed it in place."""
    return _area(memory, memory.env_start, memory.env_end)


def auxv(memory: MemoryManager) -> bytes:
    """The auxiliary vector."""
    return memory.auxv


def _area(memory: MemoryManager, start: int, end: int) -> bytes:
    try:
        return memory.read_partial(start, end - start)
    except OSError:  # the program unmapped it
        return b""
