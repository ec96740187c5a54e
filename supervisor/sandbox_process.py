"""The processes of a sandbox: what a child of the spawner does with its assignment.

A child makes its loop, its way to its peers (one descriptor socket each) and its node, starts the actors of its role
and tells the supervisor ``ProcessReady``.  It ends by a signal: SIGTERM writes out what is buffered, SIGKILL needs
nothing, for nothing that the host would keep is in memory.  A failed actor ends the whole process, with the reason as
the last line of its report: the supervisor then ends that sandbox.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import traceback
from typing import TYPE_CHECKING, Any, NoReturn

import msgpack  # type: ignore[import-untyped]  # ships no types

from ..actors.runtime.descriptors import Descriptors
from ..actors.runtime.loop import Loop
from ..actors.runtime.node import Node, Placement
from ..config.logging import configure_child
from .sandbox_actors import report_ready, start_actors
from .spawner import set_process_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..actors.runtime.tape import Recorder

__all__ = ["PRELOAD", "ROLES", "Assignment", "encode_assignment", "run", "serve"]

#: Entry points by the kind of process, and what the spawner calls before it makes the first of many.
ROLES = {
    **dict.fromkeys(("kernel", "worker", "sandbox"), f"{__name__}:run"),
    "rehearsal": "greenroom.supervisor.rehearsal:rehearse",
}

#: What the spawner imports before it forks the first process.
PRELOAD = (
    "encodings.ascii",
    "greenroom.actors.kernel.actor",
    "greenroom.actors.task_set.actor",
    "greenroom.actors.timekeeper.actor",
    "greenroom.actors.mount_namespace.actor",
    "greenroom.actors.thread_group.host",
    "greenroom.actors.thread_group.worker",
    "greenroom.platform.choice",
    "greenroom.platform.notify.platform",
    "greenroom.platform.x86_64.cpuid",
)


class Assignment:
    """What the supervisor says to a new process."""

    def __init__(self, config: bytes, fds: Sequence[int]) -> None:
        """Decode *config*; *fds* are the descriptor sockets of the peers, in the order of their names."""
        values = msgpack.unpackb(config)
        self.sandbox: str = values["sandbox"]
        #: Name in the placement.
        self.process: str = values["process"]
        self.endpoints: dict[str, str] = values["endpoints"]
        self.workers: int = values["workers"]
        self.platform: str = values["platform"]
        self.log_level: str = values["log_level"]
        self.trace: str = values["trace"]
        peers = (socket.socket(fileno=fd) for fd in fds)
        self.peers: dict[str, socket.socket] = dict(zip(values["peers"], peers, strict=True))


def encode_assignment(**values: Any) -> bytes:
    """Return the configuration that :class:`Assignment` decodes."""
    encoded: bytes = msgpack.packb(values)
    return encoded


def run(config: bytes, fds: list[int]) -> int:
    """Be one process of a sandbox; return the exit status."""
    return serve(Assignment(config, fds), _start_actors)


def _start_actors(node: Node, assignment: Assignment) -> str:
    return start_actors(node, workers=assignment.workers, platform=assignment.platform)


def serve(assignment: Assignment, start: Callable[[Node, Assignment], str]) -> int:
    """Be a process of a sandbox: *start* starts its actors and names the platform in use.

    Return the exit status when the loop has been stopped.
    """
    set_process_name(f"gr-{assignment.process}")
    configure_child(assignment.log_level, sandbox=assignment.sandbox, process=assignment.process)
    # The platform takes it through a descriptor: ZeroMQ's threads, which come before it, inherit that it is blocked.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    try:
        placement = Placement(assignment.endpoints, assignment.workers)
        descriptors = Descriptors(assignment.process, assignment.peers)
        node = Node(assignment.process, Loop(), placement, descriptors, on_failure=_report_failed_actor)
        tape = _start_tape(node, assignment) if assignment.trace else None
        report_ready(node, start(node, assignment))
        if tape is None:
            signal.signal(signal.SIGTERM, _exit_at_once)
            node.loop.run()
        else:
            _run_taped(node, tape)
    except Exception as error:  # noqa: BLE001  # the reason must reach the supervisor, whatever it is
        _report_fatal("", f"{type(error).__name__}: {error}", traceback.format_exc())
    return 0


def _run_taped(node: Node, tape: Recorder) -> NoReturn:
    """Run until SIGTERM; a traced process ends between two turns, in a state that a replay can reach."""
    from ..actors.runtime.replay import note_states

    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    signal.signal(signal.SIGTERM, lambda *_: theirs.send(b"."))
    node.loop.untaped.add(ours.fileno())
    node.loop.watch(ours.fileno(), select.EPOLLIN, lambda _mask: node.loop.stop())
    node.loop.run()
    note_states(node)
    tape.close()
    os._exit(0)


def _start_tape(node: Node, assignment: Assignment) -> Recorder:
    """Record from the first step on; START says how to build this process for a replay."""
    from ..actors.runtime.tape import Recorder
    from ..messages.trace import RecordKind

    fd = os.open(assignment.trace, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    tape = node.tape = node.loop.tape = Recorder(assignment.process, fd)
    settings = {
        "endpoints": list(assignment.endpoints),
        "workers": assignment.workers,
        "platform": assignment.platform,
    }
    tape.note(RecordKind.START, settings)
    return tape


def _exit_at_once(*_: object) -> None:
    os._exit(0)


def _report_failed_actor(address: str, reason: str) -> None:
    _report_fatal(address, reason, "")


def _report_fatal(actor: str, reason: str, details: str) -> NoReturn:
    """Write the reason as the report's last line and end this process."""
    sys.stderr.flush()
    line = {"event": "process failed", "level": "error", "fatal": True, "actor": actor, "reason": reason}
    if details:
        line["exception"] = details
    os.set_blocking(2, True)
    with contextlib.suppress(OSError):
        os.write(2, json.dumps(line).encode() + b"\n")
    os._exit(70)
