"""The XSAVE area: its layout on this CPU, its reset state, and what a guest may put into it.

Linux counterpart: ``arch/x86/kernel/fpu/xstate.c``.  Pure functions over bytes in the standard (uncompacted) format,
which is what PTRACE_GETREGSET and signal frames use.
"""

from __future__ import annotations

import struct
from typing import Final

__all__ = ["reset_area"]

_FCW_RESET: Final = 0x37F
_MXCSR_RESET: Final = 0x1F80


def reset_area(size: int) -> bytes:
    """Return an area of *size* bytes that describes the state of a CPU after reset, as execve leaves it."""
    area = bytearray(size)
    struct.pack_into("=H", area, 0, _FCW_RESET)
    struct.pack_into("=I", area, 24, _MXCSR_RESET)
    struct.pack_into("=Q", area, 512, 3)  # x87 and SSE are present; every other feature is in its initial state
    return bytes(area)
