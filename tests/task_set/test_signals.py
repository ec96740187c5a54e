"""kill(2) reaches whom Linux lets it reach."""

from __future__ import annotations

from errno import EINVAL, ENOENT, EPERM, ESRCH
from typing import Any

import pytest
from greenroom.messages import task_set, thread_group


def external(stage: Any, pid: int, signo: int, *, foreground: bool = False) -> None:
    stage.ask(task_set.SendExternalSignal(pid=pid, signo=signo, foreground=foreground))


def test_the_signal_comes_before_the_senders_answer(stage: Any) -> None:
    pid = stage.create()
    stage.group(pid).heard.clear()
    stage.kill(pid, 0)
    assert isinstance(stage.group(pid).heard[0], thread_group.Signal)


def test_kill_of_a_process_carries_the_siginfo(stage: Any) -> None:
    pid, target = stage.create(), stage.create()
    assert stage.kill(pid, target, 10) == 0
    (signal,) = stage.hear(target, thread_group.Signal)
    assert (signal.tid, signal.signo, signal.siginfo[:4]) == (0, 10, b"\x0a\0\0\0")


def test_kill_of_nobody_is_ESRCH(stage: Any) -> None:
    pid = stage.create()
    for target in (99, -99, -(1 << 31)):
        assert stage.kill(pid, target) == ESRCH


@pytest.mark.parametrize("signo", [-1, 65])
def test_an_impossible_signal_is_EINVAL(stage: Any, signo: int) -> None:
    pid = stage.create()
    fields = {"target_tid": 0, "signo": signo, "siginfo": bytes(128)}
    assert stage.call(pid, task_set.Kill, pid=pid, **fields).errno == EINVAL


def test_signal_0_asks_only(stage: Any) -> None:
    pid, target = stage.create(), stage.create()
    assert stage.kill(pid, target, 0) == 0
    assert stage.signals(target) == []


def test_kill_of_a_zombie_succeeds(stage: Any) -> None:
    """Native: kill(zombie, 0) is 0."""
    parent = stage.create()
    child = stage.fork(parent)
    stage.exit(child)
    assert stage.kill(parent, child, 9) == 0


def test_kill_of_init_is_accepted_and_ignored(stage: Any) -> None:
    pid = stage.create()
    assert stage.kill(pid, 1, 9) == 0
    assert stage.job(pid, "getpgid", 1).value == 1


def test_kill_by_a_thread_id_reaches_its_process(stage: Any) -> None:
    pid, target = stage.create(), stage.create()
    tid = stage.thread(target)
    assert stage.kill(pid, tid, 10) == 0
    assert stage.signals(target) == [10]


@pytest.mark.parametrize(
    ("sender", "target", "allowed"),
    [
        ((0, 0, 0), (5, 5, 5), True),
        ((5, 5, 5), (0, 0, 0), False),
        ((5, 5, 5), (5, 0, 0), True),
        ((5, 5, 5), (0, 5, 0), False),
        ((5, 5, 5), (0, 0, 5), True),
        ((6, 5, 6), (5, 0, 0), True),
        ((5, 6, 5), (0, 0, 5), True),
        ((7, 7, 5), (5, 5, 5), False),
    ],
)
def test_permission_is_by_real_or_effective_against_real_or_saved_id(
    stage: Any, sender: tuple[int, ...], target: tuple[int, ...], allowed: bool
) -> None:
    """The target's effective id and the sender's saved id do not count."""
    one, other = stage.create(), stage.create()
    stage.tell(other, task_set.CredentialsChanged, uids=target, gids=target)
    stage.tell(one, task_set.CredentialsChanged, uids=sender, gids=sender)
    assert stage.kill(one, other) == (0 if allowed else EPERM)


def test_SIGCONT_is_allowed_within_a_session(stage: Any) -> None:
    parent, stranger = stage.create(), stage.create()
    child = stage.fork(parent)
    stage.become(child, 5)
    assert stage.kill(child, parent, 18) == 0
    assert stage.kill(child, parent, 15) == EPERM
    assert stage.kill(child, stranger, 18) == EPERM


def test_kill_0_reaches_the_own_process_group(stage: Any) -> None:
    parent, stranger = stage.create(), stage.create()
    same, other = stage.fork(parent), stage.fork(parent)
    stage.job(parent, "setpgid", other, 0)
    assert stage.kill(same, 0, 10) == 0
    assert [stage.signals(pid) for pid in (parent, same, other, stranger)] == [[10], [10], [], []]


def test_kill_of_a_group_succeeds_if_one_member_may_be_signalled(stage: Any) -> None:
    parent = stage.create()
    children = [stage.fork(parent), stage.fork(parent)]
    for pid in children:
        stage.become(pid, 5)
    stage.become(parent, 6)
    assert stage.kill(children[0], -parent, 10) == 0
    assert [stage.signals(pid) for pid in (parent, *children)] == [[], [10], [10]]


def test_kill_of_a_group_whose_members_all_refuse_is_EPERM(stage: Any) -> None:
    one, other = stage.create(), stage.create()
    stage.become(one, 5)
    assert stage.kill(one, -other) == EPERM


def test_kill_minus_1_reaches_everyone_but_init_and_the_caller(stage: Any) -> None:
    pids = [stage.create() for _ in range(3)]
    child = stage.fork(pids[0])
    assert stage.kill(pids[0], -1, 10) == 0
    assert [stage.signals(pid) for pid in (*pids, child)] == [[], [10], [10], [10]]


def test_kill_minus_1_with_nobody_else_is_ESRCH(stage: Any) -> None:
    assert stage.kill(stage.create(), -1) == ESRCH


def test_kill_minus_1_that_everybody_refuses_is_no_error(stage: Any) -> None:
    """Linux counts a refusal as a target but keeps no error of it."""
    one, other = stage.create(), stage.create()
    stage.become(one, 5)
    assert stage.kill(one, -1) == 0
    assert stage.signals(other) == []


def test_tgkill_reaches_one_thread(stage: Any) -> None:
    pid, target = stage.create(), stage.create()
    tid = stage.thread(target)
    assert stage.kill(pid, target, 10, target_tid=tid) == 0
    (signal,) = stage.hear(target, thread_group.Signal)
    assert (signal.tid, signal.signo) == (tid, 10)


def test_tgkill_of_another_processs_thread_is_ESRCH(stage: Any) -> None:
    pid, target = stage.create(), stage.create()
    assert stage.kill(pid, pid, 10, target_tid=target) == ESRCH


def test_tkill_needs_no_process_id(stage: Any) -> None:
    pid, target = stage.create(), stage.create()
    assert stage.kill(pid, 0, 10, target_tid=target) == 0
    assert stage.signals(target) == [10]


# -- from outside -----------------------------------------------------------------------------------------------


def test_an_external_signal_reaches_a_process_a_group_or_all(stage: Any) -> None:
    one, other = stage.create(), stage.create()
    child = stage.fork(one)
    external(stage, other, 10)
    external(stage, -one, 12)
    external(stage, 0, 15)
    assert [stage.signals(pid) for pid in (one, child, other)] == [[12, 15], [12, 15], [10, 15]]


@pytest.mark.parametrize(
    ("pid", "signo", "errno"), [(99, 15, ESRCH), (-99, 15, ESRCH), (2, 0, EINVAL), (2, 65, EINVAL)]
)
def test_a_wrong_external_signal_is_an_errno(stage: Any, pid: int, signo: int, errno: int) -> None:
    stage.create()
    with pytest.raises(OSError, match="no ") as caught:
        external(stage, pid, signo)
    assert caught.value.errno == errno


def test_an_external_signal_reaches_the_terminals_foreground(stage: Any) -> None:
    shell = stage.create()
    stage.job(shell, "tty_acquire", terminal=88)
    child = stage.fork(shell)
    stage.job(shell, "setpgid", child, 0)
    stage.job(shell, "tty_set_pgrp", child, terminal=88)
    external(stage, shell, 2, foreground=True)
    assert [stage.signals(pid) for pid in (shell, child)] == [[], [2]]


def test_a_pidfd_names_a_process_and_not_who_has_its_number_later(stage: Any) -> None:
    pid, target = stage.create(), stage.create()
    serial = stage.call(pid, task_set.QueryProcess, pid=target, attribute="pidfd").value
    fields = {"pid": target, "target_tid": 0, "signo": 10, "siginfo": bytes(128)}
    assert stage.call(pid, task_set.Kill, target_group=serial + 1, **fields).errno == ESRCH
    assert stage.call(pid, task_set.Kill, target_group=serial, **fields).errno == 0


def test_a_pidfd_of_a_thread_is_ENOENT(stage: Any) -> None:
    pid = stage.create()
    tid = stage.thread(pid)
    assert stage.call(pid, task_set.QueryProcess, pid=tid, attribute="pidfd").errno == ENOENT
