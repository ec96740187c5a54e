"""The mounts of a namespace: which file system is seen where.

Linux: fs/namespace.c, struct mount and struct path.  A place in the tree is a pair (mount, dentry), as in struct path.
The mounts of the sandbox's set-up are locked: the guest cannot unmount them to see what is below.
"""

from __future__ import annotations

from errno import EBUSY, EINVAL, ENOSPC
from typing import TYPE_CHECKING, Final

from ...config.limits import MAX_MOUNTS
from .errors import fail

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .file_system import FileSystem
    from .inode import Dentry

__all__ = ["MS_NODEV", "MS_NOEXEC", "MS_NOSUID", "MS_RDONLY", "Mount", "MountTable", "Place"]

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_NOATIME, MS_NODIRATIME, MS_RELATIME, MS_NOSYMFOLLOW = 1024, 2048, 1 << 21, 256
#: Flags that belong to a mount and not to an operation.
MOUNT_FLAGS: Final = (
    MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_NODIRATIME | MS_RELATIME | MS_NOSYMFOLLOW
)

_FLAG_NAMES: Final = (
    (MS_NOSUID, b"nosuid"),
    (MS_NODEV, b"nodev"),
    (MS_NOEXEC, b"noexec"),
    (MS_NOATIME, b"noatime"),
    (MS_NODIRATIME, b"nodiratime"),
    (MS_RELATIME, b"relatime"),
    (MS_NOSYMFOLLOW, b"nosymfollow"),
)


class Mount:
    """One file system (or a directory of it) at one place."""

    __slots__ = ("dentry", "flags", "fs", "handles", "id", "locked", "parent", "read_only", "root", "source")

    def __init__(self, number: int, fs: FileSystem, root: Dentry, parent: Mount | None, dentry: Dentry | None) -> None:
        self.id = number
        self.fs = fs
        #: What is seen at the mount point.
        self.root = root
        #: Where it is mounted: a place of another mount; the root mount is its own parent.
        self.parent: Mount = parent if parent is not None else self
        self.dentry: Dentry = dentry if dentry is not None else root
        self.flags = MS_RELATIME
        self.read_only = False
        self.source = b"none"
        #: The guest may not unmount it nor make it writable.
        self.locked = False
        #: Handles on places of this mount.
        self.handles = 0

    def set_flags(self, flags: int) -> None:
        """Set MS_* *flags* that belong to a mount."""
        self.flags = flags
        self.read_only = bool(flags & MS_RDONLY)

    def options(self) -> bytes:
        """Return the per-mount options as /proc/mounts shows them."""
        shown = [b"ro" if self.read_only else b"rw"]
        return b",".join(shown + [name for flag, name in _FLAG_NAMES if self.flags & flag])


#: As struct path.
Place = tuple[Mount, "Dentry"]


class MountTable:
    """All mounts, by number and by mount point."""

    def __init__(self) -> None:
        self.by_id: dict[int, Mount] = {}
        self._at: dict[tuple[int, Dentry], Mount] = {}
        self._next_id = 21

    def add(self, fs: FileSystem, root: Dentry, at: Place | None) -> Mount:
        """Mount *root* of *fs* on *at* (None: it is the namespace's root), on top of what is there."""
        if len(self.by_id) >= MAX_MOUNTS:
            fail(ENOSPC)
        mount = Mount(self._next_id, fs, root, *(at or (None, None)))
        self._next_id += 1
        self.insert(mount)
        return mount

    def insert(self, mount: Mount) -> None:
        """Enter a mount whose fields are set."""
        self.by_id[mount.id] = mount
        self._next_id = max(self._next_id, mount.id + 1)
        self.hold(mount.root)
        if mount.parent is not mount:
            self._at[mount.parent.id, mount.dentry] = mount
            mount.dentry.mounts += 1
            self.hold(mount.dentry)

    def hold(self, dentry: Dentry) -> None:
        """Keep the inode of a mount point or a mount's root."""
        if dentry.inode is not None:
            dentry.inode.opens += 1

    def drop(self, mount: Mount) -> tuple[Dentry, ...]:
        """Take a mount out; return the dentries that it held."""
        del self.by_id[mount.id]
        del self._at[mount.parent.id, mount.dentry]
        mount.dentry.mounts -= 1
        return mount.root, mount.dentry

    def cross(self, mount: Mount, dentry: Dentry) -> Place:
        """Return what is seen at a place: the root of the topmost mount on it, or itself."""
        while dentry.mounts:
            over = self._at.get((mount.id, dentry))
            if over is None:
                break
            mount, dentry = over, over.root
        return mount, dentry

    def children(self, mount: Mount) -> list[Mount]:
        """Return the mounts whose mount point is in *mount*."""
        return [m for m in self.by_id.values() if m.parent is mount and m is not mount]

    def check_unmount(self, mount: Mount) -> None:
        """EINVAL for a locked mount or the root; EBUSY while something below it is open or mounted."""
        if mount.locked or mount.parent is mount:
            fail(EINVAL)
        if mount.handles or self.children(mount):
            fail(EBUSY)

    def path(self, root: Place, place: Place) -> bytes | None:
        """Return the path of *place* from *root*, or None when it is not below it (d_path's "(unreachable)")."""
        mount, dentry = place
        root_mount, root_dentry = root
        names: list[bytes] = []
        while dentry is not root_dentry or mount is not root_mount:
            if dentry is mount.root:
                if mount.parent is mount:
                    return None
                mount, dentry = mount.parent, mount.dentry
                continue
            if dentry.parent is dentry:
                return None
            names.append(dentry.name)
            dentry = dentry.parent
        names.append(b"")
        names.reverse()
        return b"/".join(names) if len(names) > 1 else b"/"

    def below(self, root: Place) -> Iterator[tuple[Mount, bytes]]:
        """Yield the mounts that are seen from *root*, with their paths, in order of mounting."""
        for mount in self.by_id.values():
            place = (mount, mount.root) if mount is root[0] else (mount.parent, mount.dentry)
            path = b"/" if mount is root[0] else self.path(root, place)
            if path is not None:
                yield mount, path
