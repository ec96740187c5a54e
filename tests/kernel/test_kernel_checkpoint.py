"""A sandbox is saved as parts and goes on from them, or says why not before it changes anything."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from greenroom.actors.runtime.actor import Refused
from greenroom.messages import kernel, mount_namespace, task_set
from greenroom.messages.base import Done

SECOND = 10**9


def save(stage: Any) -> kernel.Saved:
    saved: kernel.Saved = stage.ask(kernel.SaveTo(memory_tokens=(71,), files_token=72))
    return saved


def load(stage: Any, parts: dict[str, bytes], **changes: Any) -> None:
    fields: dict[str, Any] = {
        "sandbox": "copy",
        "parts": parts,
        "memory_tokens": (81,),
        "files_token": 82,
        "workers": 1,
        "application_cores": 2,
        "cpu_features": ("avx", "fpu", "sse"),
    }
    stage.ask(kernel.LoadFrom(**{**fields, **changes}))


def test_a_save_gives_every_part(stage: Any) -> None:
    stage.run()
    saved = save(stage)
    assert sorted(saved.parts) == ["clocks", "cpu", "group:1", "group:4", "kernel", "mounts", "task_set", "worker:0"]
    assert saved.parts["group:4"] == b"four"
    assert msgpack.unpackb(saved.parts["cpu"]) == {"features": ["avx", "fpu"], "cores": 2}
    assert list(saved.durations_ns) == ["stop", "tasks", "mounts", "clocks"]
    assert stage.asked(task_set.SaveTasks)[0].token == 71
    assert stage.mounts.take(mount_namespace.SaveMounts)[0].token == 72


def test_a_save_stops_the_sandbox_and_lets_it_go_on(stage: Any) -> None:
    stage.run()
    stage.task_set.heard.clear()
    save(stage)
    order = [type(m) for m in stage.task_set.heard]
    assert order == [task_set.StopAll, task_set.SaveTasks, task_set.ResumeAll]
    assert stage.timekeeper.clocks.frozen_at_ns is None
    assert stage.state() == "running"


def test_a_save_of_a_paused_sandbox_leaves_it_paused(stage: Any) -> None:
    stage.run()
    stage.ask(kernel.Pause())
    save(stage)
    assert stage.state() == "paused"
    assert len(stage.asked(task_set.StopAll)) == 1
    assert stage.asked(task_set.ResumeAll) == []


def test_a_failed_save_lets_the_sandbox_go_on(stage: Any) -> None:
    stage.run()

    def refuse(_message: object) -> None:
        raise Refused("the disk is full")

    stage.mounts.save = refuse
    with pytest.raises(Refused, match="disk is full"):
        save(stage)
    assert stage.state() == "running"
    assert len(stage.asked(task_set.ResumeAll)) == 1


def test_requests_wait_in_order_while_it_saves(stage: Any) -> None:
    pid = stage.run()
    stage.task_set.slow = True
    outcome = stage.begin_ask(kernel.SaveTo(memory_tokens=(71,), files_token=72))
    signalled = stage.begin_ask(kernel.SendExternalSignal(pid=pid, signo=1, foreground=False))
    stage.settle()
    assert signalled == []
    stage.task_set.promise.resolve(Done())
    stage.settle()
    assert (len(outcome), len(signalled)) == (1, 1)
    order = [type(m) for m in stage.task_set.heard]
    assert order.index(task_set.SendExternalSignal) > order.index(task_set.ResumeAll)


def test_a_loaded_sandbox_goes_on_at_its_start(stage: Any, other_stage: Any) -> None:
    pid = stage.run()
    stage.host.pass_ns(10 * SECOND)
    parts = save(stage).parts
    stage.ask(kernel.Pause())
    other_stage.host.realtime = stage.host.realtime + 5 * SECOND
    load(other_stage, parts)
    (told,) = other_stage.asked(task_set.LoadTasks)
    assert (told.state, told.groups, told.workers) == (b"tree", {1: b"one", 4: b"four"}, {0: b"worker"})
    assert (told.token, told.epoch) == (81, 2)
    assert other_stage.state() == "created"
    assert other_stage.timekeeper.clocks.frozen_at_ns == 15 * SECOND
    other_stage.ask(kernel.Start())
    assert [m.epoch for m in other_stage.asked(task_set.ResumeAll)] == [2]
    assert other_stage.state() == "running"
    assert other_stage.timekeeper.clocks.frozen_at_ns is None
    other_stage.task_set.living[pid] = 9
    other_stage.exit(pid, 4 << 8)
    (end,) = other_stage.supervisor.take(type(other_stage.supervisor.heard[-1]))
    assert (end.sandbox, end.status) == ("copy", 4 << 8)


def test_a_process_that_was_not_started_starts_after_the_load(stage: Any, other_stage: Any) -> None:
    stage.init()
    pid = stage.create()
    parts = save(stage).parts
    other_stage.task_set.living[pid] = 9
    load(other_stage, parts)
    other_stage.ask(kernel.Start())
    assert [m.pid for m in other_stage.asked(task_set.StartProcess)] == [pid]


def test_a_loaded_sandbox_may_be_paused_before_its_start(stage: Any, other_stage: Any) -> None:
    """It is stopped already, and stays so until both the pause and the wait for Start are over."""
    stage.run()
    load(other_stage, save(stage).parts)
    other_stage.ask(kernel.Pause())
    other_stage.ask(kernel.Unpause())
    assert other_stage.asked(task_set.ResumeAll) == []
    other_stage.ask(kernel.Pause())
    other_stage.ask(kernel.Start())
    assert other_stage.asked(task_set.ResumeAll) == []
    other_stage.ask(kernel.Unpause())
    assert len(other_stage.asked(task_set.ResumeAll)) == 1


def test_numbers_and_ports_continue(stage: Any, other_stage: Any) -> None:
    stage.run()
    assert stage.kernel.numbers.unique_id() == 1
    assert stage.kernel.ports.allocate(0, 100) == 100
    load(other_stage, save(stage).parts)
    assert other_stage.kernel.numbers.unique_id() == 2
    assert other_stage.kernel.ports.allocate(0, 100) < -4096


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"cpu_features": ("fpu",)}, "lacks avx"),
        ({"application_cores": 1}, "2 cores"),
        ({"workers": 2}, "1 workers"),
        ({"memory_tokens": ()}, "1 workers"),
    ],
)
def test_an_unfit_host_is_refused_before_anything_changes(
    stage: Any, other_stage: Any, changes: dict[str, Any], text: str
) -> None:
    stage.run()
    parts = save(stage).parts
    with pytest.raises(Refused, match=text):
        load(other_stage, parts, **changes)
    assert other_stage.mounts.heard == []
    assert other_stage.state() == "new"


@pytest.mark.parametrize("name", ["kernel", "task_set", "mounts", "clocks", "cpu"])
def test_a_missing_part_is_refused(stage: Any, other_stage: Any, name: str) -> None:
    stage.run()
    parts = save(stage).parts
    del parts[name]
    with pytest.raises(Refused, match=f"lacks {name}"):
        load(other_stage, parts)


@pytest.mark.parametrize("name", ["kernel", "clocks", "cpu"])
def test_a_damaged_part_is_refused(stage: Any, other_stage: Any, name: str) -> None:
    stage.run()
    parts = save(stage).parts
    parts[name] = b"\xc1"
    with pytest.raises(Refused, match=f"{name}.*damaged"):
        load(other_stage, parts)


def test_a_load_over_a_sandbox_is_refused(stage: Any) -> None:
    stage.run()
    with pytest.raises(Refused):
        load(stage, save(stage).parts)
