"""A program in a sandbox, from the client's side: ``Process``, and the ``Result`` of one that has ended."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import io
import os
import selectors
import signal
import struct
import time
from typing import TYPE_CHECKING

from ..messages.base import Done
from ..messages.supervisor import Execute, ProcessEnded, ProcessStarted, SignalProcess, WaitProcess
from .errors import CommandFailed, ProcessLookupFailed, SandboxEnded, TimedOut

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..config.spec import Command
    from .client import Connection

__all__ = ["Process", "Result", "returncode_of"]

_PIPE_BYTES = 1 << 16
_WINSIZE = struct.Struct("HHHH")


def returncode_of(status: int) -> int:
    """Return what ``subprocess`` calls returncode: the exit status, or -N for death by signal N."""
    return os.waitstatus_to_exitcode(status)


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """How a program ended and what it wrote."""

    argv: tuple[str, ...]
    #: Exit status 0 to 255, or -N when signal N killed it.
    returncode: int
    stdout: bytes
    stderr: bytes

    def check(self) -> Result:
        """Return this result. CommandFailed unless the return code is 0."""
        if self.returncode:
            raise CommandFailed(self.argv, self.returncode, self.stdout, self.stderr)
        return self


class Process:
    """A program that runs in a sandbox; use it as ``subprocess.Popen``.

    With a terminal, :attr:`stdin` and :attr:`stdout` are both the terminal's other side and :attr:`stderr` is None.
    Use it as a context manager to close the streams and wait for the end.
    """

    def __init__(
        self, connection: Connection, sandbox: str, command: Command, streams: Sequence[int] | None = None
    ) -> None:
        """Start *command* on *streams*, or on new pipes or a new terminal; ``Sandbox.exec`` is the way to do that."""
        self._connection = connection
        self._sandbox = sandbox
        self.argv: tuple[str, ...] = tuple(os.fsdecode(argument) for argument in command.argv)
        #: None while it runs; then as :attr:`Result.returncode`.
        self.returncode: int | None = None
        self.stdin: io.RawIOBase | None = None
        self.stdout: io.RawIOBase | None = None
        self.stderr: io.RawIOBase | None = None
        self._terminal = -1
        #: Process id in the sandbox.
        self.pid = self._start_with_own_streams(command) if streams is None else self._start(command, streams)

    def _start(self, command: Command, streams: Sequence[int]) -> int:
        made = self._connection.request_with_streams(
            streams,
            lambda number: Execute(sandbox=self._sandbox, command=command, streams=number),
            ProcessStarted,
        )
        return made.pid

    def _start_with_own_streams(self, command: Command) -> int:
        theirs, ours = _open_terminal() if command.terminal else _open_pipes()
        try:
            pid = self._start(command, theirs)
        except BaseException:
            _close(set(ours))
            raise
        finally:
            _close(set(theirs))
        if command.terminal:
            self._terminal = ours[0]
        self.stdin = open(ours[0], "wb", buffering=0)  # noqa: SIM115  # closed by close()
        self.stdout = _TerminalOutput(ours[1]) if command.terminal else open(ours[1], "rb", buffering=0)  # noqa: SIM115
        self.stderr = open(ours[2], "rb", buffering=0) if len(ours) > 2 else None  # noqa: SIM115
        return pid

    def poll(self) -> int | None:
        """Return the return code, or None while it runs."""
        if self.returncode is None:
            self._ask_end(block=False, timeout_s=None)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended and return its return code. TimedOut after *timeout* seconds; SandboxFailed."""
        if self.returncode is None:
            self._ask_end(block=True, timeout_s=timeout)
        assert self.returncode is not None
        return self.returncode

    def _ask_end(self, *, block: bool, timeout_s: float | None) -> None:
        question = WaitProcess(sandbox=self._sandbox, pid=self.pid, block=block)
        status = self._connection.request(question, ProcessEnded, timeout_s).status
        if status >= 0:
            self.returncode = returncode_of(status)

    def communicate(self, input: bytes | None = None, timeout: float | None = None) -> tuple[bytes, bytes]:  # noqa: A002
        """Send *input*, close standard input, read to the end, wait; return what it wrote to stdout and stderr.

        TimedOut after *timeout* seconds: it still runs, and a later call goes on.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        output = _Exchange(self.stdin, input or b"", [s for s in (self.stdout, self.stderr) if s is not None])
        texts = output.run(deadline)
        self.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return texts[0], texts[1] if len(texts) > 1 else b""

    def send_signal(self, signal: int) -> None:
        """Send it a signal, which does nothing once it has ended. OSError for a bad signal number."""
        if self.returncode is None:
            self._signal(self.pid, signal, foreground=False)

    def forward(self, signal: int, *, to_group: bool) -> None:
        """Send a signal that was meant for it: to it alone, or to its process group as a terminal would."""
        self._signal(-self.pid if to_group else self.pid, signal, foreground=False)

    def interrupt(self) -> None:
        """Do what Ctrl-C does: SIGINT to the foreground process group of its terminal, or else to its own group."""
        foreground = self._terminal >= 0
        self._signal(self.pid if foreground else -self.pid, signal.SIGINT, foreground=foreground)

    def _signal(self, pid: int, signo: int, *, foreground: bool) -> None:
        request = SignalProcess(sandbox=self._sandbox, pid=pid, signo=signo, foreground=foreground)
        with contextlib.suppress(ProcessLookupFailed):
            self._connection.request(request, Done)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)

    def kill_group(self) -> None:
        """Kill it and all that it started and that has not left its process group."""
        if self.returncode is None:
            self._signal(-self.pid, signal.SIGKILL, foreground=False)

    def resize(self, rows: int, columns: int) -> None:
        """Tell its terminal a new size in characters. ValueError when it has none."""
        if self._terminal < 0:
            raise ValueError("the program has no terminal: start it with tty=True")
        _set_size(self._terminal, rows, columns)

    def close(self) -> None:
        """Close the streams; with a terminal the program gets SIGHUP."""
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                stream.close()
        self._terminal = -1

    def __enter__(self) -> Process:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the streams and wait for the end."""
        self.close()
        with contextlib.suppress(SandboxEnded):
            self.wait()


class _Exchange:
    """Writing to and reading from a program at once, so that neither side waits for the other for ever."""

    def __init__(self, stdin: io.RawIOBase | None, data: bytes, outputs: list[io.RawIOBase]) -> None:
        self._stdin = stdin if stdin is not None and not stdin.closed else None
        self._data = memoryview(data)
        self._outputs = outputs
        self._chunks: dict[io.RawIOBase, list[bytes]] = {output: [] for output in outputs}

    def run(self, deadline: float | None) -> list[bytes]:
        with selectors.DefaultSelector() as selector:
            self._register(selector)
            while selector.get_map():
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise TimedOut("the program has not closed its output within the time limit")
                for key, _ in selector.select(left):
                    if key.fileobj is self._stdin:
                        self._write(selector)
                    else:
                        self._read(selector, key.fileobj)  # type: ignore[arg-type]  # what _register gave it
        return [b"".join(self._chunks[output]) for output in self._outputs]

    def _register(self, selector: selectors.BaseSelector) -> None:
        same = self._stdin is not None and len(self._outputs) == 1  # a terminal
        if self._stdin is not None and self._data:
            os.set_blocking(self._stdin.fileno(), False)
            selector.register(self._stdin, selectors.EVENT_WRITE)
        elif self._stdin is not None and not same:
            self._stdin.close()
        for output in self._outputs:
            if not output.closed:
                selector.register(output, selectors.EVENT_READ)

    def _write(self, selector: selectors.BaseSelector) -> None:
        assert self._stdin is not None
        try:
            self._data = self._data[os.write(self._stdin.fileno(), self._data[:_PIPE_BYTES]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._data = self._data[:0]
        if not self._data:
            selector.unregister(self._stdin)
            if len(self._outputs) > 1:
                self._stdin.close()

    def _read(self, selector: selectors.BaseSelector, output: io.RawIOBase) -> None:
        try:
            data = os.read(output.fileno(), _PIPE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # EIO: the last one has closed the terminal
        if data:
            self._chunks[output].append(data)
        else:
            selector.unregister(output)
            output.close()


class _TerminalOutput(io.FileIO):
    """Our side of a terminal, for reading: Linux's EIO once no program has it open is the end of the output."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read at most *size* bytes, or all until the end; b"" at the end."""
        if size is None or size < 0:
            return self.readall()
        try:
            return super().read(size)
        except OSError as error:
            if error.errno == errno.EIO:
                return b""
            raise

    def readall(self) -> bytes:
        """Read until the end; FileIO's would lose what it had when EIO came."""
        return b"".join(iter(lambda: self.read(_PIPE_BYTES), b""))


def _open_pipes() -> tuple[list[int], list[int]]:
    """Return the program's three streams, and our ends of them."""
    stdin, stdout, stderr = (os.pipe2(os.O_CLOEXEC) for _ in range(3))
    return [stdin[0], stdout[1], stderr[1]], [stdin[1], stdout[0], stderr[0]]


def _open_terminal() -> tuple[list[int], list[int]]:
    """Return a terminal as the program's three streams, and our side of it twice."""
    ours, theirs = os.openpty()
    _set_size(ours, 24, 80)
    return [theirs] * 3, [ours, os.dup(ours)]


def _set_size(terminal: int, rows: int, columns: int) -> None:
    import fcntl
    import termios

    fcntl.ioctl(terminal, termios.TIOCSWINSZ, _WINSIZE.pack(rows, columns, 0, 0))


def _close(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)
