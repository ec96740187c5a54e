"""Sending signals: what becomes of a signal between kill(2) and the thread that is to take it.

Linux counterpart: prepare_signal, __send_signal_locked, complete_signal and retarget_shared_pending (kernel/signal.c).
"""

from __future__ import annotations

from errno import EAGAIN
from typing import TYPE_CHECKING

from . import dispatch, exits, job_stop
from . import siginfo as si
from .limits import Resource
from .siginfo import SIGCONT, SIGKILL, bit
from .signal_state import NO_TIMER, SIG_DFL, Pending, is_realtime
from .task import RunState

if TYPE_CHECKING:
    from .actor import ThreadGroup
    from .signal_state import SignalQueue
    from .task import Task

__all__ = ["has_deliverable", "queue_changed", "retarget", "send", "send_sigpipe", "set_sigmask"]


def send(group: ThreadGroup, signo: int, siginfo: bytes, target: Task | None = None, *, timer: int = NO_TIMER) -> bool:
    """Send a signal to a process, or to its thread *target*; return whether it was queued or took effect at once.

    The number is valid (1..64) and permission was checked.  OSError(EAGAIN) when a realtime signal with a value exceeds
    RLIMIT_SIGPENDING.
    """
    if group.exit_status is not None:
        return False
    if signo == SIGKILL:
        exits.exit_group(group, SIGKILL)
        return True
    _cancel_opposites(group, signo)
    if signo == SIGCONT and group.signals.stopped:
        # Queued before the threads are let go: a handler of SIGCONT runs before anything else of the process.
        job_stop.end(group)
        queued = _queue(group, signo, siginfo, target, timer)
        job_stop.release(group)
        return queued
    return _queue(group, signo, siginfo, target, timer)


def _queue(group: ThreadGroup, signo: int, siginfo: bytes, target: Task | None, timer: int) -> bool:
    if _is_ignored(group, signo, target):
        return False
    queue = group.signals.pending if target is None else target.pending
    if not is_realtime(signo) and queue.bits & bit(signo):
        return False
    queue.add(Pending(signo, _within_limit(group, signo, siginfo, timer), timer))
    queue_changed(group)
    if queue.bits & bit(signo):
        _choose_thread(group, signo, target)
    return True


def _cancel_opposites(group: ThreadGroup, signo: int) -> None:
    """SIGCONT and the stop signals take each other out of the queues when sent, even if blocked or ignored."""
    if bit(signo) & si.STOP_SIGNALS:
        _discard(group, bit(SIGCONT))
    elif signo == SIGCONT:
        _discard(group, si.STOP_SIGNALS)


def _discard(group: ThreadGroup, unwanted: int) -> None:
    group.signals.pending.discard(unwanted)
    for task in group.tasks.values():
        task.pending.discard(unwanted)


def _is_ignored(group: ThreadGroup, signo: int, target: Task | None) -> bool:
    """A blocked signal is never ignored: its action may have changed by the time that it is unblocked."""
    judge = target or group.leader or next(iter(group.tasks.values()), None)
    if judge is not None and judge.sigmask & bit(signo):
        return False
    return group.signals.handlers.ignores(signo)


def _within_limit(group: ThreadGroup, signo: int, siginfo: bytes, timer: int) -> bytes:
    """Return the siginfo to queue: beyond the limit a signal comes without one, or (realtime with a value) not at all.

    Linux counts per user; greenroom counts per process.
    """
    code = si.code_of(siginfo)
    if timer != NO_TIMER or (not is_realtime(signo) and code >= 0):
        return siginfo
    queued = len(group.signals.pending) + sum(len(task.pending) for task in group.tasks.values())
    if queued < group.limits.soft(Resource.SIGPENDING):
        return siginfo
    if is_realtime(signo) and code != si.SI_USER:
        raise OSError(EAGAIN, "RLIMIT_SIGPENDING")
    return si.kernel_siginfo(signo, si.SI_USER)


def queue_changed(group: ThreadGroup) -> None:
    """Wake who looks at the queues by other ways than delivery: rt_sigtimedwait and signalfd."""
    for file in group.signals.watchers:
        file.refresh()
    group.worker.wake(("signal", group.group))


def _choose_thread(group: ThreadGroup, signo: int, target: Task | None) -> None:
    """Interrupt a thread that will take the signal: the target or the leader if they do not block it, else any."""
    first = target or group.leader
    candidates = [first] if first is not None else []
    if target is None:
        candidates += [task for task in group.tasks.values() if task is not first]
    for task in candidates:
        if _wants(task, signo):
            if _is_fatal(group, signo):
                exits.exit_group(group, signo)
            else:
                dispatch.interrupt(task)
            return


def _wants(task: Task, signo: int) -> bool:
    """A stopped process looks at its signals when it goes on (SIGKILL never comes here)."""
    return not task.sigmask & bit(signo) and task.state is not RunState.DEAD and not task.group.signals.stopped


def _is_fatal(group: ThreadGroup, signo: int) -> bool:
    """The default action ends the process without a core dump: that happens at once, whatever its threads are doing."""
    harmless = si.CORE_SIGNALS | si.STOP_SIGNALS | si.IGNORED_BY_DEFAULT
    return group.signals.handlers[signo].handler == SIG_DFL and not bit(signo) & harmless


def send_sigpipe(task: Task) -> None:
    """EPIPE: the writing thread, and no other, gets SIGPIPE."""
    info = si.kernel_siginfo(si.SIGPIPE, si.SI_USER, task.group.pid, task.group.credentials.ruid)
    send(task.group, si.SIGPIPE, info, task)


# -- who looks at which signal ----------------------------------------------------------------------------------


def has_deliverable(task: Task) -> bool:
    """Return whether a signal, or a job-control stop, is waiting that this task does not block."""
    state = task.group.signals
    return bool((task.pending.bits | state.pending.bits) & ~task.sigmask) or state.stopped


def set_sigmask(task: Task, mask: int) -> None:
    """Change what a task blocks: it looks at what is unblocked, others look at what it was to take and now blocks."""
    blocked = mask & ~task.sigmask
    task.sigmask = mask & ~si.UNBLOCKABLE & si.ALL_SIGNALS
    state = task.group.signals
    if task.pending.bits or state.pending.bits or state.stopped:  # else each call of a program's looks twice in vain
        if has_deliverable(task):
            task.work = True
        retarget(task, blocked)


def retarget(task: Task, signals: int) -> None:
    """Let other threads look at the process's pending *signals*, which *task* will not take after all."""
    queue: SignalQueue = task.group.signals.pending
    left = queue.bits & signals
    if not left:
        return
    for other in list(task.group.tasks.values()):
        if other is not task and other.state is not RunState.DEAD and left & ~other.sigmask:
            left &= other.sigmask
            dispatch.interrupt(other)
