"""A stage for Kernel: the real Kernel and Timekeeper, scripted TaskSet, MountNamespace and supervisor, a fake clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from greenroom.actors.kernel.actor import Kernel
from greenroom.actors.runtime.actor import Actor, Ask, Promise, handlers_of, handles
from greenroom.actors.runtime.loop import Loop
from greenroom.actors.runtime.node import Node, Placement
from greenroom.actors.timekeeper.actor import Timekeeper
from greenroom.messages import kernel, mount_namespace, task_set
from greenroom.messages.base import Done, Message
from greenroom.messages.task_set import ProcessArguments, ProcessRow

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

ROOT = mount_namespace.MountSpec(type="overlay", source="/", target="/", read_only=False, size_limit=0)


class OnePlace(Placement):
    """Every actor, the supervisor too, lives in this process."""

    def process_of(self, _address: str) -> str:
        return "sandbox"


class FakeHost:
    """A host whose clocks a test turns."""

    def __init__(self) -> None:
        #: Far ahead of the real clock, so that no timer of the loop fires by itself.
        self.monotonic = 1 << 60
        self.realtime = 90_000

    def monotonic_ns(self) -> int:
        return self.monotonic

    def realtime_ns(self) -> int:
        return self.realtime

    def pass_ns(self, ns: int) -> None:
        self.monotonic += ns
        self.realtime += ns


class Listener(Actor):
    """Keeps every message that it gets."""

    def __init__(self, address: str, node: Node) -> None:
        super().__init__(address, node)
        self.heard: list[Message] = []

    def on_receive(self, message: Any) -> Any:
        self.heard.append(message)
        return super().on_receive(message) if type(message) in handlers_of(type(self)) else None

    def take(self, kind: type[Any]) -> list[Any]:
        taken = [m for m in self.heard if type(m) is kind]
        self.heard = [m for m in self.heard if type(m) is not kind]
        return taken


class FakeTaskSet(Listener):
    """Answers as TaskSet does."""

    next_pid = 2
    #: Stops are answered when the test says so.
    slow = False
    promise: Promise | None = None
    #: Exits that KillAll causes, as (pid, status).
    living: dict[int, int]

    def __init__(self, address: str, node: Node) -> None:
        super().__init__(address, node)
        self.living = {}

    @handles(task_set.InitTaskSet)
    def init(self, _message: task_set.InitTaskSet) -> Done:
        return Done()

    @handles(task_set.CreateProcess)
    def create(self, message: task_set.CreateProcess) -> task_set.ProcessCreated:
        if message.arguments.filename == "/missing":
            raise FileNotFoundError(2, "No such file or directory")
        pid, self.next_pid = self.next_pid, self.next_pid + 1
        self.living[pid] = 9
        return task_set.ProcessCreated(group=pid, pid=pid)

    @handles(task_set.StartProcess)
    def start_process(self, message: task_set.StartProcess) -> Done:
        if message.pid not in self.living:
            raise ProcessLookupError(3, "no such process")
        return Done()

    @handles(task_set.StopAll)
    def stop_all(self, _message: task_set.StopAll) -> Any:
        if self.slow:
            self.promise = Promise()
            return self.promise
        return Done()

    @handles(task_set.ResumeAll)
    def resume_all(self, _message: task_set.ResumeAll) -> Done:
        return Done()

    @handles(task_set.KillAll)
    def kill_all(self, _message: task_set.KillAll) -> Done:
        for pid in list(self.living):
            self.exit(pid, 9)
        self.tell("kernel", kernel.AllExited())
        return Done()

    @handles(task_set.SendExternalSignal)
    def signal(self, _message: task_set.SendExternalSignal) -> Done:
        return Done()

    @handles(task_set.ListProcesses)
    def list_processes(self, _message: task_set.ListProcesses) -> task_set.ProcessList:
        rows = [
            ProcessRow(pid=pid, ppid=1, pgid=pid, sid=pid, state="R", threads=2, command="x")
            for pid in (1, *self.living)
        ]
        return task_set.ProcessList(rows=tuple(rows))

    @handles(task_set.SaveTasks)
    def save(self, _message: task_set.SaveTasks) -> task_set.TaskSetState:
        return task_set.TaskSetState(state=b"tree", groups={1: b"one", 4: b"four"}, workers={0: b"worker"})

    @handles(task_set.LoadTasks)
    def load(self, _message: task_set.LoadTasks) -> Done:
        return Done()

    def exit(self, pid: int, status: int) -> None:
        del self.living[pid]
        told = kernel.ProcessExited(pid=pid, status=status, user_ns=1, system_ns=2, max_rss_kib=3)
        self.tell("kernel", told)


class FakeMounts(Listener):
    """Answers as MountNamespace does."""

    @handles(mount_namespace.SetUpMounts)
    def set_up(self, _message: mount_namespace.SetUpMounts) -> mount_namespace.HandleOpened:
        return mount_namespace.HandleOpened(handle=7, path=b"/")

    @handles(mount_namespace.SaveMounts)
    def save(self, _message: mount_namespace.SaveMounts) -> mount_namespace.SavedState:
        return mount_namespace.SavedState(state=b"mounts")

    @handles(mount_namespace.LoadMounts)
    def load(self, _message: mount_namespace.LoadMounts) -> Done:
        return Done()


class Stage:
    """Kernel and its surroundings."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.host = FakeHost()
        self.timekeeper: Timekeeper = self.start(Timekeeper, "timekeeper", host=self.host)
        self.mounts: FakeMounts = self.start(FakeMounts, "mount_namespace:1")
        self.task_set: FakeTaskSet = self.start(FakeTaskSet, "task_set")
        self.worker: Listener = self.start(Listener, "worker:0")
        self.group: Listener = self.start(Listener, "thread_group:4")
        self.supervisor: Listener = self.start(Listener, "supervisor")
        self.kernel: Kernel = self.start(Kernel, "kernel", host=self.host)

    def start(self, kind: type[Any], address: str, **options: Any) -> Any:
        kind.start(address, self.node, **options)
        return self.node.actor(address)

    def settle(self) -> None:
        for _ in range(60):
            self.node.loop.turn(0.0)
        assert self.node.failures == []  # type: ignore[attr-defined]
        self.kernel.check()

    def begin_ask(self, message: Message) -> list[tuple[Any, BaseException | None]]:
        outcome: list[tuple[Any, BaseException | None]] = []

        def asking() -> Generator[Any, Any, Any]:
            return (yield Ask("kernel", message))

        self.supervisor.drive(asking(), lambda value, error: outcome.append((value, error)))
        return outcome

    def ask(self, message: Message) -> Any:
        outcome = self.begin_ask(message)
        self.settle()
        ((value, error),) = outcome
        if error is not None:
            raise error
        return value

    def init(self, **changes: Any) -> None:
        fields: dict[str, Any] = {
            "sandbox": "box",
            "hostname": "host",
            "domainname": "domain",
            "mounts": (ROOT,),
            "workers": 1,
            "application_cores": 2,
            "cpu_features": ("fpu", "avx"),
            "release": "6.18.0",
            "version": "#1",
            "limits": {7: 64},
            "max_tasks": 0,
        }
        self.ask(kernel.InitKernel(**{**fields, **changes}))

    def create(self, **changes: Any) -> int:
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
        made = self.ask(kernel.CreateProcess(arguments=ProcessArguments(**{**fields, **changes})))
        return int(made.pid)

    def run(self) -> int:
        """Set up, create a process and start it; return its pid."""
        self.init()
        pid = self.create()
        self.ask(kernel.Start())
        return pid

    def state(self) -> str:
        return str(self.ask(kernel.GetInfo()).state)

    def exit(self, pid: int, status: int = 0) -> None:
        """A process exits; with the last one TaskSet says so."""
        self.task_set.exit(pid, status)
        if not self.task_set.living:
            self.task_set.tell("kernel", kernel.AllExited())
        self.settle()

    def asked(self, kind: type[Any]) -> list[Any]:
        return self.task_set.take(kind)


def make_stage() -> Iterator[Stage]:
    failures: list[tuple[str, str]] = []
    placement = OnePlace({"sandbox": "inproc://sandbox"})
    with Node("sandbox", Loop(), placement, on_failure=lambda *failure: failures.append(failure)) as node:
        node.failures = failures  # type: ignore[attr-defined]
        yield Stage(node)


@pytest.fixture
def stage() -> Iterator[Stage]:
    """Nothing is set up."""
    yield from make_stage()


@pytest.fixture
def other_stage() -> Iterator[Stage]:
    """Another sandbox."""
    yield from make_stage()
