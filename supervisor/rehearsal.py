"""A rehearsal: the spawner runs one program in a sandbox of its own, so that its children have done everything once.

What a process does for the first time costs more than later: functions that the interpreter specialises after some
calls, dictionaries and types that get their version tags, modules that are imported when they are needed.  All of that
is written into pages that a child shares with the spawner until then; after a rehearsal it is there already.  A sandbox
that is made after it takes two thirds of the processor time to its first program's end.

Nothing of the rehearsal itself is left: its actors are stopped, its ZeroMQ context is terminated (so no thread of it
exists when a child is forked), its tracees are dead, its descriptors are closed.  Nothing of anybody's guest is in it:
it comes before the spawner's first child, and its one program is ``/bin/true``.  When it fails, children are slower and
nothing else.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import time
from typing import TYPE_CHECKING, Any

from ..actors.runtime.actor import Actor, Ask, handles
from ..actors.runtime.loop import Loop
from ..actors.runtime.node import Node, Placement
from ..actors.thread_group import families
from ..actors.thread_group.table import TABLE
from ..config.spec import Command, SandboxSpec
from ..messages import kernel
from ..messages.codec import compile_all
from ..messages.supervisor import ProcessExited, SandboxExited
from .actor import process_arguments, set_up_request
from .sandbox_actors import start_actors
from .streams import NULL_STREAM

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..actors.runtime.actor import Asking

__all__ = ["rehearse"]

_PROGRAM = b"/bin/true"
#: Several times: the interpreter specialises a function after eight calls of it.
_PERFORMANCES = 3
#: After which a rehearsal that does not get on is given up.
_LIMIT_NS = 5_000_000_000


def rehearse(platform: str) -> None:
    """Run a program on *platform* in a sandbox in this process, which has no thread, and remove every trace of it.

    RuntimeError, or what the host refused, when that did not work; then too nothing is left.
    """
    with _descriptors_closed(), _sigchld_as_before():
        compile_all()
        families.load()
        for entry in TABLE.values():
            entry.compile()
        _perform(SandboxSpec(name="rehearsal", platform=platform))


class _Director(Actor):
    """Takes the place of the Supervisor."""

    def __init__(self, address: str, node: Node, *, spec: SandboxSpec) -> None:
        super().__init__(address, node)
        self._spec = spec
        #: Performances that are to come; and why there are no more.
        self.left = _PERFORMANCES
        self.reason = ""

    def begin(self) -> Asking:
        yield Ask("kernel", set_up_request(self._spec, workers=1))
        yield from self._create_program()
        yield Ask("kernel", kernel.Start())

    def _create_program(self) -> Asking:
        env = tuple(f"{key}={value}".encode() for key, value in self._spec.env.items())
        command = Command(argv=(_PROGRAM,), envv=env, cwd="/", user="root", terminal=False, limits={})
        arguments = process_arguments(command, (NULL_STREAM,) * 3)
        return (yield Ask("kernel", kernel.CreateProcess(arguments=arguments)))

    def _again(self) -> Asking:
        made = yield from self._create_program()
        yield Ask("kernel", kernel.StartProcess(pid=made.pid))

    @handles(ProcessExited)
    def process_exited(self, _message: ProcessExited) -> None:
        self.left -= 1
        if self.left:
            self.drive(self._again(), self.finish)
        else:
            self.node.loop.stop()

    @handles(SandboxExited)
    def sandbox_exited(self, message: SandboxExited) -> None:
        if message.failed:
            self.give_up(message.reason)

    def finish(self, _value: Any, error: BaseException | None) -> None:
        if error is not None:
            self.give_up(str(error))

    def give_up(self, reason: str) -> None:
        self.reason = reason
        self.node.loop.stop()


def _perform(spec: SandboxSpec) -> None:
    loop = Loop()
    inbox = "inproc://rehearsal"
    node = Node("sandbox", loop, Placement({"sandbox": inbox, "supervisor": inbox}))
    platform = None
    try:
        start_actors(node, workers=1, platform=spec.platform)
        platform = getattr(node.actor("worker:0"), "platform", None)
        _Director.start("supervisor", node, spec=spec)
        director = node.actor("supervisor")
        assert isinstance(director, _Director)
        director.drive(director.begin(), director.finish)
        loop.call_at(time.monotonic_ns() + _LIMIT_NS, lambda: director.give_up("it takes too long"))
        loop.run()
        if director.left:
            raise RuntimeError(f"the rehearsal was given up: {director.reason}")
    finally:
        if platform is not None:
            platform.close()
        for address in node.addresses():
            actor = node.actor(address)
            if actor is not None:
                actor.stop()
        node.close()
        loop.close()


@contextlib.contextmanager
def _sigchld_as_before() -> Iterator[None]:
    """Lend SIGCHLD to the platform."""
    handler = signal.getsignal(signal.SIGCHLD)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextlib.contextmanager
def _descriptors_closed() -> Iterator[None]:
    """Close what is opened meanwhile and not closed by its owner, who is garbage afterwards."""
    before = set(_open_descriptors())
    try:
        yield
    finally:
        gc.collect()
        for fd in set(_open_descriptors()) - before:
            with contextlib.suppress(OSError):
                os.close(fd)


def _open_descriptors() -> list[int]:
    return [int(name) for name in os.listdir("/proc/self/fd")]
