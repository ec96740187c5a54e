"""A sandbox from its making to its end, with a fake kernel; whatever ends it, it ends at once and says why."""

from __future__ import annotations

import dataclasses
import gc
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
from greenroom.messages import supervisor as messages
from greenroom.messages.base import Done, Failed
from greenroom.supervisor.state import TRANSITIONS, State, advance
from hosts import command, wait_for_death

if TYPE_CHECKING:
    from greenroom.config.spec import SandboxSpec
    from hosts import TurnedHost


def create(turned: TurnedHost, spec: SandboxSpec) -> str:
    reply = turned.request(messages.CreateSandbox(spec=spec))
    assert isinstance(reply, messages.SandboxCreated), reply
    return reply.sandbox


def execute(turned: TurnedHost, name: str, program: str) -> Any:
    return turned.request(messages.Execute(sandbox=name, command=command(program), streams=0))


def wait_end(turned: TurnedHost, name: str) -> messages.EndReport:
    reply = turned.request(messages.WaitSandbox(sandbox=name))
    assert isinstance(reply, messages.EndReport), reply
    return reply


def test_programs_run_and_their_statuses_are_kept(turned: TurnedHost, spec: SandboxSpec) -> None:
    name = create(turned, spec)
    for program, status in (("exit:3", 3 << 8), ("signal:9", 9), ("exit:0", 0)):
        pid = execute(turned, name, program).pid
        wait = messages.WaitProcess(sandbox=name, pid=pid, block=True)
        assert turned.request(wait) == messages.ProcessEnded(status=status)
    assert turned.request(messages.KillSandbox(sandbox=name)) == Done()
    late = messages.WaitProcess(sandbox=name, pid=pid, block=True)
    assert turned.request(late) == messages.ProcessEnded(status=0)


def test_a_program_that_cannot_be_executed_leaves_the_sandbox_usable(turned: TurnedHost, spec: SandboxSpec) -> None:
    name = create(turned, spec)
    for program, number in (("missing", 2), ("denied", 13)):
        reply = execute(turned, name, program)
        assert (reply.kind, reply.errno) == ("ExecError", number)
    assert isinstance(execute(turned, name, "exit:0"), messages.ProcessStarted)


def test_a_running_program_is_not_waited_for_without_block(turned: TurnedHost, spec: SandboxSpec) -> None:
    name = create(turned, spec)
    pid = execute(turned, name, "sleep").pid
    assert turned.request(messages.WaitProcess(sandbox=name, pid=pid, block=False)) == messages.ProcessEnded(status=-1)
    signal_ = messages.SignalProcess(sandbox=name, pid=0, signo=15, foreground=False)
    assert turned.request(signal_) == Done()
    assert turned.request(messages.WaitProcess(sandbox=name, pid=pid, block=True)) == messages.ProcessEnded(status=15)
    again = turned.request(signal_)
    assert isinstance(again, Failed)
    assert again.kind == "ProcessLookupFailed"


def test_pauses_nest(turned: TurnedHost, spec: SandboxSpec) -> None:
    name = create(turned, spec)

    def state() -> str:
        described = turned.request(messages.DescribeSandbox(sandbox=name))
        assert isinstance(described, messages.SandboxDescription)
        return described.row.state

    for expected in ("paused", "paused"):
        turned.request(messages.PauseSandbox(sandbox=name))
        assert state() == expected
    for expected in ("paused", "running"):
        turned.request(messages.ResumeSandbox(sandbox=name))
        assert state() == expected


def test_names_are_unique_while_a_sandbox_runs(turned: TurnedHost, spec: SandboxSpec) -> None:
    name = create(turned, spec)
    again = turned.request(messages.CreateSandbox(spec=spec))
    assert isinstance(again, Failed)
    assert again.kind == "NameInUse"
    turned.request(messages.KillSandbox(sandbox=name))
    assert create(turned, spec) == name


def test_unnamed_sandboxes_get_names_and_are_listed(turned: TurnedHost, spec: SandboxSpec) -> None:
    unnamed = dataclasses.replace(spec, name="")
    names = [create(turned, unnamed) for _ in range(2)]
    listed = turned.request(messages.ListSandboxes())
    assert isinstance(listed, messages.SandboxList)
    assert [row.sandbox for row in listed.rows] == names


@pytest.mark.parametrize("victim", ["kernel", "worker:0", "sandbox"])
def test_a_killed_process_ends_its_sandbox_and_no_other(turned: TurnedHost, spec: SandboxSpec, victim: str) -> None:
    name = create(turned, spec)
    other = create(turned, dataclasses.replace(spec, name="other"))
    pids = turned.host.sandbox(name).host_pids
    if victim not in pids:
        pytest.skip("the other placement has this process")
    pid = execute(turned, name, "sleep").pid
    os.kill(pids[victim], signal.SIGKILL)
    report = wait_end(turned, name)
    assert report.cause == "failed"
    assert report.reason == f"its {victim} process died (killed by signal 9)"
    for process in pids.values():
        wait_for_death(process)
    waited = turned.request(messages.WaitProcess(sandbox=name, pid=pid, block=True))
    assert isinstance(waited, Failed)
    assert waited.kind == "SandboxFailed"
    assert isinstance(execute(turned, other, "exit:0"), messages.ProcessStarted)


def test_a_killed_spawner_ends_every_sandbox(turned: TurnedHost, spec: SandboxSpec) -> None:
    name = create(turned, spec)
    pids = turned.host.sandbox(name).host_pids
    os.kill(turned.spawner.pid, signal.SIGKILL)
    report = wait_end(turned, name)
    assert report.cause == "failed"
    for process in pids.values():
        wait_for_death(process)
    refused = turned.request(messages.CreateSandbox(spec=spec))
    assert isinstance(refused, Failed)
    assert refused.kind == "SandboxFailed"


def test_a_bug_in_an_actor_ends_its_sandbox_with_the_reason(turned: TurnedHost, spec: SandboxSpec) -> None:
    name = create(turned, spec)
    execute(turned, name, "bug")
    report = wait_end(turned, name)
    assert report.cause == "failed"
    assert report.reason == "kernel: AssertionError: an invariant"


def test_the_time_limit_ends_a_sandbox(turned: TurnedHost, spec: SandboxSpec) -> None:
    name = create(turned, dataclasses.replace(spec, timeout_ns=1))
    report = wait_end(turned, name)
    assert (report.cause, report.reason) == ("timeout", "its time limit of 1e-09 s has passed")


def test_requests_to_an_ended_sandbox_say_why_it_ended(turned: TurnedHost, spec: SandboxSpec) -> None:
    name = create(turned, spec)
    turned.request(messages.KillSandbox(sandbox=name))
    reply = turned.request(messages.PauseSandbox(sandbox=name))
    assert isinstance(reply, Failed)
    assert (reply.kind, reply.text) == ("SandboxEnded", "sandbox 'box' has ended: killed by request")
    unknown = turned.request(messages.PauseSandbox(sandbox="unknown"))
    assert isinstance(unknown, Failed)
    assert unknown.kind == "SandboxNotFound"


def test_an_ended_sandbox_leaves_no_descriptor(turned: TurnedHost, spec: SandboxSpec) -> None:
    def live_and_die() -> None:
        name = create(turned, spec)
        execute(turned, name, "exit:0")
        turned.request(messages.KillSandbox(sandbox=name))

    live_and_die()  # what is opened once and for all is open now
    gc.collect()  # what other tests left
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        live_and_die()
    # A thread of ZeroMQ closes what belonged to a socket.
    turned.until(lambda: len(os.listdir("/proc/self/fd")) <= before)


def test_states_advance_only_as_the_table_says() -> None:
    for old in State:
        for new in State:
            if new in TRANSITIONS[old]:
                assert advance(old, new) is new
            else:
                with pytest.raises(RuntimeError):
                    advance(old, new)
