"""A sandbox is set up, started once, paused and unpaused, and ends with a reason."""

from __future__ import annotations

from typing import Any

import pytest
from greenroom.actors.kernel.lifecycle import TRANSITIONS, SandboxState
from greenroom.actors.runtime.actor import Refused
from greenroom.messages import kernel, mount_namespace, supervisor, task_set
from greenroom.messages.base import Done
from greenroom.messages.thread_group import ClockParameters

SECOND = 10**9


# -- set-up -----------------------------------------------------------------------------------------------------


def test_init_makes_mounts_and_tells_everybody(stage: Any) -> None:
    stage.init(max_tasks=50)
    assert stage.mounts.take(mount_namespace.SetUpMounts)[0].hostname == "host"
    (told,) = stage.asked(task_set.InitTaskSet)
    assert (told.mount_namespace, told.root, told.max_tasks) == ("mount_namespace:1", 7, 50)
    assert len(stage.worker.take(ClockParameters)) == 1
    assert stage.state() == "created"


@pytest.mark.parametrize(
    "wrong", [{"sandbox": ""}, {"mounts": ()}, {"workers": 0}, {"application_cores": 0}, {"max_tasks": -1}]
)
def test_a_wrong_argument_of_init_is_refused(stage: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(Refused):
        stage.init(**wrong)
    assert stage.state() == "new"


def test_a_second_init_is_refused(stage: Any) -> None:
    stage.init()
    with pytest.raises(Refused, match="created"):
        stage.init()


# -- processes --------------------------------------------------------------------------------------------------


def test_create_process_before_init_is_refused(stage: Any) -> None:
    with pytest.raises(Refused, match="no mount namespace"):
        stage.create()


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"working_directory": "relative"}, "not an absolute path"),
        ({"working_directory": ""}, "not an absolute path"),
        ({"filename": "", "argv": ()}, "no filename or command"),
    ],
)
def test_wrong_arguments_of_a_process_are_refused(stage: Any, wrong: dict[str, Any], text: str) -> None:
    stage.init()
    with pytest.raises(Refused, match=text):
        stage.create(**wrong)


def test_a_program_that_is_missing_is_its_errno(stage: Any) -> None:
    stage.init()
    with pytest.raises(FileNotFoundError):
        stage.create(filename="/missing")


def test_a_process_gets_the_sandboxs_names_cores_and_limits(stage: Any) -> None:
    stage.init()
    stage.create(limits={3: 5})
    (asked,) = stage.asked(task_set.CreateProcess)
    uts = asked.arguments.uts
    assert (uts.sysname, uts.nodename, uts.domainname, uts.release) == ("Linux", "host", "domain", "6.18.0")
    assert asked.arguments.application_cores == 2
    assert asked.arguments.limits == {7: 64, 3: 5}


def test_start_runs_every_created_process(stage: Any) -> None:
    stage.init()
    pids = [stage.create(), stage.create()]
    stage.ask(kernel.Start())
    assert [m.pid for m in stage.asked(task_set.StartProcess)] == pids
    assert stage.state() == "running"


def test_a_second_start_is_refused(stage: Any) -> None:
    stage.run()
    with pytest.raises(Refused, match="already started"):
        stage.ask(kernel.Start())


def test_start_without_tasks_is_refused(stage: Any) -> None:
    stage.init()
    with pytest.raises(Refused, match="no tasks"):
        stage.ask(kernel.Start())


def test_a_process_created_after_start_waits_for_its_own_start(stage: Any) -> None:
    stage.run()
    stage.asked(task_set.StartProcess)
    pid = stage.create()
    assert stage.asked(task_set.StartProcess) == []
    stage.ask(kernel.StartProcess(pid=pid))
    assert [m.pid for m in stage.asked(task_set.StartProcess)] == [pid]


def test_starting_a_process_of_a_sandbox_that_has_not_started_is_refused(stage: Any) -> None:
    stage.init()
    with pytest.raises(Refused, match="not started"):
        stage.ask(kernel.StartProcess(pid=stage.create()))


def test_an_external_signal_is_passed_on(stage: Any) -> None:
    pid = stage.run()
    stage.ask(kernel.SendExternalSignal(pid=pid, signo=15, foreground=True))
    assert stage.asked(task_set.SendExternalSignal) == [task_set.SendExternalSignal(pid=pid, signo=15, foreground=True)]


def test_info_counts_processes_without_init(stage: Any) -> None:
    stage.run()
    stage.host.pass_ns(5 * SECOND)
    info = stage.ask(kernel.GetInfo())
    assert (info.state, info.processes, info.threads, info.pauses) == ("running", 1, 2, 0)
    assert (info.uptime_ns, info.hostname, info.application_cores) == (5 * SECOND, "host", 2)


# -- pauses -----------------------------------------------------------------------------------------------------


def test_a_pause_stops_tasks_then_clocks(stage: Any) -> None:
    stage.run()
    stage.task_set.slow = True
    outcome = stage.begin_ask(kernel.Pause())
    stage.settle()
    assert outcome == []
    assert stage.timekeeper.clocks.frozen_at_ns is None
    stage.host.pass_ns(SECOND)
    stage.task_set.promise.resolve(Done())
    stage.settle()
    assert outcome == [(Done(), None)]
    assert stage.timekeeper.clocks.frozen_at_ns == SECOND
    assert stage.state() == "paused"


def test_pauses_are_counted(stage: Any) -> None:
    stage.run()
    for _ in range(3):
        stage.ask(kernel.Pause())
    assert len(stage.asked(task_set.StopAll)) == 1
    for _ in range(2):
        stage.ask(kernel.Unpause())
        assert stage.state() == "paused"
    assert stage.asked(task_set.ResumeAll) == []
    stage.ask(kernel.Unpause())
    assert stage.state() == "running"
    assert len(stage.asked(task_set.ResumeAll)) == 1
    assert stage.timekeeper.clocks.frozen_at_ns is None


def test_every_stop_has_its_own_epoch(stage: Any) -> None:
    stage.run()
    for _ in range(2):
        stage.ask(kernel.Pause())
        stage.ask(kernel.Unpause())
    assert [m.epoch for m in stage.asked(task_set.StopAll)] == [1, 2]
    assert [m.epoch for m in stage.asked(task_set.ResumeAll)] == [1, 2]


def test_an_unpause_without_a_pause_is_refused(stage: Any) -> None:
    stage.run()
    with pytest.raises(Refused, match="not paused"):
        stage.ask(kernel.Unpause())


def test_a_sandbox_may_be_paused_before_its_start(stage: Any) -> None:
    stage.init()
    stage.create()
    stage.ask(kernel.Pause())
    stage.ask(kernel.Start())
    assert stage.state() == "paused"
    stage.ask(kernel.Unpause())
    assert stage.state() == "running"


def test_requests_wait_in_order_while_one_is_in_progress(stage: Any) -> None:
    """extMu's job is the inbox's."""
    pid = stage.run()
    stage.task_set.slow = True
    paused = stage.begin_ask(kernel.Pause())
    signalled = stage.begin_ask(kernel.SendExternalSignal(pid=pid, signo=1, foreground=False))
    stage.settle()
    assert stage.asked(task_set.SendExternalSignal) == []
    stage.task_set.promise.resolve(Done())
    stage.settle()
    assert (len(paused), len(signalled)) == (1, 1)


# -- the end ----------------------------------------------------------------------------------------------------


def exits(stage: Any) -> list[tuple[str, int, bool]]:
    return [(m.reason, m.status, m.failed) for m in stage.supervisor.take(supervisor.SandboxExited)]


def test_the_supervisor_hears_of_processes_and_of_the_last(stage: Any) -> None:
    """The sandbox's status is that of its first process."""
    first = stage.run()
    second = stage.create()
    stage.exit(first, 3 << 8)
    assert stage.supervisor.take(supervisor.ProcessExited) == [
        supervisor.ProcessExited(sandbox="box", pid=first, status=3 << 8, user_ns=1, system_ns=2, max_rss_kib=3)
    ]
    assert exits(stage) == []
    stage.exit(second, 0)
    assert exits(stage) == [("every process has exited", 3 << 8, False)]
    assert stage.state() == "exited"


def test_a_sandbox_whose_processes_have_exited_may_run_another(stage: Any) -> None:
    stage.exit(stage.run())
    pid = stage.create()
    assert stage.state() == "running"
    stage.ask(kernel.StartProcess(pid=pid))
    stage.exit(pid)
    assert len(exits(stage)) == 2


def test_an_end_that_a_new_process_overtakes_is_none(stage: Any) -> None:
    """AllExited was sent before the new process was there."""
    stage.run()
    stage.create()
    stage.task_set.tell("kernel", kernel.AllExited())
    stage.settle()
    assert exits(stage) == []


def test_who_asks_late_for_the_end_is_told_at_once(stage: Any) -> None:
    stage.exit(stage.run())
    exits(stage)
    stage.ask(kernel.WaitExited())
    assert len(exits(stage)) == 1


def test_a_kill_ends_the_sandbox_for_good(stage: Any) -> None:
    stage.run()
    stage.ask(kernel.KillSandbox(status=9, reason="time is up"))
    heard = [type(m) for m in stage.supervisor.heard]
    assert heard == [supervisor.ProcessExited, supervisor.SandboxExited]
    assert exits(stage) == [("time is up", 9, False)]
    assert stage.state() == "exited"
    with pytest.raises(Refused, match="exited"):
        stage.create()


def test_a_paused_sandbox_can_be_killed(stage: Any) -> None:
    stage.run()
    stage.ask(kernel.Pause())
    stage.ask(kernel.KillSandbox(status=9, reason="enough"))
    assert exits(stage) == [("enough", 9, False)]


def test_a_kill_of_an_empty_sandbox_ends_it_too(stage: Any) -> None:
    stage.init()
    stage.ask(kernel.KillSandbox(status=9, reason="unused"))
    assert exits(stage) == [("unused", 9, False)]


def test_a_dead_worker_ends_the_sandbox_as_failed(stage: Any) -> None:
    stage.run()
    stage.supervisor.tell("kernel", kernel.WorkerDied(worker=0, reason="SIGSEGV"))
    stage.settle()
    assert stage.asked(task_set.WorkerLost) == [task_set.WorkerLost(worker=0)]
    assert exits(stage) == [("worker 0 died: SIGSEGV", 9, True)]


def test_a_failed_actor_ends_the_sandbox_as_failed(stage: Any) -> None:
    stage.run()
    stage.worker.tell("kernel", kernel.ReportFailure(address="thread_group:1", reason="AssertionError: x"))
    stage.settle()
    assert exits(stage) == [("thread_group:1 failed: AssertionError: x", 9, True)]


def test_a_failed_task_set_ends_the_sandbox_as_failed(stage: Any) -> None:
    """Nobody is left to say that all have exited."""
    stage.run()
    stage.task_set.stop()
    stage.settle()
    stage.worker.tell("kernel", kernel.ReportFailure(address="task_set", reason="KeyError: 1"))
    stage.settle()
    assert exits(stage) == [("task_set failed: KeyError: 1", 9, True)]


def test_destroy_kills_and_ends(stage: Any) -> None:
    stage.run()
    stage.ask(kernel.Destroy())
    assert stage.task_set.living == {}
    assert stage.state() == "destroyed"
    stage.ask(kernel.Destroy())


def test_the_table_names_every_state() -> None:
    assert set(TRANSITIONS) == set(SandboxState)
