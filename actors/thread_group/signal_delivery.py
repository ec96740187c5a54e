"""Signal delivery: what happens to pending signals on the way back to user mode.

Linux counterpart: get_signal (kernel/signal.c) and arch_do_signal_or_restart (arch/x86/kernel/signal.c).  The first
signal with a handler decides what becomes of an interrupted call; several handlers stack up in one exit, the last
taken runs first.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from ...config.logging import get_logger
from ...platform.x86_64 import sigframe
from ...platform.x86_64.sigframe import FrameFault
from ...platform.x86_64.xstate import reset_area
from . import dispatch, exits, job_stop, signal_send, timers
from . import siginfo as si
from .limits import Resource
from .siginfo import SIGSEGV, SIGSTOP, bit
from .signal_state import (
    NO_TIMER,
    SA_NODEFER,
    SA_RESETHAND,
    SA_RESTART,
    SIG_DFL,
    SIG_IGN,
    Pending,
)
from .task import (
    ERESTART_RESTARTBLOCK,
    ERESTARTNOHAND,
    ERESTARTNOINTR,
    ERESTARTSYS,
    NO_RESULT,
    RunState,
)

if TYPE_CHECKING:
    from ...platform.x86_64.registers import Registers
    from .signal_state import Sigaction
    from .task import Task, _NoResult

__all__ = ["deliver", "fault", "force", "take"]

#: si_code of a SIGSEGV at an address where nothing is mapped, and where something is, but not for this access.
_SEGV_MAPERR, _SEGV_ACCERR = 1, 2

log = get_logger(__name__)

_EINTR: Final = -4
_RESTARTS: Final = frozenset({ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND, ERESTART_RESTARTBLOCK})
_RESTART_SYSCALL: Final = 219
#: Length of the ``syscall`` instruction.
_SYSCALL_LENGTH: Final = 2
_WORD: Final = (1 << 64) - 1
#: Set in the wait status when core was dumped.
_CORE_DUMPED: Final = 0x80


def deliver(task: Task, result: int | None) -> int | _NoResult | None:
    """Act on the pending signals of a task that is about to run guest code.

    *result* is its system call's, None when there is none.  Return what to resume with: a result, None when the
    registers are complete, or NO_RESULT when the task must not be resumed (it is dead or held).
    """
    group = task.group.signals
    unblocked = (task.pending.bits | group.pending.bits) & ~task.sigmask
    if not (unblocked or group.stopped or result in _RESTARTS) and task.saved_sigmask is None:
        return result  # there is nothing to do, above all for a new task
    way_out = _WayOut(task, result)
    while True:
        if group.stopped:
            dispatch.hold_for_job_control(task, way_out.settle())
            return NO_RESULT
        taken = take(task, ~task.sigmask)
        if taken is not None:
            _act(way_out, taken)
            if task.state is RunState.DEAD:
                return NO_RESULT
        elif not way_out.finish():
            return way_out.settle()


def take(task: Task, wanted: int) -> Pending | None:
    """Dequeue the next signal of the set *wanted* for a task: faults first, then its own, then the process's."""
    shared = task.group.signals.pending
    if not (task.pending.bits | shared.bits) & wanted:
        return None
    taken: Pending | None = task.pending.take_fault(wanted) or task.pending.take(wanted) or shared.take(wanted)
    for file in task.group.signals.watchers:
        file.refresh()
    if taken is not None and taken.timer != NO_TIMER:
        return timers.signal_taken(task.group, taken)
    return taken


def _act(way_out: _WayOut, taken: Pending) -> None:
    """Do what the action of a dequeued signal says."""
    task = way_out.task
    handlers = task.group.signals.handlers
    action = handlers[taken.signo]
    if action.handler == SIG_IGN:
        return
    if action.handler == SIG_DFL:
        _default_action(task, taken.signo)
        return
    if action.flags & SA_RESETHAND:
        handlers[taken.signo] = action._replace(handler=SIG_DFL)
    way_out.enter_handler(taken, action)


def _default_action(task: Task, signo: int) -> None:
    group, signal = task.group, bit(signo)
    if signal & si.IGNORED_BY_DEFAULT:
        return
    if signal & si.STOP_SIGNALS:
        # Nobody could continue an orphaned process group: the terminal's signals do not stop it.
        if signo == SIGSTOP or not group.orphaned:
            job_stop.begin(group, signo)
        return
    dumps = signal & si.CORE_SIGNALS and group.limits.soft(Resource.CORE) > 0
    exits.exit_group(group, signo | (_CORE_DUMPED if dumps else 0))


class _WayOut:
    """The registers and the result of one task on one way back to user mode."""

    __slots__ = ("_registers", "_result", "task")

    def __init__(self, task: Task, result: int | None) -> None:
        self.task = task
        self._result = result
        #: Fetched when a signal or a restart changes them.
        self._registers: Registers | None = None

    def settle(self) -> int | None:
        """Write the registers back; return the result that is still to be set, None when there is none."""
        if self._registers is not None:
            self.task.host.set_registers(self._registers)
            self._registers = None
        return self._result

    def finish(self) -> bool:
        """No signal is left: restart the interrupted call, put the old mask back; return whether that unblocks one."""
        task = self.task
        if self._result is not None and self._result in _RESTARTS:
            self._restart_without_handler()
        if task.saved_sigmask is None:
            return False
        mask, task.saved_sigmask = task.saved_sigmask, None
        signal_send.set_sigmask(task, mask)
        return bool((task.pending.bits | task.group.signals.pending.bits) & ~mask)

    def _restart_without_handler(self) -> None:
        if self._result == ERESTART_RESTARTBLOCK:
            self.task.memo["restart"] = (self.task.number, self.task.args)
            self._rewind(_RESTART_SYSCALL)
        else:
            self._rewind(self.task.number)

    def _rewind(self, number: int) -> None:
        """Execute the system call instruction again."""
        registers = self._fetch()
        registers.rip -= _SYSCALL_LENGTH
        registers.rax = number
        self._result = None

    def _fetch(self) -> Registers:
        if self._registers is None:
            self._registers = self.task.host.get_registers()
        return self._registers

    def enter_handler(self, taken: Pending, action: Sigaction) -> None:
        """Resolve the call's result, push a frame and go to the handler."""
        self._resolve(action.flags)
        task = self.task
        task.memo = {}
        if not self._push_frame(taken, action):
            _force_after_bad_frame(task, taken.signo)
            return
        blocked = task.sigmask | action.mask
        if not action.flags & SA_NODEFER:
            blocked |= bit(taken.signo)
        task.saved_sigmask = None
        signal_send.set_sigmask(task, blocked)

    def _resolve(self, flags: int) -> None:
        """Put the result into the registers, as the first handler decides it."""
        result, self._result = self._result, None
        if result is None:
            return
        if result == ERESTARTNOINTR or (result == ERESTARTSYS and flags & SA_RESTART):
            self._rewind(self.task.number)
            return
        self._fetch().rax = (_EINTR if result in _RESTARTS else result) & _WORD

    def _push_frame(self, taken: Pending, action: Sigaction) -> bool:
        task, registers = self.task, self._fetch()
        returns_to = task.sigmask if task.saved_sigmask is None else task.saved_sigmask
        try:
            entry, address, frame = sigframe.build_frame(
                registers,
                task.host.get_xstate(),
                handler=action.handler,
                restorer=action.restorer,
                flags=action.flags,
                signo=taken.signo,
                siginfo=taken.siginfo,
                sigmask=returns_to,
                altstack=task.altstack,
                layout=task.worker.xstate_layout,
                stack_top=sigframe.stack_top(registers.rsp, action.flags, task.altstack),
            )
            task.memory.write(address, frame)
        except (FrameFault, OSError) as error:
            log.debug("no room for a signal frame", tid=task.tid, signo=taken.signo, error=str(error))
            return False
        if task.altstack[1] & sigframe.SS_AUTODISARM:
            task.altstack = (0, sigframe.SS_DISABLE, 0)
        self._registers = entry
        # A handler starts with a fresh FPU, as Linux has it.
        task.host.set_xstate(reset_area(task.worker.xstate_layout))
        return True


def _force_after_bad_frame(task: Task, signo: int) -> None:
    """force_sigsegv: a SIGSEGV that cannot be handled because there is no stack for it ends the process."""
    if signo == SIGSEGV:
        handlers = task.group.signals.handlers
        handlers[SIGSEGV] = handlers[SIGSEGV]._replace(handler=SIG_DFL)
    force(task, SIGSEGV, si.kernel_siginfo(SIGSEGV, si.SI_KERNEL))


def fault(task: Task, host_siginfo: bytes) -> None:
    """An instruction of the task raised a signal, which the host reports with its own siginfo_t."""
    siginfo = si.clean_fault(host_siginfo)
    signo, errno, code, _pad, address = struct.unpack_from("<iiiiQ", siginfo)
    if signo == SIGSEGV and code in (_SEGV_MAPERR, _SEGV_ACCERR):
        if task.memory.grow_stack(task, address):
            return
        if task.memory.vmas.find(address) is None:  # to the host it may be taken (see agree_with_host)
            siginfo = struct.pack("<iii", signo, errno, _SEGV_MAPERR) + siginfo[12:]
    force(task, signo, siginfo)


def force(task: Task, signo: int, siginfo: bytes) -> None:
    """Send a signal that cannot be put off: blocked or ignored, it ends the process (force_sig_info)."""
    handlers = task.group.signals.handlers
    blocked = bool(task.sigmask & bit(signo))
    if blocked or handlers[signo].handler == SIG_IGN:
        handlers[signo] = handlers[signo]._replace(handler=SIG_DFL)
    if blocked:
        signal_send.set_sigmask(task, task.sigmask & ~bit(signo))
    if not task.pending.bits & bit(signo):
        task.pending.add(Pending(signo, siginfo))
    task.work = True
