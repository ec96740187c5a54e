"""The siginfo_t of an exit signal, and what a wait status says.

Linux counterpart: do_notify_parent in kernel/signal.c.
"""

from __future__ import annotations

from typing import Final

from ..thread_group import siginfo
from ..thread_group.siginfo import CLD_DUMPED, CLD_EXITED, CLD_KILLED, SI_KERNEL

__all__ = ["child_siginfo", "exit_code_and_status", "kernel_siginfo"]

#: si_utime and si_stime count these (USER_HZ is 100).
_CLOCK_TICK_NS: Final = 10_000_000


def child_siginfo(signo: int, code: int, *, pid: int, uid: int, status: int, user_ns: int, system_ns: int) -> bytes:
    """Return what a parent sees of its child *pid*: CLD_* *code*, and exit status or signal number *status*."""
    made = siginfo.child_siginfo(code, pid, uid, status, user_ns // _CLOCK_TICK_NS, system_ns // _CLOCK_TICK_NS)
    # An exit signal other than SIGCHLD carries the same fields.
    return signo.to_bytes(4, "little") + made[4:]


def kernel_siginfo(signo: int) -> bytes:
    """Return the siginfo of a signal that the kernel itself sends."""
    return siginfo.kernel_siginfo(signo, SI_KERNEL)


def exit_code_and_status(wait_status: int) -> tuple[int, int]:
    """Split a wait status of an exit into si_code and si_status."""
    signo = wait_status & 0x7F
    if not signo:
        return CLD_EXITED, wait_status >> 8 & 0xFF
    return (CLD_DUMPED if wait_status & 0x80 else CLD_KILLED), signo
