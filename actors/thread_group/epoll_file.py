"""epoll: a host epoll instance over the host descriptors of what the guest watches.

Linux counterpart: fs/eventpoll.c.  Readiness, edge triggering, one-shot and nesting are the host's.  A registration
is known by guest descriptor and open file, as on Linux; the host knows it by a host descriptor of its own: the
file's, or a duplicate when the same file is watched through more than one descriptor.
"""

from __future__ import annotations

import os
from errno import EEXIST, EINVAL, ELOOP, ENOENT, EPERM
from typing import TYPE_CHECKING, Any, ClassVar, Final

from .event_file import anonymous_identity
from .open_file import OpenFile

if TYPE_CHECKING:
    from .worker import Worker

__all__ = ["EpollFile"]


#: EPOLLWAKEUP, EPOLLONESHOT, EPOLLET and EPOLLEXCLUSIVE: how to watch rather than what for.
_PRIVATE_BITS: Final = 0xF << 28


class _Registration:
    """One descriptor in an interest list."""

    __slots__ = ("data", "events", "fd", "file", "host_fd")

    def __init__(self, fd: int, file: OpenFile, host_fd: int, events: int, data: int) -> None:
        self.fd = fd
        self.file = file
        #: What the host's epoll watches.
        self.host_fd = host_fd
        self.events = events
        #: The guest's epoll_data.
        self.data = data


class EpollFile(OpenFile):
    """An epoll instance."""

    __slots__ = ("_by_host_fd", "_by_key")
    kind: ClassVar[str] = "epoll"
    pollable: ClassVar[bool] = True

    def __init__(self, worker: Worker) -> None:
        identity = anonymous_identity(worker, b"[eventpoll]")
        super().__init__(worker, identity, os.O_RDWR, worker.host.make_epoll())
        self._by_key: dict[tuple[int, int], _Registration] = {}
        self._by_host_fd: dict[int, _Registration] = {}

    # -- the interest list --------------------------------------------------------------------------------------

    def add(self, fd: int, file: OpenFile, events: int, data: int) -> None:
        """EPOLL_CTL_ADD. EEXIST, EPERM for what cannot be polled, EINVAL for itself, ELOOP."""
        self._check(file)
        key = (fd, file.number)
        if key in self._by_key:
            raise OSError(EEXIST, "")
        host = self.worker.host
        host_fd = file.host_fd
        if host_fd in self._by_host_fd:
            host_fd = host.duplicate(host_fd)
        try:
            host.epoll_add(self.host_fd, host_fd, events)
        except OSError:
            if host_fd != file.host_fd:
                host.close(host_fd)
            raise
        self._by_key[key] = self._by_host_fd[host_fd] = _Registration(fd, file, host_fd, events, data)
        if self not in file.epolls:
            file.epolls.append(self)

    def _check(self, file: OpenFile) -> None:
        if file is self:
            raise OSError(EINVAL, "")
        if not file.pollable or file.host_fd < 0:
            raise OSError(EPERM, "")
        if isinstance(file, EpollFile) and file.watches(self):
            raise OSError(ELOOP, "")

    def watches(self, other: EpollFile) -> bool:
        """Tell whether *other* is among what this one watches, at any depth."""
        files = [entry.file for entry in self._by_key.values()]
        return any(file is other or isinstance(file, EpollFile) and file.watches(other) for file in files)

    def modify(self, fd: int, file: OpenFile, events: int, data: int) -> None:
        """EPOLL_CTL_MOD. ENOENT."""
        entry = self._find(fd, file)
        self.worker.host.epoll_modify(self.host_fd, entry.host_fd, events)
        entry.events, entry.data = events, data

    def remove(self, fd: int, file: OpenFile) -> None:
        """EPOLL_CTL_DEL. ENOENT."""
        self._drop(self._find(fd, file))
        if not any(entry.file is file for entry in self._by_key.values()):
            file.epolls.remove(self)

    def _find(self, fd: int, file: OpenFile) -> _Registration:
        self._check(file)
        entry = self._by_key.get((fd, file.number))
        if entry is None:
            raise OSError(ENOENT, "")
        return entry

    def _drop(self, entry: _Registration) -> None:
        del self._by_key[entry.fd, entry.file.number]
        del self._by_host_fd[entry.host_fd]
        self.worker.host.epoll_remove(self.host_fd, entry.host_fd)
        if entry.host_fd != entry.file.host_fd:
            self.worker.host.close(entry.host_fd)

    def forget_file(self, file: OpenFile) -> None:
        """*file* is being closed."""
        for entry in [entry for entry in self._by_key.values() if entry.file is file]:
            self._drop(entry)
        file.epolls.remove(self)

    # -- events -------------------------------------------------------------------------------------------------

    def take(self, count: int) -> list[tuple[int, int]]:
        """Return up to *count* ready (events, data) pairs, now."""
        ready = self.worker.host.epoll_take(self.host_fd, count)
        return [(events, self._by_host_fd[host_fd].data) for host_fd, events in ready]

    def closing(self) -> None:
        """Give up every registration."""
        for entry in list(self._by_key.values()):
            self._drop(entry)
            if self in entry.file.epolls:
                entry.file.epolls.remove(self)
        self.worker.host.close_epoll(self.host_fd)
        self.host_fd = -1

    def extra_fdinfo(self) -> bytes:
        """One line per registration."""
        lines = [
            b"tfd: %8d events: %8x data: %16x  pos:0 ino:%x sdev:%x\n"
            % (e.fd, e.events, e.data, e.file.ino, e.file.dev)
            for e in self._by_key.values()
        ]
        return b"".join(lines)

    def state(self) -> dict[str, Any]:
        """Add the interest list."""
        spent = self._spent()
        entries = [(e.fd, e.file.number, e.events, e.data, e.host_fd in spent) for e in self._by_key.values()]
        return {**super().state(), "registrations": entries}

    def _spent(self) -> set[int]:
        """Return the host descriptors of one-shot registrations that have fired: the host watches them for nothing."""
        spent = set()
        for line in self.worker.host.descriptor_information(self.host_fd).splitlines():
            words = line.split()
            if words[:1] == [b"tfd:"] and not int(words[3], 16) & ~_PRIVATE_BITS:
                spent.add(int(words[1]))
        return spent

    def spend(self, fd: int, file: OpenFile) -> None:
        """A restored one-shot registration had fired: report only what cannot be masked, until it is modified."""
        entry = self._by_key[fd, file.number]
        self.worker.host.epoll_modify(self.host_fd, entry.host_fd, entry.events & _PRIVATE_BITS)
