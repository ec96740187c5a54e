"""The processes of a sandbox: what a child of the spawner does with its assignment.

A child makes its loop, its way to its peers (one descriptor socket each) and its node, starts the actors of its role and
tells the supervisor ``ProcessReady``.  It ends by a signal: SIGTERM writes out what is buffered, SIGKILL needs nothing, for
nothing that the host would keep is in memory.  A failed actor ends the whole process, with the reason as the last
line of its report: the supervisor then ends that sandbox.
"""

from __future__ import annotations

import contextlib
import json
import os
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
from ..messages.codec import EnvelopeKind
from ..messages.supervisor import ProcessReady
from .spawner import set_process_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["PRELOAD", "ROLES", "Assignment", "encode_assignment", "run_kernel", "run_sandbox", "run_worker", "serve"]

#: Entry points by the kind of process.
ROLES = {kind: f"{__name__}:run_{kind}" for kind in ("kernel", "worker", "sandbox")}

#: What the spawner imports before it forks the first process.
PRELOAD = (
    "greenroom.actors.kernel.actor",
    "greenroom.actors.task_set.actor",
    "greenroom.actors.timekeeper.actor",
    "greenroom.actors.mount_namespace.actor",
    "greenroom.actors.thread_group.worker",
    "greenroom.platform.ptrace.platform",
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


def run_kernel(config: bytes, fds: list[int]) -> int:
    """Be the kernel process of a split sandbox."""
    return serve(Assignment(config, fds), _start_kernel_actors)


def run_worker(config: bytes, fds: list[int]) -> int:
    """Be a worker process of a split sandbox."""
    return serve(Assignment(config, fds), _start_worker)


def run_sandbox(config: bytes, fds: list[int]) -> int:
    """Be the one process of a colocated sandbox."""

    def start(node: Node, assignment: Assignment) -> None:
        _start_kernel_actors(node, assignment)
        _start_worker(node, assignment)

    return serve(Assignment(config, fds), start)


def _start_kernel_actors(node: Node, assignment: Assignment) -> None:
    from ..actors.kernel.actor import Kernel
    from ..actors.mount_namespace.actor import MountNamespace
    from ..actors.task_set.actor import TaskSet
    from ..actors.timekeeper.actor import Timekeeper

    Timekeeper.start("timekeeper", node)
    MountNamespace.start("mount_namespace:1", node)
    TaskSet.start("task_set", node, workers=assignment.workers)
    Kernel.start("kernel", node)


def _start_worker(node: Node, assignment: Assignment) -> None:
    from ..actors.thread_group.host import WorkerHost
    from ..actors.thread_group.worker import Worker

    address = assignment.process if assignment.process.startswith("worker:") else "worker:0"
    Worker.start(address, node, platform=_make_platform(assignment.platform), host=WorkerHost())


def _make_platform(name: str) -> Any:
    if name == "ptrace":
        from ..platform.ptrace.platform import PtracePlatform

        return PtracePlatform()
    raise ValueError(f"there is no platform {name!r}")


def serve(assignment: Assignment, start: Callable[[Node, Assignment], None]) -> int:
    """Be a process of a sandbox: *start* starts its actors; return the exit status when the loop has been stopped."""
    set_process_name(f"gr-{assignment.process}")
    configure_child(assignment.log_level, sandbox=assignment.sandbox, process=assignment.process)
    signal.signal(signal.SIGTERM, _exit_at_once)
    try:
        loop = Loop()
        placement = Placement(assignment.endpoints, assignment.workers)
        descriptors = Descriptors(assignment.process, assignment.peers)
        node = Node(assignment.process, loop, placement, descriptors, on_failure=_report_failed_actor)
        start(node, assignment)
        ready = ProcessReady(process=assignment.process)
        node.send(EnvelopeKind.TELL, f"process:{assignment.process}", "supervisor", 0, ready)
        loop.run()
    except Exception as error:  # noqa: BLE001  # the reason must reach the supervisor, whatever it is
        _report_fatal("", f"{type(error).__name__}: {error}", traceback.format_exc())
    return 0


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
