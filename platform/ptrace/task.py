"""A host task under ptrace: one host process per guest task.

Linux counterpart: ``struct task_struct`` as ``switch_to`` sees it.  It owns the cached general registers and whether
the host's copy is stale.

Why a process and not a thread, even when guest tasks share memory: clone(CLONE_VM) without CLONE_THREAD gives the same
shared address space, but each can be killed and reaped alone.  With CLONE_THREAD a SIGKILL takes the whole group,
a thread could only be ended by an injected exit, and the zombie leader of a non-leader execve would have to be kept.

Registers are fetched when somebody asks, and written back only if something changed them (an injected call, or
``set_registers``); else finishing a system call is two requests: POKEUSER of rax, and SYSEMU.  Bases and data segments
are written one by one, and only those that were changed: see tracee.py for why.
"""

from __future__ import annotations

import ctypes
import errno
import operator
import os
import signal
from typing import TYPE_CHECKING, Any, Final

from ..interface import GUEST_TOP, HostTask
from ..x86_64.registers import Registers
from ..x86_64.syscall_numbers import SYSCALL_NUMBERS as SYS
from ..x86_64.xstate import host_layout
from .binding import (
    NT_PRSTATUS,
    NT_X86_XSTATE,
    PTRACE_GETREGS,
    PTRACE_INTERRUPT,
    PTRACE_POKEUSER,
    PTRACE_SETREGSET,
    PTRACE_SYSEMU,
    Iovec,
    get_regset,
    ptrace,
    set_regset,
)
from .tracee import CORE_SIZE, Tracee

if TYPE_CHECKING:
    from .platform import PtracePlatform
    from .space import PtraceSpace

__all__ = ["CLONE_FLAGS", "PtraceTask", "check_range"]

_RAX_OFFSET: Final = Registers.rax.offset
# The registers behind ss.
_BASES: Final = ("fs_base", "gs_base")
_SELECTORS: Final = ("ds", "es", "fs", "gs")
_LAST_NULL_SELECTOR: Final = 3
_OTHERS: Final = (*_BASES, *_SELECTORS)
_get_others: Final = operator.attrgetter(*_OTHERS)
_MINUS_ONE: Final = (1 << 64) - 1

_CLONE_VM, _CLONE_FS, _CLONE_FILES, _CLONE_PTRACE, _CLONE_PARENT = 0x100, 0x200, 0x400, 0x2000, 0x8000
#: Flags of every injected clone.  CLONE_PARENT makes the worker the parent, which reaps it and gets its SIGCHLD
#: (the kernel copies the seed's exit signal); CLONE_PTRACE attaches the child without an event stop of the parent;
#: CLONE_FILES shares the descriptor shelf.
CLONE_FLAGS: Final = _CLONE_PARENT | _CLONE_PTRACE | _CLONE_FILES | _CLONE_FS

_MAP_FIXED: Final = 0x10
_MREMAP_MAYMOVE, _MREMAP_FIXED = 1, 2


class PtraceTask(Tracee, HostTask):
    """One traced host process that runs the code of one guest task."""

    #: The ptrace request that lets it run guest code.
    resume_request = PTRACE_SYSEMU

    def __init__(
        self, platform: PtracePlatform, host_tid: int, cpus: frozenset[int], space: PtraceSpace, registers: Registers
    ) -> None:
        """Take over a stopped tracee, whose registers are to become *registers*."""
        super().__init__(host_tid, platform.placement, cpus, platform.key)
        self.space = self._own_space = space
        self.owner: Any = None
        self.interrupted = False
        #: For how many looks of CPU placement nothing was heard of it.
        self.quiet_ticks = 0
        self._platform = platform
        self._alive = True
        self._registers = registers
        self._registers_address = ctypes.addressof(registers)
        self._core = Iovec(self._registers_address, CORE_SIZE)
        self._core_address = ctypes.addressof(self._core)
        # known: _registers holds the guest's registers.  stale: the host's copy differs from it.
        self._known = True
        self._stale = True
        #: It made calls for us since it ran: their SIGCHLD may be pending.
        self._injected = False

    # -- running ------------------------------------------------------------------------------------------------

    def resume(self) -> None:
        if self._stale:
            self._write_back()
        self._run()

    def resume_with(self, result: int) -> None:
        if self._stale:
            self._registers.rax = result
            self._write_back()
        elif ptrace(PTRACE_POKEUSER, self.host_tid, _RAX_OFFSET, result) == -1:
            raise self.lost()
        self._run()

    def _write_back(self) -> None:
        self._registers.orig_rax = _MINUS_ONE
        if ptrace(PTRACE_SETREGSET, self.host_tid, NT_PRSTATUS, self._core_address) == -1:
            raise self.lost()
        self._stale = False

    def _run(self) -> None:
        if self.cpus is not self.placement.cpus:
            self.place(self.placement.cpus)
        if self._injected:
            self._injected = False
            if not self._platform.running:
                self._platform.absorb_signal()
        if ptrace(self.resume_request, self.host_tid, 0, 0) == -1:
            raise self.lost()
        self._known = False
        self._platform.running[self.host_tid] = self

    def interrupt(self) -> None:
        if self.host_tid in self._platform.running:
            self.interrupted = True
            # A failure means that it is dying: its EXITED event is the one that follows.
            ptrace(PTRACE_INTERRUPT, self.host_tid, 0, 0)

    def kill(self) -> None:
        if not self._alive:
            return
        if self.cpus is not self.placement.allowed:
            # The end of a process takes the host as long as its birth: on another CPU, if there is one.
            self.place(self.placement.allowed)
        os.kill(self.host_tid, signal.SIGKILL)
        self._platform.leave_dying(self.host_tid)
        self.buried()

    def lost(self) -> Exception:
        if self.host_tid in self._platform.running:
            return RuntimeError(f"host task {self.host_tid} is running: it must be stopped for this")
        return super().lost()

    def reaped(self, status: int) -> None:
        """Take note that it is dead and reaped, and have that reported."""
        self.buried()
        self._platform.report_death(self, status)

    def buried(self) -> None:
        """Give back what it held: it is dead and reaped."""
        self._alive = False
        self._platform.forget(self)
        self._own_space.release()
        self.host_tid = -1  # whoever still holds this object gets HostTaskDied, not a new process with that number

    # -- registers ----------------------------------------------------------------------------------------------

    def _know_registers(self) -> None:
        if not self._known:
            if ptrace(PTRACE_GETREGS, self.host_tid, 0, self._registers_address) == -1:
                raise self.lost()
            self._known = True

    def get_registers(self) -> Registers:
        self._know_registers()
        return self._registers.copy()

    def set_registers(self, registers: Registers) -> None:
        self._know_registers()
        wanted, known = _get_others(registers), _get_others(self._registers)
        if wanted != known:
            for name, value, before in zip(_OTHERS, wanted, known, strict=True):
                if value != before:
                    # 1, 2 and 3 are the null selector too, but the host refuses some of them.
                    self._write_register(name, value if value > _LAST_NULL_SELECTOR or name in _BASES else 0)
        ctypes.memmove(self._registers_address, ctypes.addressof(registers), CORE_SIZE)
        self._write_back()

    def _write_register(self, name: str, value: int) -> None:
        if ptrace(PTRACE_POKEUSER, self.host_tid, getattr(Registers, name).offset, value) == -1:
            raise self.lost()
        setattr(self._registers, name, value)

    def get_xstate(self) -> bytes:
        return get_regset(self.host_tid, NT_X86_XSTATE, host_layout().size)

    def set_xstate(self, area: bytes) -> None:
        # The host also counts components that a process must ask for (AMX), which guests do not have.
        padded = area.ljust(self._platform.xstate_size, b"\0")
        try:
            set_regset(self.host_tid, NT_X86_XSTATE, padded)
        except OSError as error:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL)) from error

    # -- memory -------------------------------------------------------------------------------------------------

    def _host_call(self, number: int, *arguments: int) -> int:
        """Inject a call on behalf of the guest: its registers are kept, and go back when it is resumed."""
        self._know_registers()
        self._stale = self._injected = True
        return self.inject(number, *arguments)

    def mmap(
        self,
        address: int,
        length: int,
        prot: int,
        flags: int,
        host_fd: int = -1,
        offset: int = 0,
        *,
        natural: bool = False,  # no matter: the host is told the address
    ) -> None:
        check_range(address, length)
        place, stays = (0xFFFF_FFFF, True) if host_fd < 0 else self._platform.shelf.place(host_fd)
        try:
            self._host_call(SYS["mmap"], address, length, prot, flags | _MAP_FIXED, place, offset)
        finally:
            if not stays:
                self._platform.shelf.remove(place)

    def munmap(self, address: int, length: int) -> None:
        check_range(address, length)
        self._host_call(SYS["munmap"], address, length)

    def mprotect(self, address: int, length: int, prot: int) -> None:
        check_range(address, length)
        self._host_call(SYS["mprotect"], address, length, prot)

    def madvise(self, address: int, length: int, advice: int) -> None:
        check_range(address, length)
        self._host_call(SYS["madvise"], address, length, advice)

    def mremap(self, old: int, old_length: int, new: int, new_length: int) -> None:
        check_range(old, old_length)
        check_range(new, new_length)
        flags = 0 if old == new else _MREMAP_MAYMOVE | _MREMAP_FIXED
        self._host_call(SYS["mremap"], old, old_length, new_length, flags, new)

    # -- births -------------------------------------------------------------------------------------------------

    def clone(self, *, share_memory: bool) -> PtraceTask:
        tid = self._host_call(SYS["clone"], CLONE_FLAGS | (_CLONE_VM if share_memory else 0))
        registers = self._registers.copy()
        registers.rax = 0
        return self._platform.adopt(tid, self, registers, self._own_space if share_memory else None)


def check_range(address: int, length: int) -> None:
    """Keep guests' ranges off the stub, whatever the caller checked. OSError(EINVAL)."""
    if not 0 <= address <= address + length <= GUEST_TOP:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
