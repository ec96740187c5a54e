"""overlay: a directory of the host below, which never changes, and memory above, which takes every change.

Linux: fs/overlayfs.  The entries in memory are the upper layer and the cache of the lower one at once:

* a directory's inode knows where it is in the lower layer (``lower``); a name that is not among its children is looked
  up there.  An entry that moves takes its inode along, so renaming a lower directory moves its whole subtree and
  costs nothing (overlayfs calls this a redirect);
* a negative entry that is pinned hides a lower name (a whiteout); a directory made here has no ``lower`` (opaque);
* changed attributes stay in the inode; contents are copied up when a lower file is first opened for writing.  A
  descriptor opened for reading before keeps the lower file, as on Linux.

Differences from overlayfs: inode numbers stay the same over a copy-up always, lower hard links stay together over a
copy-up, and directories keep the host's link count.
"""

from __future__ import annotations

import os
import stat
from errno import EACCES, ENOENT, ENOTDIR
from typing import TYPE_CHECKING, ClassVar, Final

from .errors import fail
from .file_data import FileData
from .host_files import S_DEV, S_INO, S_MODE, S_NLINK, S_SIZE
from .host_tree import HostTree, join
from .inode import Dentry, Inode
from .tmpfs import TmpFs

if TYPE_CHECKING:
    from ...messages.mount_namespace import Credentials
    from .file_data import DataStore
    from .host_files import HostFiles, HostStatus

__all__ = ["Overlay", "lower_ino", "take_status"]

_FORMAT: Final = 0o170000
#: Inode numbers: the host's for the device of the lower root; above this the other devices', then those made here.
_DEVICE_SHIFT, _DEVICE_MASK = 48, (1 << 48) - 1
_FIRST_UPPER_INO: Final = 1 << 62
#: Host file systems whose contents describe the host and must not be seen through a lower layer.
#: proc, sysfs, cgroup, cgroup2, debugfs, tracefs, securityfs, pstore, bpf, configfs, efivarfs, mqueue, binfmt_misc.
HIDDEN_MAGICS: Final = frozenset(
    {0x9FA0, 0x62656572, 0x27E0EB, 0x63677270, 0x64626720, 0x74726163, 0x73636673, 0x6165676C, 0xCAFE4A11}
    | {0x62656570, 0xDE5E81E4, 0x19800202, 0x42494E4D}
)
_DEFAULT_DIRECTORY_BYTES: Final = 4096


def take_status(inode: Inode, status: HostStatus) -> None:
    """Fill an inode with the attributes of a host file."""
    (
        inode.mode,
        _,
        _,
        inode.nlink,
        inode.uid,
        inode.gid,
        inode.rdev,
        inode.size,
        _,
        inode.blocks,
        inode.atime_ns,
        inode.mtime_ns,
        inode.ctime_ns,
    ) = status
    inode.btime_ns = min(inode.mtime_ns, inode.ctime_ns)
    inode.changed()


def lower_ino(devices: dict[int, int], status: HostStatus) -> int:
    """Return an inode number that is unique over all host devices met so far (*devices* numbers them)."""
    index = devices.setdefault(status[S_DEV], len(devices))
    return status[S_INO] if index == 0 else index << _DEVICE_SHIFT | status[S_INO] & _DEVICE_MASK


class Overlay(TmpFs):
    """Memory over a host directory."""

    type: ClassVar[str] = "overlay"
    magic: ClassVar[int] = 0x794C7630

    def __init__(self, host: HostFiles, store: DataStore, dev: int, source: str, size_limit: int = 0) -> None:
        self.lower = HostTree(host, source)
        if not self.lower.is_directory:
            self.lower.close()
            fail(ENOTDIR, os.fsencode(source))
        #: Number of each host device below, in the order met.
        self.devices: dict[int, int] = {}
        #: Lower files with several names, by (device, inode): their names share one inode here.
        self.linked: dict[tuple[int, int], Inode] = {}
        #: Whether a host device's contents are hidden.
        self._hidden_devices: dict[int, bool] = {}
        super().__init__(host, store, dev, size_limit)
        self.next_ino = _FIRST_UPPER_INO
        status = self.lower.status(b"")
        root = self.root.inode
        assert root is not None
        take_status(root, status)
        root.ino, root.lower, root.dirty = lower_ino(self.devices, status), b"", False
        self._hidden_devices[status[S_DEV]] = False

    # -- looking ------------------------------------------------------------------------------------------------

    def lookup(self, directory: Dentry, name: bytes, who: Credentials) -> Dentry | None:
        """Look below; the answer is cached, an absence too."""
        parent = directory.inode
        assert parent is not None
        if parent.lower is None:
            return None
        path = join(parent.lower, name)
        try:
            status = self.host.status_at(self.lower.directory(parent.lower), name)
        except OSError as error:
            if error.errno not in (ENOENT, ENOTDIR):
                raise
            inode = None
        else:
            inode = self._inode_of(path, status)
        dentry = directory.children[name] = Dentry(name, directory, inode)
        self.cached += 1
        return dentry

    def _inode_of(self, path: bytes, status: HostStatus) -> Inode:
        """Return the inode of a lower file."""
        mode = status[S_MODE]
        key = (status[S_DEV], status[S_INO])
        several = status[S_NLINK] > 1 and mode & _FORMAT != stat.S_IFDIR
        if several and key in self.linked:
            return self.linked[key]
        inode = Inode(self, lower_ino(self.devices, status), mode, 0, 0, 0)
        take_status(inode, status)
        inode.lower = path
        if several:
            self.linked[key] = inode
        if mode & _FORMAT == stat.S_IFDIR and self._is_hidden(path, status):
            inode.lower, inode.nlink = None, 2
        elif mode & _FORMAT == stat.S_IFLNK:
            inode.target = self.lower.read_link(path)
        return inode

    def remember_linked(self, inode: Inode) -> None:
        """Let the other lower names of a loaded inode lead to it."""
        assert inode.lower is not None
        status = self.lower.status(inode.lower)
        self.linked[status[S_DEV], status[S_INO]] = inode

    def _is_hidden(self, path: bytes, status: HostStatus) -> bool:
        """A mounted /proc, /sys or cgroup tree of the host shows as an empty directory."""
        device = status[S_DEV]
        hidden = self._hidden_devices.get(device)
        if hidden is None:
            try:
                fd = self.lower.directory(path)
                hidden = self.host.file_system_status(fd)[0] in HIDDEN_MAGICS
            except OSError:
                hidden = True
            self._hidden_devices[device] = hidden
        return hidden

    def names(self, directory: Dentry, who: Credentials) -> list[tuple[bytes, int, int]]:
        """The lower directory's names with the changes above applied; children known here come first."""
        entries = super().names(directory, who)
        inode = directory.inode
        assert inode is not None
        if inode.lower is None:
            return entries
        known = directory.children
        prefix = inode.ino & ~_DEVICE_MASK
        entries += [
            (name, prefix | ino, kind) for name, ino, kind in self.lower.names(inode.lower) if name not in known
        ]
        return entries

    def directory_size(self, directory: Inode, entries: int) -> int:
        """The host's size, or a block."""
        return directory.size or _DEFAULT_DIRECTORY_BYTES

    def options(self) -> bytes:
        """What overlayfs would show, without host paths."""
        return b"lowerdir=/lower,upperdir=/upper,workdir=/work"

    # -- contents -----------------------------------------------------------------------------------------------

    def open_file(self, dentry: Dentry, flags: int) -> int:
        """The lower file for reading, the memfd once there is one."""
        inode = dentry.inode
        assert inode is not None
        if inode.data is None:
            if flags & os.O_ACCMODE == os.O_RDONLY:
                return self._open_lower(inode)
            self.copy_up(inode)
        return super().open_file(dentry, flags)

    def _open_lower(self, inode: Inode) -> int:
        """Return a descriptor of the lower file, which must still be a regular file."""
        assert inode.lower is not None
        fd = self.lower.open(inode.lower, os.O_RDONLY)
        if not self.host.is_regular(fd):
            self.host.close(fd)
            fail(EACCES, inode.lower)
        return fd

    def copy_up(self, inode: Inode) -> None:
        """Give a lower file contents in memory. EACCES when the host does not let us read it."""
        fd = self._open_lower(inode)
        inode.blocks = 0
        try:
            self.store.fill(inode, fd, self.host.status(fd)[S_SIZE])
        finally:
            self.host.close(fd)
        inode.dirty = True

    def truncate(self, dentry: Dentry, size: int) -> None:
        """Nothing needs to be copied for a size of 0."""
        inode = dentry.inode
        assert inode is not None
        if inode.data is None:
            if size == 0:
                inode.data = FileData()
                inode.blocks = 0
            else:
                self.copy_up(inode)
        inode.dirty = True
        super().truncate(dentry, size)

    def _is_ours(self, inode: Inode) -> bool:
        return inode.ino >= _FIRST_UPPER_INO

    # -- names --------------------------------------------------------------------------------------------------

    def _detach(self, dentry: Dentry) -> None:
        """Leave a whiteout where the lower layer has the name."""
        parent = dentry.parent
        assert parent.inode is not None
        if parent.inode.lower is None:
            del parent.children[dentry.name]
            return
        left = parent.children[dentry.name] = Dentry(dentry.name, parent, None)
        left.pinned = not dentry.pinned or self._lower_has(parent.inode.lower, dentry.name)

    def _lower_has(self, directory: bytes, name: bytes) -> bool:
        try:
            self.host.status_at(self.lower.directory(directory), name)
        except OSError as error:
            return error.errno not in (ENOENT, ENOTDIR)
        return True

    def _drop(self, dentry: Dentry) -> None:
        """A removed directory has nothing below any more."""
        super()._drop(dentry)
        inode = dentry.inode
        if inode is not None and inode.nlink == 0 and inode.mode & _FORMAT == stat.S_IFDIR:
            inode.lower = None

    # -- memory -------------------------------------------------------------------------------------------------

    def prune(self) -> None:
        """Forget every clean entry that nobody holds: it can be looked up again."""
        self.cached = self._prune_below(self.root)

    def _prune_below(self, directory: Dentry) -> int:
        """Prune *directory*'s subtree; return how many entries that could be looked up again are left."""
        left = 0
        for name, child in list(directory.children.items()):
            if child.children:
                left += self._prune_below(child)
            inode = child.inode
            clean = inode is None or not (inode.dirty or inode.opens or child.children)
            if clean and not child.pinned and not child.mounts:
                del directory.children[name]
            elif not child.pinned:
                left += 1
        return left
