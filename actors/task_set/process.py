"""One process as TaskSet knows it: plain data, the table of its states, and its checks.

Linux counterpart: what struct signal_struct and task_struct hold under tasklist_lock.  A process's signals, memory
and descriptors are its ThreadGroup's.  Nothing here sends a message.
"""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import field
from typing import Final, NamedTuple

from ...messages.base import owned
from ..thread_group.siginfo import SIGCHLD

__all__ = ["INIT", "TRANSITIONS", "ForwardedRead", "Job", "ParkedWait", "Process", "ProcessState"]

#: Serial of init's thread group, which has no actor.
INIT: Final = 0


class ProcessState(enum.Enum):
    """Where a process is in its life."""

    EMBRYO = "embryo"  #: granted: its actor may not exist yet, so messages to it are held
    LIVE = "live"
    STOPPED = "stopped"  #: by job control
    ZOMBIE = "zombie"  #: its actor is gone; its status has not been collected
    REAPED = "reaped"

    #: By identity: Enum's own is a function in Python, which each birth and end would call several times.
    __hash__ = object.__hash__


_S = ProcessState

#: state -> states that may follow it.
TRANSITIONS: dict[ProcessState, frozenset[ProcessState]] = {
    _S.EMBRYO: frozenset({_S.LIVE, _S.REAPED}),
    _S.LIVE: frozenset({_S.STOPPED, _S.ZOMBIE}),
    _S.STOPPED: frozenset({_S.LIVE, _S.ZOMBIE}),
    _S.ZOMBIE: frozenset({_S.REAPED}),
    _S.REAPED: frozenset(),
}


class ParkedWait(NamedTuple):
    """A wait4(2) or waitid(2) that has not been answered."""

    tid: int
    petition: int
    id_type: int
    id: int
    options: int


class ForwardedRead(NamedTuple):
    """A read of /proc/PID/<name> that was passed on to the PID's group, which answers it unless it dies first."""

    target: int
    petition: int
    name: str


class Job(NamedTuple):
    """What ``thread_group.JobChanged`` says."""

    pgid: int
    sid: int
    terminal: int
    foreground: bool
    orphaned: bool


@owned
class Process:
    """A process, from its grant until it is reaped."""

    #: Serial of its thread group.
    group: int
    pid: int
    #: Serial of the parent, and the parent's thread that is the parent for __WNOTHREAD and PR_SET_PDEATHSIG.
    parent: int
    parent_tid: int
    pgid: int
    sid: int
    state: ProcessState = ProcessState.EMBRYO
    #: Living threads' ids.
    threads: set[int] = field(default_factory=set)
    #: Serials of the children, oldest first.
    children: dict[int, None] = field(default_factory=dict)
    session_leader: bool = False
    #: Device number of the controlling terminal, 0 for none.
    terminal: int = 0
    #: Real, effective and saved ids.
    uids: tuple[int, int, int] = (0, 0, 0)
    gids: tuple[int, int, int] = (0, 0, 0)
    command: str = ""
    nice: int = 0
    #: Made by the supervisor; its exit is reported to Kernel.
    outside: bool = False
    subreaper: bool = False
    #: SIGCHLD is ignored or SA_NOCLDWAIT: children leave no zombie.
    ignores_children: bool = False
    #: SA_NOCLDSTOP.
    no_stop_signal: bool = False
    #: Signal for the parent on exit, 0 for none.
    exit_signal: int = SIGCHLD
    #: How often it has exec'ed, how often its parent had when it was born, and whether it has since (PF_FORKNOEXEC).
    exec_count: int = 0
    parent_exec_count: int = 0
    executed: bool = False
    #: Job-control stop and continuation that no wait has reported yet.
    unreported_stop: int = 0
    unreported_continue: bool = False
    #: Wait status and resources of a zombie.
    status: int = 0
    user_ns: int = 0
    system_ns: int = 0
    max_rss_kib: int = 0
    start_ns: int = 0
    #: Resources of children that were waited for.
    children_user_ns: int = 0
    children_system_ns: int = 0
    children_max_rss_kib: int = 0
    #: Addresses of the workers whose pidfds wait for its exit.
    watchers: list[str] = field(default_factory=list)
    #: Epoch of the pause that it has been told, 0 for none.
    epoch: int = 0
    #: Of an embryo: the serial and the thread that fork.
    forker: int = INIT
    forker_tid: int = 0
    #: Its threads' parked waits, by tid, in the order of their coming.
    waits: dict[int, ParkedWait] = field(default_factory=dict)
    #: What its ThreadGroup knows of its job.
    told_job: Job | None = None

    @property
    def address(self) -> str:
        """Address of its actor."""
        return f"thread_group:{self.group}"

    @property
    def alive(self) -> bool:
        """It may run guest code: neither dead nor unborn."""
        return self.state in (ProcessState.LIVE, ProcessState.STOPPED)

    @property
    def dead(self) -> bool:
        """It has exited."""
        return self.state in (ProcessState.ZOMBIE, ProcessState.REAPED)

    def advance(self, old: ProcessState, new: ProcessState) -> None:
        """Go from *old* to *new*: the only writer of ``state``. AssertionError for an impossible step."""
        assert self.state is old, f"pid {self.pid} is {self.state.value}, not {old.value}"
        assert new in TRANSITIONS[old], f"pid {self.pid} cannot go from {old.value} to {new.value}"
        self.state = new

    def add_child_resources(self, child: Process) -> None:
        """Count a reaped child's resources, as wait does (RUSAGE_CHILDREN)."""
        self.children_user_ns += child.user_ns + child.children_user_ns
        self.children_system_ns += child.system_ns + child.children_system_ns
        self.children_max_rss_kib = max(self.children_max_rss_kib, child.max_rss_kib, child.children_max_rss_kib)

    def check(self) -> None:
        """Assert what must hold of this process by itself."""
        assert not self.dead or not self.children, "the dead have no children"
        assert not self.dead or not self.waits, "the dead do not wait"
        assert not self.dead or not self.threads, "the dead have no threads"
        assert self.dead or self.threads or self.group == INIT, "the living have a thread"
        assert self.state is not ProcessState.EMBRYO or not self.children, "the unborn have no children"
        assert not self.session_leader or self.sid == self.pid, "a session has its leader's id"
        assert not self.session_leader or self.pgid == self.pid, "a session's leader leads its process group"
        assert self.unreported_stop == 0 or self.state is ProcessState.STOPPED, "only the stopped report a stop"
        assert not self.unreported_continue or self.state is not ProcessState.STOPPED, "the stopped do not go on"
        assert set(self.waits) <= self.threads, "only living threads wait"


#: Names of Process's fields, in the order in which they are saved.
FIELDS: Final = tuple(f.name for f in dataclasses.fields(Process))
