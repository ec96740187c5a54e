"""The ThreadGroup actor: messages and platform events to methods, nothing else.

Linux counterpart: struct signal_struct with its threads, and the entry and exit paths of the kernel
(arch/x86/entry/common.c, kernel/entry/common.c).  It owns one process: tasks, memory map, descriptor table, signals,
credentials, limits.  It asks MountNamespace about names and inodes; it tells TaskSet of births, deaths and petitions.
The life of one system call is in ``dispatch.py``; the families of calls are in the modules of ``families``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...messages import task_set as to_task_set
from ...messages import thread_group as mine
from ...messages.base import Done
from ..runtime.actor import Actor, Promise, handles
from . import dispatch, exec_, exits, proc_files, signals, timers
from .credentials import Credentials
from .limits import ResourceLimits
from .task import RunState

if TYPE_CHECKING:
    from ...messages.base import Message
    from ..runtime.actor import Asking
    from ..runtime.node import Node
    from .file_table import FileTable
    from .fs_context import FsContext
    from .memory import MemoryManager
    from .task import Task
    from .worker import Worker

__all__ = ["ThreadGroup"]


class ThreadGroup(Actor):
    """One guest process. Created by the Worker (first program) or by a fork of another ThreadGroup."""

    def __init__(
        self, address: str, node: Node, *, worker: Worker, group: int, pid: int, forker: ThreadGroup | None = None
    ) -> None:
        super().__init__(address, node)
        self.worker = worker
        #: TaskSet's serial number of this group, and the process id.
        self.group = group
        self.pid = pid
        self.ppid = 0
        self.pgid = 0
        self.sid = 0
        #: Device number of the controlling terminal, 0 for none.
        self.terminal = 0
        self.foreground = True
        self.orphaned = False
        self.tasks: dict[int, Task] = {}
        self.memory: MemoryManager = None  # type: ignore[assignment]  # set by the first execve or by fork
        self.files: FileTable = None  # type: ignore[assignment]
        self.fs: FsContext = None  # type: ignore[assignment]
        self.mount_namespace = ""
        #: A copy of the forker's, except for a first program.
        self.credentials: Credentials = Credentials.root() if forker is None else forker.credentials.copy()
        self.limits: ResourceLimits = ResourceLimits() if forker is None else forker.limits.copy()
        self.signals: signals.GroupSignals = signals.GroupSignals()
        self.timers = timers.GroupTimers(self)
        #: Absolute path and handle of the program, for /proc/PID/exe.
        self.executable = (b"", 0)
        #: -1000..1000, as the program or its parent wrote it to /proc/PID/oom_score_adj.
        self.oom_score_adj = 0
        #: Epoch of the stop in force (a pause), 0 for none, and who waits for it to be complete.
        self.stop_epoch = 0
        self._stop_promise: Promise | None = None
        #: Wait status once the group is exiting, else None.
        self.exit_status: int | None = None
        #: CPU time of dead threads and reaped children is kept by exits.py.
        self.times = exits.GroupTimes()
        self.start_ns = worker.clock.monotonic_ns()
        #: prctl's PR_SET_CHILD_SUBREAPER and PR_SET_DUMPABLE.
        self.subreaper = False
        self.dumpable = 1
        #: How many petitions it has sent, and how many signals TaskSet has sent it.
        self.petitions = 0
        self.signals_heard = 0

    # -- messages -----------------------------------------------------------------------------------------------

    @handles(mine.Execute)
    def execute(self, message: mine.Execute) -> Asking:
        """Load the first program."""
        if message.arguments.uts is not None:
            self.worker.uts = message.arguments.uts
            self.worker.application_cores = max(1, message.arguments.application_cores)
        return exec_.load_first_program(self, message.arguments)

    @handles(mine.StartTasks)
    def start_tasks(self, _message: mine.StartTasks) -> Done:
        """Run the first instruction."""
        for task in self.tasks.values():
            dispatch.start(task)
        return Done()

    @handles(mine.StopTasks)
    def stop_tasks(self, message: mine.StopTasks) -> Promise:
        """Hold every task; answered when none runs and none waits for an answer."""
        self.stop_epoch = message.epoch
        self._stop_promise = promise = Promise()
        for task in self.tasks.values():
            dispatch.interrupt(task)
        self.check_stopped()
        return promise

    @handles(mine.ResumeTasks)
    def resume_tasks(self, message: mine.ResumeTasks) -> Done:
        """Let the tasks of this epoch's stop go on."""
        if message.epoch == self.stop_epoch:
            dispatch.retry_held(self.worker)
            self.stop_epoch = 0
            for task in list(self.tasks.values()):
                dispatch.release(task)
        return Done()

    @handles(mine.Signal)
    def signal(self, message: mine.Signal) -> None:
        """Queue a signal that TaskSet has let through."""
        self.signals_heard += 1
        target = self.tasks.get(message.tid) if message.tid else None
        if message.tid == 0 or target is not None:
            signals.send(self, message.signo, message.siginfo, target)

    @handles(mine.Answer)
    def answer(self, message: mine.Answer) -> None:
        """Wake the task whose petition this answers; a late answer to a dead thread is dropped."""
        task = self.tasks.get(message.tid)
        if task is not None and task.petition != message.petition:
            task = None
        if task is not None:
            # First: then the signal does not cancel the petition.
            task.answer = message
        if message.signo:
            self.signals_heard += 1
            signals.send(self, message.signo, message.siginfo)
        if task is not None:
            dispatch.wake(task)

    @handles(mine.ReparentedTo)
    def reparented(self, message: mine.ReparentedTo) -> None:
        """The parent died, or a new one took over."""
        self.ppid = message.ppid
        if message.parent_died:
            exits.deliver_death_signal(self)

    @handles(mine.JobChanged)
    def job_changed(self, message: mine.JobChanged) -> None:
        """Process group, session, terminal or foreground changed; readers of the terminal look again."""
        self.pgid, self.sid, self.terminal = message.pgid, message.sid, message.terminal
        self.foreground, self.orphaned = message.foreground, message.orphaned
        self.worker.wake(("job", self.group))

    @handles(mine.LockReleased)
    def lock_released(self, message: mine.LockReleased) -> None:
        """A file lock may be free."""
        self.worker.wake(("lock", message.tid))

    @handles(mine.UtsChanged)
    def uts_changed(self, message: mine.UtsChanged) -> None:
        """Another process changed the host or domain name."""
        self.worker.uts = message.uts

    @handles(mine.ProcRequest)
    def proc_request(self, message: mine.ProcRequest) -> Asking:
        """Make the text of a /proc file for another process."""
        return proc_files.answer_request(self, message)

    @handles(mine.SaveGroup)
    def save_group(self, _message: mine.SaveGroup) -> mine.GroupState:
        """Give the whole state of this stopped process."""
        from . import save

        return save.save_group(self)

    @handles(mine.LoadGroup)
    def load_group(self, message: mine.LoadGroup) -> Done:
        """Become the process that was saved."""
        from . import save

        return save.load_group(self, message)

    # -- for the families of system calls -------------------------------------------------------------------------

    def tell_task_set(self, message: Message) -> None:
        """Tell the superior."""
        self.tell("task_set", message)

    def petition(self, task: Task, message: type[Message], fields: dict[str, Any]) -> None:
        """Send a petition for *task*, which is parked by the caller, to TaskSet or Kernel as *message* says."""
        self.petitions += 1
        task.petition = self.petitions
        task.petition_interrupted = False
        task.answer = None
        petition = message(group=self.group, tid=task.tid, petition=task.petition, **fields)  # type: ignore[call-arg]
        self.tell(message.RECEIVER, petition)

    def cancel_petition(self, task: Task) -> None:
        """A signal interrupts an interruptible petition: ask for its end, once, and go on waiting for the answer."""
        if not task.petition_interrupted and task.answer is None:
            task.petition_interrupted = True
            self.tell_task_set(to_task_set.WaitCancel(group=self.group, tid=task.tid, petition=task.petition))

    @property
    def leader(self) -> Task | None:
        """The thread whose id is the process id, or None once it has exited."""
        return self.tasks.get(self.pid)

    def check_stopped(self) -> None:
        """Answer a StopTasks when it is complete; report a job-control stop when that is."""
        if self.signals.stopped:
            signals.check_job_stop(self)
        promise = self._stop_promise
        if promise is not None and self.stop_epoch and all(map(dispatch.is_quiet, self.tasks.values())):
            self._stop_promise = None
            promise.resolve(Done())

    def gone(self) -> None:
        """The last task is dead: answer whoever waits for a stop, and leave the node."""
        promise, self._stop_promise = self._stop_promise, None
        if promise is not None:
            promise.resolve(Done())
        self.worker.groups.pop(self.group, None)
        self.stop()

    def check(self) -> None:
        """Assert the invariants of this group's state."""
        for tid, task in self.tasks.items():
            assert task.tid == tid, "a task is filed under its tid"
            assert task.group is self, "a task belongs to this group"
            assert (task.block is not None) == (task.state is RunState.BLOCKED), "only the blocked have a Block"
            assert task.state is not RunState.DEAD, "the dead are forgotten"
