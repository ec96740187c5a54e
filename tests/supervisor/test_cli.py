"""The command line with fake sandboxes: exit statuses, signals, and errors that a person understands."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hosts import HERE, LIMIT_S, wait_for_death

if TYPE_CHECKING:
    from hosts import Server

_MAIN = f"""
import functools, sys
sys.path.insert(0, {HERE!r})
import fake_sandbox
from greenroom.supervisor import cli, foreground, sandbox_process
sandbox_process.PRELOAD = ()
foreground.Foreground = functools.partial(foreground.Foreground, roles=fake_sandbox.ROLES)
sys.exit(cli.main())
"""


class Caller(subprocess.Popen[str]):
    """A command line in a process of its own, which does not outlive a test that fails."""

    def __init__(self, *arguments: str, stdin: int = subprocess.DEVNULL) -> None:
        out = subprocess.PIPE
        super().__init__([sys.executable, "-c", _MAIN, *arguments], text=True, stdin=stdin, stdout=out, stderr=out)

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:
            self.kill()
        super().__exit__(kind, *rest)


def run(*arguments: str) -> tuple[int, str, str]:
    with Caller(*arguments) as process:
        out, err = process.communicate(timeout=LIMIT_S)
    return process.returncode, out, err


@pytest.mark.parametrize("placement", ["colocated", "split"])
@pytest.mark.parametrize(
    ("program", "status"),
    [("exit:0", 0), ("exit:1", 1), ("exit:255", 255), ("signal:9", 137), ("signal:11", 139), ("signal:13", 141)],
)
def test_the_exit_status_is_the_program_s(placement: str, program: str, status: int) -> None:
    assert run("run", "--placement", placement, "--", program) == (status, "", "")


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (("run", "missing"), 127, "greenroom: missing: No such file or directory\n"),
        (("run", "denied"), 126, "greenroom: denied: Permission denied\n"),
        (("run", "--timeout", "0.1", "sleep"), 124, "greenroom: its time limit of 0.1 s has passed\n"),
    ],
)
def test_other_ends_have_statuses_of_their_own(arguments: tuple[str, ...], status: int, text: str) -> None:
    assert run(*arguments) == (status, "", text)


def test_a_failure_of_ours_is_125_and_says_why() -> None:
    status, out, err = run("run", "bug")
    assert (status, out) == (125, "")
    assert "AssertionError: an invariant" in err


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (("rum",), 2, "Did you mean 'run'?"),
        (("run",), 2, "Missing argument 'COMMAND...'"),
        (("run", "--no-such-option", "x"), 2, "--no-such-option"),
        (("run", "--bind", "/a", "x"), 2, "SRC:DST"),
        (("run", "--name", "a b", "x"), 2, "name: 'a b' is not allowed"),
        (("run", "--platform", "kvm", "x"), 2, "one of auto, notify, ptrace"),
        (("run", "--user", "no such user", "x"), 2, "a user's name, UID or UID:GID"),
        (("kill", "nobody"), 125, "there is no running sandbox 'nobody'"),
        (("restore", "/no/such/file"), 125, "cannot read /no/such/file"),
        (("trace", "show", "/no/such/file"), 2, "No such file"),
        (("trace", "show", "/etc/passwd"), 125, "no trace"),
    ],
)
def test_mistakes_are_explained(arguments: tuple[str, ...], status: int, text: str) -> None:
    found, out, err = run(*arguments)
    assert (found, out) == (status, "")
    assert text in err
    assert "Traceback" not in err


def test_streams_are_the_program_s() -> None:
    data = "x" * 300_000
    with Caller("run", "echo", stdin=subprocess.PIPE) as process:
        assert process.communicate(data, LIMIT_S) == (data, "")


def test_closed_streams_stay_closed() -> None:
    """The shell closes them; they must not be taken by descriptors of ours."""
    line = f'exec {sys.executable} -c "$0" run exit:5 <&- >&-'
    done = subprocess.run(["/bin/sh", "-c", line, _MAIN], timeout=LIMIT_S, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (5, b"")


def wait_until_it_runs(server_of: subprocess.Popen[str], name: str) -> None:
    """Return when `greenroom ps` would show the program of sandbox *name*."""
    from greenroom.supervisor.errors import GreenroomError
    from greenroom.supervisor.sandbox import Sandbox

    while server_of.poll() is None:
        try:
            if Sandbox.get(name).ps():
                return
        except GreenroomError:
            pass


@pytest.mark.parametrize("signo", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_signals_are_passed_on(signo: int) -> None:
    with Caller("run", "--name", "box", "sleep") as process:
        wait_until_it_runs(process, "box")
        process.send_signal(signo)
        assert process.wait(LIMIT_S) == 128 + signo


def test_a_killed_caller_takes_everything_with_it() -> None:
    from greenroom.supervisor.sandbox import Sandbox

    with Caller("run", "--name", "box", "--placement", "split", "sleep") as process:
        wait_until_it_runs(process, "box")
        pids = list(Sandbox.get("box").info().host_pids.values())
        with open(f"/proc/{pids[0]}/stat") as stat:
            spawner = int(stat.read().rpartition(")")[2].split()[1])
        process.kill()
        for pid in (*pids, spawner):
            wait_for_death(pid)


def test_sandboxes_are_listed_signalled_and_killed_from_outside() -> None:
    with Caller("run", "--name", "one", "sleep") as one, Caller("run", "--name", "two", "sleep") as two:
        wait_until_it_runs(one, "one")
        wait_until_it_runs(two, "two")
        status, out, _ = run("ps")
        assert status == 0
        header, *rows = [line.split()[:2] for line in out.splitlines()]
        assert header == ["ID", "STATE"]
        assert sorted(rows) == [["one", "running"], ["two", "running"]]
        assert run("pause", "one") == (0, "", "")
        assert "paused" in run("ps")[1]
        assert run("resume", "one") == (0, "", "")
        assert run("kill", "one", "TERM") == (0, "", "")
        assert one.wait(LIMIT_S) == 128 + signal.SIGTERM
        with Caller("wait", "two") as waiting:
            assert run("exec", "two", "--", "exit:6") == (6, "", "")
            assert run("exec", "two", "missing") == (127, "", "greenroom: missing: No such file or directory\n")
            assert run("kill", "two", "NONSENSE")[0] == 2
            assert run("kill", "two") == (0, "", "")
            assert two.wait(LIMIT_S) == 128 + signal.SIGKILL
            assert waiting.wait(LIMIT_S) in (125, 128 + signal.SIGKILL)


def test_a_name_is_used_once() -> None:
    with Caller("run", "--name", "box", "sleep") as process:
        wait_until_it_runs(process, "box")
        status, _, err = run("run", "--name", "box", "exit:0")
        assert (status, err) == (
            125,
            "greenroom: there is a running sandbox 'box' already: choose another name\n",
        )
        process.send_signal(signal.SIGTERM)


def test_signals_to_exec_are_passed_on(server: Server) -> None:
    from greenroom.config.spec import SandboxSpec
    from greenroom.messages import supervisor as messages

    server.connection.request(messages.CreateSandbox(spec=SandboxSpec(name="box")), messages.SandboxCreated)
    with Caller("exec", "box", "sleep") as process:
        wait_until_it_runs(process, "box")
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 128 + signal.SIGTERM


def test_the_table_of_system_calls_is_printed() -> None:
    status, out, _ = run("syscalls")
    assert status == 0
    assert out.splitlines()[1].split()[:3] == ["0", "read", "full"]


def test_help_explains_the_exit_status() -> None:
    status, out, _ = run("run", "--help")
    assert status == 0
    assert "128 + N" in out


def test_importing_greenroom_is_cheap() -> None:
    script = "import sys, greenroom; print(*(m for m in ('zmq', 'click', 'structlog', 'msgpack') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout == b"\n"


def test_public_names_are_there() -> None:
    import greenroom

    for name in greenroom.__all__:
        assert getattr(greenroom, name) is not None
    with pytest.raises(AttributeError):
        greenroom.nonsense  # noqa: B018
    assert os.path.isdir(os.path.dirname(greenroom.__file__ or ""))
