"""fork, vfork, clone and clone3: births of threads and processes.

Linux counterpart: kernel/fork.c.  The caller takes an id that TaskSet has granted to the worker, or petitions for one;
then it clones its host task and builds the new Task beside it.  TaskSet is told before the child's first instruction
runs, in order with all else that the parent tells.
"""

from __future__ import annotations

import struct
from errno import E2BIG, EINVAL, EPERM
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from ...messages.task_set import (
    Forked,
    ForkFailed,
    GroupBorn,
    RequestFork,
    RequestThread,
    ThreadBorn,
    ThreadExited,
)
from ...platform.interface import HostTaskDied
from . import dispatch, signals
from .credentials import CAP_SYS_ADMIN, CAP_SYS_RESOURCE
from .ids import GrantedId
from .limits import RLIM_INFINITY, Resource
from .pid_file import PidFile
from .table import U64, Address, syscall
from .task import ERESTARTNOINTR, Block, Petition, Task

if TYPE_CHECKING:
    from ...messages.thread_group import Answer
    from ...platform.interface import HostTask
    from .memory import MemoryManager

__all__ = ["CLONE"]


class CLONE:
    """CLONE_* (include/uapi/linux/sched.h); plain integers: each test of an enum.IntFlag costs a microsecond."""

    VM: Final = 0x100
    FS: Final = 0x200
    FILES: Final = 0x400
    SIGHAND: Final = 0x800
    PIDFD: Final = 0x1000
    PTRACE: Final = 0x2000
    VFORK: Final = 0x4000
    PARENT: Final = 0x8000
    THREAD: Final = 0x10000
    NEWNS: Final = 0x20000
    SYSVSEM: Final = 0x40000
    SETTLS: Final = 0x80000
    PARENT_SETTID: Final = 0x100000
    CHILD_CLEARTID: Final = 0x200000
    DETACHED: Final = 0x400000
    UNTRACED: Final = 0x800000
    CHILD_SETTID: Final = 0x1000000
    NEWCGROUP: Final = 0x2000000
    NEWUTS: Final = 0x4000000
    NEWIPC: Final = 0x8000000
    NEWUSER: Final = 0x10000000
    NEWPID: Final = 0x20000000
    NEWNET: Final = 0x40000000
    IO: Final = 0x80000000
    CLEAR_SIGHAND: Final = 0x1_0000_0000
    INTO_CGROUP: Final = 0x2_0000_0000


_NAMESPACES: Final = (
    CLONE.NEWNS | CLONE.NEWCGROUP | CLONE.NEWUTS | CLONE.NEWIPC | CLONE.NEWUSER | CLONE.NEWPID | CLONE.NEWNET
)
#: struct clone_args of clone3(2): flags pidfd child_tid parent_tid exit_signal stack stack_size tls set_tid
#: set_tid_size cgroup.
_CLONE_ARGS: Final = struct.Struct("<11Q")
_CLONE_ARGS_MIN_BYTES: Final = 64
_PAGE_BYTES: Final = 4096


class _Birth(NamedTuple):
    """What one clone asks for."""

    flags: int
    exit_signal: int
    #: Stack pointer of the child, 0 for the parent's.
    stack: int
    parent_tid: int
    child_tid: int
    tls: int
    #: Where CLONE_PIDFD puts the descriptor.
    pidfd: int = 0


@syscall(56)
def clone(task: Task, flags: U64, stack: Address, parent_tid: Address, child_tid: Address, tls: U64) -> object:
    """clone(2): a new thread or process. EAGAIN, EINVAL for impossible flags, ENOMEM, EPERM for namespaces."""
    wanted = flags & ~0xFF & 0xFFFFFFFF
    if wanted & CLONE.PIDFD and wanted & (CLONE.PARENT_SETTID | CLONE.DETACHED):
        # Both results would go to the same place; the flag that was CLONE_DETACHED is kept free.
        raise OSError(EINVAL, "")
    return _clone(task, _Birth(wanted, flags & 0xFF, stack, parent_tid, child_tid, tls, pidfd=parent_tid))


@syscall(57)
def fork(task: Task) -> object:
    """fork(2): a new process with a copy of this one's memory. EAGAIN, ENOMEM."""
    return _clone(task, _Birth(0, signals.SIGCHLD, 0, 0, 0, 0))


@syscall(58)
def vfork(task: Task) -> object:
    """vfork(2): a new process in this one's memory; the caller waits until it execs or exits. EAGAIN, ENOMEM."""
    return _clone(task, _Birth(CLONE.VFORK | CLONE.VM, signals.SIGCHLD, 0, 0, 0, 0))


@syscall(435, partial="set_tid and CLONE_INTO_CGROUP are refused with EINVAL")
def clone3(task: Task, args: Address, size: U64) -> object:
    """clone3(2): clone with a structure of arguments. E2BIG, EINVAL, and clone(2)'s errnos."""
    if size > _PAGE_BYTES:
        raise OSError(E2BIG, "clone_args larger than a page")
    if size < _CLONE_ARGS_MIN_BYTES:
        raise OSError(EINVAL, "clone_args shorter than its first version")
    data = task.memory.read(args, size)
    if any(data[_CLONE_ARGS.size :]):
        raise OSError(E2BIG, "clone_args has fields that this kernel does not know")
    padded = data[: _CLONE_ARGS.size].ljust(_CLONE_ARGS.size, b"\0")
    flags, pidfd, child, parent, signal, stack, length, tls, _tids, tid_count, _cgroup = _CLONE_ARGS.unpack(padded)
    if tid_count or signal > 64 or flags & (0xFF | CLONE.DETACHED | CLONE.INTO_CGROUP) or bool(stack) != bool(length):
        raise OSError(EINVAL, "")
    if flags & (CLONE.THREAD | CLONE.PARENT) and signal:
        raise OSError(EINVAL, "")
    if flags & CLONE.PIDFD and flags & CLONE.PARENT_SETTID and pidfd == parent:
        raise OSError(EINVAL, "")
    return _clone(task, _Birth(flags, signal, stack + length if stack else 0, parent, child, tls, pidfd))


def _check(task: Task, flags: int) -> None:
    """copy_process's checks of flags against each other."""
    if flags & CLONE.SIGHAND and not flags & CLONE.VM or flags & CLONE.THREAD and not flags & CLONE.SIGHAND:
        raise OSError(EINVAL, "")
    if flags & CLONE.NEWNS and flags & CLONE.FS or flags & CLONE.CLEAR_SIGHAND and flags & CLONE.SIGHAND:
        raise OSError(EINVAL, "")
    if flags & CLONE.PIDFD and flags & CLONE.THREAD:
        raise OSError(EINVAL, "")
    if flags & _NAMESPACES:
        # A kernel without namespaces answers EINVAL; one that may not make them, EPERM.
        raise OSError(EINVAL if task.group.credentials.has(CAP_SYS_ADMIN) else EPERM, "no nested namespaces")


def _clone(task: Task, birth: _Birth) -> object:
    """First call: take a granted id, or petition for one. Later: it has come; or the vfork child is through."""
    if "vfork_child" in task.memo:
        return _wait_for_vfork(task)
    answer = task.take_answer()
    if answer is not None:
        task.worker.ids.refill()
        if birth.flags & CLONE.THREAD:
            return _make_petitioned_thread(task, birth, answer.value)
        return _make_petitioned_process(task, birth, answer)
    _check(task, birth.flags)
    granted = _take_id(task, birth)
    if granted is not None:
        try:
            return _make_thread(task, birth, granted.pid) if birth.flags & CLONE.THREAD else _fork(task, birth, granted)
        except (OSError, HostTaskDied):  # of the host's clone: nothing was made
            task.worker.ids.give_back(granted)
            raise
    limit = _process_limit(task)
    if birth.flags & CLONE.THREAD:
        return Petition(RequestThread, {"process_limit": limit})
    clone_parent = bool(birth.flags & CLONE.PARENT)
    fields = {"exit_signal": birth.exit_signal, "clone_parent": clone_parent, "process_limit": limit}
    return Petition(RequestFork, fields)


def _take_id(task: Task, birth: _Birth) -> GrantedId | None:
    """Return an id that needs no petition. CLONE_PARENT concerns another process; a limit must not be near."""
    if birth.flags & CLONE.PARENT and not birth.flags & CLONE.THREAD:
        return None
    limit = _process_limit(task)
    worker = task.worker
    # A worker counts its own tasks only: exact where it is alone, else as if each had as many.
    if limit and sum(len(group.tasks) for group in worker.groups.values()) * worker.node.placement.workers >= limit:
        return None
    return worker.ids.take()


def _process_limit(task: Task) -> int:
    """Return RLIMIT_NPROC of a caller whom it binds, 0 for others."""
    credentials = task.group.credentials
    if credentials.ruid == 0 or credentials.has(CAP_SYS_RESOURCE) or credentials.has(CAP_SYS_ADMIN):
        return 0
    limit = task.group.limits.soft(Resource.NPROC)
    return 0 if limit == RLIM_INFINITY else max(limit, 1)


def _make_petitioned_thread(task: Task, birth: _Birth, tid: int) -> int:
    try:
        return _make_thread(task, birth, tid, told=True)
    except OSError:
        task.group.tell_task_set(ThreadExited(group=task.group.group, tid=tid))
        raise


def _make_thread(task: Task, birth: _Birth, tid: int, *, told: bool = False) -> int:
    """Make the thread *tid*, of which TaskSet was *told* or is now."""
    group = task.group
    child = Task(group, tid, _clone_host(task, birth), task.memory, task)
    child.host.owner = child
    child.pending = signals.SignalQueue()
    child.start_ns = task.worker.clock.monotonic_ns()
    group.tasks[tid] = child
    if not told:
        group.tell_task_set(ThreadBorn(group=group.group, tid=tid))
    _write_tids(task, child, birth)
    _start(child)
    return tid


def _make_petitioned_process(task: Task, birth: _Birth, answer: Answer) -> object:
    serial, epoch = (*answer.extra, 0)[:2]
    try:
        child = _make_process(task, birth, GrantedId(answer.value, serial))
    except OSError:
        task.group.tell_task_set(ForkFailed(group=task.group.group, child=serial))
        raise
    task.group.tell_task_set(GroupBorn(group=serial))
    child.group.stop_epoch = epoch or task.group.stop_epoch
    return _let_go(task, child, birth)


def _fork(task: Task, birth: _Birth, granted: GrantedId) -> object:
    """Make a child under an id that TaskSet has granted in advance, and tell it."""
    child = _make_process(task, birth, granted)
    parent, group = task.group, child.group
    group.stop_epoch = parent.stop_epoch
    parent.tell_task_set(
        Forked(
            group=parent.group,
            tid=task.tid,
            child=group.group,
            pid=group.pid,
            exit_signal=birth.exit_signal,
            epoch=group.stop_epoch,
            signals=parent.signals_heard,
            pgid=group.pgid,
            sid=group.sid,
            terminal=group.terminal,
            foreground=group.foreground,
            orphaned=group.orphaned,
        )
    )
    return _let_go(task, child, birth)


def _make_process(task: Task, birth: _Birth, numbers: GrantedId) -> Task:
    """Clone the host task and make the child's group. OSError before anything is made."""
    host = _clone_host_with_pidfd(task, birth) if birth.flags & CLONE.PIDFD else _clone_host(task, birth)
    return _new_group(task, birth, numbers.serial, numbers.pid, host)


def _let_go(task: Task, child: Task, birth: _Birth) -> object:
    """TaskSet knows the child: finish the call and let it run."""
    serial, pid = child.group.group, child.group.pid
    if birth.flags & CLONE.PIDFD:
        file = PidFile(task.worker, pid, serial, 0, exited=False)
        task.group.files.add(task.group, file, close_on_exec=True)
    _write_tids(task, child, birth)
    if birth.flags & CLONE.VFORK:
        child.vfork_parent = (task.group.group, task.tid)
        task.memo["vfork_child"] = (serial, pid)
        _start(child)
        return _wait_for_vfork(task)
    _start(child)
    return pid


def _wait_for_vfork(task: Task) -> object:
    """The parent of a vfork waits, uninterrupted but for SIGKILL, until the child has its own memory or is gone."""
    serial, pid = task.memo["vfork_child"]
    waiter = (task.group.group, task.tid)
    child = task.worker.group(serial)
    if child is not None and any(t.vfork_parent == waiter for t in child.tasks.values()):
        return Block(channels=(("vfork", *waiter),), uninterruptible=True, on_signal=ERESTARTNOINTR)
    return pid


def _clone_host(task: Task, birth: _Birth) -> HostTask:
    """Clone the host task and give the clone its own stack and thread pointer."""
    host = task.host.clone(share_memory=bool(birth.flags & CLONE.VM))
    if not birth.stack and not birth.flags & CLONE.SETTLS:
        return host
    registers = host.get_registers()
    if birth.stack:
        registers.rsp = birth.stack
    if birth.flags & CLONE.SETTLS:
        registers.fs_base = birth.tls
    try:
        host.set_registers(registers)
    except OSError:
        # A thread pointer outside user space: Linux answers EPERM.
        host.kill()
        raise OSError(EPERM, "bad thread pointer") from None
    return host


def _clone_host_with_pidfd(task: Task, birth: _Birth) -> HostTask:
    """Tell the caller its pidfd before there is one; the child's memory does not show it. EFAULT, EMFILE."""
    fd = task.group.files.free_descriptor(task.group)
    host = _clone_host(task, birth)
    try:
        task.memory.write(birth.pidfd, struct.pack("<i", fd))
    except OSError:
        host.kill()
        raise
    return host


def _new_group(task: Task, birth: _Birth, serial: int, pid: int, host: HostTask) -> Task:
    """Build the child's ThreadGroup from the parent's, shared or copied as the flags say."""
    parent, flags = task.group, birth.flags
    group = task.worker.new_group(serial, pid, parent)
    sibling = bool(flags & CLONE.PARENT)
    group.ppid = parent.ppid if sibling else parent.pid
    group.pgid, group.sid, group.terminal = parent.pgid, parent.sid, parent.terminal
    group.foreground, group.orphaned = parent.foreground, parent.orphaned
    group.mount_namespace = parent.mount_namespace
    group.memory = task.memory.share(group) if flags & CLONE.VM else task.memory.fork(host.space, group)
    group.files = parent.files.share(group) if flags & CLONE.FILES else parent.files.fork(group)
    group.fs = parent.fs.share() if flags & CLONE.FS else parent.fs.fork()
    group.executable = parent.executable
    group.oom_score_adj = parent.oom_score_adj
    signals.inherit(parent, group, share=bool(flags & CLONE.SIGHAND), clear=bool(flags & CLONE.CLEAR_SIGHAND))
    child = Task(group, pid, host, group.memory, task)
    host.owner = child
    child.pending = signals.SignalQueue()
    child.start_ns = group.start_ns
    if not flags & CLONE.VM or flags & CLONE.VFORK:
        child.altstack = task.altstack
    group.tasks[pid] = child
    if not flags & CLONE.VM:
        group.memory.forked_rss_kib = task.worker.recent_resident_kib(task, group.start_ns)
        group.memory.after_fork(child)
    return child


def _write_tids(task: Task, child: Task, birth: _Birth) -> None:
    """CLONE_PARENT_SETTID, CLONE_CHILD_SETTID, CLONE_CHILD_CLEARTID; Linux ignores bad pointers here."""
    if birth.flags & CLONE.CHILD_CLEARTID:
        child.clear_child_tid = birth.child_tid
    if birth.flags & CLONE.PARENT_SETTID:
        _write_tid(task.memory, birth.parent_tid, child.tid)
    if birth.flags & CLONE.CHILD_SETTID:
        _write_tid(child.memory, birth.child_tid, child.tid)


def _write_tid(memory: MemoryManager, address: int, tid: int) -> None:
    try:  # noqa: SIM105  # suppress() takes as long as the write
        memory.write_u32(address, tid)
    except OSError:
        pass


def _start(child: Task) -> None:
    """The child runs from the next turn on, so that its parent's call ends first, as it mostly does natively."""
    child.worker.node.loop.call_soon(partial(dispatch.start, child))


@syscall(218)
def set_tid_address(task: Task, address: Address) -> int:
    """set_tid_address(2): where to clear the thread id and wake a futex when this thread ends. Never fails."""
    task.clear_child_tid = address
    return task.tid


@syscall(272, partial="only flags that need no new namespace; CLONE_FILES and CLONE_FS are honoured")
def unshare(task: Task, flags: U64) -> int:
    """unshare(2): stop sharing parts of the execution context. EINVAL for unknown flags or a threaded caller, EPERM."""
    known = CLONE.THREAD | CLONE.FS | CLONE.SIGHAND | CLONE.VM | CLONE.FILES | CLONE.SYSVSEM | _NAMESPACES
    if flags & ~known:
        raise OSError(EINVAL, "")
    if flags & (CLONE.THREAD | CLONE.SIGHAND | CLONE.VM) and len(task.group.tasks) > 1:
        raise OSError(EINVAL, "")
    _check(task, flags & _NAMESPACES)
    group = task.group
    if flags & CLONE.FILES:
        group.files = group.files.unshare(group)
    if flags & CLONE.FS:
        group.fs = group.fs.unshare()
    return 0
