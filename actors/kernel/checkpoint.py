"""The parts of a checkpoint that are not memory or files: what they are called, and Kernel's own.

Counterpart: kernel.go's SaveTo and LoadFrom.  A part is msgpack.  The order of a save is: everything is stopped and
time stands still (Kernel has seen to that), workers flush files, groups and workers give their state and write
memory, then mounts with the data of files, then clocks, then what Kernel knows.  A load checks everything that it
can before it changes anything, and goes the other way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgpack  # type: ignore[import-untyped]  # ships no types

from ...config.logging import get_logger
from ...messages import kernel as messages
from ...messages import mount_namespace, task_set, timekeeper
from ..runtime.actor import Ask, Refused
from .identity import CpuFeatures

if TYPE_CHECKING:
    from ..runtime.actor import Asking
    from ..timekeeper.host import HostClock

__all__ = ["Checkpoint", "Stopwatch", "collect", "restore", "unpack_parts"]

log = get_logger(__name__)

_REQUIRED: Final = ("kernel", "task_set", "mounts", "clocks", "cpu")


class Stopwatch:
    """How long each step took, in ns."""

    def __init__(self, host: HostClock) -> None:
        self._host = host
        self._last = host.monotonic_ns()
        self.durations_ns: dict[str, int] = {}

    def lap(self, step: str) -> None:
        """The step that has just ended was *step*."""
        now = self._host.monotonic_ns()
        self.durations_ns[step] = now - self._last
        self._last = now


class Checkpoint:
    """The parts, taken apart."""

    def __init__(self, parts: dict[str, bytes]) -> None:
        missing = [name for name in _REQUIRED if name not in parts]
        if missing:
            raise Refused(f"the checkpoint lacks {', '.join(missing)}")
        self.kernel: dict[str, Any] = _unpack("kernel", parts)
        self.clocks: dict[str, Any] = _unpack("clocks", parts)
        cpu = _unpack("cpu", parts)
        self.cpu = CpuFeatures(frozenset(cpu["features"]), cpu["cores"])
        self.task_set = parts["task_set"]
        self.mounts = parts["mounts"]
        self.groups = _numbered("group:", parts)
        self.workers = _numbered("worker:", parts)


def unpack_parts(message: messages.LoadFrom) -> Checkpoint:
    """Return the checkpoint. Refused when a part is missing or damaged, or this host cannot run it."""
    checkpoint = Checkpoint(message.parts)
    checkpoint.cpu.demand_from(CpuFeatures(frozenset(message.cpu_features), message.application_cores))
    if not len(checkpoint.workers) == len(message.memory_tokens) == message.workers:
        raise Refused(f"the checkpoint has {len(checkpoint.workers)} workers, this sandbox {message.workers}")
    return checkpoint


def _unpack(name: str, parts: dict[str, bytes]) -> dict[str, Any]:
    try:
        value = msgpack.unpackb(parts[name], strict_map_key=False)
    except Exception as error:  # noqa: BLE001  # msgpack raises many types, all of which mean the same here
        raise Refused(f"part {name!r} of the checkpoint is damaged: {error}") from None
    if not isinstance(value, dict):
        raise Refused(f"part {name!r} of the checkpoint is damaged")
    return value


def _numbered(prefix: str, parts: dict[str, bytes]) -> dict[int, bytes]:
    return {int(name.removeprefix(prefix)): data for name, data in parts.items() if name.startswith(prefix)}


# -- saving -----------------------------------------------------------------------------------------------------


def collect(mounts: str, message: messages.SaveTo, own: dict[str, Any], cpu: CpuFeatures, watch: Stopwatch) -> Asking:
    """Ask everybody below for their parts; *own* is Kernel's. Everything is stopped already."""
    first, *more = message.memory_tokens
    tasks = yield Ask("task_set", task_set.SaveTasks(token=first, more_tokens=tuple(more)))
    watch.lap("tasks")
    tree = yield Ask(mounts, mount_namespace.SaveMounts(token=message.files_token))
    watch.lap("mounts")
    clocks = yield Ask("timekeeper", timekeeper.SaveClocks())
    watch.lap("clocks")
    parts = {
        "kernel": msgpack.packb(own),
        "task_set": tasks.state,
        "mounts": tree.state,
        "clocks": msgpack.packb({name: getattr(clocks, name) for name in _CLOCK_FIELDS}),
        "cpu": msgpack.packb({"features": sorted(cpu.names), "cores": cpu.cores}),
        **{f"group:{serial}": state for serial, state in tasks.groups.items()},
        **{f"worker:{number}": state for number, state in tasks.workers.items()},
    }
    sizes = {name: len(data) for name, data in parts.items()}
    log.info("state saved", bytes=sum(sizes.values()), sizes=sizes, durations_ns=watch.durations_ns)
    return parts


_CLOCK_FIELDS: Final = ("monotonic_ns", "realtime_ns", "boot_realtime_ns", "realtime_offset_ns")


# -- loading ----------------------------------------------------------------------------------------------------


def restore(mounts: str, message: messages.LoadFrom, checkpoint: Checkpoint, epoch: int, watch: Stopwatch) -> Asking:
    """Hand everybody below their parts; at the end all groups are stopped in *epoch* and the clocks are frozen."""
    yield Ask(mounts, mount_namespace.LoadMounts(state=checkpoint.mounts, token=message.files_token))
    watch.lap("mounts")
    yield Ask("timekeeper", timekeeper.LoadClocks(**checkpoint.clocks))
    for number in range(message.workers):
        yield Ask("timekeeper", timekeeper.AddClockReader(address=f"worker:{number}"))
    yield Ask("timekeeper", timekeeper.AddClockReader(address=mounts))
    watch.lap("clocks")
    first, *more = message.memory_tokens
    yield Ask(
        "task_set",
        task_set.LoadTasks(
            state=checkpoint.task_set,
            groups=checkpoint.groups,
            workers=checkpoint.workers,
            token=first,
            more_tokens=tuple(more),
            epoch=epoch,
            stdio=message.stdio,
        ),
    )
    watch.lap("tasks")
    log.info("state loaded", groups=len(checkpoint.groups), durations_ns=watch.durations_ns)
