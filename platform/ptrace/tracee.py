"""A stopped host process that makes host calls for us: the stub page and the injection of a call through it.

Linux counterpart: none; gVisor's ``pkg/sentry/platform/ptrace/subprocess.go`` does the same.  It owns the stub's code
and the two register buffers that every injected call goes through.

The stub is ``syscall; int3``.  An injected call sets all registers, resumes with PTRACE_CONT and waits for the trap
of the ``int3``: one stop, whatever stop the tracee is in.  PTRACE_SINGLESTEP over the ``syscall`` was tried and
rejected: from a SYSEMU stop the kernel first reports the end of the emulated call, so the first call after each guest
system call takes two stops.

This is the only place that resumes a tracee with anything but PTRACE_SYSEMU.  It is safe because every register,
with rip on the stub, was set by us in the same breath, and the stub is neither writable nor unmappable for a guest.
Only the first 21 registers are set, up to ss.  The bases and the data segments behind them stay as the guest left them,
because not all that a guest can put there can be written back: WRFSBASE takes an address of the kernel's half, a MOV
to ds the null selector 1, and PTRACE_SETREGS refuses both.

Signals that arrive on the way are suppressed, and an interrupt's stop is absorbed: the tracee is stopped already, as
far as anybody else can tell.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct
from typing import TYPE_CHECKING, Final

from ..interface import STUB_ADDRESS, HostTaskDied
from ..x86_64.registers import Registers
from ..x86_64.syscall_numbers import SYSCALL_NUMBERS as SYS
from .binding import NT_PRSTATUS, PTRACE_CONT, PTRACE_GETREGS, PTRACE_SETREGSET, Iovec, lost, ptrace

if TYPE_CHECKING:
    from .placement import Placement

__all__ = ["CORE_SIZE", "STUB_CODE", "WALL", "Tracee", "end", "reap"]

#: waitpid(2): wait for children of every kind.
WALL: Final = 0x40000000
#: The machine code of the stub: ``syscall; int3``, padded with ``int3`` to one word.
STUB_CODE: Final = b"\x0f\x05" + b"\xcc" * 6
#: Wait status of a plain SIGTRAP stop.
_STATUS_TRAP: Final = signal.SIGTRAP << 8 | 0x7F
#: Wait status of the SIGSYS that the seccomp filter raises.
_STATUS_SYS: Final = signal.SIGSYS << 8 | 0x7F

_AFTER_CALL: Final = STUB_ADDRESS + 3
_MAX_ERRNO: Final = 4095
_MMAP: Final = SYS["mmap"]
_LOW_HALF: Final = 0xFFFF_FFFF

#: Size of the registers that an injected call borrows: r15 to ss.
CORE_SIZE: Final = 21 * 8

_call = Registers(rip=STUB_ADDRESS, cs=0x33, ss=0x2B, eflags=0x202, orig_rax=(1 << 64) - 1)
_call_vector: Final = Iovec(ctypes.addressof(_call), CORE_SIZE)
_call_address: Final = ctypes.addressof(_call_vector)
# r10 r9 r8 rax rcx rdx rsi rdi: words 7 to 14 of struct user_regs_struct.
_pack_call: Final = struct.Struct("=8Q").pack_into
_CALL_OFFSET: Final = 7 * 8

_result = Registers()
_result_address: Final = ctypes.addressof(_result)
# rax, then rip.
_unpack_result: Final = struct.Struct("=80xq40xQ").unpack_from


def end(tid: int) -> None:
    """Kill the child *tid* and reap it. It may be dead already, but not reaped."""
    os.kill(tid, signal.SIGKILL)
    reap(tid)


def reap(tid: int) -> None:
    """Wait for the end of the child *tid*, which was killed."""
    while os.WIFSTOPPED(os.waitpid(tid, WALL)[1]):
        pass


class Tracee:
    """A host process of ours that is stopped under ptrace and has the stub page mapped."""

    def __init__(self, host_tid: int, placement: Placement, cpus: frozenset[int], key: int = 0) -> None:
        """*cpus* is where it may run at the moment: a clone inherits that. *key* is what its filter asks for."""
        self.host_tid = host_tid
        self.placement = placement
        self.cpus = cpus
        self._key = key

    def kill(self) -> None:
        """End it and reap it, whatever it does."""
        end(self.host_tid)

    def place(self, cpus: frozenset[int]) -> None:
        """Let it run on *cpus* only."""
        self.cpus = cpus
        # It may be dying, or the administrator took the CPU away: where it runs is only a matter of speed.
        try:  # noqa: SIM105  # suppress() takes longer than the call, and each clone makes three
            os.sched_setaffinity(self.host_tid, self.cpus)
        except OSError:
            pass

    def inject(self, number: int, a0: int = 0, a1: int = 0, a2: int = 0, a3: int = 0, a4: int = 0, a5: int = 0) -> int:
        """Make the tracee execute one host call and return its result.

        Its registers up to ss are lost.  Raises OSError with the host's errno, or HostTaskDied.
        """
        near = self.placement.near()
        if self.cpus is not near:
            self.place(near)
        key = self._key
        if key:
            # Where the host does not look, or has no argument: the upper halves of two ints, or the sixth.
            if number == _MMAP:
                a2, a4 = a2 | (key & _LOW_HALF) << 32, a4 & _LOW_HALF | key >> 32 << 32
            else:
                a5 = key
        _pack_call(_call, _CALL_OFFSET, a3, a5, a4, number, 0, a2, a1, a0)
        if ptrace(PTRACE_SETREGSET, self.host_tid, NT_PRSTATUS, _call_address) == -1:
            raise self.lost()
        result = self._run_to_trap(_AFTER_CALL)
        if -_MAX_ERRNO <= result < 0:
            raise OSError(-result, os.strerror(-result))
        return result

    def _run_to_trap(self, trap: int) -> int:
        """Resume until the ``int3`` that ends at *trap*, and return rax."""
        tid = self.host_tid
        refused = False
        while True:
            if ptrace(PTRACE_CONT, tid, 0, 0) == -1:
                raise self.lost()
            status = os.waitpid(tid, WALL)[1]
            if status == _STATUS_TRAP:
                if ptrace(PTRACE_GETREGS, tid, 0, _result_address) == -1:
                    raise self.lost()
                result: int
                result, rip = _unpack_result(_result)
                if rip == trap:
                    if refused:
                        raise OSError(errno.EPERM, "the tracees' seccomp filter does not allow this host call")
                    return result
            elif status == _STATUS_SYS:
                refused = True
            elif not os.WIFSTOPPED(status):
                self.reaped(status)
                raise HostTaskDied(tid)

    def lost(self) -> Exception:
        """Return the exception for a ptrace request on it that has just failed."""
        return lost(self.host_tid)

    def reaped(self, status: int) -> None:
        """Take note that it died, with wait status *status*, while it made a call for us."""
