"""Supervisor processes: that of a Python client, and that of the user, which ``greenroom serve`` is.

The first is ``python -m greenroom.supervisor.service CLIENT_PID``. It says where its directory is on standard output,
serves, and ends when its client does: the client holds the other end of its standard input, and its pidfd is watched
beside, because a child that the client forks holds that end too.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import sys
from typing import TYPE_CHECKING

from ..actors.runtime.loop import Loop
from ..config.limits import MAX_STOCK
from ..config.spec import SandboxSpec
from .host import Host
from .sandbox_process import PRELOAD
from .spawner import prepare, set_process_name

if TYPE_CHECKING:
    from .spawner import Prepared

__all__ = ["main", "serve_user"]


def main(client_pid: int) -> int:
    """Serve until the client has gone; return the exit status."""
    if os.getppid() != client_pid:
        return 1  # it has gone already
    directory, spawner = prepare(PRELOAD)
    set_process_name("gr-supervisor")
    loop = Loop()
    host = Host(loop, directory, spawner, stock_limit=MAX_STOCK)
    host.serve()
    _stop_with_client(loop, client_pid)
    _stop_on_signal(loop)
    os.write(1, directory.path.encode() + b"\n")
    os.dup2(0, 1)  # the client reads that line alone
    loop.run()
    host.close()
    return 0


def serve_user(prepared: Prepared | None = None) -> int:
    """Serve every ``greenroom run`` of this user until a signal; return the exit status. SupervisorError.

    Without *prepared* it forks the spawner: call it before this process has any thread.
    """
    from .front import FrontDoor

    gc.freeze()
    gc.enable()
    directory, spawner = prepared or prepare(PRELOAD)
    set_process_name("gr-supervisor")
    loop = Loop()
    host = Host(loop, directory, spawner, stock_limit=MAX_STOCK)
    door = FrontDoor(loop, host, directory)
    try:
        directory.offer_service()
        host.serve()
        _stop_on_signal(loop)
        # It serves whoever comes before, but not as quickly.
        host.stock.expect(SandboxSpec(), lambda: _say_ready(b"greenroom serves, process %d\n" % os.getpid()))
        loop.run()
        return 0
    finally:
        directory.withdraw_service()
        door.close()
        host.close()


def _say_ready(text: bytes) -> None:
    with contextlib.suppress(OSError):  # nobody listens
        os.write(1, text)


def _stop_with_client(loop: Loop, client_pid: int) -> None:
    client = os.pidfd_open(client_pid)
    for fd in (0, client):
        loop.watch(fd, select.EPOLLIN, lambda _mask: loop.stop())


def _stop_on_signal(loop: Loop) -> None:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    for signo in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signo, lambda *_: theirs.fileno())  # keeps the socket alive; the loop does the rest

    def stop(_mask: int) -> None:
        ours.recv(64)
        loop.stop()

    loop.watch(ours.fileno(), select.EPOLLIN, stop)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
