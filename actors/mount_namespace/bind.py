"""bind: a host directory or file, shown as it is; writable ones change the host.

Linux: a bind mount, or virtiofs.  Nothing is cached for longer than one step, since the host may change it at any time:
each look-up asks the host, and an entry keeps its identity for as long as the host's inode is the same.  The guest's
permissions are checked here against what the host shows; the host then checks greenroom's own.  A file is made by
greenroom's user; where the host allows it, it is given to the guest's user.
"""

from __future__ import annotations

import os
import stat
from errno import ENOENT, ENOTDIR, EPERM
from typing import TYPE_CHECKING, ClassVar, Final

from .errors import fail
from .file_data import KEPT_FLAGS
from .file_system import FileSystem, FileSystemUsage
from .host_files import S_MODE
from .host_tree import HostTree, join
from .inode import Dentry, Inode
from .overlay import lower_ino, take_status

if TYPE_CHECKING:
    from ...messages.mount_namespace import Credentials
    from .file_data import DataStore
    from .host_files import HostFiles, HostStatus

__all__ = ["BindFileSystem"]

_FORMAT: Final = 0o170000
_RENAME_EXCHANGE: Final = 2


class BindDentry(Dentry):
    """An entry with what was seen of its names last; ``children`` stays empty, so that each walk asks the host."""

    __slots__ = ("known",)

    def __init__(self, name: bytes, parent: Dentry | None, inode: Inode) -> None:
        super().__init__(name, parent, inode)
        self.known: dict[bytes, BindDentry] = {}


class BindFileSystem(FileSystem):
    """Host files as they are."""

    type: ClassVar[str] = "bind"
    magic: ClassVar[int] = 0x6A656A63

    def __init__(self, host: HostFiles, store: DataStore, dev: int, source: str, read_only: bool = False) -> None:
        super().__init__(host, store, dev)
        self.tree = HostTree(host, source, shared=True)
        self.read_only = read_only
        self.devices: dict[int, int] = {}
        self.root: Dentry = BindDentry(b"", None, self._inode_of(self.tree.status(b"")))

    def _inode_of(self, status: HostStatus) -> Inode:
        inode = Inode(self, lower_ino(self.devices, status), status[S_MODE], 0, 0, 0)
        take_status(inode, status)
        inode.lower = None
        return inode

    def path(self, dentry: Dentry) -> bytes:
        """Return the host path of an entry, relative to the root."""
        names: list[bytes] = []
        while dentry.parent is not dentry:
            names.append(dentry.name)
            dentry = dentry.parent
        names.reverse()
        return b"/".join(names)

    # -- looking ------------------------------------------------------------------------------------------------

    def lookup(self, directory: Dentry, name: bytes, who: Credentials) -> Dentry | None:
        """Ask the host."""
        assert isinstance(directory, BindDentry)
        if directory.gone:
            return None
        path = join(self.path(directory), name)
        try:
            status = self.tree.status(path)
        except OSError as error:
            if error.errno not in (ENOENT, ENOTDIR):
                raise
            self._lose(directory, name)
            return None
        return self._entry(directory, name, path, status)

    def _entry(self, directory: BindDentry, name: bytes, path: bytes, status: HostStatus) -> BindDentry:
        known = directory.known.get(name)
        number = lower_ino(self.devices, status)
        inode = None if known is None else known.inode
        if known is not None and inode is not None and _is_same(inode, number, status):
            take_status(inode, status)
            return known
        self._lose(directory, name)
        inode = self._inode_of(status)
        if status[S_MODE] & _FORMAT == stat.S_IFLNK:
            inode.target = self.tree.read_link(path)
        dentry = directory.known[name] = BindDentry(name, directory, inode)
        return dentry

    def _lose(self, directory: BindDentry, name: bytes) -> None:
        """A known name is gone on the host."""
        known = directory.known.pop(name, None)
        if known is not None:
            known.gone = True

    def names(self, directory: Dentry, who: Credentials) -> list[tuple[bytes, int, int]]:
        """What the host lists."""
        inode = directory.inode
        assert inode is not None
        prefix = inode.ino & ~((1 << 48) - 1)
        return [(name, prefix | ino, kind) for name, ino, kind in self.tree.names(self.path(directory))]

    def refresh(self, inode: Inode) -> None:
        """Open files are asked by their descriptor, also when they lost their name."""
        if inode.host_fd >= 0 and inode.mode & _FORMAT != stat.S_IFIFO:
            take_status(inode, self.host.status(inode.host_fd))
        elif self.root.inode is inode:
            take_status(inode, self.tree.status(b""))

    def directory_size(self, directory: Inode, entries: int) -> int:
        """The host's."""
        return directory.size

    def usage(self) -> FileSystemUsage:
        """The host file system's, in its own blocks scaled to 4096 bytes."""
        _, size, blocks, free, _, files, free_files, _ = self.host.file_system_status(self.tree.root)
        return blocks * size // 4096, free * size // 4096, files, free_files

    # -- contents -----------------------------------------------------------------------------------------------

    def open_file(self, dentry: Dentry, flags: int) -> int:
        """The host file itself."""
        kept = flags & (KEPT_FLAGS & ~os.O_NONBLOCK)
        inode = dentry.inode
        assert inode is not None
        if inode.host_fd >= 0:
            return self.host.reopen(inode.host_fd, kept)
        fd = self.tree.open(self.path(dentry), kept)
        if self.host.status(fd)[S_MODE] & _FORMAT != stat.S_IFREG:
            self.host.close(fd)
            fail(EPERM)
        return fd

    def truncate(self, dentry: Dentry, size: int) -> None:
        """ftruncate(2) of a descriptor opened for it."""
        fd = self.open_file(dentry, os.O_WRONLY)
        try:
            self.host.truncate(fd, size)
        finally:
            self.host.close(fd)
        self._take(dentry)

    def hold(self, dentry: Dentry) -> None:
        """Keep the host's inode while a handle does."""
        inode = dentry.inode
        assert inode is not None
        if inode.host_fd < 0 and inode.mode & _FORMAT in (stat.S_IFREG, stat.S_IFDIR):
            inode.host_fd = self.tree.open_path(self.path(dentry))

    def release(self, inode: Inode) -> None:
        """Let the host's inode go."""
        self.free(inode)

    def destroy(self) -> None:
        """Close the host's directory."""
        self.tree.close()

    # -- names --------------------------------------------------------------------------------------------------

    def _place(self, dentry: Dentry) -> tuple[int, bytes]:
        return self.tree.place(self.path(dentry))

    def _take(self, dentry: Dentry) -> None:
        """Take over what the host says of an entry now."""
        inode = dentry.inode
        assert inode is not None
        if inode.host_fd >= 0 and inode.mode & _FORMAT != stat.S_IFIFO:
            take_status(inode, self.host.status(inode.host_fd))
        else:
            take_status(inode, self.tree.status(self.path(dentry)))

    def create(self, directory: Dentry, name: bytes, mode: int, who: Credentials, rdev: int, target: bytes) -> Dentry:
        """Make it on the host, and give it to the guest's user where greenroom may."""
        assert isinstance(directory, BindDentry)
        path = join(self.path(directory), name)
        at, _ = self.tree.place(path)
        kind = mode & _FORMAT
        if kind == stat.S_IFDIR:
            self.host.make_directory_at(at, name, mode & 0o7777 | self._inherited(directory))
        elif kind == stat.S_IFLNK:
            self.host.make_symlink_at(at, name, target)
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            fail(EPERM)
        else:
            self.host.make_node_at(at, name, kind | mode & 0o777, 0)
        self._give_to(at, name, directory, who)
        if kind == stat.S_IFREG:
            self.host.set_mode_at(at, name, mode & 0o7777)
        self._take(directory)
        return self._entry(directory, name, path, self.tree.status(path))

    @staticmethod
    def _inherited(directory: Dentry) -> int:
        """Return the set-group-id bit that a new directory takes over."""
        return 0 if directory.inode is None else directory.inode.mode & stat.S_ISGID

    def _give_to(self, at: int, name: bytes, directory: Dentry, who: Credentials) -> None:
        parent = directory.inode
        assert parent is not None
        gid = parent.gid if self._inherited(directory) else who.fsgid
        if self.host.user_id() == 0:
            self.host.set_owner_at(at, name, who.fsuid, gid)

    def make_unnamed(self, directory: Dentry, mode: int, who: Credentials) -> Dentry:
        """O_TMPFILE on the host, where its file system has it."""
        at = self.tree.directory(self.path(directory))
        fd = self.host.open_at(at, b".", os.O_TMPFILE | os.O_RDWR, mode)
        try:
            inode = self._inode_of(self.host.status(fd))
            inode.host_fd = self.host.reopen(fd, os.O_PATH)
        finally:
            self.host.close(fd)
        dentry = BindDentry(b"#%d" % inode.ino, directory, inode)
        dentry.gone = True
        return dentry

    def link(self, source: Dentry, directory: Dentry, name: bytes) -> None:
        """linkat(2) on the host."""
        at, _ = self.tree.place(join(self.path(directory), name))
        inode = source.inode
        assert inode is not None
        if source.gone and inode.host_fd >= 0:
            self.host.link_descriptor(inode.host_fd, at, name)
        else:
            old_at, old_name = self._place(source)
            self.host.link_at(old_at, old_name, at, name)
        self._take(directory)

    def remove(self, dentry: Dentry) -> None:
        """unlinkat(2) on the host."""
        at, name = self._place(dentry)
        inode, parent = dentry.inode, dentry.parent
        assert inode is not None
        assert isinstance(parent, BindDentry)
        if inode.mode & _FORMAT == stat.S_IFDIR:
            self.host.remove_directory_at(at, name)
            self.tree.forget(self.path(dentry))
        else:
            self.host.unlink_at(at, name)
        self._lose(parent, name)
        self._take(parent)

    def is_empty(self, directory: Dentry, who: Credentials) -> bool:
        """The host refuses by itself."""
        return True

    def move(self, dentry: Dentry, directory: Dentry, name: bytes, replaced: Dentry | None) -> None:
        """renameat2(2) on the host; entries below move along."""
        self._rename(dentry, directory, name, 0)
        old = dentry.parent
        assert isinstance(old, BindDentry)
        assert isinstance(directory, BindDentry)
        assert isinstance(dentry, BindDentry)
        self._lose(directory, name)
        old.known.pop(dentry.name, None)
        dentry.parent, dentry.name = directory, name
        directory.known[name] = dentry
        self._take(old)
        self._take(directory)

    def _rename(self, dentry: Dentry, directory: Dentry, name: bytes, flags: int) -> None:
        new_path = join(self.path(directory), name)
        old_at, old_name = self._place(dentry)
        at, _ = self.tree.place(new_path)
        self.host.rename_at(old_at, old_name, at, name, flags)
        self.tree.forget(self.path(dentry))
        self.tree.forget(new_path)

    def exchange(self, first: Dentry, second: Dentry) -> None:
        """renameat2(2) with RENAME_EXCHANGE."""
        self._rename(first, second.parent, second.name, _RENAME_EXCHANGE)
        one, two = first.parent, second.parent
        assert isinstance(one, BindDentry)
        assert isinstance(two, BindDentry)
        assert isinstance(first, BindDentry)
        assert isinstance(second, BindDentry)
        one.known[first.name], two.known[second.name] = second, first
        (first.parent, first.name), (second.parent, second.name) = (two, second.name), (one, first.name)

    # -- attributes ---------------------------------------------------------------------------------------------

    def changed(self, dentry: Dentry, fields: frozenset[str]) -> None:
        """Do to the host file what was done to the inode."""
        inode = dentry.inode
        assert inode is not None
        path = self.path(dentry)
        at, name = self.tree.place(path) if path else (self.tree.root, b".")
        if "owner" in fields:
            self.host.set_owner_at(at, name, inode.uid, inode.gid)
        if "mode" in fields or "owner" in fields and inode.mode & _FORMAT != stat.S_IFLNK:
            self.host.set_mode_at(at, name, inode.mode & 0o7777)
        if "times" in fields:
            self.host.set_times_at(at, name, inode.atime_ns, inode.mtime_ns)
        self._take(dentry)

    def may_change(self, inode: Inode) -> None:
        """As far as the host lets us."""


def _is_same(inode: Inode, number: int, status: HostStatus) -> bool:
    """Tell whether the host still has the same file; its number may have been used again for another kind."""
    return inode.ino == number and (inode.mode ^ status[S_MODE]) & _FORMAT == 0
