"""The supervisor process of a Python client: ``python -m greenroom.supervisor.service CLIENT_PID``.

It says where its directory is on standard output, serves, and ends when its client does: the client holds the other
end of its standard input, and its pidfd is watched beside, because a child that the client forks holds that end too.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys

from ..actors.runtime.loop import Loop
from ..config.limits import MAX_STOCK
from .host import Host
from .sandbox_process import PRELOAD
from .spawner import prepare, set_process_name

__all__ = ["main"]


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
    _stop_on_sigterm(loop)
    os.write(1, directory.path.encode() + b"\n")
    os.dup2(0, 1)  # the client reads that line alone
    loop.run()
    host.close()
    return 0


def _stop_with_client(loop: Loop, client_pid: int) -> None:
    client = os.pidfd_open(client_pid)
    for fd in (0, client):
        loop.watch(fd, select.EPOLLIN, lambda _mask: loop.stop())


def _stop_on_sigterm(loop: Loop) -> None:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda *_: theirs.fileno())  # keeps the socket alive; the loop does the rest
    loop.watch(ours.fileno(), select.EPOLLIN, lambda _mask: loop.stop())


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
