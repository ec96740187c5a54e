"""``greenroom run`` with a running ``greenroom serve`` is as without, and nothing is left when either dies."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import tempfile
import time
from typing import TYPE_CHECKING

import pytest
from oracle import GREENROOM

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT_S = 60.0


class Service:
    """A supervisor that serves, with a runtime directory of its own."""

    def __init__(self, folder: str) -> None:
        self.environment = {**os.environ, "XDG_RUNTIME_DIR": folder}
        self.process = subprocess.Popen([GREENROOM, "serve"], env=self.environment, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        assert self.process.stdout.readline().startswith(b"greenroom serves")

    def start(self, *arguments: str, **options: object) -> subprocess.Popen[bytes]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        environment = {**self.environment, "GREENROOM_TEST": "here"}
        return subprocess.Popen([GREENROOM, *arguments], env=environment, **pipes)  # type: ignore[call-overload]

    def run(self, *arguments: str, data: bytes = b"", **options: object) -> tuple[int, bytes, bytes]:
        process = self.start(*arguments, **options)
        out, err = process.communicate(data, LIMIT_S)
        return process.returncode, out, err

    def supervisors_of_sandboxes(self) -> list[bytes]:
        return [line.split()[5] for line in self.run("ps")[1].splitlines()[1:]]

    def close(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=LIMIT_S)


@pytest.fixture
def service() -> Iterator[Service]:
    with tempfile.TemporaryDirectory(prefix="gr-", dir="/tmp") as folder:
        service = Service(folder)
        yield service
        service.close()
        assert os.listdir(f"{folder}/greenroom") == ["names"]


def test_a_program_is_run_by_the_service(service: Service) -> None:
    """Its supervisor is the process that serves, not that of the command."""
    with service.start("run", "--", "/bin/sh", "-c", "echo ready; read x") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert service.supervisors_of_sandboxes() == [b"%d" % service.process.pid]
        process.communicate(b"\n", LIMIT_S)
    assert service.supervisors_of_sandboxes() == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--", "/bin/sh", "-c", "exit 7"),
        ("run", "--", "/bin/sh", "-c", "kill -9 $$"),
        ("run", "--", "/bin/sh", "-c", "cat; echo error >&2"),
        ("run", "--", "/bin/sh", "-c", "pwd; echo $GREENROOM_TEST $A; id -u; uname -n"),
        ("run", "-e", "A=1", "--user", "5:6", "--hostname", "h", "--cwd", "/usr", "--", "/bin/sh", "-c", "id; pwd; uname -n; echo $A"),
        ("run", "/nonexistent"),
        ("run", "/etc/passwd"),
        ("run", "--timeout", "0.3", "--", "/bin/sleep", "1000"),
        ("run", "--bogus", "--", "/bin/true"),
        ("run", "--platform", "none", "--", "/bin/true"),
        ("run", "--bind", "relative:/x", "--", "/bin/true"),
        ("run", "--help"),
        ("run",),
    ],
    ids=lambda arguments: " ".join(arguments)[:40],
)  # fmt: skip
def test_it_is_as_without_a_service(service: Service, arguments: tuple[str, ...]) -> None:
    """Exit status, output and error output are the same."""
    served = service.run(*arguments, data=b"input\n", cwd="/usr/lib")
    with tempfile.TemporaryDirectory(prefix="gr-", dir="/tmp") as folder:
        before, service.environment["XDG_RUNTIME_DIR"] = service.environment["XDG_RUNTIME_DIR"], folder
        alone = service.run(*arguments, data=b"input\n", cwd="/usr/lib")
        service.environment["XDG_RUNTIME_DIR"] = before
    assert served == alone


def test_a_closed_stream_is_closed_in_the_program(service: Service) -> None:
    command = [GREENROOM, "run", "--", "/bin/sh", "-c", "test -e /proc/$$/fd/0 || echo closed"]
    shell = ["/bin/sh", "-c", 'exec "$@" <&-', "sh", *command]
    done = subprocess.run(shell, env=service.environment, capture_output=True, check=False)
    assert done.stdout == b"closed\n"


@pytest.mark.parametrize(("signo", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 138)])
def test_signals_are_passed_on(service: Service, signo: int, status: int) -> None:
    with service.start("run", "--", "/usr/bin/python3", "-I", "-c", _RESTORES_SIGNALS) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signo)
        process.communicate(timeout=LIMIT_S)
    assert process.returncode == status


_RESTORES_SIGNALS = (
    "import signal; [signal.signal(s, signal.SIG_DFL) for s in (2, 10, 15)]; print('ready', flush=True); signal.pause()"
)


def test_a_terminal_is_the_program_s(service: Service) -> None:
    ours, theirs = pty.openpty()
    with service.start("run", "--", "/bin/sh", "-c", "test -t 0 && tty && stty -echo", stdin=theirs) as process:
        out, err = process.communicate(timeout=LIMIT_S)
    os.close(ours)
    os.close(theirs)
    assert (process.returncode, err) == (0, b"")
    assert out


def test_a_sandbox_ends_with_its_client(service: Service) -> None:
    process = service.start("run", "--name", "box", "--", "/bin/sh", "-c", "echo ready; exec sleep 1000")
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    deadline = time.monotonic() + LIMIT_S
    assert service.supervisors_of_sandboxes()
    process.kill()
    process.communicate()
    while service.supervisors_of_sandboxes():
        assert time.monotonic() < deadline


def test_a_killed_service_is_told_of_and_the_next_program_runs_without(service: Service) -> None:
    process = service.start("run", "--", "/bin/sh", "-c", "echo ready; exec sleep 1000")
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    service.process.kill()
    _, err = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, err) == (125, b"greenroom: the supervisor died\n")
    assert service.run("run", "--", "/bin/echo", "again")[:2] == (0, b"again\n")


def test_there_is_one_service(service: Service) -> None:
    status, _, err = service.run("serve")
    assert (status, err) == (125, b"greenroom: process %d serves already\n" % service.process.pid)


def test_a_client_in_another_mount_namespace_does_it_itself(service: Service, needs_root: None) -> None:
    command = ["unshare", "-m", GREENROOM, "run", "--", "/bin/sh", "-c", "echo ready; read x"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=service.environment, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == b"ready\n"
        assert service.supervisors_of_sandboxes() != [b"%d" % service.process.pid]
        process.communicate(b"\n", LIMIT_S)
    assert process.returncode == 0
