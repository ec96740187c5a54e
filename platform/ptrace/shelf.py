"""The descriptor shelf: the one descriptor table that all tracees share, filled by the worker.

Linux counterpart: ``SCM_RIGHTS`` and a ``files_struct`` shared by CLONE_FILES.  It owns the worker's end of the
socket to the seed and the list of what stands on the shelf.

Mapping a file needs its descriptor in the tracee.  Passing one costs a message and an injected recvmsg; mapping one
that stands on the shelf costs the mmap alone, in any tracee.  So files stay on the shelf, least recently used out
first.  A file on the shelf is open, so its inode number cannot be reused while it stands there; the key also holds
the access mode, because what may be mapped writable depends on it.  Only regular files stay: other kinds share
inodes (every anonymous inode is one) and are rarely mapped twice.  On overlayfs a file that is open read-only stays the
lower one when a write copies it up, under the same inode number; there the key holds its change time too.

Measured (2-core VM, worker and tracee on one CPU, us per mmap and munmap of one page): 32 from the shelf, 65 when the
descriptor is passed anew.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import stat
import struct
from collections import OrderedDict, defaultdict
from typing import TYPE_CHECKING, Final

from ..x86_64.syscall_numbers import SYSCALL_NUMBERS as SYS
from .seed import MESSAGE_PAGE, SHELF_SOCKET, Seed

if TYPE_CHECKING:
    from collections.abc import Callable

    from .space import PtraceSpace

__all__ = ["Shelf"]

_OVERLAYFS_SUPER_MAGIC: Final = 0x794C7630
_MSG_DONTWAIT: Final = 0x40
_MSG_CMSG_CLOEXEC: Final = 0x40000000

# In the message page: struct msghdr, one iovec, one byte of data, one control message with one descriptor.
_IOVEC, _DATA, _CONTROL, _CONTROL_LENGTH = MESSAGE_PAGE + 64, MESSAGE_PAGE + 96, MESSAGE_PAGE + 128, 24
_MESSAGE: Final = struct.pack("=QIxxxxQQQQIxxxx8xQQ", 0, 0, _IOVEC, 1, _CONTROL, _CONTROL_LENGTH, 0, _DATA, 1)
_CONTROL_HEADER: Final = struct.Struct("=QiiI")

_libc: Final = ctypes.CDLL(None)


class Shelf:
    """The descriptors that tracees can map, by the worker's knowledge of them."""

    def __init__(
        self, seed: Seed, space: PtraceSpace, sock: socket.socket, limit: int, is_used: Callable[[int], bool]
    ) -> None:
        """*is_used* tells whether a tracee may be about to map what stands at a place."""
        self._seed = seed
        self._is_used = is_used
        #: How (protection and flags) what stands at a place was mapped without an error.
        self.proven: defaultdict[int, set[tuple[int, int]]] = defaultdict(set)
        self._space = space
        self._socket = sock
        self._limit = limit
        #: Device number to whether it is an overlay.
        self._overlays: dict[int, bool] = {}
        self._places: OrderedDict[tuple[int, ...], int] = OrderedDict()

    def place(self, host_fd: int) -> tuple[int, bool]:
        """Return the number of the worker's *host_fd* on the shelf, and whether it stays there.

        One that does not stay is to be taken off with ``remove`` after use.
        """
        status = os.fstat(host_fd)
        if not stat.S_ISREG(status.st_mode):
            return self._pass(host_fd), False
        key = self._identity(host_fd, status)
        place = self._places.get(key)
        if place is not None:
            self._places.move_to_end(key)
            return place, True
        if len(self._places) >= self._limit:
            self._make_room()
        place = self._places[key] = self._pass(host_fd)
        return place, True

    def _make_room(self) -> None:
        for key, place in self._places.items():
            if not self._is_used(place):
                del self._places[key]
                self.remove(place)
                return

    def remove(self, place: int) -> None:
        """Take one descriptor off the shelf."""
        self.proven.pop(place, None)
        self._seed.inject(SYS["close"], place)

    def close(self) -> None:
        """Close the worker's end. The shelf itself goes with the last tracee."""
        self._socket.close()
        self._space.release()

    def _pass(self, host_fd: int) -> int:
        socket.send_fds(self._socket, [b"\0"], [host_fd])
        self._space.write(MESSAGE_PAGE, _MESSAGE)
        self._seed.inject(SYS["recvmsg"], SHELF_SOCKET, MESSAGE_PAGE, _MSG_DONTWAIT | _MSG_CMSG_CLOEXEC)
        control = self._space.read(_CONTROL, _CONTROL_HEADER.size)
        _length, level, kind, place = _CONTROL_HEADER.unpack(control)
        if (level, kind) != (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            raise OSError("the seed received no descriptor")
        return int(place)

    def _identity(self, host_fd: int, status: os.stat_result) -> tuple[int, ...]:
        mode = fcntl.fcntl(host_fd, fcntl.F_GETFL) & os.O_ACCMODE
        on_overlay = self._overlays.get(status.st_dev)
        if on_overlay is None:
            on_overlay = self._overlays[status.st_dev] = _is_on_overlay(host_fd)
        return status.st_dev, status.st_ino, mode, status.st_ctime_ns if on_overlay else 0


def _is_on_overlay(fd: int) -> bool:
    """Ask fstatfs(2), of which os.fstatvfs hides the file system's type."""
    buffer = (ctypes.c_long * 16)()
    _libc.fstatfs(fd, buffer)
    return buffer[0] == _OVERLAYFS_SUPER_MAGIC
