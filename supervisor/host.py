"""The host of sandboxes: what all sandboxes of one supervisor process share.

It owns the loop, the runtime directory, the spawner, the control sockets and the table of sandboxes, and answers
requests: those of other processes from the control API, those of its own process (``greenroom run``) by a call.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import zmq

from ..actors.runtime.descriptors import Descriptors
from ..actors.runtime.node import Node, Placement
from ..config.limits import MAX_ZMQ_SOCKETS
from ..messages import supervisor as messages
from ..messages.base import Done, Failed, Message
from . import sandbox_process
from .actor import Peers, Supervisor, close_all, decode_spec, process_names
from .control import ControlSocket, DescriptorSocket
from .errors import GreenroomError, NameInUse, SandboxEnded, SandboxFailed, SandboxNotFound
from .runtime_directory import live_supervisors
from .spawner import Spawner
from .state import State
from .stock import Shape, Stock
from .streams import NULL_STREAM
from .terminal import TerminalHolder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..actors.runtime.loop import Loop
    from ..config.spec import SandboxSpec
    from .actor import Verb
    from .checkpoint import Checkpoint
    from .runtime_directory import RuntimeDirectory

    Answer = Callable[[Message], None]

__all__ = ["Host"]

#: Milliseconds that answers which are on their way get when this process ends.
_LINGER_MS = 500
#: Ended sandboxes whose exit statuses are kept for those who ask late.
_MAX_ENDED = 1000


#: What answers a request, by its type.
_REQUESTS: dict[type[Message], Callable[..., None]] = {}

_F = TypeVar("_F", bound="Callable[..., None]")


def _answers(request: type[Message]) -> Callable[[_F], _F]:
    """Register a method of Host as what answers *request*."""

    def register(method: _F) -> _F:
        _REQUESTS[request] = method
        return method

    return register


class _Ended(NamedTuple):
    """What is kept of a sandbox that has ended."""

    report: messages.EndReport
    description: messages.SandboxDescription
    statuses: dict[int, int]


class Host:
    """The sandboxes of this process."""

    def __init__(
        self,
        loop: Loop,
        directory: RuntimeDirectory,
        spawner: Spawner,
        roles: Mapping[str, str] = sandbox_process.ROLES,
        stock_limit: int = 0,
    ) -> None:
        """*roles* maps kinds of processes to their entry points; *stock_limit* sandboxes are prepared at most."""
        self.loop = loop
        self.directory = directory
        self.spawner = spawner
        self.roles = roles
        self.sandboxes: dict[str, Supervisor] = {}
        self._ended: collections.OrderedDict[str, _Ended] = collections.OrderedDict()
        self._count = 0
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, MAX_ZMQ_SOCKETS)
        self.descriptors = DescriptorSocket(loop, directory)
        spawner.attach(loop, self._spawner_died)
        #: Sandboxes that are nobody's yet.
        self.stock = Stock(loop, self._make_for_stock, stock_limit)
        #: The spawners of the stock's members, by the platform that each rehearses on, and those that have done so.
        self._templates: dict[str, Spawner] = {}
        self._rehearsed: dict[str, Spawner] = {}
        self._control: ControlSocket | None = None
        self._spawner_lost = False

    def serve(self) -> None:
        """Open the control API to other processes."""
        self._control = ControlSocket(self.loop, self, self.directory, self._context)

    # -- requests -----------------------------------------------------------------------------------------------

    def request(self, message: Message, answer: Answer) -> None:
        """Carry out one request of a client; *answer* is called once, with the reply or a Failed."""
        handler = _REQUESTS.get(type(message))
        if handler is None:
            answer(Failed(errno=0, text=f"{type(message).__name__} is no request to a supervisor", kind="TypeError"))
            return
        try:
            handler(self, message, answer)
        except (GreenroomError, OSError) as error:
            number = error.errno or 0 if isinstance(error, OSError) else 0
            answer(Failed(errno=number, text=str(error), kind=type(error).__name__))

    def sandbox(self, name: str) -> Supervisor:
        """Return a running sandbox. SandboxNotFound, or SandboxEnded with the reason."""
        found = self.sandboxes.get(name)
        if found is None:
            ended = self._ended.get(name)
            if ended is None:
                raise SandboxNotFound(f"there is no sandbox {name!r}")
            kind = SandboxFailed if ended.report.cause == "failed" else SandboxEnded
            raise kind(f"sandbox {name!r} has ended: {ended.report.reason or ended.report.cause}")
        return found

    def create(self, spec: SandboxSpec) -> Supervisor:
        """Return a new sandbox, which is to be booted. NameInUse, OSError for its log or trace file."""
        if self._spawner_lost:
            raise SandboxFailed("this supervisor makes no more sandboxes: its spawner process died; start another")
        spec = dataclasses.replace(spec, name=spec.name or f"gr-{os.urandom(4).hex()}")
        if spec.trace:
            _empty_file(spec.trace)
        self.directory.claim(spec.name)
        try:
            sandbox = self.stock.take(spec) or self._make(spec, self._spawner_for(spec))
        except BaseException:
            self.directory.release(spec.name)
            raise
        sandbox.assign(spec)
        self.sandboxes[spec.name] = sandbox
        return sandbox

    def _spawner_for(self, spec: SandboxSpec) -> Spawner:
        """Return who makes the processes of a sandbox for itself: whoever has rehearsed takes a third of the time."""
        return self.spawner if Shape.of(spec) is None else self._rehearsed.get(spec.platform, self.spawner)

    def _make(self, spec: SandboxSpec, spawner: Spawner) -> Supervisor:
        """Make the actor, the node and the directory of a sandbox, which need not have a name yet. OSError."""
        self._count += 1
        directory = f"{self.directory.path}/{self._count}"
        os.mkdir(directory, 0o700)
        names = ("supervisor", *process_names(spec))
        peers = Peers(names)
        placement = Placement({name: f"ipc://{directory}/{name}" for name in names})
        node = Node(
            "supervisor",
            self.loop,
            placement,
            Descriptors("supervisor", peers.of("supervisor")),
            on_failure=lambda _address, _reason: None,  # the actor has ended its sandbox itself
            context=self._context,
        )
        Supervisor.start("supervisor", node, host=self, spawner=spawner, spec=spec, directory=directory, peers=peers)
        actor = node.actor("supervisor")
        assert isinstance(actor, Supervisor)
        return actor

    def _make_for_stock(self, spec: SandboxSpec) -> Supervisor:
        """Make a sandbox of many, for which there is a spawner of their own that has rehearsed. OSError."""
        return self._make(spec, self._templates.get(spec.platform) or self._make_template(spec.platform))

    def _make_template(self, platform: str) -> Spawner:
        template = self._templates[platform] = self.spawner.spawn_spawner()
        template.attach(self.loop, lambda: self._template_died(platform))

        def rehearsed() -> None:
            self._rehearsed[platform] = template

        if "rehearsal" in self.roles:
            template.call(self.roles["rehearsal"], platform, rehearsed)
        return template

    def boot(self, sandbox: Supervisor, booted: Answer, initialise: Callable[[], Verb] | None = None) -> None:
        """Boot *sandbox*; until *booted* is called the stock is not refilled."""
        self.stock.start_begins()

        def answer(reply: Message) -> None:
            self.stock.start_ended()
            booted(reply)

        sandbox.boot(answer, initialise)

    @_answers(messages.CreateSandbox)
    def _create(self, message: messages.CreateSandbox, answer: Answer) -> None:
        sandbox = self.create(message.spec)
        created = messages.SandboxCreated(sandbox=sandbox.spec.name)
        if sandbox.prepared and _cannot_be_refused(sandbox.spec):
            # Its kernel is set up while the client thinks of a program, which waits for that.
            answer(created)
            self.boot(sandbox, lambda _reply: None)
        else:
            self.boot(sandbox, lambda reply: answer(reply if isinstance(reply, Failed) else created))

    @_answers(messages.Execute)
    def _execute(self, message: messages.Execute, answer: Answer) -> None:
        sandbox = self.sandbox(message.sandbox)
        streams = self.descriptors.take(message.streams) if message.streams else [NULL_STREAM] * 3
        if not message.command.terminal:
            sandbox.submit(sandbox.execute(message.command, streams), answer)
            return

        def started(reply: Message) -> None:
            if isinstance(reply, messages.ProcessStarted):
                sandbox.adopt_holder(holder, reply.pid)
            else:
                holder.close()
            answer(reply)

        # The program starts when its terminal has a holder, so that no key is lost.
        holder = TerminalHolder(
            self.loop,
            self.spawner,
            streams[0],
            lambda: sandbox.submit(sandbox.execute(message.command, streams), started),
        )

    @_answers(messages.SaveSandbox)
    def _save(self, message: messages.SaveSandbox, answer: Answer) -> None:
        sandbox = self.sandbox(message.sandbox)
        save = sandbox.save(message.path, leave_running=message.leave_running)
        if message.leave_running:
            sandbox.submit(save, answer)
            return

        def saved(reply: Message) -> None:
            """Answer when the sandbox is gone, so that its name is free for the restore."""
            if isinstance(reply, Failed):
                answer(reply)
            else:
                sandbox.wait_end(lambda _report: answer(reply))

        sandbox.submit(save, saved)

    def restore(self, path: str, name: str, platform: str, streams: list[int], booted: Answer) -> Supervisor:
        """Make a sandbox from a checkpoint file; *booted* gets Done or Failed. CheckpointError, NameInUse.

        *streams*, which become ours, take the place of those that its programs were started with.
        """
        try:
            checkpoint, sandbox = self._open_checkpoint(path, name, platform)
        except BaseException:
            close_all(streams)
            raise
        ours = contextlib.ExitStack()
        ours.callback(checkpoint.close)
        ours.callback(close_all, streams)

        def load() -> Verb:
            ours.pop_all()  # they are the load's now
            return sandbox.load(checkpoint, streams)

        def done(reply: Message) -> None:
            ours.close()
            booted(reply)

        self.boot(sandbox, done, load)
        return sandbox

    def _open_checkpoint(self, path: str, name: str, platform: str) -> tuple[Checkpoint, Supervisor]:
        """Verify the file, and make the actor of the sandbox in it."""
        from .checkpoint import Checkpoint

        checkpoint = Checkpoint.open(path)
        try:
            checkpoint.check_host()
            saved = decode_spec(checkpoint.manifest["spec"])
            spec = dataclasses.replace(saved, name=name or saved.name, platform=platform, trace="", log_json="")
            try:
                sandbox = self.create(spec)
            except NameInUse:
                if name:
                    raise
                # It goes on beside the one that it was.
                sandbox = self.create(dataclasses.replace(spec, name=""))
        except BaseException:
            checkpoint.close()
            raise
        return checkpoint, sandbox

    @_answers(messages.RestoreSandbox)
    def _restore(self, message: messages.RestoreSandbox, answer: Answer) -> None:
        def booted(reply: Message) -> None:
            answer(reply if isinstance(reply, Failed) else messages.SandboxCreated(sandbox=sandbox.spec.name))

        streams = self.descriptors.take(message.streams) if message.streams else [NULL_STREAM] * 3
        sandbox = self.restore(message.path, message.name, message.platform, streams, booted)

    @_answers(messages.WaitProcess)
    def _wait_process(self, message: messages.WaitProcess, answer: Answer) -> None:
        ended = self._ended.get(message.sandbox)
        if message.sandbox in self.sandboxes or ended is None or message.pid not in ended.statuses:
            self.sandbox(message.sandbox).wait_process(message.pid, answer, block=message.block)
        else:
            answer(messages.ProcessEnded(status=ended.statuses[message.pid]))

    @_answers(messages.PauseSandbox)
    def _pause(self, message: messages.PauseSandbox, answer: Answer) -> None:
        sandbox = self.sandbox(message.sandbox)
        sandbox.submit(sandbox.pause(), answer)

    @_answers(messages.ResumeSandbox)
    def _resume(self, message: messages.ResumeSandbox, answer: Answer) -> None:
        sandbox = self.sandbox(message.sandbox)
        sandbox.submit(sandbox.resume(), answer)

    @_answers(messages.KillSandbox)
    def _kill(self, message: messages.KillSandbox, answer: Answer) -> None:
        sandbox = self.sandbox(message.sandbox)
        sandbox.end("killed", "killed by request")
        sandbox.wait_end(lambda _report: answer(Done()))

    @_answers(messages.SignalProcess)
    def _signal(self, message: messages.SignalProcess, answer: Answer) -> None:
        sandbox = self.sandbox(message.sandbox)
        sandbox.submit(sandbox.send_signal(message), answer)

    @_answers(messages.ListGuestProcesses)
    def _list_processes(self, message: messages.ListGuestProcesses, answer: Answer) -> None:
        sandbox = self.sandbox(message.sandbox)
        sandbox.submit(sandbox.list_processes(), answer)

    @_answers(messages.ListSandboxes)
    def _list(self, _message: messages.ListSandboxes, answer: Answer) -> None:
        answer(messages.SandboxList(rows=tuple(_row(sandbox) for sandbox in self.sandboxes.values())))

    @_answers(messages.DescribeSandbox)
    def _describe(self, message: messages.DescribeSandbox, answer: Answer) -> None:
        ended = self._ended.get(message.sandbox)
        if message.sandbox in self.sandboxes or ended is None:
            answer(_describe(self.sandbox(message.sandbox)))
        else:
            answer(ended.description)

    @_answers(messages.WaitSandbox)
    def _wait_end(self, message: messages.WaitSandbox, answer: Answer) -> None:
        ended = self._ended.get(message.sandbox)
        if message.sandbox in self.sandboxes or ended is None:
            self.sandbox(message.sandbox).wait_end(answer)
        else:
            answer(ended.report)

    # -- ends ---------------------------------------------------------------------------------------------------

    def sandbox_ended(self, sandbox: Supervisor) -> None:
        """Keep what may be asked about it later, and free its name."""
        name = sandbox.spec.name
        if not name:
            self.stock.member_ended(sandbox)
            return
        self.sandboxes.pop(name, None)
        self._ended[name] = _Ended(sandbox.end_report, _describe(sandbox), sandbox.statuses)
        self._ended.move_to_end(name)
        while len(self._ended) > _MAX_ENDED:
            self._ended.popitem(last=False)
        self.directory.release(name)

    def _spawner_died(self) -> None:
        self._spawner_lost = True
        self.stock.close()
        self._end_those_of(self.spawner)

    def _template_died(self, platform: str) -> None:
        template = self._templates.pop(platform)
        self._rehearsed.pop(platform, None)
        self._end_those_of(template)
        template.close()

    def _end_those_of(self, spawner: Spawner) -> None:
        for sandbox in [*self.sandboxes.values(), *self.stock.members, *self.stock.leaving]:
            if sandbox.spawner is spawner:
                sandbox.spawner_died()

    def close(self) -> None:
        """End every sandbox, wait until nothing of them is left, and remove the directory."""
        for sandbox in list(self.sandboxes.values()):
            sandbox.end("killed", "its supervisor ends")
        self.stock.close()
        while self.sandboxes or self.stock.leaving:
            self.loop.turn(None)
        self.loop.turn(0.0)
        if self._control is not None:
            self._control.close()
        self._context.destroy(linger=_LINGER_MS)
        self.descriptors.close()
        for template in self._templates.values():
            template.close()
        self.spawner.close()
        self.directory.remove()  # for a spawner that died; it does this otherwise
        live_supervisors()  # removes what others left whose spawner was killed with them


def _empty_file(path: str) -> None:
    """Make the trace file, or empty it: the processes append to it. OSError."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))


def _cannot_be_refused(spec: SandboxSpec) -> bool:
    """Whether nothing in *spec* can turn out to be wrong when the kernel is set up: only file systems can."""
    return not spec.mounts and spec.root == "/"


def _row(sandbox: Supervisor) -> messages.SandboxRow:
    return messages.SandboxRow(
        sandbox=sandbox.spec.name,
        state=sandbox.state.value,
        created_ns=sandbox.created_ns,
        command=sandbox.command,
        supervisor_pid=os.getpid(),
        platform=sandbox.platform,
    )


def _describe(sandbox: Supervisor) -> messages.SandboxDescription:
    report = sandbox.end_report
    return messages.SandboxDescription(
        row=_row(sandbox),
        spec=sandbox.spec,
        host_pids=sandbox.host_pids,
        reason=(report.reason or report.cause) if sandbox.state is State.ENDED else "",
    )
