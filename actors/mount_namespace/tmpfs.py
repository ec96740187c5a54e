"""tmpfs: a file system whose names and inodes exist only here.

Linux: mm/shmem.c, fs/libfs.c.  It is also the upper half of ``overlay`` and all of ``devtmpfs``.  Workers write to
the memfds without asking, as many bytes as they were granted.
"""

from __future__ import annotations

import stat
from errno import ENOSPC
from typing import TYPE_CHECKING, ClassVar, Final

from ...config.limits import DEFAULT_FILE_SYSTEM_BYTES, MAX_INODES, SPACE_STEP_BYTES
from .errors import fail
from .file_data import KEPT_FLAGS, FileData
from .file_system import FileSystem, FileSystemUsage
from .inode import Dentry, Inode
from .permissions import CAP_FSETID, capable, in_group

if TYPE_CHECKING:
    from ...messages.mount_namespace import Credentials
    from .file_data import DataStore
    from .host_files import HostFiles

__all__ = ["TmpFs"]

_FORMAT: Final = 0o170000
#: What one entry adds to st_size of a directory (BOGO_DIRENT_SIZE); "." and ".." count.
_ENTRY_BYTES: Final = 20


class TmpFs(FileSystem):
    """Files in memory: contents in memfds, everything else in the inode."""

    type: ClassVar[str] = "tmpfs"
    magic: ClassVar[int] = 0x01021994
    in_memory: ClassVar[bool] = True

    def __init__(self, host: HostFiles, store: DataStore, dev: int, size_limit: int = 0) -> None:
        self.size_limit = size_limit or DEFAULT_FILE_SYSTEM_BYTES
        #: Inodes that exist only in memory.
        self.inodes = 1
        #: Bytes that workers may still be writing.
        self._granted: dict[str, int] = {}
        super().__init__(host, store, dev)
        self.root.pinned = True
        assert self.root.inode is not None
        self.root.inode.mode = stat.S_IFDIR | 0o1777

    # -- looking ------------------------------------------------------------------------------------------------

    def refresh(self, inode: Inode) -> None:
        """Take size and times from the memfd."""
        self.store.refresh(inode)

    def directory_size(self, directory: Inode, entries: int) -> int:
        """As tmpfs counts it."""
        return _ENTRY_BYTES * (entries + 2)

    def usage(self) -> FileSystemUsage:
        """Blocks as of the last close of each file."""
        blocks = self.size_limit // 4096
        return blocks, max(0, blocks - self.used_blocks // 8), MAX_INODES, max(0, MAX_INODES - self.inodes)

    def grant(self, worker: str) -> int:
        """Return how many bytes *worker* may write from now on; sizes are up to date."""
        self._granted.pop(worker, None)
        free = self.size_limit - self.used_blocks * 512 - sum(self._granted.values())
        granted = self._granted[worker] = max(0, min(SPACE_STEP_BYTES, free))
        return granted

    def options(self) -> bytes:
        """The size, when it is not the default."""
        return b"" if self.size_limit == DEFAULT_FILE_SYSTEM_BYTES else b"size=%dk" % (self.size_limit >> 10)

    # -- contents -----------------------------------------------------------------------------------------------

    def open_file(self, dentry: Dentry, flags: int) -> int:
        """A new open file description of the memfd."""
        assert dentry.inode is not None
        return self.store.open(dentry.inode, flags & KEPT_FLAGS)

    def truncate(self, dentry: Dentry, size: int) -> None:
        """Through the memfd, which keeps holes."""
        assert dentry.inode is not None
        self.store.truncate(dentry.inode, size, self.store.time.now_ns())

    def free(self, inode: Inode) -> None:
        """Close the memfd or the pipe."""
        if self._is_ours(inode):
            self.inodes -= 1
        if inode.data is not None:
            self.store.drop(inode)
        super().free(inode)

    def destroy(self) -> None:
        """Free every inode, those with several names once."""
        pending = [self.root]
        while pending:
            dentry = pending.pop()
            pending += dentry.children.values()
            inode = dentry.inode
            if inode is not None and inode.nlink:
                inode.nlink = 0
                self.free(inode)

    def _is_ours(self, inode: Inode) -> bool:
        """Tell whether the inode counts against the limit."""
        return True

    # -- names --------------------------------------------------------------------------------------------------

    def create(self, directory: Dentry, name: bytes, mode: int, who: Credentials, rdev: int, target: bytes) -> Dentry:
        """A new inode, owned as the directory's set-group-id bit says."""
        inode = self._make(directory, mode, who)
        inode.rdev = rdev
        if target:
            inode.target, inode.size = target, len(target)
        dentry = self._attach(directory, name, inode)
        if mode & _FORMAT == stat.S_IFDIR:
            self._count_subdirectory(directory, 1)
        self.touch(directory)
        return dentry

    def make_unnamed(self, directory: Dentry, mode: int, who: Credentials) -> Dentry:
        """A file that only its handle refers to, until it is linked."""
        inode = self._make(directory, stat.S_IFREG | mode, who)
        inode.nlink = 0
        dentry = Dentry(b"#%d" % inode.ino, directory, inode)
        dentry.gone = dentry.pinned = True
        return dentry

    def _make(self, directory: Dentry, mode: int, who: Credentials) -> Inode:
        if self.inodes >= MAX_INODES:
            fail(ENOSPC)
        parent = directory.inode
        assert parent is not None
        gid = who.fsgid
        if parent.mode & stat.S_ISGID:
            gid = parent.gid
            if mode & _FORMAT == stat.S_IFDIR:
                mode |= stat.S_ISGID
            elif mode & 0o2010 == 0o2010 and not in_group(gid, who) and not capable(who, CAP_FSETID):
                mode &= ~stat.S_ISGID
        inode = self.new_inode(mode, who.fsuid, gid)
        inode.dirty = True
        self.inodes += 1
        if mode & _FORMAT == stat.S_IFREG:
            inode.data = FileData()
        return inode

    def _attach(self, directory: Dentry, name: bytes, inode: Inode) -> Dentry:
        dentry = Dentry(name, directory, inode)
        dentry.pinned = True
        directory.children[name] = dentry
        self.store.leases.named(name)
        return dentry

    def _detach(self, dentry: Dentry) -> None:
        """Take a name out of its directory."""
        del dentry.parent.children[dentry.name]

    def _count_subdirectory(self, directory: Dentry, change: int) -> None:
        """Keep a directory's link count; a host file system that does not count (1) is left alone."""
        inode = directory.inode
        assert inode is not None
        if inode.nlink >= 2:
            inode.nlink += change

    def touch(self, directory: Dentry) -> None:
        """A directory's entries changed."""
        inode = directory.inode
        assert inode is not None
        inode.mtime_ns = inode.ctime_ns = self.store.time.now_ns()
        inode.dirty = True
        inode.changed()

    def _touch_inode(self, inode: Inode) -> None:
        self.store.refresh(inode)
        inode.ctime_ns = self.store.time.now_ns()
        inode.dirty = True
        inode.changed()

    def link(self, source: Dentry, directory: Dentry, name: bytes) -> None:
        """One more name."""
        inode = source.inode
        assert inode is not None
        inode.nlink += 1
        self._touch_inode(inode)
        self._attach(directory, name, inode)
        self.touch(directory)

    def remove(self, dentry: Dentry) -> None:
        """One name less; the inode goes with the last one unless it is open."""
        self._detach(dentry)
        self._drop(dentry)
        self.touch(dentry.parent)

    def _drop(self, dentry: Dentry) -> None:
        """Count a name less that *dentry* was, wherever it stood."""
        inode = dentry.inode
        assert inode is not None
        dentry.gone = True
        if inode.mode & _FORMAT == stat.S_IFDIR:
            inode.nlink = 0
            self._count_subdirectory(dentry.parent, -1)
        else:
            inode.nlink -= 1
        self._touch_inode(inode)
        if inode.nlink == 0 and inode.opens == 0:
            self.free(inode)

    def move(self, dentry: Dentry, directory: Dentry, name: bytes, replaced: Dentry | None) -> None:
        """Move the entry itself, with all that is below it."""
        inode, old = dentry.inode, dentry.parent
        assert inode is not None
        if replaced is not None:
            self._drop(replaced)
        self._detach(dentry)
        self._place(dentry, directory, name)
        if inode.mode & _FORMAT == stat.S_IFDIR and old is not directory:
            self._count_subdirectory(old, -1)
            self._count_subdirectory(directory, 1)
        self._touch_inode(inode)
        self.touch(old)
        self.touch(directory)

    def _place(self, dentry: Dentry, directory: Dentry, name: bytes) -> None:
        dentry.parent, dentry.name, dentry.pinned = directory, name, True
        directory.children.pop(name, None)
        directory.children[name] = dentry
        self.store.leases.named(name)

    def exchange(self, first: Dentry, second: Dentry) -> None:
        """Both entries change places; neither name is ever missing."""
        (one, one_name), (two, two_name) = (first.parent, first.name), (second.parent, second.name)
        self._place(first, two, two_name)
        self._place(second, one, one_name)
        assert first.inode is not None
        assert second.inode is not None
        change = (second.inode.mode & _FORMAT == stat.S_IFDIR) - (first.inode.mode & _FORMAT == stat.S_IFDIR)
        if one is not two and change:
            self._count_subdirectory(one, change)
            self._count_subdirectory(two, -change)
        self._touch_inode(first.inode)
        self._touch_inode(second.inode)
        self.touch(one)
        self.touch(two)

    # -- attributes ---------------------------------------------------------------------------------------------

    def changed(self, dentry: Dentry, fields: frozenset[str]) -> None:
        """Remember the change; times also go to the memfd."""
        inode = dentry.inode
        assert inode is not None
        inode.dirty = True
        inode.changed()
        if "times" in fields:
            self.store.set_times(inode)

    def may_change(self, inode: Inode) -> None:
        """Everything may."""
