"""Walking a path from a place to a place.

Linux: fs/namei.c, link_path_walk and its callers.  The loop in :meth:`Walk.advance` runs for every component of every
path of the guest: it decides with one test whether a directory lets everybody pass, finds a known name with one
dictionary look-up, and calls the file system only for names that it does not know.
"""

from __future__ import annotations

import functools
import stat
from errno import EACCES, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, EXDEV
from typing import TYPE_CHECKING, Final, TypeVar

from .errors import MagicLinkMet, fail
from .mounts import MS_NOSYMFOLLOW
from .permissions import EXECUTE, check_access, may_follow

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...messages.mount_namespace import Credentials
    from .inode import Dentry, Inode
    from .mounts import MountTable, Place
    from .tree import Tree

__all__ = ["NAME_MAX", "PATH_MAX", "WALKED_THROUGH", "Walk", "ends_walks"]

_Request = TypeVar("_Request")
_Reply = TypeVar("_Reply")

NAME_MAX, PATH_MAX, MAX_LINKS = 255, 4096, 40
RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH, RESOLVE_IN_ROOT = 1, 2, 4, 8, 16

#: File type and the three search bits: a directory that everybody may pass.
_TYPE_AND_SEARCH, _OPEN_DIRECTORY = 0o170111, 0o040111
_FORMAT, _DIRECTORY, _LINK = 0o170000, stat.S_IFDIR, stat.S_IFLNK
#: Kinds of files on the way of a walk, not only at its end.
WALKED_THROUGH: Final = (_DIRECTORY, _LINK)


def ends_walks(operation: Callable[[Tree, _Request], _Reply]) -> Callable[[Tree, _Request], _Reply]:
    """Declare an operation that may change where any walk ends: what is known of that is forgotten after it."""

    @functools.wraps(operation)
    def run(tree: Tree, request: _Request) -> _Reply:
        try:
            return operation(tree, request)
        finally:
            tree.end_walks()

    return run


class Walk:
    """One walk in progress: where it is, and the components that are left (last first)."""

    __slots__ = (
        "_links",
        "_mounts",
        "_pending",
        "_relative",
        "_resolve",
        "_root",
        "dentry",
        "missing",
        "mount",
        "slash",
        "stable",
        "who",
    )

    def __init__(
        self, mounts: MountTable, root: Place, base: Place, path: bytes, who: Credentials, resolve: int = 0
    ) -> None:
        """Start at *base*, or at *root* for an absolute path. *resolve* is openat2's RESOLVE_*."""
        if len(path) >= PATH_MAX:
            fail(ENAMETOOLONG)
        if not path:
            fail(ENOENT)
        self._mounts = mounts
        self._root = root
        self._resolve = resolve
        self._links = 0
        self._relative = path[0] != 47
        self.who = who
        self.mount, self.dentry = base
        #: The path ends in a slash, so it must lead to a directory.
        self.slash = False
        #: The name for want of which it failed with ENOENT.
        self.missing = b""
        self._pending: list[bytes] = []
        if resolve:
            self._confine(base, path)
        elif path[0] == 47:
            self.mount, self.dentry = root
        #: It has met only file systems whose names change by requests alone, so it would end there again.
        self.stable = self.mount.fs.in_memory
        self._push(path)

    def _confine(self, base: Place, path: bytes) -> None:
        if self._resolve & (RESOLVE_BENEATH | RESOLVE_IN_ROOT):
            if path[0] == 47 and self._resolve & RESOLVE_BENEATH:
                fail(EXDEV)
            self._root = base
        elif path[0] == 47:
            if self._resolve & RESOLVE_NO_XDEV and self._root[0] is not base[0]:
                fail(EXDEV)
            self.mount, self.dentry = self._root

    def _push(self, path: bytes) -> None:
        """Put the components of *path* before those that are left."""
        parts = [part for part in path.split(b"/") if part]
        if not self._pending and path[-1] == 47:
            self.slash = True
        parts.reverse()
        self._pending += parts

    # -- the ways to walk ---------------------------------------------------------------------------------------

    def to_end(self, follow: bool = True) -> Place:
        """Walk the whole path; *follow*: a symbolic link at its end, too. ENOENT, ENOTDIR, EACCES, ELOOP..."""
        self.advance(0, follow)
        if self.slash and (self.dentry.inode is None or self.dentry.inode.mode & _FORMAT != _DIRECTORY):
            fail(ENOTDIR)
        return self.mount, self.dentry

    def to_parent(self) -> bytes:
        """Walk all but the last component and return it: a name, b".", b"..", or b"/" when there is none.

        The walk then stands at a directory that *who* may search (or the request fails).
        """
        self.advance(1, True)
        name = self._pending.pop() if self._pending else b"/"
        inode = self.dentry.inode
        if inode is None or inode.mode & _TYPE_AND_SEARCH != _OPEN_DIRECTORY:
            self._check_search(inode)
        if len(name) > NAME_MAX:
            fail(ENAMETOOLONG)
        return name

    def enter(self, name: bytes) -> None:
        """Take the step that ``to_parent`` left out; b"/" (no component at all) is where the walk stands."""
        if name != b"/":
            self._pending.append(name)
            self.advance(0, False)

    def look(self, name: bytes) -> Dentry | None:
        """Return the positive entry *name* of the directory where the walk stands, mounts on it not crossed."""
        child = self.dentry.children.get(name)
        if child is None and self.dentry.inode is not None:
            child = self.dentry.inode.fs.lookup(self.dentry, name, self.who)
        return child if child is not None and child.inode is not None else None

    # -- steps --------------------------------------------------------------------------------------------------

    def advance(self, keep: int, follow: bool) -> None:
        """Walk until *keep* components are left."""
        pending = self._pending
        mount, dentry = self.mount, self.dentry
        while len(pending) > keep:
            name = pending.pop()
            inode = dentry.inode
            if inode is None or inode.mode & _TYPE_AND_SEARCH != _OPEN_DIRECTORY:
                self._check_search(inode)
                assert inode is not None
            child = dentry.children.get(name)
            if child is None:
                if name == b".":
                    continue
                if name == b"..":
                    self.mount, self.dentry = mount, dentry
                    self._step_up()
                    mount, dentry = self.mount, self.dentry
                    continue
                if len(name) > NAME_MAX:
                    fail(ENAMETOOLONG)
                child = inode.fs.lookup(dentry, name, self.who)
            child_inode = None if child is None else child.inode
            if child is None or child_inode is None:
                self.missing = name
                fail(ENOENT, name)
            if child.mounts:
                mount, child = self._cross(mount, child)
            elif child_inode.mode & _FORMAT == _LINK and (pending or follow or self.slash):
                self.mount, self.dentry = mount, dentry
                self._follow(inode, child, child_inode)
                mount, dentry = self.mount, self.dentry
                continue
            dentry = child
        self.mount, self.dentry = mount, dentry

    def _check_search(self, inode: Inode | None) -> None:
        """ENOTDIR or EACCES where the fast test in ``advance`` did not let everybody pass."""
        if inode is None or inode.mode & _FORMAT != _DIRECTORY:
            fail(ENOTDIR)
        check_access(inode, self.who, EXECUTE)

    def _cross(self, mount: object, child: Dentry) -> Place:
        place = self._mounts.cross(mount, child)  # type: ignore[arg-type]
        if self._resolve & RESOLVE_NO_XDEV and place[0] is not mount:
            fail(EXDEV)
        if not place[0].fs.in_memory:
            self.stable = False
        return place

    def _step_up(self) -> None:
        """Take "..": stay at the root, leave a mount at its own root."""
        mount, dentry = self.mount, self.dentry
        while True:
            if dentry is self._root[1] and mount is self._root[0]:
                if self._resolve & RESOLVE_BENEATH:
                    fail(EXDEV)
                break
            if dentry is not mount.root:
                dentry = dentry.parent
                break
            if mount.parent is mount:
                break
            if self._resolve & RESOLVE_NO_XDEV:
                fail(EXDEV)
            mount, dentry = mount.parent, mount.dentry
            self.stable = self.stable and mount.fs.in_memory
        self.mount, self.dentry = self._mounts.cross(mount, dentry) if dentry.mounts else (mount, dentry)

    def follow_last(self, link: Dentry) -> None:
        """Follow the symbolic link *link* of the directory where the walk stands; more components are then left."""
        assert self.dentry.inode is not None
        assert link.inode is not None
        self._follow(self.dentry.inode, link, link.inode)

    def _follow(self, directory: Inode, link: Dentry, inode: Inode) -> None:
        """Continue with a symbolic link's target."""
        self._links += 1
        if self._links > MAX_LINKS or self._resolve & RESOLVE_NO_SYMLINKS or self.mount.flags & MS_NOSYMFOLLOW:
            fail(ELOOP)
        if not self._pending and not may_follow(directory, inode, self.who):
            fail(EACCES)
        if inode.magic:
            self._meet_magic(inode)
        target = inode.fs.read_link(inode, self.who)
        if not target:
            fail(ENOENT)
        if target[0] == 47:
            # Linux knows the root's mount only of a walk that began there, so it refuses the jump from any other.
            jumps = self._resolve & RESOLVE_NO_XDEV and (self._relative or self._root[0] is not self.mount)
            if self._resolve & RESOLVE_BENEATH or jumps:
                fail(EXDEV)
            self.mount, self.dentry = self._root
            self.stable = self.stable and self.mount.fs.in_memory
        self._push(target)

    def _meet_magic(self, inode: Inode) -> None:
        if self._resolve & RESOLVE_NO_MAGICLINKS:
            fail(ELOOP)
        if self._resolve & (RESOLVE_BENEATH | RESOLVE_IN_ROOT):
            fail(EXDEV)
        rest = b"/".join(reversed(self._pending)) + (b"/" if self.slash else b"")
        raise MagicLinkMet(inode.pid, inode.magic, rest)
