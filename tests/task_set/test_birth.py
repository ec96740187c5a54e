"""Processes and threads come to be under the right numbers, and their messages wait for their actors."""

from __future__ import annotations

from errno import EAGAIN
from typing import Any

import pytest
from greenroom.actors.runtime.actor import Refused
from greenroom.actors.task_set.pids import PidAllocator
from greenroom.messages import kernel, task_set, thread_group
from greenroom.messages.base import Done
from greenroom.messages.mount_namespace import ProcessGone, ProcessSeen, ThreadSeen


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
    assert [(m.pid, m.uid, m.gid, m.tids) for m in seen] == [(pid, 5, 6, (pid,))]
    assert stage.mounts.take(ThreadSeen) == [
        ThreadSeen(pid=pid, tid=tid, gone=False),
        ThreadSeen(pid=pid, tid=tid, gone=True),
    ]
    assert stage.mounts.take(ProcessGone) == [ProcessGone(pid=pid)]


def test_init_is_shown_at_the_start(stage: Any) -> None:
    assert stage.mounts.take(ProcessSeen)[0].pid == 1


# -- under ids that were granted in advance ---------------------------------------------------------------------------


def test_granted_ids_go_on_where_others_ended(stage: Any) -> None:
    parent = stage.create()
    pids, serials = stage.granted()
    assert (pids[0], serials[0]) == (parent + 1, 2)
    assert len(set(pids)) == len(set(serials)) == len(pids)
    assert stage.create() == pids[-1] + 1


def test_a_child_under_a_granted_id_is_as_one_that_was_petitioned_for(stage: Any) -> None:
    parent = stage.create()
    pids, serials = stage.granted()
    stage.forked(parent, pids[0], serials[0])
    petitioned = stage.fork(parent)
    rows = {row.pid: row for row in stage.ask(task_set.ListProcesses()).rows}
    assert (rows[pids[0]].ppid, rows[pids[0]].pgid, rows[pids[0]].sid) == (parent, parent, parent)
    assert (rows[petitioned].ppid, rows[petitioned].pgid) == (parent, parent)
    seen = [m.pid for m in stage.mounts.take(ProcessSeen)]
    assert pids[0] in seen
    stage.exit(pids[0], status=3 << 8)
    assert stage.wait(parent).value == pids[0]


def test_a_thread_under_a_granted_id_is_found(stage: Any) -> None:
    pid = stage.create()
    pids, _ = stage.granted()
    stage.tell(pid, task_set.ThreadBorn, tid=pids[0])
    assert stage.kill(pid, pid, 10, target_tid=pids[0]) == 0
    stage.tell(pid, task_set.ThreadExited, tid=pids[0])
    assert stage.kill(pid, pid, 10, target_tid=pids[0]) == 3


def test_granted_ids_count_as_tasks_and_none_is_granted_beyond_the_limit(stage: Any) -> None:
    parent = stage.create()
    stage.tree.max_tasks = 5
    pids, _ = stage.granted()
    assert len(pids) == 4
    assert stage.call(parent, task_set.RequestThread).errno == EAGAIN
    assert stage.granted() == ((), ())


def test_a_signal_to_many_that_crossed_a_fork_reaches_the_child(stage: Any) -> None:
    """kill(-1) and kill(-pgid) are told to the forker, which has forked before it hears of them."""
    parent, other = stage.create(), stage.create()
    pids, serials = stage.granted()
    assert stage.kill(other, -1, 10) == 0
    assert stage.kill(other, -parent, 12) == 0
    assert stage.kill(other, parent, 15) == 0
    stage.forked(parent, pids[0], serials[0], signals=1)
    assert stage.signals(pids[0]) == [12]
    stage.forked(parent, pids[1], serials[1], signals=3)
    assert stage.signals(pids[1]) == []


def test_a_child_learns_of_a_job_that_changed_meanwhile(stage: Any) -> None:
    leader = stage.create()
    parent = stage.fork(leader)
    pids, serials = stage.granted()
    assert stage.job(leader, "setpgid", parent, parent).errno == 0
    stage.forked(parent, pids[0], serials[0], pgid=leader)
    (job,) = stage.hear(pids[0], thread_group.JobChanged)
    assert (job.pgid, job.sid) == (parent, leader)


def test_a_child_of_the_dying_dies(stage: Any) -> None:
    parent = stage.create()
    pids, serials = stage.granted()
    ended = stage.begin_ask(task_set.KillAll())
    stage.settle()
    stage.forked(parent, pids[0], serials[0])
    assert 9 in stage.signals(pids[0])
    stage.exit(pids[0])
    assert ended == []
    stage.exit(parent)
    assert len(ended) == 1


def test_a_stop_is_complete_when_a_child_that_crossed_it_has_stopped(stage: Any) -> None:
    parent = stage.create()
    pids, serials = stage.granted()
    stage.group(parent).slow = True
    stopped = stage.begin_ask(task_set.StopAll(epoch=1))
    stage.settle()
    child = stage.forked(parent, pids[0], serials[0])
    child.slow = True
    # It petitions: no reason to believe that it is told by itself.
    stage.petition(pids[0], task_set.QueryProcess, pid=parent, attribute="exists")
    stage.group(parent).stop_promise.resolve(Done())
    stage.settle()
    assert stopped == []
    assert child.stop_epoch == 1
    child.stop_promise.resolve(Done())
    stage.settle()
    assert len(stopped) == 1


def test_a_lost_worker_gives_its_ids_back(wide_stage: Any) -> None:
    wide_stage.create()
    wide_stage.granted(1)
    kept, _ = wide_stage.granted(2)
    wide_stage.task_set.node.actor("worker:0").tell("task_set", task_set.WorkerLost(worker=1))
    wide_stage.settle()
    assert tuple(wide_stage.tree.granted) == kept
