"""Messages that Kernel receives, and its replies.

The supervisor drives a sandbox through them; TaskSet reports exits; thread groups send petitions (see
``task_set.py``) about what the whole sandbox shares: numbers, netlink ports, the system log, the host name, the CPU
clock ticker.

A kernel is used in this order: InitKernel or LoadFrom, CreateProcess, Start, then anything, and Destroy last.
"""

from __future__ import annotations

from .base import Done, Message, Mode, message
from .mount_namespace import MountSpec
from .task_set import ProcessArguments, ProcessList

__all__ = [
    "AllExited",
    "AllocatePort",
    "CpuTicker",
    "CreateProcess",
    "Destroy",
    "GetInfo",
    "InitKernel",
    "KernelInfo",
    "KillSandbox",
    "ListProcesses",
    "LoadFrom",
    "Pause",
    "ProcessExited",
    "ProcessMade",
    "ReadSyslog",
    "ReleasePort",
    "ReportFailure",
    "RequestNumber",
    "SaveTo",
    "Saved",
    "SendExternalSignal",
    "SetHostName",
    "Start",
    "StartProcess",
    "Unpause",
    "WaitExited",
    "WorkerDied",
]


# -- the supervisor's asks --------------------------------------------------------------------------------------


@message(tag=0x201, receiver="kernel", mode=Mode.ASK, reply=Done)
class InitKernel(Message):
    """supervisor -> kernel, ask: set up a new, empty sandbox. Refused over a missing argument, or the second time."""

    #: The sandbox's name at the supervisor; it comes back in every tell.
    sandbox: str
    hostname: str
    domainname: str
    mounts: tuple[MountSpec, ...]
    #: Worker processes, named worker:0 .. worker:<n-1>.
    workers: int
    #: CPUs that the guest sees.
    application_cores: int
    #: CPU features that the guest may use, by the names of /proc/cpuinfo.
    cpu_features: tuple[str, ...]
    #: What uname(2) shows.
    release: str
    version: str
    #: Soft limits by RLIMIT_* number, for every process created from outside.
    limits: dict[int, int]
    #: Processes and threads that may exist at once; 0: the default of config/limits.py.
    max_tasks: int


@message(tag=0x202, receiver="kernel", mode=Mode.REPLY)
class ProcessMade(Message):
    """kernel -> supervisor, reply: the process exists, loaded and stopped at its first instruction."""

    pid: int


@message(tag=0x203, receiver="kernel", mode=Mode.ASK, reply=ProcessMade)
class CreateProcess(Message):
    """supervisor -> kernel, ask: make a process. Refused for bad arguments; fails with execve(2)'s errnos.

    Before Start it waits for Start; afterwards (exec into a running sandbox) it waits for StartProcess.
    """

    arguments: ProcessArguments


@message(tag=0x204, receiver="kernel", mode=Mode.ASK, reply=Done)
class Start(Message):
    """supervisor -> kernel, ask: run every created process, or go on after LoadFrom. Refused the second time."""


@message(tag=0x205, receiver="kernel", mode=Mode.ASK, reply=Done)
class StartProcess(Message):
    """supervisor -> kernel, ask: run a process that was created after Start. ESRCH when there is none."""

    pid: int


@message(tag=0x206, receiver="kernel", mode=Mode.ASK, reply=Done)
class Pause(Message):
    """supervisor -> kernel, ask: stop every task and the clocks; counted. Answered when all have stopped."""


@message(tag=0x207, receiver="kernel", mode=Mode.ASK, reply=Done)
class Unpause(Message):
    """supervisor -> kernel, ask: undo one Pause; the last one lets the guest go on. Refused when there is none."""


@message(tag=0x208, receiver="kernel", mode=Mode.ASK, reply=Done)
class KillSandbox(Message):
    """supervisor -> kernel, ask: SIGKILL to every process; answered when all are gone."""

    #: Wait status that SandboxExited reports.
    status: int
    #: For people: why.
    reason: str


@message(tag=0x209, receiver="kernel", mode=Mode.ASK, reply=Done)
class SendExternalSignal(Message):
    """supervisor -> kernel, ask: as ``task_set.SendExternalSignal``."""

    pid: int
    signo: int
    foreground: bool


@message(tag=0x20A, receiver="kernel", mode=Mode.ASK, reply=ProcessList)
class ListProcesses(Message):
    """supervisor -> kernel, ask: for ``ps``."""


@message(tag=0x20B, receiver="kernel", mode=Mode.REPLY)
class KernelInfo(Message):
    """kernel -> supervisor, reply: the sandbox as a whole."""

    #: "new", "created", "running", "paused", "saving", "exited" or "destroyed".
    state: str
    #: Guest CLOCK_MONOTONIC.
    uptime_ns: int
    processes: int
    threads: int
    #: Pauses in force.
    pauses: int
    hostname: str
    application_cores: int
    #: Why it ended, "" while it has not.
    exit_reason: str
    exit_status: int


@message(tag=0x20C, receiver="kernel", mode=Mode.ASK, reply=KernelInfo)
class GetInfo(Message):
    """supervisor -> kernel, ask: state, uptime, counts."""


@message(tag=0x20D, receiver="kernel", mode=Mode.REPLY)
class Saved(Message):
    """kernel -> supervisor, reply: the small parts of a checkpoint, by name; the large ones are behind the tokens.

    Names: "kernel", "task_set", "worker:<n>", "group:<serial>", "mounts", "clocks", "cpu".
    """

    parts: dict[str, bytes]
    #: How long each step took, by its name, in ns.
    durations_ns: dict[str, int]


@message(tag=0x20E, receiver="kernel", mode=Mode.ASK, reply=Saved)
class SaveTo(Message):
    """supervisor -> kernel, ask: pause, collect all state, unpause. Requests that come meanwhile wait in order."""

    #: Descriptor for guest memory of each worker, by worker number.
    memory_tokens: tuple[int, ...]
    #: Descriptor for the data of files.
    files_token: int


@message(tag=0x20F, receiver="kernel", mode=Mode.ASK, reply=Done)
class LoadFrom(Message):
    """supervisor -> kernel, ask: the inverse of SaveTo on a fresh sandbox; Start lets it go on.

    Refused, before anything is changed, when a part is missing, a CPU feature is missing, or the host has fewer cores
    than the guest was shown.
    """

    sandbox: str
    parts: dict[str, bytes]
    memory_tokens: tuple[int, ...]
    files_token: int
    workers: int
    #: What this host offers.
    application_cores: int
    cpu_features: tuple[str, ...]
    #: Worker 0's tokens of what takes the place of the host's standard streams; -1 or missing: /dev/null.
    stdio: tuple[int, ...] = ()


@message(tag=0x210, receiver="kernel", mode=Mode.ASK, reply=Done)
class Destroy(Message):
    """supervisor -> kernel, ask: kill what lives and let go of everything; only GetInfo may be asked afterwards."""


@message(tag=0x211, receiver="kernel", mode=Mode.ASK, reply=Done)
class WaitExited(Message):
    """supervisor -> kernel, ask: tell me ``supervisor.SandboxExited`` too; at once if the sandbox has ended."""


@message(tag=0x218, receiver="kernel", mode=Mode.TELL)
class WorkerDied(Message):
    """supervisor -> kernel, tell: the process of worker:<worker> is gone; its guest processes died with it."""

    worker: int
    reason: str


@message(tag=0x219, receiver="kernel", mode=Mode.TELL)
class ReportFailure(Message):
    """any -> kernel, tell: an actor of this sandbox failed over a bug of ours: end the sandbox and say why."""

    address: str
    reason: str


# -- tells of TaskSet -------------------------------------------------------------------------------------------


@message(tag=0x220, receiver="kernel", mode=Mode.TELL)
class ProcessExited(Message):
    """task_set -> kernel, tell: a process that was created from outside has exited."""

    pid: int
    #: Wait status as wait4(2) encodes it.
    status: int
    user_ns: int
    system_ns: int
    max_rss_kib: int


@message(tag=0x221, receiver="kernel", mode=Mode.TELL)
class AllExited(Message):
    """task_set -> kernel, tell: no process is left but init."""


# -- tells of thread groups -------------------------------------------------------------------------------------


@message(tag=0x230, receiver="kernel", mode=Mode.TELL)
class CpuTicker(Message):
    """thread_group -> kernel, tell: begin or end telling me ``thread_group.CpuTick`` 100 times a second.

    For RLIMIT_CPU, ITIMER_PROF and ITIMER_VIRTUAL only. A group that exits ends it first.
    """

    needed: bool


@message(tag=0x231, receiver="kernel", mode=Mode.TELL)
class AllocatePort(Message):
    """thread_group -> kernel, petition: a netlink port; Answer.value is *hint* if that is free, else a negative port.

    Answer.errno is EADDRINUSE when none is free.
    """

    group: int
    tid: int
    petition: int
    protocol: int
    hint: int


@message(tag=0x232, receiver="kernel", mode=Mode.TELL)
class ReleasePort(Message):
    """thread_group -> kernel, tell: the socket that held the netlink port is gone."""

    protocol: int
    port: int


@message(tag=0x233, receiver="kernel", mode=Mode.TELL)
class RequestNumber(Message):
    """thread_group -> kernel, petition: Answer.value is a number of *kind* that nobody else has.

    *kind*: "unique_id" (never repeats), "inotify_cookie" (32 bits, never 0).
    """

    group: int
    tid: int
    petition: int
    kind: str


@message(tag=0x234, receiver="kernel", mode=Mode.TELL)
class ReadSyslog(Message):
    """thread_group -> kernel, petition: the system log for syslog(2) and /dev/kmsg; Answer.text."""

    group: int
    tid: int
    petition: int


@message(tag=0x235, receiver="kernel", mode=Mode.TELL)
class SetHostName(Message):
    """thread_group -> kernel, tell: sethostname(2) or setdomainname(2), permission checked by the sender.

    Every group is told ``thread_group.UtsChanged``.
    """

    name: str
    #: The domain name rather than the host name.
    domain: bool
