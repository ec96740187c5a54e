"""A stop reaches every group, those that die or are born meanwhile too; and the end of all."""

from __future__ import annotations

from errno import EAGAIN
from typing import Any

import pytest
from greenroom.actors.runtime.actor import Refused
from greenroom.messages import kernel, task_set, thread_group
from greenroom.messages.base import Done


def test_a_stop_is_answered_when_all_have_stopped(stage: Any) -> None:
    pids = [stage.create(), stage.create()]
    slow = stage.group(pids[0])
    slow.slow = True
    outcome = stage.begin_ask(task_set.StopAll(epoch=1))
    stage.settle()
    assert outcome == []
    slow.stop_promise.resolve(Done())
    stage.settle()
    assert outcome == [(Done(), None)]
    assert [stage.group(pid).stop_epoch for pid in pids] == [1, 1]


def test_resuming_ends_the_stop(stage: Any) -> None:
    pid = stage.create()
    stage.ask(task_set.StopAll(epoch=1))
    stage.ask(task_set.ResumeAll(epoch=1))
    assert stage.group(pid).stop_epoch == 0


def test_resuming_another_stop_is_refused(stage: Any) -> None:
    stage.ask(task_set.StopAll(epoch=2))
    with pytest.raises(Refused):
        stage.ask(task_set.ResumeAll(epoch=1))


def test_a_group_that_dies_meanwhile_counts_as_stopped(stage: Any) -> None:
    pid = stage.create()
    stage.group(pid).slow = True
    outcome = stage.begin_ask(task_set.StopAll(epoch=1))
    stage.settle()
    group = stage.group(pid)
    group.stop_promise.resolve(Done())
    stage.exit(pid)
    assert outcome == [(Done(), None)]


def test_a_group_whose_actor_is_gone_already_counts_as_stopped(stage: Any) -> None:
    """Its GroupExited is still on its way."""
    pid = stage.create()
    stage.group(pid).stop()
    stage.node.loop.turn(0.0)
    stage.ask(task_set.StopAll(epoch=1))


def test_a_process_created_in_a_stop_is_born_stopped(stage: Any) -> None:
    stage.ask(task_set.StopAll(epoch=3))
    pid = stage.create()
    assert stage.workers[0].take(thread_group.CreateThreadGroup)[0].epoch == 3
    stage.ask(task_set.ResumeAll(epoch=3))
    assert stage.group(pid).stop_epoch == 0


def test_a_fork_granted_in_a_stop_is_born_stopped(stage: Any) -> None:
    pid = stage.create()
    stage.ask(task_set.StopAll(epoch=3))
    answer = stage.call(pid, task_set.RequestFork, exit_signal=17, clone_parent=False)
    assert answer.extra[1] == 3


def test_a_child_born_after_the_stop_of_its_grant_goes_on(stage: Any) -> None:
    """The answer said "stopped", but the stop has ended before the child was made."""
    pid = stage.create()
    stage.ask(task_set.StopAll(epoch=3))
    child, serial = stage.grant(pid)
    stage.ask(task_set.ResumeAll(epoch=3))
    born = stage.bear(pid, serial)
    assert born.stop_epoch == 0
    assert stage.tree.by_tid[child].epoch == 0


def test_a_child_granted_before_a_stop_is_stopped_at_its_birth(stage: Any) -> None:
    pid = stage.create()
    _, serial = stage.grant(pid)
    stage.ask(task_set.StopAll(epoch=4))
    assert stage.bear(pid, serial).stop_epoch == 4


# -- the end ----------------------------------------------------------------------------------------------------


def test_KillAll_is_answered_when_every_group_is_gone(stage: Any) -> None:
    first, second = stage.create(), stage.create()
    outcome = stage.begin_ask(task_set.KillAll())
    stage.settle()
    assert [stage.signals(pid) for pid in (first, second)] == [[9], [9]]
    stage.exit(first, 9)
    assert outcome == []
    stage.exit(second, 9)
    assert outcome == [(None, None)] or outcome == [(Done(), None)]


def test_KillAll_of_nobody_says_that_all_have_exited(stage: Any) -> None:
    stage.ask(task_set.KillAll())
    assert stage.kernel.take(kernel.AllExited) == [kernel.AllExited()]


def test_KillAll_ends_a_stop_after_the_signal(stage: Any) -> None:
    """The dying must leave, but run nothing else first."""
    pid = stage.create()
    stage.ask(task_set.StopAll(epoch=1))
    stage.group(pid).heard.clear()
    stage.begin_ask(task_set.KillAll())
    stage.settle()
    assert [type(m) for m in stage.group(pid).heard] == [thread_group.Signal, thread_group.ResumeTasks]


def test_nobody_is_born_while_everybody_dies(stage: Any) -> None:
    pid = stage.create()
    stage.begin_ask(task_set.KillAll())
    stage.settle()
    assert stage.call(pid, task_set.RequestFork, exit_signal=17, clone_parent=False).errno == EAGAIN


def test_a_child_that_is_being_born_dies_too(stage: Any) -> None:
    pid = stage.create()
    child, serial = stage.grant(pid)
    outcome = stage.begin_ask(task_set.KillAll())
    stage.settle()
    stage.bear(pid, serial)
    assert stage.signals(child) == [9]
    stage.exit(child, 9)
    stage.exit(pid, 9)
    assert len(outcome) == 1
