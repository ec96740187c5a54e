"""A sandbox in the foreground: ``greenroom run`` and ``greenroom restore`` are its supervisor themselves.

The program has the caller's own standard streams, and the caller's process stands for it: it passes signals on, stops
when the program is stopped from the terminal, puts the terminal back as it was, and ends with the program's status:

* 0 to 255: what the program returned; 128 + N: it died by signal N, as a shell says it
* 124: the time limit has passed; 125: greenroom failed; 126: the program cannot be executed; 127: it was not found
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import sys
import termios
import time
from typing import TYPE_CHECKING

from ..actors.runtime.loop import Loop
from ..messages.base import Failed, Message
from ..messages.supervisor import GuestProcesses, ListGuestProcesses, ProcessStarted, SignalProcess
from .host import Host
from .sandbox_process import PRELOAD, ROLES
from .spawner import Prepared, prepare
from .streams import CLOSED_STREAM

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ..config.spec import Command, SandboxSpec
    from .actor import Supervisor

__all__ = [
    "GROUP_SIGNALS",
    "Foreground",
    "complain",
    "exit_status_of",
    "shell_status",
    "status_of_exec_error",
]

STATUS_TIMEOUT = 124
STATUS_FAILED = 125
STATUS_NOT_EXECUTABLE = 126
STATUS_NOT_FOUND = 127

#: Signals that go to the foreground process group, as those of a terminal do; SIGTERM is for the program alone.
GROUP_SIGNALS = frozenset(
    {signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGCONT, signal.SIGWINCH, signal.SIGHUP}
)
_FORWARDED = GROUP_SIGNALS | {signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2}

#: How often, and how many times, the program is looked at after SIGTSTP: has it stopped?
_STOP_LOOK_NS = 20_000_000
_STOP_LOOKS = 10


def exit_status_of(status: int) -> int:
    """Return the exit status that stands for a wait status."""
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def shell_status(returncode: int) -> int:
    """Return the exit status that stands for a return code as subprocess has it: -N becomes 128 + N."""
    return returncode if returncode >= 0 else 128 - returncode


def status_of_exec_error(number: int) -> int:
    """Return the exit status for a program that execve(2) refused with the errno *number*."""
    return STATUS_NOT_FOUND if number == errno.ENOENT else STATUS_NOT_EXECUTABLE


class Foreground:
    """One sandbox whose end is this process's end."""

    def __init__(
        self,
        closed: frozenset[int] = frozenset(),
        prepared: Prepared | None = None,
        roles: Mapping[str, str] = ROLES,
    ) -> None:
        """*closed*: the standard streams that the caller has closed.

        Without *prepared* it forks the spawner: call it before this process has any thread.
        """
        directory, spawner = prepared or prepare(PRELOAD)
        self._loop = Loop()
        self._host = Host(self._loop, directory, spawner, roles)
        self._closed = closed
        self._sandbox: Supervisor | None = None
        self._program = ""
        self._pid = 0
        self._result: int | None = None
        self._terminal = next((fd for fd in range(3) if fd not in closed and os.isatty(fd)), -1)
        self._attributes = termios.tcgetattr(self._terminal) if self._terminal >= 0 else None

    def run(self, spec: SandboxSpec, command: Command) -> int:
        """Run *command* in a new sandbox; return the exit status for this process. GreenroomError, OSError."""
        self._program = os.fsdecode(command.argv[0])

        def begin() -> Supervisor:
            sandbox = self._host.create(spec)
            sandbox.boot(lambda reply: self._booted(reply, command))
            return sandbox

        return self._live(begin)

    def restore(self, path: str, name: str, platform: str) -> int:
        """Go on with the sandbox saved at *path*; return the exit status for this process. As :meth:`run`."""

        def begin() -> Supervisor:
            return self._host.restore(path, name, platform, self._own_streams(), self._restored)

        return self._live(begin)

    def _live(self, begin: Callable[[], Supervisor]) -> int:
        with self._signals():
            try:
                self._host.on_sandbox_ended = lambda _name: self._loop.stop()
                self._sandbox = sandbox = begin()
                self._host.serve()
                self._loop.run()
                return self._conclude(sandbox)
            finally:
                self._restore_terminal()
                self._host.close()

    def _restored(self, reply: Message) -> None:
        if self._sandbox is not None and not isinstance(reply, Failed):
            self._pid = self._sandbox.main_pid

    def _booted(self, reply: Message, command: Command) -> None:
        if self._sandbox is not None and not isinstance(reply, Failed):
            self._sandbox.submit(self._sandbox.execute(command, self._own_streams(), main=True), self._started)

    def _own_streams(self) -> list[int]:
        return [CLOSED_STREAM if fd in self._closed else os.dup(fd) for fd in range(3)]

    def _started(self, reply: Message) -> None:
        assert self._sandbox is not None
        if isinstance(reply, ProcessStarted):
            self._pid = reply.pid
        elif isinstance(reply, Failed) and reply.kind == "ExecError":
            self._result = status_of_exec_error(reply.errno)
            self._sandbox.end("exited", f"{self._program}: {reply.text}")
        elif isinstance(reply, Failed):
            self._sandbox.end("failed", reply.text)

    def _conclude(self, sandbox: Supervisor) -> int:
        report = sandbox.end_report
        if self._result is not None:
            complain(report.reason)
            return self._result
        if report.cause == "exited":
            return exit_status_of(report.status)
        complain(report.reason or report.cause)
        if report.cause == "timeout":
            return STATUS_TIMEOUT
        if report.cause == "killed":
            return 128 + signal.SIGKILL
        return 0 if report.cause == "saved" else STATUS_FAILED

    # -- signals ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Take the signals that are passed on, through the loop."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        before = {signo: signal.signal(signo, _taken_by_loop) for signo in _FORWARDED}
        previous = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        self._loop.watch(ours.fileno(), select.EPOLLIN, lambda _mask: self._on_signals(ours.recv(64)))
        try:
            yield
        finally:
            self._loop.unwatch(ours.fileno())
            signal.set_wakeup_fd(previous)
            for signo, handler in before.items():
                signal.signal(signo, handler)
            ours.close()
            theirs.close()

    def _on_signals(self, numbers: bytes) -> None:
        for number in numbers:
            if number in _FORWARDED:
                self._forward(number)

    def _forward(self, signo: int) -> None:
        sandbox = self._sandbox
        if sandbox is None:
            return
        if self._pid == 0:
            if signo in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
                self._result = 128 + signo
                sandbox.end("killed", f"signal {signo} before the program was started")
            return
        group = signo in GROUP_SIGNALS
        foreground = group and self._terminal == 0
        pid = -self._pid if group and not foreground else self._pid
        request = SignalProcess(sandbox=sandbox.spec.name, pid=pid, signo=signo, foreground=foreground)
        self._host.request(request, lambda _reply: self._look_if_stopped(_STOP_LOOKS, signo))

    def _look_if_stopped(self, looks: int, signo: int = signal.SIGTSTP) -> None:
        """After SIGTSTP: when the program has stopped, stop too, so that the caller's shell goes on."""
        if signo != signal.SIGTSTP or looks == 0 or self._sandbox is None:
            return

        def look(reply: Message) -> None:
            rows = reply.rows if isinstance(reply, GuestProcesses) else ()
            if any(row.pid == self._pid and row.state == "T" for row in rows):
                self._restore_terminal()
                os.kill(os.getpid(), signal.SIGSTOP)
            else:
                deadline = time.monotonic_ns() + _STOP_LOOK_NS
                self._loop.call_at(deadline, lambda: self._look_if_stopped(looks - 1))

        self._host.request(ListGuestProcesses(sandbox=self._sandbox.spec.name), look)

    def _restore_terminal(self) -> None:
        """Put the terminal back as it was, even from the background."""
        if self._attributes is None:
            return
        before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        with contextlib.suppress(termios.error):
            if termios.tcgetattr(self._terminal) != self._attributes:
                termios.tcsetattr(self._terminal, termios.TCSADRAIN, self._attributes)
        signal.signal(signal.SIGTTOU, before)


def _taken_by_loop(*_: object) -> None:
    """Handle a signal: its number is in the wake-up descriptor, where the loop reads it."""


def complain(text: str) -> None:
    """Say something on standard error, where there is one."""
    if sys.stderr is not None:
        sys.stderr.write(f"greenroom: {text}\n")
        sys.stderr.flush()
