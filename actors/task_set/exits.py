"""How threads and processes end: zombies, reparenting, SIGCHLD, autoreaping, job-control stops as the parent sees them.

Linux counterpart: kernel/exit.c (exit_notify, forget_original_parent) and kernel/signal.c (do_notify_parent,
do_notify_parent_cldstop).  Handles ThreadExited, GroupExited, GroupStopped, GroupContinued, WorkerLost; tells
parents SIGCHLD before their parked waits are answered, orphans ReparentedTo, Kernel ProcessExited and AllExited.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...messages.kernel import AllExited, ProcessExited
from ...messages.thread_group import ReparentedTo, Signal, WatchedExited
from ..thread_group.siginfo import CLD_CONTINUED, CLD_STOPPED, SIGCHLD, SIGCONT, SIGKILL
from . import birth, jobs, proc, terminals, wait
from .process import INIT, Process, ProcessState
from .siginfo import child_siginfo, exit_code_and_status

if TYPE_CHECKING:
    from ...messages import task_set as messages
    from .tree import ProcessTree

__all__ = ["group_continued", "group_exited", "group_stopped", "thread_exited", "watch", "worker_lost"]


# -- threads ----------------------------------------------------------------------------------------------------


def thread_exited(tree: ProcessTree, process: Process, tid: int) -> None:
    """A thread is gone, others live. The leader's id stays in use as the process's."""
    if tid not in process.threads:
        return
    process.threads.discard(tid)
    tree.drop_petitions(process, tid)
    if tid != process.pid:
        del tree.by_tid[tid]
    birth.forget_embryos(tree, process, tid)
    _hand_on_children(tree, process, tid)
    tree.show_thread(process, tid, gone=True)


def _hand_on_children(tree: ProcessTree, process: Process, tid: int) -> None:
    """Children of a thread that exits become a sibling's; to them their parent died (PR_SET_PDEATHSIG)."""
    heir = min(process.threads, default=process.pid)
    for child in tree.children_of(process) if process.children else ():
        if child.parent_tid == tid:
            child.parent_tid = heir
            tree.post(child, ReparentedTo(ppid=process.pid, parent_died=True))


# -- processes --------------------------------------------------------------------------------------------------


def group_exited(tree: ProcessTree, process: Process, message: messages.GroupExited) -> None:
    """The last thread is gone."""
    process.status = message.status
    process.user_ns, process.system_ns = message.user_ns, message.system_ns
    process.max_rss_kib, process.start_ns = message.max_rss_kib, message.start_ns
    _exit(tree, process)


def worker_lost(tree: ProcessTree, worker: int) -> None:
    """A worker's processes are gone as by SIGKILL; nothing is sent there any more."""
    tree.lost_workers.add(worker)
    tree.granted = {pid: serial for pid, serial in tree.granted.items() if serial % tree.workers != worker}
    lost = [p for p in tree.guests() if tree.worker_of(p) == worker and not p.dead]
    for process in lost:
        # An embryo goes with its forker.
        if process.alive:
            process.status = SIGKILL
            _exit(tree, process)


def _exit(tree: ProcessTree, process: Process) -> None:
    """exit_notify. As under Linux's tasklist_lock, waits see the whole exit or nothing: they are looked at last."""
    birth.forget_embryos(tree, process)
    before = jobs.orphaned_around(tree, process)
    heir = _reparent_children(tree, process)
    _become_zombie(tree, process)
    _lose_terminal(tree, process)
    jobs.refresh(tree, before)
    jobs.signal_new_orphans(tree, before)
    proc.answer_for_dead(tree, process)
    if process.outside:
        tree.tell_kernel(
            ProcessExited(
                pid=process.pid,
                status=process.status,
                user_ns=process.user_ns + process.children_user_ns,
                system_ns=process.system_ns + process.children_system_ns,
                max_rss_kib=max(process.max_rss_kib, process.children_max_rss_kib),
            )
        )
    _tell_watchers(tree, process)
    parent = _announce(tree, process)
    wait.wake(tree, heir)
    wait.wake(tree, parent)
    tree.send_ahead()
    if all(p.dead for p in tree.guests()):
        tree.tell_kernel(AllExited())


def watch(tree: ProcessTree, message: messages.WatchExit) -> None:
    """Remember who wants to know of an exit, or say that it has happened."""
    process = tree.processes.get(message.group)
    if process is None or process.dead:
        tree.tell_worker(message.worker, WatchedExited(group=message.group))
    elif message.worker not in process.watchers:
        process.watchers.append(message.worker)


def _tell_watchers(tree: ProcessTree, process: Process) -> None:
    watchers, process.watchers = process.watchers, []
    for worker in watchers:
        tree.tell_worker(worker, WatchedExited(group=process.group))


def _become_zombie(tree: ProcessTree, process: Process) -> None:
    process.advance(process.state, ProcessState.ZOMBIE)
    threads, process.threads = process.threads, set()
    tree.drop_petitions(process, *threads)
    for tid in threads - {process.pid}:
        del tree.by_tid[tid]
    process.unreported_stop, process.unreported_continue = 0, False
    if threads != {process.pid}:
        tree.show(process)


def _lose_terminal(tree: ProcessTree, process: Process) -> None:
    terminals.leader_exited(tree, process)
    terminals.drop(tree, process)


def _reparent_children(tree: ProcessTree, process: Process) -> Process:
    """Children go to the nearest living subreaper above, else to init; zombies among them are announced there.

    Return the heir.
    """
    children = tree.children_of(process)
    heir = _heir(tree, process)
    for child in children:
        tree.reparent(child, heir)
        child.exit_signal = SIGCHLD
        if child.dead:
            _announce(tree, child)
        else:
            tree.post(child, ReparentedTo(ppid=heir.pid, parent_died=True))
    return heir


def _heir(tree: ProcessTree, process: Process) -> Process:
    ancestor = tree.parent_of(process)
    while ancestor.group != INIT and not (ancestor.subreaper and ancestor.alive):
        ancestor = tree.parent_of(ancestor)
    return ancestor


# -- telling the parent -----------------------------------------------------------------------------------------


def _announce(tree: ProcessTree, process: Process) -> Process:
    """Send a zombie's exit signal to its parent, and reap it at once if nobody wants its status. Return the parent."""
    parent = tree.parent_of(process)
    signo = process.exit_signal
    if signo != SIGCHLD and process.parent_exec_count != parent.exec_count:
        # The parent has become another program since: no signal of the old one's choice.
        signo = SIGCHLD
    if signo:
        code, status = exit_code_and_status(process.status)
        _send(tree, parent, process, signo, code, status)
    if signo == SIGCHLD and parent.ignores_children:
        tree.remove(process)
    return parent


def _send(tree: ProcessTree, parent: Process, child: Process, signo: int, code: int, status: int) -> None:
    siginfo = child_siginfo(
        signo,
        code,
        pid=child.pid,
        uid=child.uids[0],
        status=status,
        user_ns=child.user_ns,
        system_ns=child.system_ns,
    )
    tree.signal_ahead(parent, Signal(tid=0, signo=signo, siginfo=siginfo))


def group_stopped(tree: ProcessTree, process: Process, signo: int) -> None:
    """A job-control stop is complete."""
    if process.state is ProcessState.LIVE:
        process.advance(ProcessState.LIVE, ProcessState.STOPPED)
    process.unreported_stop, process.unreported_continue = signo, False
    _notify_job_change(tree, process, CLD_STOPPED, signo)


def group_continued(tree: ProcessTree, process: Process) -> None:
    """SIGCONT ended a job-control stop."""
    if process.state is ProcessState.STOPPED:
        process.advance(ProcessState.STOPPED, ProcessState.LIVE)
    process.unreported_stop, process.unreported_continue = 0, True
    _notify_job_change(tree, process, CLD_CONTINUED, SIGCONT)


def _notify_job_change(tree: ProcessTree, process: Process, code: int, status: int) -> None:
    parent = tree.parent_of(process)
    if not parent.no_stop_signal:
        _send(tree, parent, process, SIGCHLD, code, status)
    wait.wake(tree, parent)
    tree.send_ahead()
