"""Standard streams carry everything whole, closed ones are closed, and a terminal is a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from oracle import ENVIRONMENT, GREENROOM, Case, check_same, in_sandbox, shell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_HUNDRED_MB = 100_000_000
_CHUNK = bytes(range(251)) * 40


def _run(placement: str, *argv: str) -> list[str]:
    return [GREENROOM, "run", "--placement", placement, "--cwd", "/tmp", "--", *argv]


@pytest.fixture(scope="module")
def large_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A file of 100 MB that does not repeat by pages, and its SHA-256."""
    path = tmp_path_factory.mktemp("large") / "file"
    data = (_CHUNK * (_HUNDRED_MB // len(_CHUNK) + 1))[:_HUNDRED_MB]
    path.write_bytes(data)
    yield path, hashlib.sha256(data).hexdigest()
    path.unlink()


def test_100_mb_through_stdin_and_stdout_arrive_whole(large_file: tuple[Path, str], placement: str) -> None:
    path, digest = large_file
    feed = subprocess.Popen(["cat", path], stdout=subprocess.PIPE)
    guest = subprocess.Popen(_run(placement, "cat"), stdin=feed.stdout, stdout=subprocess.PIPE, env=ENVIRONMENT)
    assert feed.stdout is not None
    feed.stdout.close()
    said = subprocess.run(["sha256sum"], stdin=guest.stdout, capture_output=True, check=True).stdout
    assert (guest.wait(30), feed.wait(30)) == (0, 0)
    assert said.split()[0].decode() == digest


def test_100_mb_through_a_pipe_of_the_guest_arrive_whole(placement: str) -> None:
    line = f"head -c {_HUNDRED_MB} /dev/zero | tr '\\0' x | cat | sha256sum"
    digest = hashlib.sha256(b"x" * _HUNDRED_MB).hexdigest()
    assert in_sandbox(shell(line), placement).stdout.split()[0].decode() == digest


def test_stdin_from_a_file_keeps_its_position(placement: str, tmp_path: Path) -> None:
    """The sandbox reads the caller's open file, as a child would."""
    path = tmp_path / "lines"
    path.write_bytes(b"one\ntwo\nthree\n")
    with path.open("rb", buffering=0) as file:
        first = subprocess.run(
            _run(placement, "sh", "-c", "read a; echo $a"), stdin=file, capture_output=True, check=True
        )
        assert first.stdout == b"one\n"
        assert file.read() == b"two\nthree\n"


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&-"])
def test_closed_stream_is_closed(closed: str, placement: str, tmp_path: Path) -> None:
    """The program finds a closed descriptor, not some file of ours."""
    script = "cat; echo out; echo err >&2; ls -l /proc/self/fd | wc -l >&2;"
    script += "for i in 0 1 2; do test -e /proc/self/fd/$i; echo $? >>said; done; cat said >&2"
    inner = ("sh", "-c", script)
    outcomes = []
    for argv, cwd in ((inner, tmp_path), (_run(placement, *inner), None)):
        done = subprocess.run(
            ["sh", "-c", f'exec "$@" {closed}', "sh", *argv], capture_output=True, env=ENVIRONMENT, cwd=cwd, check=False
        )
        outcomes.append((done.returncode, done.stdout, done.stderr))
    assert outcomes[0] == outcomes[1]


def test_program_has_only_the_standard_descriptors(placement: str, tmp_path: Path) -> None:
    check_same(
        Case(("/usr/bin/python3", "-c", "import os; print(sorted(os.listdir('/proc/self/fd')))")), placement, tmp_path
    )


def test_stdout_that_nobody_reads_is_a_broken_pipe(placement: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        _run(placement, "yes"), stdout=writer, stderr=subprocess.PIPE, env=ENVIRONMENT, timeout=30, check=False
    )
    os.close(writer)
    assert done.returncode == 128 + signal.SIGPIPE


def test_output_is_not_held_back(placement: str) -> None:
    """A line arrives while the program still runs and waits for its answer."""
    line = "echo ready; read answer; echo $answer; cat"
    with subprocess.Popen(_run(placement, "sh", "-c", line), stdin=-1, stdout=-1, env=ENVIRONMENT) as guest:
        assert guest.stdin is not None
        assert guest.stdout is not None
        assert guest.stdout.readline() == b"ready\n"
        guest.stdin.write(b"go on\nmore\n")
        guest.stdin.close()
        assert guest.stdout.read() == b"go on\nmore\n"
        assert guest.wait(30) == 0


# -- a terminal -------------------------------------------------------------------------------------------------


class Terminal:
    """A program on a terminal of its own, and what a person does there."""

    def __init__(self, argv: list[str], rows: int = 31, columns: int = 97) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(argv[0], argv, {**ENVIRONMENT, "TERM": "dumb", "PS1": "$ "})
        self.resize(rows, columns)
        self.seen = b""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self.fd, keys)

    def expect(self, text: bytes, seconds: float = 20.0) -> bytes:
        """Read until *text* comes; return what came before it, without the echo's carriage returns."""
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self.fd], [], [], max(left, 0))
            assert ready, f"no {text!r} within {seconds} s after {self.seen!r}"
            try:
                self.seen += os.read(self.fd, 65536).replace(b"\r\n", b"\n")
            except OSError as error:
                raise AssertionError(f"the terminal was closed after {self.seen!r}") from error
        before, _, self.seen = self.seen.partition(text)
        return before

    def wait(self, seconds: float = 20.0) -> int:
        """Return the exit status."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            ready, _, _ = select.select([self.fd], [], [], 0.05)
            if ready:
                with contextlib.suppress(OSError):  # the other side is closed: the end is near
                    self.seen += os.read(self.fd, 65536)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
        raise AssertionError(f"still running after {self.seen!r}")

    def close(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)


@pytest.fixture
def terminal(placement: str) -> Iterator[Callable[..., Terminal]]:
    """A function that starts a program of the sandbox on a terminal."""
    started: list[Terminal] = []

    def start(*argv: str) -> Terminal:
        started.append(Terminal(_run(placement, *argv)))
        return started[-1]

    yield start
    for one in started:
        one.close()


def test_terminal_is_a_terminal_with_its_size(terminal: Callable[..., Terminal]) -> None:
    guest = terminal(
        "python3",
        "-c",
        "import os, sys; print([os.isatty(i) for i in range(3)], os.get_terminal_size())",
    )
    guest.expect(b"[True, True, True] os.terminal_size(columns=97, lines=31)\n")
    assert guest.wait() == 0


def test_terminal_has_a_name(terminal: Callable[..., Terminal]) -> None:
    guest = terminal("sh", "-c", "tty && test -c $(tty) && echo found >$(tty); echo also found >/dev/tty")
    guest.expect(b"/dev/")
    guest.expect(b"found\nalso found\n")
    assert guest.wait() == 0


def test_interrupt_key_reaches_the_guest(terminal: Callable[..., Terminal]) -> None:
    guest = terminal("sh", "-c", "trap 'echo got it; exit 3' INT; echo ready; while :; do sleep 0.1; done")
    guest.expect(b"ready\n")
    guest.type(b"\x03")
    guest.expect(b"got it\n")
    assert guest.wait() == 3


def test_interrupt_key_ends_a_guest_that_does_not_care(terminal: Callable[..., Terminal]) -> None:
    guest = terminal("sh", "-c", "echo ready; exec sleep 1000")
    guest.expect(b"ready\n")
    guest.type(b"\x03")
    assert guest.wait() in (128 + signal.SIGINT, -signal.SIGINT)


def test_quit_key_reaches_the_guest(terminal: Callable[..., Terminal]) -> None:
    guest = terminal(
        "python3",
        "-c",
        "import signal, sys, time; signal.signal(3, lambda *a: sys.exit(5)); print('ready', flush=True)\n"
        "while True: time.sleep(0.1)",  # not pause(): the signal may come before it
    )
    guest.expect(b"ready\n")
    guest.type(b"\x1c")
    assert guest.wait() == 5


def test_end_of_file_key_ends_cat(terminal: Callable[..., Terminal]) -> None:
    guest = terminal("cat")
    guest.type(b"line\n")
    guest.expect(b"line\nline\n")
    guest.type(b"\x04")
    assert guest.wait() == 0


def test_interactive_bash_works(terminal: Callable[..., Terminal]) -> None:
    guest = terminal("bash", "--norc", "--noprofile", "-i")
    guest.expect(b"$ ")
    guest.type(b"echo $((6 * 7))\n")
    guest.expect(b"42\n$ ")
    guest.type(b"stty size\n")
    guest.expect(b"31 97\n$ ")
    # The job says that it is there: a key that comes while bash forks can be lost, on Linux too.
    guest.type(b"sh -c \"echo u''p; exec sleep 1000\"\n")
    guest.expect(b"\nup\n")
    guest.type(b"\x03")
    guest.expect(b"$ ")
    guest.type(b"echo $?\n")
    guest.expect(b"130\n$ ")
    guest.type(b"exit 7\n")
    assert guest.wait() == 7


def test_job_control_of_interactive_bash_works(terminal: Callable[..., Terminal]) -> None:
    guest = terminal("bash", "--norc", "--noprofile", "-i")
    guest.expect(b"$ ")
    guest.type(b"sh -c \"echo u''p; exec sleep 1000\"\n")
    guest.expect(b"\nup\n")
    guest.type(b"\x1a")
    guest.expect(b"Stopped")
    guest.expect(b"$ ")
    guest.type(b"bg; jobs\n")
    guest.expect(b"Running")
    guest.expect(b"$ ")
    guest.type(b"kill %1; wait; echo over\n")
    guest.expect(b"over\n")
    guest.type(b"exit\n")
    guest.wait()


def test_window_change_reaches_the_guest(terminal: Callable[..., Terminal]) -> None:
    guest = terminal(
        "python3", "-c", "import os, signal, time; signal.signal(signal.SIGWINCH, lambda *a: os.write(1, repr(os.get_terminal_size()).encode()));"
        "print('ready', flush=True)\nwhile True: time.sleep(0.1)"
    )  # fmt: skip
    guest.expect(b"ready\n")
    guest.resize(40, 123)
    guest.expect(b"columns=123, lines=40")


def test_raw_mode_works_and_is_undone(terminal: Callable[..., Terminal]) -> None:
    guest = terminal("python3", "-c", "import tty, os; tty.setraw(0); os.write(1, b'raw;'); print(os.read(0, 1))")
    guest.expect(b"raw;")
    guest.type(b"\x03")
    guest.expect(b"b'\\x03'")
    assert guest.wait() == 0
    assert termios.tcgetattr(guest.fd)[3] & termios.ICANON


@pytest.mark.parametrize("signo", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signal_to_greenroom_reaches_the_guest(signo: signal.Signals, placement: str) -> None:
    name = signo.name.removeprefix("SIG")
    line = f"trap 'echo got {name}; exit 9' {name}; echo ready; while :; do sleep 0.1; done"
    with subprocess.Popen(
        _run(placement, "sh", "-c", line), stdout=-1, env=ENVIRONMENT, start_new_session=True
    ) as guest:
        assert guest.stdout is not None
        assert guest.stdout.readline() == b"ready\n"
        guest.send_signal(signo)
        assert guest.stdout.readline() == f"got {name}\n".encode()
        assert guest.wait(20) == 9


_REOPEN = "readlink /proc/self/fd/1 | tr -d 0-9; echo one >>/dev/stdout; echo two >>/dev/stderr; echo three | tee -a /dev/stderr"


@pytest.mark.parametrize("kind", ["pipe", "socket", "file", "null"])
def test_standard_output_has_the_name_and_opens_as_natively(kind: str, placement: str, tmp_path: Path) -> None:
    """A host file's name is not the sandbox's: it is only the same file whichever way it is opened."""
    said = [
        _said_to(kind, argv, tmp_path)
        for argv in (("/bin/sh", "-c", _REOPEN), _run(placement, "/bin/sh", "-c", _REOPEN))
    ]
    if kind == "file":
        said = [text.partition(b"\n")[2] for text in said]
    assert said[0] == said[1]


def _said_to(kind: str, argv: Sequence[str], directory: Path) -> bytes:
    """Run a program whose standard output and error are a new file of that kind, and return what it said."""
    if kind == "pipe":
        return subprocess.run(
            argv, stdout=-1, stderr=subprocess.STDOUT, env=ENVIRONMENT, timeout=30, check=False
        ).stdout
    if kind == "socket":
        mine, theirs = socket.socketpair()
        with mine, theirs:
            out = theirs.fileno()
            subprocess.run(argv, stdout=out, stderr=out, env=ENVIRONMENT, timeout=30, check=False)
            return mine.recv(1 << 16)
    path = directory / "out" if kind == "file" else Path(os.devnull)
    with path.open("ab+") as file:
        if kind == "file":
            file.truncate(0)
        subprocess.run(argv, stdout=file, stderr=file, env=ENVIRONMENT, timeout=30, check=False)
        file.seek(0)
        return file.read()
