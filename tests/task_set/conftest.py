"""A stage for TaskSet: real actors on one node; Worker, ThreadGroups, MountNamespace and Kernel only listen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from greenroom.actors.runtime.actor import Actor, Ask, Promise, handlers_of, handles
from greenroom.actors.runtime.loop import Loop
from greenroom.actors.runtime.node import Node, Placement
from greenroom.actors.task_set import jobs
from greenroom.actors.task_set.actor import TaskSet
from greenroom.messages import task_set, thread_group
from greenroom.messages.base import Done, Message
from greenroom.messages.task_set import ProcessArguments

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

SIGCHLD = 17
P_ALL, P_PID, P_PGID = 0, 1, 2
WNOHANG, WUNTRACED, WEXITED, WCONTINUED, WNOWAIT = 1, 2, 4, 8, 0x0100_0000
WNOTHREAD, WALL, WCLONE = 0x2000_0000, 0x4000_0000, 0x8000_0000


def arguments(**changes: Any) -> ProcessArguments:
    """Return the arguments of /bin/prog, with *changes*."""
    fields: dict[str, Any] = {
        "filename": "/bin/prog",
        "argv": (b"prog",),
        "envv": (),
        "working_directory": "/",
        "uid": 0,
        "gid": 0,
        "groups": (),
        "stdio": (-1, -1, -1),
        "terminal": False,
        "limits": {},
    }
    return ProcessArguments(**{**fields, **changes})


class Listener(Actor):
    """Keeps every message that it is told."""

    def __init__(self, address: str, node: Node) -> None:
        super().__init__(address, node)
        self.heard: list[Message] = []

    def on_receive(self, message: Any) -> Any:
        self.heard.append(message)
        return super().on_receive(message) if type(message) in handlers_of(type(self)) else None

    def take(self, kind: type[Any]) -> list[Any]:
        """Return and forget the messages of one type."""
        taken = [m for m in self.heard if type(m) is kind]
        self.heard = [m for m in self.heard if type(m) is not kind]
        return taken


class FakeKernel(Listener):
    """Asks TaskSet what a test wants."""


class FakeMounts(Listener):
    """Hears of births and deaths."""


class FakeGroup(Listener):
    """A ThreadGroup: answers asks, tells what the test makes it tell."""

    petitions = 0
    #: Stops are answered when the test says so.
    slow = False
    stop_promise: Promise | None = None
    stop_epoch = 0

    def on_receive(self, message: Any) -> Any:
        """What comes with an answer is heard before it."""
        if type(message) is thread_group.Answer and message.signo:
            self.heard.append(thread_group.Signal(tid=0, signo=message.signo, siginfo=message.siginfo))
        return super().on_receive(message)

    @handles(thread_group.Execute)
    def execute(self, message: thread_group.Execute) -> Done:
        if message.arguments.filename == "/bin/missing":
            raise FileNotFoundError(2, "No such file or directory")
        return Done()

    @handles(thread_group.StartTasks)
    def start_tasks(self, _message: thread_group.StartTasks) -> Done:
        return Done()

    @handles(thread_group.StopTasks)
    def stop_tasks(self, message: thread_group.StopTasks) -> Any:
        self.stop_epoch = message.epoch
        if self.slow:
            self.stop_promise = Promise()
            return self.stop_promise
        return Done()

    @handles(thread_group.ResumeTasks)
    def resume_tasks(self, message: thread_group.ResumeTasks) -> Done:
        if self.stop_epoch == message.epoch:
            self.stop_epoch = 0
        return Done()

    @handles(thread_group.SaveGroup)
    def save(self, _message: thread_group.SaveGroup) -> thread_group.GroupState:
        return thread_group.GroupState(state=f"state of {self.address}".encode())

    @handles(thread_group.LoadGroup)
    def load(self, message: thread_group.LoadGroup) -> Done:
        self.stop_epoch = message.epoch
        return Done()


class FakeWorker(Listener):
    """Makes FakeGroups."""

    @handles(thread_group.CreateThreadGroup)
    def create(self, message: thread_group.CreateThreadGroup) -> Done:
        FakeGroup.start(f"thread_group:{message.group}", self.node)
        group = self.node.actor(f"thread_group:{message.group}")
        assert isinstance(group, FakeGroup)
        group.stop_epoch = message.epoch
        return Done()

    @handles(thread_group.BeginSave)
    def begin_save(self, _message: thread_group.BeginSave) -> Done:
        return Done()

    @handles(thread_group.SaveWorker)
    def save(self, _message: thread_group.SaveWorker) -> thread_group.WorkerState:
        return thread_group.WorkerState(state=f"state of {self.address}".encode())

    @handles(thread_group.LoadWorker)
    def load(self, _message: thread_group.LoadWorker) -> Done:
        return Done()


class CountingNode(Node):
    """Counts frames, so that a test knows when nothing is under way."""

    traffic = 0

    def send(self, *frame: Any) -> None:
        self.traffic += 1
        super().send(*frame)

    def deliver(self, frame: Any) -> None:
        self.traffic += 1
        super().deliver(frame)


class Stage:
    """TaskSet and its surroundings, and a process's deeds in one line each."""

    def __init__(self, node: CountingNode, workers: int) -> None:
        self.node = node
        self.kernel: FakeKernel = self.start(FakeKernel, "kernel")
        self.mounts: FakeMounts = self.start(FakeMounts, "mount_namespace:1")
        self.workers = [self.start(FakeWorker, f"worker:{n}") for n in range(workers)]
        self.task_set: TaskSet = self.start(TaskSet, "task_set", workers=workers)
        self.tree = self.task_set.tree

    def start(self, kind: type[Any], address: str, **options: Any) -> Any:
        kind.start(address, self.node, **options)
        return self.node.actor(address)

    def settle(self) -> None:
        """Turn the loop until nothing is under way, then check every invariant."""
        quiet = 0
        while quiet < 4:
            before = self.node.traffic
            self.node.loop.turn(0.0)
            idle = self.node.traffic == before and all(
                self.node.actor(address).actor_inbox.empty() for address in self.node.addresses()
            )
            quiet = quiet + 1 if idle else 0
        assert self.node.failures == []  # type: ignore[attr-defined]
        self.task_set.check()

    # -- Kernel -------------------------------------------------------------------------------------------------

    def ask(self, message: Message) -> Any:
        """Ask TaskSet as Kernel does; return the reply, raise what it raises."""
        outcome = self.begin_ask(message)
        self.settle()
        assert outcome, f"{type(message).__name__} is not answered"
        value, error = outcome[0]
        if error is not None:
            raise error
        return value

    def begin_ask(self, message: Message) -> list[tuple[Any, BaseException | None]]:
        """Ask, but do not wait; the list gets the outcome."""
        outcome: list[tuple[Any, BaseException | None]] = []

        def asking() -> Generator[Any, Any, Any]:
            return (yield Ask("task_set", message))

        self.kernel.drive(asking(), lambda value, error: outcome.append((value, error)))
        return outcome

    def init(self) -> None:
        self.ask(task_set.InitTaskSet(mount_namespace="mount_namespace:1", root=7, max_tasks=0))

    def create(self, **changes: Any) -> int:
        """Make a process from outside; return its pid."""
        return int(self.ask(task_set.CreateProcess(arguments=arguments(**changes))).pid)

    # -- processes ----------------------------------------------------------------------------------------------

    def group(self, pid: int) -> FakeGroup:
        group = self.node.actor(self.tree.by_tid[pid].address)
        assert isinstance(group, FakeGroup)
        return group

    def tell(self, pid: int, kind: type[Any], /, **fields: Any) -> None:
        """The group of *pid* tells TaskSet something."""
        group = self.group(pid)
        group.tell("task_set", kind(group=self.tree.by_tid[pid].group, **fields))
        self.settle()

    def petition(self, pid: int, kind: type[Any], /, *, tid: int = 0, **fields: Any) -> int:
        """The group of *pid* petitions; return the petition's number."""
        group = self.group(pid)
        group.petitions += 1
        self.tell(pid, kind, tid=tid or pid, petition=group.petitions, **fields)
        return group.petitions

    def answers(self, pid: int) -> list[thread_group.Answer]:
        return self.group(pid).take(thread_group.Answer)

    def call(self, pid: int, kind: type[Any], /, *, tid: int = 0, **fields: Any) -> thread_group.Answer:
        """Petition and return the answer, which must come at once."""
        group = self.group(pid)
        number = self.petition(pid, kind, tid=tid, **fields)
        (answer,) = group.take(thread_group.Answer)
        assert (answer.tid, answer.petition) == (tid or pid, number)
        return answer

    def fork(self, pid: int, *, exit_signal: int = SIGCHLD, clone_parent: bool = False, tid: int = 0) -> int:
        """Fork; return the child's pid."""
        child, serial = self.grant(pid, exit_signal=exit_signal, clone_parent=clone_parent, tid=tid)
        self.bear(pid, serial)
        return child

    def grant(
        self, pid: int, *, exit_signal: int = SIGCHLD, clone_parent: bool = False, tid: int = 0
    ) -> tuple[int, int]:
        """Petition for a child; return its pid and serial. Its actor does not exist yet."""
        fields = {"exit_signal": exit_signal, "clone_parent": clone_parent}
        answer = self.call(pid, task_set.RequestFork, tid=tid, **fields)
        assert answer.errno == 0
        return answer.value, answer.extra[0]

    def bear(self, pid: int, serial: int) -> FakeGroup:
        """Make the granted child's actor and say so."""
        child: FakeGroup = self.start(FakeGroup, f"thread_group:{serial}")
        child.stop_epoch = self.tree.processes[serial].epoch
        self.group(pid).tell("task_set", task_set.GroupBorn(group=serial))
        self.settle()
        return child

    def granted(self, worker: int = 0) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """A worker asks for ids; return those that it gets, and their serials."""
        self.workers[worker].tell("task_set", task_set.RequestIds(worker=worker))
        self.settle()
        (grant,) = self.workers[worker].take(thread_group.GrantIds)
        return grant.pids, grant.serials

    def forked(self, pid: int, child: int, serial: int, *, signals: int | None = None, pgid: int = 0) -> FakeGroup:
        """Fork under granted numbers: the forker has heard *signals* signals (None: all), its group is *pgid*."""
        parent = self.tree.by_tid[pid]
        job = jobs.job_of(self.tree, parent)
        made: FakeGroup = self.start(FakeGroup, f"thread_group:{serial}")
        made.stop_epoch = self.group(pid).stop_epoch if not self.group(pid).slow else 0
        fields = {
            "child": serial,
            "pid": child,
            "exit_signal": SIGCHLD,
            "epoch": made.stop_epoch,
            "signals": self.tree.signals_sent.get(parent.group, 0) if signals is None else signals,
            "pgid": pgid or job.pgid,
            "sid": job.sid,
            "terminal": job.terminal,
            "foreground": job.foreground,
            "orphaned": job.orphaned,
        }
        self.tell(pid, task_set.Forked, tid=pid, **fields)
        return made

    def thread(self, pid: int) -> int:
        return self.call(pid, task_set.RequestThread).value

    def exit(self, pid: int, status: int = 0, **times: int) -> None:
        """Exit; the actor ends as ThreadGroup does."""
        group = self.group(pid)
        fields = {"status": status, "user_ns": 0, "system_ns": 0, "max_rss_kib": 0, **times}
        group.tell("task_set", task_set.GroupExited(group=self.tree.by_tid[pid].group, **fields))
        group.stop()
        self.settle()

    def executed(self, pid: int, command: str = "other", *, tid: int = 0) -> None:
        self.tell(pid, task_set.Executed, command=command, old_tid=tid or pid)

    def stop(self, pid: int, signo: int = 19) -> None:
        self.tell(pid, task_set.GroupStopped, signo=signo)

    def cont(self, pid: int) -> None:
        self.tell(pid, task_set.GroupContinued)

    def wait(
        self, pid: int, id_type: int = P_ALL, number: int = 0, options: int = WEXITED, *, tid: int = 0
    ) -> thread_group.Answer:
        """A wait that is answered at once."""
        return self.call(pid, task_set.Wait, id_type=id_type, id=number, options=options, tid=tid)

    def park(self, pid: int, id_type: int = P_ALL, number: int = 0, options: int = WEXITED, *, tid: int = 0) -> int:
        """A wait that is not answered yet; return the petition's number."""
        petition = self.petition(pid, task_set.Wait, id_type=id_type, id=number, options=options, tid=tid)
        assert self.answers(pid) == []
        return petition

    def job(self, pid: int, operation: str, a: int = 0, b: int = 0, terminal: int = 0) -> thread_group.Answer:
        return self.call(pid, task_set.JobControl, operation=operation, a=a, b=b, terminal=terminal)

    def kill(self, pid: int, target: int, signo: int = 15, target_tid: int = 0) -> int:
        """kill(2) by *pid*; return the errno."""
        siginfo = signo.to_bytes(4, "little").ljust(128, b"\0")
        fields = {"pid": target, "target_tid": target_tid, "signo": signo, "siginfo": siginfo}
        return self.call(pid, task_set.Kill, **fields).errno

    def signals(self, pid: int) -> list[int]:
        """Return and forget the numbers of the signals that *pid* was sent."""
        return [m.signo for m in self.group(pid).take(thread_group.Signal)]

    def hear(self, pid: int, kind: type[Any]) -> list[Any]:
        return self.group(pid).take(kind)

    def become(self, pid: int, uid: int) -> None:
        self.tell(pid, task_set.CredentialsChanged, uids=(uid,) * 3, gids=(uid,) * 3)


def make_stage(workers: int = 1) -> Iterator[Stage]:
    failures: list[tuple[str, str]] = []
    placement = Placement({"sandbox": "inproc://sandbox"}, workers)
    with CountingNode("sandbox", Loop(), placement, on_failure=lambda *failure: failures.append(failure)) as node:
        node.failures = failures  # type: ignore[attr-defined]
        stage = Stage(node, workers)
        stage.init()
        yield stage


@pytest.fixture
def stage() -> Iterator[Stage]:
    """One worker, no process."""
    yield from make_stage()


@pytest.fixture
def wide_stage() -> Iterator[Stage]:
    """Three workers, no process."""
    yield from make_stage(3)


@pytest.fixture
def other_stage() -> Iterator[Any]:
    """Make further stages."""
    stages: list[Iterator[Stage]] = []

    def make(workers: int = 1) -> Stage:
        stages.append(make_stage(workers))
        return next(stages[-1])

    yield make
    for stage in stages:
        next(stage, None)
