"""The spawner's children never outlive it, nor it its supervisor."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import fake_sandbox
from hosts import LIMIT_S, start_script, wait_for_death

if TYPE_CHECKING:
    from hosts import TurnedHost

_SLEEP = "fake_sandbox:report_pid_and_sleep"


def start_sleeper(turned: TurnedHost, exited: list[int]) -> tuple[int, int]:
    """Spawn a child that sleeps; return its process id as the spawner said it and as it said it itself."""
    out, into = os.pipe()
    pids: list[int] = []

    def spawned(pid: int, pidfd: int) -> None:
        pids.append(pid)
        os.close(pidfd)

    turned.spawner.spawn(_SLEEP, b"", [2, into], spawned, exited.append)
    os.close(into)
    turned.until(lambda: bool(pids))
    with open(out) as said:
        return pids[0], int(said.readline())


def test_a_child_gets_its_descriptors_and_its_end_is_reported(turned: TurnedHost) -> None:
    exited: list[int] = []
    pid, said = start_sleeper(turned, exited)
    assert pid == said
    os.kill(pid, signal.SIGTERM)
    turned.until(lambda: bool(exited))
    assert os.WTERMSIG(exited[0]) == signal.SIGTERM


def test_a_child_gets_its_configuration(turned: TurnedHost) -> None:
    exited: list[int] = []
    turned.spawner.spawn(
        f"{fake_sandbox.__name__}:exit_with_config", b"17", [2], lambda _pid, fd: os.close(fd), exited.append
    )
    turned.until(lambda: bool(exited))
    assert os.waitstatus_to_exitcode(exited[0]) == 17


def test_a_child_is_a_session_leader_with_nothing_inherited(turned: TurnedHost) -> None:
    secret, other = os.pipe()
    os.set_inheritable(secret, True)
    pid, _ = start_sleeper(turned, [])
    assert os.getsid(pid) == pid
    links = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    assert os.readlink(f"/proc/self/fd/{secret}") not in links
    assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
    os.close(secret)
    os.close(other)


def test_children_die_with_the_spawner(turned: TurnedHost) -> None:
    pid, _ = start_sleeper(turned, [])
    os.kill(turned.spawner.pid, signal.SIGKILL)
    wait_for_death(pid)


_SUPERVISOR = """
import os, sys
from greenroom.actors.runtime.loop import Loop
from greenroom.supervisor.spawner import prepare
directory, spawner = prepare(())
loop = Loop()
spawner.attach(loop, lambda: None)
for _ in range(2):
    spawner.spawn("fake_sandbox:report_pid_and_sleep", b"", [2, 1], lambda pid, fd: None, lambda status: None)
print(spawner.pid, flush=True)
loop.run()
"""


def test_nothing_outlives_a_killed_supervisor() -> None:
    with start_script(_SUPERVISOR) as supervisor:
        assert supervisor.stdout is not None
        pids = [int(supervisor.stdout.readline()) for _ in range(3)]
        supervisor.kill()
        supervisor.wait(LIMIT_S)
        for pid in pids:
            wait_for_death(pid)


def test_what_a_child_leaves_behind_is_killed_and_reaped(turned: TurnedHost) -> None:
    """A grandchild whose parent has gone is the spawner's; it must neither live on nor stay a zombie."""
    out, into = os.pipe()
    exited: list[int] = []
    entry = f"{fake_sandbox.__name__}:leave_an_orphan"
    turned.spawner.spawn(entry, b"", [2, into], lambda _pid, fd: os.close(fd), exited.append)
    os.close(into)
    turned.until(lambda: bool(exited))
    with open(out) as said:
        orphan = int(said.readline())
    wait_for_death(orphan)
