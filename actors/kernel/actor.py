"""The Kernel actor: a sandbox as a whole.

Linux counterpart: init/main.c, kernel/reboot.c, the freezer; the reference is kernel.go of 2018, whose extMu
(nothing outside may change the kernel while it saves) is this actor's inbox: every handler that changes the sandbox
is exclusive.  Owns the life cycle, identity, shared numbers, netlink ports and the CPU clock ticker.  Asks TaskSet,
workers' clocks through Timekeeper, and MountNamespace; tells the supervisor ProcessExited and SandboxExited.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final

from ...config.logging import get_logger
from ...messages import kernel as messages
from ...messages import supervisor, task_set, timekeeper
from ...messages.mount_namespace import HostNameChanged, SetUpMounts
from ...messages.thread_group import Answer
from ..runtime.actor import Actor, ActorFailed, Ask, Refused, handles
from ..timekeeper.host import HostClock, SystemClock
from . import checkpoint, syslog
from .identity import CpuFeatures, Identity, Numbers, SupervisorContext
from .lifecycle import ExitError, Lifecycle, SandboxState
from .netlink_ports import PortManager
from .ticker import CpuClockTicker

if TYPE_CHECKING:
    from ..runtime.actor import Asking
    from ..runtime.node import Node

__all__ = ["Kernel"]

log = get_logger(__name__)

#: The one mount namespace of a sandbox.
MOUNT_NAMESPACE: Final = "mount_namespace:1"
SIGKILL: Final = 9


class Kernel(Actor):
    """One sandbox."""

    def __init__(self, address: str, node: Node, *, host: HostClock | None = None) -> None:
        super().__init__(address, node)
        self.host = host or SystemClock()
        self.lifecycle = Lifecycle()
        self.identity = Identity(sandbox="", hostname="", domainname="", release="", version="", limits={})
        self.cpu = CpuFeatures(frozenset(), 0)
        self.numbers = Numbers()
        self.ports = PortManager()
        self.ticker = CpuClockTicker(node.loop, self.host, self.tell)
        #: Who set the sandbox up, and who else wants to know of its end.
        self.supervisor = ""
        self.exit_subscribers: dict[str, None] = {}
        #: Processes that were created and wait for their first instruction.
        self.unstarted: dict[int, None] = {}
        #: Pid of the first process from outside (gVisor's global init; 0: none yet), and its wait status.
        self.global_init = 0
        self.exit_status = 0
        #: How it will have ended, once KillAll is through.
        self._ending: ExitError | None = None
        #: TaskSet has stopped everything and the clocks are frozen.
        self._stopped = False
        #: It came from a checkpoint: the stop in force lasts until Start.
        self._loaded = False
        self._root = 0

    # -- set-up -------------------------------------------------------------------------------------------------

    @handles(messages.InitKernel, exclusive=True)
    def init(self, message: messages.InitKernel) -> Asking:
        """Make an empty sandbox."""
        self.lifecycle.demand(SandboxState.NEW)
        _check_spec(message)
        self._know_supervisor()
        for number in range(message.workers):
            yield Ask("timekeeper", timekeeper.AddClockReader(address=f"worker:{number}"))
        yield Ask("timekeeper", timekeeper.AddClockReader(address=MOUNT_NAMESPACE))
        opened = yield Ask(MOUNT_NAMESPACE, SetUpMounts(mounts=message.mounts, hostname=message.hostname))
        self._root = opened.handle
        yield Ask(
            "task_set",
            task_set.InitTaskSet(mount_namespace=MOUNT_NAMESPACE, root=self._root, max_tasks=message.max_tasks),
        )
        self.identity = Identity(
            sandbox=message.sandbox,
            hostname=message.hostname,
            domainname=message.domainname,
            release=message.release,
            version=message.version,
            limits=dict(message.limits),
        )
        self.cpu = CpuFeatures(frozenset(message.cpu_features), message.application_cores)
        self.lifecycle.advance(SandboxState.NEW, SandboxState.CREATED)

    def _know_supervisor(self) -> None:
        self.supervisor = self.sender
        self.exit_subscribers[self.sender] = None

    def supervisor_context(self) -> SupervisorContext:
        """Return who acts when the supervisor does something inside."""
        return SupervisorContext(MOUNT_NAMESPACE, self._root, self.identity.namespaces)

    # -- processes ----------------------------------------------------------------------------------------------

    @handles(messages.CreateProcess, exclusive=True)
    def create_process(self, message: messages.CreateProcess) -> Asking:
        """Make a process, stopped at its first instruction."""
        if self.lifecycle.state is SandboxState.NEW:
            raise Refused("there is no mount namespace: set the sandbox up first")
        self.lifecycle.demand_alive()
        _check_arguments(message.arguments)
        arguments = dataclasses.replace(
            message.arguments,
            uts=self.identity.uts(),
            application_cores=self.cpu.cores,
            limits={**self.identity.limits, **message.arguments.limits},
        )
        created = yield Ask("task_set", task_set.CreateProcess(arguments=arguments))
        self.unstarted[created.pid] = None
        self.global_init = self.global_init or created.pid
        self.lifecycle.exit = None
        return messages.ProcessMade(pid=created.pid)

    @handles(messages.Start, exclusive=True)
    def start_sandbox(self, _message: messages.Start) -> Asking:
        """Let everything run that was created or loaded, once."""
        if self.lifecycle.started:
            raise Refused("already started")
        self.lifecycle.demand(SandboxState.CREATED, SandboxState.PAUSED)
        if not self.unstarted and not self._stopped:
            raise Refused("no tasks")
        self.lifecycle.started = True
        if self.lifecycle.state is SandboxState.CREATED:
            self.lifecycle.advance(SandboxState.CREATED, SandboxState.RUNNING)
            yield from self._resume()
        for pid in list(self.unstarted):
            yield from self._start_process(pid)

    @handles(messages.StartProcess, exclusive=True)
    def start_process(self, message: messages.StartProcess) -> Asking:
        """Let one process run that was created after Start."""
        if not self.lifecycle.started:
            raise Refused("not started")
        self.lifecycle.demand_alive()
        return self._start_process(message.pid)

    def _start_process(self, pid: int) -> Asking:
        self.unstarted.pop(pid, None)
        yield Ask("task_set", task_set.StartProcess(pid=pid))

    @handles(messages.SendExternalSignal, exclusive=True)
    def send_external_signal(self, message: messages.SendExternalSignal) -> Asking:
        """Signal a process, a process group or a terminal's foreground."""
        self.lifecycle.demand_alive()
        yield Ask(
            "task_set",
            task_set.SendExternalSignal(pid=message.pid, signo=message.signo, foreground=message.foreground),
        )

    @handles(messages.ListProcesses)
    def list_processes(self, _message: messages.ListProcesses) -> Asking:
        """For ps."""
        return (yield Ask("task_set", task_set.ListProcesses()))

    @handles(messages.GetInfo)
    def get_info(self, _message: messages.GetInfo) -> Asking:
        """The sandbox at a glance."""
        clocks = yield Ask("timekeeper", timekeeper.ReadClocks())
        processes = yield Ask("task_set", task_set.ListProcesses())
        rows = [row for row in processes.rows if row.pid != 1]
        end = self.lifecycle.exit
        return messages.KernelInfo(
            state=self.lifecycle.shown_state.value,
            uptime_ns=clocks.monotonic_ns,
            processes=len(rows),
            threads=sum(row.threads for row in rows),
            pauses=self.lifecycle.pauses,
            hostname=self.identity.hostname,
            application_cores=self.cpu.cores,
            exit_reason=end.reason if end else "",
            exit_status=end.status if end else 0,
        )

    # -- pauses -------------------------------------------------------------------------------------------------

    @handles(messages.Pause, exclusive=True)
    def pause(self, _message: messages.Pause) -> Asking:
        """Stop every task, then the clocks; counted."""
        self.lifecycle.demand_alive()
        yield from self._stop_guest()
        self.lifecycle.pauses += 1
        if self.lifecycle.pauses == 1:
            self.lifecycle.advance(self.lifecycle.state, SandboxState.PAUSED)

    @handles(messages.Unpause, exclusive=True)
    def unpause(self, _message: messages.Unpause) -> Asking:
        """Undo one pause."""
        self.lifecycle.demand_alive()
        if not self.lifecycle.pauses:
            raise Refused("not paused")
        self.lifecycle.pauses -= 1
        if self.lifecycle.pauses == 0:
            running = SandboxState.RUNNING if self.lifecycle.started else SandboxState.CREATED
            self.lifecycle.advance(SandboxState.PAUSED, running)
            yield from self._resume()

    def _stop_guest(self) -> Asking:
        """Stop every task, then the clocks and the ticker, unless they are."""
        if not self._stopped:
            self.lifecycle.epoch += 1
            yield Ask("task_set", task_set.StopAll(epoch=self.lifecycle.epoch))
            yield Ask("timekeeper", timekeeper.FreezeClocks())
            self.ticker.hold(held=True)
            self._stopped = True

    def _resume(self) -> Asking:
        """The inverse; a loaded sandbox stays stopped until its Start."""
        if self._stopped and not (self._loaded and not self.lifecycle.started):
            yield Ask("timekeeper", timekeeper.ThawClocks())
            yield Ask("task_set", task_set.ResumeAll(epoch=self.lifecycle.epoch))
            self.ticker.hold(held=False)
            self._stopped = False

    # -- the end ------------------------------------------------------------------------------------------------

    @handles(messages.KillSandbox, exclusive=True)
    def kill_sandbox(self, message: messages.KillSandbox) -> Asking:
        """SIGKILL to all, for good."""
        if self.lifecycle.state is not SandboxState.EXITED:
            self.lifecycle.demand_alive()
            yield from self._end(ExitError(message.reason, message.status, failed=False))

    @handles(messages.Destroy, exclusive=True)
    def destroy(self, _message: messages.Destroy) -> Asking:
        """Let go of everything."""
        state = self.lifecycle.state
        if state in (SandboxState.CREATED, SandboxState.RUNNING, SandboxState.PAUSED):
            yield Ask("task_set", task_set.KillAll())
            self._stopped = False
        self.ticker.stop()
        if state is not SandboxState.DESTROYED:
            self.lifecycle.advance(state, SandboxState.DESTROYED)

    @handles(messages.WorkerDied, exclusive=True)
    def worker_died(self, message: messages.WorkerDied) -> Asking:
        """A worker's processes died with it: the sandbox ends."""
        self.tell("task_set", task_set.WorkerLost(worker=message.worker))
        yield from self._fail(f"worker {message.worker} died: {message.reason}")

    @handles(messages.ReportFailure, exclusive=True)
    def report_failure(self, message: messages.ReportFailure) -> Asking:
        """An actor failed over a bug of ours: the sandbox ends and says so."""
        yield from self._fail(f"{message.address} failed: {message.reason}")

    def _fail(self, reason: str) -> Asking:
        log.error("sandbox failed", sandbox=self.identity.sandbox, reason=reason)
        if self.lifecycle.state in (SandboxState.EXITED, SandboxState.DESTROYED):
            return
        try:
            yield from self._end(ExitError(reason, SIGKILL, failed=True))
        except ActorFailed:
            self._ended(ExitError(reason, SIGKILL, failed=True))

    def _end(self, end: ExitError) -> Asking:
        """Kill everything; AllExited, which TaskSet tells after the last ProcessExited, finishes."""
        self._ending = end
        yield Ask("task_set", task_set.KillAll())
        if self._stopped:
            yield Ask("timekeeper", timekeeper.ThawClocks())
            self._stopped = False

    def _ended(self, end: ExitError) -> None:
        """No process is left: say so to whoever wants to know."""
        self.lifecycle.exit = end
        if self._ending is not None or end.failed:
            self.lifecycle.advance(self.lifecycle.state, SandboxState.EXITED)
        self.ticker.stop()
        for subscriber in self.exit_subscribers:
            self._tell_exit(subscriber, end)

    def _tell_exit(self, subscriber: str, end: ExitError) -> None:
        message = supervisor.SandboxExited(
            sandbox=self.identity.sandbox, reason=end.reason, status=end.status, failed=end.failed
        )
        self.tell(subscriber, message)

    @handles(messages.WaitExited)
    def wait_exited(self, _message: messages.WaitExited) -> None:
        """Subscribe to the end."""
        self.exit_subscribers[self.sender] = None
        if self.lifecycle.exit is not None:
            self._tell_exit(self.sender, self.lifecycle.exit)

    @handles(messages.ProcessExited)
    def process_exited(self, message: messages.ProcessExited) -> None:
        """A process from outside has exited."""
        self.unstarted.pop(message.pid, None)
        if message.pid == self.global_init:
            self.exit_status = message.status
        self.tell(
            self.supervisor,
            supervisor.ProcessExited(
                sandbox=self.identity.sandbox,
                pid=message.pid,
                status=message.status,
                user_ns=message.user_ns,
                system_ns=message.system_ns,
                max_rss_kib=message.max_rss_kib,
            ),
        )

    @handles(messages.AllExited)
    def all_exited(self, _message: messages.AllExited) -> None:
        """No process is left, unless one was created since this was sent."""
        if self._ending is None and self.unstarted:
            return
        if self.lifecycle.state not in (SandboxState.EXITED, SandboxState.DESTROYED):
            self._ended(self._ending or ExitError("every process has exited", self.exit_status, failed=False))

    # -- save and restore ---------------------------------------------------------------------------------------

    @handles(messages.SaveTo, exclusive=True)
    def save_to(self, message: messages.SaveTo) -> Asking:
        """Stop, collect all state, go on."""
        self.lifecycle.demand_alive()
        if not message.memory_tokens:
            raise Refused("a save needs a memory file for each worker")
        before, was_stopped = self.lifecycle.state, self._stopped
        watch = checkpoint.Stopwatch(self.host)
        yield from self._stop_guest()
        watch.lap("stop")
        self.lifecycle.advance(before, SandboxState.SAVING)
        try:
            parts = yield from checkpoint.collect(MOUNT_NAMESPACE, message, self._as_plain(), self.cpu, watch)
        finally:
            self.lifecycle.advance(SandboxState.SAVING, before)
            if not was_stopped:
                yield from self._resume()
        return messages.Saved(parts=parts, durations_ns=watch.durations_ns)

    @handles(messages.LoadFrom, exclusive=True)
    def load_from(self, message: messages.LoadFrom) -> Asking:
        """Become the sandbox that was saved; Start lets it go on."""
        self.lifecycle.demand(SandboxState.NEW)
        parts = checkpoint.unpack_parts(message)
        self._know_supervisor()
        self._from_plain(parts.kernel, message.sandbox)
        self.cpu = parts.cpu
        self.lifecycle.epoch += 1
        watch = checkpoint.Stopwatch(self.host)
        yield from checkpoint.restore(MOUNT_NAMESPACE, message, parts, self.lifecycle.epoch, watch)
        self.ticker.hold(held=True)
        self._stopped = self._loaded = True
        self.lifecycle.advance(SandboxState.NEW, SandboxState.CREATED)

    def _as_plain(self) -> dict[str, Any]:
        return {
            "identity": self.identity.as_plain(),
            "numbers": dataclasses.asdict(self.numbers),
            "ports": self.ports.as_plain(),
            "ticker": list(self.ticker.subscribers),
            "unstarted": list(self.unstarted),
            "global_init": self.global_init,
            "exit_status": self.exit_status,
            "epoch": self.lifecycle.epoch,
            "root": self._root,
        }

    def _from_plain(self, state: dict[str, Any], sandbox: str) -> None:
        self.identity = Identity(**{**state["identity"], "sandbox": sandbox})
        self.numbers = Numbers(**state["numbers"])
        self.ports.load(state["ports"])
        self.ticker.hold(held=True)
        for address in state["ticker"]:
            self.ticker.subscribe(address, needed=True)
        self.unstarted = dict.fromkeys(state["unstarted"])
        self.global_init, self.exit_status = state["global_init"], state["exit_status"]
        self.lifecycle.epoch = state["epoch"]
        self._root = state["root"]

    # -- what thread groups ask for -----------------------------------------------------------------------------

    @handles(messages.CpuTicker)
    def cpu_ticker(self, message: messages.CpuTicker) -> None:
        """A group begins or ends measuring CPU time."""
        self.ticker.subscribe(self.sender, needed=message.needed)

    @handles(messages.AllocatePort)
    def allocate_port(self, message: messages.AllocatePort) -> None:
        """A netlink socket wants a port."""
        try:
            port = self.ports.allocate(message.protocol, message.hint)
        except OSError as error:
            self._answer(message.group, message.tid, message.petition, errno=error.errno or 0)
        else:
            self._answer(message.group, message.tid, message.petition, value=port)

    @handles(messages.ReleasePort)
    def release_port(self, message: messages.ReleasePort) -> None:
        """A netlink socket is gone."""
        self.ports.release(message.protocol, message.port)

    @handles(messages.RequestNumber)
    def request_number(self, message: messages.RequestNumber) -> None:
        """A number that nobody else has."""
        unique = message.kind == "unique_id"
        value = self.numbers.unique_id() if unique else self.numbers.inotify_cookie()
        self._answer(message.group, message.tid, message.petition, value=value)

    @handles(messages.ReadSyslog)
    def read_syslog(self, message: messages.ReadSyslog) -> None:
        """dmesg(1)."""
        self._answer(message.group, message.tid, message.petition, text=syslog.make_log(self.identity.sandbox))

    @handles(messages.SetHostName)
    def set_host_name(self, message: messages.SetHostName) -> None:
        """sethostname(2), setdomainname(2)."""
        self.identity.rename(message.name, domain=message.domain)
        uts = self.identity.uts()
        self.tell("task_set", task_set.ChangeUts(uts=uts))
        self.tell(MOUNT_NAMESPACE, HostNameChanged(hostname=uts.nodename))

    def _answer(
        self, group: int, tid: int, petition: int, *, value: int = 0, errno: int = 0, text: bytes = b""
    ) -> None:
        answer = Answer(tid=tid, petition=petition, value=value, errno=errno, extra=(), text=text)
        self.tell(f"thread_group:{group}", answer)

    def check(self) -> None:
        """Assert the invariants."""
        self.lifecycle.check()
        paused = self.lifecycle.state is SandboxState.PAUSED
        assert not paused or self._stopped, "a paused sandbox is stopped"
        assert not self._stopped or not self.ticker.running, "no CPU time passes in a stop"


def _check_spec(message: messages.InitKernel) -> None:
    """Refuse an argument that is missing or impossible."""
    if not message.sandbox:
        raise Refused("the sandbox has no name")
    if not any(mount.target == "/" for mount in message.mounts):
        raise Refused("no mount is the root")
    if message.workers < 1:
        raise Refused("a sandbox needs a worker")
    if message.application_cores < 1:
        raise Refused("a guest needs a core")
    if message.max_tasks < 0:
        raise Refused("a number of tasks is not negative")


def _check_arguments(arguments: task_set.ProcessArguments) -> None:
    """Refuse what kernel.go's CreateProcess refuses."""
    if not arguments.working_directory.startswith("/"):
        raise Refused(f"the working directory {arguments.working_directory!r} is not an absolute path")
    if not arguments.filename and not arguments.argv:
        raise Refused("no filename or command")
