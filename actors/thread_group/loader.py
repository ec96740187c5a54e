"""Loading an executable into a fresh address space: segments, interpreter, heap, stack, and the first registers.

Linux counterpart: load_elf_binary (fs/binfmt_elf.c), setup_arg_pages (fs/exec.c), arch_pick_mmap_layout
(arch/x86/mm/mmap.c).  By now the headers are parsed and the files open (see ``exec_.py``): what fails here fails after
the point of no return.
"""

from __future__ import annotations

from errno import EINVAL, ENOMEM
from typing import TYPE_CHECKING, Final, NamedTuple

from ...messages.base import owned
from ...platform.interface import GUEST_TOP
from . import initial_stack
from .elf import ET_DYN, ET_EXEC, PF_R, PF_W, PF_X, Elf, Segment
from .initial_stack import AT
from .limits import RLIM_INFINITY, Resource
from .memory import ADDR_COMPAT_LAYOUT, ADDR_NO_RANDOMIZE, MAP_ANONYMOUS, MAP_FIXED, MAP_FIXED_NOREPLACE, MAP_PRIVATE
from .vma import PAGE_SIZE, VM_EXEC, VM_READ, VM_WRITE, page_align

if TYPE_CHECKING:
    from .memory import MemoryManager
    from .open_file import OpenFile
    from .task import Task

__all__ = ["Layout", "Program", "begin", "load", "map_program", "stack_length"]

#: TASK_SIZE and what Linux derives from it.
_TASK_SIZE: Final = 0x7FFF_FFFF_F000
_ELF_ET_DYN_BASE: Final = _TASK_SIZE // 3 * 2
_UNMAPPED_BASE: Final = (_TASK_SIZE // 3 + PAGE_SIZE - 1) & -PAGE_SIZE
_MMAP_RANDOM_PAGES: Final = 1 << 28
_STACK_RANDOM_PAGES: Final = 1 << 22
_BRK_RANDOM_BYTES: Final = 1 << 30
_MIN_GAP: Final = 128 << 20
_STACK_GUARD: Final = 1 << 20
#: A stack is mapped up to this at once; beyond, it grows by faults.
_MOST_STACK_AT_ONCE: Final = 64 << 20
#: What a stack has at least beyond the arguments, whatever the limit says (stack_expand).
_LEAST_STACK: Final = 128 << 10


@owned
class Program:
    """What execve has opened, read and checked: the loader's input. It owns one reference to each file."""

    file: "OpenFile"  # noqa: UP037  # evaluated when it is compiled
    elf: Elf
    interpreter: "OpenFile | None"  # noqa: UP037  # evaluated when it is compiled
    interpreter_elf: Elf | None
    #: What the caller named: AT_EXECFN.
    filename: bytes
    #: Last component of the program's name, before it is cut to comm.
    name: bytes
    argv: list[bytes]
    envp: list[bytes]
    #: The program must not trust its environment (AT_SECURE).
    secure: bool = False
    #: What tells both files from all others: host inode, size and times. None when nobody has looked.
    identity: tuple[int, ...] | None = None

    def release(self) -> None:
        """Drop the files; what was mapped keeps its own references."""
        self.file.release()
        if self.interpreter is not None:
            self.interpreter.release()


class _Random:
    """The random choices of one exec, from one host call; all zero under ADDR_NO_RANDOMIZE."""

    def __init__(self, task: Task, personality: int) -> None:
        self.bytes = task.worker.host.random_bytes(48)
        self._on = not personality & ADDR_NO_RANDOMIZE

    def below(self, limit: int, index: int) -> int:
        """Return a number below *limit*, by the *index*-th eight bytes."""
        if not self._on:
            return 0
        return int.from_bytes(self.bytes[16 + 8 * index : 24 + 8 * index], "little") % limit


class Layout(NamedTuple):
    """Where a program has been mapped."""

    stack_top: int
    #: What was added to the addresses of the program, and of the interpreter (AT_BASE).
    bias: int
    base: int
    entry: int
    #: The vDSO (AT_SYSINFO_EHDR).
    vdso: int


def load(task: Task, program: Program) -> None:
    """Load *program* into *task*'s empty memory and set its registers. OSError: the caller ends the process."""
    begin(task, program, map_program(task, program))


def map_program(task: Task, program: Program) -> Layout:
    """Map the program, its interpreter and an empty stack into *task*'s empty memory. OSError."""
    memory = task.memory
    random = _Random(task, memory.personality)
    stack_top = (GUEST_TOP - random.below(_STACK_RANDOM_PAGES, 0) * PAGE_SIZE) & -16
    _choose_layout(task, memory, random)
    memory.agree_with_host(task)
    _map_stack(task, program, stack_top)
    bias = _program_bias(task, program, random)
    _map_segments(task, program.file, program.elf, bias)
    _set_extents(memory, program.elf, bias)
    entry, base = bias + program.elf.entry, 0
    if program.interpreter is not None and program.interpreter_elf is not None:
        base = _interpreter_bias(memory, program.interpreter_elf)
        _map_segments(task, program.interpreter, program.interpreter_elf, base)
        entry = base + program.interpreter_elf.entry
    return Layout(stack_top, bias, base, entry, task.worker.vdsos.own.map(task))


def begin(task: Task, program: Program, layout: Layout) -> None:
    """Place the heap, write the stack and set the registers: what differs from one run to the next. OSError."""
    random = _Random(task, task.memory.personality)
    _place_heap(task.memory, program, random)
    vector = _vector(task, program, layout)
    pointer = _write_stack(task, program, layout.stack_top, random, vector)
    _set_registers(task, layout.entry, pointer)


# -- layout -----------------------------------------------------------------------------------------------------


def _choose_layout(task: Task, memory: MemoryManager, random: _Random) -> None:
    """Choose where mappings are placed from: below the room for the stack, or upwards when that is unlimited."""
    stack_limit = task.group.limits.soft(Resource.STACK)
    shift = random.below(_MMAP_RANDOM_PAGES, 1) * PAGE_SIZE
    memory.bottom_up = bool(stack_limit == RLIM_INFINITY or memory.personality & ADDR_COMPAT_LAYOUT)
    if memory.bottom_up:
        memory.mmap_base = _UNMAPPED_BASE + shift
        return
    pad = _STACK_RANDOM_PAGES * PAGE_SIZE + _STACK_GUARD
    gap = min(max(stack_limit + pad, _MIN_GAP), _TASK_SIZE // 6 * 5)
    memory.mmap_base = (_TASK_SIZE - gap - shift) & -PAGE_SIZE


def _program_bias(task: Task, program: Program, random: _Random) -> int:
    """Return what is added to the program's addresses."""
    elf = program.elf
    if elf.type == ET_EXEC:
        return 0
    low, length = _span(elf)
    if _is_placed_like_a_mapping(elf):
        return task.memory.find_gap(length) - low
    address = _ELF_ET_DYN_BASE + random.below(_MMAP_RANDOM_PAGES, 2) * PAGE_SIZE
    return (address & -max(elf.alignment, PAGE_SIZE)) - low


def _is_placed_like_a_mapping(elf: Elf) -> bool:
    """Whether a position-independent program is a loader, run by itself: Linux puts it among the mappings."""
    return elf.interpreter is None and elf.alignment <= PAGE_SIZE


def _interpreter_bias(memory: MemoryManager, elf: Elf) -> int:
    if elf.type == ET_EXEC:
        return 0
    low, length = _span(elf)
    alignment = max(elf.alignment, PAGE_SIZE)
    address = memory.find_gap(length + alignment - PAGE_SIZE)
    return ((address + alignment - 1) & -alignment) - low


def _span(elf: Elf) -> tuple[int, int]:
    """Return the first page that the segments cover and how many bytes from there on. EINVAL when there is none."""
    low = min((s.vaddr for s in elf.segments), default=0) & -PAGE_SIZE
    length = page_align(max((s.vaddr + s.memsz for s in elf.segments), default=0) - low)
    if not 0 < length <= GUEST_TOP:
        raise OSError(EINVAL, "no loadable segments")
    return low, length


# -- segments ---------------------------------------------------------------------------------------------------


def _map_segments(task: Task, file: OpenFile, elf: Elf, bias: int) -> None:
    flags = MAP_PRIVATE | MAP_FIXED_NOREPLACE
    for segment in elf.segments:
        _check_segment(segment, bias)
        _map_segment(task, file, segment, bias, flags)
        flags = MAP_PRIVATE | MAP_FIXED


def _check_segment(segment: Segment, bias: int) -> None:
    start = bias + segment.vaddr
    if segment.filesz > segment.memsz or segment.memsz > GUEST_TOP or not 0 <= start <= GUEST_TOP - segment.memsz:
        raise OSError(EINVAL, "segment outside the address space")


def _map_segment(task: Task, file: OpenFile, segment: Segment, bias: int, flags: int) -> None:
    """Map the part that is in the file, zero the rest of its last page, and add anonymous memory behind (elf_load)."""
    start = bias + segment.vaddr
    skew = start % PAGE_SIZE
    prot = _protection(segment.flags)
    page = start - skew
    file_end = start + segment.filesz
    anonymous_start = page
    if segment.filesz:
        offset = segment.offset - skew
        if offset < 0 or offset % PAGE_SIZE:
            raise OSError(EINVAL, "segment's offset and address do not match")
        task.memory.map(task, page, segment.filesz + skew, prot, flags, file, offset)
        anonymous_start = page_align(file_end)
        if segment.memsz > segment.filesz and prot & VM_WRITE:
            # To the end of the page, whatever memsz says: ld.so allocates from there.
            task.memory.write(file_end, bytes(anonymous_start - file_end))
    anonymous_end = page_align(start + segment.memsz)
    if anonymous_end > anonymous_start:
        extra = VM_READ | VM_WRITE | prot & VM_EXEC
        length = anonymous_end - anonymous_start
        task.memory.map(task, anonymous_start, length, extra, flags | MAP_ANONYMOUS)


def _protection(flags: int) -> int:
    return (VM_READ if flags & PF_R else 0) | (VM_WRITE if flags & PF_W else 0) | (VM_EXEC if flags & PF_X else 0)


def _set_extents(memory: MemoryManager, elf: Elf, bias: int) -> None:
    """Note where code and data are, and where the heap may begin."""
    code = [s for s in elf.segments if s.flags & PF_X]
    memory.start_code = bias + min((s.vaddr for s in elf.segments), default=0)
    memory.end_code = bias + max((s.vaddr + s.filesz for s in code), default=0)
    memory.start_data = bias + max((s.vaddr for s in elf.segments), default=0)
    memory.end_data = bias + max((s.vaddr + s.filesz for s in elf.segments), default=0)
    memory.start_brk = bias + max((s.vaddr + s.memsz for s in elf.segments), default=0)


def _place_heap(memory: MemoryManager, program: Program, random: _Random) -> None:
    """Begin the heap behind the program, at a random distance; far from the mappings when a loader runs by itself."""
    start = page_align(memory.start_brk)
    shift = random.below(_BRK_RANDOM_BYTES // PAGE_SIZE, 3) * PAGE_SIZE
    if program.elf.type == ET_DYN and _is_placed_like_a_mapping(program.elf):
        start = _ELF_ET_DYN_BASE & -PAGE_SIZE
    memory.start_brk = memory.brk_end = start + shift


# -- stack ------------------------------------------------------------------------------------------------------


def stack_length(program: Program, limit: int) -> int:
    """Return how many bytes a program's stack gets, which RLIMIT_STACK bounds to *limit*."""
    strings = sum(map(len, program.argv)) + sum(map(len, program.envp)) + 9 * (len(program.argv) + len(program.envp))
    return page_align(max(min(limit, _MOST_STACK_AT_ONCE), strings + len(program.filename) + _LEAST_STACK))


def _map_stack(task: Task, program: Program, top: int) -> None:
    length = stack_length(program, task.group.limits.soft(Resource.STACK))
    end = page_align(top)
    if end - length < PAGE_SIZE:
        raise OSError(ENOMEM, "no room for the stack")
    task.memory.map_stack(task, end - length, end, executable=program.elf.executable_stack)
    task.memory.start_stack = top


def _write_stack(task: Task, program: Program, top: int, random: _Random, vector: list[tuple[int, int]]) -> int:
    memory = task.memory
    shift = random.below(8192, 0) & -16
    stack = initial_stack.build(
        top, program.filename, program.argv, program.envp, vector, random.bytes[:16], shift=shift
    )
    memory.write(stack.pointer, stack.data)
    memory.start_stack = stack.pointer
    memory.arg_start, memory.arg_end = stack.arg_start, stack.arg_end
    memory.env_start, memory.env_end = stack.env_start, stack.env_end
    memory.auxv = stack.auxv
    return stack.pointer


def _vector(task: Task, program: Program, layout: Layout) -> list[tuple[int, int]]:
    """Return the auxiliary vector in Linux's order; entries of 0 that point into the stack are filled in later."""
    host, credentials, elf = task.worker.host.cpu_auxv(), task.group.credentials, program.elf
    header = elf.header_address()
    vector = [
        (AT.SYSINFO_EHDR, layout.vdso),
        (AT.MINSIGSTKSZ, host.get(AT.MINSIGSTKSZ, 2048)),
        (AT.HWCAP, host.get(AT.HWCAP, 0)),
        (AT.PAGESZ, PAGE_SIZE),
        (AT.CLKTCK, 100),
        (AT.PHDR, header + layout.bias if header else 0),
        (AT.PHENT, 56),
        (AT.PHNUM, elf.phnum),
        (AT.BASE, layout.base),
        (AT.FLAGS, 0),
        (AT.ENTRY, layout.bias + elf.entry),
        (AT.UID, credentials.ruid),
        (AT.EUID, credentials.euid),
        (AT.GID, credentials.rgid),
        (AT.EGID, credentials.egid),
        (AT.SECURE, int(program.secure)),
        (AT.RANDOM, 0),
        (AT.HWCAP2, host.get(AT.HWCAP2, 0)),
        (AT.EXECFN, 0),
        (AT.PLATFORM, 0),
        (AT.RSEQ_FEATURE_SIZE, 28),
        (AT.RSEQ_ALIGN, 32),
    ]
    return [(key, value & (1 << 64) - 1) for key, value in vector]


def _set_registers(task: Task, entry: int, pointer: int) -> None:
    """ELF_PLAT_INIT and start_thread: a fresh host task's registers are zero, its extended state is reset."""
    registers = task.host.get_registers()
    registers.rip, registers.rsp = entry & (1 << 64) - 1, pointer
    task.host.set_registers(registers)
