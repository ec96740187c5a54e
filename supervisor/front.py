"""The front door of ``greenroom serve``: runs programs for ``greenroom run`` of other processes of the user.

One connection on a SOCK_SEQPACKET socket in the supervisor's directory is one ``greenroom run``.

* The client sends one packet: a byte for each standard stream, 0 when the client was started without it; beside it
  four descriptors: a memory file with the request, and the three streams.  The request is its working directory, the
  number of its arguments, the arguments, and the environment, with a NUL byte between each two.
* The answer ``n`` means: do it yourself.  Otherwise ``y``, then ``t`` each time that the client is to stop because its
  program has, and at last ``e``, a byte of exit status and what is to be said on standard error.
* Meanwhile each packet of the client is one byte, the number of a signal that is to be passed on.  When the connection
  closes, the sandbox is ended.

The client has this user's rights, since nobody else may enter the directory, but may live elsewhere: one whose mount
namespace or root is another than ours is sent away, as it would not know the paths of its host.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
from typing import TYPE_CHECKING

import click

from ..actors.runtime.descriptors import receive_fds
from .actor import close_all
from .commands import read_run
from .errors import GreenroomError
from .places import FRONT_SOCKET
from .session import STATUS_FAILED, Session
from .streams import CLOSED_STREAM
from .surroundings import Surroundings

if TYPE_CHECKING:
    from ..actors.runtime.loop import Loop
    from ..config.spec import Command, SandboxSpec
    from .host import Host
    from .runtime_directory import RuntimeDirectory

__all__ = ["FrontDoor"]

_BACKLOG = 128
_CREDENTIALS = struct.Struct("3i")
#: Bytes of an answer.
_MAX_TEXT = 60_000


class FrontDoor:
    """Waits for clients."""

    def __init__(self, loop: Loop, host: Host, directory: RuntimeDirectory) -> None:
        """Listen in *directory*; sandboxes are *host*'s."""
        self._loop = loop
        self._host = host
        self.visitors: set[_Visitor] = set()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path = f"{directory.path}/{FRONT_SOCKET}"
        self._listener.bind(path)
        os.chmod(path, 0o600)
        self._listener.listen(_BACKLOG)
        self._listener.setblocking(False)
        loop.watch(self._listener.fileno(), select.EPOLLIN, lambda _mask: self._accept())

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.visitors.add(_Visitor(self, connection))

    @property
    def loop(self) -> Loop:
        """The loop that connections are watched on."""
        return self._loop

    @property
    def host(self) -> Host:
        """Where sandboxes are made."""
        return self._host

    def close(self) -> None:
        """Let nobody in any more; end what is there."""
        self._loop.unwatch(self._listener.fileno())
        self._listener.close()
        for visitor in list(self.visitors):
            visitor.leave()


class _Visitor:
    """One client."""

    def __init__(self, door: FrontDoor, connection: socket.socket) -> None:
        self._door = door
        self._connection = connection
        self._session: Session | None = None
        #: The program's, until there is a sandbox that takes them.
        self._streams: list[int] = []
        connection.setblocking(False)
        door.loop.watch(connection.fileno(), select.EPOLLIN, lambda _mask: self._receive())

    def _receive(self) -> None:
        try:
            data, fds = receive_fds(self._connection, 64, 4, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data, fds = b"", []
        if not data:
            self.leave()
        elif self._session is None:
            self._begin(data, fds)
        else:
            close_all(fds)
            self._session.forward(data[0])

    def _begin(self, data: bytes, fds: list[int]) -> None:
        request, self._streams = fds[:1], fds[1:]
        try:
            if len(data) != 3 or len(fds) != 4 or not _lives_here(self._connection):
                raise ValueError("not a request that is for us")  # noqa: TRY301  # answered as any other
            spec, command, terminal = _read_request(request[0], data, self._streams[0])
        except (ValueError, OSError, GreenroomError, click.ClickException, click.exceptions.Exit):
            self._send(b"n")
            self.leave()
            return
        finally:
            close_all(request)
        for stream, given in enumerate(data):
            if not given:
                os.close(self._streams[stream])
                self._streams[stream] = CLOSED_STREAM
        self._send(b"y")
        host = self._door.host
        self._session = Session(host, terminal=terminal, ended=self._ended, stopped=lambda: self._send(b"t"))
        try:
            sandbox = self._session.run(spec, command, self._give_streams)
            if self._streams[2:] and self._streams[2] >= 0:
                sandbox.show_warnings_on(os.dup(self._streams[2]))
        except (GreenroomError, OSError) as error:
            self._ended(STATUS_FAILED, str(error))

    def _give_streams(self) -> list[int]:
        """Return the program's streams, which are the sandbox's from now on."""
        streams, self._streams = self._streams, []
        return streams

    def _ended(self, status: int, text: str) -> None:
        self._send(b"e" + bytes([status]) + text.encode()[:_MAX_TEXT])
        self._session = None
        self.leave()

    def _send(self, packet: bytes) -> None:
        with contextlib.suppress(OSError):
            self._connection.send(packet)

    def leave(self) -> None:
        """The client has gone, or has its answer."""
        if self not in self._door.visitors:
            return
        self._door.visitors.discard(self)
        self._door.loop.unwatch(self._connection.fileno())
        self._connection.close()
        close_all(self._streams)
        if self._session is not None:
            self._session.abandon("its client has gone")


def _lives_here(connection: socket.socket) -> bool:
    """Whether the process at the other end sees the host's files as this one does."""
    pid, _uid, _gid = _CREDENTIALS.unpack(
        connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    )
    return all(os.readlink(f"/proc/{pid}/{name}") == os.readlink(f"/proc/self/{name}") for name in ("ns/mnt", "root"))


def _read_request(memory: int, given: bytes, stdin: int) -> tuple[SandboxSpec, Command, bool]:
    """Return the specification, the program, and whether its standard input is a terminal.

    ValueError, GreenroomError and click's exceptions for what the client had better do itself.
    """
    with open(memory, "rb", closefd=False) as file:
        file.seek(0)
        directory, count, *rest = file.read().split(b"\0")
    number = int(count)
    arguments = [os.fsdecode(argument) for argument in rest[:number]]
    pairs = [os.fsdecode(entry).partition("=")[::2] for entry in rest[number:]]
    terminal = bool(given[0]) and os.isatty(stdin)
    closed = frozenset(stream for stream in range(3) if not given[stream])
    around = Surroundings(os.fsdecode(directory) or None, dict(pairs), closed, terminal)
    spec, command = read_run(arguments, around)
    return spec, command, terminal
