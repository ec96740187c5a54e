"""Programs under measurement: started with a time limit on what they are asked, and ended with all that they started.

A system that is measured may start processes of its own, and may lose its parent when it is killed.  So this process is
a subreaper: whatever a program leaves behind becomes its child, is found in /proc, and is killed with the program.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ENVIRONMENT", "Failure", "Program", "become_subreaper", "descendants", "proportional_bytes", "run"]

_PR_SET_CHILD_SUBREAPER = 36
#: Seconds that killed processes have to disappear.
_DEATH_S = 60.0
#: Characters of what a failed program said that are kept.
_REASON_LENGTH = 200

#: What every program finds in its environment, whoever runs the benchmark.
ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    # The repository that is looked at may belong to somebody else than the user in the sandbox.
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "safe.directory",
    "GIT_CONFIG_VALUE_0": "*",
    "GIT_OPTIONAL_LOCKS": "0",
}


class Failure(Exception):
    """A measurement came to nothing; the text says why, for the table's notes."""

    def __init__(self, text: str, *, final: bool = False) -> None:
        """With *final* there is no point in trying again."""
        super().__init__(text)
        self.final = final


def become_subreaper() -> None:
    """Let orphans of what is started here become children of this process."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    Program.adopts_orphans = True


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{pid}/task/{thread}/children").read_text(encoding="ascii")
                found += map(int, text.split())
    return found


def descendants(pid: int) -> list[int]:
    """Return the process ids of all that *pid* has started, and they, as far as they live."""
    found, waiting = [], _children(pid)
    while waiting:
        one = waiting.pop()
        found.append(one)
        waiting += _children(one)
    return found


def proportional_bytes(pid: int) -> int:
    """Return the proportional set size (PSS) of *pid* and all below it, in bytes: pages shared by N count for 1/N."""
    total = 0
    for one in [pid, *descendants(pid)]:
        with contextlib.suppress(OSError):  # it has ended meanwhile
            lines = Path(f"/proc/{one}/smaps_rollup").read_text(encoding="ascii").splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
    return total


class Program:
    """A program with everything that it starts; use it as a context manager."""

    #: Whether this process has no other children than programs and what they have left to it.
    adopts_orphans: ClassVar[bool] = False
    #: Those that run now: orphans are told from them.
    _running: ClassVar[set[int]] = set()

    def __init__(self, argv: Sequence[str], directory: str, *, talk: bool) -> None:
        """Start it in *directory*; with *talk* its standard input and output are pipes. Failure.

        Its runtime directory is beside *directory*: no supervisor but one of the same session is found there.
        """
        runtime = f"{directory}.run"
        os.makedirs(runtime, mode=0o700, exist_ok=True)
        environment = {**ENVIRONMENT, "XDG_RUNTIME_DIR": runtime}
        self._heard = b""
        self._complaints: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed by close()
        stream = subprocess.PIPE if talk else subprocess.DEVNULL
        try:
            self.process = subprocess.Popen(
                argv, cwd=directory, env=environment, stdin=stream, stdout=stream, stderr=self._complaints
            )
        except OSError as error:
            self._complaints.close()
            raise Failure(f"{argv[0]}: {error.strerror}", final=True) from None
        self._running.add(self.process.pid)

    def read_line(self, timeout_s: float) -> bytes:
        """Return the next line of its standard output. Failure when none comes in time, or ever."""
        stdout = self.process.stdout
        assert stdout is not None
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._heard:
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not select.select([stdout], [], [], remaining)[0]:
                raise Failure(f"took more than {timeout_s:g} s", final=True)
            some = os.read(stdout.fileno(), 65536)
            if not some:
                raise Failure(self.complaint() or "ended without an answer")
            self._heard += some
        line, _, self._heard = self._heard.partition(b"\n")
        return line

    def complaint(self) -> str:
        """Return the last line that it wrote to standard error."""
        self._complaints.seek(0)
        lines = self._complaints.read().decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")[:_REASON_LENGTH]

    def close(self, patience_s: float = 0.0) -> None:
        """Close its input, give it *patience_s* to end by itself, then kill it and all that it has started."""
        process = self.process
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            if patience_s:
                process.wait(patience_s)
        family = {process.pid, *descendants(process.pid)} if process.poll() is None else set()
        deadline = time.monotonic() + _DEATH_S
        while True:
            for pid in family | self._orphans():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.poll()
            family = {pid for pid in family if pid != process.pid and os.path.exists(f"/proc/{pid}")}
            if process.returncode is not None and not family and not self._orphans():
                break
            if time.monotonic() > deadline:
                raise RuntimeError(f"processes do not die: {sorted(family | self._orphans())}")
            time.sleep(0.002)
        self._running.discard(process.pid)
        self._complaints.close()

    def _orphans(self) -> set[int]:
        """Reap the dead of what was left to this process; return the others, once they can be nobody else's."""
        orphans = set()
        for pid in set(_children(os.getpid()) if self.adopts_orphans else ()) - self._running:
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0] == 0:
                    orphans.add(pid)
        return orphans if self._running == {self.process.pid} else set()

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def run(argv: Sequence[str], directory: str, timeout_s: float) -> float:
    """Run a program to its end and return the seconds that it took. Failure when it fails or takes too long."""
    begin = time.monotonic()
    with Program(argv, directory, talk=False) as program:
        try:
            status = program.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise Failure(f"took more than {timeout_s:g} s", final=True) from None
        took = time.monotonic() - begin
        if status:
            raise Failure(program.complaint() or f"exit status {status}")
    return took
