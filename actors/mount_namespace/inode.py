"""Inodes and directory entries: the nodes of the tree.

Linux: struct inode and struct dentry.  Each inode belongs to one file system; a dentry gives it a name in a directory.
A dentry whose inode is None is negative: the name is known to be absent (in an overlay that hides a lower name, it is
also *pinned* and then is what overlayfs calls a whiteout).  Plain objects without behaviour of their own, slotted
because there are many.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...messages.mount_namespace import StatusReply
    from .file_data import FileData
    from .file_system import FileSystem

__all__ = ["NO_CHILDREN", "Dentry", "Inode"]


class Inode:
    """One file, directory, link or node; times in ns."""

    __slots__ = (
        "atime_ns",
        "blocks",
        "btime_ns",
        "content",
        "ctime_ns",
        "data",
        "dirty",
        "fs",
        "gid",
        "host_fd",
        "ino",
        "is_live",
        "lease",
        "lower",
        "magic",
        "mode",
        "mtime_ns",
        "nlink",
        "opens",
        "pid",
        "proc_file",
        "rdev",
        "reply",
        "reply_mount",
        "size",
        "target",
        "uid",
        "xattrs",
    )

    def __init__(self, fs: FileSystem, ino: int, mode: int, uid: int, gid: int, now_ns: int) -> None:
        self.fs = fs
        self.ino = ino
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.nlink = 2 if mode & 0o170000 == stat.S_IFDIR else 1
        self.rdev = 0
        self.size = 0
        self.blocks = 0
        self.atime_ns = self.mtime_ns = self.ctime_ns = self.btime_ns = now_ns
        #: Contents of a regular file in memory; None while they are only in the lower layer or made at open.
        self.data: FileData | None = None
        #: Target of a symbolic link.
        self.target = b""
        self.xattrs: dict[bytes, bytes] | None = None
        #: Where a file of a lower layer is below that layer's root; None for one that is only in memory.
        self.lower: bytes | None = None
        #: Differs from the lower layer (attributes, contents or link count), so it must not be forgotten.
        self.dirty = False
        #: References by handles, mounts and mounts' roots: it lives while there are any, even with no name left.
        self.opens = 0
        #: O_PATH host descriptor of a FIFO's pipe or of a bind's file while it is open; -1: none.
        self.host_fd = -1
        #: /proc: the process that it is about, the file that its ThreadGroup makes, the magic link that it is.
        self.pid = 0
        self.proc_file = ""
        self.magic = ""
        #: Key of the text generator of a global file of /proc or /sys.
        self.content = ""
        #: The last reply about it, seen through which mount; valid until an attribute changes.
        self.reply: StatusReply | None = None
        self.reply_mount = 0
        #: Number of the lease that the worker has on it, 0 for none; whether it looks at size and times by itself then.
        self.lease = 0
        self.is_live = False

    def changed(self) -> None:
        """An attribute, or which names lead here, is not what it was: nobody shall answer from what was said before."""
        self.reply = None
        if self.lease:
            self.fs.store.leases.end(self)


class Dentry:
    """A name in a directory."""

    __slots__ = ("children", "gone", "inode", "mounts", "name", "number", "number_mount", "parent", "pinned")

    def __init__(self, name: bytes, parent: Dentry | None, inode: Inode | None) -> None:
        self.name = name
        #: The directory's entry; a file system's root has itself as its parent.
        self.parent: Dentry = parent if parent is not None else self
        self.inode = inode
        #: Of a directory: what is known of its names, in order of creation.
        self.children: dict[bytes, Dentry] = (
            {} if inode is not None and inode.mode & 0o170000 == stat.S_IFDIR else NO_CHILDREN
        )
        #: Mounts whose mount point this is.
        self.mounts = 0
        #: Made here (created, moved, or a whiteout), so it cannot be looked up again in a lower layer.
        self.pinned = False
        #: Unlinked, while handles still refer to it.
        self.gone = False
        #: By which number the worker names it as a place where paths begin, seen through which mount; 0: none.
        self.number = 0
        self.number_mount = 0


#: The children of everything that is no directory. Never changed.
NO_CHILDREN: dict[bytes, Dentry] = {}
