"""The one module that touches python-ptrace's binding, and fills its gaps.

Linux counterpart: ``include/uapi/linux/ptrace.h``.  It owns no state: request numbers, option bits and the raw
``ptrace`` function.

python-ptrace's own ``ptrace()`` builds an error text and converts every result twice, which costs more than the
system call.  :data:`ptrace` below is the same symbol of the same libc, bound once with its argument types, and
returns -1 on failure; :func:`request` is the checked form for everything that is not on the hot path.  It is bound
through ``PyDLL``: a ptrace request never waits, so giving the interpreter lock away around it is pure cost.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import sys
import types
from typing import TYPE_CHECKING, Final

from ..interface import HostTaskDied

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def _known_libc() -> Iterator[None]:
    """Spare python-ptrace the search for libc: it imports ten modules and runs ldconfig, at each of our starts."""
    name = "ctypes.util"
    searching, knowing = sys.modules.get(name), types.ModuleType(name)
    vars(knowing)["find_library"] = lambda library: f"lib{library}.so.6"
    sys.modules[name] = knowing
    try:
        yield
    finally:
        del sys.modules[name]
        if searching is not None:
            sys.modules[name] = searching


with _known_libc():
    from ptrace.binding import func as _func  # type: ignore[import-untyped]
    from ptrace.binding.linux_struct import user_regs_struct  # type: ignore[import-untyped]
    from ptrace.ctypes_libc import libc as _libc  # type: ignore[import-untyped]

__all__ = [
    "NT_PRSTATUS",
    "NT_X86_XSTATE",
    "PTRACE_CONT",
    "PTRACE_EVENT_SECCOMP",
    "PTRACE_EVENT_STOP",
    "PTRACE_GETREGS",
    "PTRACE_GETREGSET",
    "PTRACE_GETSIGINFO",
    "PTRACE_GET_RSEQ_CONFIGURATION",
    "PTRACE_GET_SYSCALL_INFO",
    "PTRACE_INTERRUPT",
    "PTRACE_O_EXITKILL",
    "PTRACE_O_TRACESECCOMP",
    "PTRACE_O_TRACESYSGOOD",
    "PTRACE_POKEDATA",
    "PTRACE_POKEUSER",
    "PTRACE_SEIZE",
    "PTRACE_SETREGS",
    "PTRACE_SETREGSET",
    "PTRACE_SETSIGMASK",
    "PTRACE_SYSEMU",
    "Iovec",
    "get_regset",
    "lost",
    "ptrace",
    "request",
    "set_regset",
    "user_regs_struct",
]

PTRACE_POKEDATA: Final[int] = _func.PTRACE_POKEDATA
PTRACE_POKEUSER: Final[int] = _func.PTRACE_POKEUSER
PTRACE_CONT: Final[int] = _func.PTRACE_CONT
PTRACE_GETREGS: Final[int] = _func.PTRACE_GETREGS
PTRACE_SETREGS: Final[int] = _func.PTRACE_SETREGS
PTRACE_GETREGSET: Final[int] = _func.PTRACE_GETREGSET
PTRACE_SETREGSET: Final[int] = _func.PTRACE_SETREGSET
PTRACE_GETSIGINFO: Final[int] = _func.PTRACE_GETSIGINFO
PTRACE_O_TRACESYSGOOD: Final[int] = _func.PTRACE_O_TRACESYSGOOD

# Gaps of python-ptrace 0.9.9.
PTRACE_SYSEMU: Final = 31
PTRACE_SEIZE: Final = 0x4206
PTRACE_INTERRUPT: Final = 0x4207
PTRACE_SETSIGMASK: Final = 0x420B
PTRACE_GET_SYSCALL_INFO: Final = 0x420E
PTRACE_GET_RSEQ_CONFIGURATION: Final = 0x420F
PTRACE_EVENT_SECCOMP: Final = 7
PTRACE_EVENT_STOP: Final = 128
PTRACE_O_TRACESECCOMP: Final = 1 << PTRACE_EVENT_SECCOMP
PTRACE_O_EXITKILL: Final = 0x100000
NT_PRSTATUS: Final[int] = _func.NT_PRSTATUS
NT_X86_XSTATE: Final = 0x202


def _bind() -> ctypes._NamedFuncPointer:
    function = ctypes.PyDLL(_libc._name, use_errno=True)["ptrace"]  # noqa: SLF001  # ctypes tells it in no other way
    function.argtypes = (ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
    function.restype = ctypes.c_long
    return function


#: ptrace(2) itself: (request, tid, address, data) -> result, -1 on failure with the error in ctypes.get_errno().
ptrace: Final = _bind()


def lost(tid: int) -> Exception:
    """Return the exception for a request that has just failed: HostTaskDied when the tracee is gone."""
    code = ctypes.get_errno()
    if code == errno.ESRCH:
        return HostTaskDied(tid)
    return OSError(code, os.strerror(code))


def request(number: int, tid: int, address: int = 0, data: int = 0) -> int:
    """Make one request. Raises HostTaskDied for ESRCH, OSError for any other failure."""
    result: int = ptrace(number, tid, address, data)
    if result == -1:
        raise lost(tid)
    return result


class Iovec(ctypes.Structure):
    """struct iovec, which says where a register set is."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def get_regset(tid: int, note: int, capacity: int) -> bytes:
    """Return one register set, at most *capacity* bytes of it."""
    buffer = ctypes.create_string_buffer(capacity)
    vector = Iovec(ctypes.addressof(buffer), capacity)
    request(PTRACE_GETREGSET, tid, note, ctypes.addressof(vector))
    return buffer.raw[: vector.length]


def set_regset(tid: int, note: int, data: bytes) -> None:
    """Set one register set. OSError(EINVAL, EFAULT) when the host finds *data* malformed."""
    buffer = ctypes.create_string_buffer(data, len(data))
    vector = Iovec(ctypes.addressof(buffer), len(data))
    request(PTRACE_SETREGSET, tid, note, ctypes.addressof(vector))
