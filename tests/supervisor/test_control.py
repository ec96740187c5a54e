"""The control API between processes: requests, descriptors, several threads, and what happens when a side dies."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

import pytest
import zmq
from greenroom.config.spec import SandboxSpec
from greenroom.messages import supervisor as messages
from greenroom.messages.base import Done
from greenroom.supervisor.errors import ExecError, NameInUse, SandboxNotFound, SupervisorError, TimedOut
from greenroom.supervisor.places import CONTROL_SOCKET
from greenroom.supervisor.program import Process
from greenroom.supervisor.runtime_directory import find_supervisor, live_supervisors
from greenroom.supervisor.streams import NULL_STREAM
from greenroom.supervisor.terminal import relay
from hosts import LIMIT_S, command, wait_for_death

if TYPE_CHECKING:
    from greenroom.supervisor.client import Connection
    from hosts import Server


def create(connection: Connection, spec: SandboxSpec) -> str:
    return connection.request(messages.CreateSandbox(spec=spec), messages.SandboxCreated, LIMIT_S).sandbox


def test_requests_are_answered_and_refusals_raised_as_what_they_are(server: Server, spec: SandboxSpec) -> None:
    name = create(server.connection, spec)
    with pytest.raises(NameInUse, match="box"):
        create(server.connection, spec)
    with pytest.raises(SandboxNotFound):
        server.connection.request(messages.PauseSandbox(sandbox="other"), Done, LIMIT_S)
    described = server.connection.request(messages.DescribeSandbox(sandbox=name), messages.SandboxDescription, LIMIT_S)
    assert described.spec == spec


def test_a_sandbox_is_found_by_its_name(server: Server, spec: SandboxSpec) -> None:
    create(server.connection, spec)
    assert find_supervisor("box").path == server.path
    assert [directory.path for directory in live_supervisors()] == [server.path]


def test_only_the_user_may_use_the_sockets(server: Server) -> None:
    assert os.stat(server.path).st_mode & 0o777 == 0o700
    for name in os.listdir(server.path):
        assert os.stat(f"{server.path}/{name}").st_mode & 0o777 == 0o600


def test_a_program_s_streams_are_passed(server: Server) -> None:
    """Much more than a pipe holds goes through and back, so both directions are served at once."""
    process = Process(server.connection, create(server.connection, SandboxSpec()), command("echo"))
    data = os.urandom(1 << 20)
    assert process.communicate(data, LIMIT_S) == (data, b"")
    assert process.returncode == 0


def test_given_streams_stay_open_here(server: Server, spec: SandboxSpec) -> None:
    out, into = os.pipe()
    name = create(server.connection, spec)
    streams = (NULL_STREAM, into, into)
    process = Process(server.connection, name, command("exit:4"), streams)
    assert process.wait(LIMIT_S) == 4
    os.write(into, b"open")
    assert os.read(out, 4) == b"open"
    os.close(out)
    os.close(into)


def test_a_program_that_cannot_be_executed_is_an_error_with_its_errno(server: Server, spec: SandboxSpec) -> None:
    name = create(server.connection, spec)
    before = len(os.listdir("/proc/self/fd"))
    for program, number in (("missing", 2), ("denied", 13)):
        with pytest.raises(ExecError) as caught:
            Process(server.connection, name, command(program))
        assert caught.value.errno == number
    assert len(os.listdir("/proc/self/fd")) == before


def test_several_threads_wait_at_once(server: Server, spec: SandboxSpec) -> None:
    name = create(server.connection, spec)
    processes = [Process(server.connection, name, command("sleep")) for _ in range(4)]
    threads = [threading.Thread(target=process.wait, args=(LIMIT_S,)) for process in processes]
    for thread in threads:
        thread.start()
    for signo, process in enumerate(processes, 1):
        assert process.poll() is None
        process.send_signal(signo)
    for thread in threads:
        thread.join()
    assert [process.returncode for process in processes] == [-1, -2, -3, -4]
    for process in processes:
        process.close()


def test_a_wait_that_was_given_up_does_not_answer_the_next_request(server: Server, spec: SandboxSpec) -> None:
    name = create(server.connection, spec)
    with Process(server.connection, name, command("sleep")) as process:
        with pytest.raises(TimedOut):
            process.wait(0.01)
        process.kill()
        assert process.wait(LIMIT_S) == -9
        found = server.connection.request(messages.ListSandboxes(), messages.SandboxList, LIMIT_S)
        assert [row.sandbox for row in found.rows] == ["box"]


@pytest.mark.parametrize("frame", [b"", b"\xc1", b"\x98\x01\x01\x01\xa1a\xa1b\x01\xcd\x01\x32\x90", b"x" * 100])
def test_a_malformed_request_harms_nobody(server: Server, spec: SandboxSpec, frame: bytes) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.setsockopt(zmq.LINGER, 500)
        dealer.connect(f"ipc://{server.path}/{CONTROL_SOCKET}")
        dealer.send(frame)
        assert dealer.poll(LIMIT_S * 1000)
    create(server.connection, spec)


def test_a_client_is_told_when_the_supervisor_dies(server: Server, spec: SandboxSpec) -> None:
    name = create(server.connection, spec)
    pids = server.connection.request(messages.DescribeSandbox(sandbox=name), messages.SandboxDescription).host_pids
    process = Process(server.connection, name, command("sleep"))
    server.process.kill()
    with pytest.raises(SupervisorError, match="died"):
        process.wait(LIMIT_S)
    for pid in (*pids.values(), server.spawner_pid):
        wait_for_death(pid)
    process.close()


def test_a_terminal_s_signals_go_to_its_program(server: Server, spec: SandboxSpec) -> None:
    name = create(server.connection, spec)
    for key, signo in ((b"\x03", signal.SIGINT), (b"\x1c", signal.SIGQUIT), (b"\x1a", signal.SIGTSTP)):
        process = Process(server.connection, name, command("sleep", terminal=True))
        assert process.stdin is not None
        process.stdin.write(key)
        assert process.wait(LIMIT_S) == -signo
        process.close()


def test_a_terminal_that_is_closed_hangs_its_program_up(server: Server, spec: SandboxSpec) -> None:
    name = create(server.connection, spec)
    process = Process(server.connection, name, command("sleep", terminal=True))
    process.resize(10, 20)
    process.close()
    assert process.wait(LIMIT_S) == -signal.SIGHUP


def test_a_relayed_terminal_ends_with_its_program(server: Server) -> None:
    """Others may hold the terminal open for longer: whoever joined his own to it gets that back at once."""
    name = create(server.connection, SandboxSpec())
    process = Process(server.connection, name, command("sleep", terminal=True))
    ours, theirs = os.openpty()
    killer = threading.Timer(0.0, process.kill)
    killer.start()
    assert relay(process, theirs, theirs) == -signal.SIGKILL
    killer.join()
    process.close()
    os.close(ours)
    os.close(theirs)
