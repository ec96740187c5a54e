"""The instructions that Python has no words for: CPUID, XGETBV and RDTSC.

It owns one page of machine code, mapped when first used: a worker that is about to forbid itself executable mappings
asks for what it needs before it does.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["cpuid", "tick_reader", "xgetbv"]

# push rbx; mov r8, rdx; mov eax, edi; mov ecx, esi; cpuid;
# mov [r8], eax; mov [r8+4], ebx; mov [r8+8], ecx; mov [r8+12], edx; pop rbx; ret
_CPUID_CODE: Final = bytes.fromhex("53 4989d0 89f8 89f1 0fa2 418900 41895804 41894808 4189500c 5bc3")
# xor ecx, ecx; xgetbv; shl rdx, 32; or rax, rdx; ret
_XGETBV_CODE: Final = bytes.fromhex("31c9 0f01d0 48c1e220 4809d0 c3")
_XGETBV_OFFSET: Final = 64
# lfence; rdtsc; shl rdx, 32; or rax, rdx; ret
_RDTSC_CODE: Final = bytes.fromhex("0faee8 0f31 48c1e220 4809d0 c3")
_RDTSC_OFFSET: Final = 128
_OSXSAVE: Final = 1 << 27


@functools.cache
def cpuid(leaf: int, subleaf: int = 0) -> tuple[int, int, int, int]:
    """Execute CPUID and return (eax, ebx, ecx, edx)."""
    registers = (ctypes.c_uint32 * 4)()
    prototype = ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_uint32, ctypes.POINTER(ctypes.c_uint32))
    prototype(_code_page())(leaf, subleaf, registers)
    return registers[0], registers[1], registers[2], registers[3]


@functools.cache
def xgetbv() -> int:
    """Return XCR0: the state components that the host's kernel enabled. x87 and SSE on a CPU without XSAVE."""
    if not cpuid(1)[2] & _OSXSAVE:
        return 3
    value: int = ctypes.CFUNCTYPE(ctypes.c_uint64)(_code_page() + _XGETBV_OFFSET)()
    return value


@functools.cache
def tick_reader() -> Callable[[], int]:
    """Return a function that reads the time stamp counter, after every instruction before it."""
    reader: Callable[[], int] = ctypes.CFUNCTYPE(ctypes.c_uint64)(_code_page() + _RDTSC_OFFSET)
    return reader


@functools.cache
def _code_page() -> int:
    """Map the code from a file and never writable: hardened hosts refuse memory that is written and then executed."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
    fd = os.memfd_create("greenroom-instructions", os.MFD_CLOEXEC)
    try:
        code = _CPUID_CODE.ljust(_XGETBV_OFFSET, b"\xcc") + _XGETBV_CODE
        os.write(fd, code.ljust(_RDTSC_OFFSET, b"\xcc") + _RDTSC_CODE)
        address: int = libc.mmap(None, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_EXEC, mmap.MAP_PRIVATE, fd, 0)
    finally:
        os.close(fd)
    if address == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "the host refuses executable memory for CPUID")
    return address
