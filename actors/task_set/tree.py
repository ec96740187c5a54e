"""The process tree: every process, its indexes by number, and the way to each ThreadGroup.

Linux counterpart: the task list and the pid hash under tasklist_lock.  Owns processes, process groups, sessions,
terminals, the id allocator and what waits for unborn children; the other modules of this folder work on it.  Sends
what they post; a message to a child whose actor does not exist yet waits here, one to the dead is dropped.
"""

from __future__ import annotations

import collections
from errno import EAGAIN
from typing import TYPE_CHECKING

from ...config.limits import MAX_HELD_MESSAGES, MAX_TASKS, PID_MAX, REMEMBERED_BROADCASTS
from ...messages.base import owned
from ...messages.mount_namespace import ProcessGone, ProcessSeen, ThreadSeen
from ...messages.thread_group import Answer
from .pids import PidAllocator
from .process import INIT, ForwardedRead, Process, ProcessState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ...messages.base import Message
    from ...messages.thread_group import Signal

    Send = Callable[[str, Message], None]

__all__ = ["ProcessTree", "Terminal"]


@owned
class Terminal:
    """A controlling terminal: its session, and the process group in its foreground (0: none)."""

    session: int
    foreground: int


def _make_init() -> Process:
    init = Process(
        group=INIT, pid=1, parent=INIT, parent_tid=1, pgid=1, sid=1, session_leader=True, command="init", executed=True
    )
    # Whatever init adopts is reaped at once, as if it ignored SIGCHLD.
    init.ignores_children = True
    init.advance(ProcessState.EMBRYO, ProcessState.LIVE)
    return init


class ProcessTree:
    """What TaskSet owns."""

    def __init__(self, send: Send, workers: int, pid_max: int = PID_MAX) -> None:
        self._send = send
        self.workers = workers
        self.init = _make_init()
        #: Every process that is not reaped, by serial, oldest first.
        self.processes: dict[int, Process] = {INIT: self.init}
        #: By thread id; a process id leads to its process until that is reaped.
        self.by_tid: dict[int, Process] = {1: self.init}
        self.process_groups: dict[int, dict[int, Process]] = {1: {INIT: self.init}}
        self.sessions: dict[int, dict[int, Process]] = {1: {INIT: self.init}}
        #: By device number.
        self.terminals: dict[int, Terminal] = {}
        self.pids = PidAllocator(self._number_in_use, pid_max)
        self.max_tasks = MAX_TASKS
        #: Children that are being made by fork, by the serial and the thread of their forker.
        self.embryos: dict[tuple[int, int], Process] = {}
        #: Reads of /proc that were passed on, by the serial and the thread of their reader.
        self.reads: dict[tuple[int, int], ForwardedRead] = {}
        #: Messages for embryos, by serial.
        self.held: dict[int, list[Message]] = {}
        #: The stop in force, 0 for none.
        self.epoch = 0
        #: KillAll is in progress: no more births.
        self.dying = False
        self.lost_workers: set[int] = set()
        self.mount_namespace = ""
        self.root = 0
        #: Ids that workers were given in advance, with the serial that goes with each. Not saved: they are given anew.
        self.granted: dict[int, int] = {}
        #: How many signals each process was sent, by serial, and the last of them that went to many. Not saved.
        self.signals_sent: dict[int, int] = {}
        self.broadcasts: dict[int, collections.deque[tuple[int, Signal]]] = {}
        #: A signal that goes with the next message to its process, see ``signal_ahead``.
        self._ahead: tuple[Process, Signal] | None = None
        #: A stop is beginning or ending: whoever is in another epoch will be told.
        self.changing_epoch = False
        #: How many serials each worker has had.
        self.serial_counts = [0] * workers

    # -- who is there -------------------------------------------------------------------------------------------

    def guests(self) -> Iterator[Process]:
        """Every process but init, zombies included."""
        return (p for p in self.processes.values() if p.group != INIT)

    def alive(self) -> list[Process]:
        """Every process that has an actor."""
        return [p for p in self.guests() if p.alive]

    def parent_of(self, process: Process) -> Process:
        """Return the parent."""
        return self.processes[process.parent]

    def children_of(self, process: Process) -> list[Process]:
        """Return the children, oldest first."""
        return [self.processes[serial] for serial in process.children]

    def members(self, pgid: int) -> list[Process]:
        """Return the processes of a process group, oldest first."""
        return list(self.process_groups.get(pgid, {}).values())

    def _number_in_use(self, number: int) -> bool:
        return (
            number in self.by_tid or number in self.process_groups or number in self.sessions or number in self.granted
        )

    # -- numbers ------------------------------------------------------------------------------------------------

    def allocate_pid(self) -> int:
        """Return a free process or thread id. EAGAIN at the limits."""
        if len(self.by_tid) + len(self.granted) > self.max_tasks or self.dying:
            raise BlockingIOError(EAGAIN, "no more tasks")
        return self.pids.allocate()

    def allocate_serial(self, worker: int) -> int:
        """Return a serial whose remainder by the number of workers is *worker*."""
        self.serial_counts[worker] += 1
        return self.serial_counts[worker] * self.workers + worker

    def worker_of(self, process: Process) -> int:
        """Return the number of the worker in which *process* lives."""
        return process.group % self.workers

    # -- births, moves and deaths -------------------------------------------------------------------------------

    def add(self, process: Process) -> None:
        """Register a new process."""
        self.processes[process.group] = process
        self.processes[process.parent].children[process.group] = None
        self.index(process)

    def index(self, process: Process) -> None:
        """File a process under all its numbers."""
        if process.state is ProcessState.EMBRYO and process.forker != INIT:
            self.embryos[process.forker, process.forker_tid] = process
        self.by_tid[process.pid] = process
        for tid in process.threads:
            self.by_tid[tid] = process
        self.process_groups.setdefault(process.pgid, {})[process.group] = process
        self.sessions.setdefault(process.sid, {})[process.group] = process

    def remove(self, process: Process) -> None:
        """Forget a process; /proc does too."""
        if process.state is ProcessState.EMBRYO:
            self.embryos.pop((process.forker, process.forker_tid), None)
        process.advance(process.state, ProcessState.REAPED)
        del self.processes[process.group]
        for tid in {process.pid, *process.threads}:
            del self.by_tid[tid]
        del self.processes[process.parent].children[process.group]
        self.held.pop(process.group, None)
        self.signals_sent.pop(process.group, None)
        self.broadcasts.pop(process.group, None)
        self._leave(self.process_groups, process.pgid, process)
        self._leave(self.sessions, process.sid, process)
        self.tell_mounts(ProcessGone(pid=process.pid))

    @staticmethod
    def _leave(table: dict[int, dict[int, Process]], number: int, process: Process) -> None:
        members = table[number]
        del members[process.group]
        if not members:
            del table[number]

    def move(self, process: Process, pgid: int, sid: int) -> None:
        """Put a process into another process group and session; the oldest member stays first."""
        self._leave(self.process_groups, process.pgid, process)
        self._leave(self.sessions, process.sid, process)
        process.pgid, process.sid = pgid, sid
        self.process_groups.setdefault(pgid, {})[process.group] = process
        self.sessions.setdefault(sid, {})[process.group] = process

    def reparent(self, process: Process, parent: Process) -> None:
        """Give a process another parent."""
        del self.processes[process.parent].children[process.group]
        process.parent = parent.group
        process.parent_tid = min(parent.threads, default=parent.pid)
        parent.children[process.group] = None

    def drop_petitions(self, process: Process, *tids: int) -> None:
        """These threads of *process* are gone: nobody waits for their answers."""
        for tid in tids:
            process.waits.pop(tid, None)
            self.reads.pop((process.group, tid), None)

    def settle(self, process: Process) -> None:
        """An embryo's actor exists: send what waited for it."""
        if process.state is not ProcessState.EMBRYO:
            return
        process.advance(ProcessState.EMBRYO, ProcessState.LIVE)
        self.embryos.pop((process.forker, process.forker_tid), None)
        for message in self.held.pop(process.group, ()):
            self.post(process, message)

    # -- sending ------------------------------------------------------------------------------------------------

    def post(self, process: Process, message: Message) -> None:
        """Tell a process's actor; init hears nothing, an embryo later, the dead never."""
        if self._ahead is not None and self._ahead[0] is process:
            self.send_ahead()
        if process.state is ProcessState.EMBRYO:
            held = self.held.setdefault(process.group, [])
            assert len(held) < MAX_HELD_MESSAGES, "an embryo is born before so much is sent to it"
            held.append(message)
        elif process.alive and process.group != INIT and self.worker_of(process) not in self.lost_workers:
            self._send(process.address, message)

    def signal(self, process: Process, message: Signal, *, to_many: bool = False) -> None:
        """Send a signal, to this process alone or as one of many: then a child that it is just making gets it too."""
        count = self.signals_sent[process.group] = self.signals_sent.get(process.group, 0) + 1
        if to_many:
            broadcasts = self.broadcasts.get(process.group)
            if broadcasts is None:
                broadcasts = self.broadcasts[process.group] = collections.deque(maxlen=REMEMBERED_BROADCASTS)
            broadcasts.append((count, message))
        self.post(process, message)

    def signal_ahead(self, process: Process, message: Signal) -> None:
        """As ``signal``, but an answer that the process is told next takes it along; ``send_ahead`` ends the wait."""
        self.send_ahead()
        self.signals_sent[process.group] = self.signals_sent.get(process.group, 0) + 1
        self._ahead = process, message

    def send_ahead(self) -> None:
        """Nothing is told that the signal could go with."""
        if self._ahead is not None:
            (process, message), self._ahead = self._ahead, None
            self.post(process, message)

    def answer(
        self,
        process: Process,
        tid: int,
        petition: int,
        *,
        value: int = 0,
        errno: int = 0,
        extra: tuple[int, ...] = (),
        text: bytes = b"",
    ) -> None:
        """Answer a petition of thread *tid* of *process*."""
        signo, siginfo = 0, b""
        if self._ahead is not None and self._ahead[0] is process:
            signo, siginfo = self._ahead[1].signo, self._ahead[1].siginfo
            self._ahead = None
        self.post(
            process,
            Answer(
                tid=tid,
                petition=petition,
                value=value,
                errno=errno,
                extra=extra,
                text=text,
                signo=signo,
                siginfo=siginfo,
            ),
        )

    def tell_kernel(self, message: Message) -> None:
        """Tell Kernel."""
        self._send("kernel", message)

    def tell_worker(self, worker: str, message: Message) -> None:
        """Tell a Worker."""
        self._send(worker, message)

    def tell_mounts(self, message: Message) -> None:
        """Tell MountNamespace, once there is one."""
        if self.mount_namespace:
            self._send(self.mount_namespace, message)

    def show(self, process: Process) -> None:
        """Tell MountNamespace what /proc shows of *process*."""
        tids = tuple(sorted(process.threads)) or (process.pid,)
        self.tell_mounts(ProcessSeen(pid=process.pid, uid=process.uids[1], gid=process.gids[1], tids=tids))

    def show_thread(self, process: Process, tid: int, *, gone: bool = False) -> None:
        """Tell MountNamespace of a thread more or less: a message that does not grow with their number."""
        self.tell_mounts(ThreadSeen(pid=process.pid, tid=tid, gone=gone))

    # -- invariants ---------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Assert the invariants of the whole tree. Costs time in proportion to its size: for tests."""
        for serial, process in self.processes.items():
            process.check()
            self._check_links(serial, process)
        self._check_indexes()

    def _check_links(self, serial: int, process: Process) -> None:
        assert process.group == serial, "a process is filed under its serial"
        assert process.state is not ProcessState.REAPED, "the reaped are forgotten"
        assert process.parent in self.processes, "a parent exists"
        assert serial == INIT or not self.parent_of(process).dead, "a parent lives"
        assert serial == INIT or serial in self.parent_of(process).children, "a parent knows its child"
        assert self.by_tid.get(process.pid) is process, "a process id leads to its process"
        assert all(self.by_tid.get(tid) is process for tid in process.threads), "a thread id leads to its process"
        assert serial in self.process_groups.get(process.pgid, {}), "a process is in its process group"
        assert serial in self.sessions.get(process.sid, {}), "a process is in its session"
        for child in process.children:
            assert self.processes[child].parent == serial, "a child knows its parent"

    def _check_indexes(self) -> None:
        for tid, process in self.by_tid.items():
            assert tid == process.pid or tid in process.threads, "an id belongs to a thread or names the process"
            assert process.group in self.processes, "an id leads to a process that exists"
        for pgid, members in self.process_groups.items():
            assert members, "a process group has a member"
            assert all(p.pgid == pgid for p in members.values()), "a member has its process group's id"
            assert len({p.sid for p in members.values()}) == 1, "a process group lies in one session"
        for sid, members in self.sessions.items():
            assert members, "a session has a member"
            assert all(p.sid == sid for p in members.values()), "a member has its session's id"
        for number, terminal in self.terminals.items():
            assert any(p.terminal == number for p in self.processes.values()), "a controlling terminal controls someone"
            assert terminal.session in self.sessions, "a terminal's session exists"
        for (forker, tid), embryo in self.embryos.items():
            assert embryo.state is ProcessState.EMBRYO, "who is being made is an embryo"
            assert tid in self.processes[forker].threads, "an embryo's forker lives"
        for reader, tid in self.reads:
            assert tid in self.processes[reader].threads, "a reader lives"
        for serial in self.held:
            assert self.processes[serial].state is ProcessState.EMBRYO, "messages wait for embryos only"
