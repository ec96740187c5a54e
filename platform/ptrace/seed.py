"""The seed: a parked, emptied host process from which every other tracee is cloned.

Linux counterpart: none; gVisor's ``newSubprocess`` keeps the same thing.  It owns the making of that process: a program
of three instructions, which waits, is stopped and then stripped, by injected calls alone, of everything that it
inherited: memory, vDSO, descriptors, rseq registration, signal handlers, mask, FPU state, session, privileges.

The program is spawned (``posix_spawn``: vfork and exec) from memory.  A fork of the worker would do, and does where the
host refuses to execute that; but it copies the worker's page tables, and leaves every page of the worker to be faulted
in once more: 3 ms of each start.  Nothing that a forked child executes itself matters, so it does not matter either in
which state a thread of the worker (ZeroMQ's, say) held the heap or the interpreter lock.

The last step is a seccomp filter that every tracee inherits.  SYSEMU alone already keeps guests' calls from the host;
the filter makes it true a second time, by address and number, for the case of a bug of ours, and for the vsyscall page,
whose emulation in the host kernel asks seccomp but not ptrace.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
from typing import TYPE_CHECKING, ClassVar, Final

from ..interface import STUB_ADDRESS
from ..x86_64 import xstate
from ..x86_64.registers import Registers
from ..x86_64.syscall_numbers import SYSCALL_NUMBERS as SYS
from .binding import (
    NT_X86_XSTATE,
    PTRACE_GET_RSEQ_CONFIGURATION,
    PTRACE_GETREGS,
    PTRACE_INTERRUPT,
    PTRACE_O_EXITKILL,
    PTRACE_O_TRACESYSGOOD,
    PTRACE_POKEDATA,
    PTRACE_SEIZE,
    PTRACE_SETREGS,
    PTRACE_SETSIGMASK,
    get_regset,
    request,
    set_regset,
)
from .tracee import STUB_CODE, WALL, Tracee

if TYPE_CHECKING:
    from .placement import Placement

__all__ = ["ALLOWED_CALLS", "MESSAGE_PAGE", "SHELF_SOCKET", "Seed"]

#: Address of the one writable page of the seed; no clone inherits it.
MESSAGE_PAGE: Final = 0x10000
#: Descriptor number, in the tracees' shared table, of the socket that the worker passes descriptors through.
SHELF_SOCKET: Final = 0

_PAGE: Final = 4096
_WORD: Final = 8
_TASK_SIZE: Final = 0x7FFF_FFFF_F000
_PROT_READ, _PROT_WRITE, _PROT_EXEC = 1, 2, 4
_MAP_PRIVATE, _MAP_FIXED, _MAP_ANONYMOUS = 0x02, 0x10, 0x20
_MADV_DONTFORK: Final = 10
_RSEQ_FLAG_UNREGISTER: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NAME: Final = 15
_PR_SET_NO_NEW_PRIVS: Final = 38
_SECCOMP_SET_MODE_FILTER: Final = 1


#: The only host calls that the filter lets through, and only from the stub.
ALLOWED_CALLS: Final = tuple(
    SYS[name] for name in ("mmap", "munmap", "mprotect", "madvise", "mremap", "clone", "recvmsg", "close")
)


class Seed(Tracee):
    """The parked process. It is never resumed to run guest code."""

    #: Size of the XSAVE area as the host's ptrace wants it.
    xstate_size: int
    #: What ptrace is to report; every clone inherits it.
    options: ClassVar[int] = PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD

    def __init__(self, shelf_socket: int, placement: Placement, key: int = 0) -> None:
        """Fork, stop and empty a process that keeps only *shelf_socket*. OSError when the host forbids a step.

        *key* is what the filter will ask of injected calls.
        """
        try:
            pid, inherited = _spawn_and_park(shelf_socket), SHELF_SOCKET
        except OSError:  # the host forbids to execute what is in memory, or to make it executable
            pid, inherited = _fork_and_park(), shelf_socket
        super().__init__(pid, placement, placement.cpus, key)
        try:
            self._prepare(inherited)
        except BaseException:
            self.kill()
            raise

    def _prepare(self, shelf_socket: int) -> None:
        request(PTRACE_SEIZE, self.host_tid, 0, self.options)
        request(PTRACE_INTERRUPT, self.host_tid)
        os.waitpid(self.host_tid, WALL)
        self._map_stub()
        self._forget_registrations()
        self._empty_memory()
        self._reset_signals()
        self._empty_descriptors(shelf_socket)
        self._reset_xstate()
        self._leave_the_worker()
        self._seal()

    def _map_stub(self) -> None:
        registers = Registers()
        registers_address = ctypes.addressof(registers)
        request(PTRACE_GETREGS, self.host_tid, 0, registers_address)
        # There is no stub yet to make this one call with: it is made from the text that the child was stopped in.
        registers.rip &= ~7
        request(PTRACE_POKEDATA, self.host_tid, registers.rip, int.from_bytes(STUB_CODE, "little"))
        registers.rax, registers.orig_rax = SYS["mmap"], (1 << 64) - 1
        registers.rdi, registers.rsi, registers.rdx = STUB_ADDRESS, _PAGE, _PROT_READ | _PROT_EXEC
        registers.r10, registers.r8, registers.r9 = _MAP_PRIVATE | _MAP_FIXED | _MAP_ANONYMOUS, 0xFFFF_FFFF, 0
        # For the clones: no thread area, no segments.  Injected calls do not touch these.
        registers.fs_base = registers.gs_base = registers.ds = registers.es = registers.fs = registers.gs = 0
        request(PTRACE_SETREGS, self.host_tid, 0, registers_address)
        if self._run_to_trap(registers.rip + 3) != STUB_ADDRESS:
            raise RuntimeError("the host refuses an executable page for the stub")
        request(PTRACE_POKEDATA, self.host_tid, STUB_ADDRESS, int.from_bytes(STUB_CODE, "little"))

    def _forget_registrations(self) -> None:
        """Undo what libc registered with the host: it would write into guest memory behind our back."""
        self.inject(SYS["set_tid_address"], 0)
        configuration = ctypes.create_string_buffer(24)
        size = len(configuration)
        try:
            request(PTRACE_GET_RSEQ_CONFIGURATION, self.host_tid, size, ctypes.addressof(configuration))
        except OSError:  # before Linux 5.13: no libc that registers is at home there
            return
        pointer, length, signature, _flags, _pad = struct.unpack("=QIIII", configuration.raw)
        if pointer:
            self.inject(SYS["rseq"], pointer, length, _RSEQ_FLAG_UNREGISTER, signature)

    def _empty_memory(self) -> None:
        self.inject(SYS["munmap"], 0, STUB_ADDRESS)
        self.inject(SYS["munmap"], STUB_ADDRESS + _PAGE, _TASK_SIZE - STUB_ADDRESS - _PAGE)
        flags = _MAP_PRIVATE | _MAP_FIXED | _MAP_ANONYMOUS
        self.inject(SYS["mmap"], MESSAGE_PAGE, _PAGE, _PROT_READ | _PROT_WRITE, flags, 0xFFFF_FFFF)
        self.inject(SYS["madvise"], MESSAGE_PAGE, _PAGE, _MADV_DONTFORK)

    def _reset_signals(self) -> None:
        empty = ctypes.c_uint64(0)
        request(PTRACE_SETSIGMASK, self.host_tid, 8, ctypes.addressof(empty))
        for signo in _handled_signals(self.host_tid):
            self.inject(SYS["rt_sigaction"], signo, MESSAGE_PAGE, 0, 8)

    def _empty_descriptors(self, shelf_socket: int) -> None:
        if shelf_socket != SHELF_SOCKET:
            self.inject(SYS["dup3"], shelf_socket, SHELF_SOCKET, 0)
        self.inject(SYS["close_range"], SHELF_SOCKET + 1, 0xFFFF_FFFF, 0)

    def _reset_xstate(self) -> None:
        most = xstate.largest_size()
        self.xstate_size = len(get_regset(self.host_tid, NT_X86_XSTATE, most + _WORD))
        if self.xstate_size > most:
            raise RuntimeError(f"the host's ptrace has an XSAVE area of more than the {most} bytes that CPUID tells")
        set_regset(self.host_tid, NT_X86_XSTATE, xstate.reset_area(xstate.host_layout(), self.xstate_size))

    def _leave_the_worker(self) -> None:
        """Take it out of the worker's session and directory, and name it."""
        resource.prlimit(self.host_tid, resource.RLIMIT_CORE, (0, 0))
        self.inject(SYS["setsid"])
        self._poke(MESSAGE_PAGE, b"/\0")
        self.inject(SYS["chdir"], MESSAGE_PAGE)
        self._poke(MESSAGE_PAGE, b"greenroom-guest\0")
        self.inject(SYS["prctl"], _PR_SET_NAME, MESSAGE_PAGE)
        # A worker that made itself undumpable must still be able to open /proc/TID/mem.
        self.inject(SYS["prctl"], _PR_SET_DUMPABLE, 1)

    def _seal(self) -> None:
        self._install_filter(_filter_program(), 0)

    def _install_filter(self, program: bytes, flags: int) -> int:
        """Put it, and all its clones to come, under a seccomp filter; return what seccomp(2) does."""
        self.inject(SYS["prctl"], _PR_SET_NO_NEW_PRIVS, 1)
        header = struct.pack("=HxxxxxxQ", len(program) // 8, MESSAGE_PAGE + 16)
        self._write(MESSAGE_PAGE, header + program)
        return self.inject(SYS["seccomp"], _SECCOMP_SET_MODE_FILTER, flags, MESSAGE_PAGE)

    def _write(self, address: int, data: bytes) -> None:
        memory = os.open(f"/proc/{self.host_tid}/mem", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.pwrite(memory, data, address)
        finally:
            os.close(memory)

    def _poke(self, address: int, data: bytes) -> None:
        """Write a few words, also where the host lets nobody write."""
        for offset in range(0, len(data), _WORD):
            word = int.from_bytes(data[offset : offset + _WORD], "little")
            request(PTRACE_POKEDATA, self.host_tid, address + offset, word)


def _spawn_and_park(shelf_socket: int) -> int:
    """Start a process that waits, with *shelf_socket* as its descriptor SHELF_SOCKET. OSError."""
    program = os.memfd_create("greenroom-seed")
    try:
        os.write(program, _parking_program())
        actions = [(os.POSIX_SPAWN_DUP2, shelf_socket, SHELF_SOCKET)]
        return os.posix_spawn(f"/proc/self/fd/{program}", ["greenroom-seed"], {}, file_actions=actions)
    finally:
        os.close(program)


def _parking_program() -> bytes:
    """Return an ELF file of one segment whose code calls pause(2) for ever."""
    code = b"\xb8" + struct.pack("<I", SYS["pause"]) + b"\x0f\x05\xeb\xf7"  # mov eax, pause; syscall; jmp to the start
    size, base = 64 + 56, 0x400000
    identification = b"\x7fELF\2\1\1".ljust(16, b"\0")
    header = struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, base + size, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    length = size + len(code)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, length, length, _PAGE)
    return identification + header + segment + code


def _fork_and_park() -> int:
    libc = ctypes.PyDLL(None)
    pid: int = libc.fork()
    while pid == 0:
        libc.pause()
    if pid < 0:
        raise OSError("cannot fork the seed process")
    return pid


def _handled_signals(tid: int) -> list[int]:
    """Return the signals that are ignored or caught."""
    handled = 0
    with open(f"/proc/{tid}/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith(("SigIgn:", "SigCgt:")):
                handled |= int(line.split()[1], 16)
    return [signo for signo in range(1, 65) if handled >> (signo - 1) & 1]


def _filter_program() -> bytes:
    """Return the BPF program: allow the few calls that we inject, from the stub; SIGSYS for everything else."""
    load, equal, ret = 0x20, 0x15, 0x06  # BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K
    audit_arch_x86_64, trap, allow = 0xC000003E, 0x00030000, 0x7FFF0000
    after_call = STUB_ADDRESS + 2
    count = len(ALLOWED_CALLS)
    checks = [(4, audit_arch_x86_64), (12, after_call >> 32), (8, after_call & 0xFFFF_FFFF)]
    program = []
    for index, (offset, value) in enumerate(checks):
        to_trap = 2 * (len(checks) - index - 1) + 1 + count
        program += [(load, 0, 0, offset), (equal, 0, to_trap, value)]
    program.append((load, 0, 0, 0))
    for index, number in enumerate(ALLOWED_CALLS):
        program.append((equal, count - index, 0, number))
    program += [(ret, 0, 0, trap), (ret, 0, 0, allow)]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
