"""Names of Unix sockets, and what travels beside their messages.

Linux counterpart: the hash tables of net/unix/af_unix.c and net/unix/scm (struct scm_cookie).  A guest's name is
never a name on the host: a bound socket's host inode has lost its host name at once and is reached through an O_PATH
descriptor kept here. Open files and credentials do not fit into a host message either.  A *ticket* does: the writing
end of a fresh pipe travels with the message, the receiver knows it by its inode, and when the host drops the message
unread, the pipe hangs up.
"""

from __future__ import annotations

from errno import EADDRINUSE
from select import EPOLLIN
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Hashable

    from .open_file import OpenFile
    from .socket_file import SocketFile
    from .worker import Worker

__all__ = ["Bound", "PeerCredentials", "Ticket", "UnixNames"]


class PeerCredentials(NamedTuple):
    """struct ucred, as the guest counts."""

    pid: int
    uid: int
    gid: int


class Bound(NamedTuple):
    """A socket with a name."""

    file: "SocketFile"  # noqa: UP037  # evaluated when it is compiled
    #: Leads to the socket on the host.
    path_fd: int
    #: How the host names it to its peers.
    host_name: bytes


class Ticket:
    """What goes with one message: open files, each with a reference, and the sender's credentials."""

    __slots__ = ("credentials", "files", "reading_fd")

    def __init__(self, reading_fd: int, files: tuple[OpenFile, ...], credentials: PeerCredentials | None) -> None:
        self.reading_fd = reading_fd
        self.files = files
        self.credentials = credentials


class UnixNames:
    """The Unix sockets of one worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        #: By ("abstract", type, name) or ("inode", dev, ino).
        self._bound: dict[Hashable, Bound] = {}
        #: Guest address by host name.
        self._guest_names: dict[bytes, bytes] = {}
        self._tickets: dict[int, Ticket] = {}
        self._next_auto = 0
        #: Some socket has asked for its peers' credentials: from then on every message carries them.
        self.passes_credentials = False

    # -- names --------------------------------------------------------------------------------------------------

    def bind(self, file: SocketFile, key: Hashable, guest_name: bytes) -> None:
        """Give *file* a name. EADDRINUSE."""
        if key in self._bound:
            raise OSError(EADDRINUSE, "")
        path_fd, host_name = self._worker.host.bind_in_private(file.host_fd)
        self._bound[key] = Bound(file, path_fd, host_name)
        self._guest_names[host_name] = guest_name
        file.key, file.name = key, guest_name

    def unused_abstract_name(self, type_: int) -> bytes:
        """Return the name that autobind gives: five hexadecimal digits."""
        while True:
            self._next_auto += 1
            name = b"\0%05x" % self._next_auto
            if ("abstract", type_, name) not in self._bound:
                return name

    def find(self, key: Hashable) -> Bound | None:
        """Return who has that name."""
        return self._bound.get(key)

    def forget(self, key: Hashable) -> None:
        """A named socket is being closed."""
        bound = self._bound.pop(key)
        self._guest_names.pop(bound.host_name, None)
        self._worker.host.close(bound.path_fd)

    def guest_name(self, host_name: bytes) -> bytes:
        """Turn the name that the host reports into the guest's; b"" for a socket without one."""
        return self._guest_names.get(host_name, b"")

    # -- tickets ------------------------------------------------------------------------------------------------

    def issue(self, files: tuple[OpenFile, ...], credentials: PeerCredentials | None) -> tuple[int, int]:
        """Take over references to *files*; return (ticket number, descriptor to send, which the caller closes)."""
        host = self._worker.host
        reading_fd, writing_fd = host.make_pipe()
        number = host.file_status(writing_fd)[1]
        self._tickets[number] = Ticket(reading_fd, files, credentials)
        self._worker.node.loop.watch(reading_fd, EPOLLIN, lambda _mask: self.revoke(number))
        return number, writing_fd

    def redeem(self, fd: int, *, keep: bool) -> Ticket | None:
        """Return what the received descriptor *fd* stands for, which is closed.

        The references to the files are the caller's, unless *keep*: then (MSG_PEEK) the message is still in the queue.
        """
        host = self._worker.host
        number = host.file_status(fd)[1]
        host.close(fd)
        ticket = self._tickets.get(number)
        if ticket is not None and not keep:
            self._drop(number)
        return ticket

    def revoke(self, number: int) -> None:
        """The message will never be read."""
        ticket = self._tickets.get(number)
        if ticket is not None:
            self._drop(number)
            for file in ticket.files:
                file.release()

    def cancel(self, number: int) -> None:
        """The message could not be sent: the references to the files are the caller's again."""
        self._drop(number)

    def _drop(self, number: int) -> None:
        ticket = self._tickets.pop(number)
        self._worker.node.loop.unwatch(ticket.reading_fd)
        self._worker.host.close(ticket.reading_fd)
