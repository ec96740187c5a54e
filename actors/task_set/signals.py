"""kill(2) and its relatives across processes, and signals from outside.

Linux counterpart: kernel/signal.c (kill_something_info, check_kill_permission, do_send_specific).  Handles Kill and
SendExternalSignal; tells Signal to the targets before the sender's answer.  CAP_KILL is what an effective uid of 0
has.
"""

from __future__ import annotations

from errno import EINVAL, EPERM, ESRCH
from typing import TYPE_CHECKING, Final

from ...messages.thread_group import Signal
from ..thread_group.siginfo import NSIG, SIGCONT, SIGKILL
from .process import INIT, Process
from .siginfo import kernel_siginfo

if TYPE_CHECKING:
    from ...messages import task_set as messages
    from .tree import ProcessTree

__all__ = ["kill", "kill_everyone", "may_signal", "send_external"]

_INT_MIN: Final = -(1 << 31)


def kill(tree: ProcessTree, caller: Process, message: messages.Kill) -> None:
    """Answer a Kill: 0, EINVAL, EPERM or ESRCH."""
    if not 0 <= message.signo <= NSIG:
        errno = EINVAL
    elif message.target_tid:
        errno = _send_to_thread(tree, caller, message)
    elif message.pid > 0:
        target = tree.by_tid.get(message.pid)
        if target is not None and message.target_group not in (-1, target.group):
            target = None
        errno = ESRCH if target is None else _send(tree, caller, target, message)
    elif message.pid == -1:
        errno = _send_to_all(tree, caller, message)
    else:
        errno = _send_to_process_group(tree, caller, message)
    tree.answer(caller, message.tid, message.petition, errno=errno)


def may_signal(caller: Process, target: Process, signo: int) -> bool:
    """Linux: check_kill_permission."""
    real, effective, _ = caller.uids
    if caller is target or effective == 0:
        return True
    if {real, effective} & {target.uids[0], target.uids[2]}:
        return True
    return signo == SIGCONT and caller.sid == target.sid


def _send(
    tree: ProcessTree,
    caller: Process,
    target: Process,
    message: messages.Kill,
    tid: int = 0,
    *,
    to_many: bool = False,
) -> int:
    if not may_signal(caller, target, message.signo):
        return EPERM
    if message.signo:
        tree.signal(target, Signal(tid=tid, signo=message.signo, siginfo=message.siginfo), to_many=to_many)
    return 0


def _send_to_thread(tree: ProcessTree, caller: Process, message: messages.Kill) -> int:
    """tgkill(2), or tkill(2) when pid is 0."""
    target = tree.by_tid.get(message.target_tid)
    if target is None or message.pid not in (0, target.pid):
        return ESRCH
    return _send(tree, caller, target, message, message.target_tid)


def _send_to_all(tree: ProcessTree, caller: Process, message: messages.Kill) -> int:
    """kill(-1): a refusal counts as a target, but is no error."""
    targets = [p for p in tree.guests() if p is not caller]
    for target in targets:
        _send(tree, caller, target, message, to_many=True)
    return 0 if targets else ESRCH


def _send_to_process_group(tree: ProcessTree, caller: Process, message: messages.Kill) -> int:
    """One success is success; else the last member's error."""
    if message.pid == _INT_MIN:
        return ESRCH
    outcomes = [_send(tree, caller, p, message, to_many=True) for p in tree.members(-message.pid or caller.pgid)]
    if not outcomes:
        return ESRCH
    return 0 if 0 in outcomes else outcomes[-1]


# -- from outside -----------------------------------------------------------------------------------------------


def send_external(tree: ProcessTree, message: messages.SendExternalSignal) -> None:
    """A signal from the supervisor: no permission is asked for. EINVAL, ESRCH."""
    if not 0 < message.signo <= NSIG:
        raise OSError(EINVAL, f"no signal {message.signo}")
    targets = _external_targets(tree, message)
    if not targets:
        raise ProcessLookupError(ESRCH, f"no process {message.pid}")
    for target in targets:
        signal = Signal(tid=0, signo=message.signo, siginfo=kernel_siginfo(message.signo))
        tree.signal(target, signal, to_many=message.pid <= 0 or message.foreground)


def _external_targets(tree: ProcessTree, message: messages.SendExternalSignal) -> list[Process]:
    if message.pid == 0:
        return [p for p in tree.guests() if not p.dead]
    if message.pid < 0:
        return tree.members(-message.pid)
    process = tree.by_tid.get(message.pid)
    if process is None or process.group == INIT:
        return []
    return _foreground_of(tree, process) if message.foreground else [process]


def _foreground_of(tree: ProcessTree, process: Process) -> list[Process]:
    """The foreground process group of the session's terminal; without a terminal, the process's own group."""
    for terminal in tree.terminals.values():
        if terminal.session == process.sid:
            return tree.members(terminal.foreground)
    return tree.members(process.pgid)


def kill_everyone(tree: ProcessTree) -> None:
    """SIGKILL to every process."""
    for process in tree.guests():
        tree.signal(process, Signal(tid=0, signo=SIGKILL, siginfo=kernel_siginfo(SIGKILL)), to_many=True)
