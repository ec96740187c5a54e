"""A sandbox in the foreground: ``greenroom run`` and ``greenroom restore`` are its supervisor themselves.

What the caller is to its program says ``session``; here it is this process, and puts its terminal back as it was.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import sys
import termios
from typing import TYPE_CHECKING

from ..actors.runtime.loop import Loop
from .host import Host
from .sandbox_process import PRELOAD, ROLES
from .session import FORWARDED, Session
from .spawner import Prepared, prepare
from .streams import CLOSED_STREAM

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ..config.spec import Command, SandboxSpec

__all__ = ["Foreground", "complain"]


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
        self._status = 0
        self._text = ""
        self._terminal = next((fd for fd in range(3) if fd not in closed and os.isatty(fd)), -1)
        self._attributes = termios.tcgetattr(self._terminal) if self._terminal >= 0 else None
        self._session = Session(self._host, terminal=self._terminal == 0, ended=self._ended, stopped=self._stop)

    def run(self, spec: SandboxSpec, command: Command) -> int:
        """Run *command* in a new sandbox; return the exit status for this process. GreenroomError, OSError."""
        return self._live(lambda: self._session.run(spec, command, self._own_streams))

    def restore(self, path: str, name: str, platform: str) -> int:
        """Go on with the sandbox saved at *path*; return the exit status for this process. As :meth:`run`."""
        return self._live(lambda: self._session.restore(path, name, platform, self._own_streams()))

    def _live(self, begin: Callable[[], object]) -> int:
        # What is there now is for ever.
        gc.freeze()
        gc.enable()
        with self._signals():
            try:
                begin()
                self._host.serve()
                self._loop.run()
                if self._text:
                    complain(self._text)
                return self._status
            finally:
                self._restore_terminal()
                self._host.close()

    def _ended(self, status: int, text: str) -> None:
        self._status, self._text = status, text
        self._loop.stop()

    def _stop(self) -> None:
        self._restore_terminal()
        os.kill(os.getpid(), signal.SIGSTOP)

    def _own_streams(self) -> list[int]:
        return [CLOSED_STREAM if fd in self._closed else os.dup(fd) for fd in range(3)]

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Take the signals that are passed on, through the loop."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        before = {signo: signal.signal(signo, _taken_by_loop) for signo in FORWARDED}
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
            self._session.forward(number)

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
