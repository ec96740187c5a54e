"""ELF headers of executables, read as the kernel reads them: the file header and the program headers, nothing else.

Linux counterpart: load_elf_phdrs and the checks of load_elf_binary (fs/binfmt_elf.c).  pyelftools is not used here: it
is made for well-formed files, parses lazily through a stream, and takes a millisecond for what the kernel looks at.
"""

from __future__ import annotations

import struct
from errno import EINVAL, EIO, ELIBBAD, ENOEXEC
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ET_DYN", "ET_EXEC", "HEADER_BYTES", "Elf", "Segment", "parse"]

ET_EXEC: Final = 2
ET_DYN: Final = 3
PF_X: Final = 1
PF_W: Final = 2
PF_R: Final = 4
#: The file header: e_ident to e_shstrndx.
HEADER_BYTES: Final = 64

_EM_X86_64: Final = 62
_PT_LOAD: Final = 1
_PT_INTERP: Final = 3
_PT_GNU_STACK: Final = 0x6474E551
_HEADER: Final = struct.Struct("<4s12xHHIQQQIHHHHHH")
_PROGRAM_HEADER: Final = struct.Struct("<IIQQQQQQ")
_MAX_PROGRAM_HEADER_BYTES: Final = 65536
_PATH_MAX: Final = 4096


class Segment(NamedTuple):
    """A PT_LOAD program header."""

    flags: int
    offset: int
    vaddr: int
    filesz: int
    memsz: int
    align: int


class Elf(NamedTuple):
    """What the loader needs of an executable or an interpreter."""

    type: int
    entry: int
    phoff: int
    phnum: int
    segments: tuple[Segment, ...]
    #: PT_INTERP, without its NUL, or None.
    interpreter: bytes | None
    #: PT_GNU_STACK asks for an executable stack.
    executable_stack: bool

    @property
    def alignment(self) -> int:
        """Largest p_align that is a power of two (maximum_alignment)."""
        return max((s.align for s in self.segments if s.align & (s.align - 1) == 0), default=0)

    def header_address(self) -> int:
        """Return where the program headers are in memory, before relocation; 0 when no segment has them."""
        for segment in self.segments:
            if segment.offset <= self.phoff < segment.offset + segment.filesz:
                return self.phoff - segment.offset + segment.vaddr
        return 0


def parse(read: Callable[[int, int], bytes], *, interpreter: bool = False) -> Elf:
    """Parse the headers; *read* is pread(count, offset). ENOEXEC, or as an *interpreter* ELIBBAD, EIO."""
    refusal = OSError(ELIBBAD if interpreter else ENOEXEC, "not an ELF executable for this machine")
    data = read(HEADER_BYTES, 0)
    if len(data) < HEADER_BYTES:
        raise OSError(EIO, "short header") if interpreter else refusal
    magic, kind, machine, _version, entry, phoff, _shoff, _flags, _ehsize, phentsize, phnum, *_ = _HEADER.unpack(data)
    if magic != b"\x7fELF" or kind not in (ET_EXEC, ET_DYN) or machine != _EM_X86_64:
        raise refusal
    size = phentsize * phnum
    if phentsize != _PROGRAM_HEADER.size or not 0 < size <= _MAX_PROGRAM_HEADER_BYTES or phoff >= 1 << 63:
        raise refusal
    table = read(size, phoff)
    if len(table) != size:
        raise refusal
    return _collect(read, list(_PROGRAM_HEADER.iter_unpack(table)), (kind, entry, phoff, phnum), refusal)


def _collect(
    read: Callable[[int, int], bytes],
    headers: list[tuple[int, ...]],
    facts: tuple[int, int, int, int],
    refusal: OSError,
) -> Elf:
    segments = []
    interpreter = None
    executable_stack = False
    for kind, flags, offset, vaddr, _paddr, filesz, memsz, align in headers:
        if kind == _PT_LOAD:
            segments.append(Segment(flags, offset, vaddr, filesz, memsz, align))
        elif kind == _PT_INTERP and interpreter is None:
            interpreter = _read_interpreter(read, offset, filesz, refusal)
        elif kind == _PT_GNU_STACK:
            executable_stack = bool(flags & PF_X)
    return Elf(*facts, tuple(segments), interpreter, executable_stack)


def _read_interpreter(read: Callable[[int, int], bytes], offset: int, size: int, refusal: OSError) -> bytes:
    if not 2 <= size <= _PATH_MAX:
        raise refusal
    if offset >= 1 << 63:
        raise OSError(EINVAL, "negative offset")
    path = read(size, offset)
    if len(path) != size:
        raise OSError(EIO, "short PT_INTERP")
    if path[-1]:
        raise refusal
    return path.partition(b"\0")[0]
