"""mkdir, mknod, symlink, link, unlink, rmdir, rename.

Linux: fs/namei.c filename_create, do_unlinkat, do_rmdir, do_renameat2, vfs_*.  The order of the checks is Linux's,
because programs depend on which errno wins.  A path that meets a magic link fails as :class:`MagicLinkMet` describes.
"""

from __future__ import annotations

import stat
from errno import EACCES, EBUSY, EEXIST, EINVAL, EISDIR, EMLINK, ENOENT, ENOTDIR, ENOTEMPTY, EPERM, EROFS, EXDEV
from typing import TYPE_CHECKING, Final

from ...messages.mount_namespace import NameRemoved
from .errors import MagicLinkMet, fail
from .permissions import CAP_MKNOD, EXECUTE, WRITE, capable, check_access, check_sticky, may_access, may_link
from .walk import WALKED_THROUGH
from .watches import Cause

if TYPE_CHECKING:
    from ...messages.mount_namespace import Credentials, Link, MakeNode, Rename, Symlink, Unlink
    from .inode import Dentry, Inode
    from .mounts import Mount
    from .tree import Tree
    from .walk import Walk

__all__ = ["link", "make_node", "rename", "symlink", "unlink"]

_FORMAT: Final = 0o170000
_NODE_KINDS: Final = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK)
_RENAME_NOREPLACE, _RENAME_EXCHANGE = 1, 2
_DOTS: Final = (b".", b"..", b"/")
_LINK_MAX: Final = 65000


def _inode(dentry: Dentry) -> Inode:
    assert dentry.inode is not None
    return dentry.inode


def _is_directory(dentry: Dentry) -> bool:
    return _inode(dentry).mode & _FORMAT == stat.S_IFDIR


# -- making names -----------------------------------------------------------------------------------------------


def _walk_to_new_name(walk: Walk, directory_wanted: bool) -> bytes:
    """Walk to where a name shall be made: EEXIST, ENOENT, EROFS, EACCES."""
    name = walk.to_parent()
    if name in _DOTS or walk.look(name) is not None:
        fail(EEXIST, name)
    if walk.slash and not directory_wanted:
        fail(ENOENT, name)
    if walk.mount.read_only:
        fail(EROFS)
    return name


def _check_create(directory: Dentry, who: Credentials) -> None:
    """may_create: ENOENT in a removed directory, EACCES."""
    if directory.gone:
        fail(ENOENT)
    check_access(_inode(directory), who, WRITE | EXECUTE)


def make_node(tree: Tree, request: MakeNode) -> None:
    """mkdir(2), mknod(2)."""
    kind = request.mode & _FORMAT or stat.S_IFREG
    if kind not in _NODE_KINDS:
        fail(EINVAL)
    walk = tree.walk(request.root, request.base, request.path, request.who)
    name = _walk_to_new_name(walk, kind == stat.S_IFDIR)
    directory = walk.dentry
    _check_create(directory, request.who)
    if kind in (stat.S_IFCHR, stat.S_IFBLK) and not capable(request.who, CAP_MKNOD):
        fail(EPERM)
    mode = kind | request.mode & (0o1777 if kind == stat.S_IFDIR else 0o7777)
    made = _inode(directory).fs.create(directory, name, mode, request.who, request.rdev, b"")
    tree.watches.named(directory, name, _inode(made), Cause.CREATE)


def symlink(tree: Tree, request: Symlink) -> None:
    """symlink(2): ENOENT for an empty target."""
    if not request.target:
        fail(ENOENT)
    walk = tree.walk(request.root, request.base, request.path, request.who)
    name = _walk_to_new_name(walk, False)
    _check_create(walk.dentry, request.who)
    mode = stat.S_IFLNK | 0o777
    made = _inode(walk.dentry).fs.create(walk.dentry, name, mode, request.who, 0, request.target)
    tree.watches.named(walk.dentry, name, _inode(made), Cause.CREATE)


def link(tree: Tree, request: Link) -> None:
    """link(2): EPERM for directories and by fs.protected_hardlinks, EXDEV across mounts."""
    try:
        mount, source = tree.find(request.root, request.old_base, request.old_path, request.who, request.follow)
    except MagicLinkMet as met:
        raise MagicLinkMet(met.pid, met.magic, met.rest, "old") from None
    try:
        walk = tree.walk(request.root, request.new_base, request.new_path, request.who)
        name = _walk_to_new_name(walk, False)
    except MagicLinkMet as met:
        raise MagicLinkMet(met.pid, met.magic, met.rest, "new") from None
    inode = _inode(source)
    if mount is not walk.mount:
        fail(EXDEV)
    if not may_link(inode, request.who):
        fail(EPERM)
    _check_create(walk.dentry, request.who)
    if _is_directory(source):
        fail(EPERM)
    if inode.nlink == 0 and not source.name.startswith(b"#"):
        fail(ENOENT)
    if inode.nlink >= _LINK_MAX:
        fail(EMLINK)
    inode.fs.link(source, walk.dentry, name)
    tree.watches.itself(inode, Cause.ATTRIB)
    tree.watches.named(walk.dentry, name, inode, Cause.CREATE)


# -- removing names ---------------------------------------------------------------------------------------------


def _check_delete(directory: Dentry, victim: Dentry, who: Credentials, as_directory: bool) -> None:
    """may_delete: EACCES, EPERM, ENOTDIR, EISDIR, ENOENT."""
    at = _inode(directory)
    check_access(at, who, WRITE | EXECUTE)
    check_sticky(at, _inode(victim), who)
    if as_directory:
        if not _is_directory(victim):
            fail(ENOTDIR)
    elif _is_directory(victim):
        fail(EISDIR)
    if directory.gone:
        fail(ENOENT)


def unlink(tree: Tree, request: Unlink) -> NameRemoved:
    """unlink(2), rmdir(2)."""
    walk = tree.walk(request.root, request.base, request.path, request.who)
    name = walk.to_parent()
    if name in _DOTS:
        fail({b".": EINVAL, b"..": ENOTEMPTY, b"/": EBUSY}[name] if request.directory else EISDIR)
    if walk.mount.read_only:
        fail(EROFS)
    victim = walk.look(name)
    if victim is None:
        fail(ENOENT, name)
    if walk.slash and not request.directory:
        fail(EISDIR if _is_directory(victim) else ENOTDIR)
    _check_delete(walk.dentry, victim, request.who, request.directory)
    if victim.mounts:
        fail(EBUSY)
    fs = _inode(victim).fs
    if request.directory and not fs.is_empty(victim, request.who):
        fail(ENOTEMPTY)
    removed = _inode(victim)
    if removed.mode & _FORMAT in WALKED_THROUGH:
        tree.end_walks()
    ended = tree.store.leases.take_back(removed)
    fs.remove(victim)
    if not request.directory:
        tree.watches.itself(removed, Cause.ATTRIB)
    tree.watches.look_for_end(removed)
    tree.watches.named(walk.dentry, name, removed, Cause.DELETE)
    return NameRemoved(lease=ended)


# -- rename -----------------------------------------------------------------------------------------------------


class _Renaming:
    """Both ends of a rename, found and checked so far."""

    __slots__ = ("exchange", "mount", "new", "new_directory", "new_name", "old", "old_directory", "who")

    mount: Mount
    old: Dentry
    old_directory: Dentry
    #: What has the new name now.
    new: Dentry | None
    new_directory: Dentry
    new_name: bytes
    exchange: bool
    who: Credentials


def rename(tree: Tree, request: Rename) -> None:
    """rename(2), renameat2(2) with NOREPLACE or EXCHANGE; WHITEOUT is EINVAL."""
    flags = request.flags
    if flags & ~(_RENAME_NOREPLACE | _RENAME_EXCHANGE) or flags == _RENAME_NOREPLACE | _RENAME_EXCHANGE:
        fail(EINVAL)
    renaming = _find_ends(tree, request)
    new, old = renaming.new, renaming.old
    _check_ancestry(renaming)
    if new is not None and new.inode is old.inode:
        return
    _check_permissions(renaming)
    _end_walks_to(tree, old, new)
    fs = _inode(old).fs
    if renaming.exchange and new is not None:
        new_name, old_name = new.name, old.name
        fs.exchange(old, new)
        _tell_of_move(tree, _inode(old), (renaming.old_directory, old_name), (renaming.new_directory, new_name))
        _tell_of_move(tree, _inode(new), (renaming.new_directory, new_name), (renaming.old_directory, old_name))
        return
    if new is not None and _is_directory(new) and not fs.is_empty(new, request.who):
        fail(ENOTEMPTY)
    old_name, moved, replaced = old.name, _inode(old), new.inode if new is not None else None
    fs.move(old, renaming.new_directory, renaming.new_name, new)
    _tell_of_move(
        tree, moved, (renaming.old_directory, old_name), (renaming.new_directory, renaming.new_name), replaced
    )


def _end_walks_to(tree: Tree, old: Dentry, new: Dentry | None) -> None:
    """Names move: for plain files only their own paths end, and leases with the files' attributes."""
    moved = [_inode(dentry) for dentry in (old, new) if dentry is not None]
    if any(inode.mode & _FORMAT in WALKED_THROUGH for inode in moved):
        tree.end_walks()
    else:
        tree.places.clear()


def _tell_of_move(
    tree: Tree, moved: Inode, source: tuple[Dentry, bytes], target: tuple[Dentry, bytes], replaced: Inode | None = None
) -> None:
    """Tell those who watch, as fsnotify_move does."""
    watches = tree.watches
    if not watches.by_inode:
        return
    cookie = watches.next_cookie()
    watches.named(*source, moved, Cause.MOVED_FROM, cookie)
    watches.named(*target, moved, Cause.MOVED_TO, cookie)
    if replaced is not None:
        watches.itself(replaced, Cause.ATTRIB)
    watches.itself(moved, Cause.MOVE_SELF)
    if replaced is not None:
        watches.look_for_end(replaced)
    found = target[0].children.get(target[1])
    if found is not None:
        watches.moved(found)


def _walk_sides(tree: Tree, request: Rename) -> tuple[Walk, bytes, Walk, bytes]:
    try:
        old = tree.walk(request.root, request.old_base, request.old_path, request.who)
        old_name = old.to_parent()
    except MagicLinkMet as met:
        raise MagicLinkMet(met.pid, met.magic, met.rest, "old") from None
    try:
        new = tree.walk(request.root, request.new_base, request.new_path, request.who)
        new_name = new.to_parent()
    except MagicLinkMet as met:
        raise MagicLinkMet(met.pid, met.magic, met.rest, "new") from None
    return old, old_name, new, new_name


def _find_ends(tree: Tree, request: Rename) -> _Renaming:
    """Walk to both names: EXDEV, EBUSY, EEXIST, EROFS, ENOENT, ENOTDIR."""
    old_walk, old_name, new_walk, new_name = _walk_sides(tree, request)
    if old_walk.mount is not new_walk.mount:
        fail(EXDEV)
    if old_name in _DOTS:
        fail(EBUSY)
    if new_name in _DOTS:
        fail(EEXIST if request.flags & _RENAME_NOREPLACE else EBUSY)
    if old_walk.mount.read_only:
        fail(EROFS)
    old, new = old_walk.look(old_name), new_walk.look(new_name)
    if old is None:
        fail(ENOENT, old_name)
    exchange = bool(request.flags & _RENAME_EXCHANGE)
    _check_target(request, old, new, old_walk.slash, new_walk.slash)
    found = _Renaming()
    found.mount, found.who, found.exchange = old_walk.mount, request.who, exchange
    found.old, found.old_directory = old, old_walk.dentry
    found.new, found.new_directory, found.new_name = new, new_walk.dentry, new_name
    return found


def _check_target(request: Rename, old: Dentry, new: Dentry | None, old_slash: bool, new_slash: bool) -> None:
    """EEXIST, ENOENT, and ENOTDIR for a trailing slash on what is no directory."""
    if request.flags & _RENAME_NOREPLACE and new is not None:
        fail(EEXIST)
    if request.flags & _RENAME_EXCHANGE:
        if new is None:
            fail(ENOENT)
        if not _is_directory(new) and new_slash:
            fail(ENOTDIR)
    if not _is_directory(old) and (old_slash or new_slash and not request.flags & _RENAME_EXCHANGE):
        fail(ENOTDIR)


def _is_inside(dentry: Dentry, ancestor: Dentry) -> bool:
    """Tell whether *dentry* is *ancestor* or below it."""
    while dentry is not ancestor:
        if dentry.parent is dentry:
            return False
        dentry = dentry.parent
    return True


def _check_ancestry(renaming: _Renaming) -> None:
    """EINVAL for moving a directory into itself, ENOTEMPTY for replacing one's own ancestor."""
    if _is_inside(renaming.new_directory, renaming.old):
        fail(EINVAL)
    if renaming.new is not None and _is_inside(renaming.old_directory, renaming.new):
        fail(EINVAL if renaming.exchange else ENOTEMPTY)


def _check_permissions(renaming: _Renaming) -> None:
    """vfs_rename: may_delete, may_create, write access to a directory whose parent changes, mount points."""
    old, new, who = renaming.old, renaming.new, renaming.who
    is_directory = _is_directory(old)
    _check_delete(renaming.old_directory, old, who, is_directory)
    if new is None:
        _check_create(renaming.new_directory, who)
    else:
        as_directory = _is_directory(new) if renaming.exchange else is_directory
        _check_delete(renaming.new_directory, new, who, as_directory)
    if renaming.old_directory is not renaming.new_directory:
        moved = [old] + ([new] if renaming.exchange and new is not None else [])
        for dentry in moved:
            if _is_directory(dentry) and not may_access(_inode(dentry), who, WRITE):
                fail(EACCES)
    if old.mounts or new is not None and new.mounts:
        fail(EBUSY)
