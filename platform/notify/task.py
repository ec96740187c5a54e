"""A host task of the notify platform: running, in a notification, or in a ptrace stop.

Linux counterpart: ``seccomp_do_user_notification``.  It owns the notification that waits for an answer.

A task in a notification is stopped for whoever uses the platform: its call and arguments are known, it is answered by
one SEND, and its memory can be read and written.  What needs more, its registers or an injected call, first makes a
ptrace stop of it (``_make_stop``): PTRACE_INTERRUPT, SEND, waitpid, in this order, because the answer lets it run into
the stop before any guest code, and because before the answer it waits killably, deaf to PTRACE_INTERRUPT.  From then
on it is as the ptrace platform has it at a system call: rax is -ENOSYS, orig_rax the number.

A running task that is interrupted may be in a notification that nobody has received.  The host then takes the
notification back and would restart the call: the task stops behind it with -ERESTARTSYS.  To whoever reads its
registers it is before the call, which has not happened (``_know_registers``).  Linux before 6.17 does the same when a
notification was received and answered while the interrupt was on its way; then the answer counts.

munmap, mprotect and madvise of exactly what the pending call says are left to the host, which gets its answer CONTINUE:
no pointers are involved, and the range was checked.  But another thread of the guest could map something there before
the host comes to it, so only where the task has its address space for itself.  Such a call cannot fail on the host but
for want of kernel memory; then the guest gets the host's errno, and our list says unmapped of what is still there.
"""

from __future__ import annotations

import contextlib
import os
import struct
from fcntl import ioctl
from typing import TYPE_CHECKING, Final

from ..interface import HostTaskDied
from ..ptrace.binding import PTRACE_CONT, PTRACE_INTERRUPT, PTRACE_POKEUSER, ptrace
from ..ptrace.task import PtraceTask, check_range
from ..ptrace.tracee import WALL
from ..x86_64.registers import Registers
from ..x86_64.syscall_numbers import SYSCALL_NUMBERS as SYS
from .seed import KeyedTracee

if TYPE_CHECKING:
    from ..ptrace.space import PtraceSpace
    from .platform import NotifyPlatform

__all__ = ["NotifyTask"]

_NOTIF_SEND: Final = 0xC018_2101
_FLAG_CONTINUE: Final = 1
# struct seccomp_notif_resp: id, val, error, flags.
_pack_answer: Final = struct.Struct("=QqiI").pack

_ENOSYS: Final = 38
_ORIG_RAX_OFFSET: Final = Registers.orig_rax.offset
_MINUS_ONE: Final = (1 << 64) - 1
_SIGN: Final = 1 << 63
#: -ERESTARTSYS, -ERESTARTNOINTR, -ERESTARTNOHAND, -ERESTART_RESTARTBLOCK as registers hold them.
_RESTARTS: Final = frozenset((1 << 64) - code for code in (512, 513, 514, 516))
#: Length of the syscall instruction.
_ENTRY_LENGTH: Final = 2
_PAGE: Final = 4096

_MUNMAP, _MPROTECT, _MADVISE = SYS["munmap"], SYS["mprotect"], SYS["madvise"]


class NotifyTask(KeyedTracee, PtraceTask):
    """One host process under the filter."""

    resume_request = PTRACE_CONT
    _platform: NotifyPlatform

    def __init__(
        self,
        platform: NotifyPlatform,
        host_tid: int,
        cpus: frozenset[int],
        space: PtraceSpace,
        registers: Registers,
    ) -> None:
        """Take over a stopped tracee, whose registers are to become *registers*."""
        super().__init__(platform, host_tid, cpus, space, registers)
        self.key = platform.key
        self._listener = platform.listener
        #: The notification that waits for its answer, and its call; None in a ptrace stop and when running.
        self._notification: int | None = None
        self._number = 0
        self._args: tuple[int, ...] = ()
        #: A call that the answer CONTINUE will make, with its arguments.
        self._deferred: tuple[int, ...] | None = None
        #: At a seccomp stop, from which the host would go on to make the call.
        self.at_call = False
        #: What the last call was answered with, if an interrupt was on its way then.
        self._answer: int | None = None

    def notified(self, notification: int, number: int, args: tuple[int, ...]) -> None:
        """Take note of a notification that was received."""
        self._notification = notification
        self._number = number
        self._args = args

    # -- running ------------------------------------------------------------------------------------------------

    def resume(self) -> None:
        if self._notification is not None:
            self.resume_with(-_ENOSYS)
            return
        if self._answer is not None:
            self._know_registers()
        if self.at_call and not self._stale:
            self._skip_call()
        super().resume()

    def resume_with(self, result: int) -> None:
        notification = self._notification
        if notification is None:
            if self.at_call and not self._stale:
                self._skip_call()
            super().resume_with(result)
            return
        flags = 0
        if self._deferred is not None:
            if result:
                self._make_stop()
                super().resume_with(result)
                return
            self._deferred = None
            flags = _FLAG_CONTINUE
        if self.cpus is not self.placement.cpus:
            self.place(self.placement.cpus)
        self._notification = None
        self._answer = result if self.interrupted else None
        try:
            ioctl(self._listener, _NOTIF_SEND, _pack_answer(notification, result, 0, flags))
        except OSError:
            raise HostTaskDied(self.host_tid) from None
        self._platform.running[self.host_tid] = self

    def _run(self) -> None:
        self.at_call = False
        self._answer = None
        super()._run()

    def _skip_call(self) -> None:
        if ptrace(PTRACE_POKEUSER, self.host_tid, _ORIG_RAX_OFFSET, _MINUS_ONE) == -1:
            raise self.lost()

    def interrupt(self) -> None:
        if self.host_tid in self._platform.running:
            self._platform.drain()
            super().interrupt()

    # -- stops --------------------------------------------------------------------------------------------------

    def _make_stop(self) -> None:
        """Turn a notification into a ptrace stop."""
        notification, self._notification = self._notification, None
        assert notification is not None
        tid = self.host_tid
        # A failure of either means that it is dying: waitpid reports that.
        ptrace(PTRACE_INTERRUPT, tid, 0, 0)
        with contextlib.suppress(OSError):
            ioctl(self._listener, _NOTIF_SEND, _pack_answer(notification, -_ENOSYS, 0, 0))
        status = os.waitpid(tid, WALL)[1]
        if not os.WIFSTOPPED(status):
            self.reaped(status)
            raise HostTaskDied(tid)
        self.interrupted = False
        self._answer = -_ENOSYS
        deferred, self._deferred = self._deferred, None
        if deferred is not None:
            self._host_call(*deferred)

    def _know_registers(self) -> None:
        if self._known:
            return
        if self._notification is not None:
            self._make_stop()
        super()._know_registers()
        registers = self._registers
        if registers.rax in _RESTARTS and registers.orig_rax < _SIGN:
            if self._answer is not None:
                registers.rax = self._answer
            else:
                registers.rip -= _ENTRY_LENGTH
                registers.rax = registers.orig_rax
            self._stale = True

    def get_xstate(self) -> bytes:
        self._know_registers()
        return super().get_xstate()

    def set_xstate(self, area: bytes) -> None:
        self._know_registers()
        super().set_xstate(area)

    # -- memory -------------------------------------------------------------------------------------------------

    def munmap(self, address: int, length: int) -> None:
        if not self._defer(_MUNMAP, address, length):
            super().munmap(address, length)

    def mprotect(self, address: int, length: int, prot: int) -> None:
        if not self._defer(_MPROTECT, address, length, prot):
            super().mprotect(address, length, prot)

    def madvise(self, address: int, length: int, advice: int) -> None:
        if not self._defer(_MADVISE, address, length, advice):
            super().madvise(address, length, advice)

    def _defer(self, number: int, address: int, length: int, *rest: int) -> bool:
        """Leave a call to the host if it is the pending one and nobody can come between."""
        if self._notification is None or self._number != number or self._deferred is not None or self.space.is_shared:
            return False
        args = self._args
        if args[0] != address or -(-args[1] // _PAGE) * _PAGE != length or args[2 : 2 + len(rest)] != rest:
            return False
        check_range(address, length)
        self._deferred = (number, address, length, *rest)
        return True
