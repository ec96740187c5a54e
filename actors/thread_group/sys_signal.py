"""System calls about signals.

Linux counterpart: kernel/signal.c.  Signals to the own process are sent here with no message; to others they are a
petition to TaskSet, which checks permission and passes them on.
"""

from __future__ import annotations

import contextlib
import struct
from errno import EAGAIN, EINVAL, ENOMEM, EPERM, ESRCH
from typing import TYPE_CHECKING, Any, Final

from ...messages.task_set import Kill
from ...platform.x86_64 import sigframe
from ...platform.x86_64.sigframe import FrameFault
from . import siginfo as si
from . import signals
from .signal_state import (
    SA_EXPOSE_TAGBITS,
    SA_NOCLDSTOP,
    SA_NOCLDWAIT,
    SA_NODEFER,
    SA_ONSTACK,
    SA_RESETHAND,
    SA_RESTART,
    SA_RESTORER,
    SA_SIGINFO,
    SIG_DFL,
    SIG_IGN,
    Sigaction,
)
from .sys_time import monotonic_deadline, read_timespec
from .table import S32, TABLE, U64, Address, syscall
from .task import ERESTARTNOHAND, NO_RESULT, Block, Petition, Task

if TYPE_CHECKING:
    from .actor import ThreadGroup

__all__ = ["check_signo", "read_siginfo", "user_siginfo"]

_SIGSET_BYTES: Final = 8
_SIGACTION: Final = struct.Struct("<QQQQ")
_SIGACTION_BYTES: Final = _SIGACTION.size
_unpack_action: Final = _SIGACTION.unpack
_pack_action: Final = _SIGACTION.pack
_UNCATCHABLE: Final = (si.SIGKILL, si.SIGSTOP)
_STACK: Final = struct.Struct("<Qi4xQ")
_SA_KNOWN: Final = (
    SA_NOCLDSTOP | SA_NOCLDWAIT | SA_SIGINFO | SA_ONSTACK | SA_RESTART | SA_NODEFER | SA_RESETHAND
    | SA_EXPOSE_TAGBITS | SA_RESTORER
)  # fmt: skip
_SIG_BLOCK, _SIG_UNBLOCK, _SIG_SETMASK = 0, 1, 2
_MINSIGSTKSZ: Final = 2048
_EINTR: Final = -4


def _check_set_size(size: int) -> None:
    if size != _SIGSET_BYTES:
        raise OSError(EINVAL, "sigset_t of the wrong size")


# -- actions ------------------------------------------------------------------------------------------------------


@syscall(13)
def rt_sigaction(task: Task, signo: S32, new: Address, old: Address, size: U64) -> int:
    """sigaction(2): examine and change a signal's action. EFAULT, EINVAL."""
    _check_set_size(size)
    wanted = _unpack_action(task.memory.read(new, _SIGACTION_BYTES)) if new else None
    if not 1 <= signo <= si.NSIG or (wanted is not None and signo in _UNCATCHABLE):
        raise OSError(EINVAL, "")
    handlers = task.group.signals.handlers
    before = handlers[signo]
    if wanted is not None:
        handler, flags, restorer, mask = wanted
        action = Sigaction(handler, flags & _SA_KNOWN, restorer, mask & ~si.UNBLOCKABLE)
        _act_anew(task.group, signo, action)
    if old:
        task.memory.write(old, _pack_action(*before))
    return 0


def _act_anew(group: ThreadGroup, signo: int, action: Sigaction) -> None:
    """Change a signal's action, and what follows from that."""
    handlers = group.signals.handlers
    disposition = handlers.child_disposition() if signo == si.SIGCHLD else None
    handlers[signo] = action
    if action.handler in (SIG_DFL, SIG_IGN):
        _forget_ignored(group, signo)
    if disposition is not None and disposition != handlers.child_disposition():
        signals.tell_child_disposition(group)


def _forget_ignored(group: ThreadGroup, signo: int) -> None:
    """An ignored signal is taken out of the queues, even if it is blocked (POSIX)."""
    if group.signals.handlers.ignores(signo):
        signal = si.bit(signo)
        group.signals.pending.discard(signal)
        for task in group.tasks.values():
            task.pending.discard(signal)


@syscall(131)
def sigaltstack(task: Task, new: Address, old: Address) -> int:
    """sigaltstack(2): set and get the alternate signal stack. EFAULT, EINVAL, ENOMEM, EPERM while on it."""
    rsp = task.host.get_registers().rsp
    wanted = _STACK.unpack(task.memory.read(new, _STACK.size)) if new else None
    base, flags, size = task.altstack
    if wanted is not None:
        _set_altstack(task, rsp, wanted)
    if old:
        shown = flags & sigframe.SS_AUTODISARM | _altstack_state(rsp, (base, flags, size))
        task.memory.write(old, _STACK.pack(base, _signed(shown), size))
    return 0


def _altstack_state(rsp: int, altstack: tuple[int, int, int]) -> int:
    if not altstack[2]:
        return sigframe.SS_DISABLE
    return sigframe.SS_ONSTACK if sigframe.on_altstack(rsp, altstack) else 0


def _signed(value: int) -> int:
    return (value & 0xFFFFFFFF ^ 0x80000000) - 0x80000000


def _set_altstack(task: Task, rsp: int, wanted: tuple[int, int, int]) -> None:
    base, flags, size = wanted[0], wanted[1] & 0xFFFFFFFF, wanted[2]
    if sigframe.on_altstack(rsp, task.altstack):
        raise OSError(EPERM, "the alternate stack is in use")
    mode = flags & ~sigframe.SS_AUTODISARM
    if mode not in (0, sigframe.SS_ONSTACK, sigframe.SS_DISABLE):
        raise OSError(EINVAL, "")
    if mode == sigframe.SS_DISABLE:
        base = size = 0
    elif size < _MINSIGSTKSZ:
        raise OSError(ENOMEM, "alternate stack too small")
    task.altstack = (base, flags, size)


@syscall(15)
def rt_sigreturn(task: Task) -> object:
    """sigreturn(2): return from a signal handler. A bad frame is SIGSEGV."""
    registers = task.host.get_registers()
    try:
        context = sigframe.parse_frame(task.memory.read, registers, task.worker.xstate_layout)
        task.host.set_xstate(context.xstate)
    except (FrameFault, OSError):
        signals.force(task, si.SIGSEGV, si.kernel_siginfo(si.SIGSEGV, si.SI_KERNEL))
        return NO_RESULT
    task.host.set_registers(context.registers)
    signals.set_sigmask(task, context.sigmask)
    with contextlib.suppress(OSError):  # as Linux: the stack stays as it is
        _set_altstack(task, context.registers.rsp, context.altstack)
    return NO_RESULT


# -- masks and what is pending ------------------------------------------------------------------------------------


@syscall(14)
def rt_sigprocmask(task: Task, how: S32, new: Address, old: Address, size: U64) -> int:
    """sigprocmask(2): examine and change blocked signals. EFAULT, EINVAL."""
    _check_set_size(size)
    before = task.sigmask
    if new:
        signals.set_sigmask(task, _combined(how, before, task.memory.read_u64(new)))
    if old:
        task.memory.write_u64(old, before)
    return 0


def _combined(how: int, before: int, given: int) -> int:
    if how == _SIG_BLOCK:
        return before | given
    if how == _SIG_UNBLOCK:
        return before & ~given
    if how == _SIG_SETMASK:
        return given
    raise OSError(EINVAL, "")


@syscall(127)
def rt_sigpending(task: Task, address: Address, size: U64) -> int:
    """sigpending(2): the signals that are blocked and pending. EFAULT, EINVAL."""
    if size > _SIGSET_BYTES:
        raise OSError(EINVAL, "")
    pending = (task.pending.bits | task.group.signals.pending.bits) & task.sigmask
    task.memory.write(address, pending.to_bytes(_SIGSET_BYTES, "little")[:size])
    return 0


# -- waiting for signals ------------------------------------------------------------------------------------------


@syscall(34)
def pause(task: Task) -> Block:
    """pause(2): wait for a signal. EINTR."""
    return Block(on_signal=ERESTARTNOHAND)


@syscall(130)
def rt_sigsuspend(task: Task, mask: Address, size: U64) -> Block:
    """sigsuspend(2): wait for a signal with another mask. EFAULT, EINTR, EINVAL."""
    _check_set_size(size)
    if "suspended" not in task.memo:
        wanted = task.memory.read_u64(mask)
        task.memo["suspended"] = True
        task.saved_sigmask = task.sigmask
        signals.set_sigmask(task, wanted)
    return Block(on_signal=ERESTARTNOHAND)


@syscall(128)
def rt_sigtimedwait(task: Task, wanted: Address, info: Address, timeout: Address, size: U64) -> object:
    """sigtimedwait(2): take a pending signal, or wait for one. EAGAIN at the time-out, EFAULT, EINTR, EINVAL."""
    _check_set_size(size)
    these = task.memory.read_u64(wanted) & ~si.UNBLOCKABLE
    deadline = task.memo.get("deadline")
    if timeout and deadline is None:
        deadline = task.memo["deadline"] = monotonic_deadline(task, read_timespec(task, timeout))
    taken = signals.take(task, these)
    if taken is not None:
        if info:
            task.memory.write(info, taken.siginfo)
        return taken.signo
    if deadline is not None and task.worker.clock.monotonic_ns() >= deadline:
        raise OSError(EAGAIN, "")
    return Block(channels=(("signal", task.group.group),), deadline_ns=deadline, on_signal=_EINTR)


# -- sending ------------------------------------------------------------------------------------------------------


def user_siginfo(task: Task, signo: int, code: int) -> bytes:
    """Return the siginfo_t of a signal that the caller sends."""
    return si.kernel_siginfo(signo, code, task.group.pid, task.group.credentials.ruid)


def _send_here(task: Task, signo: int, siginfo: bytes, target: Task | None) -> object:
    """Send to the own process, where everything is permitted."""
    if signo:
        signals.send(task.group, signo, siginfo, target)
    return NO_RESULT if task.group.exit_status is not None else 0


def _petition(task: Task, pid: int, tid: int, signo: int, siginfo: bytes) -> object:
    """Let TaskSet send it; its Signal to ourselves, if any, comes before its answer."""
    answer = task.take_answer()
    if answer is None:
        return Petition(Kill, {"pid": pid, "target_tid": tid, "signo": signo, "siginfo": siginfo})
    return answer.value


def check_signo(signo: int) -> None:
    """EINVAL for a number that no signal has; 0 sends nothing."""
    if not 0 <= signo <= si.NSIG:
        raise OSError(EINVAL, "no such signal")


@syscall(62)
def kill(task: Task, pid: S32, signo: S32) -> object:
    """kill(2): send a signal to a process, a process group, or all. EINVAL, EPERM, ESRCH."""
    siginfo = user_siginfo(task, signo, si.SI_USER) if 0 <= signo <= si.NSIG else b""
    if pid > 0 and (pid == task.group.pid or pid in task.group.tasks):
        check_signo(signo)
        return _send_here(task, signo, siginfo, None)
    if pid == -(1 << 31):
        raise OSError(ESRCH, "")
    return _petition(task, pid, 0, signo, siginfo)


@syscall(200)
def tkill(task: Task, tid: S32, signo: S32) -> object:
    """tkill(2): send a signal to a thread. EAGAIN, EINVAL, EPERM, ESRCH."""
    return _tgkill(task, 0, tid, signo)


@syscall(234)
def tgkill(task: Task, tgid: S32, tid: S32, signo: S32) -> object:
    """tgkill(2): send a signal to a thread of a process. EAGAIN, EINVAL, EPERM, ESRCH."""
    if tgid <= 0:
        raise OSError(EINVAL, "")
    return _tgkill(task, tgid, tid, signo)


def _tgkill(task: Task, tgid: int, tid: int, signo: int) -> object:
    if tid <= 0:
        raise OSError(EINVAL, "")
    group = task.group
    if tgid == group.pid or tid in group.tasks:
        target = group.tasks.get(tid)
        if target is None or tgid not in (0, group.pid):
            raise OSError(ESRCH, "")
        check_signo(signo)
        return _send_here(task, signo, user_siginfo(task, signo, si.SI_TKILL), target)
    check_signo(signo)
    return _petition(task, tgid, tid, signo, user_siginfo(task, signo, si.SI_TKILL))


def read_siginfo(task: Task, address: int, signo: int, recipient: int) -> bytes:
    """Copy the caller's siginfo_t; only to itself may it pretend that the kernel or kill(2) sent it."""
    siginfo: bytes = task.memory.read(address, si.SIGINFO_BYTES)
    code = si.code_of(siginfo)
    if (code >= 0 or code == si.SI_TKILL) and recipient != task.group.pid:
        raise OSError(EPERM, "")
    return struct.pack("<i", signo) + siginfo[4:]


@syscall(129)
def rt_sigqueueinfo(task: Task, pid: S32, signo: S32, info: Address) -> object:
    """rt_sigqueueinfo(2): send a signal with data to a process. EAGAIN, EFAULT, EINVAL, EPERM, ESRCH."""
    siginfo = read_siginfo(task, info, signo, pid)
    check_signo(signo)
    if pid == task.group.pid or (pid > 0 and pid in task.group.tasks):
        return _send_here(task, signo, siginfo, None)
    if pid <= 0:
        raise OSError(ESRCH, "")
    return _petition(task, pid, 0, signo, siginfo)


@syscall(297)
def rt_tgsigqueueinfo(task: Task, tgid: S32, tid: S32, signo: S32, info: Address) -> object:
    """rt_tgsigqueueinfo(2): send a signal with data to a thread. EAGAIN, EFAULT, EINVAL, EPERM, ESRCH."""
    if tgid <= 0 or tid <= 0:
        raise OSError(EINVAL, "")
    siginfo = read_siginfo(task, info, signo, tgid)
    check_signo(signo)
    if tgid != task.group.pid:
        return _petition(task, tgid, tid, signo, siginfo)
    target = task.group.tasks.get(tid)
    if target is None:
        raise OSError(ESRCH, "")
    return _send_here(task, signo, siginfo, target)


# -- restarting ---------------------------------------------------------------------------------------------------


@syscall(219)
def restart_syscall(task: Task) -> Any:
    """restart_syscall(2): go on with the call that a signal without a handler interrupted. EINTR if there is none."""
    restart = task.memo.pop("restart", None)
    if restart is None:
        return _EINTR
    # From here on the task is in that call again, whichever way it is woken.
    task.number, task.args = restart[0], tuple(restart[1])
    return TABLE[task.number].call(task, task.args)
