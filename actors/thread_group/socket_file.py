"""Sockets: Unix sockets, which are the host's, non-blocking, with the guest's names and credentials kept beside.

Linux counterpart: struct socket (net/socket.c) and struct unix_sock (net/unix/af_unix.c).  Queues, limits, shutdown
and errors are the host's.
"""

from __future__ import annotations

import collections
import os
import socket
import stat
import struct
from errno import EAGAIN, EINVAL, ENOTTY
from select import EPOLLIN, EPOLLOUT
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from .open_file import Identity, OpenFile
from .task import ERESTARTSYS, Block
from .unix_names import PeerCredentials

if TYPE_CHECKING:
    from collections.abc import Hashable

    from .task import Task
    from .worker import Worker

__all__ = ["Connecting", "Received", "SocketFile", "credentials_of", "make_socket", "socket_class"]

_SOCKET_DEV: Final = 8
_SIOCOUTQ, _FIONREAD = 0x5411, 0x541B
_SIOCATMARK: Final = 0x8905
#: A full datagram queue of somebody else cannot be waited for: try again after so long.
_RETRY_NS: Final = 2_000_000
_NOBODY: Final = PeerCredentials(0, 65534, 65534)


def _identity(task: Task) -> Identity:
    """Return the identity of a new socket."""
    worker, credentials = task.worker, task.group.credentials
    ino = worker.files.new_ino()
    path = b"socket:[%d]" % ino
    mode = stat.S_IFSOCK | 0o777
    return Identity(mode=mode, ino=ino, dev=_SOCKET_DEV, path=path, uid=credentials.fsuid, gid=credentials.fsgid)


def credentials_of(task: Task) -> PeerCredentials:
    """Return what peers see of the caller."""
    credentials = task.group.credentials
    return PeerCredentials(task.group.pid, credentials.euid, credentials.egid)


class Connecting(NamedTuple):
    """Who has connected to a listening socket and was not accepted yet."""

    credentials: PeerCredentials
    #: Number of the socket that has connected.
    number: int


class Received(NamedTuple):
    """One message, or a piece of a stream."""

    #: Longer than asked for when it was a message that did not fit.
    data: bytes
    #: A reference each, which the receiver takes over.
    files: list[OpenFile]
    sender: PeerCredentials
    #: MSG_*.
    flags: int
    #: The sender's name as the guest knows it.
    source: bytes


class SocketFile(OpenFile):
    """A Unix socket."""

    __slots__ = ("backlog", "connecting", "is_listening", "key", "name", "other", "pass_credentials", "peer",
                 "receive_timeout_ns", "send_timeout_ns", "type")  # fmt: skip
    kind: ClassVar[str] = "socket"
    splice_source: ClassVar[bool] = True
    pollable: ClassVar[bool] = True
    piece_bytes: ClassVar[int] = 1 << 17

    def __init__(self, worker: Worker, identity: Identity, flags: int, host_fd: int, type_: int) -> None:
        super().__init__(worker, identity, os.O_RDWR | flags & os.O_NONBLOCK, host_fd)
        #: SOCK_STREAM, SOCK_DGRAM or SOCK_SEQPACKET.
        self.type = type_
        #: Its own name as the guest gave it (sun_path), and where UnixNames keeps it.
        self.name = b""
        self.key: Hashable = None
        #: SO_PEERCRED.
        self.peer: PeerCredentials = PeerCredentials(0, 0xFFFFFFFF, 0xFFFFFFFF)
        #: SO_PASSCRED.
        self.pass_credentials = False
        self.is_listening = False
        self.backlog = 0
        #: Who has connected and was not accepted yet, in order.
        self.connecting: collections.deque[Connecting] = collections.deque()
        #: Number of the socket at the other end, 0 for none; it may be closed by now.
        self.other = 0
        #: SO_RCVTIMEO and SO_SNDTIMEO, 0 for none.
        self.receive_timeout_ns = 0
        self.send_timeout_ns = 0

    @property
    def is_stream(self) -> bool:
        """SOCK_STREAM: no message boundaries."""
        return self.type == socket.SOCK_STREAM

    def accept_from(self, caller: Connecting) -> None:
        """This socket, just accepted, is the other end of *caller*'s."""
        self.peer, self.other = caller
        there = self.worker.files.get(caller.number)
        if isinstance(there, SocketFile):
            there.other = self.number

    # -- data ---------------------------------------------------------------------------------------------------

    def pull(self, task: Task, count: int, offset: int | None) -> Any:
        """read(2): recv without flags. What came along (descriptors) is lost, as on Linux."""
        if not count:
            return b""
        try:
            received = self.receive(count, 0)
        except BlockingIOError:
            return self.wait_within(task, EPOLLIN)
        for file in received.files:
            file.release()
        return received.data[:count]

    def push(self, task: Task, data: bytes, offset: int | None) -> Any:
        """write(2): send to the peer."""
        try:
            return self.send(data, -1, 0, (), credentials_of(task))
        except BlockingIOError:
            if not self.send_timeout_ns:
                raise
            return self.wait_within(task, EPOLLOUT)

    def wait(self, events: int, on_signal: int = ERESTARTSYS) -> Block:
        """Wait; a datagram for a full queue is tried again after a while."""
        if events & EPOLLOUT and not self.is_stream:
            deadline = self.worker.clock.monotonic_ns() + _RETRY_NS
            return Block(files=(self,), deadline_ns=deadline, on_signal=on_signal)
        return super().wait(events, on_signal)

    def wait_within(self, task: Task, events: int, on_signal: int = ERESTARTSYS) -> Block | int:
        """Return the wait for *events* within SO_RCVTIMEO or SO_SNDTIMEO; -EAGAIN when that is over."""
        block = self.blocked(events, on_signal)
        task.memo["file"] = self.number
        timeout = self.receive_timeout_ns if events & EPOLLIN else self.send_timeout_ns
        if timeout:
            now = self.worker.clock.monotonic_ns()
            expires = task.memo.setdefault("expires", now + timeout)
            if now >= expires:
                return on_signal if on_signal > 0 else -EAGAIN
            block.deadline_ns = min(expires, block.deadline_ns or expires)
        return block

    def send(
        self,
        data: bytes,
        path_fd: int,
        flags: int,
        files: tuple[OpenFile, ...],
        sender: PeerCredentials,
        *,
        explicit: bool = False,
    ) -> int:
        """Send one piece in the name of *sender*, with *files*. EAGAIN, EPIPE...

        The references to *files* are taken over, but not when it fails.  *explicit*: the guest gave SCM_CREDENTIALS.
        """
        names, host = self.worker.files.unix_names, self.worker.host
        if not files and not explicit and not names.passes_credentials:
            return host.send_message(self.host_fd, data, (), path_fd, flags)
        number, ticket_fd = names.issue(files, sender)
        try:
            return host.send_message(self.host_fd, data, (ticket_fd,), path_fd, flags)
        except OSError:
            names.cancel(number)
            raise
        finally:
            host.close(ticket_fd)

    def receive(self, count: int, flags: int) -> Received:
        """Receive up to *count* bytes, or one message. EAGAIN..."""
        host, names = self.worker.host, self.worker.files.unix_names
        size = count
        if not self.is_stream:
            (waiting,) = struct.unpack("<i", host.io_control(self.host_fd, _FIONREAD, bytes(4)))
            size = max(count, waiting)
        data, fds, host_flags, source = host.receive_message(self.host_fd, size, flags)
        peeking = bool(flags & socket.MSG_PEEK)
        files: list[OpenFile] = []
        sender = self.peer if self.peer.pid else _NOBODY
        for fd in fds:
            ticket = names.redeem(fd, keep=peeking)
            if ticket is not None:
                files += [file.hold() for file in ticket.files] if peeking else ticket.files
                sender = ticket.credentials or sender
        shown = host_flags & (socket.MSG_EOR | socket.MSG_OOB)
        if len(data) > count:
            shown |= socket.MSG_TRUNC
        return Received(data, files, sender, shown, names.guest_name(source))

    # -- the rest -----------------------------------------------------------------------------------------------

    def ioctl(self, task: Task, request: int, argument: int) -> int:
        """SIOCINQ, SIOCOUTQ. ENOTTY, EINVAL for a listening socket."""
        if request not in (_FIONREAD, _SIOCOUTQ, _SIOCATMARK):
            raise OSError(ENOTTY, "")
        if self.is_listening:
            raise OSError(EINVAL, "")
        task.memory.write(argument, self.worker.host.io_control(self.host_fd, request, bytes(4)))
        return 0

    def closing(self) -> None:
        """Give up the name."""
        if self.key is not None:
            self.worker.files.unix_names.forget(self.key)
        self.worker.host.close_socket(self.host_fd)
        self.host_fd = -1

    def state(self) -> dict[str, Any]:
        """Add everything but the queue (see ``save_sockets``)."""
        names = ("type", "name", "key", "other", "is_listening", "backlog", "peer", "pass_credentials")
        more = ("receive_timeout_ns", "send_timeout_ns")
        return {
            **super().state(),
            **{name: getattr(self, name) for name in (*names, *more)},
            "connecting": list(self.connecting),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take over what a saved socket was, beside connection and queue."""
        self.name, self.other, self.peer = state["name"], state["other"], PeerCredentials(*state["peer"])
        self.pass_credentials, self.backlog = state["pass_credentials"], state["backlog"]
        self.receive_timeout_ns, self.send_timeout_ns = state["receive_timeout_ns"], state["send_timeout_ns"]


class StreamSocket(SocketFile):
    """SOCK_STREAM."""

    __slots__ = ()


class MessageSocket(SocketFile):
    """SOCK_DGRAM and SOCK_SEQPACKET: each write is one message."""

    __slots__ = ()
    atomic: ClassVar[bool] = True


def make_socket(task: Task, type_: int, flags: int, host_fd: int) -> SocketFile:
    """Return the open file of a host socket."""
    return socket_class(type_)(task.worker, _identity(task), flags, host_fd, type_)


def socket_class(type_: int) -> type[SocketFile]:
    """Return the class of sockets of a type."""
    return StreamSocket if type_ == socket.SOCK_STREAM else MessageSocket
