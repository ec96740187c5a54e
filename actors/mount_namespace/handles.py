"""Handles: the numbers by which workers refer to open places of the tree.

Linux: struct file and the references of struct fs_struct, as far as names are concerned.  A handle counts references;
an inode lives while it has a name or a handle.
"""

from __future__ import annotations

from errno import EBADF, ENFILE
from typing import TYPE_CHECKING

from ...config.limits import MAX_HANDLES
from .errors import fail

if TYPE_CHECKING:
    from .file_data import DataStore, FileData
    from .inode import Dentry, Inode
    from .mounts import Mount, Place

__all__ = ["Handle", "HandleTable"]


class Handle:
    """One open place."""

    __slots__ = ("cursor", "data", "dentry", "flags", "listing", "mount", "number", "quiet", "references")

    def __init__(self, number: int, mount: Mount, dentry: Dentry) -> None:
        self.number = number
        self.mount = mount
        self.dentry = dentry
        self.references = 1
        #: O_* flags of the open; O_PATH for a directory that is only somebody's root or working directory.
        self.flags = 0
        #: Its end is no close(2): another handle took its place in a restore.
        self.quiet = False
        #: Contents whose memfd was given out with this handle.
        self.data: FileData | None = None
        #: What getdents shows, taken when reading starts: struct linux_dirent64.
        self.listing: bytes | None = None
        #: Where in it the last reading ended: position and byte.
        self.cursor = (0, 0)


class HandleTable:
    """All handles of a namespace."""

    def __init__(self, store: DataStore) -> None:
        self._store = store
        self.by_number: dict[int, Handle] = {}
        self.next_number = 1

    def check_room(self) -> None:
        """ENFILE when no more handles can be made."""
        if len(self.by_number) >= MAX_HANDLES:
            fail(ENFILE)

    def add(self, mount: Mount, dentry: Dentry, flags: int) -> Handle:
        """Make a handle with one reference."""
        self.check_room()
        handle = Handle(self.next_number, mount, dentry)
        self.next_number += 1
        handle.flags = flags
        self.insert(handle)
        return handle

    def insert(self, handle: Handle) -> None:
        """Enter a handle whose fields are set."""
        inode = handle.dentry.inode
        assert inode is not None
        if inode.opens == 0 and not handle.dentry.gone:
            inode.fs.hold(handle.dentry)
        inode.opens += 1
        handle.mount.handles += 1
        self.by_number[handle.number] = handle

    def place(self, number: int) -> Place:
        """Return where a handle is. EBADF for one that does not exist."""
        handle = self.by_number.get(number)
        if handle is None:
            fail(EBADF, b"handle %d" % number)
        return handle.mount, handle.dentry

    def get(self, number: int) -> Handle:
        """Return a handle. EBADF for one that does not exist."""
        handle = self.by_number.get(number)
        if handle is None:
            fail(EBADF, b"handle %d" % number)
        return handle

    def inode(self, number: int) -> Inode:
        """Return the inode that a handle is open on. EBADF for one that does not exist."""
        inode = self.get(number).dentry.inode
        assert inode is not None
        return inode

    def keep(self, number: int) -> None:
        """Count one more reference; an unknown handle is a bug of the worker."""
        self.by_number[number].references += 1

    def release(self, number: int) -> Handle | None:
        """Drop one reference; return the handle when it was the last. An unknown handle is a bug of the worker."""
        handle = self.by_number[number]
        handle.references -= 1
        if handle.references:
            return None
        del self.by_number[number]
        handle.mount.handles -= 1
        inode = handle.dentry.inode
        assert inode is not None
        if handle.data is not None:
            self._store.close(inode, handle.data)
        inode.opens -= 1
        if inode.opens == 0:
            inode.fs.release(inode)
        return handle
