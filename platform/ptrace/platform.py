"""The ptrace platform: guests run under PTRACE_SYSEMU, so that every system call stops before the host sees it.

Linux counterpart: ``kernel/ptrace.c``; in gVisor, ``pkg/sentry/platform/ptrace``.  It owns the seed, the descriptor
shelf, the table of host tasks and the signalfd that tells of their stops.

All of it belongs to the thread that called ``start``: Linux ties a tracee to the thread that attached it.  SIGCHLD is
blocked in that thread and read from a signalfd.  A thread of the same process that leaves SIGCHLD unblocked would
swallow the wake-ups, so ``start`` refuses when there is one (ZeroMQ's threads block all signals; a thread that is
started later from this one inherits its mask).
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import signal
import socket
import struct
import threading
from collections import deque
from typing import TYPE_CHECKING, ClassVar, Final

from ..interface import Event, EventKind, HostTaskDied, Platform
from ..x86_64.registers import Registers
from ..x86_64.syscall_numbers import SYSCALL_NUMBERS as SYS
from .binding import PTRACE_EVENT_STOP, PTRACE_GET_SYSCALL_INFO, PTRACE_GETSIGINFO, ptrace
from .placement import Affinity, Placement
from .seed import Seed
from .shelf import Shelf
from .space import PtraceSpace
from .task import CLONE_FLAGS, PtraceTask
from .tracee import WALL, Tracee, end, reap

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["PtracePlatform"]

#: Most files that stand on the descriptor shelf.
_SHELF_LIMIT: Final = 256

_SIGINFO_SIZE: Final = 128
_SIGNALFD_SIGINFO_SIZE: Final = 128
_SFD_FLAGS: Final = os.O_NONBLOCK | os.O_CLOEXEC
_STATUS_SYSCALL: Final = (signal.SIGTRAP | 0x80) << 8 | 0x7F
_FAULT_SIGNALS: Final = frozenset((signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP))

#: Up to this many running tasks are waited for one by one. waitpid(-1) looks at every tracee, running or not, at
#: 0.085 us each; a named one costs 0.5 us.
_FEW: Final = 8
#: Most killed tasks that wait to be reaped.
_MOST_DYING: Final = 64
#: Look at all tracees now and then: SIGCHLDs that arrive together are one, which may hide a death.
_SWEEP_EVERY: Final = 1024

_CLD_TRAPPED: Final = 4
#: That, and CLD_STOPPED: of a stop by PTRACE_INTERRUPT.
_CLD_STOPS: Final = (_CLD_TRAPPED, 5)
_SYS_SECCOMP_CODE: Final = 1
#: Length of int 0x80, sysenter and syscall alike.
_ENTRY_LENGTH: Final = 2
_SI_KERNEL: Final = 0x80
_AUDIT_ARCH_X86_64: Final = 0xC000003E

# struct signalfd_siginfo: ssi_code, ssi_pid.
_unpack_signal: Final = struct.Struct("=8xiI").unpack_from
# struct ptrace_syscall_info: arch, number (an int for Linux, whatever the width of the register), six arguments.
_call_info = ctypes.create_string_buffer(88)
_call_info_address: Final = ctypes.addressof(_call_info)
_unpack_call: Final = struct.Struct("=4xI16xi4x6Q").unpack_from

_log = logging.getLogger(__name__)


class PtracePlatform(Platform):
    """Host tasks under PTRACE_SYSEMU."""

    name = "ptrace"
    #: What to do when the host does not let it start.
    advice: ClassVar[str] = (
        "it needs to trace its own children: kernel.yama.ptrace_scope at most 2, in a container a seccomp profile that "
        "allows ptrace, and a worker that did not make itself undumpable before"
    )
    task_type: ClassVar[type[PtraceTask]] = PtraceTask
    space_type: ClassVar[type[PtraceSpace]] = PtraceSpace
    shelf: Shelf
    placement: Placement
    xstate_size: int

    def __init__(self, affinity: Affinity = "adaptive") -> None:
        """*affinity* is where tracees run: "pinned" to the worker's CPU, "free", or whichever pays ("adaptive")."""
        self._affinity: Affinity = affinity
        self.mmap_base = 0
        #: What the filter asks of injected calls; 0 for nothing.
        self.key = 0
        self._tasks: dict[int, PtraceTask] = {}
        #: Tasks that were resumed and have not reported since, by tid.
        self.running: dict[int, PtraceTask] = {}
        #: Killed tasks that are not reaped yet, oldest first.
        self._dying: dict[int, None] = {}
        self._polls = 0
        self._pending: deque[Event] = deque()
        #: (pid, wait status) of children of this process that are no tracees of this platform.
        self.foreign_exits: deque[tuple[int, int]] = deque(maxlen=1024)
        self._seed: Seed | None = None
        self._signal_fd = -1
        #: What is to be closed, last first.
        self._parts: list[Placement | Shelf] = []

    # -- life ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        try:
            self._start()
        except (OSError, HostTaskDied) as error:
            self.close()
            raise RuntimeError(f"cannot start the {self.name} platform ({error}); {self.advice}") from error
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        self._signal_fd = _open_sigchld_fd()
        self.placement = Placement(self._affinity)
        self._parts.append(self.placement)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with theirs:
            try:
                self._seed = self._plant(theirs.fileno(), ours)
                space = PtraceSpace(self._seed.host_tid)
            except BaseException:
                ours.close()
                raise
        self.xstate_size = self._seed.xstate_size
        self.shelf = Shelf(self._seed, space, ours, _SHELF_LIMIT, self.is_mapping)
        self._parts.append(self.shelf)

    def is_mapping(self, _place: int) -> bool:
        """Tell whether a task may be about to map what stands at a place of the shelf: its calls are made at once."""
        return False

    def _plant(self, shelf_socket: int, _ours: socket.socket) -> Seed:
        """Make the seed, whose end of the shelf's socket is *shelf_socket*."""
        return Seed(shelf_socket, self.placement)

    def close(self) -> None:
        for task in self._tasks.values():
            os.kill(task.host_tid, signal.SIGKILL)
        for task in tuple(self._tasks.values()):
            task.kill()
        for tid in self._dying:
            reap(tid)
        self._dying.clear()
        self._pending.clear()
        if self._seed is not None:
            self._seed.kill()
            self._seed = None
        while self._parts:
            self._parts.pop().close()
        if self._signal_fd >= 0:
            os.close(self._signal_fd)
            self._signal_fd = -1

    # -- births and deaths --------------------------------------------------------------------------------------

    def create_task(self) -> PtraceTask:
        if self._seed is None:
            raise RuntimeError("the platform is not started")
        tid = self._seed.inject(SYS["clone"], CLONE_FLAGS)
        return self.adopt(tid, self._seed, Registers(cs=0x33, ss=0x2B, eflags=0x202, orig_rax=(1 << 64) - 1), None)

    def adopt(self, tid: int, parent: Tracee, registers: Registers, space: PtraceSpace | None) -> PtraceTask:
        """Take over the child that an injected clone has just made in *parent*; *space* is given when it shares one."""
        _pid, status = os.waitpid(tid, WALL)
        if not os.WIFSTOPPED(status):
            raise OSError(errno.EAGAIN, "the new host task was killed")
        if space is None:
            space = self._open_space(tid)
        else:
            space.retain()
        task = self._tasks[tid] = self.task_type(self, tid, parent.cpus, space, registers)
        return task

    def _open_space(self, tid: int) -> PtraceSpace:
        try:
            return self.space_type(tid)
        except OSError:  # out of descriptors: nobody would know of this process
            end(tid)
            raise

    def leave_dying(self, tid: int) -> None:
        """Reap a task that was killed when SIGCHLD tells of its end, or when too many are dying."""
        self._dying[tid] = None
        if len(self._dying) > _MOST_DYING:
            reap(next(iter(self._dying)))
            del self._dying[next(iter(self._dying))]

    def forget(self, task: PtraceTask) -> None:
        """Drop a task that is dead or dying."""
        del self._tasks[task.host_tid]
        self.running.pop(task.host_tid, None)

    def report_death(self, task: PtraceTask, status: int) -> None:
        """Queue the EXITED event of a task that died while it made a call for us."""
        self._pending.append(Event(EventKind.EXITED, task, status))
        self._wake_poller()

    # -- events -------------------------------------------------------------------------------------------------

    def filenos(self) -> Sequence[int]:
        timer_fd = self.placement.timer_fd
        return (self._signal_fd,) if timer_fd < 0 else (self._signal_fd, timer_fd)

    def poll(self, fileno: int) -> list[Event]:
        if fileno != self._signal_fd:
            self.placement.tick(self.running.values())
            return []
        try:
            code, pid = _unpack_signal(os.read(self._signal_fd, _SIGNALFD_SIGINFO_SIZE))
        except BlockingIOError:
            return []
        running = len(self.running)
        self._polls += 1
        sweep = code != _CLD_TRAPPED or pid not in self._tasks or running > _FEW or self._polls % _SWEEP_EVERY == 0
        events = self._harvest_all() if sweep else self._harvest_running()
        if events:
            self.placement.note(len(events), running, self.running.values())
        return events

    def _harvest_running(self) -> list[Event]:
        events = []
        for tid in tuple(self.running):
            reported, status = os.waitpid(tid, WALL | os.WNOHANG)
            if reported and (event := self._classify(self._tasks[reported], status)) is not None:
                events.append(event)
        return events

    def _harvest_all(self) -> list[Event]:
        """Collect what every child has to report. It ends: nobody is resumed meanwhile who could report again."""
        events = list(self._pending)
        self._pending.clear()
        while True:
            try:
                tid, status = os.waitpid(-1, WALL | os.WNOHANG)
            except ChildProcessError:
                return events
            if tid == 0:
                return events
            task = self._tasks.get(tid)
            if task is None:
                if tid not in self._dying:
                    self._foreign(tid, status)
                elif not os.WIFSTOPPED(status):
                    del self._dying[tid]
            elif (event := self._classify(task, status)) is not None:
                events.append(event)

    def absorb_signal(self) -> None:
        """Take the SIGCHLD of an injected call's stop, which would be a poll for nothing.

        Only while nothing runs: a SIGCHLD that comes while one is pending is lost.
        """
        try:
            code, pid = _unpack_signal(os.read(self._signal_fd, _SIGNALFD_SIGINFO_SIZE))
        except BlockingIOError:
            return
        if code not in _CLD_STOPS or pid not in self._tasks:
            self._wake_poller()

    def _wake_poller(self) -> None:
        """Make the signalfd readable: something is left to report.

        Sent to the thread, it has a place of its own beside a SIGCHLD that the host has sent to the process.
        """
        signal.pthread_kill(threading.get_ident(), signal.SIGCHLD)

    def _foreign(self, pid: int, status: int) -> None:
        if self._seed is not None and pid == self._seed.host_tid:
            raise RuntimeError(f"the seed process ended, wait status {status:#x}")
        self.foreign_exits.append((pid, status))

    def _classify(self, task: PtraceTask, status: int) -> Event | None:
        """Turn a wait status into an event, or resume the task when it is nobody's business."""
        self.running.pop(task.host_tid, None)
        task.quiet_ticks = 0
        if status == _STATUS_SYSCALL:
            return self._syscall(task)
        if not os.WIFSTOPPED(status):
            task.buried()
            return Event(EventKind.EXITED, task, status)
        if status >> 16 != PTRACE_EVENT_STOP:
            return self._signal_stop(task, os.WSTOPSIG(status))
        if task.interrupted:
            task.interrupted = False
            return Event(EventKind.STOPPED, task)
        task.resume()  # woken by a SIGCONT from outside
        return None

    @staticmethod
    def _syscall(task: PtraceTask) -> Event | None:
        if ptrace(PTRACE_GET_SYSCALL_INFO, task.host_tid, len(_call_info), _call_info_address) == -1:
            return None  # killed this very moment: its exit is the next thing to be reported
        arch, number, *arguments = _unpack_call(_call_info)
        if arch != _AUDIT_ARCH_X86_64:
            return _foreign_entry(task)
        return Event(EventKind.SYSCALL, task, number, tuple(arguments))

    @staticmethod
    def _signal_stop(task: PtraceTask, signo: int) -> Event | None:
        info = ctypes.create_string_buffer(_SIGINFO_SIZE)
        if ptrace(PTRACE_GETSIGINFO, task.host_tid, 0, ctypes.addressof(info)) == -1:
            return None
        (code,) = struct.unpack_from("=i", info, 8)
        if signo in _FAULT_SIGNALS and code > 0:
            return Event(EventKind.FAULT, task, siginfo=info.raw)
        if signo == signal.SIGSYS and code == _SYS_SECCOMP_CODE:
            number, arch = struct.unpack_from("=iI", info, 24)
            return _vsyscall(task, number) if arch == _AUDIT_ARCH_X86_64 else _foreign_entry(task)
        _log.debug("suppressed host signal %d sent to host task %d", signo, task.host_tid)
        task.resume()
        return None


def _foreign_entry(task: PtraceTask) -> Event:
    """Report a call by the 32-bit ABI (int 0x80) as a host without CONFIG_IA32_EMULATION does: SIGSEGV right there.

    The entry zeroed the upper half of rax; nobody can tell that from a 32-bit program.
    """
    registers = task.get_registers()
    registers.rip -= _ENTRY_LENGTH
    registers.rax = registers.orig_rax & 0xFFFF_FFFF
    task.set_registers(registers)
    siginfo = struct.pack("=iii", signal.SIGSEGV, 0, _SI_KERNEL).ljust(_SIGINFO_SIZE, b"\0")
    return Event(EventKind.FAULT, task, siginfo=siginfo)


def _vsyscall(task: PtraceTask, number: int) -> Event:
    """Report a call of the vsyscall page, which the seccomp filter refused: to the guest it is a system call.

    The host has already emulated the return from the page; only the result is missing.
    """
    registers = task.get_registers()
    arguments = (registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9)
    return Event(EventKind.SYSCALL, task, number, arguments)


def _blocks_sigchld(tid: str) -> bool:
    try:
        with open(f"/proc/self/task/{tid}/status", encoding="ascii", errors="replace") as status:
            blocked = next(line for line in status if line.startswith("SigBlk:"))
    except FileNotFoundError:
        return True  # it has ended
    return bool(int(blocked.split()[1], 16) >> (signal.SIGCHLD - 1) & 1)


def _open_sigchld_fd() -> int:
    """Block SIGCHLD in this thread and return a signalfd that reads it (os.signalfd comes with Python 3.13 only)."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    for tid in os.listdir("/proc/self/task"):
        if not _blocks_sigchld(tid):
            raise RuntimeError(f"thread {tid} would swallow SIGCHLD: start the ptrace platform before other threads")
    mask = ctypes.c_uint64(1 << (signal.SIGCHLD - 1))
    signalfd4 = ctypes.CDLL(None, use_errno=True).syscall
    fd: int = signalfd4(SYS["signalfd4"], -1, ctypes.byref(mask), 8, _SFD_FLAGS)
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return fd
