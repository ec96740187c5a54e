"""Job-control stops: SIGSTOP, SIGTSTP, SIGTTIN and SIGTTOU hold every thread of a process until SIGCONT.

Linux counterpart: do_signal_stop and prepare_signal's SIGCONT part (kernel/signal.c).  A stop begins when a thread
takes the stop signal; every other thread is interrupted, as by a signal, and held on its way to user mode.  With the
last one TaskSet is told.  A pause (``group.stop_epoch``) is another thing: either may hold a task while the other
comes and goes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...messages.task_set import GroupContinued, GroupStopped
from . import dispatch
from .task import RunState

if TYPE_CHECKING:
    from .actor import ThreadGroup

__all__ = ["begin", "check_complete", "end", "release"]


def begin(group: ThreadGroup, signo: int) -> None:
    """A thread has taken stop signal *signo*: all of them are to be held."""
    state = group.signals
    state.stopped, state.stop_signo, state.stop_reported = True, signo, False
    for task in list(group.tasks.values()):
        dispatch.interrupt(task)


def check_complete(group: ThreadGroup) -> None:
    """Tell TaskSet when the last thread is held. A thread in an uninterruptible wait delays that, as on Linux."""
    state = group.signals
    if state.stop_reported or group.exit_status is not None:
        return
    if all(task.state in (RunState.HELD, RunState.EMBRYO) for task in group.tasks.values()):
        state.stop_reported = True
        group.tell_task_set(GroupStopped(group=group.group, signo=state.stop_signo))


def end(group: ThreadGroup) -> None:
    """SIGCONT: the stop is no longer in force; ``release`` lets the threads go on."""
    state = group.signals
    state.stopped = False
    if state.stop_reported:
        state.stop_reported = False
        group.tell_task_set(GroupContinued(group=group.group))


def release(group: ThreadGroup) -> None:
    """Let the held threads go on; a pause may still hold them."""
    for task in list(group.tasks.values()):
        dispatch.release(task)
