"""Hosts with fake sandboxes: in this process, turned by the test, or in a process of their own."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import fake_sandbox
from greenroom.actors.runtime.loop import Loop
from greenroom.config.spec import Command
from greenroom.messages.base import Message
from greenroom.supervisor.client import Connection
from greenroom.supervisor.host import Host
from greenroom.supervisor.runtime_directory import RuntimeDirectory
from greenroom.supervisor.spawner import prepare

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = os.path.dirname(os.path.abspath(__file__))

#: Seconds after which a test has failed; never waited for when it works.
LIMIT_S = 20.0


def command(program: str, **changes: Any) -> Command:
    """A fake program."""
    values = {"envv": (), "cwd": "/", "user": "root", "terminal": False, "limits": {}, **changes}
    return Command(argv=(program.encode(),), **values)


def wait_for_death(pid: int) -> None:
    """Return when the process *pid*, which need not be a child, is dead."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        assert poll.poll(LIMIT_S * 1000), f"process {pid} lives"
    finally:
        os.close(pidfd)


class TurnedHost:
    """A host in this process, whose loop the test turns."""

    def __init__(self, stock_limit: int = 0) -> None:
        directory, self.spawner = prepare(())
        self.loop = Loop()
        self.host = Host(self.loop, directory, self.spawner, fake_sandbox.ROLES, stock_limit)

    def until(self, done: Callable[[], bool]) -> None:
        """Turn the loop until *done*."""
        deadline = time.monotonic() + LIMIT_S
        while not done():
            assert time.monotonic() < deadline, "it did not happen"
            self.loop.turn(0.1)

    def request(self, message: Message) -> Message:
        """Make a request and return its reply."""
        replies: list[Message] = []
        self.host.request(message, replies.append)
        self.until(lambda: bool(replies))
        return replies[0]


def start_script(body: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a Python process that sees the fakes."""
    return subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {HERE!r})\n{body}", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


_SERVER = """
import fake_sandbox
from greenroom.actors.runtime.loop import Loop
from greenroom.supervisor.host import Host
from greenroom.supervisor.spawner import prepare
import select
directory, spawner = prepare(())
loop = Loop()
host = Host(loop, directory, spawner, fake_sandbox.ROLES)
host.serve()
loop.watch(0, select.EPOLLIN, lambda _mask: loop.stop())
print(directory.path, spawner.pid, flush=True)
loop.run()
host.close()
"""


class Server:
    """A supervisor process with fake sandboxes."""

    def __init__(self) -> None:
        self.process = start_script(_SERVER)
        assert self.process.stdout is not None
        self.path, spawner = self.process.stdout.readline().split()
        self.spawner_pid = int(spawner)
        self.connection = Connection(RuntimeDirectory(self.path))

    def close(self) -> None:
        self.connection.close()
        self.process.communicate(timeout=LIMIT_S)
        wait_for_death(self.spawner_pid)
