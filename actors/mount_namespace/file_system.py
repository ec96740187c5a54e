"""What every file system offers to the operations on the tree.

Linux: struct super_operations and inode_operations.  The operations check permissions, mounts and types before they
call; a file system only carries out.  Those that cannot change (proc, sys) keep the refusals of this base class.
"""

from __future__ import annotations

import os
import stat
from errno import ENXIO, EOPNOTSUPP, EPERM, EROFS
from typing import TYPE_CHECKING, ClassVar

from .errors import fail
from .inode import Dentry, Inode

if TYPE_CHECKING:
    from ...messages.mount_namespace import Credentials
    from .file_data import DataStore
    from .host_files import HostFiles
    from .mounts import Place

__all__ = ["FileSystem", "FileSystemUsage"]

#: statfs: blocks, free blocks, inodes, free inodes; blocks of 4096 bytes.
FileSystemUsage = tuple[int, int, int, int]


class FileSystem:
    """A file system: its root, and how its names and inodes are found and changed."""

    #: Name as in /proc/filesystems.
    type: ClassVar[str] = "none"
    #: f_type of statfs(2).
    magic: ClassVar[int] = 0
    #: Its contents can be saved and loaded as a tree of inodes.
    in_memory: ClassVar[bool] = False
    #: Its files are made by the kernel.
    is_virtual: ClassVar[bool] = False

    def __init__(self, host: HostFiles, store: DataStore, dev: int) -> None:
        self.host = host
        self.store = store
        #: st_dev of all its files.
        self.dev = dev
        #: 512-byte blocks that its files hold in memory.
        self.used_blocks = 0
        #: Dentries that could be forgotten; above a limit the tree prunes them.
        self.cached = 0
        #: Number of the next inode made here.
        self.next_ino = 1
        self.root = Dentry(b"", None, self.new_inode(stat.S_IFDIR | 0o755, 0, 0))

    def new_ino(self) -> int:
        """Return an inode number that was never used."""
        number = self.next_ino
        self.next_ino += 1
        return number

    def new_inode(self, mode: int, uid: int, gid: int) -> Inode:
        """Return a fresh inode, not yet named."""
        return Inode(self, self.new_ino(), mode, uid, gid, self.store.time.now_ns())

    # -- looking ------------------------------------------------------------------------------------------------

    def lookup(self, directory: Dentry, name: bytes, who: Credentials) -> Dentry | None:
        """Find a name that is not among the directory's children; None or a negative entry when it is absent."""
        return None

    def names(self, directory: Dentry, who: Credentials) -> list[tuple[bytes, int, int]]:
        """Return (name, inode number, DT_*) of every entry but "." and ".."."""
        return [
            (name, child.inode.ino, child.inode.mode >> 12)
            for name, child in directory.children.items()
            if child.inode is not None
        ]

    def is_empty(self, directory: Dentry, who: Credentials) -> bool:
        """Tell whether a directory can be removed."""
        return not self.names(directory, who)

    def read_link(self, inode: Inode, who: Credentials) -> bytes:
        """Return a symbolic link's target."""
        return inode.target

    def refresh(self, inode: Inode) -> None:
        """Bring attributes that change behind our back up to date."""

    def directory_size(self, directory: Inode, entries: int) -> int:
        """Return st_size of a directory."""
        return 0

    def usage(self) -> FileSystemUsage:
        """Return what statfs(2) shows."""
        return 0, 0, 0, 0

    def options(self) -> bytes:
        """Return the options of the superblock as /proc/mounts shows them after ro or rw."""
        return b""

    def generate(self, inode: Inode, who: Credentials, root: Place) -> bytes | None:
        """Return the contents of a file that is made at open; None for any other."""
        return None

    # -- contents -----------------------------------------------------------------------------------------------

    def open_file(self, dentry: Dentry, flags: int) -> int:
        """Return a host descriptor of a regular file, opened as O_* *flags* say; its size is already 0 for O_TRUNC."""
        return -1

    def open_fifo(self, inode: Inode, flags: int) -> int:
        """Return a host descriptor of a FIFO, in non-blocking mode. ENXIO for a writer without readers."""
        if inode.host_fd < 0:
            inode.host_fd = self.host.make_pipe()
        fd = self.host.reopen(inode.host_fd, flags & os.O_ACCMODE | os.O_NONBLOCK)
        if flags & os.O_ACCMODE == os.O_WRONLY and not self.host.has_readers(fd):
            self.host.close(fd)
            fail(ENXIO)
        return fd

    def truncate(self, dentry: Dentry, size: int) -> None:
        """Set a regular file's size."""
        fail(EPERM)

    def hold(self, dentry: Dentry) -> None:
        """The first handle on an inode is being made."""

    def release(self, inode: Inode) -> None:
        """The last handle on an inode is gone; free it when it has no name either."""
        if inode.nlink == 0:
            self.free(inode)

    def free(self, inode: Inode) -> None:
        """Drop what a dead inode holds."""
        if inode.host_fd >= 0:
            self.host.close(inode.host_fd)
            inode.host_fd = -1

    def destroy(self) -> None:
        """It was unmounted for good: let everything go."""

    # -- names --------------------------------------------------------------------------------------------------

    def create(self, directory: Dentry, name: bytes, mode: int, who: Credentials, rdev: int, target: bytes) -> Dentry:
        """Make an inode of the type in *mode* and name it."""
        fail(EPERM)

    def make_unnamed(self, directory: Dentry, mode: int, who: Credentials) -> Dentry:
        """Make a regular file without a name (O_TMPFILE)."""
        fail(EOPNOTSUPP)

    def link(self, source: Dentry, directory: Dentry, name: bytes) -> None:
        """Give an inode one more name."""
        fail(EPERM)

    def remove(self, dentry: Dentry) -> None:
        """Remove a name: of a directory (empty by now) or of anything else."""
        fail(EPERM)

    def move(self, dentry: Dentry, directory: Dentry, name: bytes, replaced: Dentry | None) -> None:
        """Rename; *replaced* is what has the new name now (a directory is empty)."""
        fail(EPERM)

    def exchange(self, first: Dentry, second: Dentry) -> None:
        """Let two names change places."""
        fail(EPERM)

    # -- attributes ---------------------------------------------------------------------------------------------

    def changed(self, dentry: Dentry, fields: frozenset[str]) -> None:
        """Attributes of the inode were set: *fields* of "mode", "owner", "times", "xattrs"."""

    def may_change(self, inode: Inode) -> None:
        """Refuse to change attributes where there is no such thing."""
        fail(EROFS)
