"""The state of one process and its threads as plain data, and back.

Linux counterpart: none; CRIU's core image.  A thread's state is its registers and what struct task_struct would hold;
a call in progress is its number, arguments and memo.  Host threads are made anew: the first of a memory in an empty
address space, which gets the mappings, the others as clones that share it.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final

from ...messages.thread_group import Answer
from ...platform.x86_64.registers import Registers
from ..runtime.actor import Refused
from .credentials import Credentials
from .exits import GroupTimes
from .limits import ResourceLimits
from .memory import MemoryManager
from .scheduling import Scheduling
from .signal_state import SignalQueue
from .task import RunState, Task

if TYPE_CHECKING:
    from .actor import ThreadGroup
    from .save import Loading, Saving

__all__ = ["become", "state_of"]

#: Attributes that are saved as they are.
_GROUP_FIELDS: Final = (
    "pid",
    "ppid",
    "pgid",
    "sid",
    "terminal",
    "foreground",
    "orphaned",
    "mount_namespace",
    "oom_score_adj",
)
_GROUP_MORE: Final = ("executable", "exit_status", "start_ns", "subreaper", "dumpable", "petitions")
_TASK_FIELDS: Final = (
    "number",
    "args",
    "memo",
    "petition",
    "sigmask",
    "saved_sigmask",
    "altstack",
    "clear_child_tid",
    "robust_list",
    "command",
    "vfork_parent",
    "start_ns",
)


# -- save -----------------------------------------------------------------------------------------------------------


def state_of(group: ThreadGroup, saving: Saving) -> dict[str, Any]:
    """Return the process's state; what it may share with others is named by numbers of *saving*."""
    signals = group.signals.state()
    signals["handlers"] = saving.handlers.of(group.signals.handlers)
    return {
        **{name: getattr(group, name) for name in (*_GROUP_FIELDS, *_GROUP_MORE)},
        "credentials": dataclasses.asdict(group.credentials),
        "limits": group.limits.state(),
        "times": _times(group),
        "signals": signals,
        "timers": group.timers.state(),
        "memory": saving.memories.of(group.memory),
        "files": saving.tables.of(group.files),
        "fs": saving.contexts.of(group.fs),
        "tasks": [_task_state(task) for task in group.tasks.values()],
    }


def _times(group: ThreadGroup) -> dict[str, int]:
    """CPU time of the living threads counts as that of dead ones, because their host threads are new after a load."""
    times = dataclasses.asdict(group.times)
    for task in group.tasks.values():
        user_ns, system_ns = group.worker.cpu_times_ns(task)
        times["dead_user_ns"] += user_ns
        times["dead_system_ns"] += system_ns
    return times


def _task_state(task: Task) -> dict[str, Any]:
    return {
        **{name: getattr(task, name) for name in _TASK_FIELDS},
        "tid": task.tid,
        "embryo": task.state is RunState.EMBRYO,
        "held": _how_it_goes_on(task),
        "answer": None if task.answer is None else _answer_state(task.answer),
        "pending": task.pending.state(),
        "scheduling": dataclasses.asdict(task.scheduling),
        "registers": task.host.get_registers().to_bytes(),
        "xstate": task.host.get_xstate(),
    }


def _how_it_goes_on(task: Task) -> tuple[Any, ...] | None:
    """Return how the task goes on as a held one; a parked call is called again."""
    if task.state is RunState.EMBRYO:
        return None
    if task.state in (RunState.BLOCKED, RunState.PETITIONING):
        return ("retry",)
    if task.state is not RunState.HELD:
        raise Refused(f"thread {task.tid} is {task.state.value}: a save needs a stop")
    return task.held


def _answer_state(answer: Answer) -> dict[str, Any]:
    return {field.name: getattr(answer, field.name) for field in dataclasses.fields(answer)}


# -- load -----------------------------------------------------------------------------------------------------------


def become(group: ThreadGroup, state: dict[str, Any], loading: Loading) -> None:
    """Fill a fresh group."""
    for name in (*_GROUP_FIELDS, *_GROUP_MORE):
        setattr(group, name, state[name])
    path, handle = state["executable"]
    group.executable = (path, loading.files.handles.get(handle, handle))
    group.credentials = Credentials(**state["credentials"])
    group.limits = ResourceLimits(state["limits"])
    group.times = GroupTimes(**state["times"])
    group.files = loading.table(state["files"], group)
    group.fs = loading.context(state["fs"])
    for saved in state["tasks"]:
        _load_task(group, saved, state["memory"], loading)
    _load_signals(group, state["signals"], loading)
    group.timers.load(state["timers"])


def _load_signals(group: ThreadGroup, state: dict[str, Any], loading: Loading) -> None:
    signals = group.signals
    signals.pending = SignalQueue.of_state(state["pending"])
    signals.handlers = loading.signal_handlers(state["handlers"])
    signals.stopped, signals.stop_signo = state["stopped"], state["stop_signo"]
    signals.stop_reported = state["stop_reported"]
    for watcher in signals.watchers:
        watcher.refresh()


def _load_task(group: ThreadGroup, state: dict[str, Any], number: int, loading: Loading) -> None:
    task = _make_task(group, state["tid"], number, loading)
    for name in _TASK_FIELDS:
        setattr(task, name, state[name])
    task.pending = SignalQueue.of_state(state["pending"])
    task.scheduling = Scheduling(**state["scheduling"])
    task.answer = None if state["answer"] is None else Answer(**state["answer"])
    # Whatever is pending is looked at before guest code runs.
    task.work = True
    if not state["embryo"]:
        task.advance(RunState.HELD)
        task.held = state["held"]
    try:
        task.host.set_registers(Registers.from_bytes(state["registers"]))
        task.host.set_xstate(state["xstate"])
    except OSError as error:
        raise Refused(f"registers of thread {task.tid} do not fit this host: {error.strerror}") from None


def _make_task(group: ThreadGroup, tid: int, number: int, loading: Loading) -> Task:
    """Make a host task: in an address space of its own, or in that of the tasks it shared memory with."""
    sibling = loading.sibling(number)
    if sibling is None:
        host = group.worker.platform.create_task()
        group.memory = MemoryManager(host.space)
    else:
        host = sibling.host.clone(share_memory=True)
        if group.memory is None:
            group.memory = sibling.memory.share(group)
    task = Task(group, tid, host, group.memory)
    host.owner = task
    group.tasks[tid] = task
    if sibling is None:
        loading.fill_memory(number, task)
    return task
