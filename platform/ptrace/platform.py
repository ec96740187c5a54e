"""The ptrace platform: guests run under PTRACE_SYSEMU, so that every system call stops before the host sees it.

Linux counterpart: ``kernel/ptrace.c``; in gVisor, ``pkg/sentry/platform/ptrace``.  It owns the seed, the descriptor
shelf, the table of host tasks and the signalfd that tells of their stops.

All of it belongs to the thread that called ``start``: Linux ties a tracee to the thread that attached it.  SIGCHLD is
blocked in that thread and read from a signalfd; start the platform before any thread that leaves SIGCHLD unblocked,
or that thread swallows the wake-ups (ZeroMQ's threads block all signals).
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import socket
import struct
import threading
from collections import deque
from typing import TYPE_CHECKING, Final

from ..interface import Event, EventKind, Platform
from ..x86_64.registers import Registers
from ..x86_64.syscall_numbers import SYSCALL_NUMBERS as SYS
from .binding import PTRACE_EVENT_STOP, PTRACE_GETREGS, PTRACE_GETSIGINFO, PTRACE_SYSEMU, ptrace
from .seed import Seed
from .shelf import Shelf
from .space import PtraceSpace
from .task import CLONE_FLAGS, PtraceTask
from .tracee import WALL

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["PtracePlatform"]

#: Most events that one ``poll`` reports, so that a worker's other duties get their turn.
_EVENTS_PER_POLL: Final = 64
#: Most files that stand on the descriptor shelf.
_SHELF_LIMIT: Final = 256

_SIGINFO_SIZE: Final = 128
_SIGNALFD_SIGINFO_SIZE: Final = 128
_SFD_FLAGS: Final = os.O_NONBLOCK | os.O_CLOEXEC
_STATUS_SYSCALL: Final = (signal.SIGTRAP | 0x80) << 8 | 0x7F
_FAULT_SIGNALS: Final = frozenset((signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP))

# Of struct user_regs_struct: r10 r9 r8 . . rdx rsi rdi orig_rax, from word 7 on.
_unpack_call: Final = struct.Struct("=56xQQQ16xQQQi").unpack_from

_log = logging.getLogger(__name__)


class PtracePlatform(Platform):
    """Host tasks under PTRACE_SYSEMU."""

    name = "ptrace"
    shelf: Shelf

    def __init__(self) -> None:
        self._tasks: dict[int, PtraceTask] = {}
        self._pending: deque[Event] = deque()
        #: (pid, wait status) of children of this process that are no tracees of this platform.
        self.foreign_exits: deque[tuple[int, int]] = deque(maxlen=1024)
        self._seed: Seed | None = None
        self._signal_fd = -1

    # -- life ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._signal_fd = _open_sigchld_fd()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            seed = Seed(theirs.fileno())
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._seed = seed
        self.shelf = Shelf(seed, PtraceSpace(seed.host_tid), ours, _SHELF_LIMIT)

    def close(self) -> None:
        for task in self._tasks.values():
            os.kill(task.host_tid, signal.SIGKILL)
        for task in tuple(self._tasks.values()):
            task.kill()
        self._pending.clear()
        if self._seed is not None:
            self.shelf.close()
            os.kill(self._seed.host_tid, signal.SIGKILL)
            os.waitpid(self._seed.host_tid, WALL)
            self._seed = None
        if self._signal_fd >= 0:
            os.close(self._signal_fd)
            self._signal_fd = -1

    # -- births and deaths --------------------------------------------------------------------------------------

    def create_task(self) -> PtraceTask:
        if self._seed is None:
            raise RuntimeError("the platform is not started")
        tid = self._seed.inject(SYS["clone"], CLONE_FLAGS)
        return self.adopt(tid, Registers(cs=0x33, ss=0x2B, eflags=0x202, orig_rax=(1 << 64) - 1), None)

    def adopt(self, tid: int, registers: Registers, space: PtraceSpace | None) -> PtraceTask:
        """Take over a child that an injected clone has just made; *space* is given when it shares one."""
        _pid, status = os.waitpid(tid, WALL)
        if not os.WIFSTOPPED(status):
            raise OSError(11, "the new host task was killed")
        if space is None:
            space = PtraceSpace(tid)
        else:
            space.retain()
        task = self._tasks[tid] = PtraceTask(self, tid, space, registers)
        return task

    def forget(self, task: PtraceTask) -> None:
        """Drop a task that is dead and reaped."""
        del self._tasks[task.host_tid]

    def report_death(self, task: PtraceTask, status: int) -> None:
        """Queue the EXITED event of a task that died while it made a call for us."""
        self._pending.append(Event(EventKind.EXITED, task, status))
        self._wake_poller()

    # -- events -------------------------------------------------------------------------------------------------

    def filenos(self) -> Sequence[int]:
        return (self._signal_fd,)

    def poll(self) -> list[Event]:
        try:
            os.read(self._signal_fd, _SIGNALFD_SIGINFO_SIZE)
        except BlockingIOError:
            pass
        events: list[Event] = []
        while self._pending:
            events.append(self._pending.popleft())
        tasks = self._tasks
        while len(events) < _EVENTS_PER_POLL:
            try:
                tid, status = os.waitpid(-1, WALL | os.WNOHANG)
            except ChildProcessError:
                return events
            if tid == 0:
                return events
            task = tasks.get(tid)
            if task is None:
                self._foreign(tid, status)
                continue
            event = self._classify(task, status)
            if event is not None:
                events.append(event)
        self._wake_poller()
        return events

    def _wake_poller(self) -> None:
        """Make the signalfd readable: something is left to report."""
        signal.pthread_kill(threading.get_ident(), signal.SIGCHLD)

    def _foreign(self, pid: int, status: int) -> None:
        if self._seed is not None and pid == self._seed.host_tid:
            raise RuntimeError(f"the seed process ended, wait status {status:#x}")
        self.foreign_exits.append((pid, status))

    def _classify(self, task: PtraceTask, status: int) -> Event | None:
        """Turn a wait status into an event, or resume the task when it is nobody's business."""
        task.running = False
        if status == _STATUS_SYSCALL:
            return self._syscall(task)
        if not os.WIFSTOPPED(status):
            task.buried()
            return Event(EventKind.EXITED, task, status)
        if status >> 16 == PTRACE_EVENT_STOP:
            task.interrupted = False
            return Event(EventKind.STOPPED, task)
        return self._signal_stop(task, os.WSTOPSIG(status))

    @staticmethod
    def _syscall(task: PtraceTask) -> Event | None:
        if ptrace(PTRACE_GETREGS, task.host_tid, 0, task.registers_address) == -1:
            return None  # killed this very moment: its exit is the next thing to be reported
        task.known = True
        r10, r9, r8, rdx, rsi, rdi, number = _unpack_call(task.registers)
        return Event(EventKind.SYSCALL, task, number, (rdi, rsi, rdx, r10, r8, r9))

    @staticmethod
    def _signal_stop(task: PtraceTask, signo: int) -> Event | None:
        info = ctypes.create_string_buffer(_SIGINFO_SIZE)
        if ptrace(PTRACE_GETSIGINFO, task.host_tid, 0, ctypes.addressof(info)) == -1:
            return None
        (code,) = struct.unpack_from("=i", info, 8)
        if signo in _FAULT_SIGNALS and code > 0:
            return Event(EventKind.FAULT, task, siginfo=info.raw)
        _log.debug("suppressed host signal %d sent to host task %d", signo, task.host_tid)
        task.resume()
        return None


def _open_sigchld_fd() -> int:
    """Block SIGCHLD in this thread and return a signalfd that reads it (os.signalfd comes with Python 3.13 only)."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    mask = ctypes.c_uint64(1 << (signal.SIGCHLD - 1))
    signalfd4 = ctypes.CDLL(None, use_errno=True).syscall
    fd: int = signalfd4(SYS["signalfd4"], -1, ctypes.byref(mask), 8, _SFD_FLAGS)
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return fd
