"""The seccomp filter that every tracee of the notify platform is under, and the key of the calls that we inject.

Linux counterpart: ``kernel/seccomp.c`` and ``Documentation/userspace-api/seccomp_filter.rst``.  It owns no state.

What becomes of a call, in this order:

* not of the 64-bit ABI (``int 0x80``): SIGSYS, which the platform turns into a SIGSEGV;
* from the vsyscall page: SIGSYS too, because the host takes it amiss when anything else there changes registers;
* from the stub, with the key: executed by the host if it is one of the few that we inject, else SIGSYS;
* one of :data:`TRACED`: a ptrace stop, because answering it needs registers or injected calls in any case;
* an mmap likewise, but for one of anonymous memory whose place the caller says, or leaves to the kernel (``task.py``);
* everything else: a user notification.

The key keeps a guest that jumps to the stub from making host calls: without it, a call from there is a guest's call
like any other.  It is 64 random bits in registers that the host ignores for the call in question: the sixth argument,
or for mmap, which has six, the upper halves of prot and fd.  A guest never sees them: the key is in a tracee's
registers only between two of our ptrace requests, and never in its memory.
"""

from __future__ import annotations

import struct
from typing import Final

from ..interface import STUB_ADDRESS
from ..ptrace.seed import ALLOWED_CALLS
from ..x86_64.syscall_numbers import SYSCALL_NUMBERS as SYS

__all__ = ["INJECTED_CALLS", "MOST_PLACED", "TRACED", "filter_program"]

#: Calls that are injected: those of the ptrace platform, and the one that passes the listener to the worker.
INJECTED_CALLS: Final = (*ALLOWED_CALLS, SYS["sendmsg"])

#: Guests' calls that stop under ptrace at once.  -1 is among them because the host forgets to restart it.
TRACED: Final = (
    *(SYS[name] for name in ("mremap", "brk", "clone", "clone3", "fork", "vfork", "rt_sigreturn", "arch_prctl")),
    0xFFFF_FFFF,
)

#: From this length on, in bytes, the host may align a mapping to huge pages: where it goes is not known.
MOST_PLACED: Final = 1 << 21

_LOAD, _RETURN = 0x20, 0x06  # BPF_LD|BPF_W|BPF_ABS, BPF_RET|BPF_K
_EQUAL, _AT_LEAST, _HAS = 0x15, 0x35, 0x45  # BPF_JMP|BPF_K with BPF_JEQ, BPF_JGE, BPF_JSET
_MAP_FIXED, _MAP_ANONYMOUS = 0x10, 0x20
_TRAP, _NOTIFY, _TRACE, _ALLOW = 0x00030000, 0x7FC00000, 0x7FF00000, 0x7FFF0000
_AUDIT_ARCH_X86_64: Final = 0xC000003E
_VSYSCALL_HALF: Final = 0xFFFF_FFFF
_AFTER_CALL: Final = STUB_ADDRESS + 2

# Offsets in struct seccomp_data.
_NUMBER, _ARCH, _IP, _ARGUMENTS = 0, 4, 8, 16
_HALF: Final = 4
_ADDRESS, _LENGTH, _PROT, _FLAGS, _FD, _SIXTH = range(_ARGUMENTS, _ARGUMENTS + 6 * 8, 8)

#: An instruction that loads or returns, a label, or a comparison with where to go if so and if not ("" goes on).
_Line = tuple[int, int] | str | tuple[int, int, str, str]


def filter_program(key: int) -> bytes:
    """Return the BPF program for a 64-bit *key*."""
    low, high = key & 0xFFFF_FFFF, key >> 32
    lines: list[_Line] = [
        (_LOAD, _ARCH),
        (_EQUAL, _AUDIT_ARCH_X86_64, "", "trap"),
        (_LOAD, _IP + _HALF),
        (_EQUAL, _VSYSCALL_HALF, "trap", ""),
        (_EQUAL, _AFTER_CALL >> 32, "", "guest"),
        (_LOAD, _IP),
        (_EQUAL, _AFTER_CALL & 0xFFFF_FFFF, "", "guest"),
        (_LOAD, _NUMBER),
        (_EQUAL, SYS["mmap"], "our mmap", ""),
        (_LOAD, _SIXTH),
        (_EQUAL, low, "", "guest"),
        (_LOAD, _SIXTH + _HALF),
        (_EQUAL, high, "", "guest"),
        (_LOAD, _NUMBER),
        *((_EQUAL, number, "allow", "") for number in INJECTED_CALLS if number != SYS["mmap"]),
        "trap",
        (_RETURN, _TRAP),
        "our mmap",
        (_LOAD, _PROT + _HALF),
        (_EQUAL, low, "", "guest"),
        (_LOAD, _FD + _HALF),
        (_EQUAL, high, "", "guest"),
        "allow",
        (_RETURN, _ALLOW),
        "guest",
        (_LOAD, _NUMBER),
        (_EQUAL, SYS["mmap"], "", "other"),
        (_LOAD, _FLAGS),
        (_HAS, _MAP_ANONYMOUS, "", "trace"),
        (_HAS, _MAP_FIXED, "notify", ""),
        (_LOAD, _ADDRESS),
        (_EQUAL, 0, "", "trace"),
        (_LOAD, _ADDRESS + _HALF),
        (_EQUAL, 0, "", "trace"),
        (_LOAD, _LENGTH + _HALF),
        (_EQUAL, 0, "", "trace"),
        (_LOAD, _LENGTH),
        (_AT_LEAST, MOST_PLACED, "trace", "notify"),
        "other",
        *((_EQUAL, number, "trace", "") for number in TRACED),
        "notify",
        (_RETURN, _NOTIFY),
        "trace",
        (_RETURN, _TRACE),
    ]
    return _assemble(lines)


def _assemble(lines: list[_Line]) -> bytes:
    places: dict[str, int] = {}
    count = 0
    for line in lines:
        if isinstance(line, str):
            places[line] = count
        else:
            count += 1
    program = b""
    for index, line in enumerate(line for line in lines if not isinstance(line, str)):
        if len(line) == 2:  # a load or a return
            program += struct.pack("=HBBI", line[0], 0, 0, line[1])
        else:
            comparison, value, so, otherwise = line
            yes, no = (places[label] - index - 1 if label else 0 for label in (so, otherwise))
            program += struct.pack("=HBBI", comparison, yes, no, value)
    return program
