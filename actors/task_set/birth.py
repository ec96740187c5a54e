"""How processes and threads come to be: from outside, by fork, by clone.

Linux counterpart: kernel/fork.c's copy_process, as far as it is under tasklist_lock; kernel_execve of the first
program. Handles CreateProcess, StartProcess, RequestFork, RequestThread, ForkFailed, RequestIds, Forked, ThreadBorn,
Executed; asks workers CreateThreadGroup and groups Execute, StartTasks; grants ids to workers in advance.

Most children are born under granted ids: the forker tells Forked, in order with all else that it tells, and before the
child runs.  What TaskSet has told the forker since and the child cannot know is told to the child then.
"""

from __future__ import annotations

from errno import EAGAIN, ESRCH
from typing import TYPE_CHECKING

from ...config.limits import GRANTED_IDS
from ...messages.task_set import ProcessCreated
from ...messages.thread_group import CreateThreadGroup, Execute, GrantIds, Signal, StartTasks
from ..runtime.actor import Ask, Refused
from ..thread_group.siginfo import SIGCHLD, SIGKILL
from . import jobs, stop, wait
from .process import INIT, Job, Process, ProcessState
from .siginfo import kernel_siginfo

if TYPE_CHECKING:
    from ...messages import task_set as messages
    from ..runtime.actor import Asking
    from .tree import ProcessTree

__all__ = [
    "create",
    "create_thread_group",
    "executed",
    "forget_embryos",
    "fork",
    "fork_failed",
    "forked",
    "grant",
    "start",
    "thread",
    "thread_born",
]


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
    child = _child_of(caller, message.tid, tree.allocate_serial(tree.worker_of(caller)), pid, message.exit_signal)
    if message.clone_parent:
        child.parent, child.parent_tid = caller.parent, caller.parent_tid
        child.parent_exec_count, child.exit_signal = caller.parent_exec_count, caller.exit_signal
    child.epoch = tree.epoch
    tree.add(child)
    return child


def _child_of(caller: Process, tid: int, serial: int, pid: int, exit_signal: int) -> Process:
    """Return what the thread *tid* of *caller* makes by fork, not registered yet."""
    return Process(
        group=serial,
        pid=pid,
        parent=caller.group,
        parent_tid=tid,
        parent_exec_count=caller.exec_count,
        exit_signal=exit_signal,
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
        forker=caller.group,
        forker_tid=tid,
        told_job=caller.told_job,
    )


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
    tree.show_thread(caller, tid)
    tree.answer(caller, message.tid, message.petition, value=tid)


# -- under granted ids ------------------------------------------------------------------------------------------


def grant(tree: ProcessTree, worker: int) -> None:
    """Give a worker ids for the births to come, as far as the limit of tasks allows."""
    pids: list[int] = []
    try:
        while len(pids) < GRANTED_IDS:
            pid = tree.allocate_pid()
            tree.granted[pid] = tree.allocate_serial(worker)
            pids.append(pid)
    except BlockingIOError:
        pass
    tree.tell_worker(f"worker:{worker}", GrantIds(pids=tuple(pids), serials=tuple([tree.granted[pid] for pid in pids])))


def forked(tree: ProcessTree, caller: Process, message: messages.Forked) -> None:
    """A child has been made; tell it what its forker did not know yet."""
    assert tree.granted.pop(message.pid) == message.child, "a birth has the serial that was granted with its id"
    child = _child_of(caller, message.tid, message.child, message.pid, message.exit_signal)
    child.epoch = message.epoch
    child.told_job = Job(message.pgid, message.sid, message.terminal, message.foreground, message.orphaned)
    tree.add(child)
    tree.settle(child)
    tree.show(child)
    if child.told_job != caller.told_job or caller.told_job is None:
        jobs.refresh(tree, {child.pgid})
    if tree.signals_sent.get(caller.group, 0) != message.signals:
        for number, signal in tree.broadcasts.get(caller.group, ()):
            if number > message.signals:
                tree.signal(child, signal)
    if tree.dying:
        tree.signal(child, Signal(tid=0, signo=SIGKILL, siginfo=kernel_siginfo(SIGKILL)))


def thread_born(tree: ProcessTree, caller: Process, tid: int) -> None:
    """A thread has been made."""
    del tree.granted[tid]
    caller.threads.add(tid)
    tree.by_tid[tid] = caller
    tree.show_thread(caller, tid)


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
