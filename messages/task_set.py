"""Messages that TaskSet receives, and its replies.

A thread group is named by *group*: a serial number of TaskSet that is never reused (process ids are).  The group's
actor has the address ``thread_group:<group>``.  A ThreadGroup may not ask upwards, so what needs an answer is a
*petition*: a tell that carries the waiting thread's id, answered by ``thread_group.Answer`` with the same numbers.
"""

from __future__ import annotations

from .base import Done, Message, Mode, Record, message, record
from .mount_namespace import Credentials

__all__ = [
    "CreateProcess",
    "Credentials",
    "ProcessCreated",
    "ProcessList",
    "ProcessRow",
    "UtsName",
]


@record
class UtsName(Record):
    """struct new_utsname, as uname(2) gives it."""

    sysname: str
    nodename: str
    release: str
    version: str
    machine: str
    domainname: str


@record
class ProcessArguments(Record):
    """What a process that comes from outside starts with."""

    #: Path of the program; looked up in PATH of *envv* when it has no slash.
    filename: str
    argv: tuple[bytes, ...]
    envv: tuple[bytes, ...]
    working_directory: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    #: Host descriptors for 0, 1, 2 by token (passed to the worker); -1: opened on /dev/null.
    stdio: tuple[int, ...]
    #: Descriptor 0 is a terminal which becomes the controlling terminal of a new session.
    terminal: bool
    #: Soft limits by RLIMIT_* number that differ from the defaults.
    limits: dict[int, int]
    #: What uname(2) shows; filled in by Kernel.
    uts: UtsName | None = None
    #: CPUs that the guest sees; filled in by Kernel.
    application_cores: int = 0
    #: Number of the worker to live in, with all descendants: the one to which the descriptors of *stdio* were given.
    worker: int = 0


@message(tag=0x301, receiver="task_set", mode=Mode.REPLY)
class ProcessCreated(Message):
    """task_set -> kernel, reply: a process exists, loaded and stopped at its first instruction."""

    group: int
    pid: int


@message(tag=0x302, receiver="task_set", mode=Mode.ASK, reply=ProcessCreated)
class CreateProcess(Message):
    """kernel -> task_set, ask: make a child of init that runs *arguments*. Fails with execve(2)'s errnos."""

    arguments: ProcessArguments


@message(tag=0x303, receiver="task_set", mode=Mode.ASK, reply=Done)
class StartProcess(Message):
    """kernel -> task_set, ask: let a created process run its first instruction."""

    pid: int


@message(tag=0x304, receiver="task_set", mode=Mode.ASK, reply=Done)
class StopAll(Message):
    """kernel -> task_set, ask: stop every task of every group; answered when all have stopped."""

    epoch: int


@message(tag=0x305, receiver="task_set", mode=Mode.ASK, reply=Done)
class ResumeAll(Message):
    """kernel -> task_set, ask: end the stop of *epoch*."""

    epoch: int


@message(tag=0x306, receiver="task_set", mode=Mode.ASK, reply=Done)
class KillAll(Message):
    """kernel -> task_set, ask: SIGKILL to every process; answered when every group is gone."""


@message(tag=0x307, receiver="task_set", mode=Mode.ASK, reply=Done)
class SendExternalSignal(Message):
    """kernel -> task_set, ask: a signal from outside. *pid* 0: every process; < 0: that process group; else a process.

    With *foreground* it goes to the foreground process group of the terminal of *pid*'s session (Ctrl-C).
    ESRCH when there is no such process, EINVAL for a bad signal number.
    """

    pid: int
    signo: int
    foreground: bool


@record
class ProcessRow(Record):
    """One process as ``ps`` shows it."""

    pid: int
    ppid: int
    pgid: int
    sid: int
    #: "R", "S", "T", "Z", as in /proc/PID/stat.
    state: str
    threads: int
    command: str


@message(tag=0x308, receiver="task_set", mode=Mode.REPLY)
class ProcessList(Message):
    """task_set -> kernel, reply: every process, by pid."""

    rows: tuple[ProcessRow, ...]


@message(tag=0x309, receiver="task_set", mode=Mode.ASK, reply=ProcessList)
class ListProcesses(Message):
    """kernel -> task_set, ask: for ``ps``."""


@message(tag=0x30A, receiver="task_set", mode=Mode.REPLY)
class TaskSetState(Message):
    """task_set -> kernel, reply: msgpack state of TaskSet, of each ThreadGroup by group serial, of each Worker."""

    state: bytes
    groups: dict[int, bytes]
    workers: dict[int, bytes]


@message(tag=0x30B, receiver="task_set", mode=Mode.ASK, reply=TaskSetState)
class SaveTasks(Message):
    """kernel -> task_set, ask: everything is stopped; collect all state.

    Memory is written to worker 0's *token*; *more_tokens* are those of the workers from 1 on.
    """

    token: int
    more_tokens: tuple[int, ...] = ()


@message(tag=0x30C, receiver="task_set", mode=Mode.ASK, reply=Done)
class LoadTasks(Message):
    """kernel -> task_set, ask: the inverse of SaveTasks, on a fresh TaskSet; all groups end up stopped in *epoch*."""

    state: bytes
    groups: dict[int, bytes]
    workers: dict[int, bytes]
    token: int
    epoch: int
    more_tokens: tuple[int, ...] = ()
    #: Worker 0's tokens of what takes the place of the host's standard streams; -1 or missing: /dev/null.
    stdio: tuple[int, ...] = ()


@message(tag=0x30D, receiver="task_set", mode=Mode.ASK, reply=Done)
class InitTaskSet(Message):
    """kernel -> task_set, ask: before the first process: where processes from outside find their files."""

    #: MountNamespace's address, and its handle on the root directory.
    mount_namespace: str
    root: int
    #: Processes and threads that may exist at once; 0: the default of config/limits.py.
    max_tasks: int


@message(tag=0x30E, receiver="task_set", mode=Mode.TELL)
class ChangeUts(Message):
    """kernel -> task_set, tell: the host or domain name changed; every group is told ``thread_group.UtsChanged``."""

    uts: UtsName


# -- tells of a ThreadGroup -------------------------------------------------------------------------------------


@message(tag=0x320, receiver="task_set", mode=Mode.TELL)
class RequestThread(Message):
    """thread_group -> task_set, petition: a thread id for clone(CLONE_THREAD); Answer.value is the tid (EAGAIN)."""

    group: int
    tid: int
    petition: int
    #: RLIMIT_NPROC of a caller who is bound by it; 0: no limit.
    process_limit: int = 0


@message(tag=0x321, receiver="task_set", mode=Mode.TELL)
class RequestFork(Message):
    """thread_group -> task_set, petition: register a child; Answer.value is its pid.

    Answer.extra is (its group serial, the epoch of the stop in force or 0: it is born stopped).  The child is
    registered, with the caller's group, session and credentials, before its first instruction runs.  The parent tells
    GroupBorn (or ForkFailed) in the handler that makes the child's actor; messages to the child wait here until then.
    """

    group: int
    tid: int
    petition: int
    #: Signal that the parent gets when the child exits (0: none); CLONE_PARENT makes it the caller's sibling.
    exit_signal: int
    clone_parent: bool
    #: RLIMIT_NPROC of a caller who is bound by it; 0: no limit.
    process_limit: int = 0


@message(tag=0x322, receiver="task_set", mode=Mode.TELL)
class ForkFailed(Message):
    """thread_group -> task_set, tell: the host refused the granted child; forget it without a trace."""

    group: int
    child: int


@message(tag=0x323, receiver="task_set", mode=Mode.TELL)
class ThreadExited(Message):
    """thread_group -> task_set, tell: a thread other than the last is gone; its tid is free (unless it leads)."""

    group: int
    tid: int


@message(tag=0x324, receiver="task_set", mode=Mode.TELL)
class GroupExited(Message):
    """thread_group -> task_set, tell: the last thread is gone; the process is a zombie (or vanishes) now."""

    group: int
    #: Wait status as wait4(2) encodes it.
    status: int
    user_ns: int
    system_ns: int
    max_rss_kib: int
    #: Guest CLOCK_BOOTTIME at which it started, for /proc/PID/stat of the zombie.
    start_ns: int = 0


@message(tag=0x325, receiver="task_set", mode=Mode.TELL)
class GroupStopped(Message):
    """thread_group -> task_set, tell: a job-control stop is complete; the parent may be told (CLD_STOPPED)."""

    group: int
    signo: int


@message(tag=0x326, receiver="task_set", mode=Mode.TELL)
class GroupContinued(Message):
    """thread_group -> task_set, tell: SIGCONT ended a job-control stop (CLD_CONTINUED)."""

    group: int


@message(tag=0x327, receiver="task_set", mode=Mode.TELL)
class Wait(Message):
    """thread_group -> task_set, petition: wait4(2), waitid(2).

    Answer.value is the pid (0 with WNOHANG when none), Answer.extra is (status, uid, user_ns, system_ns, max_rss_kib,
    si_code); Answer.errno ECHILD when no child matches.  Not answered while children live, but for WNOHANG, WaitCancel.
    """

    group: int
    tid: int
    petition: int
    #: P_ALL, P_PID, P_PGID.
    id_type: int
    id: int
    #: WNOHANG | WUNTRACED | WCONTINUED | WEXITED | WNOWAIT | __WALL | __WCLONE...
    options: int


@message(tag=0x328, receiver="task_set", mode=Mode.TELL)
class WaitCancel(Message):
    """thread_group -> task_set, tell: a signal interrupts this wait; answered with EINTR unless answered already."""

    group: int
    tid: int
    petition: int


@message(tag=0x329, receiver="task_set", mode=Mode.TELL)
class Kill(Message):
    """thread_group -> task_set, petition: kill(2), tgkill(2), rt_sigqueueinfo(2) beyond the own group.

    *pid* as in kill(2): > 0 a process, 0 the own process group, -1 everyone but init and the caller, < -1 a group.
    With *target_tid*, *pid* 0 is tkill(2): a thread of any process.  Answer.errno is ESRCH, EPERM or EINVAL.
    """

    group: int
    tid: int
    petition: int
    pid: int
    #: Thread of *pid* for tgkill, else 0.
    target_tid: int
    signo: int
    #: The 128-byte siginfo_t that the target will see.
    siginfo: bytes
    #: For a pidfd, the serial of the group that *pid* must still name; -1: whoever has *pid*.
    target_group: int = -1


@message(tag=0x32A, receiver="task_set", mode=Mode.TELL)
class JobControl(Message):
    """thread_group -> task_set, petition: setpgid(pid=a, pgid=b), getpgid(a), setsid, getsid(a), and tty job control.

    *operation*: "setpgid", "getpgid", "setsid", "getsid", "tty_get_pgrp", "tty_set_pgrp", "tty_get_sid",
    "tty_acquire" (TIOCSCTTY), "tty_release" (TIOCNOTTY).  *terminal* names the tty (its device number).
    tty_set_pgrp: *a* is the process group; the caller has raised SIGTTOU where that is due.  tty_get_pgrp, tty_get_sid:
    *b* 1 when asked through the master side.  tty_acquire: *a* is TIOCSCTTY's argument.
    Answer.value or Answer.errno as the call gives it.
    """

    group: int
    tid: int
    petition: int
    operation: str
    a: int
    b: int
    terminal: int


@message(tag=0x32B, receiver="task_set", mode=Mode.TELL)
class Executed(Message):
    """thread_group -> task_set, tell: execve succeeded; *command* is the new comm."""

    group: int
    command: str
    #: Caller of execve, which is now the leader: its old tid is free.
    old_tid: int


@message(tag=0x32C, receiver="task_set", mode=Mode.TELL)
class CredentialsChanged(Message):
    """thread_group -> task_set, tell: real, effective and saved ids, for permission checks of kill and for /proc."""

    group: int
    uids: tuple[int, ...]
    gids: tuple[int, ...]


@message(tag=0x32D, receiver="task_set", mode=Mode.TELL)
class ReadProc(Message):
    """thread_group -> task_set, petition: the text of /proc/PID/<name> of another process; Answer.text, or ESRCH."""

    group: int
    tid: int
    petition: int
    pid: int
    name: str


@message(tag=0x32E, receiver="task_set", mode=Mode.TELL)
class Subreaper(Message):
    """thread_group -> task_set, tell: prctl(PR_SET_CHILD_SUBREAPER)."""

    group: int
    enabled: bool


@message(tag=0x32F, receiver="task_set", mode=Mode.TELL)
class ChildDisposition(Message):
    """thread_group -> task_set, tell: SIGCHLD is ignored or SA_NOCLDWAIT/SA_NOCLDSTOP set: children leave no zombie."""

    group: int
    ignored: bool
    no_stop: bool


@message(tag=0x330, receiver="task_set", mode=Mode.TELL)
class WorkerLost(Message):
    """worker or kernel -> task_set, tell: a worker process died; its groups are gone as by SIGKILL."""

    worker: int


@message(tag=0x331, receiver="task_set", mode=Mode.TELL)
class CommandChanged(Message):
    """thread_group -> task_set, tell: prctl(PR_SET_NAME) of the leader changed comm."""

    group: int
    command: str


@message(tag=0x332, receiver="task_set", mode=Mode.TELL)
class QueryProcess(Message):
    """thread_group -> task_set, petition: an attribute of another process; Answer.value.

    *attribute*: "exists", "priority", "pidfd" (the serial of its group; Answer.extra is (1,) when it has exited).
    """

    group: int
    tid: int
    petition: int
    pid: int
    attribute: str


@message(tag=0x340, receiver="task_set", mode=Mode.TELL)
class GroupBorn(Message):
    """thread_group -> task_set, tell: the granted child *group* has its actor; messages to it may leave now."""

    group: int


@message(tag=0x341, receiver="task_set", mode=Mode.TELL)
class TerminalSignal(Message):
    """thread_group or worker -> task_set, tell: the line discipline signals the foreground (SIGINT, SIGWINCH...)."""

    terminal: int
    signo: int


@message(tag=0x342, receiver="task_set", mode=Mode.TELL)
class TerminalHangup(Message):
    """thread_group or worker -> task_set, tell: the master side closed: SIGHUP, SIGCONT to the session's leader."""

    terminal: int


@message(tag=0x343, receiver="task_set", mode=Mode.TELL)
class NiceChanged(Message):
    """thread_group -> task_set, tell: the leader's nice value (-20..19) changed, for QueryProcess "priority"."""

    group: int
    nice: int


@message(tag=0x344, receiver="task_set", mode=Mode.TELL)
class WatchExit(Message):
    """thread_group or worker -> task_set, tell: tell *worker*, whose pidfd names *group*, WatchedExited in time."""

    group: int
    worker: str


@message(tag=0x345, receiver="task_set", mode=Mode.TELL)
class RequestIds(Message):
    """worker -> task_set, tell: numbers for births to come, told back as ``thread_group.GrantIds``, maybe of none.

    Forks and clones that find such numbers ask nobody (Forked, ThreadBorn); the others petition.
    """

    #: The worker's number.
    worker: int


@message(tag=0x346, receiver="task_set", mode=Mode.TELL)
class ThreadBorn(Message):
    """thread_group -> task_set, tell: a thread was made under an id of GrantIds; it has not run yet."""

    group: int
    tid: int


@message(tag=0x347, receiver="task_set", mode=Mode.TELL)
class Forked(Message):
    """thread_group -> task_set, tell: a child was made under numbers of GrantIds and has its actor; it has not run yet.

    It has the forker's group, session and credentials as TaskSet knows them.  What the forker had not heard of when it
    forked (a signal to its process group, a stop, a change of its job) TaskSet now tells the child.
    """

    #: The forker, and its thread.
    group: int
    tid: int
    #: Serial and process id of the child.
    child: int
    pid: int
    exit_signal: int
    #: Epoch of the stop that the child was born in, 0 for none.
    epoch: int
    #: How many ``thread_group.Signal`` the forker had got.
    signals: int
    #: What the child knows of its job: as ``thread_group.JobChanged``.
    pgid: int
    sid: int
    terminal: int
    foreground: bool
    orphaned: bool
