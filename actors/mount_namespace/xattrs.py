"""Extended attributes.

Linux: fs/xattr.c.  user.* on regular files and directories, trusted.* and security.* with their capabilities; none are
read from a lower layer, and there are no ACLs (EOPNOTSUPP).
"""

from __future__ import annotations

import stat
from errno import E2BIG, EEXIST, EINVAL, ENODATA, ENOSPC, EOPNOTSUPP, EPERM, ERANGE, EROFS
from typing import TYPE_CHECKING, Final

from ...config.limits import MAX_XATTR_BYTES
from ...messages.mount_namespace import XattrValue
from .errors import fail
from .permissions import CAP_SYS_ADMIN, READ, WRITE, capable, check_access, is_owner
from .watches import Cause

if TYPE_CHECKING:
    from ...messages.mount_namespace import Credentials, XattrChange
    from .inode import Inode
    from .tree import Tree

__all__ = ["change_xattr"]

_FORMAT: Final = 0o170000
_XATTR_CREATE, _XATTR_REPLACE = 1, 2
_NAME_MAX, _VALUE_MAX = 255, 65536


def change_xattr(tree: Tree, request: XattrChange) -> XattrValue:
    """getxattr, setxattr, listxattr, removexattr."""
    if request.operation in ("get", "set", "remove") and not 0 < len(request.name) <= _NAME_MAX:
        fail(ERANGE)
    mount, dentry = tree.find(request.root, request.base, request.path, request.who, request.follow)
    inode = dentry.inode
    assert inode is not None
    if request.operation == "list":
        return XattrValue(value=_list(inode, request.who))
    if request.operation == "get":
        _check_name(inode, request, READ)
        value = (inode.xattrs or {}).get(request.name)
        if value is None:
            fail(ENODATA)
        return XattrValue(value=value)
    if mount.read_only:
        fail(EROFS)
    _check_name(inode, request, WRITE)
    if request.operation == "set":
        _set(inode, request)
    else:
        _remove(inode, request.name)
    inode.ctime_ns = tree.store.time.now_ns()
    inode.fs.changed(dentry, frozenset({"xattrs"}))
    tree.watches.changed(dentry, Cause.ATTRIB)
    return XattrValue(value=b"")


def _list(inode: Inode, who: Credentials) -> bytes:
    names = inode.xattrs or {}
    shown = [n for n in names if not n.startswith(b"trusted.") or capable(who, CAP_SYS_ADMIN)]
    return b"".join(name + b"\0" for name in shown)


def _check_name(inode: Inode, request: XattrChange, want: int) -> None:
    """xattr_permission, and whether the file system has such attributes."""
    name, who = request.name, request.who
    kind = inode.mode & _FORMAT
    if name.startswith(b"user."):
        if kind not in (stat.S_IFREG, stat.S_IFDIR):
            fail(EPERM if want == WRITE else ENODATA)
        sticky = kind == stat.S_IFDIR and inode.mode & stat.S_ISVTX
        if sticky and want == WRITE and not is_owner(inode, who):
            fail(EPERM)
        check_access(inode, who, want)
    elif name.startswith(b"trusted."):
        if not capable(who, CAP_SYS_ADMIN):
            fail(EPERM if want == WRITE else ENODATA)
    elif name.startswith(b"security."):
        if want == WRITE and not capable(who, CAP_SYS_ADMIN):
            fail(EPERM)
    else:
        fail(EOPNOTSUPP)
    if not inode.fs.in_memory:
        fail(EOPNOTSUPP)
    if name in (b"user.", b"trusted.", b"security."):
        fail(EINVAL)


def _set(inode: Inode, request: XattrChange) -> None:
    if request.flags & ~(_XATTR_CREATE | _XATTR_REPLACE):
        fail(EINVAL)
    if len(request.value) > _VALUE_MAX:
        fail(E2BIG)
    known = inode.xattrs if inode.xattrs is not None else {}
    if request.flags & _XATTR_CREATE and request.name in known:
        fail(EEXIST)
    if request.flags & _XATTR_REPLACE and request.name not in known:
        fail(ENODATA)
    held = sum(len(name) + len(value) for name, value in known.items())
    if held + len(request.name) + len(request.value) > MAX_XATTR_BYTES:
        fail(ENOSPC)
    known[request.name] = request.value
    inode.xattrs = known


def _remove(inode: Inode, name: bytes) -> None:
    if inode.xattrs is None or name not in inode.xattrs:
        fail(ENODATA)
    del inode.xattrs[name]
