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

Calls are *deferred* when the host can make the guest's own.  munmap, mprotect and madvise of exactly what the pending
call says are answered CONTINUE: no pointers are involved, and the range was checked.  So is an mmap of anonymous
memory, at an address that the guest has given (MAP_FIXED) or that the host will choose: the caller says that it is the
highest free one below ``NotifyPlatform.mmap_base``, and host and caller know the same mappings.  Of longer mappings,
and behind a hint, that is not known.  At the seccomp stop that they make, the address that we chose becomes their hint,
which the host takes because it is free, and the call returns through a trampoline in the stub page, which puts back the
guest's; rcx and r11, which a system call destroys, hold what it needs.  So one stop does.  (With MAP_FIXED it would be
a notification: the host asks the filter again after a stop.)  A private mapping of a file that was mapped the same way
before, which the host has no reason to refuse then, is made so at its stop too: its descriptor is another on the shelf
that tracees share, and the upper half of r8, which means nothing to the host, holds the guest's meanwhile.  What the
host could align to huge pages does not go where the hint says: files from 2 MiB on, and before Linux 6.9 anonymous
memory too (``NotifyPlatform.takes_hints``).  These mappings are injected.

Where several tasks share memory such a call is in flight until the next is heard of its task, and ``NotifySpace`` keeps
the host's order to ours.  It cannot fail on the host but for want of kernel memory (see ``NotifyPlatform.defers``);
then the guest gets the host's errno, and our list of mappings is wrong about that range.
"""

from __future__ import annotations

import contextlib
import os
import struct
from fcntl import ioctl
from typing import TYPE_CHECKING, Final

from ..interface import Event, EventKind, HostTaskDied
from ..ptrace.binding import (
    NT_PRSTATUS,
    PTRACE_CONT,
    PTRACE_INTERRUPT,
    PTRACE_POKEUSER,
    PTRACE_SETREGSET,
    ptrace,
)
from ..ptrace.task import PtraceTask, check_range
from ..ptrace.tracee import WALL
from ..x86_64.registers import Registers
from ..x86_64.syscall_numbers import SYSCALL_NUMBERS as SYS
from .filter import MOST_PLACED
from .seed import FILE_TRAMPOLINE, TRAMPOLINE

if TYPE_CHECKING:
    from .platform import NotifyPlatform
    from .space import NotifySpace

__all__ = ["NotifyTask"]

_NOTIF_SEND: Final = 0xC018_2101
_FLAG_CONTINUE: Final = 1
# struct seccomp_notif_resp: id, val, error, flags.  One for all: ioctl copies it, and makes an exception first of
# whatever is no mutable buffer (0.25 us).
_pack_answer: Final = struct.Struct("=QqiI").pack_into
_answer: Final = bytearray(24)

_ENOSYS: Final = 38
_ORIG_RAX_OFFSET: Final = Registers.orig_rax.offset
_MINUS_ONE: Final = (1 << 64) - 1
_SIGN: Final = 1 << 63
#: -ERESTARTSYS, -ERESTARTNOINTR, -ERESTARTNOHAND, -ERESTART_RESTARTBLOCK as registers hold them.
_RESTARTS: Final = frozenset((1 << 64) - code for code in (512, 513, 514, 516))
#: Length of the syscall instruction.
_ENTRY_LENGTH: Final = 2
_PAGE: Final = 4096

_MMAP, _MUNMAP, _MPROTECT, _MADVISE = SYS["mmap"], SYS["munmap"], SYS["mprotect"], SYS["madvise"]
_MAP_FIXED: Final = 0x10
#: Flags that mean nothing to the host: MAP_STACK, MAP_DENYWRITE.
_IDLE_MAP_FLAGS: Final = 0x20000 | 0x800
#: Longest mapping, in bytes, for which the host is trusted to have memory.
_MOST_DEFERRED: Final = 1 << 26
#: Where in both trampolines rdi is the guest's again, and where in the second r8 is turned round, and the guest's.
_RDI_DONE, _R8_TURNED, _R8_DONE = 3, 6, 9
_TRAMPOLINES: Final = frozenset((*range(TRAMPOLINE, TRAMPOLINE + 5), *range(FILE_TRAMPOLINE, FILE_TRAMPOLINE + 11)))
_NO_FILE: Final = 0xFFFF_FFFF
_MAP_TYPE, _MAP_PRIVATE = 0x0F, 0x02
#: Every file system has files as large as this.
_MOST_FILE_BYTES: Final = 1 << 40
_BIT_31: Final = 1 << 31
_LOW_HALF: Final = 0xFFFF_FFFF


class NotifyTask(PtraceTask):
    """One host process under the filter."""

    resume_request = PTRACE_CONT

    def __init__(
        self,
        platform: NotifyPlatform,
        host_tid: int,
        cpus: frozenset[int],
        space: NotifySpace,
        registers: Registers,
    ) -> None:
        """Take over a stopped tracee, whose registers are to become *registers*."""
        super().__init__(platform, host_tid, cpus, space, registers)
        self._notify = platform
        #: Its address space, as this platform knows it.
        self._calls = space
        self._listener = platform.listener
        self._running = platform.running
        #: The notification that waits for its answer, and its call; None in a ptrace stop and when running.
        self._notification: int | None = None
        self._number = 0
        self._args: tuple[int, ...] = ()
        #: A call that the answer CONTINUE will make, with its arguments, and its result.
        self._deferred: tuple[int, ...] | None = None
        #: Where on the shelf the file stands that the deferred call maps, until something is heard of the task.
        self.shelf_place = _NO_FILE
        self._expected = 0
        #: At a seccomp stop, from which the host would go on to make the call.
        self.at_call = False
        #: What the last call was answered with, if an interrupt was on its way then.
        self._answer: int | None = None

    def notified(self, notification: int, number: int, args: tuple[int, ...]) -> None:
        """Take note of a notification that was received."""
        self._notification = notification
        self._number = number
        self._args = args
        self.shelf_place = _NO_FILE
        self.quiet_ticks = 0

    def stopped_at_call(self) -> Event | None:
        """Take note of a seccomp stop, and return its event; None when the task is being killed."""
        self.at_call = True
        self.shelf_place = _NO_FILE
        try:
            self._know_registers()
        except HostTaskDied:
            return None
        registers = self._registers
        number = self._number = ((registers.orig_rax & 0xFFFF_FFFF) ^ _BIT_31) - _BIT_31
        args = self._args = (
            registers.rdi,
            registers.rsi,
            registers.rdx,
            registers.r10,
            registers.r8,
            registers.r9,
        )
        return Event(EventKind.SYSCALL, self, number, args)

    # -- running ------------------------------------------------------------------------------------------------

    def resume(self) -> None:
        if self._notification is not None:
            self.resume_with(-_ENOSYS)
            return
        if self._answer is not None or self._deferred is not None:
            self._know_registers()
        if self.at_call and not self._stale:
            self._skip_call()
        super().resume()

    def resume_with(self, result: int) -> None:
        notification = self._notification
        if notification is None:
            if self._deferred is not None:
                if result == self._expected:
                    self._make_mapping()
                    return
                self._know_registers()
            if self.at_call and not self._stale:
                self._skip_call()
            super().resume_with(result)
            return
        flags = 0
        if self._deferred is not None:
            if result != self._expected or self.interrupted:
                self._make_stop()
                super().resume_with(result)
                return
            self._deferred = None
            flags, result = _FLAG_CONTINUE, 0
        if self.cpus is not self.placement.cpus:
            self.place(self.placement.cpus)
        self._notification = None
        self._answer = result if self.interrupted else None
        try:
            _pack_answer(_answer, 0, notification, result, 0, flags)
            ioctl(self._listener, _NOTIF_SEND, _answer)
        except OSError:
            raise HostTaskDied(self.host_tid) from None
        self._running[self.host_tid] = self

    def _run(self) -> None:
        self.at_call = False
        self._answer = None
        super()._run()

    def _skip_call(self) -> None:
        if ptrace(PTRACE_POKEUSER, self.host_tid, _ORIG_RAX_OFFSET, _MINUS_ONE) == -1:
            raise self.lost()

    def interrupt(self) -> None:
        if self.host_tid in self._notify.running:
            self._notify.drain()
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
            _pack_answer(_answer, 0, notification, -_ENOSYS, 0, 0)
            ioctl(self._listener, _NOTIF_SEND, _answer)
        status = os.waitpid(tid, WALL)[1]
        if not os.WIFSTOPPED(status):
            self.reaped(status)
            raise HostTaskDied(tid)
        self.interrupted = False
        self._answer = -_ENOSYS
        if self._deferred is not None:
            self._make_deferred_call()

    def _make_deferred_call(self) -> None:
        """Something other than the expected answer comes: make the call now."""
        deferred, self._deferred = self._deferred, None
        assert deferred is not None
        self.landed()
        self._host_call(*deferred)

    def _make_mapping(self) -> None:
        """Let the host make the deferred mmap, and the guest go on with its address as the result."""
        deferred, self._deferred = self._deferred, None
        assert deferred is not None
        registers = self._registers
        registers.rcx, registers.r11 = registers.rip, registers.rdi
        registers.rdi, registers.rip = deferred[1], TRAMPOLINE
        if self.shelf_place != _NO_FILE:
            registers.r8, registers.rip = _turned(registers.r8) | self.shelf_place, FILE_TRAMPOLINE
        if ptrace(PTRACE_SETREGSET, self.host_tid, NT_PRSTATUS, self._core_address) == -1:
            raise self.lost()
        self._run()

    def _put_off(self, expected: int, *call: int) -> None:
        """Defer *call*: its number, the start of its range, its length, and so on."""
        self._deferred = call
        self._expected = expected
        if self._calls.is_shared:
            self._calls.take_off(self, call[0], call[1], call[2])

    def landed(self) -> None:
        """Something was heard of it: the host has made its call."""
        self._calls.in_flight.pop(self, None)

    def halt(self) -> None:
        """Have the call that is in flight made; what the task does next is reported as ever."""
        if self._deferred is not None:
            self._know_registers()
            return
        self._notify.drain()
        if self.host_tid in self._notify.running:
            super().interrupt()
            self._notify.report_stop(self, os.waitpid(self.host_tid, WALL)[1])

    def buried(self) -> None:
        self.landed()
        super().buried()

    def _leave_trampoline(self) -> None:
        """Do what is left of the trampoline: it is no place that a guest is ever at."""
        registers = self._registers
        for_file = registers.rip >= FILE_TRAMPOLINE
        done = registers.rip - (FILE_TRAMPOLINE if for_file else TRAMPOLINE)
        if done < _RDI_DONE:
            registers.rdi = registers.r11
        if for_file and done < _R8_DONE:
            registers.r8 = (_turned(registers.r8) if done < _R8_TURNED else registers.r8) & _LOW_HALF
        registers.rip = registers.rcx
        self._stale = True

    def _know_registers(self) -> None:
        if self._notification is not None:
            self._make_stop()
        elif self._deferred is not None:
            self._make_deferred_call()
        if self._known:
            return
        super()._know_registers()
        registers = self._registers
        if registers.rip in _TRAMPOLINES:
            self._leave_trampoline()
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

    def mmap(
        self,
        address: int,
        length: int,
        prot: int,
        flags: int,
        host_fd: int = -1,
        offset: int = 0,
        *,
        natural: bool = False,
    ) -> None:
        if self._calls.in_flight:
            self._calls.settle(self, address, address + length, places=True)
        if host_fd >= 0:
            made = self._defer_file_mapping(address, length, prot, flags, host_fd, offset)
        else:
            made = self._defer_mapping(address, length, prot, flags, natural)
        if not made:
            super().mmap(address, length, prot, flags, host_fd, offset)

    def _defer_file_mapping(self, address: int, length: int, prot: int, flags: int, host_fd: int, offset: int) -> bool:
        """Leave a private mapping of a file to the host if the file was mapped so before; at the seccomp stop only."""
        if not self.at_call or self._number != _MMAP or self._stale or self._deferred is not None:
            return False
        hint, wanted, as_prot, as_flags, _fd, as_offset = self._args
        if flags & ~as_flags & _MAP_FIXED:
            return False
        flags |= _MAP_FIXED
        if (wanted + _PAGE - 1) & -_PAGE != length or (as_prot, as_offset) != (prot, offset) or length >= MOST_PLACED:
            return False
        if as_flags & ~_IDLE_MAP_FLAGS | _MAP_FIXED != flags or as_flags & _MAP_FIXED and hint != address:
            return False
        if flags & _MAP_TYPE != _MAP_PRIVATE or offset > _MOST_FILE_BYTES or self._registers.r8 > _LOW_HALF:
            return False
        shelf = self._notify.shelf
        place, stays = shelf.place(host_fd)
        if not stays:
            shelf.remove(place)
            return False
        if not self._notify.defers or (prot, flags) not in shelf.proven[place]:
            super().mmap(address, length, prot, flags, host_fd, offset)
            shelf.proven[place].add((prot, flags))
            return True
        check_range(address, length)
        self.shelf_place = place
        self._put_off(address, _MMAP, address, length, prot, flags, place, offset)
        return True

    def _defer_mapping(self, address: int, length: int, prot: int, flags: int, natural: bool) -> bool:
        """Leave an anonymous mmap to the host, as ``_defer``."""
        if self._number != _MMAP or self._deferred is not None or length > _MOST_DEFERRED:
            return False
        hint, wanted, as_prot, as_flags = self._args[:4]
        if (wanted + _PAGE - 1) & -_PAGE != length or as_prot != prot or flags & ~as_flags & _MAP_FIXED:
            return False
        flags |= _MAP_FIXED
        if as_flags & ~_IDLE_MAP_FLAGS | _MAP_FIXED != flags or not self._notify.defers:
            return False
        if self._notification is None:
            if not self.at_call or self._stale or as_flags & _MAP_FIXED:
                return False
            if length >= MOST_PLACED and not self._notify.takes_hints:
                return False
        elif hint != address if as_flags & _MAP_FIXED else hint or not natural or length >= MOST_PLACED:
            return False
        check_range(address, length)
        self._put_off(address, _MMAP, address, length, prot, flags, 0xFFFF_FFFF, 0)
        return True

    def munmap(self, address: int, length: int) -> None:
        if self._calls.in_flight:
            self._calls.settle(self, address, address + length, places=True)
        if not self._defer(_MUNMAP, address, length):
            super().munmap(address, length)

    def mprotect(self, address: int, length: int, prot: int) -> None:
        if self._calls.in_flight:
            self._calls.settle(self, address, address + length)
        if not self._defer(_MPROTECT, address, length, prot):
            super().mprotect(address, length, prot)

    def madvise(self, address: int, length: int, advice: int) -> None:
        if self._calls.in_flight:
            self._calls.settle(self, address, address + length)
        if not self._defer(_MADVISE, address, length, advice):
            super().madvise(address, length, advice)

    def _defer(self, number: int, address: int, length: int, *rest: int) -> bool:
        """Leave a call to the host if it is the pending one and nobody can come between."""
        if self._notification is None or self._number != number or self._deferred is not None:
            return False
        if not self._notify.defers:
            return False
        args = self._args
        if args[0] != address or (args[1] + _PAGE - 1) & -_PAGE != length or rest and args[2] != rest[0]:
            return False
        check_range(address, length)
        self._put_off(0, number, address, length, *rest)
        return True

    def mremap(self, old: int, old_length: int, new: int, new_length: int) -> None:
        if self._calls.in_flight:
            self._calls.settle(self)
        super().mremap(old, old_length, new, new_length)

    def clone(self, *, share_memory: bool) -> PtraceTask:
        if self._calls.in_flight and not share_memory:
            self._calls.settle(self)
        return super().clone(share_memory=share_memory)


def _turned(value: int) -> int:
    """Return a 64-bit number with its bytes in the opposite order, as bswap has it."""
    return int.from_bytes(value.to_bytes(8, "little"), "big")
