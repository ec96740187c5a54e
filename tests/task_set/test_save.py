"""A saved tree continues as it was, in another sandbox."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from greenroom.actors.runtime.actor import Refused
from greenroom.actors.task_set.save import pack
from greenroom.messages import task_set, thread_group

if TYPE_CHECKING:
    from collections.abc import Callable


def populate(stage: Any) -> tuple[int, int, int]:
    """A parent that waits, a child that is stopped, a zombie, an embryo with a signal; return the first three."""
    parent = stage.create()
    stage.job(parent, "tty_acquire", terminal=88)
    child, zombie = stage.fork(parent), stage.fork(parent)
    stage.job(parent, "setpgid", child, 0)
    stage.stop(child)
    stage.exit(zombie, 4 << 8)
    tid = stage.thread(parent)
    stage.park(parent, id_type=1, number=child, tid=tid)
    stage.petition(parent, task_set.ReadProc, pid=child, name="maps")
    embryo, _ = stage.grant(parent, tid=stage.thread(parent))
    assert stage.kill(stage.create(), embryo, 10) == 0
    return parent, child, zombie


def saved(stage: Any) -> task_set.TaskSetState:
    stage.ask(task_set.StopAll(epoch=5))
    state: task_set.TaskSetState = stage.ask(task_set.SaveTasks(token=77))
    return state


def load(stage: Any, state: task_set.TaskSetState, epoch: int = 6) -> None:
    stage.tree.mount_namespace = ""
    stage.ask(task_set.LoadTasks(state=state.state, groups=state.groups, workers=state.workers, token=78, epoch=epoch))


def test_a_save_asks_workers_first_and_last_and_groups_between(stage: Any) -> None:
    stage.create()
    order: list[str] = []
    send = stage.node.send
    stage.node.send = lambda *frame: (order.append(type(frame[-1]).__name__), send(*frame))
    state = saved(stage)
    asked = [name for name in order if name in ("BeginSave", "SaveGroup", "SaveWorker")]
    assert asked == ["BeginSave", "SaveGroup", "SaveWorker"]
    assert state.groups == {1: b"state of thread_group:1"}
    assert state.workers == {0: b"state of worker:0"}
    assert stage.workers[0].take(thread_group.BeginSave)[0].token == 77


def test_a_save_without_a_stop_is_refused(stage: Any) -> None:
    with pytest.raises(Refused):
        stage.ask(task_set.SaveTasks(token=77))


def test_a_save_needs_a_token_for_each_worker(wide_stage: Any) -> None:
    wide_stage.ask(task_set.StopAll(epoch=5))
    with pytest.raises(Refused):
        wide_stage.ask(task_set.SaveTasks(token=1))
    assert len(wide_stage.ask(task_set.SaveTasks(token=1, more_tokens=(2, 3))).workers) == 3


def test_a_loaded_tree_is_the_saved_one(stage: Any, other_stage: Callable[[], Any]) -> None:
    """Bit for bit, but for the epoch and for who waits: restored threads petition again."""
    populate(stage)
    state = saved(stage)
    other = other_stage()
    load(other, state, epoch=5)
    stage.tree.reads.clear()
    for process in stage.tree.processes.values():
        process.waits.clear()
    assert pack(other.tree) == pack(stage.tree)


def test_a_loaded_tree_goes_on(stage: Any, other_stage: Callable[[], Any]) -> None:
    """The zombie is there, the signal reaches the embryo, the groups are stopped, a repeated wait is answered once."""
    parent, child, zombie = populate(stage)
    other = other_stage()
    load(other, saved(stage))
    made = other.workers[0].take(thread_group.CreateThreadGroup)
    assert [m.epoch for m in made] == [6, 6, 6]
    assert other.hear(parent, thread_group.LoadGroup)[0].state == b"state of thread_group:1"
    other.ask(task_set.ResumeAll(epoch=6))
    (embryo,) = other.tree.embryos.values()
    other.bear(parent, embryo.group)
    assert other.signals(embryo.pid) == [10]
    assert other.wait(parent, 1, zombie).extra[0] == 4 << 8
    other.park(parent, id_type=1, number=child)
    other.exit(child)
    assert [answer.value for answer in other.answers(parent)] == [child]
    assert other.job(parent, "tty_get_pgrp", terminal=88).value == parent


def test_a_load_over_processes_is_refused(stage: Any) -> None:
    stage.create()
    with pytest.raises(Refused):
        load(stage, saved(stage))


def test_a_load_with_another_number_of_workers_is_refused(stage: Any, other_stage: Callable[[int], Any]) -> None:
    stage.create()
    with pytest.raises(Refused):
        load(other_stage(2), saved(stage))


def test_a_load_with_a_missing_group_is_refused(stage: Any, other_stage: Callable[[], Any]) -> None:
    stage.create()
    state = saved(stage)
    state.groups.clear()
    with pytest.raises(Refused):
        load(other_stage(), state)
