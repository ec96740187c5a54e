"""The end of threads and processes.

Linux counterpart: kernel/exit.c.  Whatever ends a task comes through :func:`end_task`: exit(2), exit_group(2), a fatal
signal, execve of a sibling, a host task that died.  When the last task of a group is gone, TaskSet is told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ...config.logging import get_logger
from ...messages.base import owned
from ...messages.task_set import GroupExited, ThreadExited
from ...platform.interface import HostTaskDied
from . import dispatch, signals, sys_futex
from .task import RunState

if TYPE_CHECKING:
    from .actor import ThreadGroup
    from .task import Task

__all__ = [
    "GroupTimes",
    "deliver_death_signal",
    "end_task",
    "exit_group",
    "host_task_died",
    "kill_other_threads",
    "release_vfork_parent",
]

log = get_logger(__name__)

#: A child of fork that ends after less CPU time than this has in use what its forker had: nobody looks.
_SHORT_LIFE_NS: Final = 10_000_000


@owned
class GroupTimes:
    """CPU time in ns: of threads that are gone, and of children that were waited for; peak resident set in KiB."""

    dead_user_ns: int = 0
    dead_system_ns: int = 0
    children_user_ns: int = 0
    children_system_ns: int = 0
    max_rss_kib: int = 0
    children_max_rss_kib: int = 0
    #: Signal that the process wants when its parent dies (PR_SET_PDEATHSIG), 0 for none.
    death_signal: int = 0


def exit_group(group: ThreadGroup, status: int) -> None:
    """End every task of *group*; *status* is the wait status. The first status wins."""
    if group.exit_status is None:
        group.exit_status = status
    for task in list(group.tasks.values()):
        end_task(task)


def end_task(task: Task) -> None:
    """End one task: tell its waiters, release what it holds, and the group with the last one. Idempotent."""
    group = task.group
    if task.state is RunState.DEAD:
        return
    _leave_wait(task)
    task.advance(RunState.DEAD)
    last = len(group.tasks) == 1
    _keep_times(task, last=last)
    if group.memory is not None:
        _tell_waiters(task)
    release_vfork_parent(task)
    # What it has just reported may be still to be handled, behind the event that has killed it.
    task.host.owner = None
    task.host.kill()
    del group.tasks[task.tid]
    if last:
        _end_group(group)
    else:
        group.tell_task_set(ThreadExited(group=group.group, tid=task.tid))
        if group.exit_status is None:
            signals.retarget(task, group.signals.pending.bits)
        group.check_stopped()


def _leave_wait(task: Task) -> None:
    """Take a parked task off whatever it waits on."""
    if task.state is RunState.BLOCKED:
        dispatch.unpark(task)


def _keep_times(task: Task, *, last: bool) -> None:
    user_ns, system_ns = task.worker.cpu_times_ns(task)
    if last:
        memory = task.memory
        if memory.forked_rss_kib and user_ns + system_ns < _SHORT_LIFE_NS:
            memory.max_rss_kib = max(memory.max_rss_kib, memory.forked_rss_kib)
        else:
            task.worker.note_resident(task)
    task.group.times.dead_user_ns += user_ns
    task.group.times.dead_system_ns += system_ns


def _tell_waiters(task: Task) -> None:
    """Robust futexes and CLONE_CHILD_CLEARTID, as mm_release does; bad pointers are the guest's own trouble."""
    try:
        sys_futex.exit_robust_list(task)
        sys_futex.wake_child_tid(task)
    except (OSError, HostTaskDied):
        pass


def _end_group(group: ThreadGroup) -> None:
    """The last task is gone: the process becomes a zombie in TaskSet, and its actor ends."""
    times = group.times
    signals.cancel_timers(group)
    if group.files is not None:
        group.files.drop(group)
    if group.fs is not None:
        group.fs.drop(group)
    if group.memory is not None:
        times.max_rss_kib = max(times.max_rss_kib, group.memory.max_rss_kib)
        group.memory.drop(group)
    assert group.exit_status is not None
    log.info("process ended", actor=group.address, tgid=group.pid, status=group.exit_status)
    group.tell_task_set(
        GroupExited(
            group=group.group,
            status=group.exit_status,
            user_ns=times.dead_user_ns,
            system_ns=times.dead_system_ns,
            max_rss_kib=times.max_rss_kib,
        )
    )
    group.gone()


def exit_thread(task: Task, status: int) -> None:
    """exit(2) of one thread; the last one's status is the process's."""
    if len(task.group.tasks) == 1 and task.group.exit_status is None:
        task.group.exit_status = status
    end_task(task)


def kill_other_threads(task: Task) -> None:
    """execve of one thread ends its siblings (de_thread)."""
    for other in [t for t in task.group.tasks.values() if t is not task]:
        end_task(other)


def release_vfork_parent(task: Task) -> None:
    """This task has exec'ed or is gone: its vfork parent, who waits for that, goes on."""
    if task.vfork_parent is not None:
        channel, task.vfork_parent = ("vfork", *task.vfork_parent), None
        task.worker.wake(channel)


def host_task_died(task: Task, host_status: int) -> None:
    """A host task was killed from outside: to the guest its process died by SIGKILL."""
    if task.state is RunState.DEAD:
        return
    log.warning(
        "host task died", tgid=task.group.pid, tid=task.tid, host_tid=task.host.host_tid, host_status=host_status
    )
    exit_group(task.group, 9)


def deliver_death_signal(group: ThreadGroup) -> None:
    """The parent died: send what prctl(PR_SET_PDEATHSIG) asked for."""
    signo = group.times.death_signal
    if signo:
        signals.send(group, signo, signals.kernel_siginfo(signo, signals.SI_USER, pid=group.ppid, uid=0), None)
