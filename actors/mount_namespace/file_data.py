"""Contents of regular files in memory: memfds, and plain bytes for closed small files when there are too many memfds.

Linux: the page cache of tmpfs.  A file that is open has a memfd, so that reads, writes and mappings of all its users
agree; its size and times come from the memfd.  A file that nobody has open may be *parked*: its bytes are kept here and
the memfd is closed, least recently used first.  Users hold a file open by handles; a worker keeps a handle for as long
as it maps the file.
"""

from __future__ import annotations

import os
import stat
from collections import OrderedDict
from errno import EMFILE, ENFILE, ENOSPC
from typing import TYPE_CHECKING, Final

from ...config.limits import MAX_MEMFDS, MAX_PARKED_FILE_BYTES
from .errors import fail
from .guest_time import GuestTime
from .host_files import S_ATIME, S_BLOCKS, S_CTIME, S_MTIME, S_SIZE
from .leases import LeaseTable

if TYPE_CHECKING:
    from .host_files import HostFiles
    from .inode import Inode

__all__ = ["KEPT_FLAGS", "DataStore", "FileData", "without_privileges"]

_PAGE_BYTES: Final = 4096


class FileData:
    """The contents of one inode."""

    __slots__ = ("drops_privileges", "fd", "host_ctime_ns", "parked", "saved_offset", "users")

    def __init__(self, saved_offset: int = -1) -> None:
        #: The memfd, -1 while parked.
        self.fd = -1
        self.parked = b""
        #: While parked: where the contents are in the saved file that the namespace was loaded from; -1: not there.
        self.saved_offset = saved_offset
        #: The memfd's own ctime after our last change to it: a later one means that a user wrote.
        self.host_ctime_ns = 0
        #: Somebody without CAP_FSETID may write: a write takes the set-id bits away.
        self.drops_privileges = False
        #: Open file descriptions that were given out.
        self.users = 0


class DataStore:
    """All memfds of a namespace."""

    def __init__(self, host: HostFiles) -> None:
        self._host = host
        #: The clock of the file systems that keep their contents here.
        self.time = GuestTime(host)
        self.leases = LeaseTable()
        self._limit = min(MAX_MEMFDS, host.raise_descriptor_limit() // 2)
        #: The saved file that this namespace was loaded from, -1: none.
        self.saved_fd = -1
        #: Memfds in existence.
        self.count = 0
        #: Inodes with a memfd that nobody has open, least recently used first.
        self._idle: OrderedDict[Inode, None] = OrderedDict()

    def descriptor(self, inode: Inode) -> int:
        """Return the inode's memfd, made anew when its contents were parked."""
        data = _data(inode)
        if data.fd < 0:
            self._unpark(inode, data)
        return data.fd

    def _unpark(self, inode: Inode, data: FileData) -> None:
        self._make_room()
        try:
            data.fd = self._host.make_memfd("greenroom")
        except OSError as error:
            fail(ENFILE if error.errno in (EMFILE, ENFILE) else ENOSPC)
        self.count += 1
        if data.saved_offset >= 0:
            self._host.truncate(data.fd, inode.size)
        self._copy_parked(inode, data, data.fd, 0)
        data.parked, data.saved_offset = b"", -1
        self._stamp(inode, data)
        if not data.users:
            self._idle[inode] = None

    def _copy_parked(self, inode: Inode, data: FileData, fd: int, offset: int) -> None:
        """Write contents that are in no memfd to a host file."""
        if data.saved_offset >= 0:
            self._host.copy(self.saved_fd, data.saved_offset, fd, offset, inode.size)
        elif data.parked:
            self._host.write(fd, data.parked, offset)

    def write_out(self, inode: Inode, fd: int, offset: int) -> None:
        """Copy the contents to *offset* of the host file *fd*."""
        data = _data(inode)
        if data.fd >= 0:
            self._host.copy(data.fd, 0, fd, offset, inode.size)
            self._stamp(inode, data)  # our reading is no access of the guest's
        else:
            self._copy_parked(inode, data, fd, offset)

    def _stamp(self, inode: Inode, data: FileData) -> None:
        """Put the inode's times on the memfd, and remember the host's idea of ctime."""
        self._host.set_times(data.fd, inode.atime_ns, inode.mtime_ns)
        status = self._host.status(data.fd)
        data.host_ctime_ns = status[S_CTIME]
        inode.size = status[S_SIZE]
        _set_blocks(inode, status[S_BLOCKS])

    def open(self, inode: Inode, flags: int) -> int:
        """Return a new open file description; *flags* are O_ACCMODE and what stays with a description."""
        fd = self._host.reopen(self.descriptor(inode), flags)
        data = _data(inode)
        data.users += 1
        if inode.lease and not inode.is_live:
            inode.changed()
        self._idle.pop(inode, None)
        return fd

    def close(self, inode: Inode, data: FileData) -> None:
        """A user is gone."""
        data.users -= 1
        if data.users == 0 and data.fd >= 0 and inode.data is data:
            self.refresh(inode)
            inode.reply = None  # it said that users are to look for themselves
            self._idle[inode] = None

    def refresh(self, inode: Inode) -> None:
        """Copy size and times from the memfd, which users change behind our back."""
        data = inode.data
        if data is None or data.fd < 0:
            return
        status = self._host.status(data.fd)
        atime, mtime, ctime, size = status[S_ATIME], status[S_MTIME], status[S_CTIME], status[S_SIZE]
        if ctime == data.host_ctime_ns and atime == inode.atime_ns and size == inode.size:
            return
        if ctime != data.host_ctime_ns:
            data.host_ctime_ns = ctime
            inode.ctime_ns = max(inode.ctime_ns, ctime)
            if data.drops_privileges and mtime != inode.mtime_ns:
                inode.mode = without_privileges(inode.mode)
        inode.atime_ns, inode.mtime_ns, inode.size = atime, mtime, size
        if inode.is_live:
            # Whoever has a lease sees the same by itself.
            inode.fs.used_blocks += status[S_BLOCKS] - inode.blocks
            inode.blocks = status[S_BLOCKS]
            inode.reply = None
        else:
            _set_blocks(inode, status[S_BLOCKS])

    def truncate(self, inode: Inode, size: int, now_ns: int) -> None:
        """Set the size; times change as truncate(2) says."""
        data = _data(inode)
        if data.fd < 0 and size == 0:
            data.parked, data.saved_offset = b"", -1
            inode.size = 0
            _set_blocks(inode, 0)
        else:
            self._host.truncate(self.descriptor(inode), size)
        inode.mtime_ns = inode.ctime_ns = now_ns
        inode.changed()
        if data.fd >= 0:
            self._stamp(inode, data)

    def set_times(self, inode: Inode) -> None:
        """The inode's times were set by hand: put them on the memfd."""
        data = inode.data
        if data is not None and data.fd >= 0:
            self._stamp(inode, data)

    def fill(self, inode: Inode, source: int, size: int) -> None:
        """Make the contents a copy of the host file *source*."""
        data = FileData()
        inode.data = data
        if 0 < size <= _PAGE_BYTES:
            data.parked = self._host.read(source, size, 0)
            inode.size = len(data.parked)
            _set_blocks(inode, -(-inode.size // _PAGE_BYTES) * (_PAGE_BYTES // 512))
            return
        descriptor = self.descriptor(inode)
        self._host.truncate(descriptor, size)
        self._host.copy(source, 0, descriptor, 0, size)
        self._stamp(inode, data)

    def drop(self, inode: Inode) -> None:
        """Forget the contents of a dead inode."""
        data = inode.data
        inode.data = None
        _set_blocks(inode, 0)
        self._idle.pop(inode, None)
        if data is not None and data.fd >= 0:
            self._host.close(data.fd)
            data.fd = -1
            self.count -= 1

    def _make_room(self) -> None:
        """Park idle small files until one more memfd is within the limit."""
        if self.count < self._limit:
            return
        for inode in list(self._idle):
            if inode.size <= MAX_PARKED_FILE_BYTES:
                self.park(inode)
                if self.count <= self._limit * 7 // 8:
                    return
        if self.count >= self._limit:
            fail(ENFILE)

    def park(self, inode: Inode) -> None:
        """Turn an idle memfd into bytes."""
        data = _data(inode)
        self.refresh(inode)
        data.parked = self._host.read(data.fd, inode.size, 0)
        self._host.close(data.fd)
        data.fd = -1
        self.count -= 1
        self._idle.pop(inode, None)


def _set_blocks(inode: Inode, blocks: int) -> None:
    """Keep the file system's account of what its files hold."""
    inode.fs.used_blocks += blocks - inode.blocks
    inode.blocks = blocks
    inode.changed()


def without_privileges(mode: int) -> int:
    """Return *mode* as a write by an ordinary user leaves it: without set-user-id, and set-group-id if executable."""
    mode &= ~stat.S_ISUID
    return mode & ~stat.S_ISGID if mode & 0o2010 == 0o2010 else mode


def _data(inode: Inode) -> FileData:
    if inode.data is None:
        raise AssertionError(f"inode {inode.ino} has no contents in memory")
    return inode.data


#: Flags of open(2) that stay with the open file description of a regular file.
KEPT_FLAGS: Final = os.O_ACCMODE | os.O_APPEND | os.O_NONBLOCK | os.O_SYNC | os.O_DSYNC
