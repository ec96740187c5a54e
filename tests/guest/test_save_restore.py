"""A saved sandbox goes on elsewhere as if nothing had happened: real programs, in the middle of what they do.

A sandbox is saved while its programs run and wait; a restored one must say exactly what the saved one had not said yet.
"""

from __future__ import annotations

import os
import secrets
import shutil
import struct
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from greenroom import CheckpointError, Sandbox, SandboxFailed, Snapshot
from greenroom.supervisor import guest_machine
from guest_programs import SOURCES
from oracle import ENVIRONMENT, GREENROOM

if TYPE_CHECKING:
    from collections.abc import Callable

_TIMEOUT = 60.0
#: A pipeline of shells that says 60 lines, one at a time.
_PIPELINE = """
(i=0; while [ $i -lt 60 ]; do echo $i; i=$((i+1)); sleep 0.03; done) |
while read x; do echo line $x; done
exit 5
"""
#: Adds up what it reads and says each sum.
_ADDER = "n=0; while read x; do n=$((n+x)); echo $n; done; exit $n"


class Cli:
    """The command line with one sandbox and one checkpoint file."""

    def __init__(self, directory: Path, placement: str) -> None:
        self.file = str(directory / "saved.grs")
        self.placement = placement
        #: Name of the sandbox.
        self.name = f"saved-{secrets.token_hex(4)}"

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a greenroom command on pipes."""
        return subprocess.Popen((GREENROOM, *arguments), stdin=-1, stdout=-1, stderr=-1, env=ENVIRONMENT)

    def run(self, *argv: str) -> subprocess.Popen[bytes]:
        """Start a program in the sandbox."""
        return self.start("run", "--name", self.name, "--placement", self.placement, "--cwd", "/tmp", "--", *argv)

    def save(self, *options: str) -> None:
        """Save the sandbox."""
        argv = (GREENROOM, "save", *options, self.name, self.file)
        subprocess.run(argv, env=ENVIRONMENT, check=True, timeout=_TIMEOUT, capture_output=True)

    def restore(self, *options: str) -> subprocess.Popen[bytes]:
        """Go on with it."""
        return self.start("restore", *options, self.file)


@pytest.fixture
def cli(tmp_path: Path, placement: str) -> Cli:
    return Cli(tmp_path, placement)


def read_lines(process: subprocess.Popen[bytes], count: int) -> list[bytes]:
    """Return the next *count* lines that a program says."""
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(count)]
    assert lines[-1], process.communicate(timeout=_TIMEOUT)[1]
    return lines


def finish(process: subprocess.Popen[bytes], stdin: bytes = b"") -> tuple[list[bytes], int, bytes]:
    """Return the remaining lines, the exit status, and what was said on standard error."""
    stdout, stderr = process.communicate(stdin, timeout=_TIMEOUT)
    return stdout.splitlines(keepends=True), process.returncode, stderr


# -- programs that go on ----------------------------------------------------------------------------------------------


def test_pipeline_in_progress_loses_and_doubles_no_line(cli: Cli) -> None:
    run = cli.run("/bin/sh", "-c", _PIPELINE)
    before = read_lines(run, 10)
    cli.save()
    more, status, stderr = finish(run)
    assert status == 0
    assert stderr == b"greenroom: saved to %s\n" % os.fsencode(cli.file)
    after, status, stderr = finish(cli.restore())
    assert [*before, *more, *after] == [b"line %d\n" % i for i in range(60)]
    assert (status, stderr) == (5, b"")


def test_python_threads_locks_queues_and_sqlite_go_on(cli: Cli) -> None:
    run = cli.run("/usr/bin/python3", str(SOURCES / "save_restore.py"))
    before = read_lines(run, 10)
    cli.save()
    before += finish(run)[0]
    after, status, stderr = finish(cli.restore())
    said = [*before, *after]
    assert said[:40] == [b"line %d\n" % i for i in range(40)]
    assert said[40:]
    assert not [line for line in said[40:] if not line.startswith(b"ok ")]
    assert (status, stderr) == (3, b"")


def test_a_checkpoint_goes_on_under_the_other_platform(
    cli: Cli, guest_platform: str, request: pytest.FixtureRequest
) -> None:
    others = [name for name in request.config.getoption("platforms").split(",") if name != guest_platform]
    if not others:
        pytest.skip("there is no other platform")
    run = cli.run("/usr/bin/python3", str(SOURCES / "save_restore.py"))
    before = read_lines(run, 10)
    cli.save()
    before += finish(run)[0]
    after, status, stderr = finish(cli.restore("--platform", others[0]))
    said = [*before, *after]
    assert said[:40] == [b"line %d\n" % i for i in range(40)]
    assert not [line for line in said[40:] if not line.startswith(b"ok ")]
    assert (status, stderr) == (3, b"")


def test_watches_and_their_events_go_on(cli: Cli) -> None:
    run = cli.run("/usr/bin/python3", str(SOURCES / "save_watches.py"))
    assert read_lines(run, 1) == [b"ready\n"]
    cli.save()
    assert finish(run)[0] == []
    after, status, stderr = finish(cli.restore(), b"\n")
    assert (status, stderr) == (0, b"")
    assert after == [
        b"[(1, 256, 'held'), (1, 32, 'held')]\n",
        b"[(1, 2, 'held'), (1, 8, 'held'), (1, 64, 'held'), (1, 128, 'moved')]\n",
        b"2\n",
    ]


def test_process_with_everything_goes_on(cli: Cli, program: Callable[..., str]) -> None:
    run = cli.run(program("save_restore"))
    assert read_lines(run, 1) == [b"ready\n"]
    cli.save()
    assert finish(run)[0] == []
    after, status, stderr = finish(cli.restore(), b"\n")
    assert [line for line in after if not line.startswith(b"ok ")] == [b"0 failures\n"]
    assert (status, stderr) == (42, b"")


def test_unix_sockets_keep_connections_and_queues(cli: Cli) -> None:
    run = cli.run("/usr/bin/python3", str(SOURCES / "save_sockets.py"))
    read_lines(run, 1)
    cli.save()
    finish(run)
    after, status, stderr = finish(cli.restore(), b"\n")
    assert len(after) == 15
    assert not [line for line in after if not line.startswith(b"ok ")]
    assert (status, stderr) == (42, b"")


def test_terminal_of_the_guest_goes_on(cli: Cli) -> None:
    """A pseudo-terminal keeps its settings, its size and both sides; the controlling terminal stays."""
    script = """if True:
        import fcntl, os, pty, struct, sys, termios
        child, master = pty.fork()
        if child == 0:
            line = input()
            print(line.upper(), os.get_terminal_size(), os.ttyname(0) == os.ctermid() or open("/dev/tty").isatty())
            sys.exit(9)
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 44, 0, 0))
        settings = termios.tcgetattr(master); settings[3] &= ~termios.ECHO
        termios.tcsetattr(master, termios.TCSANOW, settings)
        print("ready", flush=True)
        sys.stdin.readline()
        os.write(master, b"hello" + bytes([10]))
        print(os.read(master, 1000), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    run = cli.run("/usr/bin/python3", "-c", script)
    read_lines(run, 1)
    cli.save()
    finish(run)
    after, status, _ = finish(cli.restore(), b"\n")
    assert after == [b"b'HELLO os.terminal_size(columns=44, lines=33) True\\r\\n' 9\n"]
    assert status == 0


def test_stopped_process_stays_stopped(placement: str) -> None:
    with Sandbox.create(placement=placement) as sandbox:
        process = sandbox.exec("/bin/sh", "-c", "kill -STOP $$; echo continued")
        _wait_for_state(sandbox, process.pid, "T")
        with sandbox.snapshot().restore(streams=(-1, process.stdout.fileno(), -1)) as restored:
            assert [row.state for row in restored.ps() if row.pid == process.pid] == ["T"]
        process.send_signal(18)
        assert process.communicate(timeout=_TIMEOUT)[0] == b"continued\n"


def _wait_for_state(sandbox: Sandbox, pid: int, state: str) -> None:
    deadline = time.monotonic() + _TIMEOUT
    while not any(row.pid == pid and row.state == state for row in sandbox.ps()):
        assert time.monotonic() < deadline
        time.sleep(0.01)  # nobody is told of a stop but its parent


# -- several of one snapshot -------------------------------------------------------------------------------------------


class Adder:
    """A restored adder on pipes of ours."""

    def __init__(self, snapshot: Snapshot) -> None:
        stdin, self._stdin = os.pipe()
        self._stdout, stdout = os.pipe()
        self.sandbox = snapshot.restore(streams=(stdin, stdout, -1))
        os.close(stdin)
        os.close(stdout)

    def add(self, number: int) -> int:
        """Let it add *number* and return its sum."""
        os.write(self._stdin, b"%d\n" % number)
        return int(os.read(self._stdout, 100))

    def close(self) -> None:
        """Kill it."""
        self.sandbox.kill()
        os.close(self._stdin)
        os.close(self._stdout)


def test_restored_side_by_side_and_saved_again(placement: str, tmp_path: Path) -> None:
    with Sandbox.create(placement=placement) as sandbox:
        process = sandbox.exec("/bin/sh", "-c", _ADDER)

        def add(number: int) -> int:
            process.stdin.write(b"%d\n" % number)
            process.stdin.flush()
            return int(process.stdout.readline())

        assert add(10) == 10
        snapshot = sandbox.snapshot()
        assert add(1) == 11
        copy = tmp_path / "copy.grs"
        snapshot.save(copy)
        one, two = Adder(snapshot), Adder(Snapshot.load(copy))
        assert (one.add(5), two.add(7), add(2)) == (15, 17, 13)
        again = Adder(one.sandbox.snapshot())
        assert (again.add(100), one.add(1), two.add(1)) == (115, 16, 18)
        third = Adder(again.sandbox.snapshot())
        assert third.add(1000) == 1115
        ids = {sandbox.id, *(adder.sandbox.id for adder in (one, two, again, third))}
        assert len(ids) == 5
        for adder in (one, two, again, third):
            adder.close()


def test_original_goes_on_beside_the_restored_one(cli: Cli) -> None:
    run = cli.run("/bin/sh", "-c", _ADDER)
    assert run.stdin is not None
    run.stdin.write(b"3\n")
    run.stdin.flush()
    assert read_lines(run, 1) == [b"3\n"]
    cli.save("--leave-running")
    assert finish(cli.restore("--name", "other"), b"4\n5\n")[:2] == ([b"7\n", b"12\n"], 12)
    assert finish(run, b"6\n")[:2] == ([b"9\n"], 9)


def test_paused_sandbox_can_be_saved(placement: str) -> None:
    with Sandbox.create(placement=placement) as sandbox:
        process = sandbox.exec("/bin/sh", "-c", _ADDER)
        sandbox.pause()
        adder = Adder(sandbox.snapshot())
        assert adder.add(8) == 8
        assert sandbox.info().state == "paused"
        sandbox.resume()
        process.stdin.write(b"9\n")
        process.stdin.close()
        assert process.stdout.read() == b"9\n"
        adder.close()


def test_without_streams_programs_see_the_end_of_input(placement: str) -> None:
    with Sandbox.create(placement=placement) as sandbox:
        sandbox.exec("/bin/sh", "-c", "while read x; do :; done; echo over >/tmp/over")
        with sandbox.snapshot().restore() as restored:
            deadline = time.monotonic() + _TIMEOUT
            while restored.run("/bin/cat", "/tmp/over").stdout != b"over\n":
                assert time.monotonic() < deadline


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good checkpoint file."""
    path = tmp_path_factory.mktemp("checkpoint") / "good.grs"
    with Sandbox.create() as sandbox:
        sandbox.exec("/bin/sleep", "1000")
        sandbox.save(path)
    return path


_FORMAT_OFFSET = -64 + 16


def _truncate(data: bytearray) -> None:
    del data[-5000:]


def _flip(position: float) -> Callable[[bytearray], None]:
    def flip(data: bytearray) -> None:
        data[int(position * len(data))] ^= 1

    return flip


def _age(data: bytearray) -> None:
    struct.pack_into("<I", data, len(data) + _FORMAT_OFFSET, 99)


_DAMAGE = {
    "truncated": (_truncate, "cut off"),
    "in memory": (_flip(0.1), "damaged in part 'memory:0'"),
    "near the end": (_flip(0.99), "damaged"),
    "another version": (_age, "has format 99"),
    "no checkpoint": (bytearray.clear, "no greenroom checkpoint"),
}


@pytest.mark.parametrize(("damage", "text"), _DAMAGE.values(), ids=_DAMAGE.keys())
def test_unusable_file_is_refused(
    damage: Callable[[bytearray], None], text: str, checkpoint: Path, tmp_path: Path
) -> None:
    data = bytearray(checkpoint.read_bytes())
    damage(data)
    bad = tmp_path / "bad.grs"
    bad.write_bytes(data)
    done = subprocess.run(
        (GREENROOM, "restore", bad), capture_output=True, env=ENVIRONMENT, timeout=_TIMEOUT, check=False
    )
    assert (done.returncode, done.stdout) == (125, b"")
    assert text in done.stderr.decode()
    with pytest.raises(CheckpointError, match=text):
        Snapshot.load(bad)


def test_missing_cpu_feature_is_refused(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = guest_machine.cpu_features()
    monkeypatch.setattr(guest_machine, "cpu_features", lambda: tuple(f for f in features if f != "sse2"))
    with pytest.raises(CheckpointError, match="sse2"):
        Snapshot.load(checkpoint)


def test_changed_host_file_that_is_mapped_is_refused(placement: str, tmp_path: Path) -> None:
    """A program whose pages are partly those of a file cannot go on with another file."""
    copy = tmp_path / "sleep"
    shutil.copy("/bin/sleep", copy)
    with Sandbox.create(placement=placement, mounts=[f"{tmp_path}:/mnt:ro"]) as sandbox:
        sandbox.exec("/mnt/sleep", "1000")
        snapshot = sandbox.snapshot()
        snapshot.restore().kill()
        os.utime(copy, (1, 1))
        with pytest.raises(SandboxFailed, match="/mnt/sleep"):
            snapshot.restore()


def test_refused_save_says_why_and_the_sandbox_goes_on(cli: Cli) -> None:
    """Data in a connection that nobody has accepted yet are out of reach."""
    script = """if True:
        import socket, sys
        server = socket.socket(socket.AF_UNIX); server.bind("/tmp/s"); server.listen()
        client = socket.socket(socket.AF_UNIX); client.connect("/tmp/s"); client.send(b"data")
        print("ready", flush=True)
        sys.stdin.readline()
        print(server.accept()[0].recv(10))
    """
    run = cli.run("/usr/bin/python3", "-c", script)
    read_lines(run, 1)
    with pytest.raises(subprocess.CalledProcessError) as refusal:
        cli.save()
    assert b"is not saved and goes on: a connection has data" in refusal.value.stderr
    assert not os.path.exists(cli.file)
    assert finish(run, b"\n")[:2] == ([b"b'data'\n"], 0)


def test_unwritable_target_leaves_the_sandbox_running(placement: str, tmp_path: Path) -> None:
    with Sandbox.create(placement=placement) as sandbox:
        process = sandbox.exec("/bin/sh", "-c", _ADDER)
        with pytest.raises(CheckpointError):
            sandbox.save(tmp_path / "nowhere" / "x.grs", leave_running=False)
        process.stdin.write(b"1\n")
        process.stdin.close()
        assert process.stdout.read() == b"1\n"


def test_nothing_to_save_is_refused(placement: str, tmp_path: Path) -> None:
    with Sandbox.create(placement=placement) as sandbox, pytest.raises(CheckpointError, match="no program"):
        sandbox.save(tmp_path / "x.grs")
