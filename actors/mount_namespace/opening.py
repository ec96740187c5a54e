"""open(2) and its relatives.

Linux: fs/namei.c path_openat, open_last_lookups, do_open, may_open; fs/open.c build_open_flags.  The order of the
checks is Linux's, because programs depend on which errno wins.
"""

from __future__ import annotations

import os
import stat
from errno import EACCES, EEXIST, EINVAL, EISDIR, ELOOP, ENOENT, ENOTDIR, ENXIO, EPERM, EROFS
from typing import TYPE_CHECKING, Final

from ...messages.mount_namespace import Opened, StatusReply
from .errors import MagicLinkMet, NameMissing, fail
from .mounts import MS_NODEV, MS_NOEXEC
from .permissions import CAP_FSETID, EXECUTE, READ, WRITE, capable, check_access, is_owner
from .tree import status_reply
from .watches import Cause

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...messages.mount_namespace import Open
    from .inode import Dentry, Inode
    from .mounts import Mount, Place
    from .tree import Tree
    from .walk import Walk

__all__ = ["open_path"]

_FORMAT: Final = 0o170000
_O_TMPFILE_BIT: Final = os.O_TMPFILE & ~os.O_DIRECTORY
_WANT: Final = (READ, WRITE, READ | WRITE, READ | WRITE)
_CHANGES: Final = os.O_ACCMODE | os.O_TRUNC | os.O_CREAT
#: What is said of the attributes where no lease is given.
_UNKNOWN: Final = StatusReply(status=b"", magic="", proc_pid=0, rest=b"")


def open_path(tree: Tree, request: Open, give: Callable[[int], int]) -> Opened:
    """Open what the request names; *give* turns a host descriptor into a token for the asker."""
    flags = _normalised(request.flags)
    try:
        return _open(tree, request, flags, give)
    except MagicLinkMet as met:
        return _nothing(proc_pid=met.pid, magic=met.magic, rest=met.rest)
    except NameMissing as error:
        if not tree.store.leases.grant_absence(error.name):
            raise
        return _nothing(missing=error.name)


def _nothing(*, proc_pid: int = 0, magic: str = "", rest: bytes = b"", missing: bytes = b"") -> Opened:
    """Return the reply that says why nothing was opened."""
    return Opened(
        handle=0,
        mode=0,
        ino=0,
        dev=0,
        rdev=0,
        token=-1,
        path=b"",
        content=None,
        proc_file="",
        proc_pid=proc_pid,
        magic=magic,
        rest=rest,
        missing=missing,
    )


def _normalised(flags: int) -> int:
    """Check flags against each other as build_open_flags does. EINVAL."""
    if flags & os.O_PATH:
        return flags & (os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    if flags & _O_TMPFILE_BIT:
        if not flags & os.O_DIRECTORY or flags & os.O_CREAT or flags & os.O_ACCMODE == os.O_RDONLY:
            fail(EINVAL)
    elif flags & os.O_CREAT and flags & os.O_DIRECTORY:
        fail(EINVAL)
    return flags


def _open(tree: Tree, request: Open, flags: int, give: Callable[[int], int]) -> Opened:
    if not request.path and not flags & os.O_PATH:
        # Only a ThreadGroup's own re-opening of what it holds (/proc/self/fd/N) comes without a path.
        place = tree.handles.place(request.base)
        return _finish(tree, request, flags, place, False, give)
    if not flags & (os.O_CREAT | _O_TMPFILE_BIT) and not request.resolve and request.path:
        place, stable = tree.locate(request.root, request.base, request.path, request.who, not flags & os.O_NOFOLLOW)
        return _finish(tree, request, flags, place, False, give, stable=stable)
    walk = tree.walk(request.root, request.base, request.path, request.who, request.resolve)
    if flags & _O_TMPFILE_BIT == _O_TMPFILE_BIT:
        return _finish(tree, request, flags, _make_unnamed(walk, request), True, give)
    if not flags & os.O_CREAT:
        place = walk.to_end(not flags & os.O_NOFOLLOW)
        return _finish(tree, request, flags, place, False, give)
    place, created = _find_or_create(tree, walk, request, flags)
    return _finish(tree, request, flags, place, created, give)


def _find_or_create(tree: Tree, walk: Walk, request: Open, flags: int) -> tuple[Place, bool]:
    """Walk to the last component and through its symbolic links; create the file where it is missing."""
    while True:
        name = walk.to_parent()
        if name in (b".", b"..", b"/"):
            walk.enter(name)
            return (walk.mount, walk.dentry), False
        if walk.slash:
            fail(EISDIR)
        found = walk.look(name)
        if found is None:
            made = _create(walk, name, request)
            assert made.inode is not None
            tree.watches.named(walk.dentry, name, made.inode, Cause.CREATE)
            return (walk.mount, made), True
        assert found.inode is not None
        is_link = found.inode.mode & _FORMAT == stat.S_IFLNK
        if not is_link or flags & (os.O_NOFOLLOW | os.O_EXCL):
            if not flags & os.O_EXCL:
                _check_sticky_directory(walk, found.inode, request)
            return tree.mounts.cross(walk.mount, found), False
        walk.follow_last(found)


def _check_sticky_directory(walk: Walk, inode: Inode, request: Open) -> None:
    """may_create_in_sticky: EACCES for O_CREAT on a stranger's node in /tmp.

    Regular files and FIFOs are let through, because fs.protected_regular and fs.protected_fifos are 0.
    """
    directory = walk.dentry.inode
    assert directory is not None
    if directory.mode & 0o1002 != 0o1002 or inode.mode & _FORMAT in (stat.S_IFREG, stat.S_IFIFO, stat.S_IFDIR):
        return
    if inode.uid not in (directory.uid, request.who.fsuid):
        fail(EACCES)


def _create(walk: Walk, name: bytes, request: Open) -> Dentry:
    directory = walk.dentry
    assert directory.inode is not None
    if directory.gone:
        fail(ENOENT)
    if walk.mount.read_only:
        fail(EROFS)
    check_access(directory.inode, request.who, WRITE | EXECUTE)
    mode = stat.S_IFREG | request.mode & 0o7777
    return directory.inode.fs.create(directory, name, mode, request.who, 0, b"")


def _make_unnamed(walk: Walk, request: Open) -> Place:
    """O_TMPFILE: the path names the directory."""
    mount, directory = walk.to_end()
    inode = directory.inode
    assert inode is not None
    if inode.mode & _FORMAT != stat.S_IFDIR:
        fail(ENOTDIR)
    if mount.read_only:
        fail(EROFS)
    check_access(inode, request.who, WRITE | EXECUTE)
    return mount, inode.fs.make_unnamed(directory, request.mode & 0o7777, request.who)


def _finish(
    tree: Tree,
    request: Open,
    flags: int,
    place: Place,
    created: bool,
    give: Callable[[int], int],
    *,
    stable: bool = False,
) -> Opened:
    """Check that the found file may be opened so, open it, and make the reply."""
    mount, dentry = place
    inode = dentry.inode
    assert inode is not None
    kind = inode.mode & _FORMAT
    tree.handles.check_room()
    if not created:
        _check_found(mount, dentry, request, flags)
    if flags & os.O_PATH:
        return _reply(tree, request, flags, place, -1)
    truncated = bool(flags & os.O_TRUNC) and kind == stat.S_IFREG and not created
    if truncated and not inode.proc_file and not inode.content:
        inode.fs.truncate(dentry, 0)
    fd = -1
    if kind == stat.S_IFREG:
        fd = inode.fs.open_file(dentry, flags)
        if flags & os.O_ACCMODE and inode.data is not None and not capable(request.who, CAP_FSETID):
            inode.data.drops_privileges = True
    elif kind == stat.S_IFIFO:
        fd = inode.fs.open_fifo(inode, flags)
    elif kind == stat.S_IFSOCK:
        fail(ENXIO)
    if request.who.tgid:
        tree.watches.changed(dentry, Cause.OPEN)
    else:
        # A restored worker opens what it had open: nobody shall see an open or a close in that.
        tree.handles.get(request.base).quiet = True
    if truncated:
        tree.watches.changed(dentry, Cause.MODIFY)
    # What is opened for writing will change, and who watches is told of each opening.
    leased = stable and not flags & _CHANGES and not tree.watches.by_inode
    return _reply(tree, request, flags, place, fd if fd < 0 else give(fd), leased=leased)


def _check_found(mount: Mount, dentry: Dentry, request: Open, flags: int) -> None:
    """The checks of do_open and may_open on a file that exists."""
    inode = dentry.inode
    assert inode is not None
    kind = inode.mode & _FORMAT
    if flags & os.O_CREAT and not flags & _O_TMPFILE_BIT:
        if flags & os.O_EXCL:
            fail(EEXIST)
        if kind == stat.S_IFDIR:
            fail(EISDIR)
    if flags & os.O_DIRECTORY and kind != stat.S_IFDIR:
        fail(ENOTDIR)
    if flags & os.O_PATH:
        return
    want = _WANT[flags & os.O_ACCMODE]
    if flags & os.O_TRUNC:
        want |= WRITE
        if kind == stat.S_IFREG and mount.read_only:
            fail(EROFS)
    if request.for_exec:
        want = EXECUTE
    _check_kind(mount, kind, want)
    check_access(inode, request.who, want)
    if want & WRITE and mount.read_only and kind == stat.S_IFREG:
        fail(EROFS)
    if flags & os.O_NOATIME and not is_owner(inode, request.who):
        fail(EPERM)
    if want & WRITE and inode.fs.is_virtual and not inode.mode & 0o222:
        fail(EACCES)


def _check_kind(mount: Mount, kind: int, want: int) -> None:
    """Which kinds of files can be opened at all for *want*."""
    if kind == stat.S_IFLNK:
        fail(ELOOP)
    if kind == stat.S_IFDIR:
        if want & WRITE:
            fail(EISDIR)
        if want & EXECUTE:
            fail(EACCES)
    elif kind in (stat.S_IFCHR, stat.S_IFBLK):
        if mount.flags & MS_NODEV or want & EXECUTE:
            fail(EACCES)
    elif want & EXECUTE and (kind != stat.S_IFREG or mount.flags & MS_NOEXEC):
        fail(EACCES)


def _reply(tree: Tree, request: Open, flags: int, place: Place, token: int, *, leased: bool = False) -> Opened:
    inode = place[1].inode
    assert inode is not None
    handle = tree.handles.add(*place, flags)
    content = None
    status = status_reply(*place, stable=True) if leased else _UNKNOWN
    if token >= 0 and inode.data is not None:
        handle.data = inode.data
    elif inode.content and not flags & os.O_PATH:
        content = inode.fs.generate(inode, request.who, tree.handles.place(request.root))
    return Opened(
        handle=handle.number,
        mode=inode.mode,
        ino=inode.ino,
        dev=inode.fs.dev,
        rdev=inode.rdev,
        token=token,
        path=tree.path_of(request.root, place),
        content=content,
        proc_file=inode.proc_file,
        proc_pid=inode.pid,
        magic="",
        rest=b"",
        watched=tree.watches.wanted(place[1]),
        limited=token >= 0 and inode.data is not None and bool(flags & os.O_ACCMODE),
        status=status.status,
        lease=status.lease,
        host_ctime_ns=status.host_ctime_ns,
        place=tree.place_number(*place) if inode.mode & _FORMAT == stat.S_IFDIR else 0,
    )
