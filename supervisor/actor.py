"""The Supervisor actor: one sandbox as seen from outside, from the making of its processes until nothing is left of it.

Every sandbox has a node of its own in the supervisor process, and on it this actor, at the address ``supervisor``: so a
fault in one sandbox's messages cannot touch another's.  What all sandboxes of the process share (the spawner, names,
the control API) is :class:`.host.Host`'s.

It owns: the sandbox's state, processes, exit statuses, time limit and directory.  It handles ProcessReady of the
sandbox's processes, ProcessExited and SandboxExited of its Kernel; it asks Kernel alone.  What clients want reaches it
through the Host as generators, carried out one after the other; ending the sandbox waits for none of them.

Linux counterpart: the parent that forks a container's init, with its pidfd and its cgroup.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
import select
import signal
import socket
import time
from typing import TYPE_CHECKING, Any

from ..actors.runtime.actor import Actor, ActorFailed, Ask, Refused, handles
from ..config.logging import LogSink
from ..config.spec import limit_numbers, parse_user
from ..messages import kernel
from ..messages.base import Done, Failed, Message
from ..messages.codec import Envelope, EnvelopeKind, MalformedFrame, decode, encode
from ..messages.supervisor import (
    CreateSandbox,
    EndReport,
    GuestProcesses,
    ProcessEnded,
    ProcessExited,
    ProcessReady,
    ProcessStarted,
    SandboxExited,
    SandboxSaved,
    SignalProcess,
)
from ..messages.task_set import ProcessArguments
from . import guest_machine
from .errors import (
    CheckpointError,
    ExecError,
    GreenroomError,
    ProcessLookupFailed,
    SandboxEnded,
    SandboxFailed,
    SpecError,
)
from .report import ReportPipe
from .runtime_directory import remove_tree
from .sandbox_process import encode_assignment
from .state import State, advance
from .terminal import TerminalHolder

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from ..actors.runtime.loop import Timer
    from ..actors.runtime.node import Node
    from ..config.spec import Command, SandboxSpec
    from .checkpoint import Checkpoint, CheckpointWriter
    from .host import Host
    from .spawner import Spawner

    #: A client's wish: a generator that yields asks to Kernel and returns the reply.
    Verb = Generator[Ask, Any, Message]

__all__ = ["Peers", "Supervisor", "close_all", "decode_spec", "process_arguments", "process_names", "set_up_request"]

#: Until traced processes, which get SIGTERM to write the end of the trace, get SIGKILL. Others get that at once.
_GRACE_WITH_TRACE_NS = 20_000_000_000
#: For the making of a sandbox's processes and the set-up of its kernel.
_START_LIMIT_NS = 60_000_000_000


def process_names(spec: SandboxSpec) -> tuple[str, ...]:
    """Return the names of the processes that *spec*'s placement asks for."""
    if spec.placement == "colocated":
        return ("sandbox",)
    return ("kernel", *(f"worker:{number}" for number in range(spec.workers)))


class _Process:
    """One process of the sandbox."""

    def __init__(self, report: ReportPipe) -> None:
        self.report = report
        self.pid = 0
        self.pidfd = -1
        self.ready = False
        #: The pidfd says that it has ended.
        self.dead = False
        #: Wait status, when the spawner has reaped it.
        self.status: int | None = None


class Supervisor(Actor):
    """One sandbox."""

    def __init__(
        self,
        address: str,
        node: Node,
        *,
        host: Host,
        spawner: Spawner,
        spec: SandboxSpec,
        directory: str,
        peers: Peers,
    ) -> None:
        super().__init__(address, node)
        self.spawner = spawner
        self.spec = spec
        self.state = State.STARTING
        self.created_ns = time.time_ns()
        self.command = ""
        self._host = host
        self._directory = directory
        self._peers = peers
        self._sink = LogSink(spec.log_json, spec.name)
        self._processes: dict[str, _Process] = {}
        #: Somebody waits for it: then its kernel is set up once every process is ready, and the caller is told.
        self._booting = False
        self._on_prepared: Callable[[], None] = lambda: None
        self._initialise: Callable[[], Verb] = self._init_kernel
        self._on_booted: Callable[[Message], None] = lambda _reply: None
        self._timers: list[Timer] = []
        self._verbs: collections.deque[tuple[Verb, Callable[[Message], None]]] = collections.deque()
        self._verb_runs = False
        self._started = False
        self.pauses = 0
        #: The first program: the sandbox ends with it when it was made for it alone.
        self.main_pid = 0
        self._ends_with_main = False
        self.statuses: dict[int, int] = {}
        #: How system calls are caught, once the workers have said.
        self.platform = ""
        self._holders: dict[int, TerminalHolder] = {}
        self._process_waiters: dict[int, list[Callable[[Message], None]]] = {}
        self._end_waiters: list[Callable[[Message], None]] = []
        self._cause, self._reason, self._status = "", "", -1
        self._spawner_lost = False

    # -- start --------------------------------------------------------------------------------------------------

    def show_warnings_on(self, stream: int) -> None:
        """Show people its warnings and errors on descriptor *stream*, now ours, instead of on standard error."""
        self._sink.people = open(stream, "w")  # noqa: SIM115  # the sink closes it

    def prepare(self, prepared: Callable[[], None]) -> None:
        """Make the processes of a sandbox that is nobody's yet; *prepared* is called when they are ready."""
        self._on_prepared = prepared
        self._after(_START_LIMIT_NS, self._check_start)
        self._make_processes()

    @property
    def prepared(self) -> bool:
        """Whether its processes live and are ready for a kernel to be set up in them."""
        return bool(self._processes) and all(process.ready for process in self._processes.values()) and self.starting

    @property
    def starting(self) -> bool:
        """Whether it has not been booted, and no process of it has died, read or unread."""
        return self.state is State.STARTING and not any(map(_is_dead, self._processes.values()))

    def assign(self, spec: SandboxSpec) -> None:
        """Give it its specification, which has the shape of the one that it was made with; :meth:`boot` follows."""
        self.spec = spec
        self.created_ns = time.time_ns()
        self._sink.sandbox = spec.name
        self._on_prepared = lambda: None

    def boot(self, booted: Callable[[Message], None], initialise: Callable[[], Verb] | None = None) -> None:
        """Make the processes, unless they are there, and set the kernel up; *booted* gets Done or Failed."""
        self._on_booted = booted
        self._initialise = initialise or self._init_kernel
        self._booting = True
        for timer in self._timers:
            timer.cancel()  # its preparation had a limit of its own
        self._after(_START_LIMIT_NS, self._check_start)
        if not self._processes:
            self._make_processes()
        elif self.prepared:
            self._set_up()

    def _make_processes(self) -> None:
        for name in process_names(self.spec):
            self._spawn(name)

    def _spawn(self, name: str) -> None:
        report = ReportPipe(self.node.loop, self._sink)
        process = self._processes[name] = _Process(report)
        peers = self._peers.of(name)
        config = encode_assignment(
            sandbox=self.spec.name,
            process=name,
            endpoints=self.node.placement.endpoints,
            workers=self.spec.workers if self.spec.placement == "split" else 1,
            platform=self.spec.platform,
            log_level=self.spec.log_level if self.spec.log_json else "warning",
            trace=self.spec.trace,
            peers=list(peers),
        )
        fds = [report.write_end, *(peer.fileno() for peer in peers.values())]
        entry = self._host.roles[name.partition(":")[0]]
        try:
            self.spawner.spawn(
                entry,
                config,
                fds,
                lambda pid, pidfd: self._on_spawned(name, process, pid, pidfd),
                lambda status: self._on_reaped(name, process, status),
            )
        except OSError as error:
            process.dead, process.status = True, 0
            self.end("failed", f"the spawner does not answer: {error.strerror}")
        report.close_write_end()
        for peer in peers.values():
            peer.close()

    def _on_spawned(self, name: str, process: _Process, pid: int, pidfd: int) -> None:
        if pid < 0:
            process.dead, process.status = True, 0
            self.end("failed", f"the host cannot fork the {name} process: {os.strerror(-pid)}")
            self._finish_if_gone()
            return
        process.pid, process.pidfd = pid, pidfd
        self.node.loop.watch(pidfd, select.EPOLLIN, lambda _mask: self._on_death(name, process))
        if self.state is State.ENDING:
            _signal(process, signal.SIGKILL)

    @handles(ProcessReady)
    def process_ready(self, message: ProcessReady) -> None:
        """One process is there; with the last one the kernel can be set up."""
        self._processes[message.process].ready = True
        self.platform = message.platform or self.platform
        if not self.prepared:
            return
        if self._booting:
            self._set_up()
        else:
            self.node.connect(self._kernel_process())
            self._on_prepared()

    def _set_up(self) -> None:
        self.drive(self._initialise(), self._booted)

    def _init_kernel(self) -> Verb:
        workers = len(self._processes) - 1 if self.spec.placement == "split" else 1
        yield Ask("kernel", set_up_request(self.spec, workers))
        return Done()

    def _booted(self, reply: Message | None, error: BaseException | None) -> None:
        if self.state is not State.STARTING:
            return  # ended meanwhile, which has answered
        if error is None and reply is not None:
            self._advance(State.RUNNING)
            self._on_booted(reply)
            if self.spec.timeout_ns:
                self._after(self.spec.timeout_ns, self._time_out)
        else:
            self.end("failed", str(error))

    def _check_start(self) -> None:
        if self.state is State.STARTING and (self._booting or not self.prepared):
            late = [name for name, process in self._processes.items() if not process.ready]
            self.end("failed", f"not started after {_START_LIMIT_NS // 10**9} s; not ready: {late or 'the kernel'}")

    def _time_out(self) -> None:
        self.end("timeout", f"its time limit of {self.spec.timeout_ns / 1e9:g} s has passed")

    def _after(self, delay_ns: int, callback: Callable[[], None]) -> None:
        self._timers.append(self.node.loop.call_at(time.monotonic_ns() + delay_ns, callback))

    def _advance(self, new: State) -> None:
        if self.state is State.STARTING:
            self.node.loop.call_soon(self._next_verb)
        self.state = advance(self.state, new)

    # -- what clients want --------------------------------------------------------------------------------------

    def submit(self, verb: Verb, answer: Callable[[Message], None]) -> None:
        """Carry *verb* out after the start and those before it; *answer* gets its reply, or a Failed."""
        self._verbs.append((verb, answer))
        self._next_verb()

    def _next_verb(self) -> None:
        if self._verb_runs or not self._verbs or self.state is State.STARTING:
            return
        verb, answer = self._verbs.popleft()
        self._verb_runs = True

        def finish(reply: Any, error: BaseException | None) -> None:
            self._verb_runs = False
            answer(reply if error is None else self._failed(error))
            self.node.loop.call_soon(self._next_verb)

        self.drive(verb, finish)

    def _failed(self, error: BaseException) -> Failed:
        """Return what a client is told about *error*; a bug of ours ends this sandbox."""
        if isinstance(error, ActorFailed) and self.state in (State.ENDING, State.ENDED):
            error = self._ended_error()
        if not isinstance(error, (OSError, Refused, GreenroomError, ActorFailed)):
            self.fail(error)
        number = error.errno or 0 if isinstance(error, OSError) else 0
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return Failed(errno=number, text=text, kind=type(error).__name__)

    def _ended_error(self) -> GreenroomError:
        text = f"sandbox {self.spec.name!r} has ended: {self._reason or self._cause}"
        return SandboxFailed(text) if self._cause == "failed" else SandboxEnded(text)

    def _check_alive(self) -> None:
        if self.state in (State.ENDING, State.ENDED):
            raise self._ended_error()

    def execute(self, command: Command, streams: Sequence[int], *, main: bool = False) -> Verb:
        """Run a program; *streams* are its three descriptors, now ours (or NULL_STREAM, CLOSED_STREAM)."""
        try:
            self._check_alive()
            arguments = process_arguments(command, ())
        except BaseException:
            close_all(streams)
            raise
        arguments = dataclasses.replace(arguments, stdio=self._give(streams))
        try:
            made = yield Ask("kernel", kernel.CreateProcess(arguments=arguments))
        except OSError as error:
            raise ExecError(error.errno, error.strerror) from None
        self.command = self.command or os.fsdecode(b" ".join(command.argv))
        self._ends_with_main = self._ends_with_main or main
        self.main_pid = self.main_pid or made.pid
        if self._started:
            yield Ask("kernel", kernel.StartProcess(pid=made.pid))
        else:
            self._started = True
            yield Ask("kernel", kernel.Start())
        return ProcessStarted(pid=made.pid)

    def _give(self, streams: Sequence[int]) -> tuple[int, ...]:
        """Pass descriptors to the worker; return their tokens. NULL_STREAM and CLOSED_STREAM travel as they are."""
        worker = self._worker_names()[0]
        left = list(streams)
        tokens: list[int] = []
        try:
            while left:
                fd = left.pop(0)
                tokens.append(self.node.descriptors.give(worker, fd) if fd >= 0 else fd)
        except OSError as error:
            raise SandboxFailed(f"the {worker} process takes no descriptors: {error.strerror}") from None
        finally:
            close_all(left)
        return tuple(tokens)

    def adopt_holder(self, holder: TerminalHolder, pid: int) -> None:
        """Pass the signals of the terminal that the program *pid* has to its foreground process group."""

        def report(signo: int) -> None:
            request = SignalProcess(sandbox=self.spec.name, pid=pid, signo=signo, foreground=True)
            self.submit(self.send_signal(request), _ignore_reply)

        if pid in self.statuses or self.state is State.ENDED:
            holder.close()
        else:
            self._holders[pid] = holder
            holder.report_to(report)

    def pause(self) -> Verb:
        """Stop every task; counted."""
        self._check_alive()
        yield Ask("kernel", kernel.Pause())
        self.pauses += 1
        if self.state is State.RUNNING:
            self._advance(State.PAUSED)
        return Done()

    def resume(self) -> Verb:
        """Undo one pause."""
        self._check_alive()
        yield Ask("kernel", kernel.Unpause())
        self.pauses -= 1
        if self.pauses == 0 and self.state is State.PAUSED:
            self._advance(State.RUNNING)
        return Done()

    def send_signal(self, request: SignalProcess) -> Verb:
        """Signal a process of the guest."""
        self._check_alive()
        pid = request.pid or self.main_pid
        signo, foreground = request.signo, request.foreground
        try:
            yield Ask("kernel", kernel.SendExternalSignal(pid=pid, signo=signo, foreground=foreground))
        except ProcessLookupError:
            raise ProcessLookupFailed(f"sandbox {self.spec.name!r} has no process {pid}") from None
        except ActorFailed:
            if self._cause != "exited":
                raise
            # The signal ended the program, and the sandbox with it, before the answer came.
        return Done()

    def save(self, path: str, *, leave_running: bool) -> Verb:
        """Write a checkpoint file."""
        from . import checkpoint  # with its compression and checksums, for those who save

        self._check_alive()
        if not self._started:
            raise CheckpointError(f"sandbox {self.spec.name!r} has run no program yet: there is nothing to save")
        begun = time.monotonic_ns()
        workers = self._worker_names()
        with checkpoint.CheckpointWriter(path, len(workers)) as writer:
            if not leave_running:
                # So that nothing happens twice: once here after the save, and again after the restore.
                yield Ask("kernel", kernel.Pause())
            try:
                size = yield from self._fill(writer, workers)
            except (OSError, Refused, CheckpointError) as error:
                if not leave_running:
                    yield Ask("kernel", kernel.Unpause())
                raise CheckpointError(f"sandbox {self.spec.name!r} is not saved and goes on: {error}") from None
        if not leave_running:
            self.end("saved", f"saved to {path}")
        return SandboxSaved(path=path, file_bytes=size, duration_ns=time.monotonic_ns() - begun)

    def _fill(self, writer: CheckpointWriter, workers: list[str]) -> Generator[Ask, Any, int]:
        """Have everybody write their parts; return the length of the file."""
        back, self.state = self.state, advance(self.state, State.SAVING)
        try:
            saved = yield Ask("kernel", self._save_request(writer, workers))
            return writer.finish(saved.parts, self._manifest(saved.durations_ns))
        finally:
            if self.state is State.SAVING:
                self._advance(back)

    def _worker_names(self) -> list[str]:
        return [name for name in self._processes if name != "kernel"]

    def _save_request(self, writer: CheckpointWriter, workers: list[str]) -> kernel.SaveTo:
        give = self.node.descriptors.give
        return kernel.SaveTo(
            memory_tokens=tuple(give(name, os.dup(fd)) for name, fd in zip(workers, writer.memory_fds, strict=True)),
            files_token=give(self._kernel_process(), os.dup(writer.files_fd)),
        )

    def _kernel_process(self) -> str:
        return "sandbox" if self.spec.placement == "colocated" else "kernel"

    def _manifest(self, durations_ns: dict[str, int]) -> dict[str, Any]:
        return {
            "spec": encode_spec(self.spec),
            "durations_ns": durations_ns,
            "command": self.command,
            "main_pid": self.main_pid,
            "ends_with_main": self._ends_with_main,
        }

    def load(self, checkpoint: Checkpoint, streams: Sequence[int]) -> Verb:
        """Instead of setting an empty kernel up: take the state of a verified checkpoint, and go on.

        *streams* (ours now) take the place of the standard streams that its programs were started with.
        """
        give, workers = self.node.descriptors.give, self._worker_names()
        with checkpoint:
            manifest, states = checkpoint.manifest, checkpoint.states()
            tokens = [give(name, fd) for name, fd in zip(workers, checkpoint.open_memory(), strict=True)]
            files = give(self._kernel_process(), checkpoint.open_files())
        stdio = self._give(streams)
        self.command = manifest["command"]
        self.main_pid, self._ends_with_main = manifest["main_pid"], manifest["ends_with_main"]
        yield Ask(
            "kernel",
            kernel.LoadFrom(
                sandbox=self.spec.name,
                parts=states,
                memory_tokens=tuple(tokens),
                files_token=files,
                workers=len(workers),
                application_cores=guest_machine.application_cores(),
                cpu_features=guest_machine.cpu_features(),
                stdio=stdio,
            ),
        )
        self._started = True
        yield Ask("kernel", kernel.Start())
        return Done()

    def list_processes(self) -> Verb:
        """Tell the processes of the guest."""
        self._check_alive()
        found = yield Ask("kernel", kernel.ListProcesses())
        return GuestProcesses(rows=found.rows)

    def wait_process(self, pid: int, answer: Callable[[Message], None], *, block: bool) -> None:
        """Answer when the program *pid* has ended; without *block* at once, with status -1 while it runs."""
        if pid in self.statuses or not block:
            answer(ProcessEnded(status=self.statuses.get(pid, -1)))
        elif self.state is State.ENDED:
            answer(self._unfinished())
        else:
            self._process_waiters.setdefault(pid, []).append(answer)

    def wait_end(self, answer: Callable[[Message], None]) -> None:
        """Answer when nothing of the sandbox is left."""
        if self.state is State.ENDED:
            answer(self.end_report)
        else:
            self._end_waiters.append(answer)

    @property
    def end_report(self) -> EndReport:
        """How it ended."""
        return EndReport(status=self._status, cause=self._cause, reason=self._reason)

    @property
    def host_pids(self) -> dict[str, int]:
        """Host process ids by process name."""
        return {name: process.pid for name, process in self._processes.items() if not process.dead}

    # -- what the kernel tells ----------------------------------------------------------------------------------

    @handles(ProcessExited)
    def process_exited(self, message: ProcessExited) -> None:
        """A program that came from outside has ended; the sandbox ends with its only one."""
        self.statuses[message.pid] = message.status
        if message.pid in self._holders:
            self._holders.pop(message.pid).close()
        for answer in self._process_waiters.pop(message.pid, ()):
            answer(ProcessEnded(status=message.status))
        if message.pid == self.main_pid and self._ends_with_main:
            self.end("exited", "", message.status)

    @handles(SandboxExited)
    def sandbox_exited(self, message: SandboxExited) -> None:
        """No process is left in the guest: that ends the sandbox only when it is over a failure."""
        if message.failed:
            self.end("failed", message.reason)

    # -- end ----------------------------------------------------------------------------------------------------

    def end(self, cause: str, reason: str, status: int = -1) -> None:
        """End the sandbox: *cause* as in EndReport. Only the first end counts."""
        if self.state in (State.ENDING, State.ENDED):
            return
        starting = self.state is State.STARTING
        self._cause, self._reason, self._status = cause, reason, status
        self._advance(State.ENDING)
        for timer in self._timers:
            timer.cancel()
        if starting:
            self._on_booted(self._failed(self._ended_error()))
        if self.spec.trace:
            for process in self._processes.values():
                _signal(process, signal.SIGTERM)
            self._after(_GRACE_WITH_TRACE_NS, self._kill_processes)
        else:
            self._kill_processes()
        self.node.loop.call_soon(self._finish_if_gone)

    def spawner_died(self) -> None:
        """Nobody reaps or reports any more; the processes die with the spawner, as their pidfds will tell."""
        self._spawner_lost = True
        self.end("failed", "its spawner process died")
        self._kill_processes()

    def _kill_processes(self) -> None:
        for process in self._processes.values():
            _signal(process, signal.SIGKILL)

    def _on_death(self, name: str, process: _Process) -> None:
        self.node.loop.unwatch(process.pidfd)
        process.dead = True
        process.report.close()
        self.end("failed", process.report.failure or f"its {name} process died")
        self.node.process_lost(name)
        self._finish_if_gone()

    def _on_reaped(self, name: str, process: _Process, status: int) -> None:
        process.status = status
        if self._cause == "failed" and self._reason == f"its {name} process died":
            self._reason += f" ({_how_ended(status)})"
        self._finish_if_gone()

    def _finish_if_gone(self) -> None:
        if self.state is not State.ENDING:
            return
        for process in self._processes.values():
            if not process.dead and not (self._spawner_lost and process.pid == 0):
                return
            # How it ended is part of the reason only of a failure; otherwise nobody waits until it has been reaped.
            if process.status is None and self._cause == "failed" and not self._spawner_lost:
                return
        self._finish()

    def _finish(self) -> None:
        self._advance(State.ENDED)
        for process in self._processes.values():
            process.report.close()
            if process.pidfd >= 0:
                os.close(process.pidfd)
        for timer in self._timers:
            timer.cancel()
        for holder in self._holders.values():
            holder.close()
        self._sink.close()
        self.node.loop.call_soon(self._leave)

    def _leave(self) -> None:
        """Let go of the node; a turn later, because messages of it may have brought us here.

        Whoever waits is answered first: no guest code runs any more, and the rest takes a millisecond.
        """
        self._host.sandbox_ended(self)
        for answers in self._process_waiters.values():
            for answer in answers:
                answer(self._unfinished())
        for answer in self._end_waiters:
            answer(self.end_report)
        self.stop()
        self.node.close()
        remove_tree(self._directory)

    def _unfinished(self) -> Message:
        """Answer a wait for a program that did not end before its sandbox did."""
        if self._cause == "failed":
            return self._failed(self._ended_error())
        return ProcessEnded(status=signal.SIGKILL)

    def fail(self, error: BaseException) -> None:
        """A bug of ours in this actor: the sandbox is ended, the supervisor and its other sandboxes go on."""
        self.end("failed", f"supervisor: {type(error).__name__}: {error}")
        super().fail(error)


def set_up_request(spec: SandboxSpec, workers: int) -> kernel.InitKernel:
    """Return what makes an empty sandbox of *spec* in processes that are ready."""
    return kernel.InitKernel(
        sandbox=spec.name,
        hostname=spec.hostname,
        domainname=guest_machine.DOMAIN_NAME,
        mounts=guest_machine.mount_table(spec),
        workers=workers,
        application_cores=guest_machine.application_cores(),
        cpu_features=guest_machine.cpu_features(),
        release=guest_machine.RELEASE,
        version=guest_machine.version_text(),
        limits=limit_numbers(spec.limits),
        max_tasks=0,
    )


def process_arguments(command: Command, stdio: tuple[int, ...]) -> ProcessArguments:
    """Return what creates *command*'s process with the streams *stdio* (tokens, or as in ``streams``). SpecError."""
    uid, gid, groups = parse_user(command.user)
    return ProcessArguments(
        filename=os.fsdecode(command.argv[0]),
        argv=command.argv,
        envv=command.envv,
        working_directory=command.cwd,
        uid=uid,
        gid=gid,
        groups=groups,
        stdio=stdio,
        terminal=command.terminal,
        limits=limit_numbers(command.limits),
    )


class Peers:
    """The descriptor sockets between each two processes of a sandbox, before they are handed out."""

    def __init__(self, names: Sequence[str]) -> None:
        """Make a socket pair for each two of *names*."""
        self._ends: dict[str, dict[str, socket.socket]] = {name: {} for name in names}
        for index, name in enumerate(names):
            for other in names[index + 1 :]:
                pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                self._ends[name][other], self._ends[other][name] = pair

    def of(self, name: str) -> dict[str, socket.socket]:
        """Return the ends that *name* gets, by peer."""
        return self._ends[name]


def encode_spec(spec: SandboxSpec) -> bytes:
    """Return *spec* as it lies in a checkpoint: in the frame of the message that would ask for such a sandbox."""
    return encode(Envelope(EnvelopeKind.ASK, 0, "client", "supervisor", 0, CreateSandbox(spec=spec)))


def decode_spec(frame: bytes) -> SandboxSpec:
    """Return the specification in a checkpoint. CheckpointError when this version cannot read it."""
    try:
        request = decode(frame).message
    except (MalformedFrame, SpecError) as error:
        raise CheckpointError(f"the checkpoint's specification is not readable: {error}") from None
    if not isinstance(request, CreateSandbox):
        raise CheckpointError("the checkpoint holds no specification")
    return request.spec


def close_all(fds: Sequence[int]) -> None:
    """Close those of *fds* that are descriptors."""
    for fd in fds:
        if fd >= 0:
            os.close(fd)


def _is_dead(process: _Process) -> bool:
    if process.dead or process.pidfd < 0:
        return process.dead  # without a pidfd the spawner's word is still on its way
    poll = select.poll()
    poll.register(process.pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _ignore_reply(_reply: Message) -> None:
    """A signal from a terminal goes to nobody, or the sandbox is ending: nobody waits for the answer."""


def _signal(process: _Process, signo: int) -> None:
    if process.pidfd >= 0 and not process.dead:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(process.pidfd, signo)


def _how_ended(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"killed by signal {os.WTERMSIG(status)}"
    return f"exit status {os.waitstatus_to_exitcode(status)}"
