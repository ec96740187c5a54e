"""Signals of a process: the entry points for the rest of the ThreadGroup.

Linux counterpart: kernel/signal.c.  What is pending and what is done about it is in ``signal_state``; sending in
``signal_send``; the way back to user mode in ``signal_delivery``; stops in ``job_stop``; bytes of siginfo_t in
``siginfo``; the calls in ``sys_signal``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...messages.task_set import ChildDisposition
from . import timers
from .job_stop import check_complete as check_job_stop
from .siginfo import (
    CLD_CONTINUED,
    CLD_DUMPED,
    CLD_EXITED,
    CLD_KILLED,
    CLD_STOPPED,
    SI_KERNEL,
    SI_QUEUE,
    SI_TIMER,
    SI_TKILL,
    SI_USER,
    SIGCHLD,
    SIGCONT,
    SIGHUP,
    SIGINT,
    SIGIO,
    SIGKILL,
    SIGPIPE,
    SIGQUIT,
    SIGSEGV,
    SIGTSTP,
    SIGTTIN,
    SIGTTOU,
    SIGURG,
    SIGWINCH,
    SIGXFSZ,
    bit,
    child_siginfo,
    fault_siginfo,
    kernel_siginfo,
    poll_siginfo,
    queued_siginfo,
    timer_siginfo,
)
from .signal_delivery import deliver, fault, force, take
from .signal_send import has_deliverable, queue_changed, retarget, send, send_sigpipe, set_sigmask
from .signal_state import SIG_DFL, SIG_IGN, GroupSignals, SignalHandlers, SignalQueue

if TYPE_CHECKING:
    from .actor import ThreadGroup

__all__ = [
    "CLD_CONTINUED",
    "CLD_DUMPED",
    "CLD_EXITED",
    "CLD_KILLED",
    "CLD_STOPPED",
    "SIGCHLD",
    "SIGCONT",
    "SIGHUP",
    "SIGINT",
    "SIGIO",
    "SIGKILL",
    "SIGPIPE",
    "SIGQUIT",
    "SIGSEGV",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGWINCH",
    "SIGXFSZ",
    "SIG_DFL",
    "SIG_IGN",
    "SI_KERNEL",
    "SI_QUEUE",
    "SI_TIMER",
    "SI_TKILL",
    "SI_USER",
    "GroupSignals",
    "SignalHandlers",
    "SignalQueue",
    "bit",
    "cancel_timers",
    "check_job_stop",
    "child_siginfo",
    "deliver",
    "fault",
    "fault_siginfo",
    "force",
    "has_deliverable",
    "inherit",
    "kernel_siginfo",
    "poll_siginfo",
    "queue_changed",
    "queued_siginfo",
    "reset_on_exec",
    "retarget",
    "send",
    "send_sigpipe",
    "set_sigmask",
    "take",
    "tell_child_disposition",
    "timer_siginfo",
]


def inherit(parent: ThreadGroup, child: ThreadGroup, *, share: bool, clear: bool) -> None:
    """Give a new process its actions: the parent's own (CLONE_SIGHAND), a copy, or the defaults (CLEAR_SIGHAND)."""
    handlers = parent.signals.handlers
    child.signals.handlers = handlers if share else handlers.copy()
    if clear:
        child.signals.handlers.reset(keep_ignored=True)
    if child.signals.handlers.child_disposition() != (False, False):
        tell_child_disposition(child)


def reset_on_exec(group: ThreadGroup) -> None:
    """execve: handlers become the default action, ignored signals stay ignored; pending signals and masks stay."""
    handlers = group.signals.handlers.copy()
    before = handlers.child_disposition()
    handlers.reset(keep_ignored=True)
    group.signals.handlers = handlers
    if handlers.child_disposition() != before:
        tell_child_disposition(group)
    for task in group.tasks.values():
        task.altstack = (0, 2, 0)
    timers.drop_posix_timers(group)


def tell_child_disposition(group: ThreadGroup) -> None:
    """Tell TaskSet what SIGCHLD's action says about zombies and stopped children."""
    ignored, no_stop = group.signals.handlers.child_disposition()
    group.tell_task_set(ChildDisposition(group=group.group, ignored=ignored, no_stop=no_stop))


def cancel_timers(group: ThreadGroup) -> None:
    """The process is gone: none of its timers may fire."""
    timers.cancel_all(group)
