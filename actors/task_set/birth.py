"""How processes and threads come to be: from outside, by fork, by clone.

Linux counterpart: kernel/fork.c's copy_process, as far as it is under tasklist_lock; kernel_execve of the first
program. Handles CreateProcess, StartProcess, RequestFork, RequestThread, ForkFailed, Executed; asks workers
CreateThreadGroup and groups Execute, StartTasks.
"""

from __future__ import annotations

from errno import EAGAIN, ESRCH
from typing import TYPE_CHECKING

from ...messages.task_set import ProcessCreated
from ...messages.thread_group import CreateThreadGroup, Execute, StartTasks
from ..runtime.actor import Ask, Refused
from ..thread_group.siginfo import SIGCHLD
from . import jobs, stop, wait
from .process import INIT, Process, ProcessState

if TYPE_CHECKING:
    from ...messages import task_set as messages
    from ..runtime.actor import Asking
    from .tree import ProcessTree

__all__ = ["create", "create_thread_group", "executed", "forget_embryos", "fork", "fork_failed", "start", "thread"]


# -- from outside -----------------------------------------------------------------------------------------------


def create(tree: ProcessTree, message: messages.CreateProcess) -> Asking:
    """A child of init in a session of its own, loaded and stopped at its first instruction; execve(2)'s errnos."""
    process = _register_outside(tree, message.arguments)
    try:
        yield create_thread_group(tree, process)
        tree.settle(process)
        jobs.refresh(tree, {process.pgid})
        yield stop.corrections(tree, [process])
        yield Ask(process.address, Execute(arguments=message.arguments))
    except Exception:
        _discard(tree, process)
        raise
    tree.show(process)
    return ProcessCreated(group=process.group, pid=process.pid)


def _discard(tree: ProcessTree, process: Process) -> None:
    """The first program could not be loaded: its group ends by itself; nobody hears of the process."""
    if process.alive:
        process.advance(process.state, ProcessState.ZOMBIE)
    if process.group in tree.processes:
        tree.remove(process)


def _register_outside(tree: ProcessTree, arguments: messages.ProcessArguments) -> Process:
    if arguments.worker >= tree.workers or arguments.worker in tree.lost_workers:
        raise Refused(f"there is no worker {arguments.worker}")
    pid = tree.allocate_pid()
    process = Process(
        group=tree.allocate_serial(arguments.worker),
        pid=pid,
        parent=INIT,
        parent_tid=tree.init.pid,
        pgid=pid,
        sid=pid,
        session_leader=True,
        threads={pid},
        uids=(arguments.uid,) * 3,
        gids=(arguments.gid,) * 3,
        command=arguments.filename.rpartition("/")[2][:15],
        outside=True,
        executed=True,
        epoch=tree.epoch,
    )
    tree.add(process)
    return process


def create_thread_group(tree: ProcessTree, process: Process) -> Ask:
    """Return the ask that makes a process's actor."""
    message = CreateThreadGroup(
        group=process.group,
        pid=process.pid,
        ppid=tree.parent_of(process).pid,
        pgid=process.pgid,
        sid=process.sid,
        terminal=process.terminal,
        mount_namespace=tree.mount_namespace,
        root=tree.root,
        epoch=tree.epoch,
    )
    return Ask(f"worker:{tree.worker_of(process)}", message)


def start(tree: ProcessTree, message: messages.StartProcess) -> Asking:
    """Let a created process run. ESRCH."""
    process = tree.by_tid.get(message.pid)
    if process is None or not process.alive or process.group == INIT:
        raise ProcessLookupError(ESRCH, f"no process {message.pid}")
    yield Ask(process.address, StartTasks())


# -- by fork and clone ------------------------------------------------------------------------------------------


def fork(tree: ProcessTree, caller: Process, message: messages.RequestFork) -> None:
    """Grant a child. EAGAIN at the limits."""
    try:
        _check_process_limit(tree, caller, message.process_limit)
        child = _register_child(tree, caller, message)
    except BlockingIOError:
        tree.answer(caller, message.tid, message.petition, errno=EAGAIN)
        return
    tree.show(child)
    tree.answer(caller, message.tid, message.petition, value=child.pid, extra=(child.group, child.epoch))


def _register_child(tree: ProcessTree, caller: Process, message: messages.RequestFork) -> Process:
    pid = tree.allocate_pid()
    parent = tree.parent_of(caller) if message.clone_parent else caller
    child = Process(
        group=tree.allocate_serial(tree.worker_of(caller)),
        pid=pid,
        parent=parent.group,
        parent_tid=caller.parent_tid if message.clone_parent else message.tid,
        parent_exec_count=caller.parent_exec_count if message.clone_parent else caller.exec_count,
        exit_signal=caller.exit_signal if message.clone_parent else message.exit_signal,
        pgid=caller.pgid,
        sid=caller.sid,
        terminal=caller.terminal,
        threads={pid},
        uids=caller.uids,
        gids=caller.gids,
        command=caller.command,
        nice=caller.nice,
        ignores_children=caller.ignores_children,
        no_stop_signal=caller.no_stop_signal,
        exec_count=caller.exec_count,
        epoch=tree.epoch,
        forker=caller.group,
        forker_tid=message.tid,
        told_job=caller.told_job,
    )
    tree.add(child)
    return child


def _check_process_limit(tree: ProcessTree, caller: Process, limit: int) -> None:
    """RLIMIT_NPROC counts the threads of the real user."""
    if limit and sum(len(p.threads) for p in tree.guests() if p.uids[0] == caller.uids[0]) >= limit:
        raise BlockingIOError(EAGAIN, "RLIMIT_NPROC")


def fork_failed(tree: ProcessTree, caller: Process, child: int) -> None:
    """The host refused a granted child: forget it without a trace."""
    embryo = tree.processes.get(child)
    if embryo is not None and embryo.state is ProcessState.EMBRYO and embryo.forker == caller.group:
        parent = tree.parent_of(embryo)
        tree.remove(embryo)
        # A sibling thread's wait may have nothing left to wait for.
        wait.wake(tree, parent)


def forget_embryos(tree: ProcessTree, forker: Process, tid: int = 0) -> None:
    """The thread *tid* (0: every thread) of *forker* is gone: what it was about to make will never be."""
    for key, embryo in list(tree.embryos.items()):
        if key[0] == forker.group and tid in (0, key[1]):
            fork_failed(tree, forker, embryo.group)


def thread(tree: ProcessTree, caller: Process, message: messages.RequestThread) -> None:
    """Grant a thread id. EAGAIN at the limits."""
    try:
        _check_process_limit(tree, caller, message.process_limit)
        tid = tree.allocate_pid()
    except BlockingIOError:
        tree.answer(caller, message.tid, message.petition, errno=EAGAIN)
        return
    caller.threads.add(tid)
    tree.by_tid[tid] = caller
    tree.show(caller)
    tree.answer(caller, message.tid, message.petition, value=tid)


# -- execve -----------------------------------------------------------------------------------------------------


def executed(tree: ProcessTree, process: Process, message: messages.Executed) -> None:
    """execve succeeded: one thread is left, which is the leader; setpgid by the parent is over (EACCES)."""
    threads, process.threads = process.threads, {process.pid}
    tree.drop_petitions(process, *threads)
    for tid in threads - process.threads:
        del tree.by_tid[tid]
    process.command = message.command
    process.executed = True
    process.exec_count += 1
    process.exit_signal = SIGCHLD
    for child in tree.children_of(process):
        child.parent_tid = process.pid
    if threads != process.threads:
        tree.show(process)
