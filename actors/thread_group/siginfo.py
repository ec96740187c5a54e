"""Signal numbers, sets of them, and siginfo_t as bytes.

Linux counterpart: include/uapi/asm-generic/siginfo.h and signal.h.  Pure functions and constants; a set of signals is
an int whose bit n-1 stands for signal n, as sigset_t has it; a siginfo_t is 128 bytes, as a signal frame has it.
"""

from __future__ import annotations

import struct
from typing import Final

__all__ = [
    "bit",
    "child_siginfo",
    "clean_fault",
    "code_of",
    "fault_siginfo",
    "kernel_siginfo",
    "poll_siginfo",
    "queued_siginfo",
    "signo_of",
    "timer_siginfo",
]

SIGHUP: Final = 1
SIGINT: Final = 2
SIGQUIT: Final = 3
SIGILL: Final = 4
SIGTRAP: Final = 5
SIGABRT: Final = 6
SIGBUS: Final = 7
SIGFPE: Final = 8
SIGKILL: Final = 9
SIGUSR1: Final = 10
SIGSEGV: Final = 11
SIGUSR2: Final = 12
SIGPIPE: Final = 13
SIGALRM: Final = 14
SIGTERM: Final = 15
SIGSTKFLT: Final = 16
SIGCHLD: Final = 17
SIGCONT: Final = 18
SIGSTOP: Final = 19
SIGTSTP: Final = 20
SIGTTIN: Final = 21
SIGTTOU: Final = 22
SIGURG: Final = 23
SIGXCPU: Final = 24
SIGXFSZ: Final = 25
SIGVTALRM: Final = 26
SIGPROF: Final = 27
SIGWINCH: Final = 28
SIGIO: Final = 29
SIGPWR: Final = 30
SIGSYS: Final = 31
#: First realtime signal as the kernel counts (glibc keeps two for itself).
SIGRTMIN: Final = 32
#: Highest signal number.
NSIG: Final = 64

SI_USER: Final = 0
SI_KERNEL: Final = 0x80
SI_QUEUE: Final = -1
SI_TIMER: Final = -2
SI_MESGQ: Final = -3
SI_ASYNCIO: Final = -4
SI_TKILL: Final = -6
CLD_EXITED: Final = 1
CLD_KILLED: Final = 2
CLD_DUMPED: Final = 3
CLD_TRAPPED: Final = 4
CLD_STOPPED: Final = 5
CLD_CONTINUED: Final = 6
_SEGV_PKUERR: Final = 4

SIGINFO_BYTES: Final = 128

_HEAD: Final = struct.Struct("=iii4x")
_KILL: Final = struct.Struct("=iii4xiI")
_QUEUED: Final = struct.Struct("=iii4xiIQ")
_TIMER: Final = struct.Struct("=iii4xiiQ")
_CHILD: Final = struct.Struct("=iii4xiIi4xqq")
_FAULT: Final = struct.Struct("=iii4xQ")
_POLL: Final = struct.Struct("=iii4xqi")


def bit(signo: int) -> int:
    """Return the set that holds *signo* alone."""
    return 1 << (signo - 1)


def _set_of(*signals: int) -> int:
    return sum(bit(signo) for signo in signals)


#: Signals that cannot be caught, blocked or ignored.
UNBLOCKABLE: Final = _set_of(SIGKILL, SIGSTOP)
#: Signals whose default action is to stop the process.
STOP_SIGNALS: Final = _set_of(SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU)
#: Signals whose default action is to do nothing.
IGNORED_BY_DEFAULT: Final = _set_of(SIGCONT, SIGCHLD, SIGWINCH, SIGURG)
#: Signals whose default action is to dump core.
CORE_SIGNALS: Final = _set_of(*(SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGFPE, SIGSEGV, SIGBUS, SIGSYS, SIGXCPU, SIGXFSZ))
#: Signals that an instruction causes: taken before any other.
SYNCHRONOUS: Final = _set_of(SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE, SIGSYS)
ALL_SIGNALS: Final = (1 << NSIG) - 1


def _padded(data: bytes) -> bytes:
    return data.ljust(SIGINFO_BYTES, b"\0")


def kernel_siginfo(signo: int, code: int, pid: int = 0, uid: int = 0) -> bytes:
    """siginfo_t of kill(2) (SI_USER), tgkill(2) (SI_TKILL) and the kernel (SI_KERNEL): who sent it."""
    return _padded(_KILL.pack(signo, 0, code, pid, uid))


def queued_siginfo(signo: int, code: int, pid: int, uid: int, value: int) -> bytes:
    """siginfo_t with a value: SI_QUEUE, SI_MESGQ."""
    return _padded(_QUEUED.pack(signo, 0, code, pid, uid, value))


def timer_siginfo(signo: int, timer: int, overrun: int, value: int) -> bytes:
    """siginfo_t of a POSIX timer: its id, the expirations that were missed, and timer_create's value."""
    return _padded(_TIMER.pack(signo, 0, SI_TIMER, timer, min(overrun, 0x7FFFFFFF), value))


def child_siginfo(code: int, pid: int, uid: int, status: int, user_ticks: int, system_ticks: int) -> bytes:
    """siginfo_t of SIGCHLD; times are in clock ticks (100 Hz)."""
    return _padded(_CHILD.pack(SIGCHLD, 0, code, pid, uid, status, user_ticks, system_ticks))


def fault_siginfo(signo: int, code: int, address: int) -> bytes:
    """siginfo_t of a synchronous fault at *address*."""
    return _padded(_FAULT.pack(signo, 0, code, address))


def poll_siginfo(signo: int, code: int, band: int, fd: int) -> bytes:
    """siginfo_t of SIGIO with F_SETSIG: what happened on which descriptor."""
    return _padded(_POLL.pack(signo, 0, code, band, fd))


def clean_fault(host: bytes) -> bytes:
    """Return what a guest may see of the host's siginfo_t of a fault: signal, code, address, protection key."""
    signo, _errno, code, address = _FAULT.unpack_from(host.ljust(_FAULT.size, b"\0"))
    clean = fault_siginfo(signo, code, address)
    if signo == SIGSEGV and code == _SEGV_PKUERR:
        return clean[:32] + host[32:36] + clean[36:]
    return clean


def signo_of(siginfo: bytes) -> int:
    """Return si_signo."""
    signo: int = _HEAD.unpack_from(siginfo)[0]
    return signo


def code_of(siginfo: bytes) -> int:
    """Return si_code."""
    code: int = _HEAD.unpack_from(siginfo)[2]
    return code
