"""A session: one sandbox for one program, as ``greenroom run`` and ``greenroom restore`` want it.

The program has the caller's own standard streams, and the caller's process stands for it: signals are passed on, the
caller stops when the program is stopped from the terminal, and ends with the program's status:

* 0 to 255: what the program returned; 128 + N: it died by signal N, as a shell says it
* 124: the time limit has passed; 125: greenroom failed; 126: the program cannot be executed; 127: it was not found

The caller is this process (``foreground``), or a client of ``greenroom serve`` (``front``).
"""

from __future__ import annotations

import errno
import os
import signal
import time
from typing import TYPE_CHECKING

from ..messages.base import Failed, Message
from ..messages.supervisor import EndReport, GuestProcesses, ListGuestProcesses, ProcessStarted, SignalProcess

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..config.spec import Command, SandboxSpec
    from .actor import Supervisor
    from .host import Host

__all__ = ["FORWARDED", "GROUP_SIGNALS", "Session", "exit_status_of", "shell_status", "status_of_exec_error"]

STATUS_TIMEOUT = 124
STATUS_FAILED = 125
STATUS_NOT_EXECUTABLE = 126
STATUS_NOT_FOUND = 127

#: Signals that go to the foreground process group, as those of a terminal do; SIGTERM is for the program alone.
GROUP_SIGNALS = frozenset(
    {signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGCONT, signal.SIGWINCH, signal.SIGHUP}
)
#: All that are passed on.
FORWARDED = GROUP_SIGNALS | {signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2}

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


class Session:
    """One sandbox whose end is its caller's end."""

    def __init__(
        self,
        host: Host,
        *,
        terminal: bool,
        ended: Callable[[int, str], None],
        stopped: Callable[[], None],
    ) -> None:
        """*terminal*: the program's standard input is one.

        *ended* gets the caller's exit status, and what is to be said on its standard error ("": nothing), when the
        sandbox is gone; *stopped* is called when the program has stopped after SIGTSTP, so that the caller stops too.
        """
        self._host = host
        self._terminal = terminal
        self._ended = ended
        self._stopped = stopped
        self._sandbox: Supervisor | None = None
        self._program = ""
        self._pid = 0
        self._result: int | None = None

    def run(self, spec: SandboxSpec, command: Command, streams: Callable[[], list[int]]) -> Supervisor:
        """Run *command* in a new sandbox; *streams* gives the descriptors when it is there. GreenroomError, OSError."""
        self._program = os.fsdecode(command.argv[0])
        sandbox = self._sandbox = self._host.create(spec)

        def booted(reply: Message) -> None:
            if not isinstance(reply, Failed):
                sandbox.submit(sandbox.execute(command, streams(), main=True), self._started)

        sandbox.wait_end(self._conclude)
        self._host.boot(sandbox, booted)
        return sandbox

    def restore(self, path: str, name: str, platform: str, streams: list[int]) -> Supervisor:
        """Go on with the sandbox saved at *path*. As :meth:`run`."""

        def restored(reply: Message) -> None:
            if not isinstance(reply, Failed):
                self._pid = sandbox.main_pid

        sandbox = self._sandbox = self._host.restore(path, name, platform, streams, restored)
        sandbox.wait_end(self._conclude)
        return sandbox

    def _started(self, reply: Message) -> None:
        assert self._sandbox is not None
        if isinstance(reply, ProcessStarted):
            self._pid = reply.pid
        elif isinstance(reply, Failed) and reply.kind == "ExecError":
            self._result = status_of_exec_error(reply.errno)
            self._sandbox.end("exited", f"{self._program}: {reply.text}")
        elif isinstance(reply, Failed):
            self._sandbox.end("failed", reply.text)

    def _conclude(self, report: Message) -> None:
        assert isinstance(report, EndReport)
        if self._result is not None:
            self._ended(self._result, report.reason)
        elif report.cause == "exited":
            self._ended(exit_status_of(report.status), "")
        else:
            statuses = {"timeout": STATUS_TIMEOUT, "killed": 128 + signal.SIGKILL, "saved": 0}
            self._ended(statuses.get(report.cause, STATUS_FAILED), report.reason or report.cause)

    def abandon(self, reason: str) -> None:
        """End the sandbox: its caller has gone."""
        if self._sandbox is not None:
            self._sandbox.end("killed", reason)

    def forward(self, signo: int) -> None:
        """Pass on a signal that the caller got."""
        sandbox = self._sandbox
        if sandbox is None or signo not in FORWARDED:
            return
        if self._pid == 0:
            if signo in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
                self._result = 128 + signo
                sandbox.end("killed", f"signal {signo} before the program was started")
            return
        group = signo in GROUP_SIGNALS
        foreground = group and self._terminal
        pid = -self._pid if group and not foreground else self._pid
        request = SignalProcess(sandbox=sandbox.spec.name, pid=pid, signo=signo, foreground=foreground)
        self._host.request(request, lambda _reply: self._look_if_stopped(_STOP_LOOKS, signo))

    def _look_if_stopped(self, looks: int, signo: int = signal.SIGTSTP) -> None:
        """After SIGTSTP: when the program has stopped, the caller is to stop too, so that its shell goes on."""
        if signo != signal.SIGTSTP or looks == 0 or self._sandbox is None:
            return

        def look(reply: Message) -> None:
            rows = reply.rows if isinstance(reply, GuestProcesses) else ()
            if any(row.pid == self._pid and row.state == "T" for row in rows):
                self._stopped()
            else:
                deadline = time.monotonic_ns() + _STOP_LOOK_NS
                self._host.loop.call_at(deadline, lambda: self._look_if_stopped(looks - 1))

        self._host.request(ListGuestProcesses(sandbox=self._sandbox.spec.name), look)
