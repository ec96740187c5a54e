"""The actors of a sandbox's processes and the host ports that they are given.

One place builds them for a real process, a traced one and a replay, so that a replay runs the very actors that were
recorded: with a tape, every port is a :class:`~..actors.runtime.tape.TapedPort` before the real one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..config.logging import get_logger
from ..messages.codec import EnvelopeKind
from ..messages.supervisor import ProcessReady

if TYPE_CHECKING:
    from ..actors.runtime.node import Node
    from ..actors.runtime.tape import Tape
    from ..platform.interface import Platform

__all__ = ["report_ready", "start_actors"]

log = get_logger(__name__)


def start_actors(node: Node, *, workers: int, platform: str) -> str:
    """Start the actors that live in *node*'s process: the kernel's, a worker, or both ("sandbox").

    Return the name of the platform in use, "" in a process without one.
    """
    tape = node.tape
    if tape is not None:
        node.descriptors = _port(tape, "descriptors", node.descriptors)
    if not node.process.startswith("worker:"):
        _start_kernel_actors(node, workers)
    return "" if node.process == "kernel" else _start_worker(node, platform)


def report_ready(node: Node, platform: str) -> None:
    """Tell the supervisor that this process's actors are there, and which platform is in use."""
    ready = ProcessReady(process=node.process, platform=platform)
    node.send(EnvelopeKind.TELL, f"process:{node.process}", "supervisor", 0, ready)


def _port(tape: Tape | None, name: str, port: Any) -> Any:
    if tape is None:
        return port
    from ..actors.runtime.tape import TapedPort

    return TapedPort(tape, name, port)


def _start_kernel_actors(node: Node, workers: int) -> None:
    from ..actors.kernel.actor import Kernel
    from ..actors.mount_namespace.actor import MountNamespace
    from ..actors.mount_namespace.host_files import HostFiles
    from ..actors.task_set.actor import TaskSet
    from ..actors.timekeeper.actor import Timekeeper
    from ..actors.timekeeper.host import SystemClock

    clock = _port(node.tape, "clock", SystemClock())
    Timekeeper.start("timekeeper", node, host=clock)
    MountNamespace.start("mount_namespace:1", node, host=_port(node.tape, "files", HostFiles()))
    TaskSet.start("task_set", node, workers=workers)
    Kernel.start("kernel", node, host=clock)


def _start_worker(node: Node, wanted: str) -> str:
    from ..actors.thread_group.host import WorkerHost
    from ..actors.thread_group.worker import Worker

    address = node.process if node.process.startswith("worker:") else "worker:0"
    host = _port(node.tape, "worker_host", WorkerHost())
    platform = _platform(node.tape, wanted)
    Worker.start(address, node, platform=platform, host=host)
    return platform.name


def _platform(tape: Tape | None, wanted: str) -> Platform:
    if tape is None:
        return _start_platform(wanted)
    from ..platform.taped import TapedPlatform

    return TapedPlatform(tape, None if tape.replaying else _start_platform(wanted))


def _start_platform(wanted: str) -> Platform:
    from ..platform.choice import start_platform

    platform, reason = start_platform(wanted)
    if reason:
        log.info("the fastest platform is not possible here", platform=platform.name, reason=reason)
    return platform
