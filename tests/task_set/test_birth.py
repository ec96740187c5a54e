"""Processes and threads come to be under the right numbers, and their messages wait for their actors."""

from __future__ import annotations

from errno import EAGAIN
from typing import Any

import pytest
from greenroom.actors.runtime.actor import Refused
from greenroom.actors.task_set.pids import PidAllocator
from greenroom.messages import kernel, task_set, thread_group
from greenroom.messages.mount_namespace import ProcessGone, ProcessSeen


def test_a_process_from_outside_is_a_child_of_init_in_its_own_session(stage: Any) -> None:
    pid = stage.create()
    (made,) = stage.workers[0].take(thread_group.CreateThreadGroup)
    assert (made.pid, made.ppid, made.pgid, made.sid) == (2, 1, 2, 2)
    assert (made.mount_namespace, made.root, made.epoch) == ("mount_namespace:1", 7, 0)
    (job,) = stage.hear(pid, thread_group.JobChanged)
    assert (job.pgid, job.sid, job.foreground, job.orphaned) == (pid, pid, True, True)


def test_a_program_that_cannot_be_loaded_leaves_nothing(stage: Any) -> None:
    with pytest.raises(FileNotFoundError):
        stage.create(filename="/bin/missing")
    assert [row.pid for row in stage.ask(task_set.ListProcesses()).rows] == [1]


def test_a_process_before_the_mounts_is_refused(stage: Any) -> None:
    stage.tree.mount_namespace = ""
    with pytest.raises(Refused):
        stage.create()


def test_a_fork_is_granted_with_pid_and_serial(stage: Any) -> None:
    parent = stage.create()
    answer = stage.call(parent, task_set.RequestFork, exit_signal=17, clone_parent=False)
    assert (answer.value, answer.errno, answer.extra) == (3, 0, (2, 0))


def test_serials_name_their_worker(wide_stage: Any) -> None:
    """Processes from outside live where their descriptors are; children stay in their parent's worker."""
    for worker in (2, 0, 1, 1):
        pid = wide_stage.create(worker=worker)
        assert wide_stage.tree.by_tid[pid].group % 3 == worker
        assert wide_stage.tree.by_tid[wide_stage.fork(pid)].group % 3 == worker


def test_a_worker_that_is_not_there_is_refused(wide_stage: Any) -> None:
    with pytest.raises(Refused, match="no worker 3"):
        wide_stage.create(worker=3)


def test_messages_to_a_child_wait_until_its_actor_exists(stage: Any) -> None:
    parent = stage.create()
    child, serial = stage.grant(parent)
    other = stage.create()
    assert stage.kill(other, child, 10) == 0
    stage.bear(parent, serial)
    assert stage.signals(child) == [10]


def test_a_failed_fork_leaves_nothing(stage: Any) -> None:
    parent = stage.create()
    child, serial = stage.grant(parent)
    stage.tell(parent, task_set.ForkFailed, child=serial)
    assert stage.wait(parent).errno == 10
    assert stage.kill(parent, child) == 3
    assert stage.mounts.take(ProcessGone) == [ProcessGone(pid=child)]


def test_a_forker_that_dies_takes_its_embryo_along(stage: Any) -> None:
    parent = stage.create()
    stage.grant(parent)
    stage.exit(parent)
    assert [row.pid for row in stage.ask(task_set.ListProcesses()).rows] == [1]
    assert stage.kernel.take(kernel.AllExited) == [kernel.AllExited()]


def test_clone_parent_makes_a_sibling(stage: Any) -> None:
    grandparent = stage.create()
    parent = stage.fork(grandparent)
    sibling = stage.fork(parent, clone_parent=True)
    stage.exit(sibling)
    assert stage.wait(parent).errno == 10
    assert stage.wait(grandparent).value == sibling


def test_threads_and_processes_share_one_sequence_of_ids(stage: Any) -> None:
    pid = stage.create()
    assert [stage.thread(pid), stage.fork(pid), stage.thread(pid)] == [3, 4, 5]


def test_limit_of_tasks_is_EAGAIN(stage: Any) -> None:
    pid = stage.create()
    stage.tree.max_tasks = 2
    stage.fork(pid)
    assert stage.call(pid, task_set.RequestThread).errno == EAGAIN
    assert stage.call(pid, task_set.RequestFork, exit_signal=17, clone_parent=False).errno == EAGAIN


def test_process_limit_of_the_user_is_EAGAIN(stage: Any) -> None:
    pid = stage.create()
    stage.thread(pid)
    assert stage.call(pid, task_set.RequestThread, process_limit=2).errno == EAGAIN
    assert stage.call(pid, task_set.RequestThread, process_limit=3).errno == 0


def test_pids_increase_wrap_at_pid_max_and_go_on_at_300() -> None:
    used = {1, 300, 302}
    pids = PidAllocator(used.__contains__, pid_max=32768)
    assert [pids.allocate(), pids.allocate()] == [2, 3]
    pids.last = 32766
    assert [pids.allocate(), pids.allocate(), pids.allocate()] == [32767, 301, 303]


def test_no_free_pid_is_EAGAIN() -> None:
    pids = PidAllocator(lambda _number: True, pid_max=400)
    with pytest.raises(BlockingIOError):
        pids.allocate()


def test_a_pid_is_not_reused_while_it_names_a_process_group(stage: Any) -> None:
    """The leader is gone, its group lives."""
    leader = stage.create()
    child = stage.fork(leader)
    stage.exit(leader)
    assert leader not in stage.tree.by_tid
    stage.tree.pids.last = leader - 1
    assert stage.fork(child) != leader


def test_exec_leaves_one_thread_and_frees_the_other_ids(stage: Any) -> None:
    pid = stage.create()
    tid = stage.thread(pid)
    stage.executed(pid, "sh", tid=tid)
    assert tid not in stage.tree.by_tid
    assert stage.mounts.take(ProcessSeen)[-1].tids == (pid,)


def test_proc_hears_of_births_threads_and_deaths(stage: Any) -> None:
    stage.mounts.heard.clear()
    pid = stage.create(uid=5, gid=6)
    tid = stage.thread(pid)
    stage.tell(pid, task_set.ThreadExited, tid=tid)
    stage.exit(pid)
    seen = stage.mounts.take(ProcessSeen)
    assert [(m.pid, m.uid, m.gid, m.tids) for m in seen] == [
        (pid, 5, 6, (pid,)),
        (pid, 5, 6, (pid, tid)),
        (pid, 5, 6, (pid,)),
    ]
    assert stage.mounts.take(ProcessGone) == [ProcessGone(pid=pid)]


def test_init_is_shown_at_the_start(stage: Any) -> None:
    assert stage.mounts.take(ProcessSeen)[0].pid == 1
