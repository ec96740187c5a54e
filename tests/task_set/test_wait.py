"""wait4(2) and waitid(2) report the right child, once, and park until there is one."""

from __future__ import annotations

import struct
from errno import ECHILD, EINTR
from typing import Any

import pytest
from greenroom.messages import kernel, task_set, thread_group

P_ALL, P_PID, P_PGID = 0, 1, 2
WNOHANG, WUNTRACED, WEXITED, WCONTINUED, WNOWAIT = 1, 2, 4, 8, 0x0100_0000
WNOTHREAD, WALL, WCLONE = 0x2000_0000, 0x4000_0000, 0x8000_0000
CLD_EXITED, CLD_KILLED, CLD_DUMPED, CLD_STOPPED, CLD_CONTINUED = 1, 2, 3, 5, 6


@pytest.fixture
def family(stage: Any) -> tuple[Any, int, int]:
    """A stage, a parent, its child."""
    parent = stage.create()
    return stage, parent, stage.fork(parent)


def test_a_wait_with_no_child_is_ECHILD(stage: Any) -> None:
    assert stage.wait(stage.create()).errno == ECHILD


def test_a_zombie_is_reported_and_gone(family: Any) -> None:
    stage, parent, child = family
    stage.exit(child, 3 << 8, user_ns=20_000_000, system_ns=10_000_000, max_rss_kib=99)
    answer = stage.wait(parent)
    assert (answer.value, answer.extra) == (child, (3 << 8, 0, 20_000_000, 10_000_000, 99, CLD_EXITED))
    assert stage.wait(parent).errno == ECHILD


def test_a_wait_is_parked_until_the_child_exits(family: Any) -> None:
    stage, parent, child = family
    number = stage.park(parent)
    stage.exit(child, 9)
    (answer,) = stage.answers(parent)
    assert (answer.petition, answer.value, answer.extra[0], answer.extra[5]) == (number, child, 9, CLD_KILLED)


def test_SIGCHLD_comes_before_the_parked_wait_is_answered(family: Any) -> None:
    stage, parent, child = family
    stage.park(parent)
    stage.group(parent).heard.clear()
    stage.exit(child)
    signal, answer = stage.group(parent).heard
    assert isinstance(signal, thread_group.Signal)
    assert (signal.signo, signal.siginfo) == (answer.signo, answer.siginfo), "one message says both"


def test_SIGCHLD_comes_alone_when_nobody_waits(family: Any) -> None:
    stage, parent, child = family
    stage.group(parent).heard.clear()
    stage.exit(child)
    assert stage.signals(parent) == [17]
    assert stage.wait(parent).signo == 0


def test_SIGCHLD_says_who_and_how(family: Any) -> None:
    """A core dump of user 5 after 0.25 s."""
    stage, parent, child = family
    stage.become(child, 5)
    stage.exit(child, 11 | 0x80, user_ns=200_000_000, system_ns=50_000_000)
    (signal,) = stage.hear(parent, thread_group.Signal)
    assert len(signal.siginfo) == 128
    assert struct.unpack_from("<iii4xiIi4xqq", signal.siginfo) == (17, 0, CLD_DUMPED, child, 5, 11, 20, 5)


def test_WNOHANG_with_living_children_is_0(family: Any) -> None:
    stage, parent, _ = family
    answer = stage.wait(parent, options=WEXITED | WNOHANG)
    assert (answer.value, answer.errno) == (0, 0)


def test_WNOWAIT_leaves_the_zombie(family: Any) -> None:
    stage, parent, child = family
    stage.exit(child)
    for options in (WEXITED | WNOWAIT, WEXITED | WNOWAIT, WEXITED):
        assert stage.wait(parent, options=options).value == child
    assert stage.wait(parent).errno == ECHILD


def test_an_interrupted_wait_is_EINTR(family: Any) -> None:
    stage, parent, child = family
    number = stage.park(parent)
    stage.tell(parent, task_set.WaitCancel, tid=parent, petition=number)
    (answer,) = stage.answers(parent)
    assert answer.errno == EINTR
    stage.exit(child)
    assert stage.answers(parent) == []


def test_an_interruption_after_the_answer_is_ignored(family: Any) -> None:
    stage, parent, child = family
    number = stage.park(parent)
    stage.exit(child)
    stage.answers(parent)
    stage.tell(parent, task_set.WaitCancel, tid=parent, petition=number)
    assert stage.answers(parent) == []


@pytest.mark.parametrize("id_type", [P_PID, P_PGID])
def test_only_the_named_children_count(stage: Any, id_type: int) -> None:
    """Two zombies; the second is in a process group of its own."""
    parent = stage.create()
    first, second = stage.fork(parent), stage.fork(parent)
    assert stage.job(parent, "setpgid", second, 0).errno == 0
    stage.exit(first)
    stage.exit(second)
    assert stage.wait(parent, id_type, second).value == second
    assert stage.wait(parent, id_type, second).errno == ECHILD
    assert stage.wait(parent).value == first


def test_P_PGID_0_is_the_callers_own_group(stage: Any) -> None:
    parent = stage.create()
    other, same = stage.fork(parent), stage.fork(parent)
    stage.job(parent, "setpgid", other, 0)
    stage.exit(other)
    stage.exit(same)
    assert stage.wait(parent, P_PGID, 0).value == same


def test_the_eldest_zombie_is_reported_first(stage: Any) -> None:
    parent = stage.create()
    children = [stage.fork(parent) for _ in range(3)]
    for child in reversed(children):
        stage.exit(child)
    assert [stage.wait(parent).value for _ in children] == children


def test_parked_waits_are_answered_in_the_order_of_their_coming(stage: Any) -> None:
    parent = stage.create()
    tid = stage.thread(parent)
    child = stage.fork(parent)
    stage.park(parent, tid=tid)
    stage.park(parent)
    stage.exit(child)
    assert [(a.tid, a.value, a.errno) for a in stage.answers(parent)] == [(tid, child, 0), (parent, 0, ECHILD)]


@pytest.mark.parametrize(
    ("exit_signal", "options", "found"),
    [
        (17, WEXITED, True),
        (17, WEXITED | WCLONE, False),
        (17, WEXITED | WALL, True),
        (0, WEXITED, False),
        (0, WEXITED | WCLONE, True),
        (0, WEXITED | WALL, True),
        (10, WEXITED, False),
        (10, WEXITED | WCLONE, True),
    ],
)
def test_clone_children_are_seen_as_wait_asks(stage: Any, exit_signal: int, options: int, found: bool) -> None:
    """A child whose exit signal is not SIGCHLD is a "clone" child: __WCLONE or __WALL."""
    parent = stage.create()
    child = stage.fork(parent, exit_signal=exit_signal)
    stage.exit(child)
    assert stage.signals(parent) == ([exit_signal] if exit_signal else [])
    answer = stage.wait(parent, options=options)
    assert (answer.value, answer.errno) == ((child, 0) if found else (0, ECHILD))


def test_WNOTHREAD_sees_the_calling_threads_children_only(stage: Any) -> None:
    parent = stage.create()
    tid = stage.thread(parent)
    child = stage.fork(parent, tid=tid)
    stage.exit(child)
    assert stage.wait(parent, options=WEXITED | WNOTHREAD).errno == ECHILD
    assert stage.wait(parent, options=WEXITED | WNOTHREAD, tid=tid).value == child


def test_children_of_a_dead_thread_are_a_siblings(stage: Any) -> None:
    parent = stage.create()
    tid = stage.thread(parent)
    child = stage.fork(parent, tid=tid)
    stage.tell(parent, task_set.ThreadExited, tid=tid)
    (told,) = stage.hear(child, thread_group.ReparentedTo)
    assert (told.ppid, told.parent_died) == (parent, True)
    stage.exit(child)
    assert stage.wait(parent, options=WEXITED | WNOTHREAD).value == child


# -- stops and continuations --------------------------------------------------------------------------------------


def test_a_stop_is_reported_once(family: Any) -> None:
    stage, parent, child = family
    stage.stop(child, 20)
    answer = stage.wait(parent, options=WEXITED | WUNTRACED)
    assert (answer.value, answer.extra[0], answer.extra[5]) == (child, 20 << 8 | 0x7F, CLD_STOPPED)
    assert stage.wait(parent, options=WEXITED | WUNTRACED | WNOHANG).value == 0


def test_a_stop_is_not_reported_to_a_wait_for_exits(family: Any) -> None:
    stage, parent, child = family
    stage.park(parent)
    stage.stop(child)
    assert stage.answers(parent) == []


def test_a_continuation_is_reported_once(family: Any) -> None:
    stage, parent, child = family
    stage.park(parent, options=WCONTINUED)
    stage.stop(child)
    stage.cont(child)
    (answer,) = stage.answers(parent)
    assert (answer.value, answer.extra[0], answer.extra[5]) == (child, 0xFFFF, CLD_CONTINUED)
    assert stage.wait(parent, options=WCONTINUED | WNOHANG).value == 0


def test_a_continuation_takes_the_unreported_stop_back(family: Any) -> None:
    stage, parent, child = family
    stage.stop(child)
    stage.cont(child)
    assert stage.wait(parent, options=WUNTRACED | WNOHANG).value == 0


def test_a_stop_with_WNOWAIT_stays(family: Any) -> None:
    stage, parent, child = family
    stage.stop(child)
    for options in (WUNTRACED | WNOWAIT, WUNTRACED):
        assert stage.wait(parent, options=options).value == child


def test_a_zombie_gives_no_hope_to_a_wait_for_stops(family: Any) -> None:
    """Native: waitid(P_ALL, 0, WSTOPPED | WNOHANG) with a zombie only is ECHILD."""
    stage, parent, child = family
    stage.exit(child)
    assert stage.wait(parent, options=WUNTRACED | WNOHANG).errno == ECHILD


def test_the_parent_is_told_of_stop_and_continuation(family: Any) -> None:
    stage, parent, child = family
    stage.stop(child, 19)
    stage.cont(child)
    told = [struct.unpack_from("<iii4xiIi", m.siginfo) for m in stage.hear(parent, thread_group.Signal)]
    assert told == [(17, 0, CLD_STOPPED, child, 0, 19), (17, 0, CLD_CONTINUED, child, 0, 18)]


def test_SA_NOCLDSTOP_keeps_stops_quiet(family: Any) -> None:
    stage, parent, child = family
    stage.tell(parent, task_set.ChildDisposition, ignored=False, no_stop=True)
    stage.stop(child)
    stage.cont(child)
    stage.exit(child)
    assert stage.signals(parent) == [17]


# -- autoreaping ------------------------------------------------------------------------------------------------


def test_children_of_who_ignores_SIGCHLD_leave_no_zombie(stage: Any) -> None:
    """And a wait goes on until all are gone, then it is ECHILD."""
    parent = stage.create()
    children = [stage.fork(parent), stage.fork(parent)]
    stage.tell(parent, task_set.ChildDisposition, ignored=True, no_stop=False)
    stage.park(parent)
    stage.exit(children[0])
    assert stage.answers(parent) == []
    stage.exit(children[1])
    (answer,) = stage.answers(parent)
    assert answer.errno == ECHILD


def test_a_zombie_stays_when_SIGCHLD_is_ignored_later(family: Any) -> None:
    stage, parent, child = family
    stage.exit(child)
    stage.tell(parent, task_set.ChildDisposition, ignored=True, no_stop=False)
    assert stage.wait(parent).value == child


def test_ignoring_SIGCHLD_is_inherited(stage: Any) -> None:
    parent = stage.create()
    stage.tell(parent, task_set.ChildDisposition, ignored=True, no_stop=False)
    child = stage.fork(parent)
    grandchild = stage.fork(child)
    stage.exit(grandchild)
    assert stage.wait(child).errno == ECHILD


# -- resources and exit signals -----------------------------------------------------------------------------------


def test_a_waited_childs_resources_count_its_own_waited_children(stage: Any) -> None:
    grandparent = stage.create()
    parent = stage.fork(grandparent)
    for _ in range(2):
        stage.exit(stage.fork(parent), user_ns=100, system_ns=10, max_rss_kib=50)
        stage.wait(parent)
    stage.exit(parent, user_ns=1, system_ns=2, max_rss_kib=3)
    assert stage.wait(grandparent).extra[2:5] == (201, 22, 50)


def test_the_exit_signal_is_SIGCHLD_after_the_parents_exec(stage: Any) -> None:
    parent = stage.create()
    child = stage.fork(parent, exit_signal=10)
    stage.executed(parent)
    stage.exit(child)
    assert stage.signals(parent) == [17]


def test_the_exit_signal_is_SIGCHLD_after_the_childs_exec(stage: Any) -> None:
    parent = stage.create()
    child = stage.fork(parent, exit_signal=10)
    stage.executed(child)
    stage.exit(child)
    assert stage.signals(parent) == [17]


# -- orphans ----------------------------------------------------------------------------------------------------


def test_orphans_go_to_init_and_are_reaped_there(stage: Any) -> None:
    grandparent = stage.create()
    parent = stage.fork(grandparent)
    orphan, zombie = stage.fork(parent), stage.fork(parent)
    stage.exit(zombie)
    stage.exit(parent)
    assert zombie not in stage.tree.by_tid
    (told,) = stage.hear(orphan, thread_group.ReparentedTo)
    assert (told.ppid, told.parent_died) == (1, True)
    stage.exit(orphan)
    assert orphan not in stage.tree.by_tid


def test_orphans_go_to_the_nearest_living_subreaper(stage: Any) -> None:
    far = stage.create()
    near = stage.fork(far)
    middle = stage.fork(near)
    parent = stage.fork(middle)
    orphan, zombie = stage.fork(parent), stage.fork(parent)
    for pid in (far, near):
        stage.tell(pid, task_set.Subreaper, enabled=True)
    stage.exit(zombie, 5 << 8)
    stage.signals(near)
    stage.exit(parent)
    assert stage.hear(orphan, thread_group.ReparentedTo)[0].ppid == near
    assert stage.signals(near) == [17], "the zombie is announced to its new parent"
    assert stage.wait(near, P_PID, zombie).extra[0] == 5 << 8


def test_a_waiting_parent_that_adopts_reaps_its_own_child_first(stage: Any) -> None:
    """Native: a wait sees the whole exit, and the children in the order of their coming."""
    reaper = stage.create()
    stage.tell(reaper, task_set.Subreaper, enabled=True)
    parent = stage.fork(reaper)
    zombie, living = stage.fork(parent), stage.fork(parent)
    stage.exit(zombie)
    stage.park(reaper)
    stage.exit(parent)
    assert [a.value for a in stage.answers(reaper)] == [parent]
    assert stage.wait(reaper).value == zombie
    assert stage.tree.parent_of(stage.tree.by_tid[living]).pid == reaper


def test_an_adopted_childs_exit_signal_is_SIGCHLD(stage: Any) -> None:
    reaper = stage.create()
    stage.tell(reaper, task_set.Subreaper, enabled=True)
    parent = stage.fork(reaper)
    orphan = stage.fork(parent, exit_signal=0)
    stage.exit(parent)
    stage.signals(reaper)
    stage.exit(orphan)
    assert stage.signals(reaper) == [17]


def test_an_exit_from_outside_is_told_to_kernel(stage: Any) -> None:
    pid, other = stage.create(), stage.create()
    stage.exit(pid, 7 << 8, user_ns=1, system_ns=2, max_rss_kib=3)
    told = kernel.ProcessExited(pid=pid, status=7 << 8, user_ns=1, system_ns=2, max_rss_kib=3)
    assert stage.kernel.take(kernel.ProcessExited) == [told]
    assert stage.kernel.take(kernel.AllExited) == []
    stage.exit(other)
    assert stage.kernel.take(kernel.AllExited) == [kernel.AllExited()]


def test_a_lost_workers_groups_die_as_by_SIGKILL(wide_stage: Any) -> None:
    """Nothing is sent to the lost worker; parents elsewhere do not exist, children are in their parent's worker."""
    stage = wide_stage
    pids = [stage.create(worker=n) for n in range(3)]
    lost = stage.tree.by_tid[pids[0]]
    stage.fork(pids[0])
    stage.group(pids[0]).heard.clear()
    stage.kernel.tell("task_set", task_set.WorkerLost(worker=lost.group % 3))
    stage.settle()
    assert [(m.pid, m.status) for m in stage.kernel.take(kernel.ProcessExited)] == [(pids[0], 9)]
    assert [row.pid for row in stage.ask(task_set.ListProcesses()).rows] == [1, *pids[1:]]
    assert stage.node.actor(lost.address).heard == []
