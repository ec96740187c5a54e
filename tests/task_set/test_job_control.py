"""Process groups, sessions, orphans and controlling terminals follow Linux's rules."""

from __future__ import annotations

from errno import EACCES, EINVAL, ENOTTY, EPERM, ESRCH
from typing import Any

import pytest
from greenroom.messages import task_set, thread_group

TTY = 0x8801


@pytest.fixture
def family(stage: Any) -> tuple[Any, int, int]:
    """A stage, a session's leader, its child in the same process group."""
    parent = stage.create()
    return stage, parent, stage.fork(parent)


@pytest.fixture
def shell(stage: Any) -> tuple[Any, int, int]:
    """A stage, a shell with a controlling terminal, and its child in a background process group."""
    parent = stage.create()
    assert stage.job(parent, "tty_acquire", terminal=TTY).errno == 0
    child = stage.fork(parent)
    assert stage.job(parent, "setpgid", child, child).errno == 0
    for pid in (parent, child):
        stage.group(pid).heard.clear()
    return stage, parent, child


def tell(stage: Any, message: Any) -> None:
    """The worker's line discipline tells TaskSet something."""
    stage.workers[0].tell("task_set", message)
    stage.settle()


def last_job(stage: Any, pid: int) -> Any:
    return stage.hear(pid, thread_group.JobChanged)[-1]


# -- setpgid ----------------------------------------------------------------------------------------------------


def test_setpgid_makes_a_group_and_tells_it(family: Any) -> None:
    stage, parent, child = family
    assert stage.job(parent, "setpgid", child, 0).errno == 0
    told = last_job(stage, child)
    assert (told.pgid, told.sid, told.orphaned) == (child, parent, False)
    assert stage.job(parent, "getpgid", child).value == child


def test_setpgid_joins_a_group_of_the_session(family: Any) -> None:
    stage, parent, child = family
    stage.job(child, "setpgid")
    sibling = stage.fork(parent)
    assert stage.job(sibling, "setpgid", 0, child).errno == 0
    assert stage.job(parent, "getpgid", sibling).value == child


def test_setpgid_after_exec_is_EACCES(family: Any) -> None:
    stage, parent, child = family
    stage.executed(child)
    assert stage.job(parent, "setpgid", child, 0).errno == EACCES
    assert stage.job(child, "setpgid").errno == 0


def test_setpgid_of_a_session_leader_is_EPERM(family: Any) -> None:
    stage, parent, _ = family
    assert stage.job(parent, "setpgid").errno == EPERM


def test_setpgid_of_a_child_in_another_session_is_EPERM(family: Any) -> None:
    stage, _parent, child = family
    stage.job(child, "setpgid")
    grandchild = stage.fork(child)
    stage.job(grandchild, "setsid")
    assert stage.job(child, "setpgid", grandchild, 0).errno == EPERM


def test_setpgid_to_a_group_of_another_session_is_EPERM(family: Any) -> None:
    stage, _parent, child = family
    stranger = stage.create()
    assert stage.job(child, "setpgid", 0, stranger).errno == EPERM
    assert stage.job(child, "setpgid", 0, 999).errno == EPERM


def test_setpgid_of_a_stranger_is_ESRCH(family: Any) -> None:
    stage, parent, child = family
    for stranger in (stage.create(), parent, 999, 1):
        assert stage.job(child, "setpgid", stranger, 0).errno == ESRCH


def test_setpgid_of_a_grandchild_is_ESRCH(family: Any) -> None:
    stage, parent, child = family
    assert stage.job(parent, "setpgid", stage.fork(child), 0).errno == ESRCH


def test_setpgid_of_a_thread_is_EINVAL(family: Any) -> None:
    stage, _parent, child = family
    assert stage.job(child, "setpgid", stage.thread(child), 0).errno == EINVAL


def test_setpgid_to_a_negative_group_is_EINVAL(family: Any) -> None:
    stage, _, child = family
    assert stage.job(child, "setpgid", 0, -5).errno == EINVAL


def test_setpgid_of_a_zombie_child_works(family: Any) -> None:
    """Native: setpgid(zombie, zombie) is 0."""
    stage, parent, child = family
    stage.exit(child)
    assert stage.job(parent, "setpgid", child, child).errno == 0
    assert stage.wait(parent, 2, child).value == child


# -- sessions ---------------------------------------------------------------------------------------------------


def test_setsid_makes_a_session_without_a_terminal(shell: Any) -> None:
    stage, parent, _ = shell
    child = stage.fork(parent)
    answer = stage.job(child, "setsid")
    assert (answer.errno, answer.value) == (0, child)
    told = last_job(stage, child)
    assert (told.pgid, told.sid, told.terminal, told.foreground) == (child, child, 0, True)


def test_setsid_of_a_group_leader_is_EPERM(family: Any) -> None:
    stage, parent, child = family
    stage.job(child, "setpgid")
    assert stage.job(child, "setsid").errno == EPERM
    assert stage.job(parent, "setsid").errno == EPERM


def test_setsid_is_EPERM_while_the_own_group_lives_on(family: Any) -> None:
    """The caller has left the group that bears its number."""
    stage, parent, child = family
    stage.job(child, "setpgid")
    grandchild = stage.fork(child)
    stage.job(child, "setpgid", 0, parent)
    assert stage.job(child, "setsid").errno == EPERM
    stage.exit(grandchild)
    stage.wait(child)
    assert stage.job(child, "setsid").errno == 0


def test_getsid_and_getpgid_of_nobody_are_ESRCH(family: Any) -> None:
    stage, parent, child = family
    assert stage.job(child, "getsid", parent).value == parent
    assert stage.job(child, "getsid").value == parent
    for operation in ("getsid", "getpgid"):
        assert stage.job(parent, operation, 999).errno == ESRCH


# -- orphaned process groups --------------------------------------------------------------------------------------


def test_a_stopped_group_that_becomes_orphaned_gets_SIGHUP_and_SIGCONT(family: Any) -> None:
    """Its last connection to another group of the session was the parent that exits."""
    stage, parent, child = family
    stage.job(parent, "setpgid", child, 0)
    grandchild = stage.fork(child)
    stage.stop(grandchild)
    for pid in (child, grandchild):
        stage.group(pid).heard.clear()
    stage.exit(parent)
    assert [stage.signals(pid) for pid in (child, grandchild)] == [[1, 18], [1, 18]]


def test_a_running_group_that_becomes_orphaned_gets_no_signal(family: Any) -> None:
    stage, parent, child = family
    stage.job(parent, "setpgid", child, 0)
    stage.exit(parent)
    assert stage.signals(child) == []
    assert last_job(stage, child).orphaned


def test_a_child_that_leaves_orphans_its_childrens_group(family: Any) -> None:
    """The one that exits is itself the connection: its stopped children are in its own group."""
    stage, parent, child = family
    stage.job(parent, "setpgid", child, 0)
    grandchild = stage.fork(child)
    stage.stop(grandchild)
    stage.signals(grandchild)
    stage.exit(child)
    assert stage.signals(grandchild) == [1, 18]


def test_a_group_with_another_connection_is_not_orphaned(family: Any) -> None:
    stage, parent, child = family
    sibling = stage.fork(parent)
    stage.job(parent, "setpgid", child, 0)
    stage.job(parent, "setpgid", sibling, child)
    stage.stop(child)
    stage.exit(sibling)
    assert stage.signals(child) == []


def test_a_move_that_orphans_a_stopped_group_signals_nobody(family: Any) -> None:
    """setpgid(2) looks at no orphans; only an exit does. The mover, a child of init, joins its own child's group."""
    stage, parent, mover = family
    stage.job(parent, "setpgid", mover, 0)
    child = stage.fork(mover)
    stage.job(mover, "setpgid", child, 0)
    stage.exit(parent)
    stage.stop(child)
    stage.group(child).heard.clear()
    assert stage.job(mover, "setpgid", 0, child).errno == 0
    assert last_job(stage, child).orphaned
    assert stage.signals(child) == []


# -- terminals --------------------------------------------------------------------------------------------------


def test_a_session_leader_acquires_a_terminal(stage: Any) -> None:
    pid = stage.create()
    assert stage.job(pid, "tty_acquire", terminal=TTY).errno == 0
    told = last_job(stage, pid)
    assert (told.terminal, told.foreground) == (TTY, True)
    assert stage.job(pid, "tty_get_pgrp", terminal=TTY).value == pid
    assert stage.job(pid, "tty_get_sid", terminal=TTY).value == pid
    assert stage.job(pid, "tty_acquire", terminal=TTY).errno == 0, "a second time is no error"


def test_a_terminal_is_for_leaders_without_one(shell: Any) -> None:
    stage, parent, child = shell
    assert stage.job(child, "tty_acquire", terminal=TTY + 1).errno == EPERM
    assert stage.job(parent, "tty_acquire", terminal=TTY + 1).errno == EPERM


def test_a_taken_terminal_is_EPERM_unless_root_steals_it(shell: Any) -> None:
    stage, parent, child = shell
    thief, poor = stage.create(), stage.create()
    stage.become(poor, 5)
    assert stage.job(thief, "tty_acquire", terminal=TTY).errno == EPERM
    assert stage.job(poor, "tty_acquire", 1, terminal=TTY).errno == EPERM
    assert stage.job(thief, "tty_acquire", 1, terminal=TTY).errno == 0
    for pid in (parent, child):
        assert last_job(stage, pid).terminal == 0
    assert stage.job(thief, "tty_get_sid", terminal=TTY).value == thief


def test_the_foreground_moves_and_everyone_hears(shell: Any) -> None:
    stage, parent, child = shell
    assert stage.job(parent, "tty_set_pgrp", child, terminal=TTY).errno == 0
    assert not last_job(stage, parent).foreground
    assert last_job(stage, child).foreground
    assert stage.job(child, "tty_get_pgrp", terminal=TTY).value == child


@pytest.mark.parametrize(("pgid", "errno"), [(-1, EINVAL), (999, ESRCH)])
def test_a_wrong_foreground_is_refused(shell: Any, pgid: int, errno: int) -> None:
    stage, parent, _ = shell
    assert stage.job(parent, "tty_set_pgrp", pgid, terminal=TTY).errno == errno


def test_a_foreground_of_another_session_is_EPERM(shell: Any) -> None:
    stage, parent, _ = shell
    assert stage.job(parent, "tty_set_pgrp", stage.create(), terminal=TTY).errno == EPERM


@pytest.mark.parametrize("operation", ["tty_get_pgrp", "tty_set_pgrp", "tty_get_sid", "tty_release"])
def test_another_ones_terminal_is_ENOTTY(shell: Any, operation: str) -> None:
    stage, _, _ = shell
    stranger = stage.create()
    assert stage.job(stranger, operation, terminal=TTY).errno == ENOTTY


def test_the_master_side_may_ask_for_the_foreground(shell: Any) -> None:
    stage, parent, _ = shell
    stranger = stage.create()
    assert stage.job(stranger, "tty_get_pgrp", b=1, terminal=TTY).value == parent
    assert stage.job(stranger, "tty_get_pgrp", b=1, terminal=TTY + 1).value == 0
    assert stage.job(stranger, "tty_get_sid", b=1, terminal=TTY + 1).errno == ENOTTY


def test_a_member_gives_the_terminal_up_for_itself(shell: Any) -> None:
    stage, parent, child = shell
    assert stage.job(child, "tty_release", terminal=TTY).errno == 0
    assert last_job(stage, child).terminal == 0
    assert stage.signals(parent) == []
    assert stage.job(parent, "tty_get_sid", terminal=TTY).value == parent


def test_a_leader_that_gives_it_up_hangs_up_the_foreground(shell: Any) -> None:
    """Native: TIOCNOTTY sends the foreground SIGHUP and SIGCONT."""
    stage, parent, child = shell
    stage.job(parent, "tty_set_pgrp", child, terminal=TTY)
    assert stage.job(parent, "tty_release", terminal=TTY).errno == 0
    assert [stage.signals(pid) for pid in (parent, child)] == [[], [1, 18]]
    assert last_job(stage, child).terminal == 0


def test_a_leader_that_exits_hangs_up_the_foreground(shell: Any) -> None:
    """Native, with a pseudo-terminal: SIGHUP alone to a running foreground."""
    stage, parent, child = shell
    stage.job(parent, "tty_set_pgrp", child, terminal=TTY)
    stage.exit(parent)
    assert stage.signals(child) == [1]
    told = last_job(stage, child)
    assert (told.terminal, told.orphaned) == (0, True)


def test_a_stopped_foreground_of_an_exiting_leader_gets_SIGCONT_too(shell: Any) -> None:
    """Native: SIGHUP, and SIGHUP with SIGCONT as an orphaned process group."""
    stage, parent, child = shell
    stage.job(parent, "tty_set_pgrp", child, terminal=TTY)
    stage.stop(child)
    stage.exit(parent)
    assert stage.signals(child) == [1, 1, 18]


def test_a_hangup_reaches_leader_and_foreground(shell: Any) -> None:
    stage, parent, child = shell
    stage.job(parent, "tty_set_pgrp", child, terminal=TTY)
    tell(stage, task_set.TerminalHangup(terminal=TTY))
    assert [stage.signals(pid) for pid in (parent, child)] == [[1, 18], [1]]
    assert stage.tree.terminals == {}


def test_the_line_discipline_signals_the_foreground(shell: Any) -> None:
    stage, parent, child = shell
    stage.job(parent, "tty_set_pgrp", child, terminal=TTY)
    tell(stage, task_set.TerminalSignal(terminal=TTY, signo=2))
    assert [stage.signals(pid) for pid in (parent, child)] == [[], [2]]


def test_a_terminal_is_inherited(shell: Any) -> None:
    stage, parent, _ = shell
    child = stage.fork(parent)
    assert stage.job(child, "tty_get_pgrp", terminal=TTY).value == parent
