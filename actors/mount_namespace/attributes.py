"""chmod, chown, utimensat, truncate; access times.

Linux: fs/attr.c setattr_prepare, fs/open.c, fs/utimes.c, fs/inode.c atime_needs_update.
"""

from __future__ import annotations

import stat
from errno import EACCES, EINVAL, EISDIR, EOPNOTSUPP, EPERM, EROFS
from typing import TYPE_CHECKING, Final

from ...messages.mount_namespace import StatusReply
from .errors import MagicLinkMet, fail
from .file_data import without_privileges
from .mounts import MS_NOATIME, MS_NODIRATIME
from .permissions import CAP_CHOWN, CAP_FSETID, WRITE, capable, check_access, in_group, is_owner, may_access
from .walk import WALKED_THROUGH
from .watches import Cause

if TYPE_CHECKING:
    from ...messages.mount_namespace import ChangeAttributes, Credentials
    from .inode import Dentry, Inode
    from .mounts import Mount
    from .tree import Tree
    from .watches import WatchTable

__all__ = ["change_attributes", "touch_atime"]

_FORMAT: Final = 0o170000
_DAY_NS: Final = 24 * 3600 * 1_000_000_000
_NOW: Final = -1
#: chown(2)'s "leave it": the call still takes set-id bits away, so it is not the same as a field that is None.
_KEEP: Final = (None, -1, 0xFFFFFFFF)


def touch_atime(mount: Mount, inode: Inode) -> None:
    """Update the access time of a directory or link as relatime does; files in memory carry their own."""
    if mount.read_only or mount.flags & MS_NOATIME or not inode.fs.in_memory:
        return
    if mount.flags & MS_NODIRATIME and inode.mode & _FORMAT == stat.S_IFDIR:
        return
    now = inode.fs.store.time.now_ns()
    is_old = inode.atime_ns <= max(inode.mtime_ns, inode.ctime_ns) or now - inode.atime_ns >= _DAY_NS
    if is_old and (inode.lower is None or inode.dirty):
        inode.atime_ns = now
        inode.changed()


def change_attributes(tree: Tree, request: ChangeAttributes) -> StatusReply:
    """Check all that is asked for, in Linux's order, then change it."""
    from .tree import status_reply

    try:
        mount, dentry = tree.find(request.root, request.base, request.path, request.who, request.follow)
    except MagicLinkMet as met:
        return StatusReply(status=b"", magic=met.magic, proc_pid=met.pid, rest=met.rest)
    inode = dentry.inode
    assert inode is not None
    inode.fs.refresh(inode)
    if request.size is not None:
        _check_truncate(mount, inode, request)
    if mount.read_only:
        fail(EROFS)
    inode.fs.may_change(inode)
    _check_owner_change(inode, request)
    _check_mode_and_times(inode, request)
    try:
        _apply(dentry, request, tree.watches)
    finally:
        if inode.mode & _FORMAT in WALKED_THROUGH and _changes_passage(request):
            tree.end_walks()
    return status_reply(mount, dentry)


def _changes_passage(request: ChangeAttributes) -> bool:
    """Tell whether walks may pass, or not pass any more, what is changed."""
    return request.mode is not None or request.uid is not None or request.gid is not None


def _check_truncate(mount: Mount, inode: Inode, request: ChangeAttributes) -> None:
    """EISDIR, EINVAL; EROFS and EACCES only by path: a descriptor was checked when it was opened."""
    kind = inode.mode & _FORMAT
    if kind == stat.S_IFDIR:
        fail(EISDIR)
    if kind != stat.S_IFREG:
        fail(EINVAL)
    if request.size is not None and request.size < 0:
        fail(EINVAL)
    if request.path:
        if mount.read_only:
            fail(EROFS)
        check_access(inode, request.who, WRITE)


def _check_owner_change(inode: Inode, request: ChangeAttributes) -> None:
    """EPERM: only root gives files away; owners choose among their own groups."""
    who = request.who
    if capable(who, CAP_CHOWN):
        return
    owner = who.fsuid == inode.uid
    if request.uid not in _KEEP and not (owner and request.uid == inode.uid):
        fail(EPERM)
    gid = request.gid
    if gid is not None and gid not in _KEEP and not (owner and (in_group(gid, who) or gid == inode.gid)):
        fail(EPERM)


def _check_mode_and_times(inode: Inode, request: ChangeAttributes) -> None:
    if request.mode is not None:
        if inode.mode & _FORMAT == stat.S_IFLNK:
            fail(EOPNOTSUPP)
        if not is_owner(inode, request.who):
            fail(EPERM)
    if request.atime_ns is None and request.mtime_ns is None:
        return
    if is_owner(inode, request.who):
        return
    if request.atime_ns == _NOW and request.mtime_ns == _NOW:
        if not may_access(inode, request.who, WRITE):
            fail(EACCES)
    else:
        fail(EPERM)


def _apply(dentry: Dentry, request: ChangeAttributes, watches: WatchTable) -> None:
    inode = dentry.inode
    assert inode is not None
    fields: set[str] = set()
    now = inode.fs.store.time.now_ns()
    if request.size is not None:
        inode.fs.truncate(dentry, request.size)
        _drop_privileges(inode, request.who)
    if request.uid is not None or request.gid is not None:
        _set_owner(inode, request)
        fields.add("owner")
    if request.mode is not None:
        _set_mode(inode, request)
        fields.add("mode")
    if request.atime_ns is not None or request.mtime_ns is not None:
        if request.atime_ns is not None:
            inode.atime_ns = now if request.atime_ns == _NOW else request.atime_ns
        if request.mtime_ns is not None:
            inode.mtime_ns = now if request.mtime_ns == _NOW else request.mtime_ns
        fields.add("times")
    if fields:
        inode.ctime_ns = now
        inode.fs.changed(dentry, frozenset(fields))
    cause = _cause(request)
    if cause:
        watches.changed(dentry, cause)


def _cause(request: ChangeAttributes) -> int:
    """As fsnotify_change tells it."""
    cause = Cause.MODIFY if request.size is not None else 0
    if request.uid is not None or request.gid is not None or request.mode is not None:
        cause |= Cause.ATTRIB
    if request.atime_ns is not None and request.mtime_ns is not None:
        cause |= Cause.ATTRIB
    elif request.atime_ns is not None:
        cause |= Cause.ACCESS
    elif request.mtime_ns is not None:
        cause |= Cause.MODIFY
    return cause


def _set_owner(inode: Inode, request: ChangeAttributes) -> None:
    """A new owner or group takes the set-id bits away from anything but a directory."""
    if inode.mode & _FORMAT != stat.S_IFDIR:
        mode = inode.mode & ~stat.S_ISUID
        if mode & 0o2010 == 0o2010 or mode & stat.S_ISGID and not _keeps_sgid(inode, inode.gid, request.who):
            mode &= ~stat.S_ISGID
        inode.mode = mode
    if request.uid is not None and request.uid not in _KEEP:
        inode.uid = request.uid
    if request.gid is not None and request.gid not in _KEEP:
        inode.gid = request.gid


def _keeps_sgid(inode: Inode, gid: int, who: Credentials) -> bool:
    return in_group(gid, who) or capable(who, CAP_FSETID)


def _set_mode(inode: Inode, request: ChangeAttributes) -> None:
    assert request.mode is not None
    mode = request.mode & 0o7777
    if mode & stat.S_ISGID and not _keeps_sgid(inode, inode.gid, request.who):
        mode &= ~stat.S_ISGID
    inode.mode = inode.mode & _FORMAT | mode


def _drop_privileges(inode: Inode, who: Credentials) -> None:
    """A change of contents by anybody without CAP_FSETID takes the set-id bits away."""
    if capable(who, CAP_FSETID) or inode.mode & _FORMAT != stat.S_IFREG:
        return
    inode.mode = without_privileges(inode.mode)
    inode.changed()
