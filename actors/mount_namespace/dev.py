"""devtmpfs and devpts: /dev.

Linux: drivers/base/devtmpfs.c, fs/devpts/inode.c.  Nodes carry only their numbers; what reading and writing does is the
worker's.  Pseudo-terminals appear in devpts when a worker tells of them.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, ClassVar, Final

from .inode import Dentry
from .tmpfs import TmpFs
from .virtual import VirtualFileSystem

if TYPE_CHECKING:
    from .file_data import DataStore
    from .host_files import HostFiles

__all__ = ["DevPts", "DevTmpFs"]

_NODES: Final = (
    (b"null", 0o666, 1, 3),
    (b"zero", 0o666, 1, 5),
    (b"full", 0o666, 1, 7),
    (b"random", 0o666, 1, 8),
    (b"urandom", 0o666, 1, 9),
    (b"tty", 0o666, 5, 0),
    (b"console", 0o600, 5, 1),
    (b"ptmx", 0o666, 5, 2),
)
_LINKS: Final = (
    (b"fd", b"/proc/self/fd"),
    (b"stdin", b"/proc/self/fd/0"),
    (b"stdout", b"/proc/self/fd/1"),
    (b"stderr", b"/proc/self/fd/2"),
)
_DIRECTORIES: Final = ((b"shm", 0o1777), (b"pts", 0o755), (b"mqueue", 0o1777))
_TTY_GROUP: Final = 5
_PTS_MAJOR: Final = 136


class DevTmpFs(TmpFs):
    """/dev with its usual nodes; more can be made, as on Linux."""

    type: ClassVar[str] = "devtmpfs"

    def __init__(self, host: HostFiles, store: DataStore, dev: int, size_limit: int = 0) -> None:
        super().__init__(host, store, dev, size_limit)
        assert self.root.inode is not None
        self.root.inode.mode = stat.S_IFDIR | 0o755
        for name, mode in _DIRECTORIES:
            self._add(name, stat.S_IFDIR | mode)
            self._count_subdirectory(self.root, 1)
        for name, mode, major, minor in _NODES:
            inode = self._add(name, stat.S_IFCHR | mode).inode
            assert inode is not None
            inode.rdev = os.makedev(major, minor)
            inode.gid = _TTY_GROUP if major == 5 else 0
        for name, target in _LINKS:
            inode = self._add(name, stat.S_IFLNK | 0o777).inode
            assert inode is not None
            inode.target, inode.size = target, len(target)

    def _add(self, name: bytes, mode: int) -> Dentry:
        inode = self.new_inode(mode, 0, 0)
        self.inodes += 1
        return self._attach(self.root, name, inode)


class DevPts(VirtualFileSystem):
    """/dev/pts: the terminals that workers told of, and ptmx."""

    type: ClassVar[str] = "devpts"
    magic: ClassVar[int] = 0x1CD1

    def __init__(self, host: HostFiles, store: DataStore, dev: int) -> None:
        super().__init__(host, store, dev)
        assert self.root.inode is not None
        self.root.inode.mode = stat.S_IFDIR | 0o755
        inode = self._add(self.root, b"ptmx", stat.S_IFCHR | 0o666).inode
        assert inode is not None
        inode.rdev = os.makedev(5, 2)

    def see(self, index: int, uid: int, gid: int, mode: int) -> None:
        """A terminal was opened."""
        name = b"%d" % index
        found = self.root.children.get(name)
        dentry = found if found is not None else self._add(self.root, name, stat.S_IFCHR | mode)
        inode = dentry.inode
        assert inode is not None
        inode.uid, inode.gid, inode.mode = uid, gid, stat.S_IFCHR | mode
        inode.rdev = os.makedev(_PTS_MAJOR + (index >> 8), index & 0xFF)
        inode.changed()

    def forget(self, index: int) -> None:
        """Its last descriptor was closed."""
        dentry = self.root.children.pop(b"%d" % index, None)
        if dentry is not None:
            dentry.gone = True

    def terminals(self) -> list[tuple[int, int, int, int]]:
        """Return (index, uid, gid, mode) of each terminal."""
        found = [(int(name), d.inode) for name, d in self.root.children.items() if name.isdigit()]
        return [(index, i.uid, i.gid, i.mode & 0o7777) for index, i in found if i is not None]

    def may_change(self, inode: object) -> None:
        """grantpt(3) changes owner and mode."""

    def options(self) -> bytes:
        """As most systems mount it."""
        return b"gid=5,mode=620,ptmxmode=666"
