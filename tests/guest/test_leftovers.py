"""Whatever ends a sandbox, nothing is left: no process, no socket, no temporary file.

Every process that a test's sandbox leaves would become a child of the test (it is a subreaper), so a forgotten one shows as a
child that does not go away.
"""

from __future__ import annotations

import ctypes
import os
import pty
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from oracle import ENVIRONMENT, GREENROOM

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
#: Seconds that the processes of a sandbox have to go after its end.
_GRACE = 10.0
#: Some processes and a file. It ends in exec because dash, between vfork and exec, loses a SIGINT natively as well.
_GUEST = "sleep 1000 & (sleep 1000 | cat; :) & echo x >/tmp/f; echo ready; exec sleep 1000"


def _children(pid: int) -> list[int]:
    """Return the children of a process, of all its threads; none when it is gone."""
    found: list[int] = []
    try:
        for tid in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{tid}/children", encoding="ascii") as file:
                found += map(int, file.read().split())
    except OSError:
        pass
    return found


def _descendants(pid: int) -> list[int]:
    found = []
    for child in _children(pid):
        found += [child, *_descendants(child)]
    return found


def _reap() -> None:
    """Take the status of every child that has ended."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return


class Trace:
    """What a sandbox could leave: processes, and files in its runtime and temporary directories."""

    def __init__(self, directory: Path, placement: str) -> None:
        self.directory = directory
        self.placement = placement
        self.environment = {**ENVIRONMENT, "XDG_RUNTIME_DIR": str(directory / "run"), "TMPDIR": str(directory / "tmp")}
        for name in ("run", "tmp"):
            (directory / name).mkdir(mode=0o700)
        self.before = set(_children(os.getpid()))

    def start(self, line: str = _GUEST, *options: str) -> subprocess.Popen[bytes]:
        """Start a sandbox and wait until its program says that it is ready."""
        argv = [GREENROOM, "run", "--placement", self.placement, *options, "--", "/bin/sh", "-c", line]
        run = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=-1, stderr=-1, env=self.environment, start_new_session=True
        )
        assert run.stdout is not None
        assert run.stdout.readline() == b"ready\n"
        return run

    def check_nothing_is_left(self) -> None:
        """Wait until all processes are gone, then look for files."""
        deadline = time.monotonic() + _GRACE
        left: set[int] = set()
        while time.monotonic() < deadline:
            _reap()
            left = set(_children(os.getpid())) - self.before
            if not left:
                break
            time.sleep(0.02)  # there is no event for the end of a process that is not ours to wait for
        commands = [_command(pid) for pid in left]
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        assert not commands, f"still running: {commands}"
        files = [str(path.relative_to(self.directory)) for path in self.directory.rglob("*") if not path.is_dir()]
        assert not files
        assert not [path for path in (self.directory / "run" / "greenroom").glob("*") if path.name != "names"]


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().replace(b"\0", b" ").decode()
        with open(f"/proc/{pid}/comm", encoding="utf-8") as file:
            return f"{pid} {file.read().strip()} {words}"
    except OSError:
        return f"{pid} gone"


@pytest.fixture
def trace(tmp_path_factory: pytest.TempPathFactory, placement: str) -> Iterator[Trace]:
    """A fresh trace, with this process as the reaper of orphans."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    yield Trace(tmp_path_factory.mktemp("left"), placement)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _finish(run: subprocess.Popen[bytes]) -> int:
    run.communicate(timeout=30)
    return run.returncode


def test_normal_exit_leaves_nothing(trace: Trace) -> None:
    assert _finish(trace.start("echo ready; sleep 1000 & exit 3")) == 3
    trace.check_nothing_is_left()


def test_death_by_signal_leaves_nothing(trace: Trace) -> None:
    assert _finish(trace.start("sleep 1000 & echo ready; kill -SEGV $$")) == 128 + signal.SIGSEGV
    trace.check_nothing_is_left()


def test_time_limit_leaves_nothing(trace: Trace) -> None:
    assert _finish(trace.start(_GUEST, "--timeout", "2")) == 124
    trace.check_nothing_is_left()


@pytest.mark.parametrize("signo", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_signal_leaves_nothing(signo: signal.Signals, trace: Trace) -> None:
    run = trace.start()
    run.send_signal(signo)
    assert _finish(run) == 128 + signo
    trace.check_nothing_is_left()


def test_kill_command_leaves_nothing(trace: Trace) -> None:
    run = trace.start(_GUEST, "--name", f"kill-{os.getpid()}")
    subprocess.run([GREENROOM, "kill", f"kill-{os.getpid()}"], env=trace.environment, check=True, timeout=30)
    assert _finish(run) == 128 + signal.SIGKILL
    trace.check_nothing_is_left()


def test_failed_exec_leaves_nothing(trace: Trace) -> None:
    argv = [GREENROOM, "run", "--placement", trace.placement, "--", "/nonexistent/program"]
    assert subprocess.run(argv, env=trace.environment, capture_output=True, timeout=30, check=False).returncode == 127
    trace.check_nothing_is_left()


def _nth_process(run: subprocess.Popen[bytes], number: int) -> int | None:
    """Return the *number*th process of a sandbox, ours and tracees, in the order of their birth; None beyond the last."""
    processes = [run.pid, *sorted(_descendants(run.pid))]
    return processes[number] if number < len(processes) else None


@pytest.mark.parametrize("number", range(9))
def test_SIGKILL_of_any_process_leaves_nothing(number: int, trace: Trace) -> None:
    """Processes of ours and tracees alike; beyond the last one there is nothing to try."""
    run = trace.start()
    victim = _nth_process(run, number)
    try:
        os.kill(run.pid if victim is None else victim, signal.SIGKILL)
    except ProcessLookupError:  # a host task that an execve has left, reaped a moment later
        run.kill()
    ours = number == 0 or victim is None
    if ours or not _is_tracee_kill(run):
        _finish(run)
    else:
        run.terminate()
        _finish(run)
    trace.check_nothing_is_left()


def _is_tracee_kill(run: subprocess.Popen[bytes]) -> bool:
    """Return whether the sandbox goes on, as it may when only one guest process was killed."""
    try:
        run.wait(3)
    except subprocess.TimeoutExpired:
        return True
    return False


def test_closed_terminal_leaves_nothing(trace: Trace) -> None:

    pid, fd = pty.fork()
    if pid == 0:
        argv = [GREENROOM, "run", "--placement", trace.placement, "--", "/bin/sh", "-c", "echo ready; sleep 1000"]
        os.execve(argv[0], argv, trace.environment)
    seen = b""
    while b"ready" not in seen:
        seen += os.read(fd, 1000)
    os.close(fd)
    trace.check_nothing_is_left()


def _repeat(trace: Trace, count: int) -> list[float]:
    """Return the CPU seconds of each run: unlike the time that passes, they do not tell how busy the machine was."""
    seconds = []
    for _ in range(count):
        before = os.times()
        assert _finish(trace.start("echo ready; echo x >/tmp/f; cat /tmp/f | wc -c")) == 0
        _reap()
        after = os.times()
        used = after.children_user + after.children_system - before.children_user - before.children_system
        seconds.append(used)
    return seconds


def _check_pace(seconds: list[float]) -> None:
    """The last runs are not slower than the first, by the fastest of each: noise only ever slows down."""
    half = len(seconds) // 2
    assert min(seconds[half:]) < 1.5 * min(seconds[:half])


def test_runs_in_a_row_do_not_slow_down_or_leak(trace: Trace) -> None:
    _check_pace(_repeat(trace, 20))
    trace.check_nothing_is_left()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_hundred_runs_in_a_row_do_not_slow_down_or_leak(trace: Trace) -> None:
    _check_pace(_repeat(trace, 200))
    trace.check_nothing_is_left()


def test_save_and_restore_leave_nothing_but_the_file(trace: Trace) -> None:
    """The saved sandbox ends, the restored one ends, and a refused restore never was."""
    file = trace.directory.with_suffix(".grs")
    run = trace.start(_GUEST, "--name", "left")
    subprocess.run((GREENROOM, "save", "left", file), env=trace.environment, check=True, timeout=30)
    assert _finish(run) == 0
    restored = subprocess.Popen((GREENROOM, "restore", file), stdin=subprocess.DEVNULL, env=trace.environment)
    top = (GREENROOM, "top", "left")
    while subprocess.run(top, env=trace.environment, capture_output=True, check=False).returncode:
        assert restored.poll() is None
    subprocess.run((GREENROOM, "kill", "left"), env=trace.environment, check=True, timeout=30)
    assert restored.wait(30) == 128 + signal.SIGKILL
    file.write_bytes(file.read_bytes()[:-100])
    refused = subprocess.run((GREENROOM, "restore", file), env=trace.environment, capture_output=True, check=False)
    assert refused.returncode == 125
    file.unlink()
    assert not list(file.parent.glob(f"{file.stem}*.partial"))
    trace.check_nothing_is_left()
