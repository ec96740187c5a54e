"""The state of the process tree as bytes and back, and the order in which groups and workers save and load.

Linux counterpart: none; CRIU's pstree is the nearest.  Handles SaveTasks and LoadTasks; asks workers BeginSave,
SaveWorker, LoadWorker, CreateThreadGroup, and groups SaveGroup, LoadGroup.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgpack  # type: ignore[import-untyped]  # ships no types

from ...messages.base import Done
from ...messages.codec import Envelope, EnvelopeKind, decode, encode
from ...messages.task_set import TaskSetState
from ...messages.thread_group import BeginSave, LoadGroup, LoadWorker, SaveGroup, SaveWorker
from ..runtime.actor import Ask, Refused
from .birth import create_thread_group
from .process import FIELDS, INIT, ForwardedRead, Job, ParkedWait, Process, ProcessState
from .tree import Terminal

if TYPE_CHECKING:
    from ...messages import task_set as messages
    from ...messages.base import Message
    from ..runtime.actor import Asking
    from .tree import ProcessTree

__all__ = ["load", "pack", "save", "unpack"]


def save(tree: ProcessTree, message: messages.SaveTasks) -> Asking:
    """Collect everybody's state. Refused unless all is stopped."""
    if not tree.epoch:
        raise Refused("processes run: a save needs a stop")
    tokens = (message.token, *message.more_tokens)
    if len(tokens) != tree.workers:
        raise Refused(f"{len(tokens)} memory files for {tree.workers} workers")
    workers = [f"worker:{number}" for number in range(tree.workers)]
    _check((yield [Ask(w, BeginSave(token=t)) for w, t in zip(workers, tokens, strict=True)]))
    alive = tree.alive()
    groups = _check((yield [Ask(p.address, SaveGroup()) for p in alive]))
    shared = _check((yield [Ask(w, SaveWorker()) for w in workers]))
    return TaskSetState(
        state=pack(tree),
        groups={p.group: reply.state for p, reply in zip(alive, groups, strict=True)},
        workers=dict(enumerate(reply.state for reply in shared)),
    )


def load(tree: ProcessTree, message: messages.LoadTasks) -> Asking:
    """Become the tree that was saved, every group stopped in *epoch*. Refused unless this tree is fresh."""
    if len(tree.processes) > 1:
        raise Refused("processes exist: a load needs a fresh sandbox")
    tokens = (message.token, *message.more_tokens)
    if not len(tokens) == len(message.workers) == tree.workers:
        raise Refused(f"the checkpoint has {len(message.workers)} workers, this sandbox {tree.workers}")
    unpack(tree, message.state)
    # Restored threads petition again.
    tree.reads.clear()
    for process in tree.processes.values():
        process.waits.clear()
    tree.epoch = message.epoch
    alive = tree.alive()
    if {p.group for p in alive} != set(message.groups):
        raise Refused("the checkpoint's groups are not those of its process tree")
    _check((yield [create_thread_group(tree, p) for p in alive]))
    _check((yield [_load_worker(message, number, token) for number, token in enumerate(tokens)]))
    _check((yield [Ask(p.address, LoadGroup(state=message.groups[p.group], epoch=tree.epoch)) for p in alive]))
    for process in alive:
        process.epoch = tree.epoch
    for process in tree.guests():
        tree.show(process)
    return Done()


def _load_worker(message: messages.LoadTasks, number: int, token: int) -> Ask:
    """The standard streams are the first worker's: processes from outside live there."""
    stdio = message.stdio if number == 0 else ()
    return Ask(f"worker:{number}", LoadWorker(state=message.workers[number], token=token, stdio=stdio))


def _check(replies: list[Any]) -> list[Any]:
    """Raise the first failure among the replies of several asks."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


# -- the tree as bytes ------------------------------------------------------------------------------------------


def pack(tree: ProcessTree) -> bytes:
    """Return the tree as msgpack: plain data only, processes as the values of their fields by name."""
    state = {
        "processes": [_pack_process(p) for p in tree.processes.values()],
        "terminals": [[number, t.session, t.foreground] for number, t in tree.terminals.items()],
        "reads": [[*key, *read] for key, read in tree.reads.items()],
        "held": [[serial, [_pack_message(m) for m in held]] for serial, held in tree.held.items()],
        "last_pid": tree.pids.last,
        "max_tasks": tree.max_tasks,
        "serial_counts": tree.serial_counts,
        "mount_namespace": tree.mount_namespace,
        "root": tree.root,
    }
    data: bytes = msgpack.packb(state)
    return data


def unpack(tree: ProcessTree, data: bytes) -> None:
    """Fill a fresh tree from :func:`pack`'s bytes."""
    state = msgpack.unpackb(data, strict_map_key=False)
    processes = [_unpack_process(values) for values in state["processes"]]
    tree.processes.clear()
    tree.by_tid.clear()
    tree.process_groups.clear()
    tree.sessions.clear()
    # Every serial first: a parent may be younger than its adopted child.
    tree.processes.update((p.group, p) for p in processes)
    tree.init = tree.processes[INIT]
    for process in processes:
        tree.index(process)
    tree.terminals = {number: Terminal(session, foreground) for number, session, foreground in state["terminals"]}
    tree.reads = {(group, tid): ForwardedRead(*rest) for group, tid, *rest in state["reads"]}
    tree.held = {serial: [decode(frame).message for frame in frames] for serial, frames in state["held"]}
    tree.pids.last = state["last_pid"]
    tree.max_tasks = state["max_tasks"]
    tree.serial_counts = state["serial_counts"]
    tree.mount_namespace = state["mount_namespace"]
    tree.root = state["root"]


def _pack_process(process: Process) -> dict[str, Any]:
    values = {name: getattr(process, name) for name in FIELDS}
    values["state"] = process.state.value
    values["threads"] = sorted(process.threads)
    values["children"] = list(process.children)
    values["waits"] = [tuple(wait) for wait in process.waits.values()]
    values["told_job"] = None if process.told_job is None else tuple(process.told_job)
    return values


def _unpack_process(values: dict[str, Any]) -> Process:
    values["state"] = ProcessState(values["state"])
    values["threads"] = set(values["threads"])
    values["children"] = dict.fromkeys(values["children"])
    values["uids"], values["gids"] = tuple(values["uids"]), tuple(values["gids"])
    values["waits"] = {tid: ParkedWait(tid, *rest) for tid, *rest in values["waits"]}
    values["told_job"] = None if values["told_job"] is None else Job(*values["told_job"])
    return Process(**values)


def _pack_message(message: Message) -> bytes:
    return encode(Envelope(EnvelopeKind.TELL, 0, "", "", 0, message))
