"""The XSAVE area: its layout on this CPU, its reset state, and what a guest may put into it.

Linux counterpart: ``arch/x86/kernel/fpu/xstate.c`` and ``signal.c``.  Pure functions over bytes in the standard
(uncompacted) format, which PTRACE_GETREGSET and signal frames share.  Where the components are depends on the CPU: a
trace may be replayed on another one, so it is an argument everywhere.

An area is: 512 bytes of FXSAVE (MXCSR at 24; 48 bytes from 464 on are free for software), a header of 64 bytes
(XSTATE_BV: which components are not in their initial state; XCOMP_BV and the rest zero), then the components at the
offsets that CPUID leaf 0xD gives.
"""

from __future__ import annotations

import functools
import struct
from typing import Final, NamedTuple

from .instructions import cpuid, xgetbv

__all__ = ["HEADER_END", "LEGACY_SIZE", "Layout", "combine", "host_layout", "largest_size", "reset_area", "validate"]

#: Size of the FXSAVE part.
LEGACY_SIZE: Final = 512
#: Where the first component behind the header begins.
HEADER_END: Final = 576

_X87, _SSE, _AVX = 1, 2, 4
_PKRU: Final = 9
#: Components that a process has only after it asked the kernel (arch_prctl ARCH_REQ_XCOMP_PERM): AMX tile data.
_DYNAMIC: Final = 1 << 18
_LEAF: Final = 0xD
_FCW_RESET: Final = 0x37F
_MXCSR_RESET: Final = 0x1F80
#: What Linux gives every new program: only protection key 0 is accessible.
_PKRU_RESET: Final = 0x5555_5554
_MXCSR_MASK: Final = 0xFFFF


class Layout(NamedTuple):
    """The XSAVE area of processes on this host."""

    #: Bit mask of the components that user code has.
    features: int
    #: Size of the area in bytes.
    size: int
    #: Component number to (offset, size), for those behind the header.
    components: dict[int, tuple[int, int]]

    def plain(self) -> tuple[int, int, tuple[tuple[int, int, int], ...]]:
        """Return it as plain data: features, size, and (component, offset, size) of each component."""
        return self.features, self.size, tuple([(number, *place) for number, place in sorted(self.components.items())])

    @classmethod
    def of_plain(cls, plain: tuple[int, int, tuple[tuple[int, int, int], ...]]) -> Layout:
        """Return what ``plain`` was made of."""
        features, size, components = plain
        return cls(features, size, {number: (offset, length) for number, offset, length in components})


@functools.cache
def host_layout() -> Layout:
    """Read the layout from CPUID leaf 0xD, of what user code has without asking the kernel for more."""
    features = xgetbv() & ~_DYNAMIC
    components = {}
    for number in range(2, 63):
        if features >> number & 1:
            length, offset, _, _ = cpuid(_LEAF, number)
            components[number] = (offset, length)
    size = max((offset + length for offset, length in components.values()), default=HEADER_END)
    return Layout(features, size, components)


def largest_size() -> int:
    """Return the size in bytes of an area with every component that this CPU has, also those that are not enabled."""
    return max(cpuid(_LEAF)[2], HEADER_END)


def reset_area(layout: Layout, size: int | None = None) -> bytes:
    """Return an area that describes a CPU as execve leaves it; of *size* bytes instead of the layout's."""
    area = bytearray(max(layout.size if size is None else size, HEADER_END))
    features = _X87 | _SSE
    struct.pack_into("=H", area, 0, _FCW_RESET)
    struct.pack_into("=I", area, 24, _MXCSR_RESET)
    if _PKRU in layout.components:
        features |= 1 << _PKRU
        struct.pack_into("=I", area, layout.components[_PKRU][0], _PKRU_RESET)
    struct.pack_into("=Q", area, LEGACY_SIZE, features)
    return bytes(area)


def validate(area: bytes, layout: Layout) -> bool:
    """Say whether XRSTOR would load *area* on such a host: the checks that raise #GP in hardware."""
    if not HEADER_END <= len(area) <= layout.size:
        return False
    (mxcsr,) = struct.unpack_from("=I", area, 24)
    features, compaction, reserved = struct.unpack_from("=QQQ", area, LEGACY_SIZE)
    if mxcsr & ~_MXCSR_MASK or features & ~layout.features or compaction or reserved:
        return False
    return all(
        offset + length <= len(area) for number, (offset, length) in layout.components.items() if features >> number & 1
    )


def combine(area: bytes, wanted: int, layout: Layout) -> bytes:
    """Return what the CPU holds after XRSTOR of the components *wanted* of a valid *area* and a reset of the others."""
    result = bytearray(layout.size)
    (present,) = struct.unpack_from("=Q", area, LEGACY_SIZE)
    features = present & wanted & layout.features
    struct.pack_into("=H", result, 0, _FCW_RESET)
    struct.pack_into("=I", result, 24, _MXCSR_RESET)
    if features & _X87:
        result[0:24], result[32:160] = area[0:24], area[32:160]
    if wanted & (_SSE | _AVX):
        result[24:28] = area[24:28]
    if features & _SSE:
        result[160:416] = area[160:416]
    for number, (offset, length) in layout.components.items():
        if features >> number & 1:
            result[offset : offset + length] = area[offset : offset + length]
    struct.pack_into("=Q", result, LEGACY_SIZE, features | _X87 | _SSE)
    return bytes(result)
