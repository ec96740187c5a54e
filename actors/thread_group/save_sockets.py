"""Unix sockets as plain data, and back.

Linux counterpart: none; CRIU's sk-unix.c and sk-queue.c.  Both ends of a connection are in the same worker, so a
connection is saved as a pair of numbers, and restored as a fresh pair of host sockets.  What is queued is peeked at,
with the open files and credentials that travel along, and sent again.

Differences: connections that were not accepted yet are made anew, so what their caller has sent already refuses the
save; getpeername(2) of a restored connection knows no name; a queued datagram without a name comes from a nameless
socket.
"""

from __future__ import annotations

import select
import socket
import struct
from typing import TYPE_CHECKING, Any, Final

from ..runtime.actor import Refused
from .socket_file import Connecting, SocketFile, socket_class
from .unix_names import PeerCredentials

if TYPE_CHECKING:
    from .open_file import Identity, OpenFile
    from .worker import Worker

__all__ = ["SocketsLoader", "save_sockets"]

_SO_PEEK_OFF: Final = 42
_SIOCOUTQ: Final = 0x5411
_MESSAGE_BYTES: Final = 1 << 20
_POLLRDHUP: Final = select.POLLRDHUP
#: What setsockopt(2) of a buffer's size is doubled by.
_BUFFERS: Final = (socket.SO_SNDBUF, socket.SO_RCVBUF)


def save_sockets(worker: Worker, files: list[OpenFile]) -> dict[str, Any]:
    """Return the queues of all sockets by number, and what the worker knows of names. Refused: see above."""
    sockets = [file for file in files if isinstance(file, SocketFile)]
    for listener in sockets:
        for caller in listener.connecting:
            _check_silent(worker, caller.number)
    return {
        "queues": {file.number: _queue(file) for file in sockets if not file.is_listening},
        "hung_up": [file.number for file in sockets if file.is_stream and _is_hung_up(file)],
        "buffers": {file.number: _buffers(file) for file in sockets},
        "passes_credentials": worker.files.unix_names.passes_credentials,
    }


def _check_silent(worker: Worker, number: int) -> None:
    caller = worker.files.get(number)
    if caller is not None and any(worker.host.io_control(caller.host_fd, _SIOCOUTQ, bytes(4))):
        raise Refused("a connection has data and was not accepted yet: it cannot be saved in this moment")


def _buffers(file: SocketFile) -> list[int]:
    host = file.worker.host
    return [struct.unpack("<i", host.socket_option(file.host_fd, socket.SOL_SOCKET, o, 4))[0] // 2 for o in _BUFFERS]


def _is_hung_up(file: SocketFile) -> bool:
    """Nothing more will come: the other end is closed, or one of them has shut this direction down."""
    return bool(file.other) and bool(file.worker.host.poll(((file.host_fd, _POLLRDHUP),)))


def _queue(file: SocketFile) -> list[dict[str, Any]]:
    """Return what is queued, message by message, and leave it there."""
    host, fd = file.worker.host, file.host_fd
    messages: list[dict[str, Any]] = []
    host.set_socket_option(fd, socket.SOL_SOCKET, _SO_PEEK_OFF, struct.pack("<i", 0))
    try:
        while (message := _peek(file)) is not None:
            messages.append(message)
    finally:
        host.set_socket_option(fd, socket.SOL_SOCKET, _SO_PEEK_OFF, struct.pack("<i", -1))
    return messages


def _peek(file: SocketFile) -> dict[str, Any] | None:
    names = file.worker.files.unix_names
    try:
        data, fds, _, source = file.worker.host.receive_message(file.host_fd, _MESSAGE_BYTES, socket.MSG_PEEK)
    except OSError:
        return None  # nothing there, or not connected
    if not data and not fds:
        return None
    message: dict[str, Any] = {"data": data, "files": [], "sender": None, "source": names.guest_name(source)}
    for ticket in [names.redeem(fd, keep=True) for fd in fds]:
        if ticket is not None:
            message["files"] += [carried.number for carried in ticket.files]
            message["sender"] = ticket.credentials
    return message


class SocketsLoader:
    """The sockets of one worker on their way back."""

    def __init__(self, worker: Worker, state: dict[str, Any], numbers: set[int]) -> None:
        """*numbers* are those of all files that are to come back."""
        self._worker = worker
        self._state = state
        self._numbers = numbers
        self._sockets: dict[int, SocketFile] = {}
        #: Host sockets made together with their other end, by the number of the file that is to have them.
        self._waiting: dict[int, int] = {}
        #: Ends of which the guest's file is closed; they close when everything has been sent again.
        self._closed: dict[int, int] = {}
        worker.files.unix_names.passes_credentials = state["passes_credentials"]

    def make(self, state: dict[str, Any], identity: Identity) -> SocketFile:
        """Make one socket, connected, bound and listening as it was; the queues come later."""
        host_fd = self._host_socket(state)
        file = socket_class(state["type"])(self._worker, identity, state["flags"], host_fd, state["type"])
        file.load(state)
        for option, size in zip(_BUFFERS, self._state["buffers"][state["number"]], strict=True):
            self._worker.host.set_socket_option(host_fd, socket.SOL_SOCKET, option, struct.pack("<i", size))
        if state["key"] is not None:
            self._worker.files.unix_names.bind(file, state["key"], state["name"])
        if state["is_listening"]:
            self._worker.host.listen_socket(host_fd, state["backlog"])
            file.is_listening = True
        self._sockets[state["number"]] = file
        return file

    def _host_socket(self, state: dict[str, Any]) -> int:
        host, number, other, kind = self._worker.host, state["number"], state["other"], state["type"]
        if number in self._waiting:
            return self._waiting.pop(number)
        if not other or kind == socket.SOCK_DGRAM and state["name"]:
            return host.make_socket(socket.AF_UNIX, kind, 0)
        here, there = host.make_socket_pair(kind)
        if other in self._numbers:
            self._waiting[other] = there
        else:
            self._closed[number] = there
        return here

    def finish(self, states: list[dict[str, Any]], files: dict[int, OpenFile]) -> None:
        """Connect what was not accepted, send everything again, shut down what was."""
        host = self._worker.host
        for state in states:
            self._connect(state)
        for state in states:
            for message in self._state["queues"].get(state["number"], ()):
                self._send(state, message, files)
        for number in self._state["hung_up"]:
            if number not in self._closed:
                host.shut_down_socket(self._sockets[number].host_fd, socket.SHUT_RD)
        for fd in self._closed.values():
            host.close_socket(fd)

    def _connect(self, state: dict[str, Any]) -> None:
        file = self._sockets[state["number"]]
        names = self._worker.files.unix_names
        for credentials, number in state["connecting"]:
            caller, bound = self._sockets.get(number), names.find(state["key"])
            if caller is not None and bound is not None:
                self._worker.host.connect_socket(caller.host_fd, bound.path_fd)
                file.connecting.append(Connecting(PeerCredentials(*credentials), number))
        there = self._sockets.get(state["other"])
        if state["type"] == socket.SOCK_DGRAM and there is not None and there.key is not None:
            bound = names.find(there.key)
            assert bound is not None, "a socket with a key has a name"
            self._worker.host.connect_socket(file.host_fd, bound.path_fd)

    def _send(self, state: dict[str, Any], message: dict[str, Any], files: dict[int, OpenFile]) -> None:
        host, names = self._worker.host, self._worker.files.unix_names
        source_fd, path_fd, is_ours = self._source(state, message)
        carried = tuple(files[number].hold() for number in message["files"])
        fds: tuple[int, ...] = ()
        if carried or message["sender"] is not None:
            sender = None if message["sender"] is None else PeerCredentials(*message["sender"])
            _, ticket_fd = names.issue(carried, sender)
            fds = (ticket_fd,)
        host.send_message(source_fd, message["data"], fds, path_fd, 0)
        for fd in fds:
            host.close(fd)
        if is_ours:
            host.close_socket(source_fd)

    def _source(self, state: dict[str, Any], message: dict[str, Any]) -> tuple[int, int, bool]:
        """Return the host socket to send from, where to (-1: its peer), and whether it is to be closed."""
        number, other = state["number"], state["other"]
        if number in self._closed:
            return self._closed[number], -1, False
        if other in self._sockets and self._sockets[other].other == number:
            return self._sockets[other].host_fd, -1, False
        bound = self._worker.files.unix_names.find(state["key"])
        if bound is None:
            raise Refused("a datagram's receiver has no name")
        for file in self._sockets.values():
            if message["source"] and file.name == message["source"] and file.type == state["type"]:
                return file.host_fd, bound.path_fd, False
        return self._worker.host.make_socket(socket.AF_UNIX, state["type"], 0), bound.path_fd, True
