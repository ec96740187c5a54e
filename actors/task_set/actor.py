"""The TaskSet actor: message to function, nothing else.

Linux counterpart: the system calls that take tasklist_lock.  Owns the process tree (``tree.py``); each concern has
its module: births, exits, waits, signals, job control, terminals, stops, /proc, saves.  Asks workers and thread
groups; tells Kernel of exits and MountNamespace of births and deaths; every petition of a thread group is answered
exactly once, now or later.
"""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

from ...config.limits import MAX_TASKS, REMEMBERED_GROUPS
from ...config.logging import get_logger
from ...messages import task_set as messages
from ...messages.base import Done
from ...messages.kernel import AllExited
from ...messages.thread_group import UtsChanged
from ..runtime.actor import Actor, Promise, Refused, handles
from . import birth, exits, job_control, jobs, proc, signals, stop, terminals, wait
from .process import ProcessState
from .tree import ProcessTree

if TYPE_CHECKING:
    from ...messages.base import Message
    from ..runtime.actor import Asking
    from ..runtime.node import Node
    from .process import Process

__all__ = ["TaskSet"]

log = get_logger(__name__)


class TaskSet(Actor):
    """The process tree of one sandbox."""

    def __init__(self, address: str, node: Node, *, workers: int = 1) -> None:
        super().__init__(address, node)
        self.tree = ProcessTree(self._send, workers)
        #: KillAll in progress: resolved at the next exits.
        self._next_exit: Promise | None = None
        self._dead_groups: collections.deque[str] = collections.deque()

    def _send(self, receiver: str, message: Message) -> None:
        try:
            self.tell(receiver, message)
        except LookupError:
            log.warning("message to a lost process dropped", receiver=receiver, message=type(message).__name__)

    # -- Kernel's asks ------------------------------------------------------------------------------------------

    @handles(messages.InitTaskSet)
    def init(self, message: messages.InitTaskSet) -> None:
        """Learn where files are, and show init in /proc."""
        tree = self.tree
        if tree.mount_namespace:
            raise Refused("the task set has been set up already")
        tree.mount_namespace, tree.root = message.mount_namespace, message.root
        tree.max_tasks = message.max_tasks or MAX_TASKS
        tree.show(tree.init)

    @handles(messages.CreateProcess)
    def create_process(self, message: messages.CreateProcess) -> Asking:
        """Make a process from outside."""
        if not self.tree.mount_namespace:
            raise Refused("there is no mount namespace yet")
        return birth.create(self.tree, message)

    @handles(messages.StartProcess)
    def start_process(self, message: messages.StartProcess) -> Asking:
        """Run its first instruction."""
        return birth.start(self.tree, message)

    @handles(messages.StopAll)
    def stop_all(self, message: messages.StopAll) -> Asking:
        """Stop every group."""
        if message.epoch <= 0:
            raise Refused("a stop's epoch is positive")
        return stop.change_epoch(self.tree, message.epoch)

    @handles(messages.ResumeAll)
    def resume_all(self, message: messages.ResumeAll) -> Asking:
        """End the stop."""
        if message.epoch != self.tree.epoch:
            raise Refused(f"the stop in force is {self.tree.epoch}, not {message.epoch}")
        return stop.change_epoch(self.tree, 0)

    @handles(messages.KillAll)
    def kill_all(self, _message: messages.KillAll) -> Asking:
        """End every process; a stop in force ends too, for the dying must leave."""
        tree = self.tree
        tree.dying = True
        signals.kill_everyone(tree)
        yield from stop.change_epoch(tree, 0)
        if all(p.dead for p in tree.guests()):
            tree.tell_kernel(AllExited())
        while not all(p.dead for p in tree.guests()):
            self._next_exit = self._next_exit or Promise()
            yield self._next_exit
        tree.dying = False

    @handles(messages.SendExternalSignal)
    def send_external_signal(self, message: messages.SendExternalSignal) -> None:
        """A signal from the supervisor."""
        signals.send_external(self.tree, message)

    @handles(messages.ListProcesses)
    def list_processes(self, _message: messages.ListProcesses) -> messages.ProcessList:
        """For ps."""
        return proc.list_processes(self.tree)

    @handles(messages.SaveTasks)
    def save_tasks(self, message: messages.SaveTasks) -> Asking:
        """Collect all state."""
        from . import save  # for those who save

        return save.save(self.tree, message)

    @handles(messages.LoadTasks)
    def load_tasks(self, message: messages.LoadTasks) -> Asking:
        """Become what was saved."""
        from . import save

        return save.load(self.tree, message)

    @handles(messages.ChangeUts)
    def change_uts(self, message: messages.ChangeUts) -> None:
        """Every group learns the new host or domain name."""
        for process in self.tree.guests():
            self.tree.post(process, UtsChanged(uts=message.uts))

    @handles(messages.WorkerLost)
    def worker_lost(self, message: messages.WorkerLost) -> None:
        """A worker process died with its groups."""
        exits.worker_lost(self.tree, message.worker)
        self._exit_happened()

    # -- births and deaths of groups and threads ----------------------------------------------------------------

    @handles(messages.GroupBorn)
    def group_born(self, message: messages.GroupBorn) -> None:
        """A granted child has its actor."""
        self._living(message.group)

    @handles(messages.RequestFork)
    def request_fork(self, message: messages.RequestFork) -> None:
        """Grant a child."""
        if (caller := self._petitioner(message.group, message.tid)) is not None:
            birth.fork(self.tree, caller, message)

    @handles(messages.RequestThread)
    def request_thread(self, message: messages.RequestThread) -> None:
        """Grant a thread id."""
        if (caller := self._petitioner(message.group, message.tid)) is not None:
            birth.thread(self.tree, caller, message)

    @handles(messages.RequestIds)
    def request_ids(self, message: messages.RequestIds) -> None:
        """Grant ids in advance."""
        birth.grant(self.tree, message.worker)

    @handles(messages.Forked)
    def forked(self, message: messages.Forked) -> None:
        """A child was born under a granted id."""
        if (caller := self._living(message.group)) is not None:
            birth.forked(self.tree, caller, message)

    @handles(messages.ThreadBorn)
    def thread_born(self, message: messages.ThreadBorn) -> None:
        """A thread was."""
        if (caller := self._living(message.group)) is not None:
            birth.thread_born(self.tree, caller, message.tid)

    @handles(messages.ForkFailed)
    def fork_failed(self, message: messages.ForkFailed) -> None:
        """The host refused."""
        if (caller := self._living(message.group)) is not None:
            birth.fork_failed(self.tree, caller, message.child)

    @handles(messages.ThreadExited)
    def thread_exited(self, message: messages.ThreadExited) -> None:
        """A thread is gone."""
        if (process := self._living(message.group)) is not None:
            exits.thread_exited(self.tree, process, message.tid)

    @handles(messages.GroupExited)
    def group_exited(self, message: messages.GroupExited) -> None:
        """A process is gone."""
        if (process := self._living(message.group)) is not None:
            exits.group_exited(self.tree, process, message)
            self._forget_numbering(process)
            self._exit_happened()

    @handles(messages.WatchExit)
    def watch_exit(self, message: messages.WatchExit) -> None:
        """A pidfd waits for an exit."""
        exits.watch(self.tree, message)

    @handles(messages.Executed)
    def executed(self, message: messages.Executed) -> None:
        """A process runs another program."""
        if (process := self._living(message.group)) is not None:
            birth.executed(self.tree, process, message)

    # -- what a group tells of itself ---------------------------------------------------------------------------

    @handles(messages.GroupStopped)
    def group_stopped(self, message: messages.GroupStopped) -> None:
        """Job control has stopped it."""
        if (process := self._living(message.group)) is not None:
            exits.group_stopped(self.tree, process, message.signo)

    @handles(messages.GroupContinued)
    def group_continued(self, message: messages.GroupContinued) -> None:
        """It goes on."""
        if (process := self._living(message.group)) is not None:
            exits.group_continued(self.tree, process)

    @handles(messages.CredentialsChanged)
    def credentials_changed(self, message: messages.CredentialsChanged) -> None:
        """For the permission to kill, and the owner of /proc/PID."""
        if (process := self._living(message.group)) is not None:
            process.uids, process.gids = _three(message.uids), _three(message.gids)
            self.tree.show(process)

    @handles(messages.ChildDisposition)
    def child_disposition(self, message: messages.ChildDisposition) -> None:
        """Its SIGCHLD action changed."""
        if (process := self._living(message.group)) is not None:
            process.ignores_children, process.no_stop_signal = message.ignored, message.no_stop

    @handles(messages.Subreaper)
    def subreaper(self, message: messages.Subreaper) -> None:
        """It adopts the orphans below it, or no more."""
        if (process := self._living(message.group)) is not None:
            process.subreaper = message.enabled

    @handles(messages.CommandChanged)
    def command_changed(self, message: messages.CommandChanged) -> None:
        """Its leader's comm."""
        if (process := self._living(message.group)) is not None:
            process.command = message.command

    @handles(messages.NiceChanged)
    def nice_changed(self, message: messages.NiceChanged) -> None:
        """Its leader's nice value."""
        if (process := self._living(message.group)) is not None:
            process.nice = message.nice

    # -- petitions ----------------------------------------------------------------------------------------------

    @handles(messages.Wait)
    def wait(self, message: messages.Wait) -> None:
        """wait4(2), waitid(2)."""
        if (caller := self._petitioner(message.group, message.tid)) is not None:
            wait.begin(self.tree, caller, message)

    @handles(messages.WaitCancel)
    def wait_cancel(self, message: messages.WaitCancel) -> None:
        """A signal interrupts a wait."""
        if (caller := self._living(message.group)) is not None:
            wait.cancel(self.tree, caller, message)

    @handles(messages.Kill)
    def kill(self, message: messages.Kill) -> None:
        """kill(2) and relatives."""
        if (caller := self._petitioner(message.group, message.tid)) is not None:
            signals.kill(self.tree, caller, message)

    @handles(messages.JobControl)
    def job_control(self, message: messages.JobControl) -> None:
        """Process groups, sessions, terminals."""
        if (caller := self._petitioner(message.group, message.tid)) is not None:
            job_control.handle(self.tree, caller, message)

    @handles(messages.ReadProc)
    def read_proc(self, message: messages.ReadProc) -> None:
        """A file of another process in /proc."""
        if (caller := self._petitioner(message.group, message.tid)) is not None:
            proc.read(self.tree, caller, message)

    @handles(messages.QueryProcess)
    def query_process(self, message: messages.QueryProcess) -> None:
        """An attribute of another process."""
        if (caller := self._petitioner(message.group, message.tid)) is not None:
            proc.query(self.tree, caller, message)

    # -- terminals ----------------------------------------------------------------------------------------------

    @handles(messages.TerminalSignal)
    def terminal_signal(self, message: messages.TerminalSignal) -> None:
        """The line discipline signals the foreground."""
        terminals.signal_foreground(self.tree, message.terminal, message.signo)

    @handles(messages.TerminalHangup)
    def terminal_hangup(self, message: messages.TerminalHangup) -> None:
        """The master side closed."""
        terminals.hang_up(self.tree, message.terminal)

    # -- who speaks ---------------------------------------------------------------------------------------------

    def _living(self, group: int) -> Process | None:
        """Return the process of a group that speaks, which is proof of its birth; None for one that has died."""
        process = self.tree.processes.get(group)
        if process is None:
            return None
        if process.state is not ProcessState.LIVE:
            if process.dead:
                return None
            self.tree.settle(process)
        if process.epoch != self.tree.epoch and not self.tree.changing_epoch:
            for ask in stop.corrections(self.tree, [process]):
                self.ask(ask.receiver, ask.message, lambda _reply: None)
        return process

    def _petitioner(self, group: int, tid: int) -> Process | None:
        """Return who petitions. A thread that petitions anew waits for no earlier answer."""
        process = self._living(group)
        if process is not None:
            self.tree.reads.pop((group, tid), None)
        return process

    def _exit_happened(self) -> None:
        promise, self._next_exit = self._next_exit, None
        if promise is not None:
            promise.resolve(Done())

    def _forget_numbering(self, process: Process) -> None:
        """Let the node forget a dead group's frames, some deaths later, so that a straggler is not a gap."""
        self._dead_groups.append(process.address)
        if len(self._dead_groups) > REMEMBERED_GROUPS:
            address = self._dead_groups.popleft()
            if self.node.actor(address) is None:
                self.node.forget(address)

    def check(self) -> None:
        """Assert the invariants of the process tree."""
        self.tree.check()
        for process in self.tree.guests():
            if not process.dead:
                assert process.told_job == jobs.job_of(self.tree, process), "a group knows its job"


def _three(ids: tuple[int, ...]) -> tuple[int, int, int]:
    """Real, effective and saved id; a sender may add the file system's."""
    return ids[0], ids[1], ids[2]
