"""Messages that a ThreadGroup and its Worker receive, and their replies.

A ThreadGroup actor is one guest process.  The Worker actor of each worker process creates ThreadGroups and owns what
they share there: the platform, open file descriptions, futexes on shared memory.
"""

from __future__ import annotations

from .base import Done, Message, Mode, message
from .task_set import ProcessArguments, UtsName

__all__ = ["Answer", "CreateThreadGroup", "LockReleased", "ReparentedTo", "Signal", "StopTasks"]


@message(tag=0x401, receiver="thread_group", mode=Mode.ASK, reply=Done)
class Execute(Message):
    """task_set -> thread_group, ask: load the first program of a new process. Fails with execve(2)'s errnos."""

    arguments: ProcessArguments


@message(tag=0x402, receiver="thread_group", mode=Mode.ASK, reply=Done)
class StartTasks(Message):
    """task_set -> thread_group, ask: run the first instruction."""


@message(tag=0x403, receiver="thread_group", mode=Mode.ASK, reply=Done)
class StopTasks(Message):
    """task_set -> thread_group, ask: stop every task; answered when none runs guest code or waits for an answer."""

    epoch: int


@message(tag=0x404, receiver="thread_group", mode=Mode.ASK, reply=Done)
class ResumeTasks(Message):
    """task_set -> thread_group, ask: end the stop; pending signals are looked at again."""

    epoch: int


@message(tag=0x405, receiver="thread_group", mode=Mode.TELL)
class Signal(Message):
    """task_set -> thread_group, tell: queue a signal to the group (tid 0) or one thread, as send_signal does.

    SIGKILL and SIGSTOP take effect at once. Permission was checked by TaskSet.
    """

    tid: int
    signo: int
    siginfo: bytes


@message(tag=0x406, receiver="thread_group", mode=Mode.TELL)
class Answer(Message):
    """task_set -> thread_group, tell: the answer to a petition of thread *tid*, and a signal that came with it.

    A child's end is mostly both, SIGCHLD and what the parent waits for.
    """

    tid: int
    petition: int
    value: int
    errno: int
    extra: tuple[int, ...]
    text: bytes
    #: 0, or as a ``Signal`` to the group that came before.
    signo: int = 0
    siginfo: bytes = b""


@message(tag=0x407, receiver="thread_group", mode=Mode.TELL)
class ReparentedTo(Message):
    """task_set -> thread_group, tell: getppid(2)'s answer changed. *death_signal*: deliver PR_SET_PDEATHSIG now."""

    ppid: int
    parent_died: bool


@message(tag=0x408, receiver="thread_group", mode=Mode.TELL)
class JobChanged(Message):
    """task_set -> thread_group, tell: process group, session or controlling terminal (0: none) changed."""

    pgid: int
    sid: int
    terminal: int
    #: This group is in the terminal's foreground (or has none): reads do not raise SIGTTIN.
    foreground: bool
    #: The process group is orphaned: SIGTSTP, SIGTTIN, SIGTTOU do not stop.
    orphaned: bool


@message(tag=0x409, receiver="thread_group", mode=Mode.TELL)
class LockReleased(Message):
    """mount_namespace -> thread_group, tell: a file lock that thread *tid* waits for may be free: try again."""

    tid: int


@message(tag=0x40A, receiver="thread_group", mode=Mode.TELL)
class ProcRequest(Message):
    """task_set -> thread_group, tell: make the text of /proc/self/<name> and tell it as Answer to the reader."""

    reader: int
    tid: int
    petition: int
    name: str


@message(tag=0x40B, receiver="thread_group", mode=Mode.REPLY)
class GroupState(Message):
    """thread_group -> task_set, reply: msgpack state of one process."""

    state: bytes


@message(tag=0x40C, receiver="thread_group", mode=Mode.ASK, reply=GroupState)
class SaveGroup(Message):
    """task_set -> thread_group, ask: state of a stopped process; memory goes to the worker's open checkpoint file."""


@message(tag=0x40D, receiver="thread_group", mode=Mode.ASK, reply=Done)
class LoadGroup(Message):
    """task_set -> thread_group, ask: the inverse of SaveGroup on a fresh, empty group; it ends up stopped."""

    state: bytes
    epoch: int


@message(tag=0x480, receiver="thread_group", mode=Mode.TELL)
class CpuTick(Message):
    """kernel -> thread_group, tell: the CPU clock ticker ran (100 Hz, to those that asked by ``kernel.CpuTicker``)."""

    #: Ticks since boot; more than one may have passed since the last message.
    count: int


@message(tag=0x481, receiver="thread_group", mode=Mode.TELL)
class UtsChanged(Message):
    """task_set -> thread_group, tell: another process changed the host or domain name."""

    uts: UtsName


@message(tag=0x501, receiver="worker", mode=Mode.ASK, reply=Done)
class CreateThreadGroup(Message):
    """task_set -> worker, ask: make the actor ``thread_group:<group>`` of a process that comes from outside."""

    group: int
    pid: int
    ppid: int
    pgid: int
    sid: int
    terminal: int
    #: MountNamespace's address, and its handle on the root directory.
    mount_namespace: str
    root: int
    #: The stop in force, 0 when none: the group is born stopped.
    epoch: int


@message(tag=0x502, receiver="worker", mode=Mode.TELL)
class ClockParameters(Message):
    """timekeeper -> worker, mount_namespace, tell: how to turn the host's clocks into the guest's; effective at once.

    guest CLOCK_MONOTONIC = host CLOCK_MONOTONIC + monotonic_offset_ns; guest CLOCK_REALTIME = host CLOCK_REALTIME +
    realtime_offset_ns.  While *frozen_at_ns* is not None (a pause), the guest's monotonic time stands at it.
    """

    monotonic_offset_ns: int
    realtime_offset_ns: int
    frozen_at_ns: int | None


@message(tag=0x503, receiver="worker", mode=Mode.ASK, reply=Done)
class BeginSave(Message):
    """task_set -> worker, ask: the checkpoint's memory file is *token*; open files are flushed and saved first."""

    token: int


@message(tag=0x504, receiver="worker", mode=Mode.REPLY)
class WorkerState(Message):
    """worker -> task_set, reply: open file descriptions, pipes with their contents, shared futexes: msgpack."""

    state: bytes


@message(tag=0x505, receiver="worker", mode=Mode.ASK, reply=WorkerState)
class SaveWorker(Message):
    """task_set -> worker, ask: the state that the worker's thread groups share."""


@message(tag=0x506, receiver="worker", mode=Mode.ASK, reply=Done)
class LoadWorker(Message):
    """task_set -> worker, ask: the inverse, on a worker of empty groups; *token*: the memory file, mapped privately."""

    state: bytes
    token: int
    #: Tokens of what takes the place of the host's standard streams; -1 or missing: /dev/null.
    stdio: tuple[int, ...] = ()


@message(tag=0x507, receiver="worker", mode=Mode.TELL)
class WatchedExited(Message):
    """task_set -> worker, tell: a process that a pidfd of this worker names has exited, or was gone already."""

    group: int


@message(tag=0x508, receiver="worker", mode=Mode.TELL)
class EventsReady(Message):
    """mount_namespace -> worker, tell: events wait for the inotify open file *file*; *serial* counts these messages."""

    file: int
    serial: int


@message(tag=0x509, receiver="worker", mode=Mode.TELL)
class FilesWatched(Message):
    """mount_namespace -> worker, tell: somebody watches these open files by now; *mask* as in Opened.watched."""

    handles: tuple[int, ...]
    mask: int


@message(tag=0x50B, receiver="worker", mode=Mode.TELL)
class LeasesEnded(Message):
    """mount_namespace -> worker, tell: what was granted does not hold any more; told before the change is answered."""

    #: Number of a lease: attributes of its inode, and every path and permission that was answered with it; 0 for none.
    lease: int
    #: A name that was missing and exists now, in whichever directory; b"" for none.
    name: bytes
    #: Every lease, and every name that was missing.
    everything: bool


@message(tag=0x50A, receiver="worker", mode=Mode.TELL)
class GrantIds(Message):
    """task_set -> worker, tell: numbers that are this worker's to give to new processes and threads, in this order."""

    #: Process or thread ids, and the serial of the thread group if it becomes a process.
    pids: tuple[int, ...]
    serials: tuple[int, ...]
