"""Messages that the Supervisor receives, and its replies.

Tags 0x100 to 0x12F are what a sandbox's kernel tells it; from 0x130 on, what the processes of a sandbox tell it and
what clients (the command line, ``Sandbox`` objects) ask it over the control API.  A sandbox is named by *sandbox*, its
name.  Exit statuses of programs are wait statuses as wait4(2) encodes them; times are nanoseconds.
"""

from __future__ import annotations

from ..config.spec import Command, SandboxSpec
from .base import Done, Message, Mode, Record, message, record
from .task_set import ProcessRow

__all__ = [
    "CreateSandbox",
    "DescribeSandbox",
    "EndReport",
    "Execute",
    "GuestProcesses",
    "KillSandbox",
    "ListGuestProcesses",
    "ListSandboxes",
    "PauseSandbox",
    "ProcessEnded",
    "ProcessExited",
    "ProcessReady",
    "ProcessStarted",
    "RestoreSandbox",
    "ResumeSandbox",
    "SandboxCreated",
    "SandboxDescription",
    "SandboxExited",
    "SandboxList",
    "SandboxRow",
    "SandboxSaved",
    "SaveSandbox",
    "SignalProcess",
    "WaitProcess",
    "WaitSandbox",
]

# -- tells of a Kernel ------------------------------------------------------------------------------------------


@message(tag=0x101, receiver="supervisor", mode=Mode.TELL)
class ProcessExited(Message):
    """kernel -> supervisor, tell: a process that was created from outside has exited."""

    sandbox: str
    pid: int
    #: Wait status as wait4(2) encodes it.
    status: int
    user_ns: int
    system_ns: int
    max_rss_kib: int


@message(tag=0x102, receiver="supervisor", mode=Mode.TELL)
class SandboxExited(Message):
    """kernel -> supervisor, tell: no process is left; told once to the one that set the sandbox up."""

    sandbox: str
    #: For people: why it ended.
    reason: str
    #: Wait status of the first process, or what KillSandbox asked for.
    status: int
    #: It ended over a bug of ours or a lost process, not because the guest ended.
    failed: bool


# -- tells of the processes of a sandbox, and the control API -----------------------------------------------------


@message(tag=0x130, receiver="supervisor", mode=Mode.TELL)
class ProcessReady(Message):
    """process -> supervisor, tell: the inbox of this process of the sandbox is bound and its actors are started."""

    #: Its name in the placement: "kernel", "worker:0", "sandbox".
    process: str
    #: How it catches system calls, "" when it has no guests.
    platform: str


@message(tag=0x131, receiver="supervisor", mode=Mode.REPLY)
class SandboxCreated(Message):
    """supervisor -> client, reply: the sandbox runs under this name."""

    sandbox: str


@message(tag=0x132, receiver="supervisor", mode=Mode.ASK, reply=SandboxCreated)
class CreateSandbox(Message):
    """client -> supervisor, ask: make a sandbox. NameInUse, SpecError, SandboxFailed."""

    spec: SandboxSpec


@message(tag=0x133, receiver="supervisor", mode=Mode.REPLY)
class ProcessStarted(Message):
    """supervisor -> client, reply: the program runs."""

    #: Process id in the sandbox.
    pid: int


@message(tag=0x134, receiver="supervisor", mode=Mode.ASK, reply=ProcessStarted)
class Execute(Message):
    """client -> supervisor, ask: run a program. ExecError with execve(2)'s errno."""

    sandbox: str
    command: Command
    #: Names the descriptors that the client passed over the side socket; 0: all three on /dev/null.
    streams: int


@message(tag=0x135, receiver="supervisor", mode=Mode.REPLY)
class ProcessEnded(Message):
    """supervisor -> client, reply: the program has ended."""

    #: -1: it has not, and the client did not want to wait.
    status: int


@message(tag=0x136, receiver="supervisor", mode=Mode.ASK, reply=ProcessEnded)
class WaitProcess(Message):
    """client -> supervisor, ask: answered when a program started by Execute ends. SandboxEnded when it never can."""

    sandbox: str
    pid: int
    #: Otherwise answered at once, with status -1 while the program runs.
    block: bool


@message(tag=0x137, receiver="supervisor", mode=Mode.ASK, reply=Done)
class PauseSandbox(Message):
    """client -> supervisor, ask: answered when no task runs. Pauses nest."""

    sandbox: str


@message(tag=0x138, receiver="supervisor", mode=Mode.ASK, reply=Done)
class ResumeSandbox(Message):
    """client -> supervisor, ask: end one pause."""

    sandbox: str


@message(tag=0x139, receiver="supervisor", mode=Mode.ASK, reply=Done)
class KillSandbox(Message):
    """client -> supervisor, ask: end the sandbox; answered when none of its processes is left."""

    sandbox: str


@message(tag=0x13A, receiver="supervisor", mode=Mode.ASK, reply=Done)
class SignalProcess(Message):
    """client -> supervisor, ask: a signal from outside, as kill(2) takes *pid*. ProcessLookupFailed.

    *pid* 0 is the sandbox's main program.  With *foreground* the signal goes to the foreground process group of the
    terminal of *pid*'s session.
    """

    sandbox: str
    pid: int
    signo: int
    foreground: bool


@record
class SandboxRow(Record):
    """One sandbox as ``greenroom ps`` shows it."""

    sandbox: str
    #: "starting", "running", "paused", "saving", "ending" or "ended".
    state: str
    #: Host CLOCK_REALTIME of its creation.
    created_ns: int
    command: str
    #: Host process id of its supervisor.
    supervisor_pid: int
    #: How system calls are caught: "notify" or "ptrace"; "" while it starts.
    platform: str


@message(tag=0x13B, receiver="supervisor", mode=Mode.REPLY)
class SandboxList(Message):
    """supervisor -> client, reply: the sandboxes of this supervisor, oldest first."""

    rows: tuple[SandboxRow, ...]


@message(tag=0x13C, receiver="supervisor", mode=Mode.ASK, reply=SandboxList)
class ListSandboxes(Message):
    """client -> supervisor, ask: which sandboxes there are."""


@message(tag=0x13D, receiver="supervisor", mode=Mode.REPLY)
class SandboxDescription(Message):
    """supervisor -> client, reply: one sandbox in detail."""

    row: SandboxRow
    spec: SandboxSpec
    #: Host process ids by process name.
    host_pids: dict[str, int]
    #: Why it ended; "" while it runs.
    reason: str


@message(tag=0x13E, receiver="supervisor", mode=Mode.ASK, reply=SandboxDescription)
class DescribeSandbox(Message):
    """client -> supervisor, ask: for ``Sandbox.info``. SandboxNotFound."""

    sandbox: str


@message(tag=0x13F, receiver="supervisor", mode=Mode.REPLY)
class GuestProcesses(Message):
    """supervisor -> client, reply: the processes in a sandbox, by pid."""

    rows: tuple[ProcessRow, ...]


@message(tag=0x140, receiver="supervisor", mode=Mode.ASK, reply=GuestProcesses)
class ListGuestProcesses(Message):
    """client -> supervisor, ask: for ``Sandbox.ps``."""

    sandbox: str


@message(tag=0x141, receiver="supervisor", mode=Mode.REPLY)
class EndReport(Message):
    """supervisor -> client, reply: how a sandbox ended."""

    #: Wait status of its main program; -1 when it had none or did not end by itself.
    status: int
    #: "exited", "killed", "timeout", "saved" or "failed".
    cause: str
    #: For people: why; "" when it exited.
    reason: str


@message(tag=0x142, receiver="supervisor", mode=Mode.ASK, reply=EndReport)
class WaitSandbox(Message):
    """client -> supervisor, ask: answered when the sandbox has ended and nothing of it is left."""

    sandbox: str


@message(tag=0x143, receiver="supervisor", mode=Mode.REPLY)
class SandboxSaved(Message):
    """supervisor -> client, reply: the checkpoint file is complete."""

    path: str
    file_bytes: int
    duration_ns: int


@message(tag=0x144, receiver="supervisor", mode=Mode.ASK, reply=SandboxSaved)
class SaveSandbox(Message):
    """client -> supervisor, ask: write a checkpoint file. CheckpointError."""

    sandbox: str
    #: Absolute host path.
    path: str
    #: Otherwise the sandbox ends once the file is complete.
    leave_running: bool


@message(tag=0x145, receiver="supervisor", mode=Mode.ASK, reply=SandboxCreated)
class RestoreSandbox(Message):
    """client -> supervisor, ask: make a sandbox from a checkpoint file and let it run. CheckpointError, NameInUse."""

    #: Absolute host path.
    path: str
    #: "" for the name that it had when saved, or a new one when that is in use.
    name: str
    #: How system calls are caught from now on, one of PLATFORMS.
    platform: str
    #: Number of the streams that take the place of the host's (see ``Execute``); 0: /dev/null.
    streams: int = 0
