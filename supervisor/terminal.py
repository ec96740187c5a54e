"""Terminals of programs: the holder of a pseudo terminal, and a terminal that is relayed to one.

A program in a sandbox cannot be a host session leader, so nobody would get the signals that the host's terminal driver
sends.  The holder is a small process of the spawner which has the terminal's slave as its controlling terminal; it
reports SIGINT, SIGQUIT, SIGTSTP, SIGWINCH and SIGHUP, and the supervisor sends them to the guest's foreground process
group.  It goes when its program does, which hangs the terminal up.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import struct
import termios
import threading
from typing import TYPE_CHECKING

from .errors import GreenroomError
from .spawner import set_process_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..actors.runtime.loop import Loop
    from .program import Process
    from .spawner import Spawner

__all__ = ["TerminalHolder", "relay", "run_holder"]

_ENTRY = f"{__name__}:run_holder"

_REPORTED = (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGWINCH, signal.SIGHUP)

#: No signal's number: the holder has the terminal.
_READY = 0

#: No signal's number either: the program that a terminal is relayed to has ended.
_ENDED = 255

_READ_BYTES = 1 << 16


class TerminalHolder:
    """The supervisor's side of one holder."""

    def __init__(self, loop: Loop, spawner: Spawner, terminal: int, ready: Callable[[], None]) -> None:
        """Start a holder of *terminal*, a slave; *ready* is called when no key is lost any more. OSError."""
        self._loop = loop
        self._ready = ready
        #: Signals that came before :meth:`report_to`.
        self._early: list[int] = []
        self._report: Callable[[int], None] = self._early.append
        self._socket, theirs = socket.socketpair()
        self._socket.setblocking(False)
        loop.watch(self._socket.fileno(), select.EPOLLIN, lambda _mask: self._receive())
        null = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
        try:
            spawner.spawn(_ENTRY, b"", [null, terminal, theirs.fileno()], _close_pidfd, _forget)
        finally:
            theirs.close()
            os.close(null)

    def report_to(self, report: Callable[[int], None]) -> None:
        """Call *report* with the number of each signal, and with those that came before."""
        self._report = report
        for number in self._early:
            report(number)

    def _receive(self) -> None:
        try:
            numbers = self._socket.recv(64)
        except BlockingIOError:
            return
        except OSError:
            numbers = b""
        if not numbers:
            # The terminal was hung up before the holder had it, or somebody killed the holder.
            self._loop.unwatch(self._socket.fileno())
            numbers = bytes([signal.SIGHUP, _READY])
        for number in numbers:
            if number == _READY:
                ready, self._ready = self._ready, _do_nothing
                ready()
            else:
                self._report(number)

    def close(self) -> None:
        """Let the holder go. Idempotent."""
        if self._socket.fileno() >= 0:
            self._loop.unwatch(self._socket.fileno())
            self._socket.close()


def _do_nothing() -> None:
    """Be ready a second time."""


def _close_pidfd(_pid: int, pidfd: int) -> None:
    if pidfd >= 0:
        os.close(pidfd)


def _forget(_status: int) -> None:
    """Nothing depends on how a holder ended."""


def run_holder(_config: bytes, fds: list[int]) -> int:
    """Be the holder: report signals until the supervisor closes its end."""
    set_process_name("gr-terminal")
    terminal, report = fds
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
    with socket.socket(fileno=report) as channel:
        channel.setblocking(False)
        signal.set_wakeup_fd(report, warn_on_full_buffer=False)
        for signo in _REPORTED:
            signal.signal(signo, _reported_by_wakeup)
        channel.send(bytes([_READY]))
        poll = select.poll()
        poll.register(channel, select.POLLIN)
        poll.poll()
        signal.set_wakeup_fd(-1)
    return 0


def _reported_by_wakeup(*_: object) -> None:
    """Handle a signal: its number has gone to the supervisor by the wake-up descriptor."""


def relay(process: Process, stdin: int, stdout: int) -> int:
    """Join the caller's terminal to a program's until the program ends; return its return code."""
    before = termios.tcgetattr(stdin)
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    wakeup = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    handler = signal.signal(signal.SIGWINCH, _reported_by_wakeup)
    # A background process may hold the terminal open long after the program: its end is what counts.
    waiting = threading.Thread(target=_say_end, args=(process, theirs), daemon=True)
    try:
        _set_raw(stdin)
        _copy_size(stdin, process)
        waiting.start()
        _copy_both_ways(process, stdin, stdout, ours)
        return process.wait()
    finally:
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)
        signal.signal(signal.SIGWINCH, handler)
        signal.set_wakeup_fd(wakeup)


def _say_end(process: Process, news: socket.socket) -> None:
    with contextlib.suppress(GreenroomError):  # relay's own wait says it
        process.wait()
    news.send(bytes([_ENDED]))


def _set_raw(terminal: int) -> None:
    import tty

    tty.setraw(terminal, termios.TCSADRAIN)


def _copy_size(terminal: int, process: Process) -> None:
    rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(terminal, termios.TIOCGWINSZ, bytes(8)))
    process.resize(rows, columns)


def _copy_both_ways(process: Process, stdin: int, stdout: int, news: socket.socket) -> None:
    """Copy until the program has ended and what it wrote is out; *news* tells of that, and of new sizes."""
    assert process.stdin is not None
    assert process.stdout is not None
    targets = {stdin: process.stdin.fileno(), process.stdout.fileno(): stdout}
    poll = select.poll()
    for fd in (*targets, news.fileno()):
        poll.register(fd, select.POLLIN)
    ended = False
    while True:
        ready = [fd for fd, _ in poll.poll(0 if ended else None)]
        if ended and process.stdout.fileno() not in ready:
            return
        for fd in ready:
            if fd in targets:
                _copy_some(fd, targets[fd], poll)
            else:
                ended = ended or _ENDED in news.recv(64)
                if not ended:
                    _copy_size(stdin, process)
        if ended:
            with contextlib.suppress(KeyError):
                poll.unregister(stdin)


def _copy_some(source: int, target: int, poll: select.poll) -> None:
    """Copy what is there; forget a source that has come to its end."""
    data = b""
    with contextlib.suppress(OSError):  # EIO: the last one has closed the terminal
        data = os.read(source, _READ_BYTES)
    if data:
        _write_all(target, data)
    else:
        poll.unregister(source)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
